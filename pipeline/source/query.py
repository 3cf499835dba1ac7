"""Change stream queries: one call to Spanner, its responses turned into records."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from google.cloud.spanner_v1.types import result_set, spanner
from google.cloud.spanner_v1.types import type as types

from contract import dialects, timestamps
from contract.changes import MUTABLE
from contract.dialects import Dialect
from pipeline.channels import StreamingCall, StreamingChannels
from pipeline.source import wire
from pipeline.source.proto_records import ProtoReader
from pipeline.source.records import (
    Child,
    ChildPartitions,
    DataChange,
    Heartbeat,
    PartitionEnd,
    PartitionStart,
    Record,
    RecordReader,
)

_Request = spanner.ExecuteSqlRequest.pb()
_Priority = spanner.RequestOptions.Priority
# Spanner names the partitions at once, and waits for a start that is still to come.
_ROOTS_SECONDS = 60.0
_SERVICE = "/google.spanner.v1.Spanner"
# A stream of the mode MUTABLE_KEY_RANGE is asked with an end, at most half an hour away.
_MOST_NANOS = 20 * 60 * 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class ChangeStream:
    """Which change stream to read, and how.

    `database` is `projects/P/instances/I/databases/D`. `endpoint` is host:port, empty for Google Cloud. `role` is the
    database role to read with, empty for none. `priority` is HIGH, MEDIUM or LOW. `directed_reads` are the replicas to
    read from, as `directed_reads_of` has them, empty for the nearest. `function` is the read function, empty for
    `READ_<name>`, in PostgreSQL `read_json_<name>` or `read_proto_bytes_<name>`.
    """

    name: str
    database: str
    endpoint: str = ""
    role: str = ""
    priority: str = "HIGH"
    heartbeat_millis: int = 1000
    directed_reads: str = ""
    function: str = ""


def directed_reads_of(text: str) -> Any:
    """DirectedReadOptions of `LOCATION`, `LOCATION:TYPE` or `:TYPE` with commas; TYPE is READ_ONLY or READ_WRITE.

    None for an empty text. Others are read where none of these can answer: cloud.google.com/spanner/docs/directed-reads
    """
    if not text:
        return None
    options = spanner.DirectedReadOptions.pb()()
    for part in text.split(","):
        location, _, kind = part.strip().partition(":")
        options.include_replicas.replica_selections.add(location=location, type_=kind or "TYPE_UNSPECIFIED")
    return options


class ChangeStreamQuery:
    """Runs change stream queries over the channels to Spanner, in one session. Safe for several threads.

    A session that Spanner has ended (a multiplexed one lives 28 days) is replaced.
    """

    def __init__(self, stream: ChangeStream, channel: Any) -> None:
        self._stream = stream
        self._channels = StreamingChannels.around(channel)
        self._create_session = self._channels.unary_unary(
            f"{_SERVICE}/CreateSession",
            request_serializer=_serialize,
            response_deserializer=spanner.Session.pb().FromString,
        )
        self._execute = self._channels.unary_stream(
            f"{_SERVICE}/ExecuteStreamingSql",
            request_serializer=_serialize,
            response_deserializer=wire.Response.FromString,
        )
        self._directed_reads = directed_reads_of(stream.directed_reads)
        self._ask = self._channels.unary_unary(
            f"{_SERVICE}/ExecuteSql",
            request_serializer=_serialize,
            response_deserializer=result_set.ResultSet.pb().FromString,
        )
        self._session = ""
        self._dialect: Dialect | None = None
        self._session_lock = threading.Lock()
        self._reader: RecordReader | ProtoReader = RecordReader(stream.name)
        self._is_mutable: bool | None = None

    @property
    def stream(self) -> str:
        return self._stream.name

    @property
    def heartbeat_seconds(self) -> float:
        return self._stream.heartbeat_millis / 1000

    @property
    def mutable(self) -> bool:
        """Whether the stream's partition_mode is MUTABLE_KEY_RANGE. It cannot be altered: Spanner is asked once."""
        if self._is_mutable is None:
            sql = (
                "SELECT OPTION_VALUE FROM INFORMATION_SCHEMA.CHANGE_STREAM_OPTIONS "
                f"WHERE CHANGE_STREAM_NAME = '{self._stream.name}' AND OPTION_NAME = 'partition_mode'"
            )

            def ask(avoid: StreamingCall | None) -> _Call:
                session = self._session or self._new_session("")
                request = _Request(session=session, sql=sql)
                request.transaction.single_use.read_only.strong = True
                return _Call(session, self._execute(request, avoid=avoid, timeout=_ROOTS_SECONDS))

            values = [
                value.string_value
                for response in self._responses(ask, None)
                for value in result_set.PartialResultSet.pb().FromString(response.SerializeToString()).values
            ]
            self._is_mutable = MUTABLE in values
            if self._is_mutable:
                self._reader = ProtoReader(self._stream.name)
        return self._is_mutable

    def run(
        self,
        start: str,
        *,
        token: str | None,
        end: str | None = None,
        on_call: Callable[[StreamingCall], None] | None = None,
        avoid: StreamingCall | None = None,
        timeout: float | None = None,
    ) -> Iterator[Record]:
        """Yields the records of one partition from `start` to `end`, both included; without an end, until it ends.

        Without a token, yields the partitions that are live at `start`. `on_call` gets each call, so that another
        thread can watch and cancel it; `avoid` is a call that was left unanswered, whose connection is not used. Raises
        grpc.RpcError, and UnreadableStream for a partition mode that cannot be read.
        """
        limits = {} if timeout is None else {"timeout": timeout}
        if not self.mutable:
            return self._run_once(start, token, end, on_call, avoid, limits)
        if token is None:
            return self._run_once(start, token, start, on_call, avoid, limits)
        return self._run_on(start, token, end, on_call, avoid)

    def _run_on(
        self,
        start: str,
        token: str,
        end: str | None,
        on_call: Callable[[StreamingCall], None] | None,
        avoid: StreamingCall | None,
    ) -> Iterator[Record]:
        """One query after the other, each with an end. Some records come twice, at the times where one follows another.

        Returns before `end` where Spanner ends a query early.
        """
        empty = 0
        while True:
            until = timestamps.from_nanos(timestamps.to_nanos(start) + _MOST_NANOS)
            until = until if end is None else min(until, end)
            reached = start
            for record in self._run_once(start, token, until, on_call, avoid, {}):
                yield record
                if isinstance(record, PartitionEnd):
                    return
                reached = max(reached, _time_of(record))
            if until == end or until > timestamps.now():
                return
            # A query that ended early looks like one whose time had nothing: that is believed the second time.
            empty = 0 if reached > start else empty + 1
            start, empty = (until, 0) if empty == 2 else (reached, empty)
            avoid = None

    def _run_once(
        self,
        start: str,
        token: str | None,
        end: str | None,
        on_call: Callable[[StreamingCall], None] | None,
        avoid: StreamingCall | None,
        limits: dict[str, float],
    ) -> Iterator[Record]:
        def ask(avoid: StreamingCall | None) -> _Call:
            session = self._session or self._new_session("")
            call = self._execute(self._request(session, start, token, end), avoid=avoid, **limits)
            if on_call:
                on_call(call)
            return _Call(session, call)

        return self._reader.records(self._responses(ask, avoid))

    def roots(self, start: str) -> list[Child]:
        """The partitions that are live at `start`.

        In the mode MUTABLE_KEY_RANGE those, too, that end at that very time: they can have a change of it.
        """
        ending: list[Child] = []
        if self.mutable:
            try:
                ending = self._roots(timestamps.before(start))
            except grpc.RpcError as error:
                # The stream is not older.
                if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                    raise
        return list({child.token: child for child in (*ending, *self._roots(start))}.values())

    def _roots(self, start: str) -> list[Child]:
        return [
            child
            for record in self.run(start, token=None, timeout=_ROOTS_SECONDS)
            if isinstance(record, ChildPartitions | PartitionStart)
            for child in record.children
        ]

    def unserved(self, call: StreamingCall) -> None:
        """Ends a call that is silent for too long."""
        self._channels.unserved(call)
        call.cancel()

    def _responses(self, ask: Callable[[StreamingCall | None], _Call], avoid: StreamingCall | None) -> Iterator[Any]:
        call = ask(avoid)
        try:
            try:
                first = next(call.responses, None)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                # The session or the database. Where it is the database, no session can be made.
                self._new_session(call.session)
                call.responses.cancel()
                call = ask(None)
                first = next(call.responses, None)
            if first is not None:
                yield first
                yield from call.responses
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                self._forget_session(call.session)
            raise
        finally:
            # What nobody reads to its end would keep its place on the connection.
            call.responses.cancel()

    def _request(self, session: str, start: str, token: str | None, end: str | None) -> Any:
        stream = self._stream
        # Found with the first session.
        assert self._dialect
        read = self._dialect.read(stream.function or self._dialect.read_function(stream.name, mutable=self.mutable))
        request = _Request(session=session, sql=read.sql)
        # Change streams answer single-use strong reads only.
        request.transaction.single_use.read_only.strong = True
        request.request_options.priority = getattr(_Priority, f"PRIORITY_{stream.priority}")
        if self._directed_reads is not None:
            request.directed_read_options.CopyFrom(self._directed_reads)
        for name, value, code in (
            (read.start, start, types.TypeCode.TIMESTAMP),
            (read.end, end, types.TypeCode.TIMESTAMP),
            (read.token, token, types.TypeCode.STRING),
            (read.heartbeat, str(stream.heartbeat_millis), types.TypeCode.INT64),
        ):
            request.param_types[name].code = code
            if value is None:
                request.params.fields[name].null_value = 0
            else:
                request.params.fields[name].string_value = value
        return request

    def _new_session(self, ended: str) -> str:
        """A session other than the one that has ended; the threads that find out together make one."""
        with self._session_lock:
            if self._session in ("", ended):
                self._session = ""
                request = spanner.CreateSessionRequest.pb()(database=self._stream.database)
                request.session.multiplexed = True
                if self._stream.role:
                    request.session.creator_role = self._stream.role
                session = self._create_session(request, timeout=30).name
                if self._dialect is None:
                    self._dialect = self._dialect_found(session)
                self._session = session
            return self._session

    def _dialect_found(self, session: str) -> Dialect:
        answer = self._ask(_Request(session=session, sql=dialects.WHICH), timeout=30)
        return dialects.answered([row.values[0].string_value] for row in answer.rows)

    def _forget_session(self, ended: str) -> None:
        with self._session_lock:
            if self._session == ended:
                self._session = ""


def _time_of(record: Record) -> str:
    if isinstance(record, DataChange):
        return record.commit_timestamp
    return record.timestamp if isinstance(record, Heartbeat) else ""


class _Call(NamedTuple):
    session: str
    responses: StreamingCall


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
