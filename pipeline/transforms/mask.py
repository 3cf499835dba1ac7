"""Masking of a change, in place, by the policy of each column (tables.toml), for keys, new and old values alike.

Most rows hold no card's data outside their card columns. So a quick look goes first (`quick`), and only what it
suspects is gone through by its type; that reads it in decoded form, and scans its output again (`readable`).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from contract import tables
from contract.changes import Change, Column, Reason, Row, StepError
from contract.tables import TOKEN_SUFFIX
from contract.watched import Policy, WatchedTable, WatchedTables
from pipeline.transforms.cards import CARD_TOKEN, SHORTEST, is_card
from pipeline.transforms.json_text import masked_json
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.members import by_token, card_in_number, quoted
from pipeline.transforms.names import applies, is_card_context, meaning_of, policy_of
from pipeline.transforms.numbers import may_hold_number
from pipeline.transforms.quick import QuickLook
from pipeline.transforms.readable import Reader, applied, mask_number, may_hold

NewColumns = Literal["scan", "hold"]
Scan = Callable[[Any, Reader], Any]
_Kind = Literal["text", "json", "written", "other"]  # written: by Spanner itself, numbers and times

_NUMBERS: Final = ("INT64", "NUMERIC", "PG_NUMERIC")
_FLOATS: Final = ("FLOAT64", "FLOAT32")
_JSONS: Final = ("JSON", "PG_JSONB")
_STRINGS: Final = ("STRING", "UUID", "INTERVAL", "ENUM")
_WRITTEN: Final = ("TIMESTAMP", "DATE", *_NUMBERS)
_SMALLEST_CARD: Final = 10 ** (SHORTEST - 1)
# Between the numbers of a row: digits of two values are not one number.
_APART: Final = " x "


def _may_hold_number_in(rows: tuple[Row, ...], names: tuple[str, ...]) -> bool:
    """One look over what Spanner wrote, numbers and times, in all rows of a change. True where a value has no text."""
    values = [value for row in rows for name in names if (value := row.get(name)) is not None]
    try:
        return may_hold_number(_APART.join(values))
    except TypeError:
        return True


class _NotExpectedError(Exception):
    """A value is not what its type says."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What to do with the columns of a table. Made once for each list of columns."""

    types: dict[str, str]
    renamed: tuple[tuple[str, str], ...]  # columns that a token would hide, and their names in the masked row
    scans: dict[str, Scan]  # every scanned column, by its type
    kinds: dict[str, _Kind]  # the same columns: how a quick look goes over them
    written: tuple[str, ...]  # those that Spanner writes, by every name that they have before and after
    drops: tuple[str, ...]
    holds: tuple[str, ...]
    cards: tuple[tuple[str, bool], ...]  # with whether stars can be there
    tokens: tuple[str, ...]
    identifiers: frozenset[str]
    unclassified: tuple[str, ...]
    named: tuple[tuple[str, Policy], ...]  # unclassified columns whose name says what they hold


