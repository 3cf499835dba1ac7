"""What can be read in a text, however it is encoded, and the text without it.

`Reader.text` looks at a text as it is written, and in what it decodes to, at most three levels deep: escapes (percent,
HTML entities, `\\u`), JSON, base64 and hex inside it. It scans its result again, until nothing is found;
what still gives something away then leaves as stars. So what is detected and what is masked are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pipeline.transforms import emv
from pipeline.transforms.encodings import (
    Edit,
    blobs_in,
    edits_outside,
    encodings_of,
    escapes_in,
    is_escaped,
    may_hold_blob,
    unescaped,
)
from pipeline.transforms.members import json_edits, may_be_json, objects_in
from pipeline.transforms.named import Token, may_be_named, named_in, starred
from pipeline.transforms.numbers import (
    HIDDEN_ALREADY,
    LONGEST,
    SHORTEST,
    Card,
    digits_of,
    is_surely_card,
    may_hold_number,
    numbers_in,
    shorten,
)

# Three encodings around a text, and the grammar that it is written in (a query string, XML, JSON) is one more.
LEVELS: Final = 4
_PASSES: Final = 3
_SHORTEST: Final = 6  # characters: `cvv123`
_REMEMBERED: Final = 64  # characters of a text that is remembered
_MOST_REMEMBERED: Final = 20_000

MaskCard = Callable[[str], str]

# What follows a card number on a magnetic stripe, and where fields are written side by side: `PAN|12|27|737`.
_STRIPE = re.compile(r"\s{0,3}[=Dd]{1,2}\s{0,3}[0-9]{4,}[0-9A-Za-z]*|\s{0,3}\^[^^\n?]{2,40}\^?\s{0,3}[0-9]*")
_BESIDE = re.compile(
    r"""[\s|;:,/\-"']{1,5}((?:0[1-9]|1[0-2])[\s|/\-]?(?:20)?[2-4][0-9]|20[2-4][0-9][/\-](?:0[1-9]|1[0-2])(?!-))(?![0-9/])"""
    r"""(?:[\s|;:,/\-"']{1,5}([0-9]{3,4})(?![0-9]))?"""
)


def may_hold(text: str, depth: int = 0) -> bool:
    """A quick look that never misses: False means that nothing can be found in the text."""
    if may_hold_number(text) or may_be_named(text) or may_hold_blob(text):
        return True
    return depth < LEVELS and is_escaped(text) and may_hold(unescaped(text), depth + 1)


class Harmless:
    """Texts in which nothing was found, so that the words that every row has are looked at once."""

    def __init__(self, longest: int = _REMEMBERED, most: int = _MOST_REMEMBERED) -> None:
        self.seen: set[str] = set()
        self._longest = longest
        self._most = most

    def add(self, text: str) -> None:
        if len(text) <= self._longest:
            if len(self.seen) >= self._most:
                self.seen.clear()
            self.seen.add(text)


class Reader:
    """Reads texts and gives them back masked. `found` gets the card numbers, `named` counts the other things.

    `token(name, value)` makes the token of a holder's name, which becomes stars without it; `mask_card` masks what a
    name says is a card number.
    """

    def __init__(
        self,
        found: set[str],
        token: Token | None = None,
        mask_card: MaskCard | None = None,
        harmless: Harmless | None = None,
    ) -> None:
        self.found = found
        self.harmless = harmless or Harmless()
        self.named = 0
        self.token = token
        self.mask_card = mask_card or (lambda value: mask_number(value, found))

    @property
    def refused_in_identifier(self) -> bool:
        """Whether what was found makes a text no identifier: a number may be one by chance, a card's rarely is."""
        return bool(self.named) or any(is_surely_card(digits) for digits in self.found)

    def text(self, text: str, depth: int = 0) -> str:
        """The text masked. What cannot be masked in its place becomes stars as a whole."""
        if len(text) < _SHORTEST or text in self.harmless.seen:
            return text
        for _ in range(_PASSES):
            edits = self.edits(text, depth)
            if not edits:
                if depth == 0:
                    self.harmless.add(text)
                return text
            text = applied(text, edits)
        return text if not self.edits(text, depth) else starred(text)

    def bytes(self, data: bytes, depth: int = 0, *, is_text: bool = False, is_blob: bool = False) -> bytes:
        """The same of bytes: as text and, unless they are known to be one, as EMV TLV and packed BCD."""
        for encoding in encodings_of(data):
            text = data.decode(encoding, "surrogateescape")
            if may_hold(text, depth):
                masked = self.text(text, depth)
                if masked != text:
                    data = masked.encode(encoding, "surrogateescape")
        pieces = [] if is_text else emv.bytes_in(data, is_text=encoding != "latin-1", is_blob=is_blob)
        if not pieces:
            return data
        self._note(pieces)
        digits = data.hex()
        return bytes.fromhex(applied(digits, _apart(digits, [piece.edit for piece in pieces])).replace("*", "f"))

    def edits(self, text: str, depth: int, *, as_json: bool = True) -> list[Edit]:
        """What is to change in a text, in order and apart; `as_json`: also by its grammar if it is JSON."""
        edits: list[Edit] = []
        cards = numbers_in(text)
        if depth < LEVELS and is_escaped(text):
            if inner := self.edits(unescaped(text), depth + 1):
                edits += edits_outside(text, inner)
            cards = _not_of_escapes(text, cards, edits) if cards else cards
        for card in cards:
            self.found.add(card.digits)
            edits += _edits_of(text, card)
        pieces = emv.hex_in(text)
        self._note(pieces)
        edits += [piece.edit for piece in pieces]
        named = named_in(text, self.token, beside_card=bool(cards or self.found))
        self.named += len(named)
        edits += named
        if depth < LEVELS:
            if as_json:
                edits = self._in_json(text, depth + 1) + edits  # of two as wide, the one that leaves it JSON
            edits += self._in_blobs(text, depth + 1)
        return _apart(text, [edit for edit in edits if edit.new != text[edit.start : edit.end]])

    def _in_json(self, text: str, depth: int) -> list[Edit]:
        """The text as JSON, or the JSON that is in it."""
        text = text.replace("\u00a0", " ")
        if may_be_json(text):
            return json_edits(text, self, depth)
        edits: list[Edit] = []
        for start, end in objects_in(text) if may_be_named(text) else ():
            inner = json_edits(text[start:end], self, depth)
            edits += [Edit(start + edit.start, start + edit.end, edit.new) for edit in inner]
        return edits

    def _in_blobs(self, text: str, depth: int) -> list[Edit]:
        edits = []
        for blob in blobs_in(text):
            masked = self.bytes(blob.data, depth, is_text=blob.is_text, is_blob=True)
            if masked != blob.data:
                edits.append(Edit(blob.start, blob.end, blob.write(masked)))
        return edits

    def _note(self, pieces: list[emv.Found]) -> None:
        for piece in pieces:
            if piece.number:
                self.found.add(piece.number)
            else:
                self.named += 1


