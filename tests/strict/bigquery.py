"""A strict stand-in for BigQuery's writing side: REST and the Storage Write API, on loopback.

In a test:

    with StrictBigQuery(project="audit-tests") as bq:
        bq.create_tables()
        write, client = clients.write_client(bq.grpc), clients.bigquery_client(bq.rest, "audit-tests")
        bq.fail("UNAVAILABLE", in_band=True, seconds=5)
        …
        assert bq.rows("payment_audit.audit_logs")

As its own process, which lives on when its clients die:

    python -m tests.strict.bigquery --port-file FILE [--arrivals FILE] …

and `StrictBigQueryProcess`, which starts it and has the same methods. It is alone (in memory), or in front of the
emulator (`upstream`), which then takes the rows that passed the checks and answers REST.

What is enforced, and where Google says so: bigquery_write.py (calls and streams), bigquery_rows.py (rows),
bigquery_store.py (schemas), bigquery_rest.py (REST, query cache).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.strict import light  # noqa: F401 - first: it decides how the next ones are imported

# isort: split
import pyarrow as pa
import pyarrow.compute as pc
from google.cloud.bigquery_storage_v1 import types
from grpc import StatusCode

from tests.shipped import WATCHED
from tests.strict.bigquery_faults import Attempt, Fault, Faults, Rows, When
from tests.strict.bigquery_rest import Cut, HttpServer, Passing, Rest, call_of
from tests.strict.bigquery_store import Chunk, Lags, RestError, Store, Table, as_arrow, table_rows
from tests.strict.bigquery_upstream import Upstream
from tests.strict.bigquery_write import REQUEST_BYTES, WriteApi, WriteRules

METHODS: Final = (
    "AppendRows",
    "CreateWriteStream",
    "GetWriteStream",
    "FinalizeWriteStream",
    "FlushRows",
    "BatchCommitWriteStreams",
)
CHANGE_ID: Final = "_metadata_change_id"
COMMIT: Final = "_metadata_spanner_commit_timestamp"
NANOS: Final = "_metadata_spanner_commit_timestamp_nanos"
STAMP: Final = "_metadata_big_query_commit_timestamp"


class StrictBigQuery:
    """See the module. All but `project`, ports, `arrivals` and `upstream` can be changed by `set` while it runs.

    schema_lag, table_lag: seconds after which the write path learns of a changed schema, of a new table.
    request_bytes: the largest AppendRowsRequest. second_connection: "older-ends", "newer-refused", "allowed".
    schema_mismatch: an unknown column is refused "in-band", "ends-call", or by "row-errors" on every row, as the
    emulator does.
    stream_seconds: a stream that nobody used for so long is gone. append_seconds: what each append takes.
    cache_seconds: a repeated query may be answered from the query cache for so long (0: never).
    arrivals: a file that gets a JSON line for each append that queries can see. upstream: the emulator's
    (REST URL, host:port).
    """

    def __init__(
        self,
        project: str = "audit-tests",
        *,
        schema_lag: float = 0.0,
        table_lag: float = 0.0,
        request_bytes: int = REQUEST_BYTES,
        second_connection: str = "older-ends",
        schema_mismatch: str = "in-band",
        stream_seconds: float | None = None,
        append_seconds: float = 0.0,
        cache_seconds: float = 0.0,
        arrivals: Path | str | None = None,
        arrival_ids: bool = False,
        upstream: tuple[str, str] | None = None,
        rest_port: int = 0,
        grpc_port: int = 0,
        clock: Any = time.monotonic,
    ) -> None:
        self.project = project
        self.store = Store(Lags(schema=schema_lag, table=table_lag), clock)
        self.faults = Faults(clock)
        self.rules = WriteRules()
        self._upstream = Upstream(*upstream, self.store) if upstream else None
        self.write = WriteApi(self.store, self.faults, self.rules, self._upstream)
        self._rest = Rest(self.store, self.faults)
        self._passing = Passing(upstream[0], self._rest, self._upstream.learn) if upstream and self._upstream else None
        self._ports = (rest_port, grpc_port)
        self._http: HttpServer | None = None
        # Closed by `stop`.
        self._arrivals = Path(arrivals).open("a", buffering=1) if arrivals else None  # noqa: SIM115
        self._arrival_ids = arrival_ids
        if self._arrivals:
            self.store.arrived.append(self._record)
        self.set(
            schema_lag=schema_lag,
            table_lag=table_lag,
            request_bytes=request_bytes,
            second_connection=second_connection,
            schema_mismatch=schema_mismatch,
            stream_seconds=stream_seconds,
            append_seconds=append_seconds,
            cache_seconds=cache_seconds,
        )

    def start(self) -> StrictBigQuery:
        self.write.start(self._ports[1])
        self._http = HttpServer(self._answer, self._ports[0])
        return self

    def stop(self) -> None:
        self.faults.clear()
        if self._http is not None:
            self._http.stop()
        self.write.stop()
        if self._upstream is not None:
            self._upstream.close()
        if self._arrivals is not None:
            self._arrivals.close()

    def __enter__(self) -> StrictBigQuery:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def rest(self) -> str:
        """URL for the REST client's `api_endpoint`."""
        assert self._http is not None
        return self._http.url

    @property
    def grpc(self) -> str:
        """host:port of the Storage Write API."""
        return f"127.0.0.1:{self.write.port}"

    # What it has

    @property
    def calls(self) -> Counter[str]:
        """How often each thing was asked, by name: see README-bigquery.md."""
        with self.store.lock:
            return Counter(self.store.calls)

    def reset_calls(self) -> None:
        with self.store.lock:
            self.store.calls.clear()

    def create_dataset(self, dataset: str) -> None:
        with contextlib.suppress(RestError):
            self.store.create_dataset(self.project, dataset)

    def create_table(self, table: str, fields: Iterable[Mapping[str, Any]], **resource: Any) -> None:
        """A table ("dataset.table"), known to the write path at once, with its dataset. Fields as REST writes them."""
        dataset, name = table.split(".")
        self.create_dataset(dataset)
        made = self.store.create_table(
            (self.project, dataset, name), {**resource, "schema": {"fields": [dict(f) for f in fields]}}
        )
        made.versions[0] = type(made.versions[0])(made.fields, self.store.clock())

    def create_tables(self) -> None:
        """The datasets and tables of the contract, as infrastructure makes them."""
        from contract import tables

        for table in tables.all_tables(WATCHED):
            fields: list[dict[str, Any]] = [
                {"name": f.name, "type": f.type, "mode": f.mode, "description": f.description}
                | ({"defaultValueExpression": f.default} if f.default else {})
                for f in table.fields
            ]
            more: dict[str, Any] = {"description": table.description}
            if table.partition_by:
                more["timePartitioning"] = {"type": "DAY", "field": table.partition_by}
            if table.cluster_by:
                more["clustering"] = {"fields": list(table.cluster_by)}
            self.create_table(table.id, fields, **more)

    def table(self, table: str) -> Table:
        parts = table.split(".")
        project, dataset, name = parts if len(parts) == 3 else (self.project, *parts)
        return self.store.table((project, dataset, name))

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Every row of "dataset.table" in the order of arrival, with `_arrived_ns` (server's clock, ns since 1970)."""
        return list(table_rows(self.table(table)))

    def arrow(self, table: str) -> pa.Table:
        """The same as an Arrow table with all columns."""
        return as_arrow(self.table(table))

    def counts(self) -> dict[str, int]:
        """Rows by "dataset.table"."""
        return {t.id: t.rows for t in self.store.tables.values()}

    def streams(self) -> list[dict[str, Any]]:
        return [
            {"name": s.name, "rows": s.count, "finalized": s.finalized, "connected": s.connection is not None}
            for s in list(self.write.streams.values())
        ]

    # What it does wrong

    def set(self, **knobs: Any) -> None:
        """Sets what the constructor names, for all that comes after."""
        for name, value in knobs.items():
            if name == "schema_lag":
                self.store.lags.schema = value
            elif name == "table_lag":
                self.store.lags.table = value
            elif name == "cache_seconds":
                self._rest.cache_seconds = value
            elif name in _KNOBS:
                allowed = _KNOBS[name]
                if allowed and value not in allowed:
                    raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
                setattr(self.rules, name, value)
            else:
                raise ValueError(f"no setting {name!r}")

    def fail(
        self,
        code: int | str | StatusCode,
        in_band: bool = True,
        *,
        seconds: float | None = None,
        times: int | None = None,
        when: When = None,
        rows: Rows = None,
        methods: Iterable[str] = ("AppendRows",),
        after_append: bool = False,
        message: str = "",
        storage_error: int | str = 0,
    ) -> Fault:
        """Refuses calls with a code: inside the response, or as the end of the call (all but AppendRows: always that).

        For so many seconds, so many times, or (neither) until `cancel` or `clear_faults`. `when` chooses calls, `rows`
        the appends that hold such a row. `after_append`: the rows are appended and the answer is lost.
        """
        if isinstance(storage_error, str):
            storage_error = int(types.StorageError.StorageErrorCode[storage_error])
        return self.faults.add(
            seconds=seconds,
            times=times,
            when=when,
            rows=rows,
            methods=frozenset(methods),
            code=_code(code),
            in_band=in_band,
            after_append=after_append,
            message=message,
            storage_error=storage_error,
        )

    def refuse_rows(
        self, rows: Rows, *, seconds: float | None = None, times: int | None = None, when: When = None
    ) -> Fault:
        """Row errors for rows that match: {"column": name, "values": […]}, {"indices": […]}, or a function of a row."""
        return self.faults.add(
            seconds=seconds, times=times, when=when, rows=rows, methods=frozenset(("AppendRows",)), action="rows"
        )

    def lose_answers(self, times: int = 1, *, when: When = None) -> Fault:
        """Rows are appended, but the connection is cut before the answer."""
        return self.fail("UNAVAILABLE", False, times=times, when=when, after_append=True, message="Socket closed")

    def fail_rest(
        self,
        status: int = 503,
        reason: str = "backendError",
        *,
        path: str = "",
        seconds: float | None = None,
        times: int | None = None,
        after: bool = False,
    ) -> Fault:
        """REST answers with a status and reason; `reason="cut"`: the connection ends without an answer.

        `path`: a regular expression on "METHOD /path". `after`: the call is carried out, its answer is lost.
        """
        return self.faults.add(
            seconds=seconds,
            times=times,
            when={"path": path} if path else None,
            methods=frozenset(("rest",)),
            code=status,
            reason=reason,
            after_append=after,
        )

    def deny(self, seconds: float | None = None) -> None:
        """Permissions are gone: PERMISSION_DENIED ends every call, REST answers 403 accessDenied."""
        self.fail("PERMISSION_DENIED", False, seconds=seconds, methods=METHODS, message="Permission denied.")
        self.fail_rest(403, "accessDenied", seconds=seconds)

    def away(self, seconds: float | None = None) -> None:
        """BigQuery is away: open connections are cut, every call ends with UNAVAILABLE, REST gives no answer."""
        self.fail("UNAVAILABLE", False, seconds=seconds, methods=METHODS, message="failed to connect to all addresses")
        self.fail_rest(503, "cut", seconds=seconds)
        self.cut()

    def freeze(self, seconds: float | None = None) -> None:
        """Nothing is answered; what was sent meanwhile is carried out when it thaws."""
        self.faults.freeze(seconds)

    def thaw(self) -> None:
        self.faults.thaw()

    def cut(self) -> int:
        """Ends all open AppendRows calls with UNAVAILABLE. Returns how many."""
        return self.write.cut()

    def expire_streams(self, name: str | None = None) -> int:
        """A stream, or all that applications made, are gone as after their time to live. Returns how many."""
        return self.write.expire(name)

    def clear_faults(self) -> None:
        self.faults.clear()

    # REST

    def _answer(self, method: str, target: str, body: bytes, headers: Any) -> tuple[int, str, bytes]:
        if self._passing is not None:
            return self._passed_on(method, target, body, headers)
        status, answer = self._rest.answer(call_of(method, target, body, headers))
        return status, "application/json", json.dumps(answer).encode()

    def _passed_on(self, method: str, target: str, body: bytes, headers: Any) -> tuple[int, str, bytes]:
        assert self._passing is not None and self._upstream is not None
        self.store.count("rest.passed")
        self.faults.wait_while_frozen()
        path = urlsplit(target).path
        attempt = Attempt(method="rest", path=f"{method} {path}")
        for after in (False, True):
            fault = self.faults.find(attempt, after_append=after)
            if fault is not None:
                if after:
                    self._passing.pass_on(method, target, body, headers)
                if fault.reason == "cut":
                    raise Cut
                refusal = {"code": fault.code, "message": fault.message, "errors": [{"reason": fault.reason}]}
                return fault.code, "application/json", json.dumps({"error": refusal}).encode()
        status, answer = self._passing.pass_on(method, target, body, headers)
        parts = path.split("/")
        if method == "DELETE" and status < 300 and "tables" in parts:
            at = parts.index("projects")
            self._upstream.forget((parts[at + 1], parts[at + 3], parts[at + 5]))
        return status, "application/json", answer

    # Arrivals

    def _record(self, table: Table, chunk: Chunk) -> None:
        assert self._arrivals is not None
        self._arrivals.write(json.dumps(arrival(table.id, chunk, self._arrival_ids)) + "\n")


_KNOBS: Final[dict[str, tuple[str, ...]]] = {
    "request_bytes": (),
    "second_connection": ("older-ends", "newer-refused", "allowed"),
    "schema_mismatch": ("in-band", "ends-call", "row-errors"),
    "stream_seconds": (),
    "append_seconds": (),
}


def arrival(table: str, chunk: Chunk, ids: bool = False) -> dict[str, Any]:
    """What is recorded of an append: the line of `bigquery_launcher.py`, `time_ns`, and on demand the `ids`."""
    batch, names = chunk.batch, chunk.batch.schema.names
    line: dict[str, Any] = {
        "table": table,
        "time_ns": chunk.arrived_ns,
        "stamp": batch.column(STAMP)[0].as_py().isoformat()
        if STAMP in names and batch.column(STAMP)[0].is_valid
        else None,
        "rows": batch.num_rows,
        "queryable_at": datetime.datetime.fromtimestamp(chunk.arrived_ns / 1e9, datetime.UTC).isoformat(),
        "latencies_ms": [],
    }
    if NANOS in names:
        waited = pc.subtract(chunk.arrived_ns, batch.column(NANOS).drop_null())
        line["latencies_ms"] = pc.divide(waited, 1_000_000).to_pylist()
    elif COMMIT in names:
        waited = pc.subtract(chunk.arrived_ns // 1000, batch.column(COMMIT).drop_null().cast(pa.int64()))
        line["latencies_ms"] = pc.divide(waited, 1000).to_pylist()
    if ids and CHANGE_ID in names:
        line["change_ids"] = batch.column(CHANGE_ID).to_pylist()
    return line


def _code(code: int | str | StatusCode) -> int:
    if isinstance(code, StatusCode):
        return int(code.value[0])
    return int(StatusCode[code].value[0]) if isinstance(code, str) else code


# As a separate process


class Control:
    """`GET /calls|counts|streams|rows?table=&format=arrow|jsonl`, and `POST /<method>` with its arguments as JSON."""

    POSTS: Final = frozenset(
        (
            "fail",
            "refuse_rows",
            "lose_answers",
            "fail_rest",
            "deny",
            "away",
            "freeze",
            "thaw",
            "cut",
            "expire_streams",
            "clear_faults",
            "set",
            "create_dataset",
            "create_table",
            "create_tables",
            "reset_calls",
        )
    )

    def __init__(self, bq: StrictBigQuery, ended: threading.Event, port: int = 0) -> None:
        self._bq = bq
        self._ended = ended
        self._faults: dict[int, Fault] = {}
        self.server = HttpServer(self._answer, port)

    def _answer(self, method: str, target: str, body: bytes, headers: Any) -> tuple[int, str, bytes]:
        parts = urlsplit(target)
        name = parts.path.strip("/")
        try:
            if method == "GET" and name == "rows":
                return self._rows({k: v[-1] for k, v in parse_qs(parts.query).items()})
            result = self._get(name) if method == "GET" else self._post(name, json.loads(body or b"{}"))
        except RestError as error:
            return error.status, "application/json", json.dumps({"error": error.message}).encode()
        except (TypeError, ValueError, KeyError) as error:
            return 400, "application/json", json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()
        return 200, "application/json", json.dumps(result).encode()

    def _get(self, name: str) -> Any:
        if name == "faults":
            return {i: f.struck for i, f in self._faults.items()}
        if name not in ("calls", "counts", "streams"):
            raise RestError(404, "notFound", f"no GET /{name}")
        found = getattr(self._bq, name)
        return found if name == "calls" else found()

    def _post(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "shutdown":
            self._ended.set()
            return {}
        if name == "cancel":
            self._faults[arguments["id"]].cancel()
            return {}
        if name not in self.POSTS:
            raise RestError(404, "notFound", f"no POST /{name}")
        result = getattr(self._bq, name)(**arguments)
        if isinstance(result, Fault):
            number = len(self._faults) + 1
            self._faults[number] = result
            return {"id": number}
        return {"result": result}

    def _rows(self, query: dict[str, str]) -> tuple[int, str, bytes]:
        if query.get("format", "arrow") == "arrow":
            table = self._bq.arrow(query["table"])
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            return 200, "application/vnd.apache.arrow.stream", sink.getvalue()
        lines = (json.dumps(row, default=_plain) for row in table_rows(self._bq.table(query["table"])))
        return 200, "application/jsonl", "".join(f"{line}\n" for line in lines).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.date | datetime.datetime):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)


class StrictBigQueryProcess:
    """The strict BigQuery as a process: `rest`, `grpc`, `control` (URL), `pid`, and the methods of StrictBigQuery.

    What is passed to them must be JSON: `when` and `rows` as mappings. `fail(…)` and its like return a number, for
    `cancel`.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.rest = self.grpc = self.control = ""
        self.pid = 0

    def __enter__(self) -> StrictBigQueryProcess:
        file = self._folder / "strict-bigquery.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.strict.bigquery", "--port-file", str(file)]
        for name, value in self._options.items():
            flag = f"--{name.replace('_', '-')}"
            command += [flag] if value is True else [flag, str(value)] if value not in (None, False) else []
        root = Path(__file__).parents[2]
        paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        log = (self._folder / "strict-bigquery.log").open("ab")
        self._process = subprocess.Popen(
            command, cwd=root, env={**os.environ, "PYTHONPATH": paths}, stdout=log, stderr=log
        )
        log.close()
        while not file.exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"the strict BigQuery did not start: see {log.name}")
            time.sleep(0.01)
        found = json.loads(file.read_text())
        self.rest, self.grpc, self.control, self.pid = (found[k] for k in ("rest", "grpc", "control", "pid"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _ask(self, name: str, arguments: dict[str, Any] | None = None, **query: str) -> bytes:
        url = f"{self.control}/{name}" + (f"?{urlencode(query)}" if query else "")
        data = None if arguments is None else json.dumps(arguments).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            raise ValueError(json.loads(error.read())["error"]) from None

    def __getattr__(self, name: str) -> Any:
        if name not in Control.POSTS:
            raise AttributeError(name)

        def ask(*given: Any, **arguments: Any) -> Any:
            if given:
                # Positional arguments by the names of StrictBigQuery's own method.
                code = getattr(StrictBigQuery, name).__code__
                arguments |= dict(zip(code.co_varnames[1:], given, strict=False))
            answer = json.loads(self._ask(name, arguments))
            return answer.get("id", answer.get("result"))

        return ask

    def cancel(self, fault: int) -> None:
        self._ask("cancel", {"id": fault})

    @property
    def calls(self) -> Counter[str]:
        return Counter(json.loads(self._ask("calls")))

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self._ask("counts"))
        return found

    def streams(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._ask("streams"))
        return found

    def arrow(self, table: str) -> pa.Table:
        return pa.ipc.open_stream(self._ask("rows", table=table, format="arrow")).read_all()

    def rows(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.arrow(table).to_pylist()
        return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.strict.bigquery", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--port-file", type=Path, required=True, help="gets {rest, grpc, control, pid} as JSON when it answers"
    )
    parser.add_argument("--project", default="audit-tests")
    parser.add_argument("--arrivals", type=Path, help="a JSON line for each append that queries can see")
    parser.add_argument("--arrival-ids", action="store_true", help="with the change ids in each line")
    parser.add_argument("--contract-tables", action="store_true", help="make the contract's datasets and tables")
    for port in ("rest", "grpc", "control"):
        parser.add_argument(f"--{port}-port", type=int, default=0)
    for seconds in ("schema-lag", "table-lag", "append-seconds", "cache-seconds"):
        parser.add_argument(f"--{seconds}", type=float, default=0.0)
    parser.add_argument("--stream-seconds", type=float)
    parser.add_argument("--request-bytes", type=int, default=REQUEST_BYTES)
    parser.add_argument("--second-connection", choices=_KNOBS["second_connection"], default="older-ends")
    parser.add_argument("--schema-mismatch", choices=_KNOBS["schema_mismatch"], default="in-band")
    parser.add_argument("--upstream", nargs=2, metavar=("REST", "GRPC"), help="the emulator behind it")
    return parser.parse_args()


def main() -> None:
    arguments = vars(_arguments())
    port_file, control_port = arguments.pop("port_file"), arguments.pop("control_port")
    contract_tables, upstream = arguments.pop("contract_tables"), arguments.pop("upstream")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with StrictBigQuery(**arguments, upstream=tuple(upstream) if upstream else None) as bq:
        if contract_tables:
            bq.create_tables()
        control = Control(bq, ended, control_port)
        found = {"rest": bq.rest, "grpc": bq.grpc, "control": control.server.url, "pid": os.getpid()}
        half = port_file.with_suffix(".half")
        half.write_text(json.dumps(found))
        half.rename(port_file)
        ended.wait()
        control.server.stop()


if __name__ == "__main__":
    main()
