"""Stuck payments: how many are in a Status for longer than its limit. Asked of Spanner, so it is known while the
audit itself is down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from contract import payments
from contract.watched import WatchedTable

# A higher count says nothing else, and costs.
_COUNTED: Final = 10_000


@dataclass
class _Query:
    """Arms of a UNION ALL, each a seek in the index where the description names one, and their parameters."""

    payments: WatchedTable
    arms: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def name(self, value: Any) -> str:
        name = f"p{len(self.values)}"
        self.values[name] = value
        return name

    def add(self, condition: str, limit: datetime) -> None:
        table, index = self.payments, self.payments.status_index
        hint = f"@{{FORCE_INDEX=`{index.name}`}}" if index else ""
        shards = (
            f"`{index.shard}` IN UNNEST(GENERATE_ARRAY(0, {index.shards - 1})) AND " if index and index.shard else ""
        )
        self.arms.append(
            f"SELECT {self.status} AS status, COUNT(*) FROM (SELECT {self.status} FROM `{table.name}`{hint} "
            f"WHERE {shards}{condition} AND `{table.column('changed')}` < @{self.name(limit)} LIMIT {_COUNTED}) "
            "GROUP BY status"
        )

    @property
    def status(self) -> str:
        return f"`{self.payments.column('status')}`"


def stuck_payments(
    database: Any,
    payments_table: WatchedTable,
    limits: Mapping[str, int],
    ends: frozenset[str],
    now: datetime,
    *,
    options: Any = None,
) -> dict[str, int]:
    """Status → payments that have not changed for longer than its limit; every Status with a limit, and others found.

    What it reads are the stuck payments, and those in a Status that nobody mapped: the index is sought, not scanned. At
    most 10,000 of each are counted. A payment without a time of change is not judged, and none where no column means
    `changed`. `options` are request options, such as a priority.
    """
    from google.cloud.spanner_v1 import param_types

    if not payments_table.column("changed"):
        return {}
    query = _Query(payments_table)
    named = sorted(limits.keys() - {payments.ANY})
    for status in named:
        query.add(f"{query.status} = @{query.name(status)}", now - timedelta(seconds=limits[status]))
    for condition in _unmapped(query, sorted({*named, *ends})):
        query.add(condition, now - timedelta(seconds=limits[payments.ANY]))
    types = {
        name: param_types.TIMESTAMP if isinstance(value, datetime) else param_types.STRING
        for name, value in query.values.items()
    }
    found = dict.fromkeys(named, 0)
    # A read of what was a moment ago takes no lock and no leader.
    with database.snapshot(exact_staleness=timedelta(seconds=1)) as snapshot:
        sql = " UNION ALL ".join(query.arms)
        for status, number in snapshot.execute_sql(
            sql, params=query.values, param_types=types, request_options=options
        ):
            found[status] = found.get(status, 0) + number
    return found


def _unmapped(query: _Query, mapped: list[str]) -> Iterator[str]:
    """The Statuses that nobody has mapped, as the ranges between those that somebody has: an index can seek those."""
    if not mapped:
        yield f"{query.status} IS NOT NULL"
        return
    yield f"{query.status} < @{query.name(mapped[0])}"
    for low, high in pairwise(mapped):
        yield f"{query.status} > @{query.name(low)} AND {query.status} < @{query.name(high)}"
    yield f"{query.status} > @{query.name(mapped[-1])}"
