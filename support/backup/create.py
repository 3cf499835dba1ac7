"""Makes a backup: a snapshot of each table as it was at one moment, checksums of what changed, and exports of that.

A snapshot is of the whole table and reads nothing. Checksums and exports read the partitions that changed since the
last backup, the newest first, until the run's limit of bytes is reached; what is left, a later run takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from support.backup import checksums
from support.backup.places import EXPORTS, mirror, prune, write_manifest
from support.backup.records import Backed, Backup, BackupError, Partition, TableBackup, backed, is_id
from support.backup.store import Backups
from support.backup.tables import Held, PartitionInfo, Tables
from support.connection import Connection
from support.warehouse import Warehouse

Progress = Callable[[str], None]
_TIB: Final = 2**40
QUERY_SECONDS: Final = 3600.0
# BigQuery reads a table as it was up to seven days ago.
_TRAVEL: Final = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`most_bytes`: what a run may read; a usual day of 500 changes a second takes a quarter of it. `settles`: rows
    that arrived so shortly before are left out of the comparison with the table: a snapshot has no row that is in
    BigQuery's write-optimised storage, where rows can stay for 90 minutes."""

    most_bytes: int = _TIB
    settles: timedelta = timedelta(hours=2)

    @classmethod
    def of(cls, connection: Connection) -> Limits:
        """Of a stack: an emulator has one storage."""
        return cls(settles=timedelta(0)) if connection.local else cls()


def create(
    connection: Connection,
    *,
    backup_id: str | None = None,
    limits: Limits | None = None,
    progress: Progress = lambda _: None,
) -> Backup:
    """Makes the day's backup, or the one with an id; one that is whole already is not made again.

    Raises BackupError, WarehouseError.
    """
    now = datetime.now(UTC)
    if backup_id and not is_id(backup_id):
        raise BackupError(f"a backup's id must match [A-Za-z0-9_-]{{1,40}}, got {backup_id!r}. Choose another --id.")
    return _Run(connection, limits or Limits.of(connection), progress).create(backup_id or "", now)


