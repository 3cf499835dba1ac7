"""The drill: restores a backup into a scratch dataset, compares it with what was recorded when it was made, drops it.

Rows are counted in every partition, which reads metadata alone. Checksums read rows: of the newest partitions in every
drill, and of the older ones in turn, as many as the limit of bytes allows. A snapshot cannot be written over, and one
that was made again is seen by its time: so a part of the checksums is enough for a week, and all are compared in time.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from support.backup import checksums
from support.backup.create import QUERY_SECONDS, Limits, Progress
from support.backup.records import Backed, Backup, BackupError, Difference, Drill, Partition, TableBackup, backed
from support.backup.restore import differences
from support.backup.store import Backups
from support.backup.tables import Tables
from support.bigquery_rest import Row
from support.connection import Connection
from support.warehouse import Warehouse, WarehouseError

# Compared in every drill: a week.
_NEWEST: Final = 8
_NAMED: Final = 20
_TRAVEL: Final = timedelta(days=7)


def drill(
    connection: Connection,
    *,
    backup_id: str | None = None,
    limits: Limits | None = None,
    progress: Progress = lambda _: None,
) -> Backup:
    """Tries the newest backup that was good when it was made, or the one with an id, and records what came of it.

    Answers the backup with its drill.

    Raises BackupError, WarehouseError: then nothing is recorded, for nothing is known.
    """
    store = Backups(connection)
    known = store.all()
    newest = next((each.id for each in known if each.created_at and not each.problems), None)
    backup = store.get(backup_id or newest)
    last = max((each.drill for each in known if each.drill), key=lambda made: made.at, default=None)
    made = _Run(connection, limits or Limits.of(connection), progress).drill(backup, last)
    return store.drilled(backup, made)


@dataclass(kw_only=True)
class _Compared:
    """What is compared of one table."""

    differences: list[Difference] = field(default_factory=list)
    partitions: int = 0
    low: str = ""


class _Run:
    def __init__(self, connection: Connection, limits: Limits, progress: Progress) -> None:
        self._limits, self._progress, self._directory = limits, progress, connection.backup_directory
        self._warehouse = Warehouse(connection, seconds=QUERY_SECONDS)
        self._tables = Tables(connection, self._warehouse)
        self._scratch = connection.watched.restored_dataset
        self._backed = {table.id: table for table in backed(connection.watched)}
        self._left = limits.most_bytes
        self._notes: list[str] = []

    def drill(self, backup: Backup, last: Drill | None) -> Drill:
        at = datetime.now(UTC)
        found: dict[str, _Compared] = {}
        # Small tables first: they are whole.
        for kept in sorted(backup.tables, key=lambda each: each.bytes):
            if kept.table not in self._backed:
                self._notes.append(f"{kept.table} is watched no longer: not compared.")
                continue
            found[kept.table] = self._table(self._backed[kept.table], kept, backup, last, at)
        return Drill(
            at=at,
            differences=tuple(each for one in found.values() for each in one.differences),
            rows=sum(table.rows for table in backup.tables),
            bytes_read=self._warehouse.bytes_read,
            partitions=sum(one.partitions for one in found.values()),
            of=sum(len(table.partitions) + len(table.unchecked) for table in backup.tables),
            lows={name: one.low for name, one in found.items()},
            notes=tuple(self._notes),
        )

    def _table(self, table: Backed, kept: TableBackup, backup: Backup, last: Drill | None, at: datetime) -> _Compared:
        self._progress(f"restoring {kept.snapshot}")
        compared = _Compared()
        held = self._tables.get(kept.snapshot)
        if held is None:
            compared.differences.append(Difference(table=table.id, kind="missing"))
            return compared
        if held.made_at != kept.made_at:
            compared.differences.append(Difference(table=table.id, kind="made again"))
        scratch = f"{self._scratch}.drill_{uuid.uuid4().hex[:8]}__{table.id.replace('.', '__')}"
        try:
            restored = self._tables.restore(kept.snapshot, scratch)
            counted = self._counts(table, kept, scratch)
            if restored.rows != kept.rows and not counted:
                # A row without a time is in no partition with one.
                counted = [Difference(table=table.id, kind="rows", recorded_rows=kept.rows, found_rows=restored.rows)]
            low = last.lows.get(table.id, "") if last else ""
            chosen, compared.low = self._chosen(kept, low)
            compared.partitions = len(chosen)
            wrong = {each.partition for each in counted}
            right = [name for name in chosen if name not in wrong]
            self._progress(f"checksums of {len(right):,} partitions of {table.id}")
            altered = differences(self._warehouse, table, kept, scratch, right, self._limits.most_bytes)
            compared.differences += [self._named(table, kept, backup, scratch, each) for each in (*counted, *altered)]
            self._tables.drop(scratch)
            compared.differences += self._export(table, kept, scratch, at)
        finally:
            self._tables.drop(scratch)
        return compared

    def _export(self, table: Backed, kept: TableBackup, scratch: str, at: datetime) -> list[Difference]:
        """Loads the newest partition that is exported, and one that another drill does not take, and compares them."""
        names = [name for name, each in sorted(kept.partitions.items()) if each.export]
        chosen = {names[-1], names[at.toordinal() // 7 % len(names)]} if names else set()
        reads = {name: int(kept.partitions[name].rows * kept.row_bytes) for name in chosen}
        if not chosen or not self._directory or sum(reads.values()) > self._left:
            return []
        self._left -= sum(reads.values())
        self._progress(f"loading the export of {table.id} {', '.join(sorted(chosen))}")
        folders = [f"{self._directory}/{kept.partitions[name].export}" for name in sorted(chosen)]
        try:
            self._tables.load(folders, kept.layout, scratch)
        except BackupError as error:
            self._notes.append(str(error))
            return [Difference(table=table.id, kind="export", partition=name) for name in sorted(chosen)]
        found = differences(self._warehouse, table, kept, scratch, sorted(chosen), self._limits.most_bytes)
        return [replace(each, kind="export") for each in found]

    def _counts(self, table: Backed, kept: TableBackup, scratch: str) -> list[Difference]:
        """Partitions with another number of rows than recorded."""
        infos = self._tables.partitions(table, scratch)
        return [
            Difference(table=table.id, kind="rows", partition=name, recorded_rows=recorded, found_rows=found)
            for name in sorted({*infos, *kept.partitions} - set(kept.unchecked))
            if (recorded := _rows(kept.partitions.get(name))) != (found := infos[name].rows if name in infos else 0)
        ]

    def _chosen(self, kept: TableBackup, low: str) -> tuple[list[str], str]:
        """The partitions whose checksum is compared, within what is left to read; and where the next drill begins."""
        names = sorted(kept.partitions)
        newest = names[-_NEWEST:][::-1]
        older = names[:-_NEWEST]
        turn = [name for name in older if name >= low] + [name for name in older if name < low]
        chosen: list[str] = []
        for name in (*newest, *turn):
            reads = int(kept.partitions[name].rows * kept.row_bytes)
            if reads > self._left:
                return chosen, name if name in older else low
            self._left -= reads
            chosen.append(name)
        return chosen, ""

    def _named(
        self, table: Backed, kept: TableBackup, backup: Backup, scratch: str, difference: Difference
    ) -> Difference:
        """With the rows that differ from those of the table at the backup's moment, while BigQuery still knows it."""
        if not difference.partition or datetime.now(UTC) - backup.at > _TRAVEL - timedelta(hours=1):
            return difference
        was = checksums.Source(table.id, backup.at)
        try:
            rows = checksums.unlike(
                self._warehouse, table, checksums.Source(scratch), was, difference.partition, kept.columns,
                most=_NAMED, most_bytes=self._limits.most_bytes,
            )  # fmt: skip
        except WarehouseError as error:
            self._notes.append(f"{table.id} {difference.partition}: its rows are not named: {error}")
            return difference
        return replace(difference, keys=tuple(_text(row) for row in rows))


def _rows(partition: Partition | None) -> int:
    return partition.rows if partition else 0


def _text(row: Row) -> str:
    return f"{row['key']} {row['what']}"