def applied(text: str, edits: list[Edit]) -> str:
    """The text after edits that are in order and apart."""
    parts: list[str] = []
    done = 0
    for start, end, new in edits:
        parts += (text[done:start], new)
        done = end
    return "".join((*parts, text[done:]))


def mask_number(value: str, found: set[str]) -> str:
    """What a name says is a card number, masked whether or not its check digit is right; anything else as stars."""
    digits = digits_of(value)
    if SHORTEST <= len(digits) <= LONGEST:
        found.add(digits)
        return shorten(digits)
    if HIDDEN_ALREADY.fullmatch(value):
        return value
    found |= {card.digits for card in numbers_in(value)}
    return "*" * len(value)


def _not_of_escapes(text: str, cards: list[Card], edits: list[Edit]) -> list[Card]:
    """The cards without those that are made of the digits of escapes, where these were read and masked."""
    escaped = {place for start, end in escapes_in(text) for place in range(start, end)}

    def is_apart(card: Card) -> bool:
        first, last = card.positions[0], card.positions[-1]
        return escaped.isdisjoint(card.positions) or not any(e.start <= last and first < e.end for e in edits)

    return [card for card in cards if is_apart(card)]


def _edits_of(text: str, card: Card) -> list[Edit]:
    """Stars for the middle of a card number, and for what follows it on a stripe or in a list of its fields."""
    first, last = card.positions[6], card.positions[-5]
    hidden = set(card.positions[6:-4])
    edits = [Edit(first, last + 1, "".join("*" if i in hidden else text[i] for i in range(first, last + 1)))]
    after = card.positions[-1] + 1
    if stripe := _STRIPE.match(text, after):
        edits.append(Edit(*stripe.span(), starred(stripe[0])))
    elif beside := _BESIDE.match(text, after):
        edits += [Edit(*beside.span(i), starred(beside[i])) for i in (1, 2) if beside[i]]
    return edits


def _apart(text: str, edits: list[Edit]) -> list[Edit]:
    """Edits in order that do not meet: of two the wider one, and stars where neither has the other in it."""
    if len(edits) < 2:
        return edits
    edits.sort(key=lambda edit: (edit.start, -edit.end))
    kept = [edits[0]]
    for edit in edits[1:]:
        last = kept[-1]
        if edit.start >= last.end:
            kept.append(edit)
        elif _is_stars(text, last) and _is_stars(text, edit):
            start, end = last.start, max(last.end, edit.end)
            both = [*text[start:end]]
            for first, _, new in (last, edit):
                for i, c in enumerate(new, first - start):
                    both[i] = "*" if c == "*" else both[i]
            kept[-1] = Edit(start, end, "".join(both))
        elif edit.end > last.end:
            kept[-1] = Edit(last.start, edit.end, starred(text[last.start : edit.end]))
    return kept


def _is_stars(text: str, edit: Edit) -> bool:
    """Whether an edit only puts stars in the place of characters."""
    before = text[edit.start : edit.end]
    return len(edit.new) == len(before) and all(new in ("*", old) for new, old in zip(edit.new, before, strict=True))
