"""Masks inside a JSON text without parsing it into values: what is not masked keeps its text, to the last digit.

Member names, strings and numbers are looked at. A member whose name has a meaning (`cvv`, `cardNumber`, or `number`
within `card`) gets the policy of it: dropped ones become null, so no security code or expiry is stored. The same where
name and value are separate members: `{"name": "cvv", "value": "737"}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

import orjson

from contract.watched import Policy
from pipeline.transforms.encodings import Edit
from pipeline.transforms.named import starred
from pipeline.transforms.names import applies, is_card_context, meaning_of, policy_of
from pipeline.transforms.numbers import HIDDEN_ALREADY, LONGEST, digits_of, is_card, shorten

if TYPE_CHECKING:
    from pipeline.transforms.readable import Reader

# Numbers too short to be a card's are passed over, but for those with an exponent.
_TOKEN = re.compile(
    r'"(?:[^"\\]++|\\.)*+"|-?[0-9][0-9.]{11,}(?:[eE][+-]?[0-9]+)?|-?[0-9.]+[eE][+-]?[0-9]+|[{}\[\]]', re.S
)
_EVERY_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|-?[0-9][0-9.eE+-]*|true|false|null|[{}\[\]]', re.S)
_OBJECT = re.compile(r'(?:\[\s{0,16})?\{\s{0,16}"')
_MOST_OBJECTS: Final = 8
_IS_NAME = re.compile(r"\s*:\s*")
_BEGINS = re.compile(r"\s*[{\[]")
_NAMED: Final = frozenset(
    {"name", "key", "field", "fieldname", "param", "parameter", "attribute", "label", "id", "type", "k", "tag"}
)
_VALUES: Final = frozenset({"value", "val", "content", "text", "data", "v", "stringvalue"})
_WHOLES: Final = frozenset({"details", "detail", "data", "info", "attributes", "payload", "object", "value"})
_SAYS_CARD: Final = frozenset({"type", "object", "kind", "method", "number", "no"})
_SHORT_CODES: Final = frozenset({"code", "security", "cid"})
_OF_CARDS: Final = _SAYS_CARD | _SHORT_CODES | {"holder", "owner", "name", "month", "year"}
_SCALAR: Final = '"-0123456789tfn'
_TOKEN_TEXT = re.compile(r'"v[0-9]+:[0-9a-f]{32}"')


def may_be_json(text: str) -> bool:
    """Whether a text begins as JSON does that holds something."""
    return _BEGINS.match(text) is not None


def objects_in(text: str) -> Iterator[tuple[int, int]]:
    """Where JSON objects and arrays of them are in a text that is more than that; a few of them."""
    at = 0
    for _ in range(_MOST_OBJECTS):
        begin = _OBJECT.search(text, at)
        if begin is None:
            return
        at = begin.end()
        depth = 0
        for token in _EVERY_TOKEN.finditer(text, begin.start()):
            depth += (token[0] in "{[") - (token[0] in "}]")
            if depth == 0:
                at = token.end()
                yield begin.start(), at
                break


@dataclass(slots=True)
class _Object:
    """An object or array on the way to a token: the name that it is under, and what its members said so far."""

    name: str
    named: str = ""
    value: tuple[int, int] | None = None
    is_card: bool = False  # a member says so: `"type": "card"`, or a card number
    is_named_card: bool = False  # the first of these: then also its `name` is its holder's
    waiting: list[tuple[str, int, int]] = field(default_factory=list)  # members that are a card's if it is one


def json_edits(text: str, reader: Reader, depth: int, within: str = "") -> list[Edit]:
    """What is to change in a JSON text, in order; nothing where it does not parse.

    Strings in it are `depth` levels deep. `within` is the name of what holds the text: a column.
    """
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return []
    return _in_order([e for e in _Members(text, reader, depth, within).edits() if e.new != text[e.start : e.end]])


def _in_order(edits: list[Edit]) -> list[Edit]:
    """Edits from left to right: what a name that came later says of a value goes before what was found in it."""
    kept: list[Edit] = []
    done = -1
    for _, edit in sorted(enumerate(edits), key=lambda each: (each[1].start, -each[1].end, -each[0])):
        if edit.start >= done:
            kept.append(edit)
            done = edit.end
    return kept


class _Members:
    """One pass over the tokens of a JSON text."""

    def __init__(self, text: str, reader: Reader, depth: int, within: str = "") -> None:
        self.text = text
        self.within = within
        self.reader = reader
        self.depth = depth
        self.beside_card = bool(reader.found)

    def edits(self) -> Iterator[Edit]:
        text = self.text
        path = [_Object(self.within)]
        name, name_end, done = "", -1, 0
        for match in _TOKEN.finditer(text):
            start, end = match.span()
            if start < done:
                continue
            first = text[start]
            if first in "{[":
                path.append(_Object(self._name_of(name, path[-1]) if name_end == start else path[-1].name))
            elif first in "}]":
                if len(path) > 1:
                    path.pop()
            elif first == '"' and (colon := _IS_NAME.match(text, end)):
                name, name_end = plain_of(match[0]), colon.end()
                masked = self._scanned(match[0])
                if masked != match[0]:
                    yield Edit(start, end, masked)
                for edit in self._member(name, name_end, path[-1]):
                    yield edit
                    done = edit.end
            else:
                masked = self._scanned(match[0])
                if masked != match[0]:
                    yield Edit(start, end, masked)

    def _member(self, name: str, at: int, parent: _Object) -> Iterator[Edit]:
        """What becomes of the value at a place for its name's sake, or of a value beside that its content names."""
        context = parent.name if parent.name and is_card_context(parent.name) else ""
        policy = policy_of(name, context)
        if policy is None:
            yield from self._pair(name, at, parent)
            yield from self._beside(name, at, parent)
            return
        start, end = at, self._end_of_value(at)
        meaning = meaning_of(name, context)
        value = self.text[start:end]
        if meaning and not applies(meaning, plain_of(value), beside_card=self.beside_card):
            return
        new = self._under(name, policy, value)
        if new is not None:
            yield Edit(start, end, new)

    @staticmethod
    def _name_of(name: str, parent: _Object) -> str:
        """What the members of an object are within: `details` of a card are the card's."""
        return parent.name if name.lower() in _WHOLES and is_card_context(parent.name) else name

    def _beside(self, name: str, at: int, parent: _Object) -> Iterator[Edit]:
        """Plain names (`holder`, `code`) in an object that says itself that it is a card."""
        if self.text[at] not in _SCALAR or name.lower() not in _OF_CARDS:
            return
        end = self._end_of_value(at)
        plain = plain_of(self.text[at:end])
        if name.lower() in _SAYS_CARD:
            parent.is_named_card |= is_card_context(plain)
            parent.is_card |= parent.is_named_card or is_card(digits_of(plain))
        else:
            parent.waiting.append((name, at, end))
        if parent.is_card:
            waiting, parent.waiting = parent.waiting, []
            for each, first, after in waiting:
                if each.lower() == "name" and not parent.is_named_card:
                    continue
                if each.lower() in _SHORT_CODES and not applies("maybe_code", plain_of(self.text[first:after])):
                    continue
                new = self._under(each, policy_of(each, "card") or "drop", self.text[first:after])
                if new is not None:
                    yield Edit(first, after, new)

    def _pair(self, name: str, at: int, parent: _Object) -> Iterator[Edit]:
        lower = name.lower()
        if lower in _NAMED and self.text[at] == '"':
            named = plain_of(self.text[at : self._end_of_value(at)])
            if policy_of(named):
                parent.named = named
                if parent.value:
                    yield from self._named_value(parent, *parent.value)
        elif lower in _VALUES:
            if parent.named:
                yield from self._named_value(parent, at, self._end_of_value(at))
            elif self.text[at] in _SCALAR:
                parent.value = (at, self._end_of_value(at))

    def _named_value(self, parent: _Object, start: int, end: int) -> Iterator[Edit]:
        policy = policy_of(parent.named)
        meaning = meaning_of(parent.named)
        value = self.text[start:end]
        if policy and (meaning is None or applies(meaning, plain_of(value), beside_card=self.beside_card)):
            new = self._under(parent.named, policy, value)
            if new is not None:
                yield Edit(start, end, new)

    def _under(self, name: str, policy: Policy, value: str) -> str | None:  # noqa: PLR0911 - one case per line
        """A value under a policy; None where it is scanned like any other."""
        if value == "null" or _TOKEN_TEXT.fullmatch(value):
            return value
        if policy == "card":
            if value[0] not in '"-0123456789':
                return None
            plain = plain_of(value)
            if is_card(plain):
                self.reader.found.add(plain)
                return quoted(shorten(plain))
            if HIDDEN_ALREADY.fullmatch(plain):
                return value
            masked = self.reader.mask_card(plain)
            return value if masked == plain else quoted(masked)
        self.reader.named += 1
        if policy == "token" and value[0] == '"':
            plain = plain_of(value)
            if not plain.strip("* "):
                return value
            return quoted(self.reader.token(name, plain) if self.reader.token else starred(plain))
        return "null"

    def _scanned(self, token: str) -> str:
        """A string or a number with what can be read in it masked."""
        if token[0] == '"':
            plain = plain_of(token)
            masked = self.reader.text(plain, self.depth)
            return token if masked == plain else quoted(masked)
        digits = card_in_number(token)
        if digits is None:
            return token
        self.reader.found.add(digits)
        return quoted(shorten(digits))

    def _end_of_value(self, at: int) -> int:
        depth = 0
        for token in _EVERY_TOKEN.finditer(self.text, at):
            depth += (token[0] in "{[") - (token[0] in "}]")
            if depth == 0:
                return token.end()
        return len(self.text)