class Masker:
    """Masks changes. `new_columns` says what becomes of a column without a policy: scanned, or held back as NULL."""

    def __init__(self, keys: MaskingKeys, watched: WatchedTables, *, new_columns: NewColumns = "hold") -> None:
        if new_columns not in ("scan", "hold"):
            raise ValueError(f"newColumns must be scan or hold, got {new_columns!r}. Set it in Pulumi.<stack>.yaml.")
        self._keys = keys
        self._watched = watched
        self._hold = new_columns == "hold"
        self._plans: dict[tuple[str, tuple[Column, ...]], _Plan] = {}
        self._quick = QuickLook()
        self._last: dict[str, tuple[tuple[Column, ...], _Plan]] = {}

    def mask(self, change: Change) -> tuple[str, ...]:
        """Masks the change in place and returns its columns without a policy that carried a value.

        Raises StepError where a value cannot be masked or a key holds a card number; the change must then not be kept.
        """
        plan = self._plan(change)
        found: set[str] = set()
        tokens: dict[str, str] = {}
        unclassified = self._unclassified(change, plan) if plan.unclassified else ()
        rows = (change.keys, change.new, change.old)
        written = _may_hold_number_in(rows, plan.written)
        for row, identifies in zip(rows, (True, True, False), strict=True):
            if row:
                self._mask_row(row, plan, found, tokens, identifies=identifies, written=written)
        change.card_tokens = sorted(self._card_token(digits, tokens) for digits in found) if found else []
        return unclassified

    def _plan(self, change: Change) -> _Plan:
        columns = change.columns
        last = self._last.get(change.table)
        if last is not None and last[0] is columns:
            return last[1]
        plan = self._plans.get((change.table, columns))
        if plan is None:
            plan = self._plans[change.table, columns] = self._plan_for(self._watched.of(change.table), columns)
        self._last[change.table] = (columns, plan)
        return plan

    def _unclassified(self, change: Change, plan: _Plan) -> tuple[str, ...]:
        rows = (change.keys, change.new, change.old)
        carried = tuple(name for name in plan.unclassified if any(row.get(name) is not None for row in rows))
        if self._hold:
            for row in rows:
                row.update((name, None) for name in carried if name in row)
        return carried

    def _mask_row(
        self, row: Row, plan: _Plan, found: set[str], tokens: dict[str, str], *, identifies: bool, written: bool
    ) -> None:
        """`identifies`: the row says who it is about, so its identifiers stay as they are or are refused.

        What an identifier was before is masked like any text: the change that corrects it must arrive. `written`: the
        numbers and times of the change may hold something.
        """
        if plan.renamed:
            row.update({carried: row.pop(name) for name, carried in plan.renamed if name in row})
        if not row.keys() <= plan.types.keys():
            raise StepError(Reason.NOT_MASKABLE, "a value belongs to none of the record's columns. Report it as a bug.")
        for name in plan.drops:
            row.pop(name, None)
        for name in plan.holds:
            if name in row:
                row[name] = None
        for name, is_text in plan.cards:
            if name in row:
                masked, token = self._card(name, row[name], found, tokens)
                row[name], row[name + TOKEN_SUFFIX] = masked if is_text else None, token
        for name in plan.tokens:
            if name in row:
                row[name + TOKEN_SUFFIX] = self._only_token(name, row.pop(name))
        for name, policy in plan.named:
            if row.get(name) is not None:
                self._mask_named(name, policy, row, plan, found, tokens)
        for name in self._suspects(row, plan, written=written):
            self._scan(name, row, plan, found, identifies=identifies)

    def _suspects(self, row: Row, plan: _Plan, *, written: bool) -> list[str]:
        """The columns of a row that must be gone through; all of them where a value is not what its type says."""
        quick, seen, kinds = self._quick, self._quick.harmless.seen, plan.kinds
        names: list[str] = []
        try:
            for name, value in row.items():
                if value is None:
                    continue
                kind = kinds.get(name)
                if kind == "text":
                    if value not in seen and quick.suspects(value):
                        names.append(name)
                elif kind == "written":
                    if written:
                        names.append(name)
                elif kind == "json":
                    if quick.suspects_json(value):
                        names.append(name)
                elif kind == "other":
                    names.append(name)
        except (TypeError, AttributeError):
            return [name for name in plan.scans if name in row]
        return names

    def _mask_named(
        self, name: str, policy: Policy, row: Row, plan: _Plan, found: set[str], tokens: dict[str, str]
    ) -> None:
        """A new column whose name says that it holds a card's data: what may stay of it stays in its place."""
        value = row[name]
        meaning = meaning_of(name)
        if meaning and not (isinstance(value, str) and applies(meaning, value)) and meaning.startswith("maybe_"):
            return
        is_text = _base(plan.types[name]) in ("STRING", "ARRAY<STRING", "ARRAY<STRING>")
        if policy == "card":
            masked = self._card(name, value, found, tokens)[0]
            row[name] = masked if is_text else None
        elif policy == "token" and isinstance(value, str) and is_text:
            row[name] = self._text_token(name, value) if value.strip() else value
        else:
            row[name] = None

    def _scan(self, name: str, row: Row, plan: _Plan, found: set[str], *, identifies: bool) -> None:
        value = row[name]
        if value is None:
            return
        reader = Reader(set(), self._text_token, harmless=self._quick.harmless)
        try:
            masked = plan.scans[name](value, reader)
        except _NotExpectedError:
            raise _not_maskable(name) from None
        if identifies and name in plan.identifiers:
            if reader.refused_in_identifier:
                raise StepError(
                    Reason.CARD_IN_KEY,
                    f"{name} holds a card number or other data of a card. It identifies the row and is never "
                    "rewritten: correct it in Spanner.",
                )
            return
        found |= reader.found
        row[name] = masked

    def _each(self, value: Any, one: Callable[[Any], tuple[Any, str | None]]) -> tuple[Any, str | None]:
        """Masks a value, or each element of an ARRAY: the tokens of those are in a row."""
        if not isinstance(value, list):
            return (None, None) if value is None else one(value)
        pairs = [self._each(element, one) for element in value]
        return [masked for masked, _ in pairs], ",".join(token for _, token in pairs if token) or None

    def _card(self, name: str, value: Any, found: set[str], tokens: dict[str, str]) -> tuple[Any, str | None]:
        """The value of a card column and its token."""

        def one(element: Any) -> tuple[str, str | None]:
            if isinstance(element, bool) or not isinstance(element, str | int | float):
                raise _not_maskable(name)
            return self._mask_card(element if isinstance(element, str) else format(element, ".0f"), found, tokens)

        return self._each(value, one)

    def _mask_card(self, value: str, found: set[str], tokens: dict[str, str]) -> tuple[str, str | None]:
        """The value of a card column, masked whether or not its check digit is right, and its token."""
        cards: set[str] = set()
        masked = mask_number(value, cards)
        found |= cards
        digits = cards.pop() if len(cards) == 1 and masked.strip("*") else None
        return masked, self._card_token(digits, tokens) if digits else None

    def _card_token(self, digits: str, tokens: dict[str, str]) -> str:
        token = tokens.get(digits)
        if token is None:
            token = tokens[digits] = self._keys.token(CARD_TOKEN, digits)
        return token

    def _only_token(self, name: str, value: Any) -> str | None:
        def one(element: Any) -> tuple[None, str | None]:
            if not isinstance(element, str):
                raise _not_maskable(name)
            return None, self._text_token(name, element) if element.strip() else None

        return self._each(value, one)[1]

    def _text_token(self, name: str, value: str) -> str:
        return self._keys.token(name, " ".join(value.casefold().split()))

    def _plan_for(self, table: WatchedTable, columns: tuple[Column, ...]) -> _Plan:
        types = {tables.masked_name(table, c.name): c.type for c in columns}
        policies = {name: table.policy_of(name) for name in types}
        scanned = {
            name: _base(kind)
            for name, kind in types.items()
            if policies[name] in ("scan", "identifier") or (policies[name] is None and not self._hold)
        }
        cards = {name for name, base in scanned.items() if base in _JSONS and is_card_context(name)}
        keys = {tables.masked_name(table, c.name) for c in columns if c.is_primary_key}

        def of(wanted: Policy | None) -> tuple[str, ...]:
            return tuple(name for name, policy in policies.items() if policy == wanted)

        return _Plan(
            types=types,
            renamed=tuple((c.name, name) for c in columns if (name := tables.masked_name(table, c.name)) != c.name),
            # A JSON column that is a card by its name is always gone through: `code` in it is the card's.
            scans={name: _card_scan(name) if name in cards else self._scan_for(types[name]) for name in scanned},
            kinds={name: "other" if name in cards else _kind(base) for name, base in scanned.items()},
            written=tuple(
                {
                    either
                    for c in columns
                    if (name := tables.masked_name(table, c.name)) in scanned and _kind(scanned[name]) == "written"
                    for either in (name, c.name)
                }
            ),
            drops=of("drop"),
            holds=of("hold"),
            cards=tuple(
                (name, _base(types[name]) in ("STRING", "ARRAY<STRING", "ARRAY<STRING>")) for name in of("card")
            ),
            tokens=of("token"),
            identifiers=frozenset(of("identifier")) | (keys & scanned.keys()),
            unclassified=of(None),
            named=()
            if self._hold
            else tuple((name, policy) for name in of(None) if name not in keys and (policy := policy_of(name))),
        )

    def _scan_for(self, kind: str) -> Scan:
        """How to scan a value of a Spanner type."""
        if kind.upper().startswith("ARRAY<"):
            element = self._scan_for(kind[len("ARRAY<") :].removesuffix(">"))
            base = _base(kind[len("ARRAY<") :].removesuffix(">"))
            return lambda value, reader: _array(value, reader, element, base)
        base = _base(kind).split("<")[0]
        return _SCANS.get(base, _anything)


