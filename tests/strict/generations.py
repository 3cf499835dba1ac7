"""The in-memory twin of pipeline/sink/generations.py: the same steps, each as one under a lock, without Spanner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from contract import timestamps
from pipeline.sink.generations import Fenced, Takeover, run_id


class Ledger:
    """What the metadata database holds. Several `InMemoryGenerations` share one, as jobs share the database."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.lock = threading.RLock()
        self.generation: dict[str, int] = {}
        # The newest run and the generation that it took.
        self.run: dict[str, tuple[str, int]] = {}
        self.position: dict[str, str] = {}
        self.fenced_at: dict[str, str] = {}
        # Who recorded it, and its name.
        self.streams: dict[tuple[str, str, str], tuple[int, str]] = {}
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

    def new_run(self) -> str:
        with self.ledger.lock:
            return run_id(time.time_ns(), self.ledger.run.get(self._job, ("", 0))[0] or None)

    def take_over(self, run: str, start: str) -> Takeover:
        with self.ledger.lock:
            generation = self.ledger.generation.get(self._job, 0)
            newest, ran_as = self.ledger.run.get(self._job, (None, None))
            position = self.ledger.position.setdefault(self._job, start)
            if newest == run and ran_as == generation:
                return Takeover(generation, position, self.ledger.fenced_at.get(self._job), False)
            if newest is not None and newest >= run:
                raise Fenced(self._job, ran_as if newest == run else None, generation)
            self.ledger.generation[self._job] = generation + 1
            self.ledger.run[self._job] = (run, generation + 1)
            self.ledger.fenced_at.pop(self._job, None)
            return Takeover(generation + 1, position, None, True)

    def older_streams(self, generation: int) -> list[str]:
        with self.ledger.lock:
            streams = self.ledger.streams.items()
            return [stream for (job, _, _), (made, stream) in streams if job == self._job and made < generation]

    def fence(self, generation: int) -> str:
        with self.ledger.lock:
            self._check(generation)
            return self.ledger.fenced_at.setdefault(self._job, self.ledger.committed())

    def stream(self, table_id: str, shard: str) -> str | None:
        with self.ledger.lock:
            found = self.ledger.streams.get((self._job, table_id, shard))
            return found[1] if found else None

    def record_stream(
        self, generation: int, table_id: str, shard: str, stream: str, *, replaces: str | None
    ) -> str | None:
        with self.ledger.lock:
            self._check(generation)
            if self.stream(table_id, shard) != replaces:
                return None
            self.ledger.streams[self._job, table_id, shard] = (generation, stream)
            return self.ledger.committed()

    def advance(self, generation: int, position: str) -> None:
        with self.ledger.lock:
            self._check(generation)
            self.ledger.position[self._job] = max(position, self.ledger.position[self._job])

    def position(self) -> str | None:
        with self.ledger.lock:
            return self.ledger.position.get(self._job)

    def _check(self, generation: int) -> None:
        newest = self.ledger.generation.get(self._job, 0)
        if newest != generation:
            raise Fenced(self._job, generation, newest)
