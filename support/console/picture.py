"""A payment's life as a picture: a bar for each status, the longer the wider, on a scale that shows short ones too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import log1p
from typing import Final

from support.timeline import Transition

_WIDTH: Final = 1000.0
_LEAST: Final = 0.35


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A status: where it begins and how wide it is, of a thousand, and how long it lasted; None: until now."""

    status: str
    state: str
    at: datetime
    seconds: float | None
    unexpected: bool
    left: float
    width: float


def bars(transitions: Sequence[Transition], now: datetime | None = None) -> tuple[Bar, ...]:
    """The bars of a payment's statuses, in their order. A deleted payment's life ends with its deletion."""
    now = now or datetime.now(UTC)
    lasted = []
    for number, transition in enumerate(transitions):
        if transition.to_status is None:
            continue
        following = transitions[number + 1] if number + 1 < len(transitions) else None
        end = following.at if following else now
        lasted.append((transition, max(0.0, (end - transition.at).total_seconds()), following is None))
    weights = [_LEAST + log1p(seconds) for _, seconds, _ in lasted]
    total = sum(weights) or 1.0
    found, left = [], 0.0
    for (transition, seconds, open_), weight in zip(lasted, weights, strict=True):
        width = _WIDTH * weight / total
        found.append(
            Bar(
                status=transition.to_status or "",
                state=transition.to_state or "unknown",
                at=transition.at,
                seconds=None if open_ else seconds,
                unexpected=transition.expected is False,
                left=left,
                width=width,
            )
        )
        left += width
    return tuple(found)
