"""Filtering: what `ignoreFields`, `ignoreTables`, `ignoreOperations` and `ignoreTransactionTags` leave out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self

from contract.changes import Change
from contract.tables import SOURCE_PREFIX, TOKEN_SUFFIX
from pipeline.source.records import DataChange

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_FIELD = re.compile(rf"(?:({_NAME}(?:\.{_NAME})?)\.)?({_NAME})")
_TABLE = re.compile(rf"{_NAME}(?:\.{_NAME})?")


@dataclass(frozen=True)
class Ignored:
    """Tables and columns to leave out, casefolded. `fields` holds the columns by table; None is every table."""

    fields: dict[str | None, frozenset[str]] = field(default_factory=dict)
    tables: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, fields: str = "", tables: str = "") -> Self:
        """Reads the two options: comma separated `table.column` or `column`, and tables.

        Raises ValueError with the rule when one is not such a name.
        """
        columns: dict[str | None, set[str]] = {}
        for part in _parts(fields):
            match = _FIELD.fullmatch(part)
            if not match:
                raise ValueError(f"ignoreFields must be table.column or column, comma separated, got {part!r}.")
            # What masking makes of a column is left out with it. Spanner's names do not differ by case.
            names = [match[2], match[2] + TOKEN_SUFFIX]
            if match[2].casefold().endswith(TOKEN_SUFFIX):
                # Where a token goes by that name, a row has the column under another.
                names.append(SOURCE_PREFIX + match[2])
            columns.setdefault(match[1] and match[1].casefold(), set()).update(name.casefold() for name in names)
        for part in _parts(tables):
            if not _TABLE.fullmatch(part):
                raise ValueError(f"ignoreTables must be tables, comma separated, got {part!r}.")
        return cls(
            {table: frozenset(names) for table, names in columns.items()},
            frozenset(t.casefold() for t in _parts(tables)),
        )

    def columns_of(self, table: str) -> frozenset[str]:
        """The names to leave out of a table's rows, casefolded."""
        return self.fields.get(table.casefold(), frozenset()) | self.fields.get(None, frozenset())


@dataclass(frozen=True)
class IgnoredRecords:
    """Data change records that are left out whole, before anything is done with them.

    `operations` and `tags` (of transactions) leave out changes of rows whose other changes are kept.
    """

    tables: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, tables: str = "", operations: str = "", tags: str = "") -> Self:
        """Reads the options, whose form `contract.options` has checked."""
        return cls(
            frozenset(table.casefold() for table in _parts(tables)),
            frozenset(_parts(operations)),
            frozenset(_parts(tags)),
        )

    def __bool__(self) -> bool:
        return bool(self.tables or self.operations or self.tags)

    @property
    def rows_differ(self) -> bool:
        """Whether BigQuery's newest row of a key may be older than Spanner's."""
        return bool(self.operations or self.tags)

    def __contains__(self, record: DataChange) -> bool:
        return (
            record.mod_type in self.operations
            or record.transaction_tag in self.tags
            or record.table.casefold() in self.tables
        )


def keep(change: Change, ignored: Ignored) -> bool:
    """Takes the ignored columns out of the change; False when the whole change is left out.

    That is a change of an ignored table, and an UPDATE that touches ignored columns only. Keys are never taken out.
    """
    if change.table.casefold() in ignored.tables:
        return False
    if not ignored.fields:
        return True
    columns = ignored.columns_of(change.table)
    touched = change.old.keys() or change.new.keys()
    if change.mod_type == "UPDATE" and touched and all(name.casefold() in columns for name in touched):
        return False
    for row in (change.new, change.old):
        for name in [name for name in row if name.casefold() in columns]:
            del row[name]
    return True


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
