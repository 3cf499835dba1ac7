"""What people give with a request that is kept, a replay or an erasure: its id, and why."""

from __future__ import annotations

import re
from typing import Final

from pipeline.transforms.cards import find_cards

LEAST_REASON: Final = 5
_LONGEST_REASON: Final = 1_000
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def broken_reason(reason: str, of: str) -> str:
    """The rule that a reason breaks; empty where it breaks none. `of`: what it is kept with, such as replay."""
    if not LEAST_REASON <= len(reason) <= _LONGEST_REASON:
        return f"a reason must have {LEAST_REASON} to {_LONGEST_REASON:,} characters: it is kept with the {of}."
    return f"the reason of the {of} must hold no card's number: it is kept." if find_cards(reason) else ""


def broken_id(given: str, of: str, such_as: str) -> str:
    """The rule that an id breaks; empty where it breaks none."""
    if _ID.fullmatch(given):
        return ""
    return f"the id of the {of} must be such as {such_as}: A-Z, a-z, 0-9, then also . - _, at most 63 characters."
