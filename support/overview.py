"""What the home page of the console shows: payments by state, what is stuck, why payments fail, how complete it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contract import payments, queries, tables
from contract.watched import Meaning
from support import dead_letters, reports
from support.bigquery_rest import Parameter, Row
from support.search import Payment, Search, search
from support.warehouse import Warehouse

_HOUR: Final = timedelta(hours=1)
_LATEST: Final = 8
_REASONS: Final = 6
_COUNTED: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """A payment that has not changed for longer than its status allows. Times are in seconds."""

    puid: str
    customer_id: str | None
    state: str | None
    status: str | None
    seconds: int
    limit_seconds: int
    service: str | None
    error: str | None


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
    """One look at the stack. `stuck` counts to a thousand. `states` are those of the payments that changed in the last
    hour, `reasons` why payments failed in it, the most frequent first. `bytes_read` is BigQuery's count for the look.
    """

    at: datetime
    complete_until: datetime | None
    states: dict[str, int]
    minutes: tuple[Minute, ...]
    reasons: tuple[Row, ...]
    latest: tuple[Payment, ...]
    stuck: int
    dead_letters: dict[str, int]
    bytes_read: int = 0


def overview(warehouse: Warehouse) -> Overview:
    """Looks at everything, query by query. Raises WarehouseError, and what the dead letters' store raises."""
    now, read_before = datetime.now(UTC), warehouse.bytes_read
    by_minute = reports.run(warehouse, "summary_by_period", since=now - _HOUR, until=now, period_seconds=60)
    found = search(warehouse, Search(since=now - _HOUR, limit=_LATEST))
    return Overview(
        at=datetime.now(UTC),
        complete_until=found.complete_until,
        states=_states(warehouse, now - _HOUR),
        minutes=_minutes(by_minute.rows, now),
        reasons=reports.run(warehouse, "failures_by_reason", since=now - _HOUR, until=now).rows[:_REASONS],
        latest=found.payments,
        stuck=len(stuck(warehouse, limit=_COUNTED)),
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


def stuck(warehouse: Warehouse, *, limit: int) -> tuple[Stuck, ...]:
    """The payments that are stuck, the longest first, by the stack's limits. Raises WarehouseError."""
    watched = warehouse.connection.watched.payments
    limits = payments.parse_limits(warehouse.connection.stuck_limits)
    known = warehouse.connection.payment_states
    ends = payments.ends(payments.parse_states(known) if known else payments.PAYMENT_STATES, limits)
    named = sorted(limits.keys() - {payments.ANY})
    parameters: dict[str, Parameter] = {f"status_{i}": status for i, status in enumerate(named)}

    def column(meaning: Meaning, kind: str = "STRING") -> str:
        name = tables.named(watched, meaning)
        return f"`{name}`" if name else f"CAST(NULL AS {kind})"

    status = column("status")
    cases = " ".join(f"WHEN @status_{i} THEN {limits[name]}" for i, name in enumerate(named))
    allowed = f"CASE {status} {cases} ELSE {limits[payments.ANY]} END" if named else str(limits[payments.ANY])
    rows = warehouse.rows(
        f"SELECT puid, customer_id, state, status, seconds, limit_seconds, service, error FROM ("
        f"SELECT CAST({column('payment')} AS STRING) AS puid, customer_id, payment_state AS state, {status} AS status, "
        f"TIMESTAMP_DIFF(CURRENT_TIMESTAMP(), {tables.COMMIT_TIMESTAMP}, SECOND) AS seconds, "
        f"{allowed} AS limit_seconds, {column('service')} AS service, {column('error')} AS error "
        f"FROM {warehouse.view(queries.PAYMENT_CURRENT)} WHERE {status} IS NOT NULL AND {status} NOT IN UNNEST(@ends)"
        f") WHERE seconds > limit_seconds ORDER BY seconds DESC, puid LIMIT {int(limit)}",
        ends=sorted(ends),
        **parameters,
    )
    return tuple(Stuck(**row) for row in rows)


def _states(warehouse: Warehouse, since: datetime) -> dict[str, int]:
    """State → payments of which the last change is since then. A deleted one has none."""
    key = f"`{tables.named(warehouse.connection.watched.payments, 'payment')}`"
    newest = f"ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY {tables.CHANGE_ID} DESC) AS _newest"
    sql = (
        f"SELECT {tables.PAYMENT_STATE} AS state, COUNT(*) AS payments FROM (SELECT *, {newest} "
        f"FROM {warehouse.view(queries.PAYMENT_CHANGELOG)} WHERE {tables.COMMIT_TIMESTAMP} >= @since) "
        f"WHERE _newest = 1 AND {tables.MOD_TYPE} != 'DELETE' GROUP BY 1"
    )
    found: dict[Any, int] = {row["state"]: row["payments"] for row in warehouse.rows(sql, since=since)}
    return {state: found.pop(state, 0) for state in payments.STATES} | {"unknown": sum(found.values())}
