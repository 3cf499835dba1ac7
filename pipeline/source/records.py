"""The records of a change stream, read from Spanner's protocol buffers.

A row of `READ_<stream>` is an ARRAY of STRUCT<data_change_record, heartbeat_record, child_partitions_record>, each an
array itself. The client library's row parser builds Python objects for every nested value; reading the wire messages
directly and remembering column types is several times cheaper, and this is the hot path.

Times are texts as in `contract.timestamps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson
from google.cloud.spanner_v1.types import result_set

from contract.changes import Column
from contract.timestamps import normalise

PartialResultSet = result_set.PartialResultSet.pb()

_COLUMNS_REMEMBERED = 1000


class Mod(NamedTuple):
    """One modification, as JSON texts: the key, the values after it and the values before it."""

    keys: str
    new_values: str
    old_values: str


class DataChange(NamedTuple):
    """A data change record: the modifications that one transaction made to one table in one partition."""

    stream: str
    commit_timestamp: str
    record_sequence: str
    server_transaction_id: str
    is_last_record_in_transaction_in_partition: bool
    table: str
    columns: tuple[Column, ...]
    mods: tuple[Mod, ...]
    mod_type: str
    value_capture_type: str
    number_of_records_in_transaction: int
    number_of_partitions_in_transaction: int
    transaction_tag: str
    is_system_transaction: bool

    @property
    def id(self) -> str:
        """Unique within one commit timestamp of one partition."""
        return f"{self.server_transaction_id}/{self.record_sequence}"


class Heartbeat(NamedTuple):
    """Everything up to and including `timestamp` has been returned."""

    timestamp: str


class Child(NamedTuple):
    """A partition that takes over at `start` once all `parents` have ended."""

    token: str
    start: str
    parents: tuple[str, ...]


class ChildPartitions(NamedTuple):
    """The last record of a partition (of the query without a token: the partitions to start with)."""

    children: tuple[Child, ...]


Record = DataChange | Heartbeat | ChildPartitions


class ReadPosition(NamedTuple):
    """Every change of `stream` committed before `position` was emitted before this.

    It travels with the changes, because a watermark alone cannot be trusted with it: a runner that drains a job moves
    the watermark to infinity, however far the stream was read.
    """

    stream: str
    position: str


class RecordReader:
    """Turns the responses of one change stream into records. Remembers the column types it has seen."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._columns: dict[bytes, tuple[Column, ...]] = {}

    def records(self, responses: Iterable[Any]) -> Iterator[Record]:
        """Yields the records of a GoogleSQL change stream query in the order of the responses."""
        for value in _values(responses):
            for change_record in value.list_value.values:
                data, heartbeats, children = change_record.list_value.values
                for item in data.list_value.values:
                    yield self._data_change(item.list_value.values)
                for item in heartbeats.list_value.values:
                    yield Heartbeat(normalise(item.list_value.values[0].string_value))
                for item in children.list_value.values:
                    yield _child_partitions(item.list_value.values)

    def _data_change(self, v: Any) -> DataChange:
        return DataChange(
            stream=self._stream,
            commit_timestamp=normalise(v[0].string_value),
            record_sequence=v[1].string_value,
            server_transaction_id=v[2].string_value,
            is_last_record_in_transaction_in_partition=v[3].bool_value,
            table=v[4].string_value,
            columns=self._column_types(v[5]),
            mods=tuple(Mod(*(text.string_value for text in mod.list_value.values)) for mod in v[6].list_value.values),
            mod_type=v[7].string_value,
            value_capture_type=v[8].string_value,
            number_of_records_in_transaction=int(v[9].string_value or 0),
            number_of_partitions_in_transaction=int(v[10].string_value or 0),
            transaction_tag=v[11].string_value,
            is_system_transaction=v[12].bool_value,
        )

    def _column_types(self, value: Any) -> tuple[Column, ...]:
        # Every record repeats its column types: about half of its size. Their bytes are the key of what they mean.
        wire = value.SerializeToString()
        columns = self._columns.get(wire)
        if columns is None:
            if len(self._columns) >= _COLUMNS_REMEMBERED:
                self._columns.clear()
            columns = tuple(
                Column(c[0].string_value, spanner_type(orjson.loads(c[1].string_value)), c[2].bool_value)
                for c in (column.list_value.values for column in value.list_value.values)
            )
            self._columns[wire] = columns
        return columns


def spanner_type(described: dict[str, Any]) -> str:
    """The type text of a column type: `{"code": "ARRAY", "array_element_type": {"code": "INT64"}}` → `ARRAY<INT64>`."""
    code = described["code"]
    if code == "ARRAY":
        return f"ARRAY<{spanner_type(described['array_element_type'])}>"
    return str(code)


def _child_partitions(v: Any) -> ChildPartitions:
    start = normalise(v[0].string_value)
    return ChildPartitions(
        tuple(
            Child(token.string_value, start, tuple(p.string_value for p in parents.list_value.values))
            for token, parents in (child.list_value.values for child in v[2].list_value.values)
        )
    )


def _values(responses: Iterable[Any]) -> Iterator[Any]:
    """The values of a streamed result, with those put together that a response boundary cut."""
    pending = None
    for response in responses:
        values = list(response.values)
        if pending is not None and values:
            _append(pending, values[0])
            values[0] = pending
            pending = None
        if response.chunked_value and values:
            # A copy: the response's memory must not outlive it.
            pending = type(values[-1])()
            pending.CopyFrom(values.pop())
        yield from values


def _append(first: Any, rest: Any) -> None:
    """Joins a cut value with its continuation, by the rules of PartialResultSet.chunked_value."""
    kind = first.WhichOneof("kind")
    if kind == "string_value":
        first.string_value += rest.string_value
    elif kind == "list_value":
        following = list(rest.list_value.values)
        items = first.list_value.values
        if items and following:
            last, head = items[-1].WhichOneof("kind"), following[0].WhichOneof("kind")
            if last == head and last in ("string_value", "list_value"):
                _append(items[-1], following.pop(0))
        items.extend(following)
    else:
        first.CopyFrom(rest)
