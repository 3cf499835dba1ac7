"""Live figures of the local stack, from two files that are only appended to: cheap at any rate, and no query.

The ledger says what was committed, the arrivals say what can be queried and how long after its commit.
"""

from __future__ import annotations

import datetime
import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from contract import tables
from pipeline.sink.dead_letters import DeadLetterQueue, Kind

_KEPT_SECONDS: Final = 120


class Latency(NamedTuple):
    """Milliseconds from commit to queryable."""

    p50: int
    p95: int
    p99: int
    max: int


@dataclass
class Tail:
    """The lines that were added to a file since the last look. A line that is not finished waits for its end."""

    path: Path
    _position: int = 0

    def lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                yield json.loads(line)


@dataclass
class Figures:
    """What was committed and what arrived, in total and in each of the last seconds."""

    ledger: Path
    arrivals: Path
    committed: int = 0
    arrived: int = 0
    # Changes that the traffic made so that they must not arrive.
    expected_dead_letters: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    per_second_committed: Counter[int] = field(default_factory=Counter)
    per_second_arrived: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._ledger, self._arrivals = Tail(self.ledger), Tail(self.arrivals)
        self._latencies: deque[tuple[float, list[int]]] = deque()

    def update(self) -> None:
        """Reads what was added since the last time."""
        for entry in self._ledger.lines():
            self.committed += 1
            self.expected_dead_letters += bool(entry.get("dead_letter"))
            self.per_second_committed[int(_seconds(entry["commit_timestamp"]))] += 1
        for append in self._arrivals.lines():
            self._arrive(append)
        for counter in (self.per_second_committed, self.per_second_arrived):
            for second in [s for s in counter if s < max(counter) - _KEPT_SECONDS]:
                del counter[second]

    def _arrive(self, append: dict[str, Any]) -> None:
        # Append by append, the job's own bookkeeping too; only the changelogs count as arrived changes.
        self.rows[append["table"]] += append["rows"]
        if append["table"].endswith(f".{tables.RESUME_POSITIONS}"):
            return
        at = _seconds(append["queryable_at"])
        self.arrived += append["rows"]
        self.per_second_arrived[int(at)] += append["rows"]
        self._latencies.append((at, append["latencies_ms"]))
        while self._latencies and self._latencies[0][0] < at - _KEPT_SECONDS:
            self._latencies.popleft()

    @property
    def in_flight(self) -> int:
        """Changes that are committed and have yet to arrive."""
        return self.committed - self.expected_dead_letters - self.arrived

    def latency(self, *, now: float, seconds: float = 10) -> Latency | None:
        """Of what became queryable in the last `seconds`; None when nothing did."""
        values = sorted(v for at, batch in self._latencies if at > now - seconds for v in batch)
        if not values:
            return None
        p50, p95, p99 = (values[min(len(values) - 1, int(len(values) * q))] for q in (0.5, 0.95, 0.99))
        return Latency(p50, p95, p99, values[-1])

    @staticmethod
    def rate(per_second: Counter[int], *, now: float, seconds: int = 5) -> float:
        """Changes a second over the last whole `seconds`."""
        last = int(now) - 1
        return sum(per_second[last - i] for i in range(seconds)) / seconds

    @staticmethod
    def history(per_second: Counter[int], *, now: float, seconds: int = 40) -> list[int]:
        """Changes in each of the last whole seconds, oldest first."""
        return [per_second[int(now) - i] for i in range(seconds, 0, -1)]


def _seconds(timestamp: str) -> float:
    """Seconds since 1970 of RFC 3339 with up to nine fractional digits."""
    return datetime.datetime.fromisoformat(timestamp).timestamp()


def dead_letters(folder: Path) -> dict[Kind, int]:
    """How many dead letters wait for another try, and how many are parked: as `audit dead-letters list` counts them."""
    return DeadLetterQueue(str(folder)).counts()


def unreadable(folder: Path) -> int:
    """How many lines of the queue's files are not dead letters."""
    return DeadLetterQueue(str(folder)).unreadable()
