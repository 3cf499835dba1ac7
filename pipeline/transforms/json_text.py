"""A JSON column's text without what must not be read in it: still JSON, and what stays keeps its digits."""

from __future__ import annotations

import re
from collections.abc import Callable

import orjson

from pipeline.transforms.members import by_token, card_in_number, json_edits
from pipeline.transforms.named import Token
from pipeline.transforms.readable import Reader, applied, may_hold

__all__ = ["CardMask", "card_in_number", "is_special", "mask_json", "masked_json"]

CardMask = Callable[[str], str]

# A number with an exponent can be a card number in fewer digits than it has.
_FIRST_EXPONENT = re.compile(r"\s*-?[0-9.]+[eE][+-]?[0-9]")
_EXPONENT = re.compile(rf"[\[:,]{_FIRST_EXPONENT.pattern}")
_PASSES = 3


def has_exponent(text: str) -> bool:
    """Whether a number with an exponent occurs within a JSON text."""
    return ("e" in text or "E" in text) and _EXPONENT.search(text) is not None


def is_special(text: str) -> bool:
    """Whether a JSON text may need masking that a look at it as a text does not show: numbers with an exponent."""
    return ("e" in text or "E" in text) and (
        _FIRST_EXPONENT.match(text) is not None or _EXPONENT.search(text) is not None
    )


def mask_json(text: str, found: set[str], mask_card: CardMask, token: Token) -> str:
    """The JSON text with card numbers hidden and classified members masked; JSON that does not parse is taken as text.

    `mask_card` masks a card number that is the whole value; `token(name, value)` makes the token of a value. Adds the
    card numbers that it finds to `found`.
    """
    return masked_json(text, Reader(found, token, mask_card))


def masked_json(text: str, reader: Reader, within: str = "") -> str:
    """The same with a reader that is there already. What cannot be masked in its place becomes null as a whole.

    `within` is the column's name where its members are a card's.
    """
    if not within and not is_special(text) and not may_hold(text):
        return text
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return reader.text(text)
    # Members and strings first; then all of it as a text, for what is spread over several tokens.
    text = applied(text, json_edits(text, reader, 0, within))
    for _ in range(_PASSES):
        edits = reader.edits(text, 0, as_json=False)
        if not edits:
            return text
        text = applied(text, by_token(text, edits))
    return text if not reader.edits(text, 0, as_json=False) else "null"