def _kind(base: str) -> _Kind:
    if base in _STRINGS:
        return "text"
    if base in _WRITTEN:
        return "written"
    return "json" if base in _JSONS else "other"


def _base(spanner_type: str) -> str:
    """The type without its length: `STRING(36)` → `STRING`."""
    return spanner_type.split("(", maxsplit=1)[0].strip().upper()


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _NotExpectedError
    return value


def _text(value: Any, reader: Reader) -> str:
    text = _string(value)
    return reader.text(text) if may_hold(text) else text


def _json(value: Any, reader: Reader) -> str:
    return masked_json(_string(value), reader)


def _card_scan(name: str) -> Scan:
    """How to scan a JSON column that is a card by its name: `code` and `holder` in it are the card's."""
    return lambda value, reader: masked_json(_string(value), reader, name)


def _number(value: Any, reader: Reader) -> str | None:
    """An INT64 or NUMERIC, or None where it is a card number: what is left of one is not a number."""
    digits = card_in_number(_string(value))
    if digits is None:
        return str(value)
    reader.found.add(digits)
    return None


def _float(value: Any, reader: Reader) -> Any:
    if value in ("NaN", "Infinity", "-Infinity"):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _NotExpectedError
    if abs(value) >= _SMALLEST_CARD and is_card(digits := format(abs(value) // 1, ".0f")):
        reader.found.add(digits)
        return None
    return value


def _bytes(value: Any, reader: Reader) -> str:
    try:
        data = base64.b64decode(_string(value), validate=True)
    except (binascii.Error, ValueError):
        raise _NotExpectedError from None
    masked = reader.bytes(data)
    return str(value) if masked == data else base64.b64encode(masked).decode()


def _proto(value: Any, reader: Reader) -> str:
    """Its bytes are read, and it is carried as their base64: that too must not read as a card number."""
    return _text(_bytes(value, reader), reader)


def _bool(value: Any, reader: Reader) -> bool:
    if not isinstance(value, bool):
        raise _NotExpectedError
    return value


def _array(value: Any, reader: Reader, element: Scan, base: str = "") -> list[Any]:
    if not isinstance(value, list):
        raise _NotExpectedError
    values = [None if v is None else element(v, reader) for v in value]
    # BigQuery's ARRAY has no NULL: what is on both sides of one is side by side there.
    there = [v for v in values if v is not None]
    if len(there) < 2 or base in ("BYTES", "PROTO", "BOOL"):
        return values
    masked = iter(_across(there, reader, base))
    return [None if v is None else next(masked) for v in values]


def _across(values: list[Any], reader: Reader, base: str) -> list[Any]:
    """The elements of an array without a card number that is spread over several of them."""
    written = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    text = json.dumps(written, ensure_ascii=False)
    if not may_hold(text):
        return values
    masked = applied(text, by_token(text, reader.edits(text, 0)))
    if masked == text:
        return values

    def kept(before: Any, after: Any) -> Any:
        if before == after:
            return before
        if base in _JSONS:
            return after if _is_json(after) else quoted(after)
        return after if isinstance(before, str) and base not in _NUMBERS else None

    return [
        v if same == after else kept(same, after)
        for v, same, after in zip(values, written, json.loads(masked), strict=True)
    ]


def _is_json(value: Any) -> bool:
    try:
        json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def _anything(value: Any, reader: Reader) -> Any:
    """A value of a type that is not known here, by what it is."""
    if isinstance(value, str):
        return _text(value, reader)
    if isinstance(value, list):
        return _array(value, reader, _anything)
    return value if isinstance(value, bool) else _float(value, reader)


_SCANS: Final[dict[str, Scan]] = {
    **dict.fromkeys((*_STRINGS, "TIMESTAMP", "DATE"), _text),
    **dict.fromkeys(_JSONS, _json),
    **dict.fromkeys(_NUMBERS, _number),
    **dict.fromkeys(_FLOATS, _float),
    "BYTES": _bytes,
    "PROTO": _proto,
    "BOOL": _bool,
}


def _not_maskable(name: str) -> StepError:
    return StepError(
        Reason.NOT_MASKABLE,
        f"the value of {name} is not what its type says, so it cannot be masked. Report it as a bug.",
    )
