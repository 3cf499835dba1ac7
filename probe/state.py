"""What the audit probe knows between two runs: running totals, how far it has looked, and what has not arrived yet.

All of it is in the metadata database and moves on in one transaction, so a run that was cut short never was, and a
run that was skipped is caught up. Of two probes at once the second to end is refused.
"""

from __future__ import annotations

import base64
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import orjson

from contract import timestamps
from contract.errors import AuditError
from contract.metrics import LATENCY_BUCKETS
from probe.committed import Commit


class ProbeError(AuditError):
    """The probe cannot measure; the message says why and the remedy."""


@dataclass
class Totals:
    """Counted since the probe's first run. Nothing in it is ever taken back, so an increase is always true.

    `latency` has a number for each of LATENCY_BUCKETS, and the last one for what took longer or has not arrived yet.
    Such a change counts there at once and moves to its own bucket once it has arrived: sums up to a bound only grow.
    """

    committed: int = 0
    queryable: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS) + 1))
    latency_seconds: float = 0.0
    dead_letters: int = 0
    cards_in_keys: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def late(self, changes: int) -> None:
        """Changes that are committed and have not arrived."""
        self.latency[-1] += changes

    def arrived(self, commit: Commit, micros: Iterable[int], *, waited: bool) -> None:
        """Changes of a commit that arrived, each at its time. `waited`: they were late so far."""
        for moment in micros:
            seconds = max(0.0, (moment - commit.micros) / 1e6)
            self.queryable += 1
            self.latency[bisect_left(LATENCY_BUCKETS, seconds)] += 1
            self.latency[-1] -= waited
            self.latency_seconds += seconds


@dataclass
class Waiting:
    """A commit that is not all in BigQuery: how many changes it made, how many arrived, how many are dead letters."""

    committed: int
    arrived: int = 0
    dead: int = 0

    @property
    def unaudited(self) -> int:
        """Those that are nowhere."""
        return max(0, self.committed - self.arrived - self.dead)

    @property
    def done(self) -> bool:
        return self.arrived >= self.committed


class Span(NamedTuple):
    """From a time on, to before another one."""

    start: datetime
    end: datetime


@dataclass
class WaitingWindow:
    """The commits of one window that wait."""

    span: Span
    commits: dict[Commit, Waiting]

    @property
    def changes(self) -> int:
        return sum(waiting.committed - waiting.arrived for waiting in self.commits.values())

    @property
    def oldest_unaudited(self) -> datetime | None:
        """The commit of the oldest change that is neither in BigQuery nor a dead letter."""
        found = min((commit.micros for commit, waiting in self.commits.items() if waiting.unaudited), default=None)
        return None if found is None else timestamps.to_datetime(timestamps.from_micros(found))

    def to_bytes(self) -> bytes:
        rows = [[*commit, w.committed, w.arrived, w.dead] for commit, w in sorted(self.commits.items())]
        return zlib.compress(orjson.dumps(rows))

    @classmethod
    def from_bytes(cls, span: Span, data: bytes) -> WaitingWindow:
        rows = orjson.loads(zlib.decompress(data))
        return cls(span, {Commit(table, micros): Waiting(*numbers) for table, micros, *numbers in rows})


Arrived = Mapping[Commit, Sequence[int]]


def open_window(
    span: Span, commits: Mapping[Commit, int], arrived: Arrived | None, dead: Mapping[Commit, int], totals: Totals
) -> WaitingWindow:
    """Counts a window that is looked at for the first time, and gives what of it waits. `arrived` None: no answer."""
    window = WaitingWindow(span, {})
    for commit, number in commits.items():
        there = sorted((arrived or {}).get(commit, ()))[:number]
        totals.committed += number
        totals.arrived(commit, there, waited=False)
        totals.late(number - len(there))
        if len(there) < number:
            window.commits[commit] = Waiting(number, len(there), dead.get(commit, 0))
    return window


def look_again(window: WaitingWindow, arrived: Arrived, dead: Mapping[Commit, int], totals: Totals) -> None:
    """Takes out of a window what has arrived by now, and what was a dead letter and is given up.

    A dead letter is taken away after its row was written, and dead letters are read before rows: one that is gone while
    its row is not there was discarded.
    """
    for commit, waiting in list(window.commits.items()):
        there = sorted(arrived.get(commit, ()))[: waiting.committed]
        new = there[waiting.arrived :]
        totals.arrived(commit, new, waited=True)
        gone = waiting.dead - dead.get(commit, 0)
        waiting.committed -= max(0, gone - len(new))
        waiting.arrived += len(new)
        waiting.dead = dead.get(commit, 0)
        if waiting.done:
            del window.commits[commit]


@dataclass
class ProbeState:
    """`streams` has the partition set of each change stream, `letters` the dead letters that are counted and open,
    `unclassified` the columns by table that changes carried and nobody has classified."""

    started_at: datetime
    window_end: datetime
    runs: int = 0
    totals: Totals = field(default_factory=Totals)
    streams: dict[str, str] = field(default_factory=dict)
    letters: list[str] = field(default_factory=list)
    unclassified: dict[str, list[str]] = field(default_factory=dict)


