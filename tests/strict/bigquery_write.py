"""The Storage Write API of the strict BigQuery: what Google's documentation says that a server does, no kinder.

[ref]    cloud.google.com/bigquery/docs/reference/storage/rpc/google.cloud.bigquery.storage.v1
[api]    cloud.google.com/bigquery/docs/write-api
[best]   cloud.google.com/bigquery/docs/write-api-best-practices
[stream] cloud.google.com/bigquery/docs/write-api-streaming
[batch]  cloud.google.com/bigquery/docs/write-api-batch
What the pages leave open is marked "Assumed".
"""

from __future__ import annotations

import itertools
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types
from google.rpc import code_pb2, status_pb2

from tests.strict import bigquery_rows as rows_of
from tests.strict.bigquery_faults import Attempt, Fault, Faults
from tests.strict.bigquery_store import Reference, Store, Table

SERVICE = "google.cloud.bigquery.storage.v1.BigQueryWrite"
Request = types.AppendRowsRequest.pb()
Response = types.AppendRowsResponse.pb()
WriteStream = types.WriteStream.pb()
StorageError = types.StorageError.pb()
TableSchema = types.TableSchema.pb()
CreateWriteStreamRequest = types.CreateWriteStreamRequest.pb()
GetWriteStreamRequest = types.GetWriteStreamRequest.pb()
FinalizeWriteStreamRequest = types.FinalizeWriteStreamRequest.pb()
FinalizeWriteStreamResponse = types.FinalizeWriteStreamResponse.pb()
FlushRowsRequest = types.FlushRowsRequest.pb()
FlushRowsResponse = types.FlushRowsResponse.pb()
BatchCommitWriteStreamsRequest = types.BatchCommitWriteStreamsRequest.pb()
BatchCommitWriteStreamsResponse = types.BatchCommitWriteStreamsResponse.pb()

Kind = types.WriteStream.Type
Code = types.StorageError.StorageErrorCode
DEFAULT_VALUE = types.AppendRowsRequest.MissingValueInterpretation.DEFAULT_VALUE

# "The size of a single AppendRowsRequest must be less than 10 MB in size. Requests larger than this return an error,
# typically INVALID_ARGUMENT" ([ref]; client libraries of 2026 say 20 MB, so the smaller promise is held here).
REQUEST_BYTES = 10 * 1024 * 1024
# gRPC itself takes more, so that the refusal is BigQuery's.
_TRANSPORT_BYTES = 128 * 1024 * 1024

_TABLE = re.compile(r"projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)")
_STREAM = re.compile(r"(projects/([^/]+)/datasets/([^/]+)/tables/([^/]+))/(?:streams/)?([^/]+)")

# REST's older names → `TableFieldSchema.Type` of [ref].
_NEWER = {"INTEGER": "INT64", "FLOAT": "DOUBLE", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}


class Refusal(Exception):
    """A status, with the `StorageError` that Google puts into its details, and whether it ends the call."""

    def __init__(self, code: int, message: str, storage: int = 0, entity: str = "", *, ends: bool = True) -> None:
        super().__init__(message)
        self.code, self.message, self.storage, self.entity, self.ends = code, message, storage, entity, ends
        self.row_errors: dict[int, str] = {}

    def status(self) -> Any:
        """`google.rpc.Status`, its `StorageError` "attached as error details" ([ref])."""
        status = status_pb2.Status(code=self.code, message=self.message)
        if self.storage:
            status.details.add().Pack(StorageError(code=self.storage, entity=self.entity, error_message=self.message))
        return status

    def response(self, stream: str) -> Any:
        response = Response(write_stream=stream)
        response.error.CopyFrom(self.status())
        for index, message in sorted(self.row_errors.items()):
            response.row_errors.add(index=index, code=types.RowError.RowErrorCode.FIELDS_ERROR, message=message)
        return response


@dataclass
class Stream:
    name: str
    table: Table
    kind: int
    created: float
    used: float
    count: int = 0
    finalized: bool = False
    committed: bool = False
    # Of a PENDING or BUFFERED stream: what is not visible yet.
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    flushed: int = 0
    connection: Connection | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def is_default(self) -> bool:
        return self.name.endswith("_default")


_END = object()


