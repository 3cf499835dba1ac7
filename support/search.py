"""Search: the payments that match, the last changed first, as they are now.

A deleted payment is found too where the search is narrow (by PUID, customer or card), as it was before its deletion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from contract import queries, tables
from contract.errors import AuditError
from contract.watched import Meaning, WatchedTable
from support.bigquery_rest import Parameter, Row
from support.warehouse import Warehouse

MAX_LIMIT = 10_000


class SearchError(AuditError, ValueError):
    """The search asks for what cannot be; the message gives the rule and the remedy."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to look for; all that is given must hold. `since` and `until` bound the time of a payment's last change.

    `card_tokens` are the tokens of one card, one for each version of the masking key: any of them, in any change.
    `last_four` are the last digits of the card that a payment has now.
    """

    puid: str | None = None
    customer_id: str | None = None
    card_tokens: tuple[str, ...] = ()
    last_four: str | None = None
    state: str | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            raise SearchError(f"the limit must be 1 to {MAX_LIMIT:,}, got {self.limit}. Narrow the search by time.")
        for text in (self.puid, self.customer_id, self.state, self.status):
            _printable(text or "")
        if self.last_four and not (len(self.last_four) == 4 and self.last_four.isascii() and self.last_four.isdigit()):
            raise SearchError("the last four digits of a card must be four digits. Search the whole card by its token.")
        if self.since and self.until and self.since >= self.until:
            raise SearchError("the search must begin before it ends. Swap --since and --until.")

    @property
    def narrow(self) -> bool:
        return bool(self.puid or self.customer_id or self.card_tokens or self.last_four)


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
    payments_of = warehouse.connection.watched.payments
    complete_until, rows = warehouse.complete_rows(
        _sql(warehouse, wanted), "changed_at DESC, puid", **dict(_parameters(payments_of, wanted))
    )
    payments = tuple(_payment(row) for row in rows[: wanted.limit])
    return Found(payments=payments, more=len(rows) > wanted.limit, complete_until=complete_until)


# A payment's columns that are found by what they mean, and the type of those that are not text.
_MEANT: Final[Mapping[Meaning, str]] = {
    "status": "STRING",
    "amount": "NUMERIC",
    "currency": "STRING",
    "region": "STRING",
    "method": "STRING",
    "service": "STRING",
    "retries": "INT64",
    "error": "STRING",
}


def _columns(payments: WatchedTable) -> dict[str, tuple[str, str]]:
    """A payment's columns in payment_current, and in the timeline's DELETE, where they are in the before image."""
    key = f"`{tables.named(payments, 'payment')}`"
    card = next((name for name, column in payments.columns.items() if column.policy == "card"), None)
    return {
        **{meaning: _column(payments, payments.column(meaning), kind) for meaning, kind in _MEANT.items()},
        "card": _column(payments, card, "STRING"),
        "puid": (key, key),
        "customer_id": ("customer_id", "customer_id"),
        "state": ("payment_state", "previous_payment_state"),
        "status_since": ("payment_state_at", "previous_payment_state_at"),
        "acting_user": ("acting_user", "acting_user"),
        "changed_at": (tables.COMMIT_TIMESTAMP, "commit_timestamp"),
        "deleted_at": ("CAST(NULL AS TIMESTAMP)", "commit_timestamp"),
    }


def _column(payments: WatchedTable, source: str | None, kind: str) -> tuple[str, str]:
    """A column now and in a before image; NULL where the payments have no such column."""
    if source is None:
        return (f"CAST(NULL AS {kind})",) * 2
    now, before = f"`{tables.column_name(payments, source)}`", f"JSON_VALUE(old_values, '$.{source}')"
    # Both of one type, which need not be the table's: an amount in whole cents, a card in a number column.
    own = payments.columns[source].type
    if own != kind:
        now = f"CAST(NULL AS {kind})" if own.startswith("ARRAY") else f"SAFE_CAST({now} AS {kind})"
    return now, before if kind == "STRING" else f"SAFE_CAST({before} AS {kind})"


def _sql(warehouse: Warehouse, wanted: Search) -> str:
    payments = warehouse.connection.watched.payments
    columns = _columns(payments)
    current, timeline = warehouse.view(queries.PAYMENT_CURRENT), warehouse.view(queries.PAYMENT_TIMELINE)
    key = columns["puid"][0]
    now = ", ".join(f"{column} AS {name}" for name, (column, _) in columns.items())
    before = ", ".join(f"{column} AS {name}" for name, (_, column) in columns.items())
    with_card = f"SELECT {key} FROM {warehouse.view(queries.PAYMENT_CARDS)} WHERE token IN UNNEST(@card_tokens)"
    union = f"SELECT {now} FROM {current} WHERE {_where(columns, wanted, 0, with_card)}"
    if wanted.narrow:
        # The last deletion of a payment that was not written again.
        union += (
            f" UNION ALL SELECT {before} FROM {timeline} WHERE mod_type = 'DELETE'"
            f" AND source_table = '{payments.name}' AND {_where(columns, wanted, 1, with_card)}"
            f" AND {key} NOT IN (SELECT {key} FROM {current}{f' WHERE {key} = @puid' if wanted.puid else ''})"
            f" QUALIFY ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY change_id DESC) = 1"
        )
    # One more than requested shows whether there are more.
    return f"SELECT * FROM ({union}) ORDER BY changed_at DESC, puid LIMIT {wanted.limit + 1}"


def _where(columns: Mapping[str, tuple[str, str]], wanted: Search, side: int, with_card: str) -> str:
    def named(name: str) -> str:
        return columns[name][side]

    conditions = {
        "puid": f"{named('puid')} = @puid",
        "customer_id": f"{named('customer_id')} = @customer_id",
        "card_tokens": f"{named('puid')} IN ({with_card})",
        "last_four": f"ENDS_WITH({named('card')}, @last_four)",
        "state": f"{named('state')} = @state",
        "status": f"{named('status')} = @status",
        "since": f"{named('changed_at')} >= @since",
        "until": f"{named('changed_at')} < @until",
    }
    return " AND ".join(["TRUE", *(conditions[name] for name in _given(wanted))])


def _given(wanted: Search) -> Iterator[str]:
    for name in ("puid", "customer_id", "card_tokens", "last_four", "state", "status", "since", "until"):
        if getattr(wanted, name):
            yield name


def _parameters(payments: WatchedTable, wanted: Search) -> Iterator[tuple[str, Parameter]]:
    for name in _given(wanted):
        value = getattr(wanted, name)
        yield name, payment_id(payments, value) if name == "puid" else value


def payment_id(payments: WatchedTable, puid: str) -> Parameter:
    """The id of a payment as the type of its column. Raises SearchError."""
    if payments.payment_type != "INT64":
        return _printable(puid)
    if not re.fullmatch(r"-?\d{1,19}", puid):
        raise SearchError(
            f"the id of a payment must be a whole number, as {payments.column('payment')} is, got {puid!r}."
        )
    return int(puid)


def _printable(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise SearchError("what is searched must have no line breaks and no other control characters. Type it again.")
    return text


def _payment(row: Row) -> Payment:
    return Payment(**row | {"puid": str(row["puid"])})
