"""Support's queries over BigQuery's REST, against a server that answers as it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from support import bigquery_rest
from support.bigquery_rest import QueryApi
from support.connection import Connection
from support.warehouse import Warehouse, WarehouseError
from tests.shipped import WATCHED
from tests.strict.bigquery_rest import Call, HttpServer, call_of

PROJECT = "audit-tests"


@dataclass
class Server:
    """Gives one answer after the other; the last again and again."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, target: str, body: bytes, headers: Any) -> tuple[int, str, bytes]:
        self.calls.append(call_of(method, target, body, headers))
        status, content = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return status, "application/json", content if isinstance(content, bytes) else json.dumps(content).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    http = HttpServer(made.answer)
    made.url = http.url
    yield made
    http.stop()


@pytest.fixture
def api(server: Server) -> QueryApi:
    return QueryApi(server.url, PROJECT, "EU", 20)


@pytest.fixture
def warehouse(server: Server) -> Warehouse:
    texts = dict.fromkeys(Connection.__dataclass_fields__, "")
    known = {"project": PROJECT, "big_query_endpoint": server.url, "watched_tables": WATCHED.to_json()}
    return Warehouse(Connection(**texts | known), seconds=5)


def page(*rows: str, token: str = "", done: bool = True) -> dict[str, Any]:
    """A page of a query for one text."""
    shown = {
        "jobReference": {"projectId": PROJECT, "jobId": "job 1", "location": "EU"},
        "jobComplete": done,
        "totalBytesProcessed": "1024",
    }
    if done:
        shown |= {"schema": {"fields": [{"name": "PUID", "type": "STRING", "mode": "NULLABLE"}]}}
        shown |= {"rows": [{"f": [{"v": row}]} for row in rows]} | ({"pageToken": token} if token else {})
    return shown


def refusal(status: int, reason: str, message: str = "quoted 4111111111111111") -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}}


def test_a_query_is_one_call_with_typed_parameters(server: Server, api: QueryApi) -> None:
    server.answers = [(200, page("p1"))]
    moment = datetime(2026, 11, 23, 10, 12, 54, 123456, tzinfo=timezone(timedelta(hours=1)))
    answer = api.answer("SELECT 1", {"text": "it's", "number": 7, "moment": moment, "texts": ("a", "b")}, 8192)
    assert answer == ([{"PUID": "p1"}], 1024)
    [call] = server.calls
    assert (call.method, call.path) == ("POST", f"/bigquery/v2/projects/{PROJECT}/queries")
    body = call.body
    assert body["query"] == "SELECT 1" and body["useLegacySql"] is False and body["parameterMode"] == "NAMED"
    assert (body["location"], body["maximumBytesBilled"]) == ("EU", "8192")
    assert {p["name"]: (p["parameterType"], p["parameterValue"]) for p in body["queryParameters"]} == {
        "text": ({"type": "STRING"}, {"value": "it's"}),
        "number": ({"type": "INT64"}, {"value": "7"}),
        "moment": ({"type": "TIMESTAMP"}, {"value": "2026-11-23 09:12:54.123456+00:00"}),
        "texts": (
            {"type": "ARRAY", "arrayType": {"type": "STRING"}},
            {"arrayValues": [{"value": "a"}, {"value": "b"}]},
        ),
    }


def test_a_query_that_takes_longer_is_awaited_and_its_pages_are_all_read(server: Server, api: QueryApi) -> None:
    server.answers = [
        (200, page(done=False)),
        (200, page(done=False)),
        (200, page("p1", token="2")),
        (200, page("p2", token="3")),
        (200, page("p3")),
    ]
    assert [row["PUID"] for row in api.answer("SELECT 1", {}).rows] == ["p1", "p2", "p3"]
    later = server.calls[1:]
    assert {call.path for call in later} == {f"/bigquery/v2/projects/{PROJECT}/queries/job%201"}
    assert {(c.query["location"], c.query["formatOptions.useInt64Timestamp"]) for c in later} == {("EU", "true")}
    assert [call.query.get("pageToken") for call in later] == [None, None, "2", "3"]


def test_a_query_that_is_not_done_in_time_is_given_up(server: Server) -> None:
    server.answers = [(200, page(done=False))]
    with pytest.raises(TimeoutError):
        QueryApi(server.url, PROJECT, "", 0.05).answer("SELECT 1", {})


def test_an_overloaded_server_is_asked_again_for_the_same_query(server: Server, api: QueryApi) -> None:
    server.answers = [refusal(503, "backendError"), refusal(429, "rateLimitExceeded"), (200, page("p1"))]
    assert api.answer("SELECT 1", {}).rows == [{"PUID": "p1"}]
    assert len(server.calls) == 3 and len({call.body["requestId"] for call in server.calls}) == 1


