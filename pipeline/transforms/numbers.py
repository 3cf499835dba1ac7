"""What a card number is, and where a plain text holds one.

A card number is 12 to 19 digits whose first digits belong to a card brand and whose Luhn sum is right. Between its
digits may be anything that is not a letter (`4111 1111-1111.1111`, zero-width spaces, NULs of UTF-16, `","`); they may
be of any script, and next to letters. To leave other numbers alone:

- a card starts and ends where a group of digits does: not in the middle of a longer number;
- it is written in groups as on a card (a first group of four or more digits), or with one separator throughout;
- UUIDs, hex digests, IBANs, `+` phone numbers and decimal fractions are not looked into;
- ranges and lengths that are issued no longer count only where something else says that it is a card.

What cannot be distinguished from a card number (an id of 16 digits that starts with a BIN and passes Luhn) is treated
as one, but for identifiers: `is_surely_card` knows the few ranges that nearly all of today's cards are of.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from stdnum import iban

SHORTEST: Final = 12
LONGEST: Final = 19

_Ranges = tuple[tuple[str, str, frozenset[int]], ...]


def _ranges(*rows: tuple[str, str, Iterable[int]]) -> _Ranges:
    return tuple((first, last, frozenset(lengths)) for first, last, lengths in rows)


# First digits (a range of prefixes of one length) → lengths that are issued: ISO/IEC 7812, as brands publish them.
IIN_RANGES: Final = _ranges(
    ("1946", "1946", {16}),  # GPN
    ("2200", "2205", {16, 17, 18, 19}),  # Mir, BORICA
    ("2221", "2720", {16}),  # Mastercard
    ("51", "55", {16}),
    ("300", "305", {14, 16, 17, 18, 19}),  # Diners Club
    ("3095", "3095", {14, 16, 17, 18, 19}),
    ("36", "36", {14, 16, 17, 18, 19}),
    ("38", "39", {14, 16, 17, 18, 19}),
    ("34", "34", {15}),  # American Express
    ("37", "37", {15}),
    ("3528", "3589", {16, 17, 18, 19}),  # JCB
    ("353", "353", {16}),  # RuPay
    ("356", "356", {16}),
    ("4", "4", {13, 16, 19}),  # Visa
    ("50", "50", {16, 17, 18, 19}),  # Maestro, Elo, Verve, RuPay, Dankort
    ("5018", "5018", range(12, 20)),  # Maestro
    ("5020", "5020", range(12, 20)),
    ("5038", "5038", range(12, 20)),
    ("56", "58", {16, 17, 18, 19}),
    ("60", "69", {16, 17, 18, 19}),  # Discover, UnionPay, Maestro, Elo, Hipercard, RuPay, Troy
    ("6304", "6304", range(12, 20)),  # Maestro
    ("6759", "6759", range(12, 20)),
    ("6761", "6763", range(12, 20)),
    ("81", "82", {16, 17, 18, 19}),  # UnionPay, RuPay
    ("8600", "8600", {16}),  # Uzcard
    ("9792", "9792", {16}),  # Troy
    ("9860", "9860", {16}),  # Humo
)

# Issued no longer, or hardly ever: phone numbers, counters and nanoseconds look the same.
_OLD_RANGES: Final = _ranges(
    ("1", "1", {15}),  # UATP
    ("1800", "1800", {15}),  # JCB
    ("2131", "2131", {15}),
    ("300", "305", {15}),  # Diners Club; also the identity of a Canadian SIM card
    ("3095", "3095", {15}),
    ("36", "36", {15}),
    ("38", "39", {15}),
    ("4", "4", {18}),  # Visa
    ("56", "58", range(12, 16)),  # Maestro; also phone numbers of Colombia and Venezuela
    ("6390", "6390", range(12, 16)),  # also phone numbers of the Philippines
    ("67", "67", range(12, 16)),
)

# What an identifier is refused for. 19 digits are left out: keys of bit-reversed sequences have as many.
_SURE_RANGES: Final = _ranges(
    ("4", "4", {16}),  # Visa
    ("51", "55", {16}),  # Mastercard
    ("2221", "2720", {16}),
    ("34", "34", {15}),  # American Express
    ("37", "37", {15}),
    ("300", "305", {14}),  # Diners Club
    ("36", "36", {14}),
    ("38", "38", {14}),
    ("6011", "6011", {16}),  # Discover
    ("644", "649", {16}),
    ("65", "65", {16}),
    ("3528", "3589", {16}),  # JCB
    ("62", "62", {16}),  # UnionPay
    ("81", "81", {16}),
    ("2200", "2204", {16}),  # Mir
    ("6759", "6759", {16}),  # Maestro
)


def _lengths_by_prefix(ranges: _Ranges) -> tuple[int, ...]:
    """For each of the 10,000 first four digits, the lengths of a card number as a bit set."""
    table = [0] * 10_000
    for first, last, lengths in ranges:
        bits = sum(1 << length for length in lengths)
        for prefix in range(int(first.ljust(4, "0")), int(last.ljust(4, "9")) + 1):
            table[prefix] |= bits
    return tuple(table)


_ISSUED = _lengths_by_prefix(IIN_RANGES)
_OLD = _lengths_by_prefix(_OLD_RANGES)
_SURE = _lengths_by_prefix(_SURE_RANGES)
_EVER = tuple(issued | old for issued, old in zip(_ISSUED, _OLD, strict=True))
_DOUBLED = bytes((2 * (i - 48) // 10 + 2 * (i - 48) % 10 + 48) if 48 <= i < 58 else i for i in range(256))


def passes_luhn(digits: str) -> bool:
    """Whether the Luhn sum of ASCII digits is right; the same answer as `stdnum.luhn`, four times as fast."""
    reverse = digits.encode()[::-1]
    return (sum(reverse[::2]) + sum(reverse[1::2].translate(_DOUBLED)) - 48 * len(reverse)) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether ASCII digits are a card number as they are issued: length and first digits of a brand, and Luhn sum."""
    return _is_of(_ISSUED, digits)


