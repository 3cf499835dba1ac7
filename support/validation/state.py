"""What validation knows between two runs: how far it has compared, and what is wrong and not repaired yet.

It is in the metadata database. A run claims it first: of two at once the second waits or is refused.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contract.errors import AuditError
from support.connection import Connection
from support.metadata import metadata_database
from support.validation.findings import Finding

# A run that was killed holds others up for so long; one that runs renews its claim.
_CLAIMED: Final = timedelta(seconds=120)
_RENEWED_SECONDS: Final = 20.0


class Busy(AuditError):
    """Another validation of the stack runs."""


@dataclass
class State:
    """`until`: changes before are compared. `lows`: by table, where the next part begins. `cards` counts card numbers
    found in columns; `seen_cards` are those that were counted already."""

    until: datetime | None = None
    lows: dict[str, str | None] = field(default_factory=dict)
    parts_at: datetime | None = None
    cards: int = 0
    seen_cards: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    runs: int = 0
    at: datetime | None = None

    @property
    def mismatches(self) -> int:
        return sum(finding.is_open for finding in self.findings)


class States:
    """The table `validations`, and the job's position in `jobs`."""

    def __init__(self, connection: Connection) -> None:
        self._job = connection.job_name
        self._database = metadata_database(connection)

    def position(self) -> datetime | None:
        """Every change committed before is in BigQuery or a dead letter. None: the job has not begun."""
        [[position]] = self._read("jobs", ("ResumePosition",)) or [[None]]
        return None if position is None else _plain(position)

    def load(self) -> State:
        """The state as the last run left it."""
        rows = self._read("validations", ("State",))
        return _state(rows[0][0]) if rows else State()

    def claim(self, run: str, now: datetime) -> State:
        """The state, for this run alone. Raises Busy."""
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP, KeySet

        def work(transaction: Any) -> str:
            keys = KeySet(keys=[[self._job]])
            rows = list(transaction.read("validations", ("ClaimedUntil", "State"), keys))
            if rows and rows[0][0] is not None and _plain(rows[0][0]) > now:
                raise Busy(
                    "one validation of a stack runs at a time, and another one does. Wait for its end; one that was "
                    f"killed holds others up for {_CLAIMED.seconds} seconds."
                )
            text = rows[0][1] if rows else _text(State())
            columns = ("JobName", "Run", "ClaimedUntil", "State", "UpdatedAt")
            values = (self._job, run, now + _CLAIMED, text, COMMIT_TIMESTAMP)
            transaction.insert_or_update("validations", columns, [values])
            return str(text)

        return _state(self._database.run_in_transaction(work))

    @contextmanager
    def renewed(self, run: str) -> Iterator[None]:
        """Renews the claim of a run meanwhile. Where that fails for too long, its release says so."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(_RENEWED_SECONDS):
                with suppress(Exception):
                    self._renew(run, datetime.now(UTC) + _CLAIMED)

        thread = threading.Thread(target=renew, name="claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _renew(self, run: str, until: datetime) -> None:
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP

        def work(transaction: Any) -> None:
            if self._claimed_by(transaction) == run:
                values = {"JobName": self._job, "ClaimedUntil": until, "UpdatedAt": COMMIT_TIMESTAMP}
                transaction.update("validations", tuple(values), [tuple(values.values())])

        self._database.run_in_transaction(work)

    def _claimed_by(self, transaction: Any) -> str | None:
        from google.cloud.spanner_v1 import KeySet

        rows = list(transaction.read("validations", ("Run",), KeySet(keys=[[self._job]])))
        return str(rows[0][0]) if rows else None

    def release(self, run: str, state: State | None) -> None:
        """Ends the claim of a run, and keeps the state that it came to; None: as it was."""
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP

        def work(transaction: Any) -> None:
            if self._claimed_by(transaction) != run:
                raise Busy("the claim of this validation was over before its end, and another run has begun.")
            values: dict[str, Any] = {"JobName": self._job, "ClaimedUntil": None, "UpdatedAt": COMMIT_TIMESTAMP}
            values |= {"State": _text(state)} if state else {}
            transaction.update("validations", tuple(values), [tuple(values.values())])

        self._database.run_in_transaction(work)

    def _read(self, table: str, columns: Sequence[str]) -> list[Any]:
        from google.cloud.spanner_v1 import KeySet

        with self._database.snapshot() as snapshot:
            return list(snapshot.read(table, columns, KeySet(keys=[[self._job]])))


def _text(state: State) -> str:
    return json.dumps(asdict(state), default=lambda moment: moment.isoformat())


def _state(text: str) -> State:
    known = json.loads(text)
    for name in ("until", "parts_at", "at"):
        known[name] = datetime.fromisoformat(known[name]) if known[name] else None
    return State(**known | {"findings": [Finding.from_dict(each) for each in known["findings"]]})


def _plain(moment: datetime) -> datetime:
    """A datetime of Python's own in place of the client library's."""
    return datetime.fromtimestamp(0, UTC) + (moment - datetime.fromtimestamp(0, UTC)) // timedelta(
        microseconds=1
    ) * timedelta(microseconds=1)
