"""The in-memory twin of ProbeStates in probe/state.py: the same steps, each as one under a lock, without Spanner."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable
from datetime import datetime

from probe.state import ProbeState, Span, WaitingTotal, WaitingWindow, two_at_once


class InMemoryProbeStates:
    """The state of one job's probe. What is given and what is taken are copies, as from a database."""

    def __init__(self, job: str = "job") -> None:
        self._job = job
        self._lock = threading.Lock()
        self._state: ProbeState | None = None
        # When each was looked at, and its commits.
        self._windows: dict[Span, tuple[datetime, WaitingWindow]] = {}

    def load(self) -> ProbeState | None:
        with self._lock:
            return copy.deepcopy(self._state)

    def save(self, state: ProbeState, windows: Iterable[WaitingWindow], checked_at: datetime) -> None:
        with self._lock:
            if (self._state.runs if self._state else 0) != state.runs:
                raise two_at_once(self._job)
            state.runs += 1
            self._state = copy.deepcopy(state)
            for window in windows:
                self._windows.pop(window.span, None)
                if window.commits:
                    self._windows[window.span] = (checked_at, copy.deepcopy(window))

    def waiting(self, most: int) -> list[WaitingWindow]:
        with self._lock:
            longest = sorted((checked_at, span) for span, (checked_at, _) in self._windows.items())[:most]
            return [copy.deepcopy(self._windows[span][1]) for span in sorted(span for _, span in longest)]

    def total(self) -> WaitingTotal:
        with self._lock:
            windows = [window for _, window in self._windows.values()]
            unaudited = [window.oldest_unaudited for window in windows if window.oldest_unaudited]
            return WaitingTotal(sum(window.changes for window in windows), min(unaudited, default=None))
