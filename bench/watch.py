"""CPU and memory of processes, sampled from outside."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import psutil

from local.machine.processes import group_members
from local.machine.state import State

_EVERY_SECONDS: Final = 2.0
_PRISM: Final = "prism"


class ProcessWatch:
    """Samples until `stop`. CPU seconds and memory are those of whole process groups, Prism's apart.

    `leaders` gives the groups of the moment: name → pid of the leader.
    """

    def __init__(self, leaders: Callable[[], dict[str, int]]) -> None:
        self._leaders = leaders
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._names: dict[int, str] = {}
        self._memory: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._began = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._sample()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._sample()

    def cpu_seconds(self) -> dict[str, float]:
        """By process, from the first sample to the last."""
        found: dict[str, float] = defaultdict(float)
        for pid, last in self._last.items():
            found[self._names[pid]] += last - self._first[pid]
        return {name: round(seconds, 1) for name, seconds in sorted(found.items(), key=lambda item: -item[1])}

    def memory_mib(self, name: str) -> dict[str, Any]:
        """Resident memory: by time (seconds, MiB), and how it grew over the second half."""
        samples = self._memory[name]
        half = samples[len(samples) // 2 :]
        every = max(1, len(samples) // 20)
        return {
            "samples": [[round(at), round(mib)] for at, mib in samples[::every]],
            "most": round(max(mib for _, mib in samples)),
            "growth_mib_a_minute_second_half": round(_slope(half) * 60, 2),
        }

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY_SECONDS):
            self._sample()

    def _sample(self) -> None:
        at = time.monotonic() - self._began
        memory: dict[str, float] = defaultdict(float)
        for name, leader in self._leaders().items():
            # One that is in another's group is watched alone.
            for process in group_members(leader) or _alone(leader):
                with contextlib.suppress(psutil.Error):
                    times, what = process.cpu_times(), _PRISM if process.name() == _PRISM else name
                    self._names[process.pid] = what
                    self._last[process.pid] = times.user + times.system
                    # What a process used before it was first seen is part of it, unless it was there at the start.
                    self._first.setdefault(process.pid, self._last[process.pid] if not self._thread.is_alive() else 0.0)
                    memory[what] += process.memory_info().rss / 2**20
        for what, mib in memory.items():
            self._memory[what].append((at, mib))


class Watch(ProcessWatch):
    """Watches the processes of a local stack, and others by their pids."""

    def __init__(self, state: State, others: dict[str, int] | None = None) -> None:
        def leaders() -> dict[str, int]:
            supervisor = state.supervisor()
            return state.pids() | ({"supervisor": supervisor} if supervisor else {}) | (others or {})

        super().__init__(leaders)


def _alone(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid)] if psutil.pid_exists(pid) else []


def _slope(samples: list[tuple[float, float]]) -> float:
    """MiB a second, by least squares."""
    if len(samples) < 3:
        return 0.0
    middle = sum(at for at, _ in samples) / len(samples)
    level = sum(mib for _, mib in samples) / len(samples)
    spread = sum((at - middle) ** 2 for at, _ in samples)
    return sum((at - middle) * (mib - level) for at, mib in samples) / spread
