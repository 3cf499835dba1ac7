"""Card numbers in text: found, hidden (BIN, stars, last 4), and the tokens that find them again.

The rooms behind it: `numbers` (what a card number is), `names` (what a name says of its value), `readable` (all that
can be read in a text, however it is encoded).
"""

from __future__ import annotations

import re
from typing import Final

from contract.errors import AuditError
from pipeline.transforms.encodings import is_escaped, unescaped
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.numbers import (
    IIN_RANGES,
    LONGEST,
    SHORTEST,
    Card,
    digits_of,
    is_card,
    is_surely_card,
    may_hold_number,
    numbers_in,
    passes_luhn,
    shorten,
)
from pipeline.transforms.readable import Reader, may_hold

__all__ = [
    "CARD_TOKEN",
    "IIN_RANGES",
    "LONGEST",
    "SHORTEST",
    "Card",
    "CardNumberError",
    "card_tokens",
    "digits_of",
    "find_cards",
    "hide_cards",
    "holds_card",
    "is_card",
    "is_surely_card",
    "may_hold_card",
    "passes_luhn",
    "shorten",
]

CARD_TOKEN: Final = "card"  # noqa: S105 - the kind of a token, not a secret


def may_hold_card(text: str) -> bool:
    """A quick look that never misses: False means that `find_cards` finds none."""
    return may_hold_number(text) or is_escaped(text)


def find_cards(text: str) -> list[Card]:
    """Every card number in a text, in order, as it is written or else with its escapes read.

    Two may overlap where the text can be read in two ways. The positions are those in what was read.
    """
    return numbers_in(text) or (numbers_in(unescaped(text)) if is_escaped(text) else [])


def hide_cards(text: str, found: set[str]) -> str:
    """The text with card numbers cut to BIN and last four, and security codes, expiries and holders' names as stars.

    However they are encoded, three levels deep (see `readable`). Adds the numbers to `found`.
    """
    return Reader(found).text(text) if may_hold(text) else text


def holds_card(text: str) -> bool:
    """Whether masking refuses an identifier: it has a card number of a known range, or other data of a card."""
    reader = Reader(set())
    reader.text(text)
    return reader.refused_in_identifier


class CardNumberError(AuditError, ValueError):
    """What was given is not a card number. The message never repeats it."""

    exit_code = 2


def card_tokens(number: str, keys: MaskingKeys) -> list[str]:
    """The token of a card number under every key version, newest first: what a search by card looks for."""
    digits = digits_of(number)
    if re.search(r"[^\W\d_]", number) or not SHORTEST <= len(digits) <= LONGEST or not passes_luhn(digits):
        raise CardNumberError(
            f"a card number has {SHORTEST} to {LONGEST} digits and a right check digit; this has not. Type it again."
        )
    return keys.every_token(CARD_TOKEN, digits)
