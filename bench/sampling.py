"""A profile by sampling CPU time: what a function really costs, without the cost that cProfile adds to every call."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

_ROOT: Final = f"{Path(__file__).parent.parent}/"
_EVERY_SECONDS: Final = 0.001


@dataclass
class Profile:
    """Samples by function: `own` where it was the innermost Python function (what it calls in C counts as its own)."""

    samples: int = 0
    own: Counter[str] = field(default_factory=Counter)
    within: Counter[str] = field(default_factory=Counter)

    def table(self, rows: int = 30) -> str:
        """The functions with the largest own share."""
        lines = [f"{'own':>6} {'with calls':>11}  function        ({self.samples:,} samples of CPU time)"]
        lines += [
            f"{count / self.samples:>6.1%} {self.within[name] / self.samples:>11.1%}  {name}"
            for name, count in self.own.most_common(rows)
        ]
        return "\n".join(lines)

    def take(self, frame: FrameType | None) -> None:
        self.samples += 1
        stack = []
        while frame:
            stack.append(_name(frame))
            frame = frame.f_back
        self.own.update(stack[:1])
        self.within.update(set(stack))


@contextmanager
def profiled() -> Iterator[Profile]:
    """Samples the main thread of this process while the block runs."""
    profile = Profile()
    before = signal.signal(signal.SIGPROF, lambda _, frame: profile.take(frame))
    signal.setitimer(signal.ITIMER_PROF, _EVERY_SECONDS, _EVERY_SECONDS)
    try:
        yield profile
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _name(frame: FrameType) -> str:
    code = frame.f_code
    file = code.co_filename.removeprefix(_ROOT).rpartition("site-packages/")[2]
    return f"{file}:{code.co_firstlineno} {code.co_qualname}"
