"""The records of a change stream with partition_mode MUTABLE_KEY_RANGE: one google.spanner.v1.ChangeStreamRecord a row.

`READ_<stream>` returns it as a PROTO, PostgreSQL's `spanner.read_proto_bytes_<stream>` as its bytes.

They become the same records as those of the other mode, with values in the same JSON. Events are passed over: they say
which keys moved between partitions, for readers that need the order of one key's changes.
https://cloud.google.com/spanner/docs/reference/rpc/google.spanner.v1#changestreamrecord
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

import orjson
from google.cloud.spanner_v1.types import change_stream, result_set
from google.cloud.spanner_v1.types import type as types
from google.protobuf import struct_pb2

from contract import spanner_types
from contract.changes import Column
from contract.timestamps import from_nanos
from pipeline.source.records import (
    Child,
    DataChange,
    Heartbeat,
    Mod,
    PartitionEnd,
    PartitionStart,
    Record,
    UnreadableStream,
    whole_values,
)

_NAME: Final = "google.spanner.v1.ChangeStreamRecord"
_Metadata = result_set.ResultSetMetadata.pb()
_Record = change_stream.ChangeStreamRecord.pb()
_Data = change_stream.ChangeStreamRecord.DataChangeRecord
_COLUMNS_REMEMBERED: Final = 1000


class ProtoReader:
    """Turns the responses of one change stream into records. Remembers the column types it has seen."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._columns: dict[tuple[bytes, ...], tuple[Column, ...]] = {}

    def records(self, responses: Iterable[Any]) -> Iterator[Record]:
        """Yields the records of a query in the order of the responses, each a `wire.Response`.

        Raises UnreadableStream for records of another form.
        """
        responses = iter(responses)
        first = next(responses, None)
        if first is None:
            return
        if not _is_known(first.metadata):
            raise UnreadableStream(self._stream, "another form")
        for value in whole_values(chain((first,), responses)):
            # Base64, as every value of PROTO and BYTES.
            text = struct_pb2.Value.FromString(value).string_value
            yield from self._of(_Record.FromString(base64.b64decode(text)))

    def _of(self, record: Any) -> Iterator[Record]:
        kind = record.WhichOneof("record")
        if kind == "data_change_record":
            yield self._data_change(record.data_change_record)
        elif kind == "heartbeat_record":
            yield Heartbeat(_time(record.heartbeat_record.timestamp))
        elif kind == "partition_start_record":
            started = record.partition_start_record
            at = _time(started.start_timestamp)
            yield PartitionStart(tuple(Child(token, at, ()) for token in started.partition_tokens))
        elif kind == "partition_end_record":
            yield PartitionEnd(_time(record.partition_end_record.end_timestamp))

    def _data_change(self, data: Any) -> DataChange:
        columns = self._column_types(data.column_metadata)
        return DataChange(
            self._stream,
            _time(data.commit_timestamp),
            data.record_sequence,
            data.server_transaction_id,
            data.is_last_record_in_transaction_in_partition,
            data.table,
            columns,
            tuple(
                Mod(_json(columns, mod.keys), _json(columns, mod.new_values), _json(columns, mod.old_values))
                for mod in data.mods
            ),
            _Data.ModType(data.mod_type).name,
            _Data.ValueCaptureType(data.value_capture_type).name,
            data.number_of_records_in_transaction,
            data.number_of_partitions_in_transaction,
            data.transaction_tag,
            data.is_system_transaction,
        )

    def _column_types(self, described: Any) -> tuple[Column, ...]:
        key = tuple(column.SerializeToString() for column in described)
        columns = self._columns.get(key)
        if columns is None:
            if len(self._columns) >= _COLUMNS_REMEMBERED:
                self._columns.clear()
            columns = self._columns[key] = tuple(
                Column(c.name, spanner_types.described(_type(c.type_)), c.is_primary_key) for c in described
            )
        return columns


def _is_known(metadata: bytes) -> bool:
    """Whether rows are records as a PROTO, or as its bytes: Google's own readers go by the column's type as well
    (https://github.com/apache/beam/pull/37427)."""
    fields = _Metadata.FromString(metadata).row_type.fields
    return bool(fields) and (fields[0].type_.proto_type_fqn == _NAME or fields[0].type_.code == types.TypeCode.BYTES)


def _time(moment: Any) -> str:
    return from_nanos(moment.seconds * 1_000_000_000 + moment.nanos)


def _type(described: Any) -> dict[str, Any]:
    """A type as the JSON of the other mode's column types."""
    found: dict[str, Any] = {
        "code": types.TypeCode(described.code).name,
        "type_annotation": types.TypeAnnotationCode(described.type_annotation).name,
    }
    if described.HasField("array_element_type"):
        found["array_element_type"] = _type(described.array_element_type)
    return found


def _json(columns: tuple[Column, ...], values: Any) -> str:
    return orjson.dumps({columns[v.column_metadata_index].name: _plain(v.value) for v in values}).decode()


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)
