"""BigQuery's REST as far as support uses it: a query with named parameters, its rows by name, what it read; rows.

The client library speaks the same methods; its import (Arrow, NumPy, the Storage API, gRPC) takes longer than a
person waits for the answer, so nothing of it is in here: `python -m bench.search` has the figures. The session is that
of google-auth, which brings and renews the credentials.

Source: cloud.google.com/bigquery/docs/reference/rest/v2/jobs/query, /getQueryResults
and /tabledata/insertAll.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from contract.endpoints import on_this_machine

if TYPE_CHECKING:
    import requests

Parameter = str | int | datetime | Sequence[str] | Sequence[int]
Row = dict[str, Any]

_GOOGLE: Final = "https://bigquery.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
# How long BigQuery may hold an answer back; then it is asked again.
_HELD_SECONDS: Final = 10.0
_MICROS: Final = {"formatOptions.useInt64Timestamp": "true"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Answer(NamedTuple):
    """The rows of a query, by column name, and how many bytes it read."""

    rows: list[Row]
    bytes_read: int


class QueryRefusedError(Exception):
    """BigQuery refuses the query: an HTTP status and BigQuery's reason. Its message stays out: it can quote values."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.reason = status, reason


class QueryApi:
    """Asks BigQuery, or the emulator at `endpoint`. A query has `seconds`, and so has each page of its answer.

    Raises QueryRefusedError, TimeoutError, and what requests and google-auth raise.
    """

    def __init__(self, endpoint: str, project: str, location: str, seconds: float) -> None:
        self._project = f"{endpoint or _GOOGLE}/bigquery/v2/projects/{quote(project, safe='')}"
        self._url = f"{self._project}/queries"
        self._location = {"location": location} if location else {}
        self._seconds = seconds
        self._session = _session(authorized=not on_this_machine(endpoint))

    def dry_run(self, sql: str) -> int:
        """The bytes that a query would read; nothing runs."""
        return int(self._begin(sql, {}, dryRun=True, useQueryCache=False).get("totalBytesProcessed") or 0)

    def answer(self, sql: str, parameters: Mapping[str, Parameter], most_bytes: int | None = None) -> Answer:
        """Runs a query. BigQuery refuses one that would read more than `most_bytes`."""
        bytes_read, rows = self.each(sql, parameters, most_bytes)
        return Answer(list(rows), bytes_read)

    def each(
        self, sql: str, parameters: Mapping[str, Parameter], most_bytes: int | None = None
    ) -> tuple[int, Iterator[Row]]:
        """As `answer`, for more rows than fit into memory: how many bytes it read, and the rows, a page at a time."""
        limit = {"maximumBytesBilled": str(most_bytes)} if most_bytes else {}
        deadline = time.monotonic() + self._seconds
        page = self._begin(sql, parameters, timeoutMs=self._held(deadline), **limit)
        while not page["jobComplete"]:
            if time.monotonic() >= deadline:
                raise TimeoutError("the query is not done in time")
            page = self._results(page, timeoutMs=self._held(deadline))
        return int(page.get("totalBytesProcessed") or 0), self._pages(page)

    def _pages(self, page: dict[str, Any]) -> Iterator[Row]:
        yield from _rows(page)
        while token := page.get("pageToken"):
            page = self._results(page, pageToken=token)
            yield from _rows(page)

    def append(self, table: str, rows: Mapping[str, Row]) -> None:
        """Appends rows to `dataset.table`, by their insert ids: all, or none if BigQuery refuses one of them.

        Of two rows with the same id in the same minute it takes one.
        Source: cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll.
        """
        dataset, _, name = table.partition(".")
        url = f"{self._project}/datasets/{quote(dataset, safe='')}/tables/{quote(name, safe='')}/insertAll"
        body: dict[str, Any] = {"rows": [{"insertId": insert_id, "json": row} for insert_id, row in rows.items()]}
        refused = _content(self._session.post(url, json=body, timeout=self._seconds)).get("insertErrors", ())
        if reasons := [str(each["errors"][0]["reason"]) for each in refused]:
            # The rows beside a bad one are "stopped".
            raise QueryRefusedError(400, min(reasons, key=lambda reason: reason == "stopped"))

    def _begin(self, sql: str, parameters: Mapping[str, Parameter], **options: Any) -> dict[str, Any]:
        body: dict[str, Any] = {
            "query": sql,
            "useLegacySql": False,
            "parameterMode": "NAMED",
            "queryParameters": [_parameter(name, value) for name, value in parameters.items()],
            "formatOptions": {"useInt64Timestamp": True},
            # Sent again after a 503, it is the same query.
            "requestId": str(uuid.uuid4()),
        }
        return _content(self._session.post(self._url, json=body | self._location | options, timeout=self._seconds))

    def _results(self, page: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        job = page["jobReference"]
        asked = _MICROS | ({"location": job["location"]} if job.get("location") else {}) | options
        url = f"{self._url}/{quote(job['jobId'], safe='')}"
        return _content(self._session.get(url, params=asked, timeout=self._seconds))

    @staticmethod
    def _held(deadline: float) -> int:
        return int(max(0.0, min(_HELD_SECONDS, deadline - time.monotonic())) * 1000)


def _session(*, authorized: bool) -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    if authorized:
        import google.auth
        from google.auth.transport.requests import AuthorizedSession

        credentials, _ = google.auth.default(scopes=[_SCOPE])
        session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
    # An overloaded server gets 12 s; where nobody listens, a person sees it at once.
    retry = Retry(
        total=None, connect=0, read=0, other=0, status=6, status_forcelist=(429, 502, 503), allowed_methods=None,
        backoff_factor=0.2, raise_on_status=False,
    )  # fmt: skip
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _content(response: requests.Response) -> dict[str, Any]:
    if response.ok:
        content: dict[str, Any] = response.json()
        return content
    try:
        reason = str(response.json()["error"]["errors"][0]["reason"])
    except (ValueError, LookupError, TypeError):
        # A proxy's page, say.
        reason = response.reason or "unknown"
    raise QueryRefusedError(response.status_code, reason)


def _parameter(name: str, value: Parameter) -> dict[str, Any]:
    if isinstance(value, str):
        return _named(name, {"type": "STRING"}, {"value": value})
    if isinstance(value, int):
        return _named(name, {"type": "INT64"}, {"value": str(value)})
    if isinstance(value, datetime):
        return _named(name, {"type": "TIMESTAMP"}, {"value": value.astimezone(UTC).isoformat(sep=" ")})
    kind = "INT64" if value and all(isinstance(each, int) for each in value) else "STRING"
    values = [{"value": str(each)} for each in value]
    return _named(name, {"type": "ARRAY", "arrayType": {"type": kind}}, {"arrayValues": values})


def _named(name: str, kind: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "parameterType": kind, "parameterValue": value}


def _rows(page: Mapping[str, Any]) -> Iterator[Row]:
    fields = page["schema"]["fields"] if page.get("rows") else []
    columns = [(each["name"], each.get("mode") == "REPEATED", _READ.get(each["type"], str)) for each in fields]
    for row in page.get("rows", ()):
        yield {
            name: [read(item["v"]) for item in cell["v"]] if repeated else _or_null(read, cell["v"])
            for (name, repeated, read), cell in zip(columns, row["f"], strict=True)
        }


def _or_null(read: Callable[[str], Any], text: str | None) -> Any:
    return None if text is None else read(text)


# Type of a column → how its text is read. A type that is not here (GEOGRAPHY, …) stays a text.
_READ: Final[dict[str, Callable[[str], Any]]] = {
    **dict.fromkeys(("INTEGER", "INT64"), int),
    **dict.fromkeys(("FLOAT", "FLOAT64"), float),
    **dict.fromkeys(("BOOLEAN", "BOOL"), lambda text: text.lower() == "true"),
    **dict.fromkeys(("NUMERIC", "BIGNUMERIC"), Decimal),
    "TIMESTAMP": lambda micros: _EPOCH + timedelta(microseconds=int(micros)),
    "DATE": date.fromisoformat,
    "BYTES": base64.b64decode,
    "JSON": json.loads,
}
