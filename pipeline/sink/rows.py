"""Changes → Arrow rows of a changelog table.

Columns are built one at a time for a whole batch: the types are looked up once a table, not once a value.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson
import pyarrow as pa

from contract import tables, timestamps
from contract.changes import Change, Column, Reason, StepError

Converter = Callable[[Any], Any]

# A row carries where it came from up to the append, for a dead letter; BigQuery never sees it.
STREAM = "__stream"

_TIMESTAMP = pa.timestamp("us", tz="UTC")
_ARROW: dict[str, pa.DataType] = {
    "BOOL": pa.bool_(),
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "NUMERIC": pa.decimal128(38, 9),
    "STRING": pa.string(),
    "BYTES": pa.binary(),
    "DATE": pa.date32(),
    "TIMESTAMP": _TIMESTAMP,
    "JSON": pa.string(),
}


def arrow_type(field: tables.Field) -> pa.DataType:
    kind = _ARROW[field.type]
    return pa.list_(kind) if field.mode == "REPEATED" else kind


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError
    return int(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _float(value: Any) -> float:
    # NaN and the infinities come as text. A NaN is also sent as null by the emulator; that one is lost before us.
    return _SPECIAL_FLOATS[value] if isinstance(value, str) else float(value)


def _bytes(value: str) -> bytes:
    return base64.b64decode(value, validate=True)


def _timestamp(value: str) -> int:
    return timestamps.to_micros(timestamps.normalise(value))


_CONVERTERS: dict[str, Converter] = {
    "BOOL": _boolean,
    "INT64": _integer,
    "FLOAT64": _float,
    "NUMERIC": Decimal,
    "STRING": _text,
    "BYTES": _bytes,
    "DATE": date.fromisoformat,
    "TIMESTAMP": _timestamp,
    "JSON": _text,
}


def _repeated(convert: Converter) -> Converter:
    # BigQuery's REPEATED takes neither NULL nor null elements.
    return lambda values: [convert(v) for v in values if v is not None]


@dataclass(frozen=True)
class SourceColumn:
    """A column of the row that comes from the source row."""

    field: tables.Field
    is_key: bool
    convert: Converter
    type: pa.DataType


@lru_cache(maxsize=256)
def source_columns(columns: tuple[Column, ...]) -> tuple[SourceColumn, ...]:
    """How the columns of a source table are carried."""
    found = []
    for column in columns:
        for field in tables.fields_of(column.name, column.type):
            convert = _CONVERTERS[field.type]
            repeated = field.mode == "REPEATED"
            found.append(
                SourceColumn(
                    field, column.is_primary_key, _repeated(convert) if repeated else convert, arrow_type(field)
                )
            )
    return tuple(found)


def fields(columns: tuple[Column, ...]) -> tuple[tables.Field, ...]:
    """The fields of the changelog of a table with these columns."""
    return (*(c.field for c in source_columns(columns)), *tables.METADATA_FIELDS, *tables.ENRICHMENT_FIELDS)


def encode(changes: Sequence[Change]) -> tuple[pa.RecordBatch | None, list[tuple[Change, StepError]]]:
    """The rows of changes of one table with the same columns, and the changes that have no row, with the reason."""
    failed: list[tuple[Change, StepError]] = []
    try:
        return _encode(changes), failed
    except (ValueError, TypeError, ArithmeticError, KeyError, AttributeError, pa.ArrowException):
        good = []
        for change in changes:
            if error := _fault(change):
                failed.append((change, error))
            else:
                good.append(change)
        if len(good) == len(changes):
            raise
        return (_encode(good) if good else None), failed


def _encode(changes: Sequence[Change]) -> pa.RecordBatch:
    arrays: dict[str, pa.Array] = {}
    for column in source_columns(changes[0].columns):
        arrays[column.field.name] = _source_array(column, changes)
    arrays |= _metadata_arrays(changes)
    for field in tables.ENRICHMENT_FIELDS:
        values: list[Any] = [c.enriched.get(field.name) for c in changes]
        if field.type == "TIMESTAMP":
            values = [None if v is None else _timestamp(v) for v in values]
        arrays[field.name] = pa.array(values, arrow_type(field))
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _source_array(column: SourceColumn, changes: Sequence[Change]) -> pa.Array:
    name = column.field.name
    raw = [c.keys.get(name) for c in changes] if column.is_key else [c.new.get(name) for c in changes]
    convert = column.convert
    empty: Any = [] if column.field.mode == "REPEATED" else None
    return pa.array([empty if v is None else convert(v) for v in raw], column.type)


def _metadata_arrays(changes: Sequence[Change]) -> dict[str, pa.Array]:
    strings, int64 = pa.string(), pa.int64()
    nanos = [timestamps.to_nanos(c.commit_timestamp) for c in changes]
    return {
        tables.MOD_TYPE: pa.array([c.mod_type for c in changes], strings),
        tables.TABLE_NAME: pa.array([c.table for c in changes], strings),
        tables.COMMIT_TIMESTAMP: pa.array([n // 1000 for n in nanos], _TIMESTAMP),
        tables.COMMIT_TIMESTAMP_NANOS: pa.array(nanos, int64),
        tables.SERVER_TRANSACTION_ID: pa.array([c.server_transaction_id for c in changes], strings),
        tables.RECORD_SEQUENCE: pa.array([c.record_sequence for c in changes], strings),
        tables.IS_LAST_RECORD: pa.array([c.is_last_record_in_transaction_in_partition for c in changes], pa.bool_()),
        tables.NUMBER_OF_RECORDS: pa.array([c.number_of_records_in_transaction for c in changes], int64),
        tables.NUMBER_OF_PARTITIONS: pa.array([c.number_of_partitions_in_transaction for c in changes], int64),
        tables.CHANGE_ID: pa.array([c.change_id for c in changes], strings),
        tables.OLD_VALUES: pa.array([orjson.dumps(c.old).decode() if c.old else None for c in changes], strings),
        tables.CARD_TOKENS: pa.array([c.card_tokens for c in changes], pa.list_(strings)),
        STREAM: pa.array([c.stream for c in changes], strings),
    }


def _fault(change: Change) -> StepError | None:
    for column in source_columns(change.columns):
        try:
            _source_array(column, [change])
        except (ValueError, TypeError, ArithmeticError, KeyError, AttributeError, pa.ArrowException):
            field = column.field
            return StepError(
                Reason.VALUE,
                f"{change.table}.{field.name} must hold a value that BigQuery's {field.type} can carry. "
                "Mend the row in Spanner, or leave the column out with ignoreFields; then retry the dead letter.",
            )
    return None


def to_bytes(batch: pa.RecordBatch) -> bytes:
    """An Arrow stream: it says its own schema, so that batches of different schemas can meet in one shard."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def merge(encoded: Sequence[bytes]) -> pa.Table:
    """The rows of several batches. Columns that a batch lacks are NULL in its rows."""
    parts = [pa.ipc.open_stream(data).read_all() for data in encoded]
    return pa.concat_tables(parts, promote_options="default").combine_chunks()
