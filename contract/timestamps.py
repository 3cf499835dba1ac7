"""Times as text: RFC 3339 in UTC with exactly nine fractional digits, so that text order is order in time.

Python's datetime ends at microseconds and Spanner's timestamps do not: a time stays text from the change stream to the
last step, and is converted where a type asks for it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def normalise(timestamp: str) -> str:
    """Pads an RFC 3339 UTC timestamp, such as Spanner writes, to nine fractional digits."""
    base, _, fraction = timestamp[:-1].partition(".")
    return f"{base}.{fraction:0<9}Z"


def after(timestamp: str) -> str:
    """The next nanosecond."""
    return from_nanos(to_nanos(timestamp) + 1)


def before(timestamp: str) -> str:
    """The nanosecond before."""
    return from_nanos(to_nanos(timestamp) - 1)


def now() -> str:
    return from_nanos(time.time_ns())


def to_micros(timestamp: str) -> int:
    """Microseconds since 1970; what is finer is cut."""
    return _seconds(timestamp[:19]) * 1_000_000 + int(timestamp[20:26])


def to_nanos(timestamp: str) -> int:
    """Nanoseconds since 1970, exact."""
    return _seconds(timestamp[:19]) * 1_000_000_000 + int(timestamp[20:29])


def from_micros(micros: int) -> str:
    return from_nanos(micros * 1000)


def from_nanos(nanos: int) -> str:
    seconds, fraction = divmod(nanos, 1_000_000_000)
    return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]}.{fraction:09d}Z"


def to_datetime(timestamp: str) -> datetime:
    """A datetime in UTC; what is finer than a microsecond is cut."""
    return _EPOCH + timedelta(microseconds=to_micros(timestamp))


def from_datetime(moment: datetime) -> str:
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}000Z"


# The changes of one batch share their second.
@lru_cache(maxsize=1024)
def _seconds(text: str) -> int:
    return int((datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH).total_seconds())
