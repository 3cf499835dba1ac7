"""A plain client of change streams: one call is one call, and a failure is the caller's.

What the strict Spanner does is shown with it, and not with the product's client, which recovers by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.cloud.spanner_v1.types import result_set, spanner
from google.cloud.spanner_v1.types import type as types

from pipeline.source.query import ChangeStream
from pipeline.source.records import Child, ChildPartitions, Record, RecordReader

_Request = spanner.ExecuteSqlRequest.pb()
_Priority = spanner.RequestOptions.Priority
_SERVICE = "/google.spanner.v1.Spanner"


class PlainQuery:
    """Runs change stream queries over one channel and session."""

    def __init__(self, stream: ChangeStream, channel: Any) -> None:
        self._stream = stream
        self._create_session = channel.unary_unary(
            f"{_SERVICE}/CreateSession",
            request_serializer=_serialize,
            response_deserializer=spanner.Session.pb().FromString,
        )
        self.execute = channel.unary_stream(
            f"{_SERVICE}/ExecuteStreamingSql",
            request_serializer=_serialize,
            response_deserializer=result_set.PartialResultSet.pb().FromString,
        )
        self.session = ""
        self._reader = RecordReader(stream.name)

    def run(
        self, start: str, *, token: str | None, end: str | None = None, on_call: Callable[[Any], None] | None = None
    ) -> Iterator[Record]:
        """Yields the records of one partition from `start` to `end`, both included; without an end, until it ends.

        Without a token, yields the partitions that are live at `start`. `on_call` gets the call, so that another thread
        can cancel it. Raises grpc.RpcError.
        """
        call = self.execute(self.request(start, token, end))
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
        """The next query makes a session again."""
        self.session = ""

    def request(self, start: str, token: str | None, end: str | None) -> Any:
        """A single-use strong read: change streams answer no other."""
        stream = self._stream
        request = _Request(
            session=self.session or self._new_session(),
            sql=(
                f"SELECT ChangeRecord FROM READ_{stream.name}(start_timestamp => @start, end_timestamp => @end, "
                "partition_token => @token, heartbeat_milliseconds => @heartbeat)"
            ),
        )
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
        self.session = self._create_session(request, timeout=30).name
        return self.session


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