def by_token(text: str, edits: list[Edit]) -> list[Edit]:
    """Edits of a JSON text that keep it JSON: within a string they stay, a number that they touch becomes a string."""
    kept: list[Edit] = []
    waiting = iter(edits)
    edit = next(waiting, None)
    for token in _EVERY_TOKEN.finditer(text):
        if edit is None:
            break
        start, end = token.span()
        parts: list[str] = []
        done, piece = start, token[0]
        is_text = piece[0] == '"'
        while edit is not None and edit.start < end:
            begin, stop = max(edit.start, start + is_text), min(edit.end, end - is_text)
            if begin < stop and (is_text or piece[0] in "-0123456789"):
                within = edit.start >= start + is_text and edit.end <= end - is_text
                parts += (text[done:begin], _inside(edit.new) if within else starred(text[begin:stop]))
                done = stop
            if edit.end > end:
                break
            edit = next(waiting, None)
        if parts:
            new = "".join((*parts, text[done:end]))
            kept.append(Edit(start, end, new if is_text else quoted(new)))
    return kept


def _inside(new: str) -> str:
    return json.dumps(new, ensure_ascii=False)[1:-1]


def card_in_number(text: str) -> str | None:
    """The digits of a card number written as a number (`4111111111111111`, `4.1e15`, `…1111.5`), or None."""
    digits = text.lstrip("-")
    if not digits.isdigit():
        try:
            number = Decimal(digits)
        except InvalidOperation:
            return None
        if not number.is_finite() or number.adjusted() >= LONGEST:
            return None
        digits = str(int(number))
    return digits if is_card(digits) else None


def plain_of(token: str) -> str:
    """What a JSON string says; any other token as it is."""
    if token[:1] != '"':
        return token
    return str(json.loads(token, strict=False)) if "\\" in token else token[1:-1]


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
