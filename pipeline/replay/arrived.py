"""Which rows of a backfill BigQuery has already: a key of which the changelog has a row from before came by the stream.

Once the resume position is past the moment, no earlier change is on its way, and the answer changes no more. So one
query is of the keys of many shards, and reads the columns of the key alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contract import reading, tables, timestamps
from contract.changes import Column, Row
from contract.watched import WatchedTable
from pipeline.sink import rows as encoding
from pipeline.sink.changelogs import Destinations, names_in
from pipeline.source.table_rows import ALL, KeyRange

Key = tuple[Any, ...]
QUESTION: Final = "keys of a backfill"
# Masking leaves these as they are in a key, or refuses the row: two keys stay two.
_CARRIED: Final = ("identifier", "scan")
# Types by whose order a range of keys is one in BigQuery too.
_ORDERED: Final = ("STRING", "INT64")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Arrived:
    """The keys of a range that have a row, and the bytes that were read to know it."""

    keys: frozenset[Key]
    bytes_read: int


class Keys:
    """The primary key of a table's rows, as BigQuery has it. `keys`: the columns of the primary key, in its order."""

    def __init__(self, table: WatchedTable, columns: tuple[Column, ...], keys: tuple[Column, ...]) -> None:
        self._table, self._columns, self._first = table, columns, keys[0]
        self.hidden = [key.name for key in keys if table.policy_of(key.name) not in _CARRIED]
        carried = {c.field.source: c for c in encoding.source_columns(columns, table) if c.is_key}
        names = [] if self.hidden else [key.name for key in keys]
        # Of each column of the key its name, and how the sink makes BigQuery's value of it.
        self._parts = [(name, carried[tables.masked_name(table, name)]) for name in names]

    def of_row(self, row: Row) -> Key:
        """The key of a row of Spanner's, as the changelog would have it."""
        return tuple(None if row[name] is None else part.convert(row[name]) for name, part in self._parts)

    def is_exact(self, row: Row) -> bool:
        """Whether BigQuery has the whole key of a row: its times end at microseconds: two could be one."""
        times = (row[name] for name, part in self._parts if part.field.type == "TIMESTAMP")
        return all(time is None or timestamps.normalise(time).endswith("000Z") for time in times)

    def arrived(
        self, client: Any, destinations: Destinations, within: KeyRange, moment: datetime, most_bytes: int
    ) -> Arrived:
        """The keys of a range of which BigQuery has a row of `moment` or before. Raises what its client raises."""
        job = self._query(client, destinations, within, moment, maximum_bytes_billed=most_bytes)
        if job is None:
            return Arrived(frozenset(), 0)
        found = frozenset(tuple(map(_plain, row.values())) for row in job.result())
        return Arrived(found, int(job.total_bytes_processed or 0))

    def estimate(self, client: Any, destinations: Destinations, moment: datetime) -> int:
        """The bytes that BigQuery says such a query would read at most, of any range: it does not know clusters."""
        job = self._query(client, destinations, ALL, moment, dry_run=True, use_query_cache=False)
        return int(job.total_bytes_processed or 0) if job else 0

    def _query(
        self, client: Any, destinations: Destinations, within: KeyRange, moment: datetime, **options: Any
    ) -> Any:
        """The query job; None where the changelog, or its column of the key, is not there."""
        from google.api_core.exceptions import NotFound
        from google.cloud.bigquery import QueryJobConfig, ScalarQueryParameter

        name = destinations.id(self._table.name)
        try:
            known = {field.name.casefold(): field for field in client.get_table(name).schema}
        except NotFound:
            return None
        names = names_in(known, encoding.fields(self._columns, self._table))
        columns = [names[part.field.name] for _, part in self._parts]
        if any(column.casefold() not in known for column in columns):
            return None
        bounds, values = self._bounds(columns[0], within)
        kind = self._first.type
        parameters = [
            ScalarQueryParameter("moment", "TIMESTAMP", moment),
            *(ScalarQueryParameter(n, kind, int(v) if kind == "INT64" else v) for n, v in values.items()),
        ]
        listed = ", ".join(f"`{column}`" for column in columns)
        return client.query(
            f"SELECT DISTINCT {listed} FROM `{name}` WHERE {tables.COMMIT_TIMESTAMP} <= @moment{bounds}",
            job_config=QueryJobConfig(query_parameters=parameters, **options),
        )

    def _bounds(self, column: str, within: KeyRange) -> tuple[str, Mapping[str, Any]]:
        """The range by the first column of the key, which the table is clustered by; NULL sorts before every value."""
        if self._first.type not in _ORDERED:
            return "", {}
        low, high = (json.loads(bound)[0] if bound else None for bound in (within.after, within.last))
        sql, values = "", {}
        if low is not None:
            sql, values = f" AND `{column}` >= @low", {"low": low}
        if within.last:
            up_to = f"`{column}` <= @high" if high is not None else "FALSE"
            sql += f" AND {up_to}" if low is not None else f" AND ({up_to} OR `{column}` IS NULL)"
            values |= {"high": high} if high is not None else {}
        return sql, values


def _plain(value: Any) -> Any:
    """A value of BigQuery's client as the sink's conversion makes it."""
    return (value - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


def limit(changes_a_second: float) -> int:
    """The most that a query of keys may read, at a stack's design load."""
    return reading.limit(QUESTION, reading.Layout(changes_per_second=changes_a_second), reading.Asked())
