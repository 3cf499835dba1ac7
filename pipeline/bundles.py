"""How a process runs Beam's bundles: without the waits that Python and Beam have at their ends."""

from __future__ import annotations

import sys
from typing import Final

from apache_beam.runners.worker.statesampler import StateSampler

# At its end a bundle waits for the thread that samples which step runs. Beam lets it sleep longer each time: up
# to a fifth of the time that the bundle has taken, 200 ms at most. Until then no row of the bundle reaches the next
# step; and Prism, which has the outputs already, spins for the bundle's response.
SAMPLING_MILLIS: Final = 5
# While one thread computes, another that has just got a response waits for its turn: Python's 5 ms each time, and a
# request of Beam's crosses several threads. Shorter turns take more CPU where there is always something to compute.
SWITCH_SECONDS: Final = 0.001


def end_without_delay() -> None:
    """Sets both for this process. Of bundles it counts for those whose processors Beam makes from now on."""
    StateSampler.__init__.__defaults__ = (SAMPLING_MILLIS,)
    sys.setswitchinterval(SWITCH_SECONDS)
