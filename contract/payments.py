"""What the platform knows about payments: how a Status maps to a payment state, which transitions are expected, and how
long a payment may stay in a Status.

All are tables; stack config can replace the first and change the last: `paymentStates: RECEIVED=initiated,…` and
`stuckLimits: PENDING=7200,*=86400`.
"""

from __future__ import annotations

from typing import Final

INITIATED: Final = "initiated"
PROCESSED: Final = "processed"
FAILED: Final = "failed"
STATES: Final = (INITIATED, PROCESSED, FAILED)

PAYMENT_STATES: Final[dict[str, str]] = {
    "INITIATED": INITIATED,
    "AUTHORIZED": INITIATED,
    "PENDING": INITIATED,
    "RETRYING": INITIATED,
    "CAPTURED": PROCESSED,
    "SETTLED": PROCESSED,
    "REFUNDED": PROCESSED,
    "DECLINED": FAILED,
    "FAILED": FAILED,
    "EXPIRED": FAILED,
    "CANCELLED": FAILED,
}

# (previous state, new state). None before the first one. A transition outside this table is kept and flagged.
EXPECTED_TRANSITIONS: Final[frozenset[tuple[str | None, str]]] = frozenset(
    {
        (None, INITIATED),
        (INITIATED, INITIATED),
        (INITIATED, PROCESSED),
        (INITIATED, FAILED),
        (FAILED, INITIATED),
        (PROCESSED, PROCESSED),
        (FAILED, FAILED),
    }
)

# Seconds that a payment may stay in a Status. ANY is for every other that ends no payment, unmapped ones included.
ANY: Final = "*"
STUCK_SECONDS: Final[dict[str, int]] = {
    "INITIATED": 3_600,
    "RETRYING": 3_600,
    "PENDING": 259_200,
    "AUTHORIZED": 604_800,
    ANY: 86_400,
}


def parse_states(text: str) -> dict[str, str]:
    """Reads `STATUS=state,…`. Raises ValueError with the rule when a state is not one of STATES."""
    states = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        status, _, state = part.partition("=")
        if state not in STATES or not status or status != status.strip():
            raise ValueError(
                f"paymentStates must be STATUS=state pairs with a state of {', '.join(STATES)}, got {part!r}. "
                "Set it in Pulumi.<stack>.yaml."
            )
        states[status] = state
    return states


def format_states(states: dict[str, str]) -> str:
    """The inverse of `parse_states`."""
    return ",".join(f"{status}={state}" for status, state in states.items())


def parse_limits(text: str) -> dict[str, int]:
    """Reads `STATUS=seconds,…`, over the defaults. Raises ValueError with the rule."""
    limits = dict(STUCK_SECONDS)
    for part in filter(None, (p.strip() for p in text.split(","))):
        status, _, seconds = part.partition("=")
        if not status or not seconds.isdecimal() or int(seconds) == 0:
            raise ValueError(
                f"stuckLimits must be STATUS=seconds pairs, seconds at least 1, got {part!r}. {ANY}=seconds is for "
                "every other Status. Set it in Pulumi.<stack>.yaml."
            )
        limits[status] = int(seconds)
    return limits


def ends(states: dict[str, str], limits: dict[str, int]) -> frozenset[str]:
    """The Statuses in which a payment may stay forever: those of its ends, unless a limit names them."""
    return frozenset(status for status, state in states.items() if state != INITIATED and status not in limits)
