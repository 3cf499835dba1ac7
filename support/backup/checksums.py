"""Checksums of tables, partition by partition, made by BigQuery in one query over all columns, in any order of rows.

A row's fingerprint is FARM_FINGERPRINT of its JSON; a partition's checksum is their sum. The sum is of two halves, so
that a partition of two thousand million rows does not overflow INT64. It notices an accident, and whoever alters a
snapshot; who knows the function could still choose values of the same sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from support.backup.records import Backed, Sum
from support.bigquery_rest import Parameter, Row
from support.warehouse import Warehouse

_HALF: Final = 2**31
_FORMATS: Final = {"HOUR": ("%Y%m%d%H", 10), "DAY": ("%Y%m%d", 8), "MONTH": ("%Y%m", 6), "YEAR": ("%Y", 4)}


class Source(NamedTuple):
    """A table to be read: `dataset.name`, as it is or as it was at `at`."""

    name: str
    at: datetime | None = None

    def sql(self, project: str) -> str:
        moment = f" FOR SYSTEM_TIME AS OF TIMESTAMP '{self.at.isoformat(sep=' ')}'" if self.at else ""
        return f"`{project}.{self.name}`{moment}"


class Found(NamedTuple):
    """Of one source and partition: all rows, and those that had arrived before the moment that was named."""

    all: Sum
    settled: Sum


NOTHING: Final = Found(Sum(), Sum())


def compute(
    warehouse: Warehouse,
    table: Backed,
    sources: Mapping[str, Source],
    partitions: Sequence[str],
    columns: Sequence[str],
    *,
    settled: datetime,
    most_bytes: int,
) -> dict[str, dict[str, Found]]:
    """The checksums over these columns of some partitions in several sources of one table, by source and partition.

    Rows that arrived before `settled` have separate sums. BigQuery refuses to read more than `most_bytes`. Raises
    WarehouseError.
    """
    if not partitions:
        return {name: {} for name in sources}
    where, parameters = within(table, partitions)
    project, listed = warehouse.connection.project, ", ".join(f"`{name}`" for name in columns)
    sides = "\nUNION ALL\n".join(
        f"SELECT '{name}' AS side, FORMAT_TIMESTAMP('{_FORMATS[table.partition][0]}', `{table.partition_by}`) AS part, "
        f"COALESCE(`{table.arrived}` < @settled, TRUE) AS settled, FARM_FINGERPRINT(TO_JSON_STRING(t)) AS print "
        f"FROM (SELECT {listed} FROM {source.sql(project)} WHERE {where}) AS t"
        for name, source in sources.items()
    )
    sql = (
        f"SELECT side, part, settled, COUNT(*) AS n, SUM(DIV(print, {_HALF})) AS high, SUM(MOD(print, {_HALF})) AS low "
        f"FROM (\n{sides}\n) GROUP BY side, part, settled"
    )
    answer = warehouse.answer(sql, {**parameters, "settled": settled}, most_bytes=most_bytes)
    found: dict[str, dict[str, Found]] = {name: {} for name in sources}
    for row in answer.rows:
        part = Sum(row["n"], int(row["high"]) * _HALF + int(row["low"]))
        before = found[row["side"]].get(row["part"], NOTHING)
        settled_rows = before.settled.plus(part) if row["settled"] else before.settled
        found[row["side"]][row["part"]] = Found(before.all.plus(part), settled_rows)
    return found


def unlike(
    warehouse: Warehouse,
    table: Backed,
    one: Source,
    other: Source,
    partition: str,
    columns: Sequence[str],
    *,
    most: int,
    most_bytes: int,
) -> list[Row]:
    """Rows of a partition that two sources do not have alike: `key`, and `what`: added (to the first), removed,
    altered or doubled. Raises WarehouseError."""
    where, parameters = within(table, [partition])
    project, listed = warehouse.connection.project, ", ".join(f"`{name}`" for name in columns)
    sides = [
        f"SELECT `{table.key}` AS key, COUNT(*) AS n, "
        f"SUM(MOD(FARM_FINGERPRINT(TO_JSON_STRING(t)), {_HALF})) AS print "
        f"FROM (SELECT {listed} FROM {source.sql(project)} WHERE {where}) AS t GROUP BY key"
        for source in (one, other)
    ]
    return warehouse.answer(
        f"SELECT COALESCE(a.key, b.key) AS key, CASE WHEN b.key IS NULL THEN 'added' WHEN a.key IS NULL THEN 'removed' "
        "WHEN a.n <> b.n THEN 'doubled' ELSE 'altered' END AS what "
        f"FROM ({sides[0]}) AS a FULL JOIN ({sides[1]}) AS b ON a.key = b.key "
        "WHERE a.key IS NULL OR b.key IS NULL OR a.n <> b.n OR a.print <> b.print "
        f"ORDER BY key LIMIT {most}",
        parameters,
        most_bytes=most_bytes,
    ).rows


def within(table: Backed, partitions: Iterable[str]) -> tuple[str, dict[str, Parameter]]:
    """A condition that reads these partitions and no other, and its parameters."""
    parameters: dict[str, Parameter] = {}
    terms = []
    for number, (low, high) in enumerate(_ranges(table, partitions)):
        parameters |= {f"low{number}": low, f"high{number}": high}
        terms.append(f"(`{table.partition_by}` >= @low{number} AND `{table.partition_by}` < @high{number})")
    return f"({' OR '.join(terms)})", parameters


def _ranges(table: Backed, partitions: Iterable[str]) -> list[tuple[datetime, datetime]]:
    """From the ids of partitions, what lies side by side joined."""
    found: list[tuple[datetime, datetime]] = []
    for name in sorted(partitions):
        low = datetime.strptime(name, _FORMATS[table.partition][0]).replace(tzinfo=UTC)
        high = _next(low, table.partition)
        if found and found[-1][1] == low:
            low = found.pop()[0]
        found.append((low, high))
    return found


def _next(low: datetime, partitioning: str) -> datetime:
    match partitioning:
        case "HOUR":
            return low + timedelta(hours=1)
        case "DAY":
            return low + timedelta(days=1)
        case "MONTH":
            return (low + timedelta(days=31)).replace(day=1)
    return low.replace(year=low.year + 1)


def is_partition(table: Backed, name: str | None) -> bool:
    """Whether it is the id of a partition with a time: not `__NULL__`, and not what is not partitioned yet."""
    return bool(name) and str(name).isdigit() and len(str(name)) == _FORMATS[table.partition][1]
