"""Card data as terminals and payment hosts write it: EMV TLV in hex or in bytes, and packed BCD.

Tags: EMV book 3, annex A. `5A` PAN, `57` and `9F6B` track 2, `56` track 1, `5F20` and `9F0B` holder's name, `5F24`
expiry, `9F1F` and `9F20` discretionary data, `99` PIN data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from pipeline.transforms.encodings import Edit, may_be_tlv
from pipeline.transforms.numbers import is_card, passes_luhn, shorten, was_card


class Found(NamedTuple):
    """What is to change in a text of hex digits, and the card number that was there, if it was one."""

    edit: Edit
    number: str | None


_RUN = re.compile(r"(?:[0-9A-Fa-f]{2}(?: |(?=[0-9A-Fa-f])))*[0-9A-Fa-f]{2}")
_PAN = re.compile(r"5A0([6-9A])", re.I)
_TRACK = re.compile(r"(?:57|9F6B)(0[6-9A-F]|1[0-3])", re.I)
_PAN_VALUE = re.compile(r"([0-9]{8,19})[Ff]*")
_TRACK_VALUE = re.compile(r"([0-9]{8,19})[Dd=][0-9]*[Ff]*")
_EXPIRY_VALUE = re.compile(r"[0-9]{2}(?:0[1-9]|1[0-2])[0-3][0-9]")
_NAME_VALUE = re.compile(r"(?:[2-7][0-9A-Fa-f])*(?:4[1-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa])(?:[2-7][0-9A-Fa-f])*")
_LOOSE = re.compile(r"5F2403(?P<expiry>[0-9]{2}(?:0[1-9]|1[0-2])[0-3][0-9])|(?:5F20|9F0B)(?P<size>[0-2][0-9A-F])", re.I)
# A tag and its value as a log writes them: `5F24: 271231`, `5F20 (03) …`.
_SIGN = r"[^0-9A-Za-z]{1,4}"
_LINE = re.compile(
    rf"(?<![0-9A-Za-z])(?:5F24{_SIGN}(?:0?3{_SIGN})?(?P<expiry>[0-9]{{2}}(?:0[1-9]|1[0-2])[0-3][0-9])"
    rf"|(?:5F20|9F0B){_SIGN}(?:[0-2][0-9A-F]{_SIGN})?(?P<name>(?:[2-7][0-9A-F]){{3,26}}))(?![0-9A-Za-z])",
    re.I,
)
_NAMES: Final = frozenset({"5F20", "9F0B"})
_TRACKS: Final = frozenset({"57", "9F6B"})
_PRINTED: Final = frozenset({"56", "9F1F", "9F20"})
_DEEPEST: Final = 6
_LONGEST: Final = 100_000  # hex digits that are read as one TLV


def hex_in(text: str) -> list[Found]:
    """What TLV in the hex digits of a text gives away."""
    if not may_be_tlv(text):
        return []
    found = [
        Found(Edit(*line.span(kind), "*" * len(line[kind])), None)
        for line in _LINE.finditer(text)
        for kind in ("expiry", "name")
        if line[kind]
    ]
    for run in _RUN.finditer(text):
        if len(run[0]) < 12 or not may_be_tlv(run[0]):
            continue
        places = [i for i, c in enumerate(run[0], run.start()) if c != " "] if " " in run[0] else None
        digits = run[0].replace(" ", "") if places else run[0]
        for start, end, new, number in _of_run(digits):
            if places:
                found += [Found(Edit(places[start + i], places[start + i] + 1, c), number) for i, c in enumerate(new)]
            else:
                found.append(Found(Edit(run.start() + start, run.start() + end, new), number))
    return found


def bytes_in(data: bytes, *, is_text: bool = False, is_blob: bool = False) -> list[Found]:
    """The same of bytes, and card numbers in packed BCD: edits of `data.hex()`.

    `is_text`: the bytes can be read as text, so what is printable and longer than a number is that. `is_blob`: they may
    be bytes by chance (an id that looks like base64), so only all of them can be a number.
    """
    digits = data.hex()
    found = [Found(Edit(start, end, new), number) for start, end, new, number in _of_run(digits)]
    if len(data) > _PACKED_BYTES and (is_blob or (is_text and not _BINARY.search(data))):
        return found
    return found + list(_packed(data, digits))


_Piece = tuple[int, int, str, str | None]


def _of_run(digits: str) -> list[_Piece]:
    if not may_be_tlv(digits):
        return []
    pieces: list[_Piece] = []
    if len(digits) <= _LONGEST:
        for offset in (0, 2, 4, 6):
            elements = _elements(digits, offset, len(digits), 0)
            if elements:
                pieces = [p for tag, start, end in elements for p in _sensitive(tag, digits, start, end, len(elements))]
                break
    return pieces or _loose(digits)


def _elements(digits: str, at: int, end: int, depth: int) -> list[tuple[str, int, int]] | None:
    """The primitive elements of BER-TLV between two places, flat: (tag, start, end); None where it is not TLV."""
    found: list[tuple[str, int, int]] = []
    while at < end:
        if digits[at : at + 2] in ("00", "FF", "ff"):
            at += 2
            continue
        start = at
        if int(digits[at : at + 2], 16) & 0x1F == 0x1F:
            at += 2
            while at < end and int(digits[at : at + 2] or "0", 16) & 0x80:
                at += 2
        at += 2
        tag = digits[start:at].upper()
        size = digits[at : at + 2]
        if len(size) < 2:
            return None
        length = int(size, 16)
        at += 2
        if length & 0x80:
            more = 2 * (length & 0x7F)
            if not 2 <= more <= 4 or at + more > end:
                return None
            length = int(digits[at : at + more], 16)
            at += more
        stop = at + 2 * length
        if stop > end:
            return None
        inner = _elements(digits, at, stop, depth + 1) if int(tag[:2], 16) & 0x20 and depth < _DEEPEST else None
        found += inner if inner else [(tag, at, stop)]
        at = stop
    return found


def _sensitive(tag: str, digits: str, start: int, end: int, count: int) -> Iterator[_Piece]:
    value = digits[start:end]
    if tag == "5A" and (match := _PAN_VALUE.fullmatch(value)) and passes_luhn(match[1]):
        yield _number(match, start)
    elif tag in _TRACKS and (match := _TRACK_VALUE.fullmatch(value)) and passes_luhn(match[1]):
        yield _number(match, start)
        yield start + len(match[1]), end, "*" * (end - start - len(match[1])), None
    elif (
        (tag == "5F24" and _EXPIRY_VALUE.fullmatch(value))
        or (tag in _NAMES and _NAME_VALUE.fullmatch(value))
        or (tag in _PRINTED and value and count > 1)
        or (tag == "99" and len(value) == 16 and count > 1)
    ):
        yield start, end, "*" * (end - start), None


def _number(match: re.Match[str], start: int) -> _Piece:
    digits = match[1]
    if len(digits) < 12:
        return start, start + len(digits), "*" * len(digits), None
    return start, start + len(digits), shorten(digits), digits


def _loose(digits: str) -> list[_Piece]:
    """PANs and tracks by their tags where the whole is not TLV: cut off, or in the middle of something else."""
    pieces: list[_Piece] = []
    for match in _PAN.finditer(digits):
        end = match.end() + 2 * int(match[1], 16)
        value = _PAN_VALUE.match(digits, match.end(), end)
        if value and (was_card(value[1]) or (value.end() == end and len(value[1]) >= 15 and passes_luhn(value[1]))):
            pieces.append(_number(value, match.end()))
    for match in _TRACK.finditer(digits):
        end = match.end() + 2 * int(match[1], 16)
        value = _TRACK_VALUE.match(digits, match.end(), end)
        if value and was_card(value[1]):
            rest = match.end() + len(value[1])
            pieces.append(_number(value, match.end()))
            pieces.append((rest, value.end(), "*" * (value.end() - rest), None))
    if not pieces:
        return []
    for match in _LOOSE.finditer(digits):
        if match["expiry"]:
            pieces.append((*match.span("expiry"), "*" * 6, None))
        else:
            end = match.end() + 2 * int(match["size"], 16)
            if _NAME_VALUE.fullmatch(digits[match.end() : end]):
                pieces.append((match.end(), end, "*" * (end - match.end()), None))
    return pieces


# A byte of two decimal digits (d), of one and a filler after it (e) or before it (g), fillers only (f),
# or anything else (o).
_BYTE_KINDS = bytes(
    ord("d")
    if i >> 4 < 10 and i & 15 < 10
    else ord("e")
    if i >> 4 < 10 and i & 15 == 15
    else ord("g")
    if i >> 4 == 15 and i & 15 < 10
    else ord("f")
    if i == 255
    else 111
    for i in range(256)
)
_DECIMALS = re.compile(rb"g?d{6,40}e?")
_TRACK_NIBBLES = re.compile(r"([0-9]{12,19})d([0-9]{4,})f*")
_PACKED_BYTES: Final = 10
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_MOST_BYTES: Final = 512  # longer values are pictures and similar data, in which digits occur by chance


def _packed(data: bytes, digits: str) -> Iterator[Found]:
    if len(data) > _MOST_BYTES or data.isdigit():
        return
    for run in _DECIMALS.finditer(data.translate(_BYTE_KINDS)):
        start, end = 2 * run.start(), 2 * run.end()
        start += digits[start] == "f"
        written = digits[start:end].rstrip("f")
        zeros = len(written) - len(written.lstrip("0"))
        tries = [(0, written), (zeros, written[zeros:])]
        if written[:2] in ("08", "10"):  # with its length in bytes, or in digits, before it
            tries.append((2, written[2:]))
        for size in (13, 14, 15, 16, 19):  # the same as ISO 8583 has it
            if written.startswith(str(size)):
                odd = 2 + size % 2
                tries += [(2, written[2 : 2 + size]), (odd, written[odd : odd + size])]
        tries += [  # and so in the middle of a message
            (i + 2, written[i + 2 : i + 18]) for i in range(2, len(written) - 17, 2) if written[i : i + 2] == "16"
        ]
        for skip, number in tries:
            if is_card(number):
                at = start + skip
                yield Found(Edit(at, at + len(number), shorten(number)), number)
                break
    for match in _TRACK_NIBBLES.finditer(digits):
        if was_card(match[1]):
            yield Found(
                Edit(match.start(), match.end(), shorten(match[1]) + "*" * (len(match[0]) - len(match[1]))), match[1]
            )
