"""Finds card numbers in text and hides their middle: BIN (first 6), stars, last 4.

A card number is 12 to 19 digits whose first digits belong to a card brand and whose Luhn sum is right. Between its
digits may stand anything that is no letter (`4111 1111-1111.1111`, zero-width spaces, NULs of UTF-16, `%20`); they may
be of any script, and next to letters. What follows it on a magnetic stripe is hidden too. To leave other numbers alone:

- a card starts and ends where a group of digits does: not in the middle of a longer number;
- it is written with one kind of separator, or in groups as on a card (a first group of four or more digits);
- UUIDs, hex digests, IBANs and `+` phone numbers are not looked into.

What cannot be told from a card number (an id of 16 digits that starts with a BIN and passes Luhn) is treated as one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

from stdnum import iban

from pipeline.transforms.keys import MaskingKeys

SHORTEST: Final = 12
LONGEST: Final = 19
CARD_TOKEN: Final = "card"  # noqa: S105 - the kind of a token, not a secret

# First digits (a range of prefixes of one length) → lengths. ISO/IEC 7812 ranges as the brands publish them.
IIN_RANGES: Final[tuple[tuple[str, str, frozenset[int]], ...]] = tuple(
    (first, last, frozenset(lengths))
    for first, last, lengths in (
        ("1", "1", {15}),  # UATP
        ("1800", "1800", {15}),  # JCB, old
        ("2131", "2131", {15}),
        ("1946", "1946", {16}),  # GPN
        ("2200", "2205", {16, 17, 18, 19}),  # Mir, BORICA
        ("2221", "2720", {16}),  # Mastercard
        ("51", "55", {16}),
        ("300", "305", range(14, 20)),  # Diners Club
        ("3095", "3095", range(14, 20)),
        ("36", "36", range(14, 20)),
        ("38", "39", range(14, 20)),
        ("34", "34", {15}),  # American Express
        ("37", "37", {15}),
        ("3528", "3589", {16, 17, 18, 19}),  # JCB
        ("353", "353", {16}),  # RuPay
        ("356", "356", {16}),
        ("4", "4", {13, 16, 18, 19}),  # Visa
        ("50", "50", {16, 17, 18, 19}),  # Maestro, Elo, Verve, RuPay, Dankort
        ("5018", "5018", range(12, 20)),  # Maestro
        ("5020", "5020", range(12, 20)),
        ("5038", "5038", range(12, 20)),
        ("56", "58", range(12, 20)),
        ("60", "69", {16, 17, 18, 19}),  # Discover, UnionPay, Maestro, Elo, Hipercard, RuPay, Troy
        ("6304", "6304", range(12, 20)),  # Maestro
        ("6390", "6390", range(12, 20)),
        ("67", "67", range(12, 20)),
        ("81", "82", {16, 17, 18, 19}),  # UnionPay, RuPay
        ("8600", "8600", {16}),  # Uzcard
        ("9792", "9792", {16}),  # Troy
        ("9860", "9860", {16}),  # Humo
    )
)


def _lengths_by_prefix() -> tuple[int, ...]:
    """For each of the 10,000 first four digits, the lengths of a card number as a bit set."""
    table = [0] * 10_000
    for first, last, lengths in IIN_RANGES:
        bits = sum(1 << length for length in lengths)
        for prefix in range(int(first.ljust(4, "0")), int(last.ljust(4, "9")) + 1):
            table[prefix] |= bits
    return tuple(table)


_LENGTHS = _lengths_by_prefix()
_DOUBLED = bytes((2 * (i - 48) // 10 + 2 * (i - 48) % 10 + 48) if 48 <= i < 58 else i for i in range(256))


def passes_luhn(digits: str) -> bool:
    """Whether the Luhn sum of ASCII digits is right; the same answer as `stdnum.luhn`, four times as fast."""
    reverse = digits.encode()[::-1]
    return (sum(reverse[::2]) + sum(reverse[1::2].translate(_DOUBLED)) - 48 * len(reverse)) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether ASCII digits are a card number: length and first digits of a brand, and the Luhn sum."""
    length = len(digits)
    return SHORTEST <= length <= LONGEST and _LENGTHS[int(digits[:4])] >> length & 1 == 1 and passes_luhn(digits)


