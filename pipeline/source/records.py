"""The records of a change stream, read from Spanner's protocol buffers.

A row of `READ_<stream>` is an ARRAY of STRUCT<data_change_record, heartbeat_record, child_partitions_record>, each an
array itself. The client library's row parser builds Python objects for every nested value; reading the wire messages
directly and remembering column types is several times cheaper, and this is the hot path.

Times are texts as in `contract.timestamps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from sys import getsizeof
from typing import Any, Final, NamedTuple

import orjson
from google.cloud.spanner_v1.types import result_set
from google.protobuf import struct_pb2

from contract.changes import Column
from contract.errors import AuditError
from contract.timestamps import normalise

PartialResultSet = result_set.PartialResultSet.pb()

_COLUMNS_REMEMBERED = 1000
_EMPTY = struct_pb2.Value()
_RECORD_BYTES = 1000

PARTITION_MODE: Final = "IMMUTABLE_KEY_RANGE"


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

    @property
    def weight(self) -> int:
        """About the bytes of memory that the record holds."""
        return _RECORD_BYTES + sum([getsizeof(m[0]) + getsizeof(m[1]) + getsizeof(m[2]) for m in self.mods])


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


class UnreadableStream(AuditError):
    """A change stream whose records this job cannot read; the message has the remedy."""

    def __init__(self, stream: str, found: str) -> None:
        super().__init__(
            f"change stream {stream} must have partition_mode '{PARTITION_MODE}', its records have {found}. A stream's "
            "mode cannot be altered: create a second stream with that mode for the same tables, and set "
            "spannerChangeStreamNames to it."
        )


class RecordReader:
    """Turns the responses of one change stream into records. Remembers the column types it has seen.

    Fields are found by the names in the result's metadata, and by their places where a result has none. A field that
    is not known is left alone, one that is absent is empty.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._columns: dict[bytes, tuple[Column, ...]] = {}
        self._shapes: dict[bytes, _Shape] = {b"": _Shape()}

    def records(self, responses: Iterable[Any]) -> Iterator[Record]:
        """Yields the records of a GoogleSQL change stream query in the order of the responses.

        Raises UnreadableStream for the records of another partition mode.
        """
        responses = iter(responses)
        first = next(responses, None)
        if first is None:
            return
        shape = self._shape(first.metadata.row_type)
        for value in _values(chain((first,), responses)):
            if value.WhichOneof("kind") != "list_value":
                raise UnreadableStream(self._stream, "another form")
            for change_record in value.list_value.values:
                data, heartbeats, children, *_ = shape.record(change_record.list_value.values)
                for item in data.list_value.values:
                    yield self._data_change(shape, item.list_value.values)
                for item in heartbeats.list_value.values:
                    yield Heartbeat(normalise(shape.heartbeat(item.list_value.values)[0].string_value))
                for item in children.list_value.values:
                    yield _child_partitions(shape, item.list_value.values)

    def _shape(self, row_type: Any) -> _Shape:
        wire = row_type.SerializeToString()
        shape = self._shapes.get(wire)
        if shape is None:
            shape = self._shapes[wire] = _Shape.of(self._stream, row_type)
        return shape

    def _data_change(self, shape: _Shape, values: Any) -> DataChange:
        v = shape.data(values)
        mod = shape.mod
        return DataChange(
            stream=self._stream,
            commit_timestamp=normalise(v[0].string_value),
            record_sequence=v[1].string_value,
            server_transaction_id=v[2].string_value,
            is_last_record_in_transaction_in_partition=v[3].bool_value,
            table=v[4].string_value,
            columns=self._column_types(shape, v[5]),
            mods=tuple(
                [
                    Mod(m[0].string_value, m[1].string_value, m[2].string_value)
                    for m in [mod(item.list_value.values) for item in v[6].list_value.values]
                ]
            ),
            mod_type=v[7].string_value,
            value_capture_type=v[8].string_value,
            number_of_records_in_transaction=int(v[9].string_value or 0),
            number_of_partitions_in_transaction=int(v[10].string_value or 0),
            transaction_tag=v[11].string_value,
            is_system_transaction=v[12].bool_value,
        )

    def _column_types(self, shape: _Shape, value: Any) -> tuple[Column, ...]:
        # Every record repeats its column types: about half of its size. Their bytes are the key of what they mean.
        wire = value.SerializeToString()
        columns = self._columns.get(wire)
        if columns is None:
            if len(self._columns) >= _COLUMNS_REMEMBERED:
                self._columns.clear()
            columns = tuple(
                Column(c[0].string_value, spanner_type(orjson.loads(c[1].string_value)), c[2].bool_value)
                for c in (shape.column_type(column.list_value.values) for column in value.list_value.values)
            )
            self._columns[wire] = columns
        return columns


