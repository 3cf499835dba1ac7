"""Change stream queries: one call to Spanner, its responses turned into records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.cloud.spanner_v1.types import result_set, spanner
from google.cloud.spanner_v1.types import type as types

from pipeline.source.records import Child, ChildPartitions, Record, RecordReader

_Request = spanner.ExecuteSqlRequest.pb()
_Priority = spanner.RequestOptions.Priority
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
    """Runs change stream queries over one channel and session. Safe for several threads."""

    def __init__(self, stream: ChangeStream, channel: Any) -> None:
        self._stream = stream
        self._create_session = channel.unary_unary(
            f"{_SERVICE}/CreateSession",
            request_serializer=_serialize,
            response_deserializer=spanner.Session.pb().FromString,
        )
        self._execute = channel.unary_stream(
            f"{_SERVICE}/ExecuteStreamingSql",
            request_serializer=_serialize,
            response_deserializer=result_set.PartialResultSet.pb().FromString,
        )
        self._session = ""
        self._reader = RecordReader(stream.name)

    def run(
        self, start: str, *, token: str | None, end: str | None = None, on_call: Callable[[Any], None] | None = None
    ) -> Iterator[Record]:
        """Yields the records of one partition from `start` to `end`, both included; without an end, until it ends.

        Without a token, yields the partitions that are live at `start`. `on_call` gets the call, so that another thread
        can cancel it. Raises grpc.RpcError.
        """
        call = self._execute(self._request(start, token, end))
        if on_call:
            on_call(call)
        return self._reader.records(call)

    def roots(self, start: str) -> list[Child]:
        """The partitions that are live at `start`."""
        return [
            child
            for record in self.run(start, token=None)
            if isinstance(record, ChildPartitions)
            for child in record.children
        ]

    def forget_session(self) -> None:
        """The next query makes a session anew."""
        self._session = ""

    def _request(self, start: str, token: str | None, end: str | None) -> Any:
        stream = self._stream
        request = _Request(
            session=self._session or self._new_session(),
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

    def _new_session(self) -> str:
        request = spanner.CreateSessionRequest.pb()(database=self._stream.database)
        request.session.multiplexed = True
        if self._stream.role:
            request.session.creator_role = self._stream.role
        self._session = self._create_session(request, timeout=30).name
        return self._session


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