def test_every_type_of_a_column_is_read(server: Server, api: QueryApi) -> None:
    cells: dict[str, tuple[str, Any, Any]] = {
        "text": ("STRING", "it's", "it's"),
        "number": ("INTEGER", "-7", -7),
        "float": ("FLOAT", "-Infinity", float("-inf")),
        "yes": ("BOOLEAN", "true", True),
        "no": ("BOOL", "false", False),
        "amount": ("NUMERIC", "12.340000001", Decimal("12.340000001")),
        "moment": ("TIMESTAMP", "-1", datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        "end": ("TIMESTAMP", "253402300799999999", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
        "day": ("DATE", "2026-11-23", date(2026, 11, 23)),
        "bytes": ("BYTES", "YWJj", b"abc"),
        "json": ("JSON", '{"a": [1, null]}', {"a": [1, None]}),
        "place": ("GEOGRAPHY", "POINT(1 2)", "POINT(1 2)"),
        "nothing": ("JSON", None, None),
    }
    fields = [{"name": name, "type": kind, "mode": "NULLABLE"} for name, (kind, _, _) in cells.items()]
    fields.append({"name": "many", "type": "INTEGER", "mode": "REPEATED"})
    values = [{"v": text} for _, text, _ in cells.values()] + [{"v": [{"v": "1"}, {"v": "2"}]}]
    server.answers = [(200, page() | {"schema": {"fields": fields}, "rows": [{"f": values}]})]
    [row] = api.answer("SELECT 1", {}).rows
    assert row == {name: value for name, (_, _, value) in cells.items()} | {"many": [1, 2]}


def test_a_dry_run_reads_nothing(server: Server, api: QueryApi) -> None:
    server.answers = [(200, {"jobComplete": True, "totalBytesProcessed": "77"})]
    assert api.dry_run("SELECT 1") == 77
    assert server.calls[0].body["dryRun"] is True and server.calls[0].body["useQueryCache"] is False


def test_rows_are_appended_in_one_request_by_their_ids_and_a_refusal_names_the_bad_row_s_reason(
    server: Server, api: QueryApi
) -> None:
    server.answers = [(200, {})]
    api.append("d.t", {"1": {"a": 1}, "2": {"a": 2}})
    [call] = server.calls
    assert (call.method, call.path) == ("POST", f"/bigquery/v2/projects/{PROJECT}/datasets/d/tables/t/insertAll")
    assert call.body == {"rows": [{"insertId": "1", "json": {"a": 1}}, {"insertId": "2", "json": {"a": 2}}]}
    refused = [{"index": i, "errors": [{"reason": reason}]} for i, reason in enumerate(("stopped", "invalid"))]
    server.answers = [(200, {"insertErrors": refused})]
    with pytest.raises(bigquery_rest.QueryRefusedError, match="400 invalid"):
        api.append("d.t", {"1": {"a": 1}, "2": {"a": "x"}})


def test_google_cloud_is_asked_with_credentials(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import google.auth
    from google.oauth2.credentials import Credentials

    monkeypatch.setattr(bigquery_rest, "_GOOGLE", server.url)
    monkeypatch.setattr(google.auth, "default", lambda scopes: (Credentials("secret"), None))
    server.answers = [(200, page("p1"))]
    assert QueryApi("", PROJECT, "EU", 20).answer("SELECT 1", {}).rows == [{"PUID": "p1"}]
    assert server.calls[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (refusal(404, "notFound"), "pulumi up"),
        (refusal(403, "accessDenied"), f"roles/bigquery.jobUser.* the dataset {WATCHED.views_dataset}"),
        (refusal(403, "quotaExceeded"), r"refused the query \(quotaExceeded\)"),
        (refusal(400, "bytesBilledLimitExceeded"), "would read more than it may"),
        (refusal(401, "authError"), "gcloud auth application-default login"),
        (refusal(500, "internalError"), "does not answer"),
        ((500, b"<html>"), "does not answer"),
        ((200, b"<html>"), "does not answer"),
    ],
)
def test_a_refusal_gives_the_remedy_and_never_what_bigquery_quotes(
    server: Server, warehouse: Warehouse, answer: tuple[int, Any], says: str
) -> None:
    server.answers = [answer]
    with pytest.raises(WarehouseError, match=says) as raised:
        warehouse.rows("SELECT 1")
    assert "4111" not in str(raised.value)
    with pytest.raises(WarehouseError, match=says):
        warehouse.dry_run("SELECT 1")


def test_missing_credentials_say_how_to_get_some(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    def nobody(scopes: list[str]) -> Any:
        raise DefaultCredentialsError("none")

    monkeypatch.setattr(google.auth, "default", nobody)
    with pytest.raises(WarehouseError, match="gcloud auth application-default login"):
        Warehouse(replace(warehouse.connection, big_query_endpoint="")).rows("SELECT 1")


HEAVY = ("google.cloud.bigquery", "google.api_core", "google.auth.crypt", "grpc", "pyarrow", "numpy", "pipeline")


@pytest.mark.parametrize("arguments", [["search", "p1"], ["timeline", "p1"]])
def test_a_search_loads_no_heavy_library(server: Server, tmp_path: Path, arguments: list[str]) -> None:
    columns = ("_here", "_complete_until", "_filled_until", "_found")
    empty = page() | {
        "schema": {"fields": [{"name": name, "type": "STRING"} for name in columns]},
        "rows": [{"f": [{"v": "1"}, *({"v": None} for _ in columns[1:])]}],
    }
    server.answers = [(200, empty)]
    file = tmp_path / "connection.json"
    names = (
        "location", "spannerEndpoint", "spannerInstance", "spannerDatabase", "metadataDatabase", "maskingKeys",
        "deadLetterDirectory", "jobName",
    )  # fmt: skip
    known = {"project": PROJECT, "bigQueryEndpoint": server.url, "watchedTables": WATCHED.to_json()}
    file.write_text(json.dumps(dict.fromkeys(names, "") | known))
    script = (
        "import sys\nfrom support.cli.main import main\n"
        f"try: main({['--connection', str(file), *arguments]!r})\nexcept SystemExit as ended: code = ended.code\n"
        f"sys.exit(' '.join(sorted({set(HEAVY)!r} & sys.modules.keys())) or f'nothing heavy, {{code}}')"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.stderr.strip() == "nothing heavy, 1"
    # A timeline looks up the days of the payment first.
    assert len(server.calls) == (2 if arguments[0] == "timeline" else 1)
