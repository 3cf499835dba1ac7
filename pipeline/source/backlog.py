"""How much of a change stream is not read yet: an estimate, for a runner that adds and removes workers by it.

Pure: no Spanner, no Beam. Spanner does not say what a partition still has. What is known is how old each position is,
and how many bytes of changes the positions have lately moved over in a second: their product is the backlog. A
partition that is read as it is written has a position as old as the last heartbeat: it counts as caught up, for a
backlog that never comes down to zero would keep every worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from contract.timestamps import to_nanos

_SECOND: Final = 1_000_000_000
# What the rate is made of loses half of its weight in about 40 seconds of the stream.
_REMEMBERED_SECONDS: Final = 60.0
# Beyond the heartbeat: what an answer, a bundle and a busy worker may take without being behind.
_SLACK_SECONDS: Final = 5.0
# A runner asks at every bundle; to look at thousands of positions each time would cost more than the answer is worth.
_LOOK_NANOS: Final = _SECOND // 2


class Backlog:
    """`quiet_seconds` is how old the position of a partition may be when there is nothing to read.

    Who reads adds the bytes of each change to `read`: a call would be a tenth of what a record costs the reader.
    """

    def __init__(self, quiet_seconds: float) -> None:
        self._quiet = int((quiet_seconds + _SLACK_SECONDS) * _SECOND)
        self._looked = 0
        self._mean = 0.0
        self._behind = 0.0
        self.read = 0
        # Bytes, and the seconds by which the average position moved while they were read.
        self._bytes = 0.0
        self._seconds = 0.0

    def size(self, positions: Iterable[str], now: int, waiting: int) -> int | None:
        """Bytes that are not read yet; `waiting` of them are on the worker. None while nothing is known.

        `positions` are those of the partitions, `now` is in nanoseconds since 1970.
        """
        if now - self._looked >= _LOOK_NANOS:
            self._looked = now
            self._look([to_nanos(position) for position in positions], now - self._quiet)
        if self._behind and not self._seconds:
            return waiting or None
        # What waits on the worker is a part of what is behind.
        return max(waiting, round(self._behind * self._bytes / self._seconds) if self._behind else 0)

    def _look(self, positions: list[int], latest: int) -> None:
        number = len(positions)
        self._behind = sum([latest - at for at in positions if at < latest]) / number / _SECOND if number else 0.0
        mean = sum(positions) / number if number else self._mean
        moved = (mean - self._mean) / _SECOND
        if self._mean and moved > 0:
            kept = math.exp(-moved / _REMEMBERED_SECONDS)
            self._bytes = self._bytes * kept + self.read
            self._seconds = self._seconds * kept + moved
            self.read = 0
        elif not self._mean:
            self.read = 0
        self._mean = max(mean, self._mean)
