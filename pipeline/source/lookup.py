"""Reads one change record again, at the coordinates that a dead letter kept."""

from __future__ import annotations

from contract import timestamps
from contract.changes import Coordinates
from pipeline.source.query import ChangeStreamQuery
from pipeline.source.records import DataChange


def read_again(query: ChangeStreamQuery, at: Coordinates) -> DataChange | None:
    """The record at the coordinates, or None when no partition that was live then has it.

    Raises grpc.RpcError; OUT_OF_RANGE means that the change stream no longer keeps that time.
    """
    end = timestamps.from_nanos(timestamps.to_nanos(at.commit_timestamp) + 1_000)
    for root in query.roots(at.commit_timestamp):
        for record in query.run(at.commit_timestamp, token=root.token, end=end):
            if isinstance(record, DataChange) and _is_at(record, at):
                return record
    return None


def _is_at(record: DataChange, at: Coordinates) -> bool:
    return (
        record.commit_timestamp == at.commit_timestamp
        and record.server_transaction_id == at.server_transaction_id
        and record.record_sequence == at.record_sequence
        and record.table == at.table
        and at.mod_index < len(record.mods)
    )