def is_surely_card(digits: str) -> bool:
    """Whether ASCII digits are of the ranges and lengths of nearly all cards: what an identifier is refused for."""
    return _is_of(_SURE, digits)


def was_card(digits: str) -> bool:
    """Whether ASCII digits are a card number of any range that is or was issued."""
    return _is_of(_EVER, digits)


def _is_of(table: tuple[int, ...], digits: str) -> bool:
    length = len(digits)
    return (
        SHORTEST <= length <= LONGEST
        and digits.isdigit()
        and table[int(digits[:4])] >> length & 1 == 1
        and passes_luhn(digits)
    )


def shorten(digits: str) -> str:
    """What may be shown of a card number: BIN, stars, last four, at the same length."""
    return f"{digits[:6]}{'*' * (len(digits) - 10)}{digits[-4:]}"


HIDDEN_ALREADY: Final = re.compile(r"[0-9]{0,6}[*xX•#.\s-]{4,}[0-9]{0,4}")


class Card(NamedTuple):
    """A card number in a text: its ASCII digits, and where each of them is."""

    digits: str
    positions: tuple[int, ...]


# Between two digits: a few characters that are not letters, or some signs around white space (JSON with indents).
_MARK = r"[^0-9A-Za-z\s]"
_GAP = rf"(?:[^0-9A-Za-z]{{1,6}}|{_MARK}{{0,4}}\s{{1,64}}{_MARK}{{0,4}})"
_RUN = re.compile(rf"[0-9](?:{_GAP}?[0-9]){{11,}}")
_ANY_RUN = re.compile(r"\d(?:(?:[\W_]{1,6}|[^\w\s]{0,4}\s{1,64}[^\w\s]{0,4})?\d){11,}")
_SOLID = re.compile(r"[0-9]{12,}")
# In a list of numbers only groups of four can begin a card number (see _ON_CARDS).
_NOT_LISTED = r"(?<![\[,])(?<![\[,]\s)(?<![\[,][\"'])(?<![\[,]\s[\"'])"
_FIRST_GROUP = re.compile(rf"(?<![0-9])(?:[0-9]{{4}}(?={_GAP}[0-9])|{_NOT_LISTED}[0-9]{{5,15}}(?={_GAP}[0-9]))")
_NEXT_GROUPS = re.compile(rf"({_GAP})([0-9]{{1,15}})" + rf"(?:({_GAP})([0-9]{{1,15}}))?" * 4)
_EVEN = re.compile(rf"(?<![0-9])[0-9]{{1,4}}(?P<gap>{_GAP})[0-9]{{1,4}}(?:(?P=gap)[0-9]{{1,4}}){{2,}}(?![0-9])")
_GROUP = re.compile(r"[0-9]+")
_NOT_CARDS = re.compile(
    r"(?<![0-9A-Za-z])(?:"
    r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"  # traceparent
    r"|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|(?:[0-9a-f]{16}){2,8}|[0-9a-f]{24}|[0-9a-f]{40}|[0-9a-f]{56}"
    r"|1Z[0-9A-Z]{16}|JJD[0-9]{14,18}"  # parcels of UPS and DHL
    r"|(?:[0-9A-F]{16}){2,8}|[0-9A-F]{24}|[0-9A-F]{40}|[0-9A-F]{56}"
    r")(?![0-9A-Za-z])"
)
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![0-9A-Za-z])")
_HEX_LETTERS: Final = 4  # fewer than this in an id of 24 or more hex digits: it may be a card number and its expiry
_STRONG = re.compile(r"[\s\0+]*[-._/]*[\s\0+]*")
_LISTED = re.compile(r"[\s\"'\\,;|:]+")
_LONGEST_ROW: Final = 16  # commas between digits: more of them, and what they part are separate numbers
_LONGEST_LIST: Final = 40  # groups with one separator: more of them are a list of numbers
# A number with a fraction of the length that a double has: neither part of it is a card number.
_INTEGER_PART = re.compile(r"(?<![0-9.])[0-9]{1,3}\Z")
_DOUBLE_DIGITS: Final = 17
_AFTER_FRACTION = re.compile(r"[.\-_/ ]?[0-9]++(?!\.[0-9])")
_DOUBLE = re.compile(r"(?<![0-9.])([1-9])\.([0-9]{11,18})[eE]\+?(1[1-8])(?![0-9])")
_POINT = re.compile(r"[0-9]\.\Z")
_LONGEST_FRACTION: Final = 15
# How a card number is split in a list, where other numbers are in a row too.
_ON_CARDS: Final = frozenset(
    {(4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 4, 5), (4, 4, 4, 4, 2), (4, 4, 4, 1)}
)
_IN_LIST = re.compile(r"[\[,]\s*[\"'\\]{0,4}\s*\Z")
_SAYS_CARD = re.compile(r"(?:card|\bpan\b|visa|maestro|amex|diners|uatp|jcb|karte|carte|tarjeta)[^0-9\n]{0,32}\Z", re.I)
_STRIPE_NEXT = re.compile(r"\s{0,3}[=^D]\s{0,3}[0-9A-Z]")
# Phone numbers of countries whose code begins like a brand, at their usual length.
_PHONE = re.compile(r"0*(?:49(?:1[5-7]|[2-9])[0-9]{7,10}|57[36][0-9]{9}|58[24][0-9]{9}|639[0-9]{9})")