class WaitingTotal(NamedTuple):
    """All that waits: changes, and the commit of the oldest that is unaudited."""

    changes: int
    oldest_unaudited: datetime | None


class StateStore(Protocol):
    """Where one job's probe keeps its state: `ProbeStates`, or the tests' twin in memory.

    One test holds both to the same behaviour.
    """

    def load(self) -> ProbeState | None: ...
    def save(self, state: ProbeState, windows: Iterable[WaitingWindow], checked_at: datetime) -> None: ...
    def waiting(self, most: int) -> list[WaitingWindow]: ...
    def total(self) -> WaitingTotal: ...


class ProbeStates:
    """A StateStore in the metadata database."""

    def __init__(self, database: Any, job: str) -> None:
        self._database = database
        self._job = job

    def load(self) -> ProbeState | None:
        """The state as the last run left it; None before the first."""
        from google.cloud.spanner_v1 import KeySet

        columns = ["StartedAt", "WindowEnd", "Runs", "State"]
        with self._database.snapshot() as snapshot:
            rows = list(snapshot.read("probes", columns, KeySet(keys=[[self._job]])))
        if not rows:
            return None
        started_at, window_end, runs, text = rows[0]
        known = orjson.loads(text)
        return ProbeState(
            started_at=_plain(started_at),
            window_end=_plain(window_end),
            runs=runs,
            totals=Totals(**known["totals"]),
            streams=known["streams"],
            letters=known["letters"],
            unclassified=known.get("unclassified", {}),
        )

    def save(self, state: ProbeState, windows: Iterable[WaitingWindow], checked_at: datetime) -> None:
        """Moves on: totals, positions, and windows that were looked at. Raises ProbeError where another probe did."""
        from google.cloud.spanner_v1 import KeySet

        looked_at = list(windows)
        kept = {
            "totals": asdict(state.totals),
            "streams": state.streams,
            "letters": state.letters,
            "unclassified": state.unclassified,
        }
        text = orjson.dumps(kept).decode()

        def work(transaction: Any) -> None:
            stored = list(transaction.read("probes", ["Runs"], KeySet(keys=[[self._job]])))
            if (stored[0][0] if stored else 0) != state.runs:
                raise two_at_once(self._job)
            transaction.insert_or_update(
                "probes",
                ["JobName", "Runs", "StartedAt", "WindowEnd", "State", "UpdatedAt"],
                [[self._job, state.runs + 1, state.started_at, state.window_end, text, "spanner.commit_timestamp()"]],
            )
            for window in looked_at:
                self._save_window(transaction, window, checked_at)

        self._database.run_in_transaction(work)
        state.runs += 1

    def _save_window(self, transaction: Any, window: WaitingWindow, checked_at: datetime) -> None:
        from google.cloud.spanner_v1 import KeySet

        if not window.commits:
            transaction.delete("probe_waiting", KeySet(keys=[[self._job, window.span.start]]))
            return
        commits = base64.b64encode(window.to_bytes())
        transaction.insert_or_update(
            "probe_waiting",
            ["JobName", "WindowStart", "WindowEnd", "Waiting", "OldestUnaudited", "Commits", "CheckedAt"],
            [[self._job, *window.span, window.changes, window.oldest_unaudited, commits, checked_at]],
        )

    def waiting(self, most: int) -> list[WaitingWindow]:
        """Up to `most` windows with something that waits, those not looked at for longest, in commit order."""
        sql = (
            "SELECT WindowStart, WindowEnd, Commits FROM probe_waiting WHERE JobName = @job "
            f"ORDER BY CheckedAt, WindowStart LIMIT {most}"
        )
        return sorted(
            (
                WaitingWindow.from_bytes(Span(_plain(start), _plain(end)), base64.b64decode(commits))
                for start, end, commits in self._rows(sql)
            ),
            key=lambda window: window.span,
        )

    def total(self) -> WaitingTotal:
        """Over all windows."""
        sql = "SELECT SUM(Waiting), MIN(OldestUnaudited) FROM probe_waiting WHERE JobName = @job"
        [[changes, oldest]] = self._rows(sql)
        return WaitingTotal(changes or 0, oldest and _plain(oldest))

    def _rows(self, sql: str) -> list[Any]:
        from google.cloud.spanner_v1 import param_types

        with self._database.snapshot() as snapshot:
            found = snapshot.execute_sql(sql, params={"job": self._job}, param_types={"job": param_types.STRING})
            return list(found)


def two_at_once(job: str) -> ProbeError:
    """The error of the probe that ends second."""
    return ProbeError(
        f"another probe of {job} ran at the same time, and this run is left out: nothing is counted twice. "
        "Run one probe per job."
    )


def _plain(moment: datetime) -> datetime:
    """A datetime of Python's own in place of the client library's."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=_micros(moment))


def _micros(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
