"""Changes → Arrow rows of a changelog table.

Columns are built one at a time for a whole batch: the types are looked up once a table, not once a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from contract import tables, timestamps
from contract.changes import Change, Column, Reason, Row, StepError
from contract.watched import WatchedTable
from pipeline.sink import values

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


@dataclass(frozen=True)
class SourceColumn:
    """A column of the row that comes from the source row."""

    field: tables.Field
    is_key: bool
    convert: values.Converter
    type: pa.DataType
    # What the column cannot hold of a value; None where it holds all.
    exact: values.Exact | None


@lru_cache(maxsize=256)
def source_columns(columns: tuple[Column, ...], table: WatchedTable) -> tuple[SourceColumn, ...]:
    """How the columns of a source table are carried."""
    found = []
    described = tables.source_fields(table, ((c.name, c.type) for c in columns))
    for column, carried in zip(columns, described, strict=True):
        own = tables.masked_name(table, column.name)
        for field in carried:
            # A token is a text, of a column of any type.
            kind = column.type if field.source == own else "STRING"
            found.append(
                SourceColumn(
                    field=field,
                    is_key=column.is_primary_key,
                    convert=values.converter(kind),
                    type=arrow_type(field),
                    exact=values.exact(kind),
                )
            )
    return tuple(found)


@lru_cache(maxsize=256)
def fields(columns: tuple[Column, ...], table: WatchedTable) -> tuple[tables.Field, ...]:
    """The fields of the changelog of a table with these columns."""
    return (*(c.field for c in source_columns(columns, table)), *tables.METADATA_FIELDS, *tables.ENRICHMENT_FIELDS)


# What the making of a row raises where a value is not what its type says.
_UNFIT = (ValueError, TypeError, ArithmeticError, KeyError, AttributeError, pa.ArrowException)


def encode(
    changes: Sequence[Change], table: WatchedTable
) -> tuple[pa.RecordBatch | None, list[tuple[Change, StepError]]]:
    """The rows of changes of one table with the same columns, and the changes that have no row, with the reason."""
    failed: list[tuple[Change, StepError]] = []
    try:
        return _encode(changes, table), failed
    except _UNFIT:
        good = []
        for change in changes:
            if error := _fault(change, table):
                failed.append((change, error))
            else:
                good.append(change)
        if len(good) == len(changes):
            raise
        return (_encode(good, table) if good else None), failed


def _encode(changes: Sequence[Change], table: WatchedTable) -> pa.RecordBatch:
    arrays: dict[str, pa.Array] = {}
    for column in source_columns(changes[0].columns, table):
        arrays[column.field.name] = _source_array(column, changes)
    arrays |= _metadata_arrays(changes, table)
    for field in tables.ENRICHMENT_FIELDS:
        added: list[Any] = [c.enriched.get(field.name) for c in changes]
        if field.type == "TIMESTAMP":
            convert = values.converter(field.type)
            added = [None if v is None else convert(v) for v in added]
        arrays[field.name] = pa.array(added, arrow_type(field))
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _source_array(column: SourceColumn, changes: Sequence[Change]) -> pa.Array:
    name = column.field.source or column.field.name
    raw = [c.keys.get(name) for c in changes] if column.is_key else [c.new.get(name) for c in changes]
    convert = column.convert
    empty: Any = [] if column.field.mode == "REPEATED" else None
    return pa.array([empty if v is None else convert(v) for v in raw], column.type)


def exact_values(change: Change, table: WatchedTable) -> Row | None:
    """The values of the row that their columns cannot hold, as Spanner has them; None where there is none."""
    return _exact_values(change, _inexact(change.columns, table))


def old_values(change: Change, table: WatchedTable) -> Row | None:
    """The values before a change, for a JSON column: their numbers are texts. None where there is none."""
    return _old_values(change, _types(change.columns, table))


def _exact_values(change: Change, inexact: tuple[tuple[str, bool, values.Exact], ...]) -> Row | None:
    found: Row = {}
    for name, is_key, exact in inexact:
        value = (change.keys if is_key else change.new).get(name)
        if value is not None and (whole := exact(value)) is not None:
            found[name] = whole
    return found or None


def _old_values(change: Change, types: Mapping[str, str]) -> Row | None:
    return values.without_numbers(change.old, types) if change.old else None


@lru_cache(maxsize=256)
def _inexact(columns: tuple[Column, ...], table: WatchedTable) -> tuple[tuple[str, bool, values.Exact], ...]:
    return tuple(
        (column.field.source or column.field.name, column.is_key, column.exact)
        for column in source_columns(columns, table)
        if column.exact is not None
    )


@lru_cache(maxsize=256)
def _types(columns: tuple[Column, ...], table: WatchedTable) -> Mapping[str, str]:
    return {tables.masked_name(table, column.name): column.type for column in columns}


def _json(row: Row | None) -> str | None:
    return None if row is None else orjson.dumps(row).decode()


def _metadata_arrays(changes: Sequence[Change], table: WatchedTable) -> dict[str, pa.Array]:
    strings, int64 = pa.string(), pa.int64()
    # Looked up once: to look for columns in a cache takes their hashes, each time.
    columns = changes[0].columns
    inexact, types = _inexact(columns, table), _types(columns, table)
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
        tables.OLD_VALUES: pa.array([_json(_old_values(c, types)) for c in changes], strings),
        tables.EXACT_VALUES: pa.array([_json(_exact_values(c, inexact)) for c in changes], strings),
        tables.IS_INCOMPLETE: pa.array([c.is_incomplete or None for c in changes], pa.bool_()),
        tables.CARD_TOKENS: pa.array([c.card_tokens for c in changes], pa.list_(strings)),
        STREAM: pa.array([c.stream for c in changes], strings),
    }


def _fault(change: Change, table: WatchedTable) -> StepError | None:
    for column in source_columns(change.columns, table):
        try:
            _source_array(column, [change])
        except _UNFIT:
            field = column.field
            return StepError(
                Reason.VALUE,
                f"{change.table}.{field.name} must hold a value that BigQuery's {field.type} can carry. "
                "Fix the row in Spanner, or leave the column out with ignoreFields; then retry the dead letter.",
            )
    try:
        _encode([change], table)
    except _UNFIT:
        return StepError(
            Reason.VALUE,
            f"what the pipeline adds to a row of {change.table} (its state and times, the values before it) must be "
            "what BigQuery can carry, and comes from the row: fix its status and time in Spanner, then retry the "
            "dead letter.",
        )
    return None


def to_bytes(batch: pa.RecordBatch) -> bytes:
    """An Arrow stream: it says its own schema, so that batches of different schemas can meet in one shard."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def for_append(batch: pa.Table, names: Mapping[str, str], stamp: int | None) -> pa.RecordBatch:
    """The batch's columns that are in `names`, under the names that BigQuery's table has for them.

    `stamp`, in microseconds since 1970, is for an emulator, which does not evaluate the column's default.
    """
    sent = batch.select(list(names)).rename_columns(list(names.values()))
    if stamp is not None:
        now = pa.array([stamp] * sent.num_rows, _TIMESTAMP)
        sent = sent.append_column(tables.BIG_QUERY_COMMIT_TIMESTAMP, now)
    return sent.to_batches()[0]