def shorten(digits: str) -> str:
    """What may be shown of a card number: BIN, stars, last four, at the same length."""
    return f"{digits[:6]}{'*' * (len(digits) - 10)}{digits[-4:]}"


class Card(NamedTuple):
    """A card number in a text: its ASCII digits, and where each of them stands."""

    digits: str
    positions: tuple[int, ...]


# Twelve digits with at most six other characters between two of them, none a letter.
_ASCII_RUN = re.compile(r"[0-9](?:[^0-9A-Za-z]{0,6}[0-9]){11,}")
_ANY_RUN = re.compile(r"\d(?:[\W_]{0,6}\d){11,}")
_GROUP = re.compile(r"[0-9]+")
_ENTITY = re.compile(r"&(?:nbsp|ensp|emsp|thinsp|shy|ndash|mdash|#[0-9]{1,4}|#[xX][0-9a-fA-F]{1,4});")
_PERCENT = re.compile(r"%(?:20|2[dD]|09|0[aA]|0[dD]|2[eE]|2[fF])")
_NOT_CARDS = re.compile(
    r"(?<![0-9A-Za-z])(?:"
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}|[0-9A-F]{64}|[0-9A-F]{40}|[0-9A-F]{32}"
    r")(?![0-9A-Za-z])"
)
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![0-9A-Za-z])")
_STRIPE = re.compile(r"[=D][0-9]{7,}|\^[^^\n]{2,26}\^[0-9]*")
_HEX_LETTERS: Final = 4  # fewer than this in an id of 32 hex digits: it may be a card number and its expiry
_STRONG: Final = frozenset("-._/")


