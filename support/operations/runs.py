"""Runs of the operations: what the last one of each came to, as `audit health`, `audit local status` and probe read it.

A command that runs as an operation is recorded round its work; a person's run of the same command is not.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from contract.errors import AuditError
from contract.operations import BACKUP_DRILL, DEAD_LETTERS, OPERATIONS, REPAIR, SCHEDULED, VALIDATION, cron_of
from contract.schema import SUBMITTER_ROLE
from support.connection import Connection
from support.metadata import metadata_database
from support.operations.store import plain_time

Outcome = Literal["done", "found", "failed"]

# Exit code 1 of these is what they look for, and another alert says it. Of the others it is a failure.
_FINDERS: Final = frozenset({VALIDATION.name, REPAIR.name, BACKUP_DRILL.name, DEAD_LETTERS.name})
_LONGEST_SUMMARY: Final = 1024
_COLUMNS: Final = (
    "Operation", "KnownSince", "StartedAt", "EndedAt", "Outcome", "Summary", "StartedBy", "SucceededAt", "Failures",
)  # fmt: skip


class OperationError(AuditError):
    """There is no such operation; the message names those that exist."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class LastRun:
    """The last run of an operation. `outcome` is None while it runs, or after it was killed; `failures` in a row."""

    operation: str
    known_since: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    summary: str = ""
    started_by: str = ""
    succeeded_at: datetime | None = None
    failures: int = 0


class Runs:
    """The table `operations` of one stack. Who only reads it, as `audit health` does, is no more than that role."""

    def __init__(self, connection: Connection, *, reads: bool = False) -> None:
        self._job = connection.job_name
        self._database = metadata_database(connection, SUBMITTER_ROLE if reads and connection.replay_job else "")

    def last(self) -> list[LastRun]:
        """The last run of each operation that is known, by name."""
        from google.cloud.spanner_v1 import KeyRange, KeySet

        every = KeySet(ranges=[KeyRange(start_closed=[self._job], end_closed=[self._job])])
        with self._database.snapshot() as snapshot:
            return [_last(row) for row in snapshot.read("operations", _COLUMNS, every)]

    def expected(self, now: datetime) -> list[LastRun]:
        """As `last`; each scheduled operation that is not known yet is expected to run from now on."""
        found = self.last()
        new = [each.name for each in SCHEDULED if each.name not in {run.operation for run in found}]
        if new:
            with self._database.batch() as batch:
                for name in new:
                    self._write(batch, name, KnownSince=now, Failures=0)
        return [*found, *(LastRun(operation=name, known_since=now) for name in new)]

    def begin(self, operation: str, who: str, now: datetime) -> str:
        """Records the start of a run; its id."""
        run = uuid.uuid4().hex

        def work(transaction: Any) -> None:
            known = self._known(transaction, operation)
            began = {
                "RunId": run,
                "StartedAt": now,
                "StartedBy": who,
                "EndedAt": None,
                "Outcome": None,
                "Summary": None,
            }
            kept = {"KnownSince": known["KnownSince"] or now, "Failures": known["Failures"] or 0}
            self._write(transaction, operation, **began, **kept)

        self._database.run_in_transaction(work)
        return run

    def end(self, operation: str, run: str, outcome: Outcome, summary: str, now: datetime) -> None:
        """Records its end. Where another run has begun meanwhile, that one's record stays: only the success is kept."""

        def work(transaction: Any) -> None:
            known = self._known(transaction, operation)
            values: dict[str, Any] = {"KnownSince": known["KnownSince"] or now}
            values["Failures"] = (known["Failures"] or 0) + 1 if outcome == "failed" else 0
            if known["RunId"] == run:
                values |= {"EndedAt": now, "Outcome": outcome, "Summary": summary[:_LONGEST_SUMMARY]}
            if outcome != "failed":
                values["SucceededAt"] = now
            self._write(transaction, operation, **values)

        self._database.run_in_transaction(work)

    def _known(self, transaction: Any, operation: str) -> Mapping[str, Any]:
        from google.cloud.spanner_v1 import KeySet

        columns = ("KnownSince", "Failures", "RunId")
        rows = list(transaction.read("operations", columns, KeySet(keys=[[self._job, operation]])))
        return dict(zip(columns, rows[0] if rows else (None, None, None), strict=True))

    def _write(self, to: Any, operation: str, **values: Any) -> None:
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP

        row = {"JobName": self._job, "Operation": operation, **values, "UpdatedAt": COMMIT_TIMESTAMP}
        to.insert_or_update("operations", tuple(row), [tuple(row.values())])


@dataclass
class Recorder:
    """Records one run of an operation. What cannot be recorded is said to `warn`, and keeps no work from being done."""

    connection: Connection
    operation: str
    who: Callable[[Connection], str]
    warn: Callable[[str], None]

    def __post_init__(self) -> None:
        if self.operation not in (names := [each.name for each in OPERATIONS]):
            raise OperationError(f"an operation must be one of {', '.join(names)}, got {self.operation!r}.")

    def begin(self) -> None:
        self._run = ""
        self._guarded(lambda: setattr(self, "_run", self._runs().begin(self.operation, self._name(), _now())))

    def end(self, code: int, summary: str) -> None:
        """By its exit code: 0 done, 1 found or failed, all else failed."""
        self._guarded(
            lambda: self._runs().end(self.operation, self._run, outcome_of(self.operation, code), summary, _now())
        )

    def _name(self) -> str:
        return self.who(self.connection)[:256]

    def _runs(self) -> Runs:
        return Runs(self.connection)

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            # Without a record of it the probe says that it is overdue.
            self.warn(f"This run of {self.operation} is not recorded ({type(error).__name__}).")


def outcome_of(operation: str, code: int) -> Outcome:
    """What an exit code means for an operation."""
    if code == 0:
        return "done"
    return "found" if code == 1 and operation in _FINDERS else "failed"


def failed(runs: Sequence[LastRun]) -> dict[str, bool]:
    """By operation, whether the last run that ended failed."""
    return {run.operation: run.failures > 0 for run in runs}


def missed(runs: Sequence[LastRun], now: datetime, pipeline_owner: str) -> dict[str, float]:
    """By scheduled operation, the time since it last did its work, in times its interval in this stack."""
    known = {run.operation: run.succeeded_at or run.known_since for run in runs}
    return {
        each.name: max(0.0, (now - known[each.name]).total_seconds()) / interval_seconds(cron_of(each, pipeline_owner))
        for each in SCHEDULED
        if each.name in known
    }


def interval_seconds(cron: str) -> int:
    """Seconds between two runs of a schedule, of the forms that contract/operations.py has."""
    minute, hour, _, _, weekday = cron.split()
    if minute.startswith("*/"):
        return int(minute[2:]) * 60
    if hour == "*":
        return 3600
    return 24 * 3600 * (7 if weekday != "*" else 1)


def _now() -> datetime:
    return datetime.now(UTC)


def _last(row: Sequence[Any]) -> LastRun:
    operation, known, started, ended, outcome, summary, who, succeeded, failures = row
    return LastRun(
        operation=operation,
        known_since=plain_time(known) or datetime.fromtimestamp(0, UTC),
        started_at=plain_time(started),
        ended_at=plain_time(ended),
        outcome=outcome,
        summary=summary or "",
        started_by=who or "",
        succeeded_at=plain_time(succeeded),
        failures=failures,
    )