def merge(encoded: Sequence[bytes]) -> pa.Table:
    """The rows of several batches of one schema. Columns that a batch lacks are NULL in its rows."""
    return _united([_table(data) for data in encoded])


def groups(encoded: Iterable[tuple[tuple[Column, ...], bytes]]) -> list[tuple[tuple[Column, ...], pa.Table]]:
    """Encoded batches with the source columns they were made from, united where columns and schema are the same.

    Rows of before and after a type change or a new column never meet: the types differ, or a NULL would be where an
    ARRAY must be empty. In order of arrival.
    """
    found: dict[Any, list[pa.Table]] = {}
    for columns, data in encoded:
        table = _table(data)
        found.setdefault((columns, table.schema.serialize().to_pybytes()), []).append(table)
    return [(columns, _united(parts)) for (columns, _), parts in found.items()]


def _table(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()


def _united(parts: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts, promote_options="default").combine_chunks()


def sizes(batch: pa.Table) -> list[int]:
    """Bytes of each row, as an Arrow request carries them; a little more, never less."""
    import numpy as np

    total = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        total += _sizes_of(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
    return [int(size) for size in total]


def _sizes_of(array: pa.Array) -> Any:
    import numpy as np

    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if pa.types.is_list(array.type):
        offsets = np.asarray(array.offsets)
        inner = np.concatenate(([0], np.cumsum(_sizes_of(array.values))))
        return inner[offsets[1:]] - inner[offsets[:-1]] + _OFFSET_BYTES
    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        return np.asarray(pc.fill_null(pc.binary_length(array), 0), np.int64) + _OFFSET_BYTES
    return -(-array.type.bit_width // 8) + 1


# A value's offset and its validity.
_OFFSET_BYTES = 5
