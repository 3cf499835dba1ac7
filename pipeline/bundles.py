"""How a process runs Beam's bundles: without Beam's wait at their ends, and without a full garbage collection's."""

from __future__ import annotations

import gc
from typing import Final

from apache_beam.runners.worker.statesampler import StateSampler

# At its end a bundle waits for the thread that samples which step runs. Beam lets it sleep longer each time: up
# to a fifth of the time that the bundle has taken, 200 ms at most. Until then no row of the bundle reaches the next
# step; and Prism, which has the outputs already, spins for the bundle's response.
SAMPLING_MILLIS: Final = 5


def end_without_delay() -> None:
    """For the bundles of this process whose processors Beam makes from now on."""
    StateSampler.__init__.__defaults__ = (SAMPLING_MILLIS,)


def leave_out_of_collections() -> None:
    """What is loaded by now: a full collection looks at each of 200,000 objects, and no bundle continues meanwhile, for
    a tenth of a second on a machine of 2026."""
    gc.collect()
    gc.freeze()
