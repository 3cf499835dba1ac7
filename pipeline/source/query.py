"""Change stream queries: one call to Spanner, its responses turned into records."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from google.cloud.spanner_v1.types import result_set, spanner
from google.cloud.spanner_v1.types import type as types

from pipeline.channels import StreamingCall, StreamingChannels
from pipeline.source.records import Child, ChildPartitions, Record, RecordReader

_Request = spanner.ExecuteSqlRequest.pb()
_Priority = spanner.RequestOptions.Priority
# Spanner names the partitions at once, and waits for a start that is still to come.
_ROOTS_SECONDS = 60.0
_SERVICE = "/google.spanner.v1.Spanner"


@dataclass(frozen=True, kw_only=True)
class ChangeStream:
    """Which change stream to read, and how. `database` is `projects/P/instances/I/databases/D`."""

    name: str
    database: str
    endpoint: str = ""
    role: str = ""
    priority: str = "HIGH"
    heartbeat_millis: int = 1000


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
            response_deserializer=result_set.PartialResultSet.pb().FromString,
        )
        self._session = ""
        self._session_lock = threading.Lock()
        self._reader = RecordReader(stream.name)

    @property
    def stream(self) -> str:
        return self._stream.name

    @property
    def heartbeat_seconds(self) -> float:
        return self._stream.heartbeat_millis / 1000

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

        def ask(avoid: StreamingCall | None) -> _Call:
            session = self._session or self._new_session("")
            limits = {} if timeout is None else {"timeout": timeout}
            call = self._execute(self._request(session, start, token, end), avoid=avoid, **limits)
            if on_call:
                on_call(call)
            return _Call(session, call)

        return self._reader.records(self._responses(ask, avoid))

    def roots(self, start: str) -> list[Child]:
        """The partitions that are live at `start`."""
        return [
            child
            for record in self.run(start, token=None, timeout=_ROOTS_SECONDS)
            if isinstance(record, ChildPartitions)
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
        request = _Request(
            session=session,
            sql=(
                f"SELECT ChangeRecord FROM READ_{stream.name}(start_timestamp => @start, end_timestamp => @end, "
                "partition_token => @token, heartbeat_milliseconds => @heartbeat)"
            ),
        )
        # Change streams answer single-use strong reads only.
        request.transaction.single_use.read_only.strong = True
        request.request_options.priority = getattr(_Priority, f"PRIORITY_{stream.priority}")
        for name, value, code in (
            ("start", start, types.TypeCode.TIMESTAMP),
            ("end", end, types.TypeCode.TIMESTAMP),
            ("token", token, types.TypeCode.STRING),
            ("heartbeat", str(stream.heartbeat_millis), types.TypeCode.INT64),
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
                self._session = self._create_session(request, timeout=30).name
            return self._session

    def _forget_session(self, ended: str) -> None:
        with self._session_lock:
            if self._session == ended:
                self._session = ""


class _Call(NamedTuple):
    session: str
    responses: StreamingCall


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
