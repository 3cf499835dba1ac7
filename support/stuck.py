"""Stuck payments: those in a Status for longer than its limit.

Spanner's status index knows them, also while the audit is down: the probe seeks them there once a minute, and appends
what it saw to a table. People are shown the last of these looks, which reads an hour of that table.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain, islice, pairwise, zip_longest
from typing import Any, Final

from contract import payments, queries, tables
from contract.dialects import Dialect, beside, quoted
from contract.watched import WatchedTable
from pipeline.source.dialect import dialect_of
from pipeline.transforms.cards import hide_cards, holds_card
from support.bigquery_rest import Row
from support.warehouse import Warehouse

# A higher count says nothing else, and costs.
_COUNTED: Final = 10_000
# The most payments that a look keeps. Far below what one request of insertAll takes.
MOST: Final = 1_000
# The probe looks once a minute.
_LATE: Final = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """A payment that was stuck when somebody looked: since when, for how many seconds, and how many are allowed."""

    puid: str
    status: str
    since: datetime
    seconds: int
    limit_seconds: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """Status → number of stuck payments, and the longest stuck of each Status, 1,000 in all."""

    counts: dict[str, int]
    payments: tuple[Stuck, ...]


@dataclass(frozen=True, kw_only=True)
class Look:
    """The last look; `at` is None where there was none for an hour. `warning` says why it may be out of date."""

    at: datetime | None
    payments: tuple[Stuck, ...]
    warning: str


# ---------------------------------------------------------------------------------------------------- the source


@dataclass
class _Query:
    """Arms of a UNION ALL, each a seek in the index where the description names one, and their parameters."""

    payments: WatchedTable
    dialect: Dialect
    arms: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def name(self, value: Any) -> str:
        name = f"p{len(self.values)}"
        self.values[name] = value
        return name

    def add(self, condition: str, limit: datetime) -> None:
        """An arm: a seek of each shard, in the order of the index, so that it sorts nothing and ends at its LIMIT."""
        table, index = self.payments, self.payments.status_index
        changed = f"`{table.column('changed')}`"
        # The hint has the whole name of an index in one pair of quotes.
        hint = f"@{{FORCE_INDEX=`{beside(table.name, index.name)}`}}" if index else ""
        rows = (
            f"SELECT {self.status} AS status, `{table.column('payment')}` AS payment, {changed} AS since "
            f"FROM {quoted(table.name)}{hint}"
        )
        condition += f" AND {changed} < @{self.name(limit)} ORDER BY {self.status}, {changed}"
        shard, shards = (index.shard, index.shards) if index else ("", 1)
        self.arms.append(self.dialect.first_of_shards(rows, condition, shard, shards, _COUNTED))

    @property
    def status(self) -> str:
        return f"`{self.payments.column('status')}`"


def seek(
    database: Any,
    payments_table: WatchedTable,
    limits: Mapping[str, int],
    ends: frozenset[str],
    now: datetime,
    *,
    options: Any = None,
) -> Found:
    """The payments that have not changed for longer than the limit of their Status, counted and by their ids.

    Every Status with a limit has a count, and others that were found. What it reads are the stuck payments, and those
    in a Status that nobody mapped: one query, which seeks in the index alone. At most 10,000 of each are counted. A
    payment without a time of change is not judged; a column must mean `changed`. `options` are request options, such as
    a priority.
    """
    query = _Query(payments_table, dialect_of(database))
    named = sorted(limits.keys() - {payments.ANY})
    for status in named:
        query.add(f"{query.status} = @{query.name(status)}", now - timedelta(seconds=limits[status]))
    for condition in _unmapped(query, sorted({*named, *ends})):
        query.add(condition, now - timedelta(seconds=limits[payments.ANY]))
    found = [
        Stuck(
            puid=str(puid),
            # As in the changelog: a card number is in no table, and in no label of a series.
            status=hide_cards(status, set()),
            since=since,
            seconds=int((now - since).total_seconds()),
            limit_seconds=limits.get(status, limits[payments.ANY]),
        )
        for status, puid, since in _rows(database, query, options)
    ]
    counts = dict.fromkeys(named, 0) | Counter(each.status for each in found)
    return Found(counts=counts, payments=tuple(islice(_longest(found), MOST)))


def _rows(database: Any, query: _Query, options: Any) -> list[Any]:
    from google.cloud.spanner_v1 import param_types

    types = {
        name: param_types.TIMESTAMP if isinstance(value, datetime) else param_types.STRING
        for name, value in query.values.items()
    }
    sql = " UNION ALL ".join(query.arms)
    # A read of what was a moment ago takes no lock and no leader.
    with database.snapshot(exact_staleness=timedelta(seconds=1)) as snapshot:
        return list(snapshot.execute_sql(**query.dialect.query(sql, query.values, types), request_options=options))


def _unmapped(query: _Query, mapped: list[str]) -> Iterator[str]:
    """The Statuses that nobody has mapped, as the ranges between those that somebody has: an index can seek those."""
    if not mapped:
        yield f"{query.status} IS NOT NULL"
        return
    yield f"{query.status} < @{query.name(mapped[0])}"
    for low, high in pairwise(mapped):
        yield f"{query.status} > @{query.name(low)} AND {query.status} < @{query.name(high)}"
    yield f"{query.status} > @{query.name(mapped[-1])}"


def _longest(found: list[Stuck]) -> Iterator[Stuck]:
    """The longest stuck of each Status, then the second of each, and so on; none whose id masking refuses."""
    by_status: dict[str, list[Stuck]] = defaultdict(list)
    for each in sorted(found, key=lambda each: each.since):
        by_status[each.status].append(each)
    ranks = zip_longest(*by_status.values())
    return (each for each in chain.from_iterable(ranks) if each and not holds_card(each.puid))


# ------------------------------------------------------------------------------------------------- the warehouse


def keep(warehouse: Warehouse, found: Found, now: datetime) -> None:
    """Appends a look to the table. Raises WarehouseError."""
    rows: list[Row] = [
        {"puid": e.puid, "status": e.status, "status_since": e.since.isoformat(), "limit_seconds": e.limit_seconds}
        for e in found.payments
    ]
    # Where nothing is stuck, a row says that somebody looked.
    look = [{"seen_at": now.isoformat(), **row} for row in rows or [{}]]
    table = tables.stuck_payments_seen(warehouse.connection.watched).id
    warehouse.append(table, {f"{now.isoformat()}/{number}": row for number, row in enumerate(look)})


def stuck(warehouse: Warehouse, *, limit: int = MOST) -> Look:
    """The payments that were stuck at the last look, the longest first. Raises WarehouseError."""
    watched = warehouse.connection.watched.payments
    payment, status = (f"`{tables.named(watched, meaning)}`" for meaning in ("payment", "status"))
    rows = warehouse.rows(
        f"SELECT seen_at, CAST({payment} AS STRING) AS puid, {status} AS status, status_since AS since, "
        "TIMESTAMP_DIFF(seen_at, status_since, SECOND) AS seconds, limit_seconds "
        f"FROM {warehouse.view(queries.PAYMENT_STUCK)} ORDER BY seconds DESC, puid LIMIT {int(limit)}"
    )
    seen = {row.pop("seen_at") for row in rows}
    at = max(seen) if seen else None
    found = tuple(Stuck(**row) for row in rows if row["puid"] is not None)
    return Look(at=at, payments=found, warning=_warning(at))


def warning(warehouse: Warehouse) -> str:
    """Why the last look may be out of date; empty where it is not. Raises WarehouseError."""
    return stuck(warehouse, limit=1).warning


def _warning(at: datetime | None) -> str:
    if at is None:
        return (
            "Nobody has looked for stuck payments for an hour. The probe does so once a minute, where a column means "
            "`changed`: does it run?"
        )
    if datetime.now(UTC) - at > _LATE:
        return f"Stuck payments are as of {at:%H:%M:%S} UTC. The probe looks once a minute: does it run?"
    return ""
