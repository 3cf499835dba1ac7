"""Ways in which a text hides in another: escapes, read in place, and blobs (base64, hex), read whole."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple
from urllib.parse import quote


class Edit(NamedTuple):
    """`text[start:end]` becomes `new`."""

    start: int
    end: int
    new: str


_ESCAPES = re.compile(
    r"(?:%[0-9A-Fa-f]{2})+|%u[0-9A-Fa-f]{4}"
    r"|&(?:#\d{1,12}|#[xX][0-9A-Fa-f]{1,12});?|&[A-Za-z][A-Za-z0-9]{1,31};"
    r"|(?:\\u[0-9A-Fa-f]{4})+|\\u\{[0-9A-Fa-f]{1,6}\}|\\x[0-9A-Fa-f]{2}|\\[\"'\\/bfnrt]"
)
_CONTROLS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def is_escaped(text: str) -> bool:
    """Whether anything in the text is escaped: percent, HTML entities, `\\u` and the other escapes of JSON."""
    return ("%" in text or "&" in text or "\\" in text) and _ESCAPES.search(text) is not None


def unescaped(text: str) -> str:
    """The text with every escape read once."""
    return _ESCAPES.sub(lambda match: _read(match[0]), text)


def escapes_in(text: str) -> Iterator[tuple[int, int]]:
    """Where the escapes of a text are."""
    return (match.span() for match in _ESCAPES.finditer(text))


def _read(escape: str) -> str:
    """What an escape stands for."""
    return _READ[escape[0]](escape)


def _read_percent(escape: str) -> str:
    if escape[1] == "u":
        return _char(escape[2:], 16)
    data = bytes.fromhex(escape.replace("%", ""))
    return data.decode() if data.isascii() else data.decode("utf-8", "surrogateescape")


def _read_entity(escape: str) -> str:
    number = escape[1:].rstrip(";").lower()
    if number[0] != "#":
        return html.unescape(escape)
    return _char(number[2:], 16) if number[1] == "x" else _char(number[1:], 10)


def _read_backslash(escape: str) -> str:
    kind = escape[1]
    if kind == "u" and escape[2] != "{":
        units = bytes.fromhex(escape.replace("\\u", ""))
        return units.decode("utf-16-be") if _decodes(units, "utf-16-be") else "".join(map(chr, _units(units)))
    if kind in "ux":
        return _char(escape[2:].strip("{}"), 16)
    return _CONTROLS.get(kind, kind)


_READ: Final[dict[str, Callable[[str], str]]] = {"%": _read_percent, "&": _read_entity, "\\": _read_backslash}


def _char(digits: str, base: int) -> str:
    code = int(digits, base)
    return chr(code) if code < 0x110000 else "\ufffd"


def _units(data: bytes) -> Iterator[int]:
    return ((data[i] << 8) + data[i + 1] for i in range(0, len(data), 2))


def edits_outside(text: str, edits: list[Edit]) -> list[Edit]:
    """Edits of `unescaped(text)` as edits of the text itself."""
    starts: list[int] = []
    ends: list[int] = []
    kinds: list[tuple[int, str]] = []
    done = 0
    for match in _ESCAPES.finditer(text):
        start, end = match.span()
        starts.extend(range(done, start))
        ends.extend(range(done + 1, start + 1))
        for char, first, after in _places(match[0]):
            starts.extend([start + first] * len(char))
            ends.extend([start + after] * len(char))
        kinds.append((start, match[0][0]))
        done = end
    starts.extend(range(done, len(text)))
    ends.extend(range(done + 1, len(text) + 1))
    kind = kinds[0][1] if kinds else ""
    inside = unescaped(text)
    outside = []
    for start, end, new in edits:
        if len(new) == end - start:  # in place: what is escaped between stays as it is
            outside += [Edit(starts[i], ends[i], c) for i, c in enumerate(new, start) if c != inside[i]]
            continue
        begin, stop = starts[start], ends[end - 1]
        sign = next((c for c in text[begin:stop] if c in "%&\\"), kind)
        outside.append(Edit(begin, stop, _WRITE.get(sign, str)(new)))
    return outside


def _places(escape: str) -> Iterator[tuple[str, int, int]]:
    """The characters of an escape, and where each of them begins and ends in it."""
    char = _read(escape)
    width = {"%": 3, "\\": 6}.get(escape[0], 0)
    if len(char) <= 1 or not width or len(escape) % width:
        yield char, 0, len(escape)
        return
    at = 0
    for each in char:
        if escape[0] == "%":
            size = width * len(each.encode("utf-8", "surrogateescape"))
        else:
            size = width * (2 if ord(each) > 0xFFFF else 1)
        yield each, at, at + size
        at += size


_WRITE: Final[dict[str, Callable[[str], str]]] = {
    "%": lambda new: quote(new, safe="*:", errors="surrogateescape"),
    "&": html.escape,
    "\\": lambda new: json.dumps(new)[1:-1],
}


class Blob(NamedTuple):
    """A part of a text that stands for bytes, and how to write other bytes in its place."""

    start: int
    end: int
    data: bytes
    write: Callable[[bytes], str]
    is_text: bool = False  # hex: other meanings of its digits show in the text that it is written in


# Four characters of base64 that stand for three printable ASCII characters, at any place in a longer run.
_QUANTUM = r"[I-Za-f][CDEFGHSTUVWXijklmnyz0-3][AEIMQUYcgkosw048BFJNRVZdhlptx159][A-Za-z0-9+/_-]"
# The same where the first is a digit, and the second a digit or a quote; or the end of a run that ends with a digit.
_DIGITS_QUANTUM = re.compile(
    r"[MNO](?:[CDSTijyz][AEIMQUYcgkosw048BFJNRVZdhlptx159][A-Za-z0-9+/_-]"
    r"|(?:[CDSTijyz][AEIMQUYcgkosw048]|[AQgw])(?![A-Za-z0-9+/_-]))"
)
_PRINTABLE = re.compile(rf"(?:{_QUANTUM}){{2,}}[A-Za-z0-9+/_-]{{0,3}}=*")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}")
_ONLY_HEX = re.compile(r"[0-9a-fA-F-]+")
# Hex of what UTF-8 and UTF-16 write.
_HEX = re.compile(r"(?:[2-7][0-9a-f]|0[09ad]|[cd][0-9a-f][89ab][0-9a-f]|e[0-9a-f](?:[89ab][0-9a-f]){2}){7,}", re.I)
_HEX_TEXT = re.compile(rb"(?:[\x00\t\n\r -~]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}){7,}")
_SAYS_ENOUGH: Final = 16
_SHORTEST_CODE: Final = 3
_NO_DIGITS: Final = bytes(i for i in range(256) if not 48 <= i < 58)
_HEX_DIGITS = re.compile(r"[0-9a-fA-F]{14,}")
_WRAP = re.compile(r"\r?\n")
# Tags of EMV that hold a card's data, with their lengths.
_TLV = re.compile(r"5A ?0[6-9A]|(?:57|9F ?6B) ?(?:0[6-9A-F]|1[0-3])|5F ?2[04]|9F ?(?:0B|1F|20)|56 ?[1-7][0-9A-F]", re.I)
_SPACED_HEX = re.compile(r"(?:[0-9A-Fa-f]{2} ){5}")
_LONG = re.compile(r"[A-Za-z0-9+/_-]{16,}")
_SHORTEST: Final = 8
_SHORT: Final = 16  # base64 below this is read only where it ends in `=`, or stands for digits
_SHORT_HEX: Final = 14
_PADDED = re.compile(r"[A-Za-z0-9+/_-]{9,}=")

_LONG_RUN: Final = b"x" * _SHORT
_LONG_HEX: Final = b"h" * _SHORT_HEX
_IN_BASE64 = bytes(120 if chr(i).isascii() and (chr(i).isalnum() or chr(i) in "+/_-") else 32 for i in range(256))
_IN_HEX = bytes(104 if chr(i) in "0123456789abcdefABCDEF" else 32 for i in range(256))


def may_hold_blob(text: str) -> bool:
    """A quick look that never misses: False means that `blobs_in` gives none."""
    if len(text) < _SHORTEST or (len(text) < _SHORT_HEX and text.islower() and "=" not in text):
        return False
    data = text.encode("utf-8", "replace")
    if _LONG_HEX in data.translate(_IN_HEX) and (_HEX.search(text) or _TLV.search(text)):
        return True
    if _LONG_RUN in data.translate(_IN_BASE64) and any(not _ONLY_HEX.fullmatch(run) for run in _LONG.findall(text)):
        return True
    if _SPACED_HEX.search(text) and _TLV.search(text):
        return True
    return _DIGITS_QUANTUM.search(text) is not None or ("=" in text and _PADDED.search(text) is not None)


def may_be_tlv(text: str) -> bool:
    """Whether a tag of EMV that holds a card's data can be in the text."""
    return _TLV.search(text) is not None


