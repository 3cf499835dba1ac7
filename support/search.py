"""Search: the payments that match, the last changed first, as they are now.

A deleted payment is found too where the search is narrow (by PUID, customer or card), as it was before its deletion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from contract import queries, tables
from support.warehouse import Parameter, Row, Warehouse

MAX_LIMIT = 10_000


class SearchError(ValueError):
    """The search asks for what cannot be; the message gives the rule and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to look for; all that is given must hold. `since` and `until` bound the time of a payment's last change.

    `card_tokens` are the tokens of one card, one for each version of the masking key: any of them, in any change.
    """

    puid: str | None = None
    customer_id: str | None = None
    card_tokens: tuple[str, ...] = ()
    state: str | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            raise SearchError(f"the limit must be 1 to {MAX_LIMIT:,}, got {self.limit}. Narrow the search by time.")
        if self.since and self.until and self.since >= self.until:
            raise SearchError("the search must begin before it ends. Swap --since and --until.")

    @property
    def narrow(self) -> bool:
        return bool(self.puid or self.customer_id or self.card_tokens)


@dataclass(frozen=True, kw_only=True)
class Payment:
    """A payment as it is now; `deleted_at` says that it is gone, and then the rest is how it was before."""

    puid: str
    customer_id: str | None
    state: str | None
    status: str | None
    status_since: datetime | None
    amount: Decimal | None
    currency: str | None
    region: str | None
    method: str | None
    card: str | None
    service: str | None
    acting_user: str | None
    retries: int | None
    error: str | None
    changed_at: datetime
    deleted_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found. `more`: there is more than the limit. The warehouse is complete up to `complete_until`."""

    payments: tuple[Payment, ...]
    more: bool
    complete_until: datetime | None


def search(warehouse: Warehouse, wanted: Search) -> Found:
    """Runs the search over the views. Raises WarehouseError."""
    # Asked for first: what is found is then at least as complete as it says.
    complete_until = warehouse.complete_until()
    rows = warehouse.rows(_sql(warehouse, wanted), **dict(_parameters(wanted)))
    payments = tuple(_payment(row) for row in rows[: wanted.limit])
    return Found(payments=payments, more=len(rows) > wanted.limit, complete_until=complete_until)


# A payment's columns in payment_current, and in the timeline's DELETE, where they are in the before image.
_COLUMNS = {
    "PUID": ("PUID", "PUID"),
    "customer_id": ("customer_id", "customer_id"),
    "state": ("payment_state", "previous_payment_state"),
    "status": ("Status", "JSON_VALUE(old_values, '$.Status')"),
    "status_since": ("payment_state_at", "previous_payment_state_at"),
    "amount": ("Amount", "SAFE_CAST(JSON_VALUE(old_values, '$.Amount') AS NUMERIC)"),
    "currency": ("Currency", "JSON_VALUE(old_values, '$.Currency')"),
    "region": ("Region", "JSON_VALUE(old_values, '$.Region')"),
    "method": ("PaymentMethod", "JSON_VALUE(old_values, '$.PaymentMethod')"),
    "card": ("CardNumber", "JSON_VALUE(old_values, '$.CardNumber')"),
    "service": ("ServiceName", "JSON_VALUE(old_values, '$.ServiceName')"),
    "acting_user": ("acting_user", "acting_user"),
    "retries": ("RetryCount", "SAFE_CAST(JSON_VALUE(old_values, '$.RetryCount') AS INT64)"),
    "error": ("ErrorDetails", "JSON_VALUE(old_values, '$.ErrorDetails')"),
    "changed_at": (tables.COMMIT_TIMESTAMP, "commit_timestamp"),
    "deleted_at": ("CAST(NULL AS TIMESTAMP)", "commit_timestamp"),
}


def _sql(warehouse: Warehouse, wanted: Search) -> str:
    current, timeline = warehouse.view(queries.PAYMENT_CURRENT), warehouse.view(queries.PAYMENT_TIMELINE)
    now = ", ".join(f"{column} AS {name}" for name, (column, _) in _COLUMNS.items())
    before = ", ".join(f"{column} AS {name}" for name, (_, column) in _COLUMNS.items())
    with_card = (
        f"SELECT PUID FROM {timeline} WHERE EXISTS "
        "(SELECT 1 FROM UNNEST(card_tokens) AS token WHERE token IN UNNEST(@card_tokens))"
    )
    union = f"SELECT {now} FROM {current} WHERE {_where(wanted, 0, with_card)}"
    if wanted.narrow:
        # The last deletion of a payment that was not written again.
        union += (
            f" UNION ALL SELECT {before} FROM {timeline} WHERE mod_type = 'DELETE'"
            f" AND source_table = '{tables.PAYMENT_TABLE}' AND {_where(wanted, 1, with_card)}"
            f" AND PUID NOT IN (SELECT PUID FROM {current})"
            " QUALIFY ROW_NUMBER() OVER (PARTITION BY PUID ORDER BY change_id DESC) = 1"
        )
    # One more than requested shows whether there are more.
    return f"SELECT * FROM ({union}) ORDER BY changed_at DESC, PUID LIMIT {wanted.limit + 1}"


def _where(wanted: Search, column: int, with_card: str) -> str:
    def named(name: str) -> str:
        return _COLUMNS[name][column]

    conditions = {
        "puid": f"{named('PUID')} = @puid",
        "customer_id": f"{named('customer_id')} = @customer_id",
        "card_tokens": f"{named('PUID')} IN ({with_card})",
        "state": f"{named('state')} = @state",
        "status": f"{named('status')} = @status",
        "since": f"{named('changed_at')} >= @since",
        "until": f"{named('changed_at')} < @until",
    }
    return " AND ".join(["TRUE", *(conditions[name] for name, _ in _parameters(wanted))])


def _parameters(wanted: Search) -> Iterator[tuple[str, Parameter]]:
    for name in ("puid", "customer_id", "card_tokens", "state", "status", "since", "until"):
        if value := getattr(wanted, name):
            yield name, value


def _payment(row: Row) -> Payment:
    return Payment(puid=row.pop("PUID"), **row)