class _PlainCharacters(dict[int, str]):
    """Maps a character to one that the patterns know: a digit, a letter, a blank, a dash or a dot."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kind = unicodedata.category(char)
        if code < 128:
            plain = char
        elif kind == "Nd":
            plain = str(unicodedata.decimal(char))
        elif kind[0] in "LN":
            plain = "x"
        elif kind == "Pd":
            plain = "-"
        else:
            plain = "." if kind[0] in "PS" else " "
        self[code] = plain
        return plain


_PLAIN = _PlainCharacters()


# For the quick look: Latin-1 bytes as digits (0), letters (x) and colons; all others are deleted.
_KINDS = bytes(48 if 48 <= i < 58 else 58 if i == 58 else 120 for i in range(256))
_BETWEEN = bytes(i for i in range(256) if not chr(i).isalnum() and i != 58)


def may_hold_card(text: str) -> bool:
    """A quick look that never misses: False means that `find_cards` finds none.

    A card number that is written with colons has four digits or more before the first one, a time of day has two: the
    times that rows are full of do not need the long look.
    """
    if "&" in text or "%" in text:
        return True
    try:
        kinds = text.encode("latin-1").translate(_KINDS, _BETWEEN)
    except UnicodeEncodeError:
        return _ANY_RUN.search(text) is not None
    return b"000000000000" in kinds or b"0000:" in kinds


def find_cards(text: str) -> list[Card]:
    """Every card number in the text, in order; two may overlap where the text can be read in two ways."""
    if len(text) < SHORTEST or not may_hold_card(text):
        return []
    plain = text if text.isascii() else text.translate(_PLAIN)
    for sign, written in (("&", _ENTITY), ("%", _PERCENT)):
        if sign in plain:
            plain = written.sub(lambda match: " " * len(match[0]), plain)
    cards = [card for run in _ASCII_RUN.finditer(plain) for card in _cards_in_run(plain, run.start(), run.end())]
    if not cards:
        return []
    others = list(_not_cards(plain))
    return [
        card
        for card in cards
        if not any(start <= card.positions[0] and card.positions[-1] < end for start, end in others)
    ]


def hide_cards(text: str, found: set[str]) -> str:
    """The text with every card number cut to BIN and last four, all else in its place. Adds the numbers to `found`."""
    cards = find_cards(text)
    if not cards:
        return text
    characters = list(text)
    for card in cards:
        found.add(card.digits)
        for position in card.positions[6:-4]:
            characters[position] = "*"
        if stripe := _STRIPE.match(text, card.positions[-1] + 1):
            characters[stripe.start() : stripe.end()] = ["*" if c.isalnum() else c for c in stripe[0]]
    return "".join(characters)


def digits_of(text: str) -> str:
    """The decimal digits of a text, as ASCII."""
    return "".join(_GROUP.findall(text if text.isascii() else text.translate(_PLAIN)))


class CardNumberError(ValueError):
    """What was given is not a card number. The message never repeats it."""


def card_tokens(number: str, keys: MaskingKeys) -> list[str]:
    """The token of a card number under every key version, newest first: what a search by card looks for."""
    digits = digits_of(number)
    if re.search(r"[^\W\d_]", number) or not SHORTEST <= len(digits) <= LONGEST or not passes_luhn(digits):
        raise CardNumberError(
            f"a card number has {SHORTEST} to {LONGEST} digits and a right check digit; this has not. Type it again."
        )
    return keys.every_token(CARD_TOKEN, digits)


def _cards_in_run(plain: str, start: int, end: int) -> Iterator[Card]:
    """The card numbers that begin and end at groups of digits of one run."""
    groups = [match.span() for match in _GROUP.finditer(plain, start, end)]
    for i, (first, _) in enumerate(groups):
        digits, gaps = "", [""]
        for j in range(i, len(groups)):
            begin, stop = groups[j]
            if j > i:
                gaps.append(plain[groups[j - 1][1] : begin])
            digits += plain[begin:stop]
            if len(digits) > LONGEST:
                break
            if is_card(digits) and _looks_written(groups[i : j + 1], gaps[1:]) and not _is_phone(plain, first, digits):
                yield Card(digits, tuple(p for a, b in groups[i : j + 1] for p in range(a, b)))
        yield from _zero_padded(plain, *groups[i])


def _zero_padded(plain: str, start: int, end: int) -> Iterator[Card]:
    """A card number in a field of fixed width, filled up with zeros."""
    first = start
    while first < end and plain[first] == "0":
        first += 1
    if first > start and is_card(plain[first:end]):
        yield Card(plain[first:end], tuple(range(first, end)))


def _looks_written(groups: list[tuple[int, int]], gaps: list[str]) -> bool:
    """Whether someone writes a card number so: in groups as on a card, or with one usual separator throughout."""
    if any(gap.count("*") > 1 for gap in gaps):  # hidden already
        return False
    sizes = [end - start for start, end in groups]
    if sizes[0] >= 4 and all(size >= 3 for size in sizes[1:-1]):
        return True
    kinds = {"".join(gap.split()).strip("\0") for gap in gaps}
    return len(kinds) == 1 and set(kinds.pop()) <= _STRONG


def _is_phone(plain: str, start: int, digits: str) -> bool:
    return len(digits) <= 13 and start > 0 and plain[start - 1] == "+"


def _not_cards(plain: str) -> Iterator[tuple[int, int]]:
    """Where UUIDs, hex digests and IBANs stand."""
    for match in _NOT_CARDS.finditer(plain):
        if "-" in match[0] or sum(c.isalpha() for c in match[0]) >= _HEX_LETTERS:
            yield match.span()
    for match in _IBAN.finditer(plain):
        if iban.is_valid(match[0]):
            yield match.span()
