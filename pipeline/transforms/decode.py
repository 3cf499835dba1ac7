"""A data change record → one change per modification."""

from __future__ import annotations

from typing import Any

import orjson

from contract.changes import Change, Coordinates, Reason, Row, StepError
from pipeline.source.records import DataChange


def decode(record: DataChange, mod_index: int) -> Change:
    """The change that modification `mod_index` of a record describes.

    Raises StepError when one of its JSON texts is not an object.
    """
    mod = record.mods[mod_index]
    return Change(
        stream=record.stream,
        table=record.table,
        mod_type=record.mod_type,  # type: ignore[arg-type]
        commit_timestamp=record.commit_timestamp,
        server_transaction_id=record.server_transaction_id,
        record_sequence=record.record_sequence,
        mod_index=mod_index,
        is_last_record_in_transaction_in_partition=record.is_last_record_in_transaction_in_partition,
        number_of_records_in_transaction=record.number_of_records_in_transaction,
        number_of_partitions_in_transaction=record.number_of_partitions_in_transaction,
        columns=record.columns,
        keys=_row(mod.keys, "keys"),
        new=_row(mod.new_values, "new_values"),
        old=_row(mod.old_values, "old_values"),
        value_capture_type=record.value_capture_type,
    )


def coordinates(record: DataChange, mod_index: int) -> Coordinates:
    """Where a modification can be read again."""
    return Coordinates(
        record.stream,
        record.table,
        record.commit_timestamp,
        record.server_transaction_id,
        record.record_sequence,
        mod_index,
    )


def _row(text: str, part: str) -> Row:
    if not text:
        return {}
    try:
        row: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        row = None
    if not isinstance(row, dict):
        raise StepError(
            Reason.UNREADABLE,
            f"{part} of a data change record must be a JSON object. Spanner's record format may have changed: "
            "read the record again at its coordinates, and update the pipeline.",
        )
    return row
