"""Rows of a Spanner table as it was at one moment, cut into ranges of keys; values in Spanner's JSON encoding.

The cut is by the table's own keys, so that anybody can read a range again and gets the same rows: the tokens of a
partitioned query would end with their session. With Data Boost each range is read by a partitioned query, on capacity
that is not the instance's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from contract import spanner_types
from contract.changes import Column, Row
from contract.dialects import Dialect, quoted
from pipeline.source.dialect import dialect_of

# The payments' services come first.
_OPTIONS: Final = {"priority": "PRIORITY_LOW"}


@dataclass(frozen=True, kw_only=True)
class Where:
    """A condition on rows in SQL, as `contract.dialects` takes it, and its parameters: name → (type, value).

    An array's type is `ARRAY<STRING>`.
    """

    sql: str = "TRUE"
    parameters: Mapping[str, tuple[str, Any]] = field(default_factory=dict)

    def __and__(self, other: Where) -> Where:
        return Where(sql=f"{self.sql} AND {other.sql}", parameters={**self.parameters, **other.parameters})


@dataclass(frozen=True, kw_only=True)
class KeyRange:
    """The rows after one key up to another one, both as JSON arrays; None: from the first row, to the last one."""

    after: str | None
    last: str | None
    total: int


# Every row; `total` is not known.
ALL: Final = KeyRange(after=None, last=None, total=0)


class TableAt:
    """A table at a moment, of the rows that `where` has. Raises what Spanner's client raises."""

    def __init__(self, database: Any, table: str, moment: datetime, where: Where, *, data_boost: bool = False) -> None:
        self._database = database
        self._table = table
        self._moment = moment
        self._where = where
        self._data_boost = data_boost

    @cached_property
    def _dialect(self) -> Dialect:
        return dialect_of(self._database)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The table's columns, but generated ones; types without their lengths."""
        return tuple(Column(name, kind, order is not None) for name, kind, order, _ in self._described)

    @cached_property
    def keys(self) -> tuple[Column, ...]:
        """The columns of the primary key, in its order."""
        ordered = sorted((order, name, kind) for name, kind, order, _ in self._described if order is not None)
        return tuple(Column(name, kind, True) for _, name, kind in ordered)

    @cached_property
    def _nullable(self) -> frozenset[str]:
        return frozenset(name for name, *_, nullable in self._described if nullable == "YES")

    @cached_property
    def _described(self) -> list[tuple[str, str, int | None, str]]:
        schema, table = self._dialect.of_table(self._table)
        sql = (
            "SELECT c.COLUMN_NAME, c.SPANNER_TYPE, k.ORDINAL_POSITION, c.IS_NULLABLE "
            "FROM INFORMATION_SCHEMA.COLUMNS AS c "
            "LEFT JOIN INFORMATION_SCHEMA.INDEX_COLUMNS AS k ON k.TABLE_SCHEMA = c.TABLE_SCHEMA "
            "AND k.TABLE_NAME = c.TABLE_NAME "
            "AND k.COLUMN_NAME = c.COLUMN_NAME AND k.INDEX_TYPE = 'PRIMARY_KEY' "
            f"WHERE c.TABLE_SCHEMA = '{schema}' AND c.TABLE_NAME = '{table}' AND c.IS_GENERATED = 'NEVER' "
            "ORDER BY c.ORDINAL_POSITION"
        )
        with self._database.snapshot(read_timestamp=self._moment) as snapshot:
            return [
                (name, re.sub(r"\([^)]*\)", "", self._dialect.type(kind)), *rest)
                for name, kind, *rest in snapshot.execute_sql(sql)
            ]

    def count(self) -> int:
        """How many rows there are."""
        [(rows,)] = self._query(f"SELECT COUNT(*) FROM {quoted(self._table)} WHERE {self._where.sql}", self._where)
        return int(_plain(rows))

    def cut(self, most: int, after: str | None = None) -> Iterator[KeyRange]:
        """Ranges of at most `most` rows, of all the rows after a key. What crosses the network is a key and a number
        per range."""
        names = ", ".join(f"`{key.name}`" for key in self.keys)
        while True:
            where = self._where & self._range(after, None)
            sql = (
                f"SELECT {names} FROM {quoted(self._table)} WHERE {where.sql} ORDER BY {names} "
                f"LIMIT 1 OFFSET {most - 1}"
            )
            ends = [json.dumps([_plain(value) for value in row]) for row in self._query(sql, where)]
            if not ends:
                break
            yield KeyRange(after=after, last=ends[0], total=most)
            after = ends[0]
        [(left,)] = self._query(f"SELECT COUNT(*) FROM {quoted(self._table)} WHERE {where.sql}", where)
        if rest := int(_plain(left)):
            yield KeyRange(after=after, last=None, total=rest)

    def rows(self, within: KeyRange) -> Iterator[Row]:
        """The rows of a range, by column name, in any order."""
        names = [column.name for column in self.columns]
        where = self._where & self._range(within.after, within.last)
        sql = f"SELECT {', '.join(f'`{name}`' for name in names)} FROM {quoted(self._table)} WHERE {where.sql}"
        for row in self._partitions(sql, where) if self._data_boost else self._query(sql, where):
            yield dict(zip(names, map(_plain, row), strict=True))

    def keyed(self, keys: Sequence[Sequence[Any]]) -> Iterator[Row]:
        """The rows of these primary keys, those that are there; parts of a key in Spanner's JSON encoding, in order."""
        names = [column.name for column in self.columns]
        return read_keys(self._database, self._table, names, self._moment, keys, _OPTIONS["priority"])

    def _query(self, sql: str, where: Where) -> Iterator[Any]:
        query = self._dialect.query(sql, *_parameters(where))
        with self._database.snapshot(read_timestamp=self._moment) as snapshot:
            yield from snapshot.execute_sql(**query, request_options=_OPTIONS, lazy_decode=True)

    def _partitions(self, sql: str, where: Where) -> Iterator[Any]:
        query = self._dialect.query(sql, *_parameters(where))
        snapshot = self._database.batch_snapshot(read_timestamp=self._moment)
        try:
            for part in snapshot.generate_query_batches(**query, data_boost_enabled=self._data_boost):
                yield from snapshot.process_query_batch(part, lazy_decode=True)
        finally:
            snapshot.close()

    def _range(self, after: str | None, last: str | None) -> Where:
        where = Where()
        for name, bound, further in (("after", after, ">"), ("last", last, "<")):
            if bound is not None:
                where &= self._beyond(name, json.loads(bound), further, inclusive=name == "last")
        return where

    def _beyond(self, name: str, bound: list[Any], further: str, *, inclusive: bool) -> Where:
        """Keys beyond a bound: Spanner compares no tuples, so each column counts where those before it are equal."""
        names = [f"{name}{number}" for number in range(len(bound))]
        equal = [
            f"`{key.name}` IS NULL" if value is None else f"`{key.name}` = @{n}"
            for key, n, value in zip(self.keys, names, bound, strict=True)
        ]
        arms = [
            " AND ".join([*equal[:number], self._compared(key.name, further, n, value)])
            for number, (key, n, value) in enumerate(zip(self.keys, names, bound, strict=True))
        ]
        if inclusive:
            arms.append(" AND ".join(equal))
        known = zip(names, self.keys, bound, strict=True)
        parameters = {n: (key.type, value) for n, key, value in known if value is not None}
        return Where(sql=f"({' OR '.join(arms)})", parameters=parameters)

    def _compared(self, column: str, further: str, parameter: str, bound: Any) -> str:
        """A column of the key beyond its bound; NULL sorts before every value."""
        if bound is None:
            return f"`{column}` IS NOT NULL" if further == ">" else "FALSE"
        or_null = f" OR `{column}` IS NULL" if further == "<" and column in self._nullable else ""
        return f"(`{column}` {further} @{parameter}{or_null})" if or_null else f"`{column}` {further} @{parameter}"


