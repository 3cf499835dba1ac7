"""Where backups are recorded: the table `backups` of the metadata database. Which moment one is of is decided there."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from contract.schema import SUBMITTER_ROLE
from support.backup.records import Backup, BackupError, Drill, drill_from
from support.connection import Connection
from support.metadata import metadata_database
from support.plain import plain

_COLUMNS: Final = ("BackupId", "ReadTimestamp", "ExpiresAt", "CreatedAt", "Content", "DrilledAt", "Drill")


class Health(NamedTuple):
    """What the probe writes of backups. Times are None where there is none; `failed` is of the last drill."""

    newest_good: datetime | None
    drilled_at: datetime | None
    failed: bool


class Backups:
    """The records of one stack's backups. Who only reads them, as the console does, is no more than that role."""

    def __init__(self, connection: Connection, *, reads: bool = False) -> None:
        self._job = connection.job_name
        self._database = metadata_database(connection, SUBMITTER_ROLE if reads and connection.replay_job else "")

    def begin(self, wanted: Backup) -> Backup:
        """Records a backup that begins. Where its id is known, what is recorded: two that begin it at once, or one
        that was killed and its successor, are of one moment."""
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP, KeySet

        def work(transaction: Any) -> Backup:
            keys = KeySet(keys=[[self._job, wanted.id]])
            for row in transaction.read("backups", _COLUMNS, keys):
                return _backup(row)
            columns = ("JobName", "BackupId", "ReadTimestamp", "ExpiresAt", "UpdatedAt")
            values = (self._job, wanted.id, wanted.at, wanted.expires_at, COMMIT_TIMESTAMP)
            transaction.insert("backups", columns, [values])
            return wanted

        found: Backup = self._database.run_in_transaction(work)
        return found

    def finish(self, backup: Backup) -> None:
        """Records what a backup holds."""
        content = backup.to_dict() | {"drill": None}
        self._update(
            backup.id,
            CreatedAt=backup.created_at,
            Good=backup.good,
            Content=json.dumps(content, default=plain),
        )

    def note(self, backup: Backup, text: str) -> None:
        """Adds a line to what is recorded of a backup."""
        self.finish(replace(backup, notes=(*backup.notes, text)))

    def drilled(self, backup: Backup, drill: Drill) -> Backup:
        """Records a drill of a backup; the backup with it."""
        text = json.dumps(asdict(drill), default=plain)
        self._update(backup.id, DrilledAt=drill.at, DrillPassed=drill.passed, Drill=text)
        return replace(backup, drill=drill)

    def forget(self, backup: Backup) -> None:
        from google.cloud.spanner_v1 import KeySet

        with self._database.batch() as batch:
            batch.delete("backups", KeySet(keys=[[self._job, backup.id]]))

    def all(self) -> list[Backup]:
        """Every recorded backup, the newest first."""
        from google.cloud.spanner_v1 import KeyRange, KeySet

        every = KeySet(ranges=[KeyRange(start_closed=[self._job], end_closed=[self._job])])
        with self._database.snapshot() as snapshot:
            rows = list(snapshot.read("backups", _COLUMNS, every))
        return sorted((_backup(row) for row in rows), key=lambda backup: (backup.at, backup.id), reverse=True)

    def get(self, backup_id: str | None = None) -> Backup:
        """A backup that is whole, by default the newest good one. Raises BackupError."""
        found = [each for each in self.all() if each.created_at]
        if backup_id is None:
            found = [each for each in found if each.good]
        for backup in found:
            if backup_id in (None, backup.id):
                return backup
        what = f"no backup {backup_id}" if backup_id else "no good backup"
        raise BackupError(f"there is {what}. See `audit backup list`; make one with `audit backup create`.")

    def health(self) -> Health:
        """The newest good backup and the last drill; reads no content."""
        from google.cloud.spanner_v1 import KeyRange, KeySet

        every = KeySet(ranges=[KeyRange(start_closed=[self._job], end_closed=[self._job])])
        columns = ("ReadTimestamp", "Good", "DrilledAt", "DrillPassed")
        with self._database.snapshot() as snapshot:
            rows = list(snapshot.read("backups", columns, every))
        # One that a drill found altered does not count.
        good = [_plain(row[0]) for row in rows if row[1] and row[3] is not False]
        drills = sorted((_plain(row[2]), bool(row[3])) for row in rows if row[2])
        at, passed = drills[-1] if drills else (None, True)
        return Health(max(good, default=None), at, not passed)

    def _update(self, backup_id: str, **values: Any) -> None:
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP

        known = {"JobName": self._job, "BackupId": backup_id, **values, "UpdatedAt": COMMIT_TIMESTAMP}
        with self._database.batch() as batch:
            batch.update("backups", tuple(known), [tuple(known.values())])


def _backup(row: list[Any]) -> Backup:
    backup_id, at, expires_at, created_at, content, drilled_at, drill = row
    if created_at is None:
        return Backup(id=backup_id, at=_plain(at), expires_at=_plain(expires_at))
    known = Backup.from_dict(json.loads(content))
    return replace(known, drill=drill_from(json.loads(drill)) if drilled_at else None)


def _plain(moment: datetime) -> datetime:
    """A datetime of Python's own in place of the client library's."""
    known = moment.astimezone(UTC)
    return datetime(known.year, known.month, known.day, known.hour, known.minute, known.second, known.microsecond, UTC)
