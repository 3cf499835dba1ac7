"""What the platform knows of payments: how a Status maps to a payment state, and which transitions are expected.

Both are tables, and stack config can replace the first: `paymentStates: RECEIVED=initiated,…`.
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


def parse_states(text: str) -> dict[str, str]:
    """Reads `STATUS=state,…`. Raises ValueError with the rule when a state is not one of STATES."""
    states = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        status, _, state = part.partition("=")
        if state not in STATES:
            raise ValueError(
                f"paymentStates must be STATUS=state pairs with a state of {', '.join(STATES)}, got {part!r}. "
                "Set it in Pulumi.<stack>.yaml."
            )
        states[status] = state
    return states


def format_states(states: dict[str, str]) -> str:
    """The inverse of `parse_states`."""
    return ",".join(f"{status}={state}" for status, state in states.items())
