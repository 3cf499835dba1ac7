"""What was committed against what arrived, row by row: missing, doubled, different.

Pure. The committed side is the strict Spanner's ledger, the arrived side the rows of the strict BigQuery. Neither knows
the pipeline: values are compared by the columns' own types, but for those that masking rewrites.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from contract import tables
from contract.changes import change_id
from tests.shipped import PAYMENTS

_REWRITTEN: Final = frozenset(
    name for name, column in PAYMENTS.columns.items() if column.policy in ("card", "token", "drop")
)


@dataclass(kw_only=True)
class Comparison:
    """Changes by id and table, as a dead letter has them: `dead` are those that became one and must not."""

    committed: int = 0
    arrived: int = 0
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.missing or self.doubled or self.different or self.extra or self.dead)

    def __str__(self) -> str:
        counts = f"{len(self.missing)} missing, {len(self.doubled)} doubled, {len(self.different)} different"
        more = "".join(
            f", {len(found)} {what}" for found, what in ((self.extra, "extra"), (self.dead, "dead letters")) if found
        )
        return f"{self.committed:,} committed, {self.arrived:,} arrived, {counts}{more}"


@dataclass(frozen=True, kw_only=True)
class Committed:
    """A change as the strict Spanner committed it, with its values in Spanner's JSON encoding.

    `id` has the table in it: one transaction can give the same change id in two streams.
    """

    id: str
    table: str
    mod_type: str
    keys: Mapping[str, Any]
    new: Mapping[str, Any]
    old: Mapping[str, Any]

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Committed:
        """From a line of the ledger."""
        at = (line["commit_timestamp"], line["server_transaction_id"], line["record_sequence"], line["mod_index"])
        fields = {name: line[name] for name in ("table", "mod_type", "keys", "new", "old")}
        return cls(id=f"{change_id(*at)}@{line['table']}", **fields)


def compare(
    committed: Iterable[Committed], rows: Iterable[Mapping[str, Any]], dead: Iterable[str] = (), *, doubles: bool = True
) -> Comparison:
    """Compares changes with rows and the ids of dead letters. `doubles` False: doubled rows are not a fault."""
    found = Comparison()
    by_id: dict[str, Mapping[str, Any]] = {}
    times: Counter[str] = Counter()
    for row in rows:
        row_id = f"{row[tables.CHANGE_ID]}@{row[tables.TABLE_NAME]}"
        by_id[row_id] = row
        times[row_id] += 1
    letters = set(dead)
    expected = set()
    for change in committed:
        expected.add(change.id)
        found.committed += 1
        row_of_it = by_id.get(change.id)
        if row_of_it is None:
            (found.dead if change.id in letters else found.missing).append(change.id)
            continue
        found.arrived += 1
        if fault := difference(change, row_of_it):
            found.different.append(f"{change.id}: {fault}")
    if doubles:
        found.doubled = [row_id for row_id, count in times.items() if count > 1]
    found.extra = sorted(by_id.keys() - expected)
    return found


def difference(change: Committed, row: Mapping[str, Any]) -> str | None:
    """The first column in which a row differs from its change; its name, never its value."""
    if row[tables.MOD_TYPE] != change.mod_type:
        return tables.MOD_TYPE
    if row[tables.TABLE_NAME] != change.table:
        return tables.TABLE_NAME
    for name, value in {**change.keys, **change.new}.items():
        if name not in _REWRITTEN and not _arrived(name, value, row):
            return name
    stored = json.loads(row[tables.OLD_VALUES]) if row[tables.OLD_VALUES] else {}
    for name, value in change.old.items():
        if name not in _REWRITTEN and stored.get(name) != value and not _same_json(value, stored.get(name)):
            return f"old {name}"
    return None


def _arrived(name: str, value: Any, row: Mapping[str, Any]) -> bool:
    """Whether the row has the value. A column whose type changed has one more column, `<name>_<type>`."""
    held = [row[found] for found in row if found == name or found.startswith(f"{name}_")]
    held = [each for each in held if each not in (None, [])]
    if value is None or value == []:
        return not held
    return any(_same(value, each) for each in held)


def _same(value: Any, arrived: Any) -> bool:
    """Whether a value in Spanner's JSON encoding is what arrived, by the type in which it arrived."""
    if isinstance(arrived, list):
        kept = [v for v in value if v is not None]
        return len(kept) == len(arrived) and all(map(_same, kept, arrived))
    if isinstance(arrived, str):
        return value == arrived or _same_json(value, arrived)
    try:
        ours = _READ[type(arrived)](value)
    except (ValueError, TypeError, ArithmeticError):
        return False
    if isinstance(ours, float) and math.isnan(ours):
        return bool(math.isnan(arrived))
    return bool(ours == arrived)


def _same_json(value: Any, arrived: Any) -> bool:
    try:
        return bool(json.loads(value) == json.loads(arrived))
    except (ValueError, TypeError):
        return False


def _timestamp(text: str) -> datetime:
    base, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(base).replace(tzinfo=UTC) + timedelta(microseconds=int(f"{fraction:0<6}"[:6]))


_READ: Final[dict[type, Callable[[Any], Any]]] = {
    int: int,
    Decimal: Decimal,
    float: float,
    bool: bool,
    datetime: _timestamp,
    date: date.fromisoformat,
    bytes: base64.b64decode,
}