class _Fields:
    """Picks the fields that are known out of a struct's values, in the order of their names here."""

    def __init__(self, names: tuple[str, ...], places: tuple[int | None, ...] | None = None) -> None:
        self._known = len(names)
        self._first = names[0]
        self._places = places or tuple(range(len(names)))
        self._in_order = self._places == tuple(range(len(names)))

    def __call__(self, values: Any) -> Any:
        # The usual case costs a comparison.
        if self._in_order and len(values) >= self._known:
            return values
        found = [values[at] if at is not None and at < len(values) else _EMPTY for at in self._places]
        if found[0].WhichOneof("kind") is None:
            raise ValueError(f"a change record must have its {self._first}, one has none. Nothing can be read past it.")
        return found


_RECORD: Final = ("data_change_record", "heartbeat_record", "child_partitions_record")
_DATA: Final = (
    "commit_timestamp",
    "record_sequence",
    "server_transaction_id",
    "is_last_record_in_transaction_in_partition",
    "table_name",
    "column_types",
    "mods",
    "mod_type",
    "value_capture_type",
    "number_of_records_in_transaction",
    "number_of_partitions_in_transaction",
    "transaction_tag",
    "is_system_transaction",
)
_COLUMN_TYPE: Final = ("name", "type", "is_primary_key")
_MOD: Final = ("keys", "new_values", "old_values")
_HEARTBEAT: Final = ("timestamp",)
_CHILDREN: Final = ("start_timestamp", "record_sequence", "child_partitions")
_CHILD: Final = ("token", "parent_partition_tokens")


class _Shape:
    """Where the fields of a change stream's records are. Without arguments: where Spanner's documentation has them."""

    def __init__(self) -> None:
        self.record = _Fields(_RECORD)
        self.data = _Fields(_DATA)
        self.column_type = _Fields(_COLUMN_TYPE)
        self.mod = _Fields(_MOD)
        self.heartbeat = _Fields(_HEARTBEAT)
        self.children = _Fields(_CHILDREN)
        self.child = _Fields(_CHILD)

    @classmethod
    def of(cls, stream: str, row_type: Any) -> _Shape:
        """From a result's metadata: one column of ARRAY<STRUCT<data_change_record ARRAY<STRUCT<…>>, …>>."""
        shape = cls()
        record = _struct(row_type.fields[0].type_) if row_type.fields else {}
        if any(name not in record for name in _RECORD):
            raise UnreadableStream(stream, ", ".join(sorted(record)) or "another form")
        shape.record = _places(_RECORD, record)
        data, children = _struct(record["data_change_record"][1]), _struct(record["child_partitions_record"][1])
        shape.data = _places(_DATA, data)
        shape.column_type = _places(_COLUMN_TYPE, _struct(data["column_types"][1]) if "column_types" in data else {})
        shape.mod = _places(_MOD, _struct(data["mods"][1]) if "mods" in data else {})
        shape.heartbeat = _places(_HEARTBEAT, _struct(record["heartbeat_record"][1]))
        shape.children = _places(_CHILDREN, children)
        shape.child = _places(
            _CHILD, _struct(children["child_partitions"][1]) if "child_partitions" in children else {}
        )
        return shape


def _struct(described: Any) -> dict[str, tuple[int, Any]]:
    """The fields of a STRUCT, or of an ARRAY's: name → its place and type."""
    while described.HasField("array_element_type"):
        described = described.array_element_type
    return {field.name: (at, field.type_) for at, field in enumerate(described.struct_type.fields)}


def _places(names: tuple[str, ...], found: dict[str, tuple[int, Any]]) -> _Fields:
    # A type that is not described: by place.
    return _Fields(names, tuple(found[name][0] if name in found else None for name in names) if found else None)


def spanner_type(described: dict[str, Any]) -> str:
    """The type text of a column type: `{"code": "ARRAY", "array_element_type": {"code": "INT64"}}` → `ARRAY<INT64>`."""
    code = described["code"]
    if code == "ARRAY":
        return f"ARRAY<{spanner_type(described['array_element_type'])}>"
    return str(code)


def _child_partitions(shape: _Shape, values: Any) -> ChildPartitions:
    v = shape.children(values)
    start = normalise(v[0].string_value)
    return ChildPartitions(
        tuple(
            Child(token.string_value, start, tuple(p.string_value for p in parents.list_value.values if p.string_value))
            for token, parents, *_ in (shape.child(child.list_value.values) for child in v[2].list_value.values)
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
