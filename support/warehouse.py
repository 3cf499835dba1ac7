"""The warehouse as support reads it: parameterised queries over the views, in the cloud and on the emulator alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from contract import queries, tables
from support.connection import Connection

Parameter = str | int | datetime | Sequence[str]
Row = dict[str, Any]

# People wait for the answer: give up on an emulator soon, on Google after the time a big query may take.
_EMULATOR_SECONDS = 20.0
_GOOGLE_SECONDS = 120.0


class WarehouseError(RuntimeError):
    """BigQuery gives no answer; the message says why, as far as it is known, and the remedy."""


class Answer(NamedTuple):
    """The rows of a query, by column name, and how many bytes it read."""

    rows: list[Row]
    bytes_read: int


class Warehouse:
    """Runs queries for a Connection. Its client is made with the first query.

    `seconds` is how long a query may take; by default, what a person waits.
    """

    def __init__(self, connection: Connection, *, seconds: float | None = None) -> None:
        self.connection = connection
        self._seconds = seconds or (_EMULATOR_SECONDS if connection.big_query_endpoint else _GOOGLE_SECONDS)
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The BigQuery client."""
        if self._client is None:
            self._client = _client(self.connection)
        return self._client

    def view(self, name: str) -> str:
        """A view's name as SQL takes it."""
        return f"`{self.connection.project}.{tables.VIEWS_DATASET}.{name}`"

    def prebuilt(self, name: str, **parameters: Parameter) -> list[Row]:
        """The rows of a prebuilt query."""
        return self.rows(queries.query(name, self.connection.project), **parameters)

    def complete_until(self) -> datetime | None:
        """Every change committed before is in the warehouse or is a dead letter. None: no job said so for a week."""
        [row] = self.rows(f"SELECT complete_until FROM {self.view(queries.COMPLETE_UNTIL)}")
        found: datetime | None = row["complete_until"]
        return found

    def dry_run(self, sql: str) -> int:
        """The bytes that a query would read: BigQuery checks it, and runs nothing. Raises WarehouseError."""
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
        try:
            asked = self.client.query(sql, job_config=config, retry=None, job_retry=None, timeout=self._seconds)
        except Exception as error:
            raise _explained(error, self.connection) from error
        return int(asked.total_bytes_processed or 0)

    def rows(self, sql: str, **parameters: Parameter) -> list[Row]:
        """The rows of a query, by column name. Raises WarehouseError."""
        return self.answer(sql, parameters).rows

    def answer(self, sql: str, parameters: Mapping[str, Parameter], *, most_bytes: int | None = None) -> Answer:
        """As `rows`, with the cost. BigQuery refuses to read more than `most_bytes`. Raises WarehouseError."""
        from google.api_core import exceptions
        from google.api_core.retry import Retry, if_exception_type
        from google.cloud import bigquery

        transient = if_exception_type(exceptions.ServiceUnavailable, exceptions.TooManyRequests, exceptions.BadGateway)
        retry = Retry(predicate=transient, initial=0.2, timeout=self._seconds)
        config = bigquery.QueryJobConfig(query_parameters=[_parameter(k, v) for k, v in parameters.items()])
        if most_bytes:
            config.maximum_bytes_billed = most_bytes
        try:
            job = self.client.query(sql, job_config=config, retry=retry, job_retry=None, timeout=self._seconds)
            rows = [dict(row) for row in job.result(retry=retry, job_retry=None, timeout=self._seconds)]
            return Answer(rows, job.total_bytes_processed or 0)
        except Exception as error:
            raise _explained(error, self.connection) from error


def _client(connection: Connection) -> Any:
    from google.cloud import bigquery

    if not connection.big_query_endpoint:
        return bigquery.Client(project=connection.project, location=connection.location or None)
    from google.auth.credentials import AnonymousCredentials

    return bigquery.Client(
        project=connection.project,
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": connection.big_query_endpoint},
    )


def _parameter(name: str, value: Parameter) -> Any:
    from google.cloud.bigquery import ArrayQueryParameter, ScalarQueryParameter

    if isinstance(value, str):
        return ScalarQueryParameter(name, "STRING", value)
    if isinstance(value, int):
        return ScalarQueryParameter(name, "INT64", value)
    if isinstance(value, datetime):
        return ScalarQueryParameter(name, "TIMESTAMP", value)
    return ArrayQueryParameter(name, "STRING", list(value))


def _explained(error: Exception, connection: Connection) -> Exception:
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, RefreshError
    from requests.exceptions import RequestException

    where = connection.big_query_endpoint or "Google Cloud"
    if isinstance(error, exceptions.NotFound):
        return WarehouseError(
            f"project {connection.project} on {where} lacks a view or dataset of the audit service. "
            "Create them with `pulumi up` (`make run` on one machine), or pass the --connection of another stack."
        )
    if isinstance(error, exceptions.Forbidden):
        return WarehouseError(
            f"reading the views of project {connection.project} is not allowed: it takes roles/bigquery.jobUser on the "
            f"project and roles/bigquery.dataViewer on the dataset {tables.VIEWS_DATASET}. Ask for the support group."
        )
    if isinstance(error, (DefaultCredentialsError, RefreshError)):
        return WarehouseError("no valid Google credentials: run `gcloud auth application-default login`.")
    if isinstance(error, (RequestException, exceptions.RetryError, exceptions.ServerError, TimeoutError)):
        return WarehouseError(
            f"BigQuery on {where} does not answer. Look at `audit local status`, start the stack with `make run`, "
            "or pass the --connection of another stack."
        )
    if isinstance(error, exceptions.GoogleAPICallError):
        # Its message can quote the query's values.
        return WarehouseError(f"BigQuery on {where} refused the query ({type(error).__name__}).")
    return error