class Connection:
    """One AppendRows call. Its requests wait in a queue, so that it can be ended from outside."""

    def __init__(self, requests: Iterator[bytes], number: int) -> None:
        self.number = number
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stream: Stream | None = None
        self.writer: pa.Schema | None = None
        self.plan: rows_of.Plan | None = None
        self.plan_for: Stream | None = None
        self.default_missing = 0
        self.told_of: int | None = None
        threading.Thread(target=self._receive, args=(requests,), daemon=True, name="strict-append").start()

    def end(self, refusal: Refusal) -> None:
        self.inbox.put(refusal)

    def _receive(self, requests: Iterator[bytes]) -> None:
        try:
            for request in requests:
                self.inbox.put(request)
        except Exception:
            # The call ended on the other side.
            pass
        self.inbox.put(_END)


SecondConnection = Literal["older-ends", "newer-refused", "allowed"]
Mismatch = Literal["in-band", "ends-call", "row-errors"]


@dataclass(kw_only=True)
class WriteRules:
    """What can be set while it runs.

    second_connection: what a second AppendRows call on a stream that the application made does.
    schema_mismatch: how an unknown column is refused.
    stream_seconds: a stream that nobody used for so long is gone.
    """

    request_bytes: int = REQUEST_BYTES
    second_connection: SecondConnection = "older-ends"
    schema_mismatch: Mismatch = "in-band"
    stream_seconds: float | None = None
    append_seconds: float = 0.0