class _PlainCharacters(dict[int, str]):
    """Maps a character to one that the patterns know: a digit, a letter, a blank, a dash or an underscore."""

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
            plain = "_" if kind[0] in "PS" else " "
        self[code] = plain
        return plain


_PLAIN = _PlainCharacters()


# For the quick look: Latin-1 bytes as digits (0), letters (x) and colons; all others are deleted.
_KINDS = bytes(48 if 48 <= i < 58 else 58 if i == 58 else 120 for i in range(256))
_BETWEEN = bytes(i for i in range(256) if not chr(i).isalnum() and i != 58)


def may_hold_number(text: str) -> bool:
    """A quick look that never misses: False means that `numbers_in` finds none.

    A card number that is written with colons has four digits or more before the first one, a time of day has two: the
    times that rows are full of do not need the long look.
    """
    try:
        kinds = text.encode("latin-1").translate(_KINDS, _BETWEEN)
    except UnicodeEncodeError:
        return _ANY_RUN.search(text) is not None
    return b"000000000000" in kinds or b"0000:" in kinds


def numbers_in(text: str) -> list[Card]:
    """Every card number in a text as it is written; two may overlap where the text can be read in two ways."""
    if len(text) < SHORTEST or not may_hold_number(text):
        return []
    plain = text if text.isascii() else text.translate(_PLAIN)
    cards = [card for run in _RUN.finditer(plain) for card in _cards_in_run(plain, run.start(), run.end())]
    if "e" in plain or "E" in plain:
        cards += _with_exponent(plain)
    return _outside(cards, list(_not_cards(plain))) if cards else []


