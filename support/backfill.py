"""Backfill: rows that are older than the change stream are read from Spanner at one moment, and written to BigQuery.

It is a replay of all rows of tables (`support/replay.py`, `pipeline/replay/`), which leaves out what came by the
stream: started again, killed half-way or run by two at once, each row is there once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from contract import dialects
from pipeline.transforms.filter import Ignored
from support import replay
from support.connection import Connection
from support.replay import Replay, ReplayError

# What a CPU makes of them (python -m bench.backfill), and rows whose keys one query of BigQuery is of.
ROWS_A_CPU_SECOND: Final = 3_000
ROWS_A_QUERY: Final = 1_000_000
_DAY_SECONDS: Final = 86_400
# Of the changes of a day at the design load: what searches of that day may read more, until BigQuery refuses them.
_DAYS_OF_ROOM: Final = 3
_LONG_SECONDS: Final = 1_800


@dataclass(frozen=True, kw_only=True)
class TableEstimate:
    """The rows of a table now, and what it takes to see which of them are there: BigQuery's estimate for each query,
    which knows no clusters, so that it reads much less."""

    table: str
    rows: int
    queries: int
    bytes_a_query_at_most: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a backfill would take."""

    tables: tuple[TableEstimate, ...]
    rows: int
    cpu_seconds: int
    notes: tuple[str, ...]


def start(
    connection: Connection, named: Sequence[str], *, requested_by: str, reason: str, again: bool = False
) -> tuple[Replay, bool]:
    """Records a backfill of these tables, or of all of them; also whether it is a new one.

    One of the same tables that is not finished is returned in its place, and one that is complete, unless it is to be
    done `again`. Raises ReplayError, ReplayUnavailable.
    """
    reason = reason.strip()
    replay.check_reason(reason)
    tables = tables_of(connection, named)
    with replay.explained():
        store = replay.store_of(connection)
        before = {each.id for each in store.latest(1000, backfills=True)}
        found = store.one(store.add_backfill(requested_by, reason, tables, again=again))
    return found, found.id not in before


def latest(connection: Connection, limit: int = 50) -> list[Replay]:
    """The last backfills, the newest first. Raises ReplayUnavailable."""
    with replay.explained():
        return replay.store_of(connection).latest(limit, backfills=True)


def find(connection: Connection, backfill_id: str) -> Replay:
    """A backfill. Raises ReplayError, ReplayUnavailable."""
    found = replay.find(connection, backfill_id)
    if found.kind != "backfill":
        raise ReplayError("this id is of a replay. `audit backfill list` has the last backfills.")
    return found


def tables_of(connection: Connection, named: Sequence[str]) -> tuple[str, ...]:
    """The tables of a backfill: those that are named, or all that are audited. Raises ReplayError."""
    ignored = Ignored.parse(tables=connection.ignore_tables).tables
    known = tuple(table.name for table in connection.watched.tables if table.name.casefold() not in ignored)
    if unknown := [name for name in named if name not in known]:
        raise ReplayError(
            f"a backfill must be of watched tables ({', '.join(known)}), got {', '.join(unknown)}. What ignoreTables "
            "names has no changelog."
        )
    return tuple(name for name in known if not named or name in named)


def estimate(connection: Connection, named: Sequence[str]) -> Estimate:
    """Counts the rows, and has BigQuery estimate the comparison. Raises ReplayError, ReplayUnavailable."""
    from pipeline.replay.arrived import Keys
    from pipeline.source.table_rows import TableAt, Where

    settings = replay.settings_of(connection)
    found, notes = [], []
    with replay.explained():
        source, client = settings.source(), settings.sink.bigquery()
        with source.snapshot() as snapshot:
            [(now,)] = snapshot.execute_sql(dialects.NOW)
        for name in tables_of(connection, named):
            at = TableAt(source, name, now, Where())
            keys = Keys(connection.watched.of(name), at.columns, at.keys)
            if keys.hidden:
                notes.append(f"{name}: its key is masked ({', '.join(keys.hidden)}), so none of its rows is written.")
                continue
            rows = at.count()
            found.append(
                TableEstimate(
                    table=name,
                    rows=rows,
                    queries=math.ceil(rows / ROWS_A_QUERY),
                    bytes_a_query_at_most=keys.estimate(client, settings.sink.destinations, now),
                )
            )
    rows = sum(each.rows for each in found)
    return Estimate(
        tables=tuple(found),
        rows=rows,
        cpu_seconds=math.ceil(rows / ROWS_A_CPU_SECOND),
        notes=(*notes, *_notes(rows, settings.design_tps)),
    )


def _notes(rows: int, design_tps: float) -> list[str]:
    notes = []
    if rows / ROWS_A_CPU_SECOND > _LONG_SECONDS:
        notes.append(
            "It must end while Spanner keeps the moment of its read: set spannerVersionRetention longer than it takes, "
            "before it is started."
        )
    if rows > _DAYS_OF_ROOM * design_tps * _DAY_SECONDS:
        notes.append(
            "All rows are of one day in the changelog. Searches of that day are refused where it is too large for the "
            "stack's designTps: backfill one table a day (--table), or raise designTps until the next day is over."
        )
    return notes
