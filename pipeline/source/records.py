"""The records of a change stream, read from Spanner's protocol buffers.

A row of `READ_<stream>` is an ARRAY of STRUCT<data_change_record, heartbeat_record, child_partitions_record>, each an
array itself. The client library's row parser builds Python objects for every nested value; reading the wire messages
directly, only as deep as they are needed (`wire`), and remembering column types is several times cheaper, and this is
the hot path. In the PostgreSQL dialect a row of `spanner.read_json_<stream>` is a JSON text with one record.

Times are texts as in `contract.timestamps`: RFC 3339 in UTC with nine fractional digits. What each field means is what
Google says of it: cloud.google.com/spanner/docs/change-streams/details#data-change-records and the sections behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from sys import getsizeof
from typing import Any, Final, NamedTuple

import orjson
from google.cloud.spanner_v1.types import result_set
from google.cloud.spanner_v1.types import type as types
from google.protobuf import struct_pb2

from contract import spanner_types
from contract.changes import PARTITION_MODES, Column
from contract.errors import AuditError
from contract.timestamps import normalise
from pipeline.source import wire

_Metadata = result_set.ResultSetMetadata.pb()

_COLUMNS_REMEMBERED = 1000
_RECORD_BYTES = 1000


class Mod(NamedTuple):
    """One modification of one row: JSON objects as text, column name → value in Spanner's JSON encoding.

    INT64, NUMERIC, TIMESTAMP and DATE are strings, BYTES base64, a value of a JSON column is a JSON text.

    - `keys`: the primary key's columns.
    - `new_values`: values after the change, without the key. `NEW_ROW` and `NEW_ROW_AND_OLD_VALUES`: all watched
      columns; `NEW_VALUES` and `OLD_AND_NEW_VALUES`: of an UPDATE those that changed. `{}` for a DELETE.
    - `old_values`: values before it. `OLD_AND_NEW_VALUES` and `NEW_ROW_AND_OLD_VALUES`: of an UPDATE those that
      changed, of a DELETE all; else `{}`.
    """

    keys: str
    new_values: str
    old_values: str


class DataChange(NamedTuple):
    """A data change record: modifications of one kind that one transaction made to one table in one partition.

    - `stream`: the change stream that it was read from.
    - `commit_timestamp`: when the transaction was committed; a time as above.
    - `record_sequence`: its place in the transaction: text of eight digits or more, unique and rising in it, with gaps.
    - `server_transaction_id`: the transaction, unique across the database; not the id of Spanner's transaction API.
    - `is_last_record_in_transaction_in_partition`: whether the transaction has no later record in this partition.
    - `table`: the table; of a named schema `schema.table`.
    - `columns`: name, Spanner type and whether it is of the primary key, of each column that `mods` may have.
    - `mods`: the modifications, one per row, in no order.
    - `mod_type`: `INSERT`, `UPDATE` or `DELETE`, of all of them.
    - `value_capture_type`: that of the stream at the time: `OLD_AND_NEW_VALUES`, `NEW_VALUES`, `NEW_ROW` or
      `NEW_ROW_AND_OLD_VALUES`.
    - `number_of_records_in_transaction`: how many data change records the transaction has, in all partitions.
    - `number_of_partitions_in_transaction`: how many partitions have them.
    - `transaction_tag`: the tag that the writer gave the transaction; empty where it gave none.
    - `is_system_transaction`: whether Spanner itself made the change, as for a row that outlived its TTL.
    """

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
    """A sign of life of a partition in which nothing was committed.

    - `timestamp`: every change committed at or before it has been returned; a time as above.
    """

    timestamp: str


class Child(NamedTuple):
    """A partition that takes over from others.

    - `token`: names the partition in queries; opaque.
    - `start`: its changes have this commit timestamp or a later one; a time as above.
    - `parents`: tokens of the partitions that it takes over from; none for those that were live at a query's start.
      Nothing of it may be read before all of them have ended.
    """

    token: str
    start: str
    parents: tuple[str, ...]


class ChildPartitions(NamedTuple):
    """The last record of a partition; of the query without a token, the partitions to begin with.

    - `children`: those that take over. Each parent of a merge names the same child.
    """

    children: tuple[Child, ...]


class PartitionStart(NamedTuple):
    """In the mode MUTABLE_KEY_RANGE: partitions that are to be read from now on. Whoever names them lives on.

    - `children`: their tokens, and when they begin.
    """

    children: tuple[Child, ...]


class PartitionEnd(NamedTuple):
    """In the mode MUTABLE_KEY_RANGE: the last record of a partition.

    - `timestamp`: none of its changes is later; a time as above.
    """

    timestamp: str


Record = DataChange | Heartbeat | ChildPartitions | PartitionStart | PartitionEnd


class ReadPosition(NamedTuple):
    """How far a stream was read; it comes once per second of the stream.

    - `stream`: the change stream.
    - `position`: every change committed before this time was emitted before this element, of those that `reader` reads;
      a time as above.
    - `reader`: which of the readers of the stream, from 0.
    - `readers`: how many share the stream.

    It travels with the changes, because a watermark alone cannot be trusted with it: a runner that drains a job moves
    the watermark to infinity, however far the stream was read.
    """

    stream: str
    position: str
    reader: int = 0
    readers: int = 1


class UnreadableStream(AuditError):
    """A change stream whose records this job cannot read; the message has the remedy."""

    def __init__(self, stream: str, found: str) -> None:
        super().__init__(
            f"change stream {stream} must have partition_mode {' or '.join(PARTITION_MODES)}, its records have "
            f"{found}. A stream's mode cannot be altered: create a second stream with one of them for the same tables, "
            "and set spannerChangeStreamNames to it."
        )


class RecordReader:
    """Turns the responses of one change stream into records. Remembers the column types it has seen.

    Fields are found by the names in the result's metadata, and by their places where a result has none. A field that
    is not known is left alone, one that is absent is empty.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._columns: dict[bytes, tuple[Column, ...]] = {}
        self._shapes: dict[bytes, _Shape] = {}

    def records(self, responses: Iterable[Any]) -> Iterator[Record]:
        """Yields the records of a change stream query in the order of the responses.

        A response is a `wire.Response`, or the client library's PartialResultSet. Its metadata say which dialect's rows
        it has. Raises UnreadableStream for the records of another partition mode: those of MUTABLE_KEY_RANGE are for
        `proto_records`.
        """
        responses = map(_as_wire, responses)
        first = next(responses, None)
        if first is None:
            return
        shape = self._shape(first.metadata)
        if shape is _JSON:
            yield from self._written(chain((first,), responses))
            return
        for value in whole_values(chain((first,), responses)):
            records = wire.Records.FromString(value)
            if not records.HasField("list_value"):
                raise UnreadableStream(self._stream, "another form")
            for change_record in records.list_value.values:
                data, heartbeats, children, *_ = shape.record(change_record.list_value.values)
                for item in data.list_value.values:
                    yield self._data_change(shape, item.list_value.values)
                for item in heartbeats.list_value.values:
                    yield Heartbeat(normalise(shape.heartbeat(item.list_value.values)[0].string_value))
                for item in children.list_value.values:
                    yield _child_partitions(shape, item.list_value.values)

    def _written(self, responses: Iterable[Any]) -> Iterator[Record]:
        for value in whole_values(responses):
            found = orjson.loads(struct_pb2.Value.FromString(value).string_value)
            if data := found.get("data_change_record"):
                yield self._data_written(data)
            elif heartbeat := found.get("heartbeat_record"):
                yield Heartbeat(_time(heartbeat, "timestamp"))
            elif children := found.get("child_partitions_record"):
                start = _time(children, "start_timestamp")
                yield ChildPartitions(
                    tuple(
                        Child(each["token"], start, tuple(each.get("parent_partition_tokens") or ()))
                        for each in children.get("child_partitions") or ()
                    )
                )
            else:
                raise UnreadableStream(self._stream, ", ".join(sorted(found)) or "another form")

    def _data_written(self, record: dict[str, Any]) -> DataChange:
        return DataChange(
            self._stream,
            _time(record, "commit_timestamp"),
            record.get("record_sequence", ""),
            record.get("server_transaction_id", ""),
            record.get("is_last_record_in_transaction_in_partition", False),
            record.get("table_name", ""),
            self._types_written(record.get("column_types") or []),
            tuple(Mod(*(_text(mod.get(name)) for name in _MOD)) for mod in record.get("mods") or ()),
            record.get("mod_type", ""),
            record.get("value_capture_type", ""),
            int(record.get("number_of_records_in_transaction", 0)),
            int(record.get("number_of_partitions_in_transaction", 0)),
            record.get("transaction_tag", ""),
            record.get("is_system_transaction", False),
        )

    def _types_written(self, column_types: list[dict[str, Any]]) -> tuple[Column, ...]:
        key = orjson.dumps(column_types)
        columns = self._columns.get(key)
        if columns is None:
            columns = self._remember(
                key,
                tuple(
                    Column(each["name"], spanner_types.described(_object(each["type"])), each["is_primary_key"])
                    for each in column_types
                ),
            )
        return columns

    def _remember(self, key: bytes, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        if len(self._columns) >= _COLUMNS_REMEMBERED:
            self._columns.clear()
        self._columns[key] = columns
        return columns

    def _shape(self, metadata: bytes) -> _Shape:
        shape = self._shapes.get(metadata)
        if shape is None:
            if len(self._shapes) >= _COLUMNS_REMEMBERED:
                self._shapes.clear()
            row_type = _Metadata.FromString(metadata).row_type
            described = row_type.ByteSize() > 0
            shape = self._shapes[metadata] = _Shape.of(self._stream, row_type) if described else _Shape()
        return shape

    def _data_change(self, shape: _Shape, values: Any) -> DataChange:
        # Taken apart at once, and passed on by place: one look-up less for each field of each record.
        (
            commit_timestamp,
            record_sequence,
            transaction_id,
            is_last,
            table,
            column_types,
            mods,
            mod_type,
            value_capture_type,
            records,
            partitions,
            tag,
            is_system,
        ) = shape.data(values)
        found = []
        for item in wire.Structs.FromString(mods.list_value).values:
            keys, new_values, old_values = shape.mod(item.list_value.values)
            found.append(Mod(keys.string_value, new_values.string_value, old_values.string_value))
        return DataChange(
            self._stream,
            normalise(commit_timestamp.string_value),
            record_sequence.string_value,
            transaction_id.string_value,
            is_last.bool_value,
            table.string_value,
            self._column_types(shape, column_types.list_value),
            tuple(found),
            mod_type.string_value,
            value_capture_type.string_value,
            int(records.string_value or 0),
            int(partitions.string_value or 0),
            tag.string_value,
            is_system.bool_value,
        )

    def _column_types(self, shape: _Shape, described: bytes) -> tuple[Column, ...]:
        # Every record repeats its column types: about half of its size. Their bytes are the key of what they mean.
        columns = self._columns.get(described)
        if columns is None:
            found = (
                shape.column_type(column.list_value.values) for column in wire.Structs.FromString(described).values
            )
            columns = self._remember(
                described,
                tuple(
                    Column(c[0].string_value, spanner_types.described(orjson.loads(c[1].string_value)), c[2].bool_value)
                    for c in found
                ),
            )
        return columns


class _Fields:
    """Picks the fields that are known out of a struct's values, in the order of their names here."""

    def __init__(
        self, names: tuple[str, ...], places: tuple[int | None, ...] | None = None, empty: Any = wire.EMPTY_FIELD
    ) -> None:
        self._known = len(names)
        self._empty = empty
        self._first = names[0]
        self._places = places or tuple(range(len(names)))
        self._in_order = self._places == tuple(range(len(names)))

    def __call__(self, values: Any) -> Any:
        # The usual case costs a comparison.
        if self._in_order and len(values) >= self._known:
            return values if len(values) == self._known else values[: self._known]
        found = [values[at] if at is not None and at < len(values) else self._empty for at in self._places]
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
        self.record = _Fields(_RECORD, empty=wire.EMPTY_STRUCTS)
        self.data = _Fields(_DATA)
        self.column_type = _Fields(_COLUMN_TYPE)
        self.mod = _Fields(_MOD)
        self.heartbeat = _Fields(_HEARTBEAT)
        self.children = _Fields(_CHILDREN)
        self.child = _Fields(_CHILD)

    @classmethod
    def of(cls, stream: str, row_type: Any) -> _Shape:
        """From a result's metadata: one column of ARRAY<STRUCT<data_change_record ARRAY<STRUCT<…>>, …>>, or of JSON."""
        if row_type.fields and row_type.fields[0].type_.code == _JSON_CODE:
            return _JSON
        shape = cls()
        record = _struct(row_type.fields[0].type_) if row_type.fields else {}
        if any(name not in record for name in _RECORD):
            raise UnreadableStream(stream, ", ".join(sorted(record)) or "another form")
        shape.record = _places(_RECORD, record, wire.EMPTY_STRUCTS)
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


# The rows of `spanner.read_json_<stream>`: each is a text, and the fields in it have names.
_JSON: Final = _Shape()
_JSON_CODE: Final = int(types.TypeCode.JSON)


def _time(record: dict[str, Any], name: str) -> str:
    """A record's time, which PostgreSQL writes with `+00:00`."""
    if not record.get(name):
        raise ValueError(f"a change record must have its {name}, one has none. Nothing can be read past it.")
    return normalise(str(record[name]).replace("+00:00", "Z"))


def _text(content: Any) -> str:
    """What a record nests, as JSON."""
    return content if isinstance(content, str) else orjson.dumps(content or {}).decode()


def _object(content: Any) -> Any:
    return orjson.loads(content) if isinstance(content, str) else content


def _struct(described: Any) -> dict[str, tuple[int, Any]]:
    """The fields of a STRUCT, or of an ARRAY's: name → its place and type."""
    while described.HasField("array_element_type"):
        described = described.array_element_type
    return {field.name: (at, field.type_) for at, field in enumerate(described.struct_type.fields)}


def _places(names: tuple[str, ...], found: dict[str, tuple[int, Any]], empty: Any = wire.EMPTY_FIELD) -> _Fields:
    # A type that is not described: by place.
    return _Fields(names, tuple(found[name][0] if name in found else None for name in names) if found else None, empty)


def _child_partitions(shape: _Shape, values: Any) -> ChildPartitions:
    v = shape.children(values)
    start = normalise(v[0].string_value)
    return ChildPartitions(
        tuple(
            Child(token.string_value, start, tuple(p for p in wire.texts(parents.list_value) if p))
            for token, parents, *_ in (
                shape.child(child.list_value.values) for child in wire.Structs.FromString(v[2].list_value).values
            )
        )
    )


def _as_wire(response: Any) -> Any:
    return response if isinstance(response, wire.Response) else wire.Response.FromString(response.SerializeToString())


def whole_values(responses: Iterable[Any]) -> Iterator[bytes]:
    """The values of a streamed result as bytes, with those put together that a response boundary cut."""
    pending = None
    for response in responses:
        values = list(response.values)
        if pending is not None and values:
            _append(pending, struct_pb2.Value.FromString(values[0]))
            if len(values) == 1 and response.chunked_value:
                continue
            values[0] = pending.SerializeToString()
            pending = None
        if response.chunked_value and values:
            pending = struct_pb2.Value.FromString(values.pop())
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