class _Run:
    """One run that makes a backup."""

    def __init__(self, connection: Connection, limits: Limits, progress: Progress) -> None:
        self._connection, self._limits, self._progress = connection, limits, progress
        self._store = Backups(connection)
        self._warehouse = Warehouse(connection, seconds=QUERY_SECONDS)
        self._tables = Tables(connection, self._warehouse)
        self._left = limits.most_bytes
        self._altered: set[str] = set()
        self._problems: list[str] = []
        self._notes: list[str] = []

    def create(self, backup_id: str, now: datetime) -> Backup:
        known = self._store.all()
        backup_id = backup_id or _of_the_day(now, known)
        # A snapshot is of a whole millisecond.
        at = now.replace(microsecond=now.microsecond // 1000 * 1000)
        expires = at + timedelta(days=int(self._connection.backup_days or 35))
        backup = self._store.begin(Backup(id=backup_id, at=at, expires_at=expires))
        if backup.created_at:
            self._keep()
            return backup
        if now - backup.at > _TRAVEL - timedelta(hours=1):
            raise BackupError(
                f"backup {backup_id} began at {backup.at:%Y-%m-%d %H:%M} UTC and was never finished; BigQuery knows "
                "its moment no longer. Delete it with `audit backup delete`, and make another one."
            )
        before = next((each for each in known if each.good and each.id != backup_id), None)
        self._altered = _altered_exports(known)
        made = tuple(self._table(table, backup, before) for table in backed(self._connection.watched))
        done = replace(
            backup,
            created_at=datetime.now(UTC),
            tables=made,
            bytes_read=self._warehouse.bytes_read,
            problems=tuple(self._problems),
            notes=tuple(self._notes),
        )
        if self._connection.backup_directory:
            write_manifest(self._connection, done)
        self._store.finish(done)
        self._keep()
        return done

    def _keep(self) -> None:
        """Copies to the second region, and deletes what no backup holds any more."""
        if copied := mirror(self._connection):
            self._progress(f"{copied:,} files copied to {self._connection.backup_copy_directory}")
        if gone := prune(self._connection):
            self._progress(f"{gone:,} files deleted that no backup holds any more")

    def _table(self, table: Backed, backup: Backup, before: Backup | None) -> TableBackup:
        snapshot = snapshot_name(self._connection.watched.backups_dataset, table.id, backup.id)
        self._progress(f"snapshot {snapshot}")
        # What changed is asked before the snapshot is made: a change between the two is checked once more.
        infos = self._tables.partitions(table, table.id)
        held = self._tables.snapshot(table.id, snapshot, backup.at, backup.expires_at)
        old = next((each for each in before.tables if each.table == table.id), None) if before else None
        columns = [field["name"] for field in held.layout["schema"]["fields"]]
        kept, due = _changed(infos, old, before, columns)
        checked, unchecked = self._affordable(due, infos, held)
        partitions = kept | self._checked(table, snapshot, backup.at, checked, columns)
        row_bytes = held.bytes / held.rows if held.rows else 0
        partitions = self._exported(table, snapshot, backup.id, partitions, row_bytes)
        if unchecked:
            self._notes.append(
                f"{table.id}: {len(unchecked):,} partitions wait for their checksum, since a run reads "
                f"{self._limits.most_bytes:,} bytes at most. The next one continues; --most-bytes is another limit."
            )
        return TableBackup(
            table=table.id,
            snapshot=snapshot,
            made_at=held.made_at,
            rows=held.rows,
            bytes=held.bytes,
            layout=held.layout,
            partitions=dict(sorted(partitions.items())),
            unchecked=tuple(sorted(unchecked)),
        )

    def _affordable(
        self, due: list[str], infos: Mapping[str, PartitionInfo], held: Held
    ) -> tuple[list[str], list[str]]:
        """The newest partitions that can be read on both sides within what is left, and those that wait."""
        row_bytes = held.bytes / held.rows if held.rows else 0
        taken: list[str] = []
        for name in sorted(due, reverse=True):
            reads = int(2 * infos[name].rows * row_bytes)
            if reads > self._left:
                break
            self._left -= reads
            taken.append(name)
        return taken, [name for name in due if name not in taken]

    def _exported(
        self, table: Backed, snapshot: str, backup_id: str, partitions: dict[str, Partition], row_bytes: float
    ) -> dict[str, Partition]:
        """Exports what is not exported yet, the newest first, within what is left to read."""
        directory = self._connection.backup_directory
        partitions = {
            name: replace(each, export="") if each.export in self._altered else each
            for name, each in partitions.items()
        }
        lacking = [name for name, each in sorted(partitions.items(), reverse=True) if each.rows and not each.export]
        made: dict[str, Partition] = {}
        for name in lacking if directory else ():
            reads = int(partitions[name].rows * row_bytes)
            if reads > self._left:
                self._notes.append(
                    f"{table.id}: {len(lacking) - len(made):,} partitions wait for their export, since a run reads "
                    f"{self._limits.most_bytes:,} bytes at most. The next one continues."
                )
                break
            self._left -= reads
            folder = _files_of(table.id, name, backup_id)
            self._progress(f"export of {table.id} {name}")
            self._tables.export(table, snapshot, name, f"{directory}/{folder}", self._limits.most_bytes)
            made[name] = replace(partitions[name], export=folder)
        return partitions | made

    def _checked(
        self, table: Backed, snapshot: str, at: datetime, names: list[str], columns: list[str]
    ) -> dict[str, Partition]:
        """The checksums of the snapshot's partitions, compared with those of the table at that moment."""
        sources = {"snapshot": checksums.Source(snapshot), "table": checksums.Source(table.id, at)}
        settled = at - self._limits.settles
        self._progress(f"checksums of {len(names):,} partitions of {table.id}")
        found = checksums.compute(
            self._warehouse, table, sources, names, columns, settled=settled, most_bytes=self._limits.most_bytes
        )
        made = found["snapshot"]
        for name in names:
            nothing = checksums.NOTHING
            ours, theirs = made.get(name, nothing), found["table"].get(name, nothing)
            if ours.settled != theirs.settled:
                self._problems.append(
                    f"{table.id} {name}: the snapshot has {ours.settled.rows:,} rows of those that had arrived by "
                    f"{settled:%Y-%m-%d %H:%M:%S} UTC, the table had {theirs.settled.rows:,}, or with other values."
                )
        return {
            name: Partition(rows=f.all.rows, checksum=f.all.checksum, columns=len(columns)) for name, f in made.items()
        }


def _files_of(table: str, partition: str, backup_id: str) -> str:
    """The folder of an export: of the backup that made it, so that no file is ever changed."""
    return f"{EXPORTS}{table}/{partition}/{backup_id}"


def _changed(
    infos: Mapping[str, PartitionInfo], old: TableBackup | None, before: Backup | None, columns: list[str]
) -> tuple[dict[str, Partition], list[str]]:
    """The partitions whose checksum is known from the backup before, and those that must be read."""
    kept: dict[str, Partition] = {}
    # Columns are only ever added, at the end.
    if old and before and list(old.columns) == columns[: len(old.columns)]:
        for name, info in infos.items():
            if name in old.partitions and info.changed_at is not None and info.changed_at <= before.at:
                kept[name] = old.partitions[name]
    return kept, [name for name in infos if name not in kept]


def _altered_exports(known: list[Backup]) -> set[str]:
    """Folders of exports that a drill found altered: they are written again."""
    return {
        backup.table(each.table).partitions[each.partition].export
        for backup in known
        for each in (backup.drill.differences if backup.drill else ())
        if each.kind == "export"
    }


def _of_the_day(now: datetime, known: list[Backup]) -> str:
    """The id of the day's backup: another one where what was made today is not good."""
    bad = {each.id for each in known if each.created_at and not each.good}
    ids = (f"{now:%Y%m%d}{f'-{number}' if number else ''}" for number in itertools.count())
    return next(each for each in ids if each not in bad)


def snapshot_name(dataset: str, table: str, backup_id: str) -> str:
    """Where the snapshot of a table is: `dataset.name`."""
    return f"{dataset}.{table.replace('.', '__')}__{backup_id}"
