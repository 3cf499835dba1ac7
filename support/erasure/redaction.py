"""Redaction in BigQuery: statements that take what is personal out of rows that are there.

What they leave is what the pipeline makes of a change of an erased customer (pipeline/transforms/erase.py): a
validation finds both alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from contract import tables
from contract.watched import WatchedTable
from pipeline.transforms.erase import is_erased_with_customer

# Payments of a statement: their ids are in its parameters.
AT_ONCE: Final = 1_000
# Columns that hold values of others, by the names that masking leaves.
_BY_SOURCE: Final = (tables.OLD_VALUES, tables.EXACT_VALUES)
# The API's names of types, where SQL has other ones.
_SQL: Final = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


@dataclass(frozen=True, kw_only=True)
class Redaction:
    """What is done to a changelog, or to the state, which has its columns. `name` is as SQL takes it.

    `columns` are the table's own, as BigQuery's client gives them.
    """

    name: str
    table: WatchedTable
    columns: Sequence[Any]

    def statement(self, rows: str) -> str:
        """Redacts the rows for which a condition holds; deletes those of a table that says no payment."""
        if not self._of_payments:
            return f"DELETE FROM {self.name} WHERE {rows}"
        return f"UPDATE {self.name} SET {', '.join(self._set())} WHERE {rows}"

    def count(self, rows: str) -> str:
        """How many of the rows still have something to take out."""
        left = f"({' OR '.join(self._left())})" if self._of_payments else "TRUE"
        return f"SELECT COUNT(*) AS found FROM {self.name} WHERE ({rows}) AND {left}"

    def of_payments(self) -> str:
        """The condition for the rows of `@payments`; empty where the table names none."""
        column = tables.named(self.table, "payment")
        return f"`{column}` IN UNNEST(@payments)" if column else ""

    def of_customer(self) -> str:
        """The condition for the rows that name `@customer` and no payment."""
        column = tables.named(self.table, "payment")
        return f"{tables.CUSTOMER_ID} = @customer" + (f" AND `{column}` IS NULL" if column else "")

    @property
    def _of_payments(self) -> bool:
        return self.table.column("payment") is not None

    @property
    def _names(self) -> list[str]:
        """The columns that are emptied."""
        from pipeline.sink.changelogs import field_of

        carried = {
            name.casefold()
            for source in self.table.columns
            if is_erased_with_customer(self.table, source)
            for own in [tables.column_name(self.table, source)]
            for name in (own, own + tables.TOKEN_SUFFIX, source + tables.TOKEN_SUFFIX)
        }
        return [column.name for column in self.columns if field_of(column) in carried]

    @property
    def _repeated(self) -> list[Any]:
        return [column for column in self.columns if column.mode == "REPEATED"]

    @property
    def _by_source(self) -> list[str]:
        return [column.name for column in self.columns if column.name in _BY_SOURCE]

    @property
    def _paths(self) -> list[str]:
        """Where old and exact values have them."""
        sources = [source for source in self.table.columns if is_erased_with_customer(self.table, source)]
        names = dict.fromkeys(
            name
            for source in sources
            for name in (tables.masked_name(self.table, source), source + tables.TOKEN_SUFFIX)
        )
        return [f"'$.\"{name}\"'" for name in names]

    def _set(self) -> Iterable[str]:
        repeated = {column.name: _SQL.get(column.field_type, column.field_type) for column in self._repeated}
        for name in self._names:
            yield f"`{name}` = {f'ARRAY<{repeated[name]}>[]' if name in repeated else 'NULL'}"
        yield f"{tables.CARD_TOKENS} = ARRAY<STRING>[]"
        yield f"{tables.CUSTOMER_ID} = NULL"
        yield f"{tables.ACTING_USER} = {self._service()}"
        for values in self._by_source if self._paths else ():
            rest = f"JSON_REMOVE({values}, {', '.join(self._paths)})"
            yield f"{values} = IF(TO_JSON_STRING({rest}) = '{{}}', NULL, {rest})"

    def _left(self) -> Iterable[str]:
        repeated = {column.name for column in self._repeated}
        for name in self._names:
            yield f"ARRAY_LENGTH(`{name}`) > 0" if name in repeated else f"`{name}` IS NOT NULL"
        yield f"ARRAY_LENGTH({tables.CARD_TOKENS}) > 0"
        yield f"{tables.CUSTOMER_ID} IS NOT NULL"
        for values in self._by_source:
            for path in self._paths:
                yield f"JSON_QUERY({values}, {path}) IS NOT NULL"

    def _service(self) -> str:
        """Who acted, where no person is named: the service (pipeline/transforms/enrich.py)."""
        column, source = tables.named(self.table, "service"), self.table.column("service")
        if column is None or is_erased_with_customer(self.table, str(source)):
            return "NULL"
        old = f"JSON_VALUE({tables.OLD_VALUES}, '$.\"{source}\"')"
        return f"NULLIF(IF({tables.MOD_TYPE} = 'DELETE', {old}, `{column}`), '')"
