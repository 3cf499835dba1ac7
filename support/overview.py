"""What the home page of the console shows: payments by state, what is stuck, why payments fail, how complete it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contract import payments, queries, tables
from support import dead_letters, reports
from support.bigquery_rest import Row
from support.search import Payment, Search, search
from support.stuck import stuck
from support.warehouse import Warehouse

_HOUR: Final = timedelta(hours=1)
_LATEST: Final = 8
_REASONS: Final = 6


@dataclass(frozen=True, kw_only=True)
class Minute:
    """The payments that began, were processed and failed in a minute."""

    at: datetime
    began: int
    processed: int
    failed: int

    @property
    def until(self) -> datetime:
        return self.at + timedelta(minutes=1)

    @property
    def quiet(self) -> bool:
        return not (self.began or self.processed or self.failed)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """One look at the stack. `states` are those of the payments that changed in the last hour, `reasons` why payments
    failed in it, the most frequent first. `bytes_read` is BigQuery's count for the look.

    `stuck` counts to a thousand; None where the probe has not looked lately.
    """

    at: datetime
    complete_until: datetime | None
    states: dict[str, int]
    minutes: tuple[Minute, ...]
    reasons: tuple[Row, ...]
    latest: tuple[Payment, ...]
    stuck: int | None
    dead_letters: dict[str, int]
    bytes_read: int = 0


def overview(warehouse: Warehouse) -> Overview:
    """Looks at everything, query by query. Raises WarehouseError, and what the dead letters' store raises."""
    now, read_before = datetime.now(UTC), warehouse.bytes_read
    by_minute = reports.run(warehouse, "summary_by_period", since=now - _HOUR, until=now, period_seconds=60)
    found = search(warehouse, Search(since=now - _HOUR, limit=_LATEST))
    seen = stuck(warehouse)
    return Overview(
        at=datetime.now(UTC),
        complete_until=found.complete_until,
        states=_states(warehouse, now - _HOUR),
        minutes=_minutes(by_minute.rows, now),
        reasons=reports.run(warehouse, "failures_by_reason", since=now - _HOUR, until=now).rows[:_REASONS],
        latest=found.payments,
        stuck=None if seen.warning else len(seen.payments),
        dead_letters={str(k): number for k, number in dead_letters.queue(warehouse.connection).counts().items()},
        bytes_read=warehouse.bytes_read - read_before,
    )


def _minutes(rows: Iterable[Row], now: datetime) -> tuple[Minute, ...]:
    """Every minute of the last hour, those too in which nothing happened."""
    known = {row["period"]: row for row in rows}
    last = now.replace(second=0, microsecond=0)
    every = (last - timedelta(minutes=ago) for ago in range(59, -1, -1))
    return tuple(
        Minute(at=at, **{name: known[at][name] if at in known else 0 for name in ("began", "processed", "failed")})
        for at in every
    )


def _states(warehouse: Warehouse, since: datetime) -> dict[str, int]:
    """State → payments of which the last change is since then. A deleted one has none."""
    key = f"`{tables.named(warehouse.connection.watched.payments, 'payment')}`"
    newest = f"ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY {tables.CHANGE_ID} DESC) AS _newest"
    sql = (
        f"SELECT {tables.PAYMENT_STATE} AS state, COUNT(*) AS payments FROM (SELECT *, {newest} "
        f"FROM {warehouse.view(queries.PAYMENT_CHANGELOG)} WHERE {tables.COMMIT_TIMESTAMP} >= @since "
        f"AND {tables.MOD_TYPE} != 'REPLAY') "
        f"WHERE _newest = 1 AND {tables.MOD_TYPE} != 'DELETE' GROUP BY 1"
    )
    found: dict[Any, int] = {row["state"]: row["payments"] for row in warehouse.rows(sql, since=since)}
    return {state: found.pop(state, 0) for state in payments.STATES} | {"unknown": sum(found.values())}
