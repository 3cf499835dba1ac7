"""Where in the warehouse to look: on which days a payment changed, and which payments a customer or a card has.

One narrow query, of a block of payment_lookup and of what it may not have yet, the last hours of the changes. What is
read after it is bounded by what it finds, not by the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from contract import lookups, queries, tables
from contract.lookups import Kind
from support.bigquery_rest import Parameter, Row
from support.warehouse import Warehouse

_DAY: Final = timedelta(days=1)
# What payment_lookup is expected not to have; where it is further behind, its own word counts.
_BEHIND: Final = timedelta(hours=1)
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Days:
    """When a payment changed: its days, and all since `open_from`, of which payment_lookup may not know."""

    days: tuple[date, ...]
    open_from: datetime

    def ranges(self) -> Iterator[tuple[datetime, datetime | None]]:
        """Whole days, neighbours as one; the last range has no end."""
        begin: date | None = None
        for day in self.days:
            begin = begin or day
            if day + _DAY not in self.days:
                yield _midnight(begin), _midnight(day + _DAY)
                begin = None
        yield self.open_from, None

    def condition(self, column: str) -> tuple[str, dict[str, Parameter]]:
        """The ranges as a condition of constants, for which partitions are left unread, and its parameters."""
        parts: list[str] = []
        parameters: dict[str, Parameter] = {}
        for number, (start, end) in enumerate(self.ranges()):
            parameters[f"from_{number}"] = start
            parts.append(f"{column} >= @from_{number}")
            if end:
                parameters[f"to_{number}"] = end
                parts[-1] = f"({parts[-1]} AND {column} < @to_{number})"
        return f"({' OR '.join(parts)})", parameters


def days_of(warehouse: Warehouse, *puids: str) -> Days:
    """When payments changed. Raises WarehouseError."""
    found, open_from = _look(
        warehouse,
        "days_of_payment",
        f"SELECT DISTINCT day FROM {warehouse.view(queries.PAYMENT_LOOKUP)} WHERE {_of('payment', puids)}",
        None,
        {"keys": [lookups.key("payment", puid) for puid in puids]},
    )
    return Days(days=tuple(sorted(row["day"] for row in found)), open_from=open_from)


def payments_with(
    warehouse: Warehouse, kind: Kind, values: Sequence[str], *, most: int, since: datetime | None = None
) -> list[Any]:
    """The ids of the payments in which one of the values was seen, the last seen first. Raises WarehouseError."""
    view = warehouse.view(queries.PAYMENT_LOOKUP)
    bound = f" AND day >= '{since.astimezone(UTC):%Y-%m-%d}'" if since else ""
    # For who may not see customers, BigQuery has NULL there.
    owned = f" AND {tables.CUSTOMER_ID} IN UNNEST(@sought)" if kind == "customer" else ""
    known = f"SELECT puid, last_at FROM {view} WHERE {_of(kind, values)}{owned}{bound}"
    fresh = (
        f"SELECT {_key(warehouse)} AS puid, commit_timestamp AS last_at FROM {warehouse.view(queries.PAYMENT_CHANGES)} "
        f"WHERE commit_timestamp >= @open_from AND {_seen(warehouse, kind)}"
    )
    parameters: dict[str, Parameter] = {"keys": [lookups.key(kind, value) for value in values]}
    rows, _ = _look(
        warehouse,
        "payments_by_customer",
        known,
        fresh,
        parameters | {"sought": list(values)},
        shape="SELECT puid, MAX(last_at) AS last_at FROM ({}) GROUP BY puid",
        order=f"last_at DESC, puid LIMIT {most}",
    )
    return [row["puid"] for row in rows]


def _look(
    warehouse: Warehouse,
    question: str,
    known: str,
    fresh: str | None,
    parameters: dict[str, Parameter],
    *,
    shape: str = "{}",
    order: str = "1",
) -> tuple[list[Row], datetime]:
    """The rows of `known`, and of `fresh` since `@open_from`; and since when payment_lookup may lack changes."""
    open_from = datetime.now(UTC) - _BEHIND
    most = warehouse.limit(question, keys=len(parameters["keys"]))  # type: ignore[arg-type]
    while True:
        both = f"{known} UNION ALL {fresh}" if fresh else known
        more: dict[str, Parameter] = {"open_from": open_from} if fresh else {}
        complete, rows = warehouse.complete_rows(shape.format(both), order, most, **parameters, **more)
        filled = complete.filled_until or _EVER
        if filled >= open_from:
            return rows, open_from
        if not fresh:
            return rows, filled
        open_from = filled


def _of(kind: Kind, values: Iterable[str]) -> str:
    # Whole numbers in the text: for these alone partitions are sure to be left unread.
    buckets = ", ".join(str(number) for number in sorted({lookups.bucket(lookups.key(kind, v)) for v in values}))
    return f"bucket IN ({buckets}) AND lookup_key IN UNNEST(@keys)"


def _seen(warehouse: Warehouse, kind: Kind) -> str:
    """Whether a change has one of the values that are sought."""
    if kind == "card":
        return "EXISTS (SELECT 1 FROM UNNEST(card_tokens) AS token WHERE token IN UNNEST(@sought))"
    if kind == "last_four":
        payments = warehouse.connection.watched.payments
        cards = [name for name, column in payments.columns.items() if column.policy == "card"]
        if not cards:
            return "FALSE"
        return f"RIGHT(`{queries.timeline_column(tables.column_name(payments, cards[0]))}`, 4) IN UNNEST(@sought)"
    return f"{tables.CUSTOMER_ID} IN UNNEST(@sought)"


def _key(warehouse: Warehouse) -> str:
    name = tables.named(warehouse.connection.watched.payments, "payment")
    return f"`{queries.timeline_column(str(name))}`"


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