def blobs_in(text: str) -> Iterator[Blob]:
    """What may be base64 (standard or URL-safe, padded or not, wrapped) or hex of something, as bytes."""
    if not may_hold_blob(text):
        return
    for match in _BASE64.finditer(text):
        run = match[0]
        if _ONLY_HEX.fullmatch(run):
            for digits in _HEX_DIGITS.finditer(run):
                yield from _hex_in(digits[0], match.start() + digits.start())
            continue
        if run.isalpha() and (run.islower() or run.isupper()):
            continue
        if len(run) >= _SHORT or run[-1] == "=" or _DIGITS_QUANTUM.search(run):
            yield from _base64_in(run, match.start())


def _hex_in(run: str, start: int) -> Iterator[Blob]:
    """What is text in hex digits, wherever in them its first byte begins."""
    if _HEX.search(run) is None:
        return
    write = bytes.hex if any(c in "abcdef" for c in run) else _upper_hex
    for offset in (0, 1):
        data = bytes.fromhex(run[offset : len(run) - (len(run) - offset) % 2])
        for match in _HEX_TEXT.finditer(data):
            if not _may_say(match[0]):
                continue
            first = start + offset + 2 * match.start()
            yield Blob(first, first + 2 * len(match[0]), match[0], write, is_text=True)


