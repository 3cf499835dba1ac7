"""Filtering: what the options `ignoreFields` and `ignoreTables` leave out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self

from contract.changes import Change
from contract.tables import TOKEN_SUFFIX, masked_name

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_FIELD = re.compile(rf"(?:({_NAME}(?:\.{_NAME})?)\.)?({_NAME})")
_TABLE = re.compile(rf"{_NAME}(?:\.{_NAME})?")


@dataclass(frozen=True)
class Ignored:
    """Tables and columns to leave out. `fields` holds the columns by table; None stands for every table."""

    fields: dict[str | None, frozenset[str]] = field(default_factory=dict)
    tables: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, fields: str = "", tables: str = "") -> Self:
        """Reads the two options: comma separated `table.column` or `column`, and tables.

        Raises ValueError with the rule when one is no such name.
        """
        columns: dict[str | None, set[str]] = {}
        for part in _parts(fields):
            match = _FIELD.fullmatch(part)
            if not match:
                raise ValueError(f"ignoreFields must be table.column or column, comma separated, got {part!r}.")
            # What masking makes of a column is left out with it.
            columns.setdefault(match[1], set()).update((match[2], match[2] + TOKEN_SUFFIX, masked_name(match[2])))
        for part in _parts(tables):
            if not _TABLE.fullmatch(part):
                raise ValueError(f"ignoreTables must be tables, comma separated, got {part!r}.")
        return cls({table: frozenset(names) for table, names in columns.items()}, frozenset(_parts(tables)))

    def columns_of(self, table: str) -> frozenset[str]:
        return self.fields.get(table, frozenset()) | self.fields.get(None, frozenset())


def keep(change: Change, ignored: Ignored) -> bool:
    """Takes the ignored columns out of the change; False when the whole change is to be left out.

    That is a change of an ignored table, and an UPDATE that touches ignored columns only. Keys are never taken out.
    """
    if change.table in ignored.tables:
        return False
    if not ignored.fields:
        return True
    columns = ignored.columns_of(change.table)
    touched = change.old.keys() or change.new.keys()
    if change.mod_type == "UPDATE" and touched and touched <= columns:
        return False
    for row in (change.new, change.old):
        for name in columns & row.keys():
            del row[name]
    return True


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
