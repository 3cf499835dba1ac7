"""The first look, nearly free where nothing is found: most rows hold nothing, and say it in words seen before.

What was looked at and holds nothing is remembered: whole short texts, and the pieces of JSON between quotes (names, and
values of few kinds). It never misses what `readable` finds: a text is passed over only where no number, escape or blob
is in it, and none of its words says what its value is.
"""

from __future__ import annotations

import re
from itertools import filterfalse

from pipeline.transforms.encodings import is_escaped, may_hold_blob
from pipeline.transforms.json_text import has_exponent, is_special
from pipeline.transforms.named import may_be_named, says_something
from pipeline.transforms.numbers import numbers_in
from pipeline.transforms.readable import Harmless, Reader

# Ids that each row has its own of: not remembered, and quick to check. Their last group has no TLV and no hex of a
# text.
_ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[:,\[{]{0,4}-?[0-9][0-9.]{0,10}[:,\]}]{0,4}"
)


class QuickLook:
    """Which texts may hold something. One for each Masker: it remembers what held nothing."""

    def __init__(self) -> None:
        self.harmless = Harmless()
        self._pieces = Harmless()
        # What a row held before a change it held after the one before that: mostly the same document.
        self._documents = Harmless(longest=4000, most=2000)

    def suspects(self, text: str) -> bool:
        """Whether a text must be gone through."""
        if _ID.fullmatch(text) or text in self.harmless.seen:
            return False
        if is_escaped(text) or numbers_in(text) or not _says_nothing(text):
            return True
        self.harmless.add(text)
        return False

    def suspects_json(self, text: str) -> bool:
        """Whether a JSON text must be gone through."""
        if text in self._documents.seen:
            return False
        if is_escaped(text) or numbers_in(text) or (text[:1] not in '{["' and is_special(text)):
            return True
        pieces = self._pieces
        is_id = _ID.fullmatch
        for piece in filterfalse(pieces.seen.__contains__, text.split('"')):
            if not is_id(piece):
                if has_exponent(piece) or not _says_nothing(piece, is_piece=True):
                    return True
                pieces.add(piece)
        self._documents.add(text)
        return False


def _says_nothing(text: str, *, is_piece: bool = False) -> bool:
    if may_be_named(text) and says_something(text, is_piece=is_piece):
        return False
    return not (may_hold_blob(text) and Reader(set()).edits(text, 0))
