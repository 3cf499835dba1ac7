"""What Spanner committed: read from the change streams themselves, in closed windows.

Nothing else knows it all: a delete leaves no row, `audit_logs` has no commit timestamp, and a table read whole would
cost more with every payment. A window is read once, with LOW priority, from where the last one ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from contract import payments, tables, timestamps
from contract.changes import Column, StepError
from contract.watched import WatchedTable, WatchedTables
from pipeline.source.records import DataChange
from pipeline.transforms import decode
from pipeline.transforms.enrich import enrich
from pipeline.transforms.filter import Ignored, IgnoredRecords, keep


class Commit(NamedTuple):
    """What one transaction did to a table: the changes of a table that share a commit timestamp (microseconds)."""

    table: str
    micros: int


@dataclass
class Window:
    """The changes of a window by commit, and the payments that came to a state in it, by that state.

    `unclassified` has, by watched table, the columns that its changes carried and nobody classified. It is given what
    was seen before: an insert carries every column, and so forgets those that are gone.
    """

    commits: Counter[Commit] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    unclassified: dict[str, list[str]] = field(default_factory=dict)


def count(
    window: Window,
    changes: Iterator[DataChange],
    watched: WatchedTables,
    ignored: Ignored,
    left_out: IgnoredRecords,
    states: Mapping[str, str],
) -> None:
    """Adds changes to a window: those that the pipeline is to carry."""
    for record in changes:
        commit = Commit(record.table, timestamps.to_micros(record.commit_timestamp))
        _classify(window, record, watched)
        if record in left_out:
            continue
        if not ignored.fields and record.table != watched.payments.name:
            window.commits[commit] += len(record.mods)
            continue
        for index in range(len(record.mods)):
            kept, outcome = _look_at(record, index, watched, ignored, states)
            window.commits[commit] += kept
            if outcome:
                window.outcomes[outcome] += 1


def _classify(window: Window, record: DataChange, watched: WatchedTables) -> None:
    table = watched.of(record.table)
    if not table.columns:
        return
    seen = () if record.mod_type == "INSERT" else window.unclassified.get(record.table, ())
    window.unclassified[record.table] = sorted({*seen, *_without_policy(table, record.columns)})


@lru_cache(maxsize=64)
def _without_policy(table: WatchedTable, columns: tuple[Column, ...]) -> tuple[str, ...]:
    return tuple(column.name for column in columns if table.policy_of(column.name) is None)


def _look_at(
    record: DataChange, index: int, watched: WatchedTables, ignored: Ignored, states: Mapping[str, str]
) -> tuple[bool, str | None]:
    """Whether the pipeline is to carry a modification, and the state that the payment came to by it."""
    try:
        change = decode.decode(record, index)
        enrich(change, watched.of(change.table), states)
    except StepError:
        # Not readable: the pipeline makes a dead letter of it, so it counts.
        return True, None
    state, before = change.enriched[tables.PAYMENT_STATE], change.enriched[tables.PREVIOUS_PAYMENT_STATE]
    came = record.table == watched.payments.name and state in payments.STATES and state != before
    return keep(change, ignored), state if came else None
