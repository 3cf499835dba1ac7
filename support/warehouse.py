"""The warehouse as support reads it: parameterised queries over the views, in the cloud and on the emulator alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from contract import queries, reading
from contract.errors import AuditError
from support.bigquery_rest import Answer, Parameter, QueryApi, QueryRefusedError, Row
from support.connection import Connection

T = TypeVar("T")


class Complete(NamedTuple):
    """How far the warehouse has come: None where nobody has said so, of the changes in the last week.

    Every change committed before `until` is in it or is a dead letter, and before `filled_until` in payment_lookup.
    """

    until: datetime | None
    filled_until: datetime | None


# People wait for the answer: give up on an emulator soon, on Google after the time a big query may take.
_EMULATOR_SECONDS = 20.0
_GOOGLE_SECONDS = 120.0


def whole_days(since: object) -> int:
    """How many daily partitions a query reads that begins then; two where it says no time."""
    return (datetime.now(UTC) - since).days + 2 if isinstance(since, datetime) else 2


class WarehouseError(AuditError):
    """BigQuery gives no answer; the message says why, as far as it is known, and the remedy.

    `too_much`: it would read more than it may, and a person can narrow the question.
    """

    def __init__(self, message: str, *, too_much: bool = False) -> None:
        super().__init__(message)
        self.too_much = too_much


_LIMIT = "bytesBilledLimitExceeded"
_TOO_MUCH = (
    "the query would read more than it may at the stack's designTps. Choose a shorter time. If it names a payment, a "
    "customer or a card, see that the scheduled query fill-payment-lookup runs."
)


class Warehouse:
    """Runs queries for a Connection. It connects with the first of them.

    `seconds` is how long a query may take; by default, what a person waits.
    """

    def __init__(self, connection: Connection, *, seconds: float | None = None) -> None:
        self.connection = connection
        self._seconds = seconds or (_EMULATOR_SECONDS if connection.local else _GOOGLE_SECONDS)
        self._api: QueryApi | None = None
        # Of all its queries, by BigQuery's count.
        self.bytes_read = 0

    def view(self, name: str) -> str:
        """A view's name as SQL takes it."""
        return f"`{self.connection.project}.{self.connection.watched.views_dataset}.{name}`"

    def prebuilt(self, name: str, **parameters: Parameter) -> list[Row]:
        """The rows of a prebuilt query."""
        return self.rows(queries.query(name, self.connection.project, self.connection.watched), **parameters)

    def complete_until(self) -> datetime | None:
        """Every change committed before is in the warehouse or is a dead letter. None: no job said so for a week."""
        [row] = self.rows(f"SELECT complete_until FROM {self.view(queries.COMPLETE_UNTIL)}")
        found: datetime | None = row["complete_until"]
        return found

    def limit(self, question: str, *, days: float = 2, keys: int = 1) -> int:
        """The most that BigQuery may read for a question of `contract.reading`, at the stack's design load."""
        load = float(self.connection.design_tps or reading.Layout.changes_per_second)
        return reading.limit(question, reading.Layout(changes_per_second=load), reading.Asked(days, keys))

    def complete_rows(
        self, sql: str, order: str, most_bytes: int, **parameters: Parameter
    ) -> tuple[Complete, list[Row]]:
        """How complete it is, and the rows of a query in `order`, of one snapshot: they are as complete as it says."""
        # On Google Cloud a query more is a second more. Both sides have a key: BigQuery needs an equality of two.
        complete = (
            "SELECT 1 AS _here, complete_until AS _complete_until, filled_until AS _filled_until "
            f"FROM {self.view(queries.COMPLETE_UNTIL)}"
        )
        found = f"SELECT 1 AS _found, * FROM (\n{sql}\n)"
        joined = f"SELECT * FROM ({complete}) LEFT JOIN ({found}) ON _found = _here ORDER BY {order}"
        rows = self.answer(joined, parameters, most_bytes=most_bytes).rows
        found_complete = Complete(rows[0]["_complete_until"], rows[0]["_filled_until"])
        for row in rows:
            del row["_here"], row["_complete_until"], row["_filled_until"]
        return found_complete, [row for row in rows if row.pop("_found")]

    def dry_run(self, sql: str) -> int:
        """The bytes that a query would read: BigQuery checks it, and runs nothing. Raises WarehouseError."""
        return self._ask(lambda api: api.dry_run(sql))

    def rows(self, sql: str, **parameters: Parameter) -> list[Row]:
        """The rows of a query, by column name. Raises WarehouseError."""
        return self.answer(sql, parameters).rows

    def answer(self, sql: str, parameters: Mapping[str, Parameter], *, most_bytes: int | None = None) -> Answer:
        """As `rows`, with the cost. BigQuery refuses to read more than `most_bytes`. Raises WarehouseError."""
        answer = self._ask(lambda api: api.answer(sql, parameters, most_bytes))
        self.bytes_read += answer.bytes_read
        return answer

    def each(
        self, sql: str, parameters: Mapping[str, Parameter], *, most_bytes: int | None = None
    ) -> tuple[int, Iterator[Row]]:
        """As `answer`, for more rows than fit into memory: the bytes that it read, and the rows, a page at a time."""
        bytes_read, rows = self._ask(lambda api: api.each(sql, parameters, most_bytes))
        return bytes_read, self._explained(rows)

    def _explained(self, rows: Iterator[Row]) -> Iterator[Row]:
        try:
            yield from rows
        except Exception as error:
            raise _explained(error, self.connection) from error

    def append(self, table: str, rows: Mapping[str, Row]) -> None:
        """Appends rows to `dataset.table`, each once for its id. Raises WarehouseError."""
        self._ask(lambda api: api.append(table, rows))

    def _ask(self, question: Callable[[QueryApi], T]) -> T:
        try:
            if self._api is None:
                known = self.connection
                self._api = QueryApi(known.big_query_endpoint, known.project, known.location, self._seconds)
            return question(self._api)
        except Exception as error:
            raise _explained(error, self.connection) from error


def _explained(error: Exception, connection: Connection) -> Exception:
    from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
    from requests.exceptions import RequestException

    where = connection.big_query_endpoint or "Google Cloud"
    status, reason = (error.status, error.reason) if isinstance(error, QueryRefusedError) else (0, "")
    if status == 404:
        return WarehouseError(
            f"project {connection.project} on {where} lacks a view or dataset of the audit service. "
            "Create them with `pulumi up` (`make run` on one machine), or pass the --connection of another stack."
        )
    if reason == "accessDenied":
        return WarehouseError(
            f"reading the views of project {connection.project} is not allowed: it takes roles/bigquery.jobUser on the "
            f"project and roles/bigquery.dataViewer on the dataset {connection.watched.views_dataset}. Ask for the "
            "support group."
        )
    if status == 401 or isinstance(error, (DefaultCredentialsError, RefreshError)):
        return WarehouseError("no valid Google credentials: run `gcloud auth application-default login`.")
    if status >= 500 or status == 429 or isinstance(error, (RequestException, TransportError, TimeoutError)):
        return WarehouseError(
            f"BigQuery on {where} does not answer. Look at `audit local status`, start the stack with `make run`, "
            "or pass the --connection of another stack."
        )
    if status:
        return (
            WarehouseError(_TOO_MUCH, too_much=True)
            if reason == _LIMIT
            else WarehouseError(f"BigQuery on {where} refused the query ({reason}).")
        )
    return error