def _with_exponent(plain: str) -> Iterator[Card]:
    """Card numbers as a double is written: `4.111111111111111E15`."""
    for match in _DOUBLE.finditer(plain):
        digits = match[1] + match[2]
        length = int(match[3]) + 1
        if len(digits) <= length <= LONGEST and is_card(digits.ljust(length, "0")):
            first, second = match.start(1), match.start(2)
            yield Card(digits.ljust(length, "0"), (first, *range(second, match.end(2))))


def digits_of(text: str) -> str:
    """The decimal digits of a text, as ASCII."""
    return "".join(_GROUP.findall(text if text.isascii() else text.translate(_PLAIN)))


def _cards_in_run(plain: str, start: int, end: int) -> Iterator[Card]:
    """The card numbers that begin and end at groups of digits of one run."""
    for match in _SOLID.finditer(plain, start, end):
        yield from _solid(plain, *match.span())
    is_list = plain.count(",", start, end) > _LONGEST_ROW
    for match in _FIRST_GROUP.finditer(plain, start, end):
        if is_list and plain[match.end()] in "\"',\\":
            continue
        if _EVER[int(match[0][:4])]:
            yield from _grouped(plain, match.span(), end)
    for match in _EVEN.finditer(plain, start, end):
        yield from _even(plain, match)


def _solid(plain: str, start: int, end: int) -> Iterator[Card]:
    """A card number without separators, also in a field of fixed width that is filled up with zeros."""
    digits = plain[start:end]
    for first in dict.fromkeys((start, end - len(digits.lstrip("0")))):
        number = plain[first:end]
        if (
            was_card(number)
            and not _is_phone(plain, start, number)
            and not _is_fraction(plain, start, end)
            and (_stands_alone(number) or _says_card(plain, start, end))
        ):
            yield Card(number, tuple(range(first, end)))


def _grouped(plain: str, first: tuple[int, int], end: int) -> Iterator[Card]:
    """Card numbers that begin at a group of four digits or more, in groups as on a card."""
    more = _NEXT_GROUPS.match(plain, first[1], end)
    if more is None:
        return
    digits = plain[first[0] : first[1]]
    issued, ever = _ISSUED[int(digits[:4])], _EVER[int(digits[:4])]
    sizes = [len(digits)]
    parts = more.groups()
    for i in range(0, len(parts), 2):
        gap, group = parts[i], parts[i + 1]
        if group is None or len(digits) + len(group) > LONGEST or "**" in gap:  # stars: hidden already
            return
        digits += group
        sizes.append(len(group))
        if i == 0 and len(group) < 3:
            return
        length = len(digits)
        if ever >> length & 1 and not (i == 0 and gap == ".") and passes_luhn(digits):
            is_usual = tuple(sizes) in _ON_CARDS
            if (
                (is_usual or (issued >> length & 1 and not _is_listed(plain, first[0], gap)))
                and not _is_phone(plain, first[0], digits)
                and not _POINT.search(plain, max(0, first[0] - 2), first[0])
            ):
                spans = [first, *(more.span(j) for j in range(2, i + 3, 2))]
                yield Card(digits, tuple(p for a, b in spans for p in range(a, b)))
        if len(group) < 3:
            return