def read_keys(
    database: Any,
    table: str,
    names: Sequence[str],
    moment: datetime,
    keys: Sequence[Sequence[Any]],
    priority: str,
    **options: Any,
) -> Iterator[Row]:
    """Columns of the rows of these primary keys at a moment, those that are there; all in Spanner's JSON encoding."""
    from google.cloud.spanner_v1 import KeySet

    wanted = KeySet(keys=[list(key) for key in keys])
    with database.snapshot(read_timestamp=moment) as snapshot:
        asked = {"priority": priority}
        for row in snapshot.read(table, list(names), wanted, request_options=asked, lazy_decode=True, **options):
            yield dict(zip(names, map(_plain, row), strict=True))


def watched_columns(database: Any, stream: str, table: str, moment: datetime) -> frozenset[str]:
    """The columns of a table that a change stream watches by their names; none where it watches all."""
    dialect = dialect_of(database)
    schema, name = dialect.of_table(table)
    query = dialect.query(
        "SELECT COLUMN_NAME FROM INFORMATION_SCHEMA.CHANGE_STREAM_COLUMNS "
        "WHERE CHANGE_STREAM_NAME = @stream AND TABLE_SCHEMA = @schema AND TABLE_NAME = @table",
        {"stream": stream, "schema": schema, "table": name},
        dict.fromkeys(("stream", "schema", "table"), _type("STRING")),
    )
    with database.snapshot(read_timestamp=moment) as snapshot:
        rows = snapshot.execute_sql(**query)
        return frozenset(column for (column,) in rows)


def _parameters(where: Where) -> tuple[dict[str, Any], dict[str, Any]]:
    values = {name: value for name, (_, value) in where.parameters.items()}
    return values, {name: _type(kind) for name, (kind, _) in where.parameters.items()}


def _type(kind: str) -> Any:
    from google.cloud.spanner_v1 import Type, TypeAnnotationCode, TypeCode

    if kind in spanner_types.ANNOTATED:
        return Type(code=TypeCode[spanner_types.ANNOTATED[kind]], type_annotation=TypeAnnotationCode[kind])
    if kind.startswith("ARRAY<"):
        return Type(code=TypeCode.ARRAY, array_element_type=_type(kind[6:-1]))
    return Type(code=TypeCode[kind])


def _plain(value: Any) -> Any:
    """A protocol buffer's Value as JSON; `MessageToDict` takes ten times as long."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [_plain(each) for each in value.list_value.values]
    return None if kind == "null_value" else getattr(value, kind)
