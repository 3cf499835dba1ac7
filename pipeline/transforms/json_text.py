"""Masks inside a JSON text without parsing it into values: what is not masked keeps its text, to the last digit.

Member names, strings and numbers are looked at. A member that is named like a classified column (`cvv`, `cardNumber`,
`cardholder_name`) gets that column's policy: dropped ones become null, so no security code or expiry is stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Final

import orjson

from contract.tables import COLUMN_POLICIES, Policy
from pipeline.transforms.cards import LONGEST, find_cards, hide_cards, is_card, shorten

_OTHER_NAMES: Final[dict[str, Policy]] = {
    "pan": "card",
    "cardno": "card",
    "cardholder": "token",
    "nameoncard": "token",
    "cardexpiration": "drop",
    "cardexpirydate": "drop",
    "cardexpdate": "drop",
    "cvc": "drop",
    "cvv2": "drop",
    "cvc2": "drop",
    "cardsecuritycode": "drop",
    "securitycode": "drop",
    "track1": "drop",
    "track2": "drop",
    "track1data": "drop",
    "track2data": "drop",
    "pinblock": "drop",
}
_NAMES: Final[dict[str, Policy]] = {
    name.casefold(): policy for name, policy in COLUMN_POLICIES.items() if policy in ("card", "token", "drop")
} | _OTHER_NAMES
# Each name above begins with one of these; a name that does not has no policy.
_STARTS: Final = ("card", "cv", "pin", "pan", "track", "nameon", "name_on", "name-on", "name on", "security")
_MAY_BE_NAMED = re.compile(f'"(?:{"|".join(_STARTS)})')
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[{}\[\]]', re.S)
_IS_NAME = re.compile(r"\s*:")
# A number with an exponent can be a card number in fewer digits than it has.
_FIRST_EXPONENT = re.compile(r"\s*-?[0-9.]+[eE][+-]?[0-9]")
_EXPONENT = re.compile(rf"[\[:,]{_FIRST_EXPONENT.pattern}")
# Escapes that stand for a digit, or between digits.
_ESCAPE = re.compile(
    r"[0-9][^0-9A-Za-z]{0,6}\\[utnrbf]|\\(?:u[0-9a-fA-F]{4}|[tnrbf])[^0-9A-Za-z]{0,6}(?:[0-9]|\\[utnrbf])"
)

CardMask = Callable[[str], str]
Token = Callable[[str, str], str]


def is_special(text: str) -> bool:
    """Whether a JSON text may need masking that the look for card numbers in it, as it is written, does not show."""
    if _MAY_BE_NAMED.search(text.lower()):
        return True
    if "\\" in text and _ESCAPE.search(text):
        return True
    return _FIRST_EXPONENT.match(text) is not None or _EXPONENT.search(text) is not None


def mask_json(text: str, found: set[str], mask_card: CardMask, token: Token) -> str:
    """The JSON text with card numbers hidden and classified members masked; JSON that does not parse is taken as text.

    `mask_card` masks a card number that stands alone; `token(name, value)` makes the token of a value. Adds the card
    numbers that it finds to `found`.
    """
    if not is_special(text) and not find_cards(text):
        return text
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return hide_cards(text, found)
    return _Masking(text, found, mask_card, token).run()


class _Masking:
    """One pass over the tokens of a JSON text."""

    def __init__(self, text: str, found: set[str], mask_card: CardMask, token: Token) -> None:
        self.text = text
        self.found = found
        self.mask_card = mask_card
        self.token = token
        self.tokens = list(_TOKEN.finditer(text))

    def run(self) -> str:
        pieces: list[str] = []
        end = i = 0
        policy: tuple[str, Policy] | None = None
        while i < len(self.tokens):
            token = self.tokens[i]
            is_name = token[0][0] == '"' and _IS_NAME.match(self.text, token.end()) is not None
            stop = i + 1
            if is_name or policy is None:
                masked = self._scan(token[0])
            else:
                masked, stop = self._apply(policy, i)
            pieces += (self.text[end : token.start()], masked)
            end = self.tokens[stop - 1].end()
            policy = _policy_of(token[0]) if is_name else None
            i = stop
        return "".join((*pieces, self.text[end:]))

    def _scan(self, token: str) -> str:
        """A token with the card numbers in it hidden."""
        if token[0] == '"':
            plain = _plain(token)
            masked = hide_cards(plain, self.found)
            return token if masked == plain else _quoted(masked)
        if token[0] not in "-0123456789":
            return token
        digits = card_in_number(token)
        if digits is None:
            return token
        self.found.add(digits)
        return _quoted(shorten(digits))

    def _apply(self, named: tuple[str, Policy], i: int) -> tuple[str, int]:
        """The value at token `i` under the policy of its member, and the index of the token after the value."""
        name, policy = named
        value = self.tokens[i][0]
        if value == "null":
            return value, i + 1
        if policy == "card":
            if value[0] == '"' or value[0] in "-0123456789":
                return _quoted(self.mask_card(_plain(value))), i + 1
            return self._scan(value), i + 1
        stop = self._end_of_value(i)
        if policy == "token" and value[0] == '"':
            return _quoted(self.token(name, _plain(value))), stop
        return "null", stop

    def _end_of_value(self, i: int) -> int:
        depth = 0
        while True:
            depth += (self.tokens[i][0] in "{[") - (self.tokens[i][0] in "}]")
            i += 1
            if depth == 0:
                return i


def card_in_number(text: str) -> str | None:
    """The digits of a card number written as a number (`4111111111111111`, `4.1e15`, `4111.00`), or None."""
    digits = text.lstrip("-")
    if not digits.isdigit():
        try:
            number = Decimal(digits)
        except InvalidOperation:
            return None
        if not number.is_finite() or number.adjusted() >= LONGEST or number != number.to_integral_value():
            return None
        digits = str(int(number))
    return digits if is_card(digits) else None


def _policy_of(name: str) -> tuple[str, Policy] | None:
    """The policy of a member by its name, whatever its case and separators; None for a name without one."""
    plain = _plain(name)
    lower = plain.lower()
    policy = _NAMES.get(re.sub(r"[^a-z0-9]", "", lower)) if lower.startswith(_STARTS) else None
    return (plain, policy) if policy else None


def _plain(token: str) -> str:
    if token[0] != '"':
        return token
    return str(json.loads(token, strict=False)) if "\\" in token else token[1:-1]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