class WriteApi:
    """The gRPC service. `upstream` (a stub of the emulator) takes the rows where it stands in front of one."""

    def __init__(self, store: Store, faults: Faults, rules: WriteRules, upstream: Any = None) -> None:
        self.store = store
        self.faults = faults
        self.rules = rules
        self.upstream = upstream
        self.streams: dict[str, Stream] = {}
        self.connections: set[Connection] = set()
        self._lock = threading.RLock()
        # One step: of two commits of a stream one succeeds.
        self._committing = threading.Lock()
        self._numbers = itertools.count(1)
        self._server: Any = None
        self.port = 0

    # The server

    def start(self, port: int = 0) -> None:
        self._server = grpc.server(
            # A thread per open AppendRows call; they are made when needed.
            ThreadPoolExecutor(max_workers=2000, thread_name_prefix="strict-bigquery"),
            options=[
                ("grpc.max_receive_message_length", _TRANSPORT_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ],
        )
        unary = {
            "CreateWriteStream": (self._create, CreateWriteStreamRequest),
            "GetWriteStream": (self._get, GetWriteStreamRequest),
            "FinalizeWriteStream": (self._finalize, FinalizeWriteStreamRequest),
            "FlushRows": (self._flush, FlushRowsRequest),
            "BatchCommitWriteStreams": (self._commit, BatchCommitWriteStreamsRequest),
        }
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(
                self._unary(name, work), request.FromString, lambda response: response.SerializeToString()
            )
            for name, (work, request) in unary.items()
        }
        handlers["AppendRows"] = grpc.stream_stream_rpc_method_handler(
            self._append_rows, None, lambda response: response.SerializeToString()
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def stop(self) -> None:
        self.faults.clear()
        if self._server is not None:
            self._server.stop(None)

    def cut(self, code: int = code_pb2.UNAVAILABLE, message: str = "Socket closed") -> int:
        """Ends every open AppendRows call; what was received and not worked on is lost with it. Returns how many."""
        with self._lock:
            ended = list(self.connections)
        for connection in ended:
            connection.end(Refusal(code, message))
        return len(ended)

    def _unary(self, name: str, work: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, context: Any) -> Any:
            self.store.count(name)
            self.faults.wait_while_frozen()
            subject = (
                getattr(request, "parent", "") or getattr(request, "name", "") or getattr(request, "write_stream", "")
            )
            attempt = Attempt(method=name, table=_table_id(subject), stream=subject)
            try:
                self._struck(attempt, after_append=False)
                response = work(request)
                self._struck(attempt, after_append=True)
                return response
            except Refusal as refusal:
                self.store.count(f"{name}.refused")
                _abort(context, refusal)

        return answer

    def _struck(self, attempt: Attempt, *, after_append: bool) -> None:
        fault = self.faults.find(attempt, after_append=after_append)
        if fault is not None:
            raise _of_fault(fault, attempt)

    # Streams

    def _table(self, path: str) -> Table:
        """The table, if the write path knows it: else NOT_FOUND with TABLE_NOT_FOUND ([ref], StorageErrorCode)."""
        found = _TABLE.fullmatch(path)
        if found is None:
            raise Refusal(code_pb2.INVALID_ARGUMENT, f"Invalid resource name. Entity: {path}")
        reference = (found[1], found[2], found[3])
        table = self.store.tables.get(reference)
        if table is None and self.upstream is not None:
            table = self.upstream.table(reference)
        if table is None or table.written_as(self.store.clock()) is None:
            raise Refusal(
                code_pb2.NOT_FOUND, f"Requested entity was not found. Entity: {path}", Code.TABLE_NOT_FOUND, path
            )
        return table

    def _stream(self, name: str) -> Stream:
        match = _STREAM.fullmatch(name)
        if match is None:
            # Seen at Google: `INVALID_ARGUMENT: Invalid stream name. Entity: …` ends the call
            # (github.com/googleapis/python-bigquery-storage/issues/593).
            raise Refusal(code_pb2.INVALID_ARGUMENT, f"Invalid stream name. Entity: {name}")
        now = self.store.clock()
        with self._lock:
            if match[5] == "_default":
                table = self._table(match[1])
                found = self.streams.get(name)
                if found is None or found.table is not table:
                    found = self.streams[name] = Stream(name, table, Kind.COMMITTED, now, now, committed=True)
                return found
            stream = self.streams.get(name)
            # "A committed stream has a TTL of four days if there is no traffic on the stream" ([stream], as quoted in
            # github.com/googleapis/java-bigquerystorage/issues/2198; the number has changed, so it is a setting).
            most = self.rules.stream_seconds
            if stream is not None and most is not None and now - stream.used > most:
                stream = None
            if stream is None or stream.table.dropped:
                raise Refusal(
                    code_pb2.NOT_FOUND, f"Requested entity was not found. Entity: {name}", Code.STREAM_NOT_FOUND, name
                )
            return stream

    def expire(self, name: str | None = None) -> int:
        """A stream (or every one that an application made) is gone, as after its time to live. Returns how many."""
        with self._lock:
            gone = [n for n, s in self.streams.items() if not s.is_default and name in (None, n)]
            for one in gone:
                del self.streams[one]
        return len(gone)

    def _create(self, request: Any) -> Any:
        table = self._table(request.parent)
        kind = request.write_stream.type_
        if kind not in (Kind.COMMITTED, Kind.PENDING, Kind.BUFFERED):
            raise Refusal(code_pb2.INVALID_ARGUMENT, "Write stream type must be set.", Code.INVALID_STREAM_TYPE)
        now = self.store.clock()
        if self.upstream is not None:
            name = self.upstream.create(request).name
        else:
            name = f"{request.parent}/streams/{uuid.uuid4().hex}"
        with self._lock:
            stream = self.streams[name] = Stream(name, table, kind, now, now, committed=kind == Kind.COMMITTED)
        return self._shown(stream, full=True)

    def _get(self, request: Any) -> Any:
        return self._shown(self._stream(request.name), full=request.view == types.WriteStreamView.FULL)

    def _shown(self, stream: Stream, *, full: bool) -> Any:
        shown = WriteStream(name=stream.name, type_=stream.kind, write_mode=1, location="us")
        version = stream.table.written_as(self.store.clock())
        if full and version is not None:
            # "The table schema could go out of date during the life time of the stream" ([ref]): the write path's view.
            shown.table_schema.CopyFrom(table_schema(version.fields))
        return shown

    def _finalize(self, request: Any) -> Any:
        """ "Finalize is not supported on the '_default' stream" ([ref]). Returns the rows that the stream has."""
        stream = self._stream(request.name)
        if stream.is_default:
            raise Refusal(
                code_pb2.INVALID_ARGUMENT, "Finalize is not supported on the default stream.", Code.INVALID_STREAM_TYPE
            )
        # One step with any append: what comes after it is refused, whoever sent it.
        with stream.lock:
            if self.upstream is not None and not stream.finalized:
                self.upstream.finalize(request)
            stream.finalized = True
            return FinalizeWriteStreamResponse(row_count=stream.count)

    def _flush(self, request: Any) -> Any:
        """ "Rows before this offset (including this offset) will be flushed" ([ref]); BUFFERED streams only."""
        stream = self._stream(request.write_stream)
        if stream.kind != Kind.BUFFERED:
            raise Refusal(code_pb2.INVALID_ARGUMENT, "Stream must be in buffered mode.", Code.INVALID_STREAM_TYPE)
        with stream.lock:
            upto = request.offset.value + 1 if request.HasField("offset") else stream.count
            if upto > stream.count:
                raise Refusal(code_pb2.OUT_OF_RANGE, "Offset is beyond the end.", Code.OFFSET_OUT_OF_RANGE)
            if upto > stream.flushed and stream.waiting:
                whole = pa.Table.from_batches(stream.waiting).slice(stream.flushed, upto - stream.flushed)
                self.store.add(stream.table, whole.combine_chunks().to_batches()[0], stream.name)
                stream.flushed = upto
            return FlushRowsResponse(offset=stream.flushed - 1)

    def _commit(self, request: Any) -> Any:
        """ "Streams must be finalized before commit and cannot be committed multiple times" ([ref], [batch])."""
        with self._committing:
            streams = [self._stream(name) for name in request.write_streams]
            answer = BatchCommitWriteStreamsResponse()
            for stream in streams:
                code = None
                if stream.kind != Kind.PENDING:
                    code = Code.INVALID_STREAM_TYPE
                elif stream.committed:
                    code = Code.STREAM_ALREADY_COMMITTED
                elif not stream.finalized:
                    code = Code.INVALID_STREAM_STATE
                if code is not None:
                    answer.stream_errors.add(code=code, entity=stream.name, error_message=f"Stream state: {code.name}")
            if not answer.stream_errors:
                for stream in streams:
                    stream.committed = True
                    for batch in stream.waiting:
                        self.store.add(stream.table, batch, stream.name)
                answer.commit_time.GetCurrentTime()
            return answer

    # AppendRows

    def _append_rows(self, requests: Iterator[bytes], context: Any) -> Iterator[Any]:
        connection = Connection(requests, next(self._numbers))
        self.store.count("AppendRows.connections")
        with self._lock:
            self.connections.add(connection)
        try:
            while True:
                item = connection.inbox.get()
                if item is _END:
                    return
                self.faults.wait_while_frozen()
                if isinstance(item, Refusal):
                    raise item
                yield self._answer(connection, item)
        except Refusal as refusal:
            self.store.count("AppendRows.ended")
            _abort(context, refusal)
        finally:
            with self._lock:
                self.connections.discard(connection)
                if connection.stream is not None and connection.stream.connection is connection:
                    connection.stream.connection = None
                self.store.calls["AppendRows.open"] = len(self.connections)

    def _answer(self, connection: Connection, raw: bytes) -> Any:
        self.store.count("AppendRows.requests")
        if self.rules.append_seconds:
            time.sleep(self.rules.append_seconds)
        if len(raw) > self.rules.request_bytes:
            # Assumed: it ends the call, as a malformed request does; the page says the code alone.
            raise Refusal(
                code_pb2.INVALID_ARGUMENT,
                f"AppendRows request too large: {len(raw)} limit {self.rules.request_bytes}",
            )
        request = Request.FromString(raw)
        stream = self._target(connection, request)
        try:
            return self._append(connection, stream, request)
        except Refusal as refusal:
            self.store.count("AppendRows.refused")
            if refusal.ends:
                raise
            return refusal.response(stream.name)

    def _target(self, connection: Connection, request: Any) -> Stream:
        """The request's stream: provided in the first request, and changed on default streams alone ([ref])."""
        named = request.write_stream
        if connection.stream is None and not named:
            raise Refusal(code_pb2.INVALID_ARGUMENT, "write_stream must be set in the first request.")
        stream = connection.stream
        if stream is None or (named and named != stream.name):
            if stream is not None and not (stream.is_default and named.endswith("_default")):
                raise Refusal(code_pb2.INVALID_ARGUMENT, "write_stream must be that of the first request.")
            stream = self._stream(named)
            self._occupy(connection, stream)
            connection.stream, connection.plan = stream, None
        elif not stream.is_default or stream.table.dropped:
            # It may have expired, or have gone with its table, since.
            self._stream(stream.name)
        if request.arrow_rows.writer_schema.serialized_schema:
            connection.writer = pa.ipc.read_schema(pa.py_buffer(request.arrow_rows.writer_schema.serialized_schema))
            connection.plan = None
        elif request.HasField("proto_rows"):
            raise Refusal(
                code_pb2.UNIMPLEMENTED, "The strict BigQuery takes Arrow rows; protobuf rows are not modelled."
            )
        if connection.writer is None:
            # "Schema … only needs to be specified in the first request" ([ref], ArrowData.writer_schema).
            raise Refusal(code_pb2.INVALID_ARGUMENT, "writer_schema must be set in the first request.")
        if request.default_missing_value_interpretation:
            # "applied to all requests from that point forward" ([ref]).
            connection.default_missing = request.default_missing_value_interpretation
        return stream

    def _occupy(self, connection: Connection, stream: Stream) -> None:
        """ "only a single active connection on application-created streams" ([best]).

        Assumed, as the page does not say which of two loses: the older call ends with ABORTED, so that a worker that
        replaces a lost one can continue; `second_connection` has the other readings.
        """
        if stream.is_default or self.rules.second_connection == "allowed":
            return
        with self._lock:
            older, free = stream.connection, stream.connection is None
            if not free and self.rules.second_connection == "newer-refused":
                self.store.count("AppendRows.second_connection")
                raise Refusal(code_pb2.ABORTED, f"The stream has an active connection already. Entity: {stream.name}")
            stream.connection = connection
        if older is not None and older is not connection:
            self.store.count("AppendRows.second_connection")
            older.end(
                Refusal(code_pb2.ABORTED, f"Closing the stream because it is opened elsewhere. Entity: {stream.name}")
            )

    def _append(self, connection: Connection, stream: Stream, request: Any) -> Any:
        batch = self._decoded(connection, request)
        offset = request.offset.value if request.HasField("offset") else None
        attempt = Attempt(method="AppendRows", table=stream.table.id, stream=stream.name, offset=offset, rows=batch)
        self._struck(attempt, after_append=False)
        if stream.is_default and offset is not None:
            # "Specifying a value for this field is not allowed when calling AppendRows for the '_default' stream".
            raise Refusal(code_pb2.INVALID_ARGUMENT, "An offset is not allowed on the default stream.")
        made = self._planned(connection, stream)
        # One step: an append and a finalize, or two appends at one offset, never both succeed ([api]).
        with stream.lock:
            self._check_position(stream, offset)
            self._check_schema(stream, made, batch)
            fill = connection.default_missing == DEFAULT_VALUE
            self._check_rows(stream, made, batch, attempt, fill)
            first = stream.count
            rows = rows_of.stored(batch, made, fill)
            if self.upstream is not None:
                self.upstream.append(stream.name, rows, offset)
            if stream.kind == Kind.COMMITTED:
                self.store.add(stream.table, rows, stream.name)
            else:
                stream.waiting.append(rows)
            stream.count += rows.num_rows
            stream.used = self.store.clock()
        self.store.count("AppendRows.rows", rows.num_rows)
        self._struck(attempt, after_append=True)
        response = Response(write_stream=stream.name)
        response.append_result.SetInParent()
        if not stream.is_default:
            # "The offset will not be set if appending using default streams" ([ref]).
            response.append_result.offset.value = first
        self._tell_of_schema(connection, stream, response)
        return response

    def _decoded(self, connection: Connection, request: Any) -> pa.RecordBatch:
        try:
            batch = pa.ipc.read_record_batch(
                pa.py_buffer(request.arrow_rows.rows.serialized_record_batch), connection.writer
            )
            batch.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise Refusal(
                code_pb2.INVALID_ARGUMENT, f"Malformed Arrow rows: {type(error).__name__}", ends=False
            ) from None
        if not batch.num_rows:
            raise Refusal(code_pb2.INVALID_ARGUMENT, "Rows must be specified.", ends=False)
        return batch

    def _planned(self, connection: Connection, stream: Stream) -> rows_of.Plan:
        version = stream.table.written_as(self.store.clock())
        assert version is not None
        if connection.plan is None or connection.plan.version is not version:
            connection.plan = rows_of.plan(connection.writer, version)
        return connection.plan

    @staticmethod
    def _check_position(stream: Stream, offset: int | None) -> None:
        if stream.finalized:
            # "a StorageError with StorageErrorCode.STREAM_FINALIZED in the google.rpc.Status error" ([batch]). Assumed:
            # the code. Beam knows INVALID_ARGUMENT and FAILED_PRECONDITION (github.com/apache/beam/pull/16906).
            raise Refusal(
                code_pb2.FAILED_PRECONDITION,
                f"Stream has been finalized and cannot be appended. Entity: {stream.name}",
                Code.STREAM_FINALIZED,
                stream.name,
                ends=False,
            )
        if offset is None or offset == stream.count:
            return
        if offset < stream.count:
            # "ALREADY_EXISTS: … the backend already has received data at this offset" ([ref]).
            raise Refusal(
                code_pb2.ALREADY_EXISTS,
                f"The offset is within stream, expected offset {stream.count}, received {offset}",
                Code.OFFSET_ALREADY_EXISTS,
                stream.name,
                ends=False,
            )
        # "OUT_OF_RANGE: … the specified offset in the stream is beyond the current end of the stream" ([ref]).
        raise Refusal(
            code_pb2.OUT_OF_RANGE,
            f"The offset is beyond stream, expected offset {stream.count}, received {offset}",
            Code.OFFSET_OUT_OF_RANGE,
            stream.name,
            ends=False,
        )

    def _check_schema(self, stream: Stream, made: rows_of.Plan, batch: pa.RecordBatch) -> None:
        """Seen at Google: `INVALID_ARGUMENT: Input schema has more fields than BigQuery schema, extra fields: '…'`
        (github.com/memiiso/debezium-server-bigquery/issues/268), with SCHEMA_MISMATCH_EXTRA_FIELDS ([ref]).
        Assumed: which way it arrives; `schema_mismatch` has all three."""
        form = self.rules.schema_mismatch
        if made.extra:
            extra = ", ".join(f"'{name}'" for name in made.extra)
            text = f"Input schema has more fields than BigQuery schema, extra fields: {extra} Entity: {stream.name}"
            storage = 0 if form == "row-errors" else Code.SCHEMA_MISMATCH_EXTRA_FIELDS
            refusal = Refusal(code_pb2.INVALID_ARGUMENT, text, storage, stream.name, ends=form == "ends-call")
            if form == "row-errors":
                refusal.row_errors = dict.fromkeys(range(batch.num_rows), f"no such field: {made.extra[0]}.")
            raise refusal
        if made.clashes or made.missing:
            text = "; ".join(made.clashes + [f"{name} is REQUIRED and missing" for name in made.missing])
            raise Refusal(
                code_pb2.INVALID_ARGUMENT,
                f"Input schema does not match BigQuery schema: {text}. Entity: {stream.name}",
                entity=stream.name,
                ends=form == "ends-call",
            )

    def _check_rows(
        self, stream: Stream, made: rows_of.Plan, batch: pa.RecordBatch, attempt: Attempt, fill: bool
    ) -> None:
        bad = rows_of.row_errors(batch, made, fill)
        for index in self.faults.refused_rows(attempt):
            bad.setdefault(index, "Refused by a fault of the strict BigQuery.")
        if bad:
            refusal = Refusal(
                code_pb2.INVALID_ARGUMENT,
                f"Errors found while processing rows. Please refer to the row_errors field. Entity: {stream.name}",
                ends=False,
            )
            refusal.row_errors = bad
            raise refusal

    def _tell_of_schema(self, connection: Connection, stream: Stream, response: Any) -> None:
        """ "If backend detects a schema update, pass it to user" ([ref]). Once per connection and schema (assumed)."""
        newest = stream.table.written_as(self.store.clock())
        assert newest is not None
        number = stream.table.versions.index(newest)
        if connection.told_of is not None and number > connection.told_of:
            response.updated_schema.CopyFrom(table_schema(newest.fields))
        connection.told_of = number


def _of_fault(fault: Fault, attempt: Attempt) -> Refusal:
    return Refusal(
        fault.code,
        fault.message or f"Refused by a fault of the strict BigQuery. Entity: {attempt.stream}",
        fault.storage_error,
        attempt.stream,
        ends=not fault.in_band or attempt.method != "AppendRows",
    )


@dataclass(frozen=True)
class _Status(grpc.Status):
    code: Any
    details: str
    trailing_metadata: Any


def _abort(context: Any, refusal: Refusal) -> None:
    status = refusal.status()
    code = next(c for c in grpc.StatusCode if c.value[0] == refusal.code)
    metadata = (("grpc-status-details-bin", status.SerializeToString()),) if refusal.storage else ()
    context.abort_with_status(_Status(code, refusal.message, metadata))


def table_schema(fields: tuple[dict[str, Any], ...]) -> Any:
    schema = TableSchema()
    for f in fields:
        added = schema.fields.add(name=f["name"])
        added.type_ = types.TableFieldSchema.Type[_NEWER.get(f["type"], f["type"])].value
        added.mode = types.TableFieldSchema.Mode[f["mode"]].value
        added.description = f.get("description") or ""
        added.default_value_expression = f.get("defaultValueExpression") or ""
    return schema


def _table_id(path: str) -> str:
    found = re.match(r"projects/[^/]+/datasets/([^/]+)/tables/([^/]+)", path)
    return f"{found[1]}.{found[2]}" if found else ""


def reference_of(path: str) -> Reference | None:
    found = _TABLE.match(path)
    return (found[1], found[2], found[3]) if found else None
