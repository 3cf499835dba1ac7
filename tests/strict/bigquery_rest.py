"""BigQuery's REST as far as the running job asks it: datasets, tables, query jobs. And a small HTTP server for it.

Source: cloud.google.com/bigquery/docs/reference/rest (v2).
"""

from __future__ import annotations

import base64
import datetime
import http.client
import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from tests.strict import bigquery_sql as sql
from tests.strict.bigquery_faults import Attempt, Faults
from tests.strict.bigquery_store import RestError, Store

_PAGE_ROWS = 10_000


@dataclass(kw_only=True)
class Call:
    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]
    headers: Any


class Cut(Exception):
    """The connection ends without an answer."""


@dataclass
class Job:
    id: str
    answer: sql.Answer
    cache_hit: bool
    at: int


class Rest:
    """Answers calls. `cache_seconds` > 0: the same query asked again within it may be answered as before.

    BigQuery answers an identical query from its cache, though not where a table has changed or has lately received
    streaming inserts (cloud.google.com/bigquery/docs/cached-results#cache-exceptions). A stale answer is harsher
    than the page, for a check that must not rest on the exception: off unless it is set.
    """

    def __init__(self, store: Store, faults: Faults, upstream: Any = None) -> None:
        self.store = store
        self.faults = faults
        self.cache_seconds = 0.0
        self._upstream = upstream
        self._jobs: dict[str, Job] = {}
        self._cache: dict[str, tuple[float, sql.Answer]] = {}
        self._routes: list[tuple[str, str, re.Pattern[str], Callable[..., dict[str, Any]]]] = [
            (name, method, re.compile(rf".*/projects/(?P<project>[^/]+){pattern}"), work)
            for name, method, pattern, work in (
                ("datasets.list", "GET", "/datasets", self._list_datasets),
                ("datasets.insert", "POST", "/datasets", self._insert_dataset),
                ("datasets.get", "GET", "/datasets/(?P<dataset>[^/]+)", self._get_dataset),
                ("datasets.delete", "DELETE", "/datasets/(?P<dataset>[^/]+)", self._delete_dataset),
                ("tables.list", "GET", "/datasets/(?P<dataset>[^/]+)/tables", self._list_tables),
                ("tables.insert", "POST", "/datasets/(?P<dataset>[^/]+)/tables", self._insert_table),
                ("tables.get", "GET", "/datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)", self._get_table),
                ("tables.patch", "PATCH", "/datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)", self._patch_table),
                ("tables.update", "PUT", "/datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)", self._patch_table),
                ("tables.delete", "DELETE", "/datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)", self._delete_table),
                ("tabledata.list", "GET", "/datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)/data", self._list_rows),
                ("jobs.insert", "POST", "/jobs", self._insert_job),
                ("jobs.get", "GET", "/jobs/(?P<job>[^/]+)", self._get_job),
                ("jobs.query", "POST", "/queries", self._query),
                ("jobs.getQueryResults", "GET", "/queries/(?P<job>[^/]+)", self._results),
            )
        ]

    def answer(self, call: Call) -> tuple[int, dict[str, Any]]:
        name, work, arguments = self._route(call)
        self.store.count(f"rest.{name}")
        self.faults.wait_while_frozen()
        attempt = Attempt(method="rest", path=f"{call.method} {call.path}")
        fault = self.faults.find(attempt)
        if fault is not None:
            if fault.reason == "cut":
                raise Cut
            return fault.code, _error(RestError(fault.code, fault.reason, fault.message or "Refused by a fault."))
        try:
            status, body = (200, work(call, **arguments)) if work else (404, _error(_not_served(call)))
        except RestError as error:
            status, body = error.status, _error(error)
        late = self.faults.find(attempt, after_append=True)
        if late is not None:
            if late.reason == "cut":
                raise Cut
            return late.code, _error(RestError(late.code, late.reason, late.message or "Refused by a fault."))
        return status, body

    def _route(self, call: Call) -> tuple[str, Callable[..., dict[str, Any]] | None, dict[str, str]]:
        for name, method, pattern, work in self._routes:
            found = pattern.fullmatch(call.path)
            if found and method == call.method:
                return name, work, {k: unquote(v) for k, v in found.groupdict().items()}
        return "other", None, {}

    # Datasets and tables

    def _list_datasets(self, call: Call, project: str) -> dict[str, Any]:
        found = [d for (p, _), d in self.store.datasets.items() if p == project]
        return {"kind": "bigquery#datasetList", "datasets": found}

    def _insert_dataset(self, call: Call, project: str) -> dict[str, Any]:
        return self.store.create_dataset(project, call.body["datasetReference"]["datasetId"], call.body)

    def _get_dataset(self, call: Call, project: str, dataset: str) -> dict[str, Any]:
        return self.store.dataset(project, dataset)

    def _delete_dataset(self, call: Call, project: str, dataset: str) -> dict[str, Any]:
        self.store.drop_dataset(project, dataset, call.query.get("deleteContents", "").lower() == "true")
        return {}

    def _list_tables(self, call: Call, project: str, dataset: str) -> dict[str, Any]:
        self.store.dataset(project, dataset)
        found = [t.as_rest() for r, t in self.store.tables.items() if r[:2] == (project, dataset)]
        return {"kind": "bigquery#tableList", "tables": found, "totalItems": len(found)}

    def _insert_table(self, call: Call, project: str, dataset: str) -> dict[str, Any]:
        name = call.body["tableReference"]["tableId"]
        return self.store.create_table((project, dataset, name), call.body).as_rest()

    def _get_table(self, call: Call, project: str, dataset: str, table: str) -> dict[str, Any]:
        return self.store.table((project, dataset, table)).as_rest()

    def _patch_table(self, call: Call, project: str, dataset: str, table: str) -> dict[str, Any]:
        etag = call.headers.get("If-Match")
        return self.store.patch_table((project, dataset, table), call.body, etag).as_rest()

    def _delete_table(self, call: Call, project: str, dataset: str, table: str) -> dict[str, Any]:
        self.store.drop_table((project, dataset, table))
        return {}

    def _list_rows(self, call: Call, project: str, dataset: str, table: str) -> dict[str, Any]:
        query = sql.Query(self.store, project, f"SELECT * FROM `{project}.{dataset}.{table}`", {})
        return _page(query.run(), call.query, {"kind": "bigquery#tableDataList"})

    # Queries

    def _insert_job(self, call: Call, project: str) -> dict[str, Any]:
        given = call.body.get("configuration", {}).get("query")
        if given is None:
            raise RestError(400, "invalid", "The strict BigQuery runs query jobs only.")
        job_id = call.body.get("jobReference", {}).get("jobId") or uuid.uuid4().hex
        if job_id in self._jobs:
            raise RestError(409, "duplicate", f"Already Exists: Job {project}:{job_id}")
        job = self._run(project, given, job_id, bool(call.body["configuration"].get("dryRun")))
        return _job(project, job, given)

    def _get_job(self, call: Call, project: str, job: str) -> dict[str, Any]:
        return _job(project, self._job(project, job), {})

    def _query(self, call: Call, project: str) -> dict[str, Any]:
        job = self._run(project, call.body, uuid.uuid4().hex, bool(call.body.get("dryRun")))
        options = {f"formatOptions.{k}": str(v) for k, v in call.body.get("formatOptions", {}).items()}
        if "maxResults" in call.body:
            options["maxResults"] = str(call.body["maxResults"])
        return self._shown(project, job, options)

    def _results(self, call: Call, project: str, job: str) -> dict[str, Any]:
        return self._shown(project, self._job(project, job), call.query)

    def _job(self, project: str, job: str) -> Job:
        try:
            return self._jobs[job]
        except KeyError:
            raise RestError(404, "notFound", f"Not found: Job {project}:{job}") from None

    def _shown(self, project: str, job: Job, options: dict[str, str]) -> dict[str, Any]:
        shown = {
            "kind": "bigquery#queryResponse",
            "jobReference": {"projectId": project, "jobId": job.id, "location": "US"},
            "jobComplete": True,
            "cacheHit": job.cache_hit,
            "totalBytesProcessed": "0",
        }
        if job.answer.changed is not None:
            return shown | {"numDmlAffectedRows": str(job.answer.changed), "totalRows": "0", "schema": {"fields": []}}
        return _page(job.answer, options, shown)

    def _run(self, project: str, given: dict[str, Any], job_id: str, dry: bool) -> Job:
        if given.get("useLegacySql", True) and "useLegacySql" in given and given["useLegacySql"]:
            raise RestError(400, "invalidQuery", "The strict BigQuery knows no legacy SQL.")
        parameters = given.get("queryParameters", [])
        key = json.dumps([project, given["query"], parameters], sort_keys=True)
        may_be_old = self.cache_seconds > 0 and given.get("useQueryCache") is not False
        now = self.store.clock()
        answer, hit = None, False
        if may_be_old and key in self._cache and now - self._cache[key][0] < self.cache_seconds:
            answer, hit = self._cache[key][1], True
            self.store.count("query.cached")
        if answer is None:
            query = sql.Query(self.store, project, given["query"], sql.parameters(parameters))
            answer = query.run()
            if answer.statement == "SELECT" and self.cache_seconds > 0:
                self._cache[key] = (now, answer)
        self._counted(answer)
        job = self._jobs[job_id] = Job(job_id, answer, hit, time.time_ns() // 1_000_000)
        if len(self._jobs) > 500:
            # A run of hours asks many thousands; nobody reads an old one again.
            self._jobs.pop(next(iter(self._jobs)))
        return job

    def _counted(self, answer: sql.Answer) -> None:
        self.store.count(f"query.{answer.kind}")
        self.store.count(f"query.{answer.kind}.rows_scanned", answer.scanned)
        if answer.looked_up:
            self.store.count(f"query.{answer.kind}.ids", answer.looked_up)


def _job(project: str, job: Job, given: dict[str, Any]) -> dict[str, Any]:
    statistics: dict[str, Any] = {
        "creationTime": str(job.at),
        "startTime": str(job.at),
        "endTime": str(job.at),
        "query": {"statementType": job.answer.statement, "cacheHit": job.cache_hit, "totalBytesProcessed": "0"},
    }
    if job.answer.changed is not None:
        statistics["query"]["numDmlAffectedRows"] = str(job.answer.changed)
    return {
        "kind": "bigquery#job",
        "id": f"{project}:US.{job.id}",
        "jobReference": {"projectId": project, "jobId": job.id, "location": "US"},
        "configuration": {"jobType": "QUERY", "query": given},
        "status": {"state": "DONE"},
        "statistics": statistics,
        "user_email": "strict@localhost",
    }


def _page(answer: sql.Answer, options: dict[str, str], shown: dict[str, Any]) -> dict[str, Any]:
    assert answer.rows is not None
    start = int(options.get("pageToken") or options.get("startIndex") or 0)
    size = min(int(options.get("maxResults", _PAGE_ROWS)), _PAGE_ROWS)
    micros = options.get("formatOptions.useInt64Timestamp", "").lower() == "true"
    rows = answer.rows.slice(start, size)
    columns = [_cells(rows[f["name"]], f, micros) for f in answer.fields]
    shown |= {
        "schema": {"fields": answer.fields},
        "totalRows": str(answer.rows.num_rows),
    }
    if size:
        # Without rows that were not asked for: an empty page would be taken for the first one.
        shown["rows"] = [{"f": [{"v": v} for v in row]} for row in zip(*columns, strict=True)]
    if size and start + size < answer.rows.num_rows:
        shown["pageToken"] = str(start + size)
    return shown


def _cells(column: pa.ChunkedArray, to: dict[str, Any], micros: bool) -> list[Any]:
    if to["type"] in ("TIMESTAMP", "DATETIME") and to["mode"] != "REPEATED" and to["type"] == "TIMESTAMP":
        numbers = column.cast(pa.int64()).to_pylist()
        return [None if n is None else (str(n) if micros else repr(n / 1e6)) for n in numbers]
    values = column.to_pylist()
    if to["mode"] == "REPEATED":
        return [[{"v": _cell(v, micros)} for v in (value or [])] for value in values]
    return [_cell(v, micros) for v in values]


def _cell(value: Any, micros: bool) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime) and value.tzinfo:
        number = pc.cast(pa.scalar(value), pa.timestamp("us", "UTC")).value
        return str(number) if micros else repr(number / 1e6)
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def _not_served(call: Call) -> RestError:
    return RestError(404, "notFound", f"The strict BigQuery does not serve {call.method} {call.path}.")


