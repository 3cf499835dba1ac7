"""Search: the payments that match, the last changed first, as they are now.

A narrow one (by PUID, customer or card) finds its payments by the lookup table, and reads each by the cluster; deleted
ones too, as they were before. Any other is of a time: it reads the changes since then, by default of the last day.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from contract import queries, tables
from contract.errors import AuditError
from contract.lookups import Kind
from contract.watched import Meaning, WatchedTable
from support.bigquery_rest import Parameter, Row
from support.lookup import payments_with
from support.warehouse import Warehouse, whole_days

MAX_LIMIT: Final = 10_000
# What a search is of that says no time and names no payment, customer or card.
PERIOD: Final = timedelta(days=1)
_CHOSEN_FROM: Final = 1000


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
    payments = warehouse.connection.watched.payments
    if not wanted.narrow and not wanted.since:
        wanted = replace(wanted, since=(wanted.until or datetime.now(UTC)) - PERIOD)
    ids = _ids(warehouse, wanted) if wanted.narrow else None
    source, parameters = _of_ids(warehouse, ids) if ids is not None else _of_time(warehouse, wanted)
    rest = {name: getattr(wanted, name) for name in _CONDITIONS if getattr(wanted, name)}
    where = " AND ".join(["TRUE", *(_CONDITIONS[name] for name in rest)])
    columns = ", ".join(f"{column} AS {name}" for name, column in _columns(payments).items())
    # One more than requested shows whether there are more.
    sql = f"SELECT * FROM (SELECT {columns} FROM {source}) WHERE {where}"
    order = f"changed_at DESC, puid LIMIT {wanted.limit + 1}"
    most = (
        warehouse.limit("search by customer or card", keys=len(ids))
        if ids is not None
        else warehouse.limit("search of a time", days=whole_days(parameters["begin"]))
    )
    complete, rows = warehouse.complete_rows(sql, order, most, **parameters, **rest)
    found = tuple(_payment(row) for row in rows[: wanted.limit])
    more = len(rows) > wanted.limit or len(ids or ()) > _most(wanted)
    return Found(payments=found, more=more, complete_until=complete.until)


def _ids(warehouse: Warehouse, wanted: Search) -> list[Any]:
    """The payments that the narrowest of the conditions names, the last seen first."""
    if wanted.puid:
        return [payment_id(warehouse.connection.watched.payments, wanted.puid)]
    sought: tuple[Kind, Sequence[str]] = (
        ("card", wanted.card_tokens)
        if wanted.card_tokens
        else ("customer", [wanted.customer_id])
        if wanted.customer_id
        else ("last_four", [wanted.last_four or ""])
    )
    return payments_with(warehouse, *sought, most=_most(wanted) + 1, since=wanted.since)


def _most(wanted: Search) -> int:
    """How many payments of a customer or a card are looked at: more where other conditions choose among them."""
    return max(wanted.limit, _CHOSEN_FROM if _CONDITIONS.keys() - {"customer_id", "last_four"} & _given(wanted) else 0)


def _of_ids(warehouse: Warehouse, ids: list[Any]) -> tuple[str, dict[str, Parameter]]:
    view, key = warehouse.view(queries.PAYMENT_LATEST), tables.named(warehouse.connection.watched.payments, "payment")
    # An empty array has no type, which an id of whole numbers would not be compared with; and nothing need be read.
    return (f"{view} WHERE `{key}` IN UNNEST(@ids)", {"ids": ids}) if ids else (f"{view} WHERE FALSE", {})


def _of_time(warehouse: Warehouse, wanted: Search) -> tuple[str, dict[str, Parameter]]:
    """The last change of each payment since the search's beginning. What was deleted is not among them."""
    assert wanted.since
    key = tables.named(warehouse.connection.watched.payments, "payment")
    newest = f"ROW_NUMBER() OVER (PARTITION BY `{key}` ORDER BY {tables.CHANGE_ID} DESC) AS _newest"
    return (
        f"(SELECT *, {newest} FROM {warehouse.view(queries.PAYMENT_CHANGELOG)} "
        f"WHERE {tables.COMMIT_TIMESTAMP} >= @begin) WHERE _newest = 1 AND {tables.MOD_TYPE} != 'DELETE'",
        {"begin": wanted.since},
    )


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


# The conditions on a payment as it is now, or was before its deletion, by the attribute of the search.
_CONDITIONS: Final = {
    "customer_id": "customer_id = @customer_id",
    "last_four": "ENDS_WITH(card, @last_four)",
    "state": "state = @state",
    "status": "status = @status",
    "since": "changed_at >= @since",
    "until": "changed_at < @until",
}


def _given(wanted: Search) -> set[str]:
    return {name for name in _CONDITIONS if getattr(wanted, name)}


def _columns(payments: WatchedTable) -> dict[str, str]:
    """What a Payment has, of the last change of each: of a DELETE from its before image."""
    card = next((name for name, column in payments.columns.items() if column.policy == "card"), None)
    deleted = f"{tables.MOD_TYPE} = 'DELETE'"
    return {
        "puid": f"`{tables.named(payments, 'payment')}`",
        "customer_id": tables.CUSTOMER_ID,
        "acting_user": tables.ACTING_USER,
        "state": f"IF({deleted}, {tables.PREVIOUS_PAYMENT_STATE}, {tables.PAYMENT_STATE})",
        "status_since": f"IF({deleted}, {tables.PREVIOUS_PAYMENT_STATE_AT}, {tables.PAYMENT_STATE_AT})",
        # A replay read the payment again and changed nothing: of it, the time of the status.
        "changed_at": f"IF({tables.MOD_TYPE} = 'REPLAY', COALESCE({tables.PAYMENT_STATE_AT}, {tables.COMMIT_TIMESTAMP})"
        f", {tables.COMMIT_TIMESTAMP})",
        "deleted_at": f"IF({deleted}, {tables.COMMIT_TIMESTAMP}, NULL)",
        "card": _column(payments, card, "STRING", deleted),
        **{meaning: _column(payments, payments.column(meaning), kind, deleted) for meaning, kind in _MEANT.items()},
    }


def _column(payments: WatchedTable, source: str | None, kind: str, deleted: str) -> str:
    """A column now, or in the before image; NULL where the payments have no such column."""
    if source is None:
        return f"CAST(NULL AS {kind})"
    now, before = f"`{tables.column_name(payments, source)}`", f"JSON_VALUE({tables.OLD_VALUES}, '$.{source}')"
    # Both of one type, which need not be the table's: an amount in whole cents, a card in a number column.
    own = payments.columns[source].type
    if own != kind:
        now = f"CAST(NULL AS {kind})" if own.startswith("ARRAY") else f"SAFE_CAST({now} AS {kind})"
    return f"IF({deleted}, {before if kind == 'STRING' else f'SAFE_CAST({before} AS {kind})'}, {now})"


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
