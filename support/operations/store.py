"""What the metadata database has of the job's launches and of the tables that were made."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from support.connection import Connection
from support.metadata import metadata_database
from support.operations.keeping import Launches

_COLUMNS: Final = ("Attempts", "LaunchedAt", "LaunchedId", "LockedBy", "LockedUntil", "DrainedBy", "DrainedAt")


class LaunchStore:
    """The row of one job in `pipeline_runs`. Whoever launches or replaces the job takes its lock first."""

    def __init__(self, connection: Connection) -> None:
        self._job = connection.job_name
        self._database = metadata_database(connection)

    def load(self) -> Launches:
        from google.cloud.spanner_v1 import KeySet

        with self._database.snapshot() as snapshot:
            rows = list(snapshot.read("pipeline_runs", _COLUMNS, KeySet(keys=[[self._job]])))
        return _launches(rows)

    def lock(self, who: str, now: datetime, length: timedelta) -> Launches | None:
        """Takes the lock, or extends that of `who`: what is recorded then. None where somebody else has it."""

        def work(transaction: Any) -> Launches | None:
            known = self._read(transaction)
            if known.locked(now, who):
                return None
            self._write(transaction, known, LockedBy=who, LockedUntil=now + length)
            return known

        found: Launches | None = self._database.run_in_transaction(work)
        return found

    def unlock(self, who: str) -> None:
        """Gives the lock of `who` back; that of somebody else stays."""

        def work(transaction: Any) -> None:
            known = self._read(transaction)
            if known.locked_by == who:
                self._write(transaction, known, LockedBy=None, LockedUntil=None)

        self._database.run_in_transaction(work)

    def launching(self, now: datetime) -> int:
        """Counts a launch before it is requested: one that is killed half-way is counted too. Says which it is."""

        def work(transaction: Any) -> int:
            known = self._read(transaction)
            self._write(transaction, known, Attempts=known.attempts + 1, LaunchedAt=now, LaunchedId=None)
            return known.attempts + 1

        found: int = self._database.run_in_transaction(work)
        return found

    def launched(self, job_id: str) -> None:
        self._note(LaunchedId=job_id)

    def runs_well(self) -> None:
        """What failed before counts no more."""
        self._note(Attempts=0)

    def drained(self, who: str, now: datetime) -> None:
        """Keeps everybody from launching it."""
        self._note(DrainedBy=who, DrainedAt=now)

    def resume(self) -> None:
        """Lets it be launched again, as if no launch had failed."""
        self._note(DrainedBy=None, DrainedAt=None, Attempts=0, LaunchedAt=None)

    def _note(self, **values: Any) -> None:
        self._database.run_in_transaction(
            lambda transaction: self._write(transaction, self._read(transaction), **values)
        )

    def _read(self, transaction: Any) -> Launches:
        from google.cloud.spanner_v1 import KeySet

        return _launches(list(transaction.read("pipeline_runs", _COLUMNS, KeySet(keys=[[self._job]]))))

    def _write(self, transaction: Any, known: Launches, **values: Any) -> None:
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP

        row = {"JobName": self._job, "Attempts": known.attempts, **values, "UpdatedAt": COMMIT_TIMESTAMP}
        transaction.insert_or_update("pipeline_runs", tuple(row), [tuple(row.values())])


class MadeTables:
    """The tables of one stack that were there once."""

    def __init__(self, connection: Connection) -> None:
        self._job = connection.job_name
        self._database = metadata_database(connection)

    def all(self) -> frozenset[str]:
        from google.cloud.spanner_v1 import KeyRange, KeySet

        every = KeySet(ranges=[KeyRange(start_closed=[self._job], end_closed=[self._job])])
        with self._database.snapshot() as snapshot:
            return frozenset(row[0] for row in snapshot.read("tables_made", ("TableId",), every))

    def add(self, tables: Collection[str]) -> None:
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP

        if tables:
            rows = [(self._job, table, COMMIT_TIMESTAMP) for table in sorted(tables)]
            with self._database.batch() as batch:
                batch.insert_or_update("tables_made", ("JobName", "TableId", "SeenAt"), rows)


def _launches(rows: list[list[Any]]) -> Launches:
    if not rows:
        return Launches()
    attempts, launched_at, launched_id, locked_by, locked_until, drained_by, drained_at = rows[0]
    return Launches(
        attempts=attempts,
        launched_at=plain_time(launched_at),
        launched_id=launched_id or "",
        locked_by=locked_by or "",
        locked_until=plain_time(locked_until),
        drained_by=drained_by or "",
        drained_at=plain_time(drained_at),
    )


def plain_time(moment: datetime | None) -> datetime | None:
    """A datetime of Python's own in place of the client library's."""
    if moment is None:
        return None
    at = moment.astimezone(UTC)
    return datetime(at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, UTC)
