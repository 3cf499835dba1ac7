"""The in-memory twin of pipeline/sink/generations.py: the same steps, each as one under a lock, without Spanner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from contract import timestamps
from pipeline.sink.generations import Fenced, Takeover


class Ledger:
    """What the metadata database holds. Several `InMemoryGenerations` share one, as jobs share the database."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.lock = threading.RLock()
        self.generation: dict[str, int] = {}
        self.position: dict[str, str] = {}
        self.fenced_at: dict[str, str] = {}
        self.streams: dict[tuple[str, str, str], str] = {}
        self._clock_ns = clock_ns
        self._last = 0

    def committed(self) -> str:
        """A commit timestamp: later than every one before it."""
        self._last = max(self._last + 1, self._clock_ns())
        return timestamps.from_nanos(self._last)


class InMemoryGenerations:
    """Generations of a job name in a ledger."""

    def __init__(self, job_name: str = "job", ledger: Ledger | None = None) -> None:
        self._job = job_name
        self.ledger = ledger or Ledger()

    def take_over(self, start: str) -> Takeover:
        with self.ledger.lock:
            generation = self.ledger.generation[self._job] = self.ledger.generation.get(self._job, 0) + 1
            position = self.ledger.position.setdefault(self._job, start)
            streams = [stream for (job, _, _), stream in self.ledger.streams.items() if job == self._job]
            return Takeover(generation, position, streams)

    def fence(self, generation: int) -> str:
        with self.ledger.lock:
            self._check(generation)
            moment = self.ledger.fenced_at[self._job] = self.ledger.committed()
            return moment

    def stream(self, table_id: str, shard: str) -> str | None:
        with self.ledger.lock:
            return self.ledger.streams.get((self._job, table_id, shard))

    def record_stream(
        self, generation: int, table_id: str, shard: str, stream: str, *, replaces: str | None
    ) -> str | None:
        with self.ledger.lock:
            self._check(generation)
            if self.stream(table_id, shard) != replaces:
                return None
            self.ledger.streams[self._job, table_id, shard] = stream
            return self.ledger.committed()

    def advance(self, generation: int, position: str) -> None:
        with self.ledger.lock:
            self._check(generation)
            self.ledger.position[self._job] = max(position, self.ledger.position[self._job])

    def _check(self, generation: int) -> None:
        newest = self.ledger.generation.get(self._job, 0)
        if newest != generation:
            raise Fenced(self._job, generation, newest)
