"""Restores one table of a backup, from its snapshot or its export, and compares it with what was recorded.

What takes the place of a table is restored beside it and compared first: only what is as recorded replaces anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from contract import tables as contract
from contract.watched import WatchedTables
from support.backup import checksums, places
from support.backup.create import QUERY_SECONDS, Limits, Progress
from support.backup.records import Backed, Backup, BackupError, Difference, Sum, TableBackup, backed, is_table
from support.backup.store import Backups
from support.backup.tables import Held, Tables
from support.connection import Connection
from support.erasure.restored import redact
from support.warehouse import Warehouse
from support.who import who

Source = Literal["snapshot", "export"]
_STREAM_KEEPS: Final = timedelta(days=7)


@dataclass(kw_only=True)
class Restored:
    """What a restore did. `partitions` of `of` were compared by checksum, all by their rows. `next_steps` is what is
    left to do."""

    backup: str
    at: datetime
    table: str
    into: str
    source: Source
    rows: int
    partitions: int
    of: int
    bytes_read: int
    differences: list[Difference] = field(default_factory=list)
    next_steps: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def restore(
    connection: Connection,
    table: str,
    *,
    backup_id: str | None = None,
    into: str = "",
    source: Source = "snapshot",
    exports: str = "",
    replace: bool = False,
    reason: str = "",
    limits: Limits | None = None,
    progress: Progress = lambda _: None,
) -> Restored:
    """Restores `dataset.name` into a table that is not there yet; by default one of the scratch dataset.

    `exports`: the backup is read from there alone, as from the copy in a second region; no record is needed. A table
    that is there is written over with `replace` and a `reason`, which is kept. Raises BackupError, WarehouseError.
    """
    store = Backups(connection)
    if exports:
        if not backup_id:
            raise BackupError("name the backup whose exports are there: they have no list beside them.")
        backup, source = places.read_manifest(exports, backup_id), "export"
    else:
        backup = store.get(backup_id)
    kept = backup.table(table)
    into = into or f"{connection.watched.restored_dataset}.{table.replace('.', '__')}__{backup.id}"
    if not is_table(into):
        raise BackupError(f"--into must be dataset.table, got {into!r}.")
    run = _Run(connection, limits or Limits.of(connection), progress, exports or connection.backup_directory)
    run.check(into, replace=replace, reason=reason)
    restored = run.restore(backup, kept, into, source)
    if run.replaced:
        line = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {into} was replaced from it by {who(connection)}: {reason}"
        store.note(backup, line)
    return restored


class _Run:
    def __init__(self, connection: Connection, limits: Limits, progress: Progress, exports: str) -> None:
        self._connection, self._limits, self._progress, self._exports = connection, limits, progress, exports
        self._warehouse = Warehouse(connection, seconds=QUERY_SECONDS)
        self._tables = Tables(connection, self._warehouse)
        self.replaced = False

    def check(self, into: str, *, replace: bool, reason: str) -> None:
        """Refuses to write over a table by mistake."""
        there = self._tables.get(into) is not None
        if there and not replace:
            raise BackupError(
                f"{into} is there already: nothing was written. Choose another --into, or --replace with a --reason."
            )
        if replace and not reason.strip():
            raise BackupError("--replace needs a --reason: it is kept with the backup.")
        self.replaced = there

    def restore(self, backup: Backup, kept: TableBackup, into: str, source: Source) -> Restored:
        table = self._table(kept)
        scratch = self._connection.watched.restored_dataset
        first = f"{scratch}.{into.replace('.', '__')}__before" if self.replaced else into
        if self.replaced:
            # Of a try that was killed.
            self._tables.drop(first)
        held = self._from(kept, first, source)
        done = Restored(
            backup=backup.id,
            at=backup.at,
            table=kept.table,
            into=into,
            source=source,
            rows=held.rows,
            partitions=0,
            of=len(kept.partitions) + len(kept.unchecked),
            bytes_read=0,
        )
        self._compare(table, kept, first, held, done)
        if not done.differences and (erased := redact(self._connection, self._warehouse, kept.table, first, backup.at)):
            self._progress(f"{erased:,} customers and payments that were erased since are redacted in {first}")
        done.bytes_read = self._warehouse.bytes_read
        if self.replaced:
            if done.differences:
                lines = "\n".join(f"  {each}" for each in done.differences)
                raise BackupError(
                    f"{into} is as it was: what was restored beside it as {first} is not what was recorded.\n{lines}\n"
                    "Try an older backup."
                )
            self._progress(f"replacing {into}")
            self._tables.replace(first, into)
            self._tables.drop(first)
        done.next_steps = next_steps(self._connection.watched, kept.table, into, backup.at - self._limits.settles)
        return done

    def _table(self, kept: TableBackup) -> Backed:
        for table in backed(self._connection.watched):
            if table.id == kept.table:
                return table
        raise BackupError(f"{kept.table} is watched no longer, so nothing is known of its partitions. Use `bq cp`.")

    def _from(self, kept: TableBackup, target: str, source: Source) -> Held:
        if source == "snapshot":
            self._progress(f"restoring {kept.snapshot} into {target}")
            return self._tables.restore(kept.snapshot, target)
        if not self._exports:
            raise BackupError("the stack has no exports: its connection names no backupDirectory. Use the snapshot.")
        lacking = [name for name, each in kept.partitions.items() if each.rows and not each.export]
        if lacking or kept.unchecked:
            raise BackupError(
                f"{len(lacking) + len(kept.unchecked):,} partitions of {kept.table} are not exported yet: an export "
                "of all of them is not there. Use the snapshot, or an older backup."
            )
        self._progress(f"loading the export of {kept.table} into {target}")
        return self._tables.load([f"{self._exports}/{folder}" for folder in kept.exports], kept.layout, target)

    def _compare(self, table: Backed, kept: TableBackup, target: str, held: Held, done: Restored) -> None:
        if held.rows != kept.rows:
            done.differences.append(
                Difference(table=kept.table, kind="rows", recorded_rows=kept.rows, found_rows=held.rows)
            )
        left, chosen = self._limits.most_bytes, []
        for name in sorted(kept.partitions, reverse=True):
            left -= int(kept.partitions[name].rows * kept.row_bytes)
            if left < 0:
                break
            chosen.append(name)
        done.partitions = len(chosen)
        self._progress(f"checksums of {len(chosen):,} partitions of {target}")
        done.differences += differences(self._warehouse, table, kept, target, chosen, self._limits.most_bytes)


def differences(
    warehouse: Warehouse, table: Backed, kept: TableBackup, target: str, names: Sequence[str], most_bytes: int
) -> list[Difference]:
    """The partitions of a restored table whose rows or checksum are not those recorded. Raises WarehouseError."""
    found: list[Difference] = []
    source = {"restored": checksums.Source(target)}
    for columns in sorted({kept.partitions[name].columns for name in names}):
        alike = [name for name in names if kept.partitions[name].columns == columns]
        made = checksums.compute(
            warehouse, table, source, alike, kept.columns[:columns], settled=datetime.now(UTC), most_bytes=most_bytes
        )["restored"]
        for name in alike:
            recorded, there = kept.partitions[name], made.get(name, checksums.NOTHING).all
            if not recorded.same(there):
                found.append(_difference(table.id, name, recorded.rows, there))
    return found


def _difference(table: str, partition: str, recorded: int, there: Sum) -> Difference:
    return Difference(
        table=table,
        kind="altered" if there.rows == recorded else "rows",
        partition=partition,
        recorded_rows=recorded,
        found_rows=there.rows,
    )


def next_steps(watched: WatchedTables, table: str, into: str, complete: datetime) -> list[str]:
    """What is left to do after a restore: rows that arrived after `complete` are not in it."""
    changelogs = {each.id for each in watched.tables}
    steps = []
    if into != table:
        steps.append(f"It is beside {table}, which is as it was. Drop {into} when it was looked at.")
    if table not in changelogs:
        return [*steps, f"Rows that were appended after {complete:%Y-%m-%d %H:%M:%S} UTC are not in it."]
    since = f"{complete:%Y-%m-%dT%H:%M:%SZ}"
    if into == table:
        steps += [
            f"Changes that arrived after {since} are not in it. `audit validate --since {since} --repair` finds those "
            f"that the change streams still have ({_STREAM_KEEPS.days} days) and has the job read them again; it can "
            "be run as often as needed.",
            "`audit validate --all --repair` then replays payments whose state is wrong; changes in between that the "
            "streams no longer have stay missing, and it records them.",
        ]
    if into == table and table == watched.payments.id:
        progress = contract.merge_progress(watched).id
        steps.append(
            "payment_state and payment_lookup are right where they are still there. Where they are lost, empty them "
            f"and merge from the start: `UPDATE {progress} SET merged_until = NULL, filled_until = NULL, filled_at = "
            "CURRENT_TIMESTAMP() WHERE TRUE`; the next scheduled merge and fill read the whole changelog once."
        )
    return steps