def _error(error: RestError) -> dict[str, Any]:
    detail = {"message": error.message, "domain": "global", "reason": error.reason}
    return {"error": {"code": error.status, "message": error.message, "errors": [detail], "status": error.reason}}


# HTTP


class Passing:
    """REST of the emulator behind it, passed through as it is; faults and counts are ours."""

    def __init__(self, url: str, rest: Rest, learn: Callable[[dict[str, Any]], None]) -> None:
        self._to = urlsplit(url).netloc
        self._rest = rest
        self._learn = learn

    def pass_on(self, method: str, target: str, body: bytes, headers: Any) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._to, timeout=120)
        kept = {k: v for k, v in headers.items() if k.lower() in ("content-type", "if-match", "content-encoding")}
        try:
            connection.request(method, target, body or None, kept)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status == 200 and method in ("POST", "PATCH", "PUT") and b"bigquery#table" in answer:
            self._learn(json.loads(answer))
        return response.status, answer


class HttpServer:
    """A loopback HTTP server on threads. `answer(method, target, body, headers)` gives (status, type, bytes)."""

    def __init__(self, answer: Callable[[str, str, bytes, Any], tuple[int, str, bytes]], port: int = 0) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else b""
                try:
                    status, kind, content = answer(self.command, self.path, body, self.headers)
                except Cut:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128
            allow_reuse_port = False

            def handle_error(self, *_: Any) -> None:
                """A client that went away is not an event here."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def call_of(method: str, target: str, body: bytes, headers: Any) -> Call:
    parts = urlsplit(target)
    if headers.get("Content-Encoding") == "gzip":
        import gzip

        body = gzip.decompress(body)
    return Call(
        method=method,
        path=parts.path,
        query={k: v[-1] for k, v in parse_qs(parts.query).items()},
        body=json.loads(body) if body else {},
        headers=headers,
    )