def _may_say(data: bytes) -> bool:
    """Whether a few bytes in the middle of others can be a number, a code, or long enough for a name and its value."""
    return len(data) >= _SAYS_ENOUGH or len(data.translate(None, _NO_DIGITS)) >= _SHORTEST_CODE


def _upper_hex(data: bytes) -> str:
    return data.hex().upper()


def _base64_in(run: str, start: int) -> Iterator[Blob]:
    """The whole run, and each part of it that stands for printable characters where it does not begin at the start."""
    blob = _base64_blob(run, start)
    if blob is not None:
        yield blob
    for match in _PRINTABLE.finditer(run):
        if match.start() % 4 or blob is None:
            part = _base64_blob(match[0], start + match.start())
            if part is not None and _may_say(part.data):
                yield part._replace(is_text=True)
    for found in _HEX_DIGITS.finditer(run):
        yield from _hex_in(found[0], start + found.start())


def _base64_blob(run: str, start: int) -> Blob | None:
    plain = _WRAP.sub("", run).rstrip("=")
    safe = "-" in plain or "_" in plain
    if safe:
        plain = plain.replace("-", "+").replace("_", "/")
    if len(plain) % 4 == 1:
        plain = plain[:-1]
    try:
        data = base64.b64decode(plain + "=" * (-len(plain) % 4))
    except (binascii.Error, ValueError):
        return None
    padded = run.endswith("=")

    def write(new: bytes) -> str:
        text = (base64.urlsafe_b64encode if safe else base64.b64encode)(new).decode()
        return text if padded else text.rstrip("=")

    return Blob(start, start + len(run), data, write)


_SHARE_OF_ZEROS: Final = 3  # every third character of UTF-16 is ASCII, at least


def encodings_of(data: bytes) -> Iterator[str]:
    """How bytes can be read as text: as UTF-16 where many of every other byte are 0, and as UTF-8 or else Latin-1."""
    half = len(data) // 2
    if half >= 4 and len(data) % 2 == 0:
        for encoding, zeros in (("utf-16-le", data[1::2].count(0)), ("utf-16-be", data[::2].count(0))):
            if zeros * _SHARE_OF_ZEROS >= half and _decodes(data, encoding):
                yield encoding
    yield "utf-8" if _decodes(data, "utf-8") else "latin-1"


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
