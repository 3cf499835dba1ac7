"""A strict stand-in for Spanner's reading side: sessions and change stream queries over a `History`, in real gRPC.

It answers as Google says that Spanner does, not as the emulator does. Each behaviour cites where that is written, by
the names below; what nobody wrote down is marked "assumed". All else (metadata database, DDL, admin APIs) is passed on
as bytes to a real emulator, if there is one, because a job has one Spanner endpoint for all of it.

[details]   cloud.google.com/spanner/docs/change-streams/details
[rpc]       cloud.google.com/spanner/docs/reference/rpc/google.spanner.v1
[sessions]  cloud.google.com/spanner/docs/sessions
[quotas]    cloud.google.com/spanner/quotas
[errors]    cloud.google.com/spanner/docs/error-codes
[schema]    cloud.google.com/spanner/docs/information-schema
[grpc]      grpc.io/docs/guides/performance
[directed]  cloud.google.com/spanner/docs/directed-reads
[emulator]  github.com/GoogleCloudPlatform/cloud-spanner-emulator: frontend/handlers/change_streams.cc,
            frontend/converters/change_streams.cc, backend/query/change_stream/change_stream_query_validator.cc,
            common/errors.cc. Google's own code, so its error codes and texts are taken for Spanner's.
[beam]      github.com/apache/beam, sdks/java/io/google-cloud-platform, .../changestreams/action/
            QueryChangeStreamAction.java: what Google's own reader expects of the service; dao/ChangeStreamDao.java has
            its queries.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import importlib
import json
import logging
import os
import random
import re
import signal
import sqlite3
import sys
import threading
import time
import types
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import grpc

if __name__ == "__main__":
    # The messages alone: the package itself loads every client and OpenTelemetry, two seconds and 200 MB.
    sys.modules["google.cloud.spanner_v1"] = _package = types.ModuleType("google.cloud.spanner_v1")
    _package.__path__ = [str(Path(place) / "spanner_v1") for place in importlib.import_module("google.cloud").__path__]

from google.cloud.spanner_v1.types import change_stream, result_set, spanner
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from contract.timestamps import from_nanos, normalise, to_nanos
from tests.strict.history import (
    SECOND,
    ColumnSpec,
    DataRecord,
    History,
    Partition,
    RandomHistory,
    SchemaChange,
    StreamHistory,
    TableSpec,
    records_between,
    spanner_text,
    type_json,
)

_SERVICE: Final = "/google.spanner.v1.Spanner/"
_ExecuteSqlRequest = spanner.ExecuteSqlRequest.pb()
_CreateSessionRequest = spanner.CreateSessionRequest.pb()
_BatchCreateSessionsRequest = spanner.BatchCreateSessionsRequest.pb()
_BatchCreateSessionsResponse = spanner.BatchCreateSessionsResponse.pb()
_DeleteSessionRequest = spanner.DeleteSessionRequest.pb()
_Session = spanner.Session.pb()
_ResultSetMetadata = result_set.ResultSetMetadata.pb()
_ResultSet = result_set.ResultSet.pb()
_PartialResultSet = result_set.PartialResultSet.pb()
_ChangeStreamRecord = change_stream.ChangeStreamRecord.pb()
_Value = struct_pb2.Value

_READ: Final = re.compile(r"\bREAD_(?!json_)(\w+)\s*\(", re.I)
_QUERY: Final = re.compile(r"\s*SELECT\s+ChangeRecord\s+FROM\s+READ_(\w+)\s*\((.*)\)\s*;?\s*$", re.I | re.S)
# In the PostgreSQL dialect, with arguments by place: a stream of the mode MUTABLE_KEY_RANGE has the second function
# alone, any other the first [emulator], [beam].
_OF_POSTGRESQL: Final = r'\bspanner\."(?:read_json|read_proto_bytes)_(\w+)"\s*\('
_READ_OF_POSTGRESQL: Final = re.compile(_OF_POSTGRESQL)
_QUERY_OF_POSTGRESQL: Final = re.compile(rf"\s*(?i:SELECT\s+\*\s+FROM)\s+{_OF_POSTGRESQL}(.*)\)\s*;?\s*$", re.S)
_ARGUMENTS: Final = ("start_timestamp", "end_timestamp", "partition_token", "heartbeat_milliseconds", "read_options")
_CATALOG: Final = re.compile(r"\bINFORMATION_SCHEMA\s*\.\s*CHANGE_STREAM", re.I)
_POSTGRESQL: Final = "POSTGRESQL"
_MAX_HEARTBEAT: Final = 300_000
_FUTURE: Final = 600 * SECOND
_MOST_MUTABLE: Final = 1800 * SECOND
_FOREVER: Final = 1 << 63
_MAX_READS: Final = 100

Where = Literal["start", "row", "any", "mid_row"]
Respond = Callable[[bytes], Awaitable[None]]


# --- Wire: google.protobuf.Value by hand, for a message object for each value costs ten times as much -----------------


def _sized(data: bytes) -> bytes:
    size = len(data)
    if size < 0x80:
        return bytes((size,)) + data
    head = bytearray()
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + data


def _text(text: bytes) -> bytes:
    return b"\x1a" + _sized(text)


def _string(text: str) -> bytes:
    return b"\x1a" + _sized(text.encode())


def _array(*values: bytes) -> bytes:
    return b"\x32" + _sized(b"".join([b"\x0a" + _sized(value) for value in values]))


_NULL: Final = b"\x08\x00"
_TRUE: Final = b"\x20\x01"
_FALSE: Final = b"\x20\x00"
_EMPTY: Final = _array()


def _bool(value: bool) -> bytes:
    return _TRUE if value else _FALSE


def _response(
    rows: Sequence[bytes], *, metadata: bytes = b"", chunked: bool = False, resume_token: bytes = b""
) -> bytes:
    """A PartialResultSet: metadata = 1, values = 2, chunked_value = 3, resume_token = 4."""
    parts = [b"\x0a" + _sized(metadata)] if metadata else []
    parts += [b"\x12" + _sized(row) for row in rows]
    if chunked:
        parts.append(b"\x18\x01")
    if resume_token:
        parts.append(b"\x22" + _sized(resume_token))
    return b"".join(parts)


def _cut(value: Any, budget: int) -> tuple[Any, Any, int]:
    """Cuts a Value after about `budget` characters: what comes first, the rest (None: nothing is left), budget left.

    By the rules of PartialResultSet.chunked_value [rpc]: two strings are joined, two lists too, and in them the last
    item of the first with the first of the second if both are strings or both lists. So a cut between two such items
    puts an empty one before the second.
    """
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        text = value.string_value
        if budget >= len(text):
            return value, None, budget - len(text) - 1
        return _Value(string_value=text[:budget]), _Value(string_value=text[budget:]), -1
    if kind != "list_value":
        return value, None, budget - 1
    first, rest = _list([]), None
    items = list(value.list_value.values)
    for i, item in enumerate(items):
        if budget < 0:
            before = items[i - 1].WhichOneof("kind") if i else ""
            both = before if before == item.WhichOneof("kind") else ""
            guard = {"string_value": [_Value(string_value="")], "list_value": [_list([])]}.get(both, [])
            return first, _list([*guard, *items[i:]]), budget
        head, rest, budget = _cut(item, budget)
        first.list_value.values.append(head)
        if rest is not None:
            return first, _list([rest, *items[i + 1 :]]), budget
    return first, None, budget


def _list(values: Sequence[Any]) -> Any:
    made = _Value()
    made.list_value.SetInParent()
    made.list_value.values.extend(values)
    return made


# --- Records ----------------------------------------------------------------------------------------------------------


def _types(*, extra: bool) -> bytes:
    """The metadata of a change stream query, as [details] has the types and [emulator] sends them."""
    added = [("added_by_google", "STRING")] if extra else []
    column_types = [("name", "STRING"), ("type", "JSON"), ("is_primary_key", "BOOL"), ("ordinal_position", "INT64")]
    mods = [("keys", "JSON"), ("new_values", "JSON"), ("old_values", "JSON")]
    data = [
        ("commit_timestamp", "TIMESTAMP"),
        ("record_sequence", "STRING"),
        ("server_transaction_id", "STRING"),
        ("is_last_record_in_transaction_in_partition", "BOOL"),
        ("table_name", "STRING"),
        ("column_types", column_types + added),
        ("mods", mods + added),
        ("mod_type", "STRING"),
        ("value_capture_type", "STRING"),
        ("number_of_records_in_transaction", "INT64"),
        ("number_of_partitions_in_transaction", "INT64"),
        ("transaction_tag", "STRING"),
        ("is_system_transaction", "BOOL"),
        *added,
    ]
    children = [("token", "STRING"), ("parent_partition_tokens", "ARRAY<STRING>"), *added]
    partitions = [("start_timestamp", "TIMESTAMP"), ("record_sequence", "STRING"), ("child_partitions", children)]
    record = [
        ("data_change_record", data),
        ("heartbeat_record", [("timestamp", "TIMESTAMP"), *added]),
        ("child_partitions_record", partitions + added),
    ]
    if extra:
        record.append(("record_added_by_google", [("what", "STRING")]))
    made = _ResultSetMetadata()
    column = made.row_type.fields.add(name="ChangeRecord")
    _put_type(_type_of(column), record)
    return bytes(made.SerializeToString())


def _type_of(field: Any) -> Any:
    # proto-plus calls a field that is a builtin's name by another one.
    return field.type_ if hasattr(field, "type_") else field.type


def _put_type(target: Any, described: Any) -> None:
    codes = {"BOOL": 1, "INT64": 2, "TIMESTAMP": 4, "STRING": 6, "ARRAY": 8, "STRUCT": 9, "JSON": 11}
    if isinstance(described, list):
        target.code = codes["ARRAY"]
        target.array_element_type.code = codes["STRUCT"]
        for name, kind in described:
            _put_type(_type_of(target.array_element_type.struct_type.fields.add(name=name)), kind)
    elif described == "ARRAY<STRING>":
        target.code = codes["ARRAY"]
        target.array_element_type.code = codes["STRING"]
    else:
        target.code = codes[described]


def _proto_types(dialect: str) -> bytes:
    """One column: a PROTO, or in PostgreSQL its bytes, in a column that is called by the read function [emulator]."""
    made = _ResultSetMetadata()
    if dialect == _POSTGRESQL:
        _type_of(made.row_type.fields.add(name="read_proto_bytes")).code = 7
    else:
        kind = _type_of(made.row_type.fields.add(name="ChangeRecord"))
        kind.code = 13
        kind.proto_type_fqn = "google.spanner.v1.ChangeStreamRecord"
    return bytes(made.SerializeToString())


class _Rows:
    """Writes records as rows, each the bytes of a Value. One for each of: as today, and with fields of tomorrow."""

    def __init__(self, *, extra: bool) -> None:
        self.metadata = _types(extra=extra)
        self._more = (_string("added"),) if extra else ()
        self._columns: dict[TableSpec, bytes] = {}
        self._extra = extra

    def data(self, stream: StreamHistory, record: DataRecord) -> bytes:
        more = self._more
        mods = [_array(_text(mod.keys), _text(mod.new), _text(mod.old), *more) for mod in record.mods]
        columns = self._columns.get(record.table)
        if columns is None:
            columns = self._columns[record.table] = _array(
                *(
                    _array(_string(c.name), _string(type_json(c.type)), _bool(c.is_key), _string(str(i)), *more)
                    for i, c in enumerate(record.table.columns, 1)
                )
            )
        made = _array(
            _string(spanner_text(record.commit)),
            _string(record.record_sequence),
            _string(record.transaction),
            _bool(record.last),
            _string(record.table.name),
            columns,
            _array(*mods),
            _string(record.mod_type),
            _string(stream.capture),
            _string(str(record.records)),
            _string(str(record.partitions)),
            _string(record.tag),
            _bool(record.system),
            *more,
        )
        return self._row(_array(made), _EMPTY, _EMPTY)

    def heartbeat(self, moment: int) -> bytes:
        return self._row(_EMPTY, _array(_array(_string(spanner_text(moment)), *self._more)), _EMPTY)

    def children(self, start: int, sequence: int, children: Sequence[tuple[str, Sequence[str | None]]]) -> bytes:
        found = _array(
            *(
                _array(_string(token), _array(*(_NULL if p is None else _string(p) for p in parents)), *self._more)
                for token, parents in children
            )
        )
        record = _array(_string(spanner_text(start)), _string(f"{sequence:08d}"), found, *self._more)
        return self._row(_EMPTY, _EMPTY, _array(record))

    def _row(self, data: bytes, heartbeat: bytes, children: bytes) -> bytes:
        # "In each row, this array always contains a single element", and one of its three fields has a value [details].
        more = (_array(_array(_string("new kind"))),) if self._extra and data == _EMPTY else ()
        return _array(_array(data, heartbeat, children, *more))


class _JsonRows:
    """Writes records as the rows of a PostgreSQL database: a JSON text each, with values nested in it [details]."""

    def __init__(self, *, extra: bool) -> None:
        made = _ResultSetMetadata()
        kind = _type_of(made.row_type.fields.add(name="read_json"))
        kind.code, kind.type_annotation = 11, 3
        self.metadata = bytes(made.SerializeToString())
        self._more = {"added_by_google": "added"} if extra else {}

    def data(self, stream: StreamHistory, record: DataRecord) -> bytes:
        more = self._more
        columns = [
            {"name": c.name, "type": json.loads(type_json(c.type)), "is_primary_key": c.is_key, "ordinal_position": i}
            for i, c in enumerate(record.table.columns, 1)
        ]
        mods = [
            {"keys": json.loads(m.keys), "new_values": json.loads(m.new), "old_values": json.loads(m.old)}
            for m in record.mods
        ]
        data = {
            "commit_timestamp": _postgresql_text(record.commit),
            "record_sequence": record.record_sequence,
            "server_transaction_id": record.transaction,
            "is_last_record_in_transaction_in_partition": record.last,
            "table_name": record.table.name,
            "column_types": [column | more for column in columns],
            "mods": [mod | more for mod in mods],
            "mod_type": record.mod_type,
            "value_capture_type": stream.capture,
            "number_of_records_in_transaction": record.records,
            "number_of_partitions_in_transaction": record.partitions,
            "transaction_tag": record.tag,
            "is_system_transaction": record.system,
        }
        return self._row("data_change_record", data)

    def heartbeat(self, moment: int) -> bytes:
        return self._row("heartbeat_record", {"timestamp": _postgresql_text(moment)})

    def children(self, start: int, sequence: int, children: Sequence[tuple[str, Sequence[str | None]]]) -> bytes:
        found = [
            {"token": token, "parent_partition_tokens": [p for p in parents if p is not None]} | self._more
            for token, parents in children
        ]
        record = {"start_timestamp": _postgresql_text(start), "record_sequence": f"{sequence:08d}"}
        return self._row("child_partitions_record", record | {"child_partitions": found})

    def _row(self, kind: str, record: dict[str, Any]) -> bytes:
        return _string(json.dumps({kind: record | self._more} | self._more, ensure_ascii=False))


def _postgresql_text(moment: int) -> str:
    """A timestamp as PostgreSQL writes it [emulator]."""
    return f"{spanner_text(moment)[:-1]}+00:00"


class _ProtoRows:
    """Writes records of a stream in the mode MUTABLE_KEY_RANGE: a ChangeStreamRecord each [rpc], base64 [emulator]."""

    def __init__(self, dialect: str, *, all_parents_start: bool = False) -> None:
        self.metadata = _proto_types(dialect)
        self.all_parents_start = all_parents_start

    def data(self, stream: StreamHistory, record: DataRecord) -> bytes:
        made = _ChangeStreamRecord()
        data = made.data_change_record
        _put_time(data.commit_timestamp, record.commit)
        data.record_sequence = record.record_sequence
        data.server_transaction_id = record.transaction
        data.is_last_record_in_transaction_in_partition = record.last
        data.table = record.table.name
        values = record.table.values
        for i, column in enumerate(record.table.columns, 1):
            added = data.column_metadata.add(name=column.name, is_primary_key=column.is_key, ordinal_position=i)
            kind = _type_of(added)
            described = json.loads(type_json(column.type))
            _put_described(kind, described)
        places = {column.name: i for i, column in enumerate(record.table.columns)}
        for mod in record.mods:
            added = data.mods.add()
            for target, texts, names in (
                (added.keys, mod.keys, [c.name for c in record.table.keys]),
                (added.new_values, mod.new, [c.name for c in values]),
                (added.old_values, mod.old, [c.name for c in values]),
            ):
                found = json.loads(texts)
                for name in names:
                    if name in found:
                        _put_value(target.add(column_metadata_index=places[name]).value, found[name])
        data.mod_type = {"INSERT": 10, "UPDATE": 20, "DELETE": 30}[record.mod_type]
        data.value_capture_type = (
            type(data).DESCRIPTOR.enum_types_by_name["ValueCaptureType"].values_by_name[stream.capture].number
        )
        data.number_of_records_in_transaction = record.records
        data.number_of_partitions_in_transaction = record.partitions
        data.transaction_tag = record.tag
        data.is_system_transaction = record.system
        return self._row(made)

    def heartbeat(self, moment: int) -> bytes:
        made = _ChangeStreamRecord()
        _put_time(made.heartbeat_record.timestamp, moment)
        return self._row(made)

    def start(self, moment: int, sequence: int, token: str) -> bytes:
        made = _ChangeStreamRecord()
        _put_time(made.partition_start_record.start_timestamp, moment)
        made.partition_start_record.record_sequence = f"{sequence:08d}"
        made.partition_start_record.partition_tokens.append(token)
        return self._row(made)

    def moved_in(self, moment: int, token: str, sources: Sequence[str]) -> bytes:
        made = _ChangeStreamRecord()
        event = made.partition_event_record
        _put_time(event.commit_timestamp, moment)
        event.record_sequence = "00000000"
        event.partition_token = token
        for source in sources:
            event.move_in_events.add(source_partition_token=source)
        return self._row(made)

    def ending(self, partition: Partition) -> list[bytes]:
        """The last rows of a partition: its children start, its keys move out, it ends; in this order [emulator]."""
        at = partition.end or 0
        # Of a merge only the first parent says that the child starts [emulator]. The documentation says of none.
        children = [c.token for c in partition.children if self.all_parents_start or c.parents[0] is partition]
        rows = [self.start(at, i, token) for i, token in enumerate(children)]
        made = _ChangeStreamRecord()
        event = made.partition_event_record
        _put_time(event.commit_timestamp, at)
        event.record_sequence = f"{len(rows):08d}"
        event.partition_token = partition.token
        for child in partition.children:
            event.move_out_events.add(destination_partition_token=child.token)
        end = _ChangeStreamRecord()
        _put_time(end.partition_end_record.end_timestamp, at)
        end.partition_end_record.record_sequence = f"{len(rows) + 1:08d}"
        end.partition_end_record.partition_token = partition.token
        return [*rows, self._row(made), self._row(end)]

    def _row(self, record: Any) -> bytes:
        return _text(base64.b64encode(record.SerializeToString()))


def _put_time(target: Any, moment: int) -> None:
    target.seconds, target.nanos = divmod(moment, SECOND)


def _put_described(target: Any, described: dict[str, Any]) -> None:
    codes = type(target).DESCRIPTOR.fields_by_name["code"].enum_type.values_by_name
    target.code = codes[described["code"]].number
    if "type_annotation" in described:
        annotations = type(target).DESCRIPTOR.fields_by_name["type_annotation"].enum_type.values_by_name
        target.type_annotation = annotations[described["type_annotation"]].number
    if "array_element_type" in described:
        _put_described(target.array_element_type, described["array_element_type"])


def _put_value(target: Any, value: Any) -> None:
    if value is None:
        target.null_value = 0
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, list):
        target.list_value.SetInParent()
        for item in value:
            _put_value(target.list_value.values.add(), item)
    else:
        target.string_value = value


def responses(
    stream: StreamHistory, records: Sequence[DataRecord], dialect: str, draw: random.Random, *, cut: float = 0.2
) -> Iterator[bytes]:
    """What a query returns of these records, without a server; of some responses a row is cut."""
    rows: Any = _ProtoRows(dialect) if stream.partition_mode == "MUTABLE_KEY_RANGE" else None
    rows = rows or (_JsonRows if dialect == _POSTGRESQL else _Rows)(extra=draw.random() < cut)
    metadata = rows.metadata
    for record in records:
        row = rows.data(stream, record)
        while draw.random() < cut:
            head, rest, _ = _cut(_Value.FromString(row), draw.randrange(len(row)))
            if rest is None:
                break
            yield _response([head.SerializeToString()], metadata=metadata, chunked=True)
            metadata, row = b"", rest.SerializeToString()
        yield _response([row], metadata=metadata)
        metadata = b""


# --- Errors and faults ------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """The call ends with this status."""

    def __init__(self, code: StatusCode, message: str, metadata: tuple[tuple[str, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.metadata = metadata


def _not_found(kind: str, service: str, name: str) -> _Refused:
    """NOT_FOUND with the ResourceInfo that the service puts beside it [emulator], [errors]."""
    message = f"{kind} not found: {name}"
    info = error_details_pb2.ResourceInfo(
        resource_type=f"type.googleapis.com/{service}.{kind}",
        resource_name=name,
        description=f"{kind} does not exist.",
    )
    status = status_pb2.Status(code=StatusCode.NOT_FOUND.value[0], message=message)
    status.details.add().Pack(info)
    return _Refused(
        StatusCode.NOT_FOUND,
        message,
        (
            ("google.rpc.resourceinfo-bin", info.SerializeToString()),
            ("grpc-status-details-bin", status.SerializeToString()),
        ),
    )


@dataclass(kw_only=True)
class Fault:
    """What goes wrong, where and how often. Texts that are empty mean any, `count` None without a limit.

    `where`: `start` refuses a call before its first response, `row` ends an open query between two rows, `any` does
    both, `mid_row` ends it in the middle of a row: the next one that it sends, heartbeats included. `code` "OK" ends
    the query as if all was well. `until`: nanoseconds since 1970.
    """

    code: str
    where: Where = "start"
    count: int | None = None
    until: int | None = None
    method: str = "ExecuteStreamingSql"
    stream: str = ""
    token: str = ""
    message: str = ""

    def fits(self, where: Where, method: str, stream: str, token: str, now: int) -> bool:
        return (
            (self.where == where or (self.where == "any" and where != "mid_row"))
            and self.count != 0
            and (self.until is None or now < self.until)
            and self.method in ("", method)
            and self.stream in ("", stream)
            and self.token in ("", token)
        )


@dataclass(frozen=True, kw_only=True)
class _Query:
    """A change stream query that is valid."""

    stream: StreamHistory
    start: int
    end: int | None
    token: str | None
    heartbeat: int
    done: int


# --- The server -------------------------------------------------------------------------------------------------------


class StrictSpanner:
    """Serves a History on 127.0.0.1 until `stop`, in its own thread. A context manager.

    `emulator`: host:port of a real one, which gets every call that is not about a change stream. `database`: the
    database whose sessions are made here though there is an emulator, `projects/P/instances/I/databases/D`; "" makes
    every session there. Without an emulator they are all made here, and any other database is not found.
    `max_streams`: HTTP/2 streams a connection; a client's further calls wait in the client silently.
    `max_readers`: concurrent queries of one partition.
    `cut`: the share of responses in which a row is cut. `max_response_bytes`: rows longer than this are cut always.
    `life_code`: the answer to a start outside of a partition's life. `boundary_children`: whether a query whose end or
    start is the very end of its partition still gets the children. `root_parents`: the parents of the first partitions,
    `null` as in [details] or `empty` as in [emulator]. `multi_region`: whether the instance has replicas to direct
    reads to. `all_parents_start`: in the mode MUTABLE_KEY_RANGE every parent of a merge says that the child starts, and
    not only the first. `dialect`: of the database, and of the queries of its change streams.
    """

    def __init__(
        self,
        history: History,
        *,
        emulator: str = "",
        database: str = "",
        port: int = 0,
        max_streams: int = 100,
        max_readers: int = 20,
        min_heartbeat_millis: int = 1000,
        cut: float = 0.1,
        max_response_bytes: int = 1 << 20,
        seed: int = 0,
        life_code: StatusCode = StatusCode.OUT_OF_RANGE,
        boundary_children: bool = True,
        root_parents: Literal["null", "empty"] = "null",
        multi_region: bool = False,
        all_parents_start: bool = False,
        dialect: str = "GOOGLE_STANDARD_SQL",
    ) -> None:
        self.history = history
        self._dialect = dialect
        self.endpoint = ""
        self._emulator = emulator
        self._database = database
        self._port = port
        self._max_streams = max_streams
        self._max_readers = max_readers
        self._min_heartbeat = min_heartbeat_millis
        self._cut = cut
        self._most_bytes = max_response_bytes
        self._random = random.Random(f"strict spanner {seed}")
        self._life_code = life_code
        self._boundary_children = boundary_children
        self._root_parents: Sequence[str | None] = (None,) if root_parents == "null" else ()
        rows: Any = _JsonRows if dialect == _POSTGRESQL else _Rows
        self._rows = {extra: rows(extra=extra) for extra in (False, True)}
        self._proto_rows = _ProtoRows(dialect, all_parents_start=all_parents_start)
        self._extra_fields = False
        self._unannounced_parents = False
        self._faults: list[Fault] = []
        self._multi_region = multi_region
        self._sessions: dict[str, bool] = {}
        self._roles: dict[str, str] = {}
        self._ended: set[str] = set()
        self._reading: set[str] = set()
        self._counts = _Counts()
        self._waiting: dict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()

    def start(self) -> Self:
        """Serves. `endpoint` is host:port from now on."""
        self._thread = threading.Thread(target=self._run, name="strict-spanner", daemon=True)
        self._thread.start()
        self._ready.wait()
        if not self.endpoint:
            raise RuntimeError(f"port {self._port} of 127.0.0.1 is taken: give another one, or 0 for a free one")
        return self

    def stop(self) -> None:
        """Ends every call and connection."""
        if self._thread:
            self._loop.call_soon_threadsafe(self._finished.set)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # Faults. All may be called from any thread, at any time.

    def fail(
        self,
        code: str | StatusCode,
        *,
        where: Where = "start",
        count: int | None = None,
        seconds: float | None = None,
        method: str = "ExecuteStreamingSql",
        stream: str = "",
        token: str = "",
        message: str = "",
    ) -> None:
        """Calls end with this status, `count` times or for `seconds`; neither: until `heal`. See Fault."""
        until = None if seconds is None else time.time_ns() + int(seconds * SECOND)
        name = code.name if isinstance(code, StatusCode) else code
        fault = Fault(
            code=name, where=where, count=count, until=until, method=method, stream=stream, token=token, message=message
        )
        self._in_loop(lambda: self._faults.append(fault))

    def end_early(
        self, *, count: int | None = 1, seconds: float | None = None, stream: str = "", token: str = ""
    ) -> None:
        """Queries end with OK in the middle of their partition's life, without children."""
        self.fail("OK", where="row", count=count, seconds=seconds, stream=stream, token=token)

    def heal(self) -> None:
        """No fault is left; what was frozen continues."""
        self._in_loop(self._faults.clear)
        self.extra_fields(on=False)
        self.unannounced_parents(on=False)
        self.thaw()

    def end_sessions(self, *, everywhere: bool = False) -> None:
        """The sessions that have read a change stream no longer exist.

        "The Spanner database service may delete a session if the session is more than 28 days old. Attempts to use a
        deleted session result in NOT_FOUND" [sessions]. Open queries end with it as well (assumed).

        `everywhere`: the others that were made through here as well, the emulator's included.
        """

        def end() -> None:
            self._ended |= set(self._sessions) | self._reading if everywhere else self._reading

        self._in_loop(end)
        self._in_loop(self._wake_all)

    def drop_connections(self) -> None:
        """Every connection is closed at once, and new ones are taken again."""
        self._in_loop(self._serve_again, wait=True)

    def down(self) -> None:
        """Nothing listens any more."""
        self._in_loop(self._close, wait=True)

    def up(self) -> None:
        """Listens again, on the same port."""
        self._in_loop(self._serve, wait=True)

    def freeze(self) -> None:
        """No call gets another byte, none is refused; connections stay. As a peer that hangs."""
        self._in_loop(self._thawed.clear)

    def thaw(self) -> None:
        """What was frozen continues."""
        self._in_loop(self._thawed.set)
        self._in_loop(self._wake_all)

    def extra_fields(self, *, on: bool = True) -> None:
        """Records have fields that no documentation of today has, at every level, each behind those of today."""

        def switch() -> None:
            self._extra_fields = on

        self._in_loop(switch)

    def unannounced_parents(self, *, on: bool = True) -> None:
        """Each child's record names one more parent, which no record announces."""

        def switch() -> None:
            self._unannounced_parents = on

        self._in_loop(switch)

    def counts(self) -> dict[str, Any]:
        """What was called and is open. Plain JSON values:

        calls, errors: by method, by code; open_queries, max_open_queries; connections: seen so far;
        open_by_connection, max_by_connection (streams, the most on one connection); queries_by_partition,
        max_readers_by_partition: by token, "" for the query without one; rows, heartbeats, responses, cut_rows;
        last_query: the change stream query that came last, with its arguments, priority, role and replicas;
        committed, transactions, last_commit_timestamp: of the history.
        """
        made: dict[str, Any] = {}

        def copy() -> None:
            made.update(self._counts.to_dict())

        self._in_loop(copy, wait=True)
        history = self.history
        return made | {
            "committed": history.committed,
            "transactions": history.transactions,
            "last_commit_timestamp": from_nanos(history.last_commit) if history.last_commit else "",
        }

    def reset_counts(self) -> None:
        """Counts begin at zero again, apart from what is open."""
        self._in_loop(self._counts.reset, wait=True)

    # The loop.

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        logging.getLogger("grpc._cython.cygrpc").addFilter(_no_cancellations)
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._server: Any = None
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(self._emulator, options=options) if self._emulator else None
        try:
            await self._serve()
        except RuntimeError:
            self._ready.set()
            return
        self.history.subscribe(self._committed)
        self._ready.set()
        await self._finished.wait()
        await self._close()
        if self._channel:
            await self._channel.close()

    async def _serve(self) -> None:
        server = grpc.aio.server(
            options=[
                # "One gRPC channel can handle up to 100 concurrent requests" [sessions]. "When the number of active
                # RPCs on the connection reaches this limit, additional RPCs are queued in the client" [grpc].
                ("grpc.max_concurrent_streams", self._max_streams),
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 1000),
                ("grpc.keepalive_permit_without_calls", 1),
            ]
        )
        server.add_generic_rpc_handlers((_Handlers(self),))
        port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        await server.start()
        self._server, self._port = server, port
        self.endpoint = f"127.0.0.1:{port}"

    async def _close(self) -> None:
        if self._server:
            server, self._server = self._server, None
            await server.stop(None)

    async def _serve_again(self) -> None:
        await self._close()
        await self._serve()

    def _in_loop(self, call: Callable[[], Any], *, wait: bool = False) -> None:
        async def run() -> None:
            result = call()
            if asyncio.iscoroutine(result):
                await result
            self._wake_all()

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        if wait or threading.current_thread() is not self._thread:
            future.result()

    def _committed(self, partitions: list[Partition]) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake, partitions)

    def _wake(self, partitions: list[Partition]) -> None:
        for partition in partitions:
            for waiting in self._waiting.pop(partition.token, ()):
                if not waiting.done():
                    waiting.set_result(None)

    def _wake_all(self) -> None:
        for token in list(self._waiting):
            for waiting in self._waiting.pop(token, ()):
                if not waiting.done():
                    waiting.set_result(None)

    async def _wait(self, token: str, seconds: float) -> None:
        """Until there is something new in the partition, a fault, or the time is over."""
        waiting = self._loop.create_future()
        self._waiting[token].add(waiting)
        handle = self._loop.call_later(max(0.0, seconds), _finish, waiting)
        try:
            await waiting
        finally:
            handle.cancel()
            self._waiting[token].discard(waiting)
            if not self._waiting[token]:
                del self._waiting[token]

    # Calls.

    async def call(self, method: str, requests: Any, context: Any, answer: Callable[..., Awaitable[None]]) -> None:
        """One call from its beginning to its end: counts, faults, freezing, and errors as Google writes them."""
        name = method.rpartition("/")[2]
        peer = context.peer()
        self._counts.begin(name, peer)
        try:
            await self._thawed.wait()
            await answer(requests, context)
        except asyncio.CancelledError:
            # The client has gone, or the server has been told to. Nobody is left to hear of it.
            return
        except _Refused as refused:
            await self._refuse(context, refused)
        except grpc.aio.AioRpcError as error:
            # The emulator's own answer, passed on as it is.
            metadata = [(k, v) for k, v in (error.trailing_metadata() or ()) if not k.startswith("grpc-message")]
            self._counts.errors[error.code().name] += 1
            context.set_trailing_metadata(tuple(metadata))
            await context.abort(error.code(), error.details() or "")
        finally:
            self._counts.end(peer)

    async def _refuse(self, context: Any, refused: _Refused) -> None:
        self._counts.errors[refused.code.name] += 1
        if refused.metadata:
            context.set_trailing_metadata(refused.metadata)
        await context.abort(refused.code, refused.message)

    def _fault(self, where: Where, method: str, stream: str = "", token: str = "") -> Fault | None:
        if not self._faults:
            return None
        now = time.time_ns()
        for fault in self._faults:
            if fault.fits(where, method, stream, token, now):
                if fault.count is not None:
                    fault.count -= 1
                return fault
        return None

    def _guard(self, method: str, stream: str = "", token: str = "") -> None:
        if (fault := self._fault("start", method, stream, token)) and fault.code != "OK":
            raise _Refused(StatusCode[fault.code], fault.message or _message(fault.code))

    async def create_session(self, request: bytes, context: Any) -> bytes:
        self._guard("CreateSession")
        asked = _CreateSessionRequest.FromString(request)
        if self._elsewhere(asked.database):
            answer = await self._forward_unary("CreateSession", request, context)
            self._sessions[_Session.FromString(answer).name] = asked.session.multiplexed
            return answer
        return bytes(self._session(asked.database, asked.session).SerializeToString())

    async def batch_create_sessions(self, request: bytes, context: Any) -> bytes:
        self._guard("BatchCreateSessions")
        asked = _BatchCreateSessionsRequest.FromString(request)
        if self._elsewhere(asked.database):
            answer = await self._forward_unary("BatchCreateSessions", request, context)
            self._sessions |= {s.name: False for s in _BatchCreateSessionsResponse.FromString(answer).session}
            return answer
        made = _BatchCreateSessionsResponse()
        for _ in range(asked.session_count):
            made.session.add().CopyFrom(self._session(asked.database, asked.session_template))
        return bytes(made.SerializeToString())

    async def get_session(self, request: bytes, context: Any) -> bytes:
        self._guard("GetSession")
        name = spanner.GetSessionRequest.pb().FromString(request).name
        self._check_session(name)
        if self._channel and not self._own(name):
            return await self._forward_unary("GetSession", request, context)
        return bytes(_Session(name=name, multiplexed=self._sessions[name]).SerializeToString())

    async def delete_session(self, request: bytes, context: Any) -> bytes:
        self._guard("DeleteSession")
        name = _DeleteSessionRequest.FromString(request).name
        self._check_session(name)
        if self._channel and not self._own(name):
            return await self._forward_unary("DeleteSession", request, context)
        if self._sessions[name]:
            # Observed: googleapis/java-spanner, pull request 4029.
            raise _Refused(StatusCode.INVALID_ARGUMENT, "Multiplexed sessions may not be deleted")
        del self._sessions[name]
        return b""

    def _session(self, database: str, template: Any) -> Any:
        if self._database and database != self._database:
            raise _not_found("Database", "google.spanner.admin.database.v1", database)
        made = _Session()
        made.CopyFrom(template)
        made.name = f"{database}/sessions/{self._random.getrandbits(96):024x}"
        made.create_time.GetCurrentTime()
        made.approximate_last_use_time.GetCurrentTime()
        self._sessions[made.name] = made.multiplexed
        self._roles[made.name] = made.creator_role
        return made

    def _elsewhere(self, database: str) -> bool:
        return bool(self._channel) and database != self._database

    def _own(self, session: str) -> bool:
        return not self._channel or (bool(self._database) and session.startswith(f"{self._database}/sessions/"))

    def _check_ended(self, name: str) -> None:
        if name in self._ended:
            raise _not_found("Session", "google.spanner.v1", name)

    def _check_session(self, name: str) -> None:
        self._check_ended(name)
        if self._own(name) and name not in self._sessions:
            raise _not_found("Session", "google.spanner.v1", name)

    async def execute_sql(self, request: bytes, context: Any) -> bytes:
        asked = _ExecuteSqlRequest.FromString(request)
        self._guard("ExecuteSql")
        self._check_session(asked.session)
        if self._stream_of(asked.sql):
            # "Use the ExecuteStreamingSql API" [details]; the text is [emulator]'s.
            raise _Refused(
                StatusCode.INVALID_ARGUMENT,
                "Change stream queries are not supported for the ExecuteSql API. Change stream queries must be strong "
                "reads executed via single use transactions using the ExecuteStreamingSql API.",
            )
        if self._channel and not (self._own(asked.session) or _CATALOG.search(asked.sql)):
            return await self._forward_unary("ExecuteSql", request, context)
        metadata, rows = self._catalog(asked)
        made = _ResultSet(metadata=metadata)
        made.rows.extend(row.list_value for row in rows)
        return bytes(made.SerializeToString())

    async def execute_streaming_sql(self, request: bytes, context: Any) -> None:
        asked = _ExecuteSqlRequest.FromString(request)
        name = self._stream_of(asked.sql)
        if not name:
            self._guard("ExecuteStreamingSql")
            self._check_session(asked.session)
            if self._channel and not (self._own(asked.session) or _CATALOG.search(asked.sql)):
                await self._forward_stream("ExecuteStreamingSql", request, context)
                return
            metadata, rows = self._catalog(asked)
            made = _PartialResultSet(metadata=metadata)
            for row in rows:
                made.values.extend(row.list_value.values)
            await context.write(made.SerializeToString())
            return
        parameter = "p3" if self._dialect == _POSTGRESQL else "token"
        token = asked.params.fields[parameter].string_value if parameter in asked.params.fields else ""
        self._guard("ExecuteStreamingSql", name, token)
        self._check_session(asked.session)
        self._reading.add(asked.session)
        query = self._validated(asked, name)
        self._check_readers(query, asked.session)
        self._counts.last_query = self._as_asked(asked)
        with self._counts.query(query.token or "", asked.session):
            await _QueryRun(self, query, asked.session, context).run()

    def _as_asked(self, asked: Any) -> dict[str, Any]:
        directed = asked.directed_read_options.include_replicas
        kinds = spanner.DirectedReadOptions.ReplicaSelection.Type
        return {
            "sql": asked.sql,
            "role": self._roles.get(asked.session, ""),
            "priority": spanner.RequestOptions.Priority(asked.request_options.priority).name,
            "directed_reads": [[each.location, kinds(each.type_).name] for each in directed.replica_selections],
            "auto_failover_disabled": directed.auto_failover_disabled,
            **{name: value.string_value for name, value in asked.params.fields.items()},
        }

    def _check_readers(self, query: _Query, session: str) -> None:
        counts = self._counts
        # "Concurrent readers per change stream data partition: 20", "whether the readers are Dataflow pipelines or
        # direct API queries" [quotas]; the code is assumed.
        if query.token and counts.readers[query.token] >= self._max_readers:
            raise _Refused(
                StatusCode.RESOURCE_EXHAUSTED, f"A partition has at most {self._max_readers} concurrent readers."
            )
        # "Concurrent reads per session: 100" [quotas]; a multiplexed session may have "a large number of concurrent
        # requests" [sessions]. The code is assumed.
        if not self._sessions.get(session, True) and counts.sessions[session] >= _MAX_READS:
            raise _Refused(
                StatusCode.RESOURCE_EXHAUSTED, f"A session that is not multiplexed has at most {_MAX_READS} reads."
            )

    def _stream_of(self, sql: str) -> str:
        found = (_READ_OF_POSTGRESQL if self._dialect == _POSTGRESQL else _READ).search(sql)
        return found[1] if found else ""

    def _validated(self, asked: Any, name: str) -> _Query:
        """The query, or the error that [emulator] has for it; what it means is in [details]."""
        whole = (_QUERY_OF_POSTGRESQL if self._dialect == _POSTGRESQL else _QUERY).match(asked.sql)
        stream = self.history.streams.get(name)
        if stream is None:
            place = asked.sql.find(f"READ_{name}") + 1
            raise _Refused(StatusCode.INVALID_ARGUMENT, f"Table-valued function not found: READ_{name} [at 1:{place}]")
        form = "proto_bytes" if stream.partition_mode == "MUTABLE_KEY_RANGE" else "json"
        if self._dialect == _POSTGRESQL and f'"read_{form}_{name}"' not in asked.sql:
            # PostgreSQL's words for a function that is not there; the code is assumed.
            raise _Refused(StatusCode.INVALID_ARGUMENT, f"function of {name} does not exist: it has read_{form}_{name}")
        if whole is None:
            raise _Refused(
                StatusCode.UNIMPLEMENTED,
                "Change stream TVF must not be combined with any other SQL statements. Change stream records should be "
                f"read using `SELECT ChangeRecord FROM READ_{name}(<args>)`.",
            )
        selector = asked.transaction.WhichOneof("selector")
        # "With a single-use read-only transaction and a strong timestamp bound … All other TransactionOptions are
        # invalid for change stream queries" [details]. None at all is single-use and strong [rpc].
        if selector not in (None, "single_use") or (selector and not asked.transaction.single_use.read_only.strong):
            raise _Refused(
                StatusCode.INVALID_ARGUMENT,
                "Change stream queries are not supported for multi use transactions. Change stream queries must be "
                "strong reads executed via single use transactions using the ExecuteStreamingSql API.",
            )
        if asked.HasField("directed_read_options"):
            self._check_directed(asked.directed_read_options)
        return self._checked_times(asked, stream, _arguments(whole[2], asked.params.fields))

    def _check_directed(self, options: Any) -> None:
        # "You can only use directed reads in a Spanner instance that is in a multi-region instance configuration or a
        # custom regional configuration with optional read-only region(s)" [directed]; code and text are assumed.
        if not self._multi_region:
            raise _Refused(StatusCode.INVALID_ARGUMENT, "Directed reads need an instance of several regions.")
        # "The maximum number of replica selections is 10" [rpc]; the text is assumed.
        if len(options.include_replicas.replica_selections) > 10:
            raise _Refused(StatusCode.INVALID_ARGUMENT, "Directed reads take at most 10 replica selections.")

    def _checked_times(self, asked: Any, stream: StreamHistory, given: dict[str, str | None]) -> _Query:
        now = self.history.clock()
        start, end = _nanos("start_timestamp", given), _nanos("end_timestamp", given)
        if start is None:
            raise _Refused(StatusCode.INVALID_ARGUMENT, "start_timestamp must not be null.")
        # "Must be within the change stream retention period, … and greater than or equal to the timestamp of the
        # change stream's creation" [details]; the code OUT_OF_RANGE is [emulator]'s.
        earliest, latest = max(now - stream.retention, stream.created), now + _FUTURE
        if start < earliest:
            raise _Refused(
                StatusCode.OUT_OF_RANGE,
                "Specified start_timestamp is too far in the past. Please specify a start_timestamp within the "
                f"earliest read timestamp: {_shown(earliest)}. Received start_timestamp: {_shown(start)}.",
            )
        # "Should be less than or equal to the current time" [details]; up to ten minutes it waits [emulator].
        if start > latest:
            raise _Refused(
                StatusCode.OUT_OF_RANGE,
                "Specified start_timestamp is too far in the future. Please specify a start_timestamp within the "
                f"earliest read timestamp: {_shown(earliest)}, and the current maximum start timestamp: "
                f"{_shown(latest)}. Received start_timestamp: {_shown(start)}.",
            )
        if end is None and stream.partition_mode == "MUTABLE_KEY_RANGE":
            # [emulator]'s validator of today's version; its text is not known, so this one is assumed.
            raise _Refused(StatusCode.INVALID_ARGUMENT, "end_timestamp must not be null.")
        if end is not None and stream.partition_mode == "MUTABLE_KEY_RANGE" and end > start + _MOST_MUTABLE:
            # [emulator]'s validator as well, with the same caution.
            raise _Refused(StatusCode.INVALID_ARGUMENT, "end_timestamp must be at most 30 minutes after the start.")
        if end is not None and start > end:
            raise _Refused(
                StatusCode.INVALID_ARGUMENT,
                "If end_timestamp is specified, start_timestamp must be <= end_timestamp. Received start_timestamp: "
                f"{_shown(start)}, end_timestamp: {_shown(end)}.",
            )
        heartbeat = self._checked_heartbeat(given["heartbeat_milliseconds"])
        if given.get("read_options") is not None:
            raise _Refused(StatusCode.UNIMPLEMENTED, "read_options must be null.")
        token = given["partition_token"]
        if token is not None and token not in stream.partitions:
            raise _Refused(
                StatusCode.INVALID_ARGUMENT,
                "Specified partition_token is invalid, as it does not belong to the Change Stream associated with the "
                f"TVF. Received partition_token: {token}.",
            )
        done = int(asked.resume_token.rpartition(b"/")[2] or 0) if asked.resume_token else -1
        return _Query(stream=stream, start=start, end=end, token=token, heartbeat=heartbeat, done=done)

    def _checked_heartbeat(self, text: str | None) -> int:
        if text is None:
            raise _Refused(StatusCode.INVALID_ARGUMENT, "heartbeat_milliseconds must not be null.")
        millis = int(text)
        # "Between 1,000 (one second) and 300,000 (five minutes)" [details]; [emulator] allows 100, and has the code.
        if not self._min_heartbeat <= millis <= _MAX_HEARTBEAT:
            raise _Refused(
                StatusCode.OUT_OF_RANGE,
                f"heartbeat_milliseconds must be within min {self._min_heartbeat} and max {_MAX_HEARTBEAT}. "
                f"Received heartbeat_milliseconds: {millis}.",
            )
        return millis * 1_000_000

    # What is not about a change stream.

    async def forward(self, method: str, requests: AsyncIterator[bytes], context: Any) -> None:
        """Any other call, as bytes, to the emulator."""
        name = method.rpartition("/")[2]
        self._guard(name)
        if self._channel is None:
            raise _Refused(
                StatusCode.UNIMPLEMENTED,
                f"The strict stand-in serves sessions and change streams only, not {method}. Give it an emulator.",
            )
        if method.startswith(_SERVICE):
            requests = await self._with_live_session(requests)
        call = self._channel.stream_stream(method)(requests, **_passed_on(context))
        async for response in call:
            await self._thawed.wait()
            await context.write(response)
        context.set_trailing_metadata(tuple(await call.trailing_metadata()))

    async def _with_live_session(self, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        first = [request async for request in requests]
        for request in first[:1]:
            self._check_ended(_session_of(request))

        async def again() -> AsyncIterator[bytes]:
            for request in first:
                yield request

        return again()

    async def _forward_unary(self, name: str, request: bytes, context: Any) -> bytes:
        assert self._channel is not None
        return bytes(await self._channel.unary_unary(f"{_SERVICE}{name}")(request, **_passed_on(context)))

    async def _forward_stream(self, name: str, request: bytes, context: Any) -> None:
        assert self._channel is not None
        call = self._channel.unary_stream(f"{_SERVICE}{name}")(request, **_passed_on(context))
        async for response in call:
            await self._thawed.wait()
            await context.write(response)

    def _catalog(self, asked: Any) -> tuple[Any, list[Any]]:
        """Answers a query of INFORMATION_SCHEMA [schema] about the change streams, in SQLite's reading of the SQL."""
        if self._dialect == _POSTGRESQL and re.search("[`@]", asked.sql):
            # Names are in double quotes there, parameters have numbers; the text is assumed.
            raise _Refused(StatusCode.INVALID_ARGUMENT, "syntax error: this is not PostgreSQL's SQL.")
        sql = re.sub(r"IN\s+UNNEST\s*\(\s*(@\w+)\s*\)", r"IN (SELECT value FROM json_each(\1))", asked.sql, flags=re.I)
        given: dict[str, Any] = {}
        for name, value in asked.params.fields.items():
            kind = value.WhichOneof("kind")
            given[name] = (
                json.dumps([v.string_value for v in value.list_value.values])
                if kind == "list_value"
                else None
                if kind == "null_value"
                else getattr(value, kind)
            )
        with contextlib.closing(_catalog_of(self.history, self._dialect)) as database:
            try:
                cursor = database.execute(sql, given)
            except sqlite3.Error as error:
                raise _Refused(
                    StatusCode.UNIMPLEMENTED, f"The strict stand-in does not understand this query: {error}."
                ) from None
            found = cursor.fetchall()
            names = [d[0] for d in cursor.description or ()]
        metadata = _ResultSetMetadata()
        for i, name in enumerate(names):
            whole = all(isinstance(row[i], int) for row in found) and bool(found)
            _type_of(metadata.row_type.fields.add(name=name)).code = 2 if whole else 6
        rows = []
        for row in found:
            rows.append(_list([]))
            for value in row:
                _put_value(rows[-1].list_value.values.add(), None if value is None else str(value))
        return metadata, rows


class _QueryRun:
    """One change stream query while it runs."""

    def __init__(self, server: StrictSpanner, query: _Query, session: str, context: Any) -> None:
        self._server = server
        self._history = server.history
        self._query = query
        self._session = session
        self._context = context
        self._metadata = b""
        mutable = query.stream.partition_mode == "MUTABLE_KEY_RANGE"
        self._mutable = server._proto_rows if mutable else None

    @property
    def _rows(self) -> Any:
        return self._mutable or self._server._rows[self._server._extra_fields]

    async def run(self) -> None:
        query = self._query
        # The metadata comes with the first response, with or without rows [rpc].
        self._metadata = self._rows.metadata
        await self._until(query.start)
        if query.token is None:
            await self._roots()
        else:
            await self._partition(query.stream.partitions[query.token])
        if self._metadata:
            await self._send([], b"")

    async def _until(self, moment: int) -> None:
        """A query whose start is in the future waits for it [emulator]."""
        while (left := moment - self._history.clock()) > 0:
            await asyncio.sleep(min(left / SECOND, 0.5))

    async def _roots(self) -> None:
        """Without a token: the partitions that are live at the start, and no data, then the query ends [details]."""
        query, server = self._query, self._server
        with self._history.lock:
            tokens = sorted(p.token for p in query.stream.live_at(query.start))
        if self._mutable:
            await self._send([self._mutable.start(query.start, i, token) for i, token in enumerate(tokens)], b"roots")
            return
        rows, sequence = [], 0
        while tokens:
            # One record has one child or more: two and one in the example of [details], one each in [emulator].
            some, tokens = tokens[: (many := server._random.randint(1, 3))], tokens[many:]
            rows.append(self._rows.children(query.start, sequence, [(t, server._root_parents) for t in some]))
            sequence += 1
        await self._send(rows, b"roots")

    async def _partition(self, partition: Partition) -> None:
        query, server, history = self._query, self._server, self._history
        self._check_life(partition)
        if self._mutable and query.start <= partition.start and partition.parents:
            await self._send([self._mutable.moved_in(partition.start, partition.token, partition.parent_tokens)], b"")
        with history.lock:
            at, _ = records_between(partition, query.start, query.end)
        at = max(at, query.done)
        told = history.clock()
        last = query.end if query.end is not None else _FOREVER
        while True:
            # One look: what there is, and up to when that is all.
            with history.lock:
                through = history.through()
                _, to = records_between(partition, query.start, query.end)
                records = partition.records[at : min(to, at + 200)]
                more = at + len(records) < to
                ended = partition.end if partition.end is not None and partition.end <= through else None
            if self._cut_short(partition):
                return
            if records:
                at += len(records)
                await self._send_records(records, at)
                told = history.clock()
            if more:
                continue
            if ended is not None and self._reaches(ended, last):
                # "After returning all the child partition records for this partition, this query returns with a
                # success status" [details].
                await self._children(partition)
                return
            if through >= last or ended is not None:
                return
            # "How frequently a heartbeat is returned in case there are no transactions committed" [details].
            beat = told + query.heartbeat
            now = history.clock()
            if now >= beat:
                through = min(through, last)
                await self._send([self._rows.heartbeat(through)], b"%d/%d" % (through, at))
                server._counts.heartbeats += 1
                told = now
                continue
            await server._wait(partition.token, (min(beat, last + 1) - now) / SECOND)
            await server._thawed.wait()

    def _check_life(self, partition: Partition) -> None:
        start = self._query.start
        end = partition.end if partition.end is not None else _FOREVER
        if not partition.start <= start <= end:
            # [emulator] has OUT_OF_RANGE; [beam] takes INVALID_ARGUMENT for it as well.
            raise _Refused(
                self._server._life_code,
                "Specified start_timestamp is invalid for the partition. Please specify a start_timestamp within "
                f"{_shown(partition.start)} and {'infinite-future' if end == _FOREVER else _shown(end)}. "
                f"Received start_timestamp: {_shown(start)}.",
            )

    def _reaches(self, ended: int, last: int) -> bool:
        """Whether the partition's end belongs to what is requested.

        "The timestamp always falls between the query's specified start_timestamp and end_timestamp" [details]. A query
        that starts at the very end gets nothing from [emulator], children included: `boundary_children`.
        """
        if self._server._boundary_children:
            return ended <= last
        return self._query.start < ended < last

    def _cut_short(self, partition: Partition) -> bool:
        """Whether the query ends here as if all was well. Raises _Refused where it ends with an error."""
        server = self._server
        if self._session in server._ended:
            raise _not_found("Session", "google.spanner.v1", self._session)
        fault = server._fault("row", "ExecuteStreamingSql", partition.stream, partition.token)
        if fault and fault.code != "OK":
            raise _Refused(StatusCode[fault.code], fault.message or _message(fault.code))
        return fault is not None

    async def _children(self, partition: Partition) -> None:
        with self._history.lock:
            children = list(partition.children)
        if self._mutable:
            await self._send(self._mutable.ending(partition), b"end")
            return
        server = self._server
        extra = (_unannounced(partition),) if server._unannounced_parents else ()
        # "The exact same record is returned by the query on" each of the parents [details].
        found = sorted((c.token, (*c.parent_tokens, *extra)) for c in children)
        rows = []
        if len(found) > 1 and server._random.random() < 0.3:
            rows = [self._rows.children(children[0].start, i, [child]) for i, child in enumerate(found)]
        else:
            rows = [self._rows.children(children[0].start, 0, found)]
        await self._send(rows, b"end")

    async def _send_records(self, records: Sequence[DataRecord], at: int) -> None:
        """Sends records in responses of bounded size, each with a token to resume behind it."""
        rows: list[bytes] = []
        size, sent = 0, at - len(records)
        for record in records:
            row = self._rows.data(self._query.stream, record)
            if rows and size + len(row) > self._server._most_bytes:
                await self._send(rows, b"%d/%d" % (record.commit, sent))
                rows, size = [], 0
            rows.append(row)
            size += len(row)
            sent += 1
        self._server._counts.rows += len(records)
        await self._send(rows, b"%d/%d" % (records[-1].commit, sent))

    async def _send(self, rows: Sequence[bytes], token: bytes) -> None:
        """Sends rows as one response, or as several with a row cut between them."""
        server = self._server
        fault = (
            rows
            and server._faults
            and server._fault("mid_row", "ExecuteStreamingSql", self._query.stream.name, self._query.token or "")
        )
        if fault:
            head, _, _ = _cut(_Value.FromString(rows[0]), server._random.randint(5, 60))
            await self._write(_response([head.SerializeToString()], metadata=self._metadata, chunked=True))
            raise _Refused(StatusCode[fault.code], fault.message or _message(fault.code))
        pending = list(rows)
        while pending:
            place = self._place_of_cut(pending)
            if place is None:
                break
            # "The final value in values is chunked, and must be combined with more values from subsequent
            # PartialResultSets" [rpc].
            head, rest = self._cut_row(pending[place])
            if rest is None:
                break
            await self._write(_response([*pending[:place], head], metadata=self._metadata, chunked=True))
            self._metadata = b""
            server._counts.cut_rows += 1
            pending = [rest, *pending[place + 1 :]]
        await self._write(_response(pending, metadata=self._metadata, resume_token=token))
        self._metadata = b""

    def _place_of_cut(self, rows: Sequence[bytes]) -> int | None:
        server = self._server
        for place, row in enumerate(rows):
            if len(row) > server._most_bytes:
                return place
        return server._random.randrange(len(rows)) if server._random.random() < server._cut else None

    def _cut_row(self, row: bytes) -> tuple[bytes, bytes | None]:
        most, draw = self._server._most_bytes, self._server._random
        # Of what is too long at least a few characters, so that it comes to an end.
        budget = draw.randrange(len(row)) if len(row) <= most else max(16, draw.randrange(most // 2, most))
        head, rest, _ = _cut(_Value.FromString(row), budget)
        return head.SerializeToString(), None if rest is None else rest.SerializeToString()

    async def _write(self, response: bytes) -> None:
        await self._server._thawed.wait()
        self._server._counts.responses += 1
        await self._context.write(response)


class _Counts:
    """What `StrictSpanner.counts` gives. Used in the loop alone."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.readers: Counter[str] = Counter()
        self.sessions: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        self.calls: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.connections: set[str] = set(self.open)
        self.by_partition: Counter[str] = Counter()
        self.most_readers: Counter[str] = Counter(self.readers)
        self.most_on_one = max(self.open.values(), default=0)
        self.most_queries = self.readers.total()
        self.rows = self.heartbeats = self.responses = self.cut_rows = 0
        self.last_query: dict[str, Any] = {}

    def begin(self, method: str, peer: str) -> None:
        self.calls[method] += 1
        self.connections.add(peer)
        self.open[peer] += 1
        self.most_on_one = max(self.most_on_one, self.open[peer])

    def end(self, peer: str) -> None:
        self.open[peer] -= 1
        if not self.open[peer]:
            del self.open[peer]

    @contextlib.contextmanager
    def query(self, token: str, session: str) -> Iterator[None]:
        self.sessions[session] += 1
        self.by_partition[token] += 1
        self.readers[token] += 1
        self.most_readers[token] = max(self.most_readers[token], self.readers[token])
        self.most_queries = max(self.most_queries, self.readers.total())
        try:
            yield
        finally:
            self.sessions[session] -= 1
            self.readers[token] -= 1
            if not self.readers[token]:
                del self.readers[token]

    def to_dict(self) -> dict[str, Any]:
        return {
            "calls": dict(self.calls),
            "errors": dict(self.errors),
            "open_queries": self.readers.total(),
            "max_open_queries": self.most_queries,
            "connections": len(self.connections),
            "open_by_connection": dict(self.open),
            "max_by_connection": self.most_on_one,
            "queries_by_partition": dict(self.by_partition),
            "readers_by_partition": dict(self.readers),
            "max_readers_by_partition": dict(self.most_readers),
            "rows": self.rows,
            "heartbeats": self.heartbeats,
            "responses": self.responses,
            "cut_rows": self.cut_rows,
            "last_query": self.last_query,
        }


class _Handlers(grpc.GenericRpcHandler):
    """Which method is answered how: ours by name, any other as bytes in both directions."""

    def __init__(self, server: StrictSpanner) -> None:
        unary = {
            "CreateSession": server.create_session,
            "BatchCreateSessions": server.batch_create_sessions,
            "GetSession": server.get_session,
            "DeleteSession": server.delete_session,
            "ExecuteSql": server.execute_sql,
        }
        self._server = server
        self._own = {f"{_SERVICE}{name}": self._unary(f"{_SERVICE}{name}", answer) for name, answer in unary.items()}
        streaming = f"{_SERVICE}ExecuteStreamingSql"

        async def stream(request: bytes, context: Any) -> None:
            await server.call(streaming, request, context, server.execute_streaming_sql)

        self._own[streaming] = grpc.unary_stream_rpc_method_handler(stream)

    def service(self, details: Any) -> Any:
        if found := self._own.get(details.method):
            return found
        method = details.method

        async def forward(requests: Any, context: Any) -> None:
            async def answer(requests: Any, context: Any) -> None:
                await self._server.forward(method, requests, context)

            await self._server.call(method, requests, context, answer)

        return grpc.stream_stream_rpc_method_handler(forward)

    def _unary(self, method: str, answer: Callable[[bytes, Any], Awaitable[bytes]]) -> Any:
        async def stream(request: bytes, context: Any) -> None:
            async def write(request: bytes, context: Any) -> None:
                await context.write(await answer(request, context))

            await self._server.call(method, request, context, write)

        # On the wire a unary answer is a stream of one.
        return grpc.unary_stream_rpc_method_handler(stream)


def _no_cancellations(record: logging.LogRecord) -> bool:
    """gRPC logs a traceback for each call that a closing server cuts off."""
    return not (record.exc_info and record.exc_info[0] is asyncio.CancelledError)


def _finish(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _arguments(text: str, params: Any) -> dict[str, str | None]:
    """The arguments of the read function by name, from `name => @parameter` or by place (`$1` is p1); literals too."""
    given: dict[str, str | None] = dict.fromkeys(_ARGUMENTS)
    for place, part in enumerate(text.split(",")):
        name, arrow, value = (piece.strip() for piece in part.rpartition("=>"))
        name = name.lower() if arrow else _ARGUMENTS[place]
        if name not in given:
            raise _Refused(StatusCode.INVALID_ARGUMENT, f"Named argument {name} not found in signature")
        given[name] = _argument(value, params)
    return given


def _argument(text: str, params: Any) -> str | None:
    if text.startswith(("@", "$")):
        name = text[1:] if text[0] == "@" else f"p{text[1:]}"
        if name not in params:
            raise _Refused(StatusCode.INVALID_ARGUMENT, f"No parameter found for binding: {name}")
        value = params[name]
        return None if value.WhichOneof("kind") == "null_value" else value.string_value
    return None if text.upper() == "NULL" else text.strip("'\"")


def _nanos(name: str, given: dict[str, str | None]) -> int | None:
    text = given[name]
    if text is None:
        return None
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", text):
        raise _Refused(StatusCode.INVALID_ARGUMENT, f"Invalid value for bind parameter {name}: Expected TIMESTAMP.")
    return to_nanos(normalise(text))


def _session_of(request: bytes) -> str:
    """The first field of nearly every request of google.spanner.v1: the session's name."""
    if request[:1] != b"\x0a":
        return ""
    size, at = request[1], 2
    if size & 0x80:
        size, at = size & 0x7F | request[2] << 7, 3
    return request[at : at + size].decode(errors="replace")


def _shown(moment: int) -> str:
    return f"{spanner_text(moment)[:-1]}+00:00"


def _message(code: str) -> str:
    return f"{code} by the strict stand-in"


def _unannounced(partition: Partition) -> str:
    return f"never-announced-{partition.children[0].token[:20]}"


def _passed_on(context: Any) -> dict[str, Any]:
    metadata = [
        (key, value)
        for key, value in context.invocation_metadata() or ()
        if not key.startswith((":", "grpc-")) and key not in ("user-agent", "content-type", "te")
    ]
    left = context.time_remaining()
    return {"metadata": tuple(metadata), "timeout": left if left and left < 10**6 else None}


def _catalog_of(history: History, dialect: str) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.execute("ATTACH ':memory:' AS INFORMATION_SCHEMA")
    shapes = {
        "CHANGE_STREAMS": 'CHANGE_STREAM_CATALOG, CHANGE_STREAM_SCHEMA, CHANGE_STREAM_NAME, "ALL"',
        "CHANGE_STREAM_OPTIONS": "CHANGE_STREAM_CATALOG, CHANGE_STREAM_SCHEMA, CHANGE_STREAM_NAME, OPTION_NAME, "
        "OPTION_TYPE, OPTION_VALUE",
        "CHANGE_STREAM_TABLES": "CHANGE_STREAM_CATALOG, CHANGE_STREAM_SCHEMA, CHANGE_STREAM_NAME, TABLE_CATALOG, "
        "TABLE_SCHEMA, TABLE_NAME, ALL_COLUMNS",
        "TABLES": "TABLE_CATALOG, TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE",
        "DATABASE_OPTIONS": "CATALOG_NAME, SCHEMA_NAME, OPTION_NAME, OPTION_TYPE, OPTION_VALUE",
        "COLUMNS": "TABLE_CATALOG, TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, SPANNER_TYPE",
    }
    for name, columns in shapes.items():
        database.execute(f"CREATE TABLE INFORMATION_SCHEMA.{name} ({columns})")

    def add(table: str, *row: Any) -> None:
        database.execute(f"INSERT INTO INFORMATION_SCHEMA.{table} VALUES ('', '', {', '.join('?' * len(row))})", row)

    # Of PostgreSQL: cloud.google.com/spanner/docs/information-schema-pg
    schema, everything = ("public", "NO") if dialect == _POSTGRESQL else ("", False)
    add("DATABASE_OPTIONS", "database_dialect", "STRING", dialect)
    for stream in history.streams.values():
        add("CHANGE_STREAMS", stream.name, everything)
        options = {"retention_period": f"{stream.retention // SECOND // 3600}h", "value_capture_type": stream.capture}
        if stream.partition_mode != "IMMUTABLE_KEY_RANGE":
            options["partition_mode"] = stream.partition_mode
        for option, value in options.items():
            add("CHANGE_STREAM_OPTIONS", stream.name, option, "STRING", value)
        for table in stream.tables.values():
            add("CHANGE_STREAM_TABLES", stream.name, "", schema, table.name, True)
            add("TABLES", table.name, "BASE TABLE")
            for i, column in enumerate(table.columns, 1):
                add("COLUMNS", table.name, column.name, i, column.type)
    return database


# --- A process of its own ---------------------------------------------------------------------------------------------

# What the control port does: POST /<name> with the arguments as a JSON object.
CONTROLS: Final = (
    "fail",
    "end_early",
    "heal",
    "end_sessions",
    "drop_connections",
    "down",
    "up",
    "freeze",
    "thaw",
    "extra_fields",
    "unannounced_parents",
    "counts",
    "reset_counts",
)


def _control(server: StrictSpanner, history: RandomHistory) -> ThreadingHTTPServer:
    def start(commits: int | None = None, rate: float | None = None) -> None:
        history.rate = rate or history.rate
        history.start(commits=commits)

    calls: dict[str, Callable[..., Any]] = {name: getattr(server, name) for name in CONTROLS}
    calls |= {"start": start, "stop": history.stop}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                answer = {"ok": calls[self.path.strip("/")](**json.loads(body or b"{}"))}
                status = 200
            except Exception as error:
                answer, status = {"error": f"{type(error).__name__}: {error}"}, 400
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    return http


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.strict.spanner", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=100.0, help="transactions a second")
    parser.add_argument("--commits", type=int, help="stop after this many transactions; serving continues")
    parser.add_argument(
        "--with-history", type=float, default=0.0, help="seconds of history that are there at the start"
    )
    parser.add_argument("--partitions", type=int, default=4, help="live partitions a stream, at the start")
    parser.add_argument("--churn", type=float, default=5.0, help="seconds between splits, merges and moves; 0: none")
    parser.add_argument("--paused", action="store_true", help="commit nothing until POST /start")
    parser.add_argument("--ledger", type=Path, help="JSONL file that gets each committed modification")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path, help="gets {endpoint, control, pid, created} once it serves")
    parser.add_argument("--emulator", default="", help="host:port of a real emulator for everything else")
    parser.add_argument("--database", default="", help="the source database; its sessions are made here")
    parser.add_argument("--retention", type=float, default=7 * 24 * 3600.0, help="seconds")
    parser.add_argument("--max-streams", type=int, default=100, help="HTTP/2 streams a connection")
    parser.add_argument("--min-heartbeat", type=int, default=1000, help="milliseconds")
    parser.add_argument("--cut", type=float, default=0.1, help="share of the responses with a cut row")
    parser.add_argument("--mutable-key-range", action="store_true", help="the streams' partition mode")
    parser.add_argument(
        "--schema-change",
        action="append",
        default=[],
        metavar="SECONDS:TABLE:COLUMN:TYPE",
        help="a new column, or another type of one that there is; repeatedly",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves a random history until SIGTERM or SIGINT."""
    given = _parser().parse_args(arguments)
    changes = []
    for text in given.schema_change:
        after, table, column, kind = text.split(":", 3)
        changes.append(SchemaChange(after=float(after), table=table, column=ColumnSpec(column, kind)))
    history = RandomHistory(
        given.seed,
        rate=given.rate,
        partitions=given.partitions,
        churn=given.churn,
        schema_changes=changes,
        created=time.time_ns() - int((given.with_history + 1) * SECOND),
        ledger=given.ledger,
        retention_seconds=given.retention,
        partition_mode="MUTABLE_KEY_RANGE" if given.mutable_key_range else "IMMUTABLE_KEY_RANGE",
    )
    if given.with_history:
        history.play(given.with_history)
    # What is committed stays: to look at all of it repeatedly would be most of the work.
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server = StrictSpanner(
        history,
        emulator=given.emulator,
        database=given.database,
        port=given.port,
        max_streams=given.max_streams,
        min_heartbeat_millis=given.min_heartbeat,
        cut=given.cut,
        seed=given.seed,
    )
    with server:
        http = _control(server, history)
        where = {
            "endpoint": server.endpoint,
            "control": f"http://127.0.0.1:{http.server_address[1]}",
            "pid": os.getpid(),
            "created": from_nanos(history.created),
        }
        if given.port_file:
            part = given.port_file.with_suffix(".part")
            part.write_text(json.dumps(where))
            part.rename(given.port_file)
        print(json.dumps(where), flush=True)
        if not given.paused:
            history.start(commits=given.commits)
        stopped.wait()
        history.stop()
        history.close()
        http.shutdown()


if __name__ == "__main__":
    main()