def _is_listed(plain: str, start: int, gap: str) -> bool:
    """Whether a group of digits is in a list, where other numbers are in a row too."""
    return _LISTED.fullmatch(gap) is not None and _IN_LIST.search(plain, max(0, start - 16), start) is not None


def _even(plain: str, match: re.Match[str]) -> Iterator[Card]:
    """A card number in groups of any size with one separator throughout; other numbers may come before or after."""
    gap = match["gap"]
    if match.end() - match.start() > _LONGEST_LIST * (4 + len(gap)) or gap.count("*") > 1:
        return
    groups = [group.span() for group in _GROUP.finditer(plain, *match.span())]
    count = len(groups)
    if count > _LONGEST_LIST:
        return
    whole = [(0, count)]
    if _STRONG.fullmatch(gap):
        whole += [(0, stop) for stop in range(count - 1, 3, -1)] + [(begin, count) for begin in range(1, count - 3)]
    elif not _LISTED.fullmatch(gap):
        return
    for begin, stop in whole:
        digits = "".join([plain[a:b] for a, b in groups[begin:stop]])
        one_by_one = stop - begin == len(digits)
        if is_card(digits) and (one_by_one or _stands_alone(digits)) and not _is_phone(plain, groups[begin][0], digits):
            yield Card(digits, tuple(p for a, b in groups[begin:stop] for p in range(a, b)))


def _stands_alone(digits: str) -> bool:
    """Whether digits are a card number without anything else that says so."""
    return is_card(digits) and not (len(digits) == 13 and (_PHONE.fullmatch(digits) or _is_ean(digits)))


def _says_card(plain: str, start: int, end: int) -> bool:
    return _SAYS_CARD.search(plain[max(0, start - 48) : start]) is not None or bool(_STRIPE_NEXT.match(plain, end))


def _is_ean(digits: str) -> bool:
    """Whether 13 digits are the number of a product."""
    return (sum(map(int, digits[::2])) + 3 * sum(map(int, digits[1::2]))) % 10 == 0


def _is_phone(plain: str, start: int, digits: str) -> bool:
    return len(digits) <= 13 and start > 0 and plain[start - 1] == "+"


def _is_fraction(plain: str, start: int, end: int) -> bool:
    """Whether digits are the fraction after the point of a decimal number."""
    if start < 2 or plain[start - 1] != ".":
        return False
    integer = _INTEGER_PART.search(plain, max(0, start - 5), start - 1)
    if integer is None or _AFTER_FRACTION.match(plain, end):
        return False
    length = end - start
    return integer[0] == "0" or length <= _LONGEST_FRACTION or len(integer[0]) + length <= _DOUBLE_DIGITS


def _outside(cards: list[Card], spans: list[tuple[int, int]]) -> list[Card]:
    """The cards that are not within one of the spans."""
    if not spans:
        return cards
    spans.sort()
    starts = [start for start, _ in spans]

    def is_within(card: Card) -> bool:
        i = bisect_right(starts, card.positions[0])
        return i > 0 and card.positions[-1] < spans[i - 1][1]

    return [card for card in cards if not is_within(card)]


def _not_cards(plain: str) -> Iterator[tuple[int, int]]:
    """Where UUIDs, hex digests, parcels and IBANs are."""
    for match in _NOT_CARDS.finditer(plain):
        if "-" in match[0] or match[0][:2] in ("1Z", "JJ") or sum(c.isalpha() for c in match[0]) >= _HEX_LETTERS:
            yield match.span()
    for match in _IBAN.finditer(plain):
        if iban.is_valid(match[0]):
            yield match.span()
