"""Timeline: what happened to one payment, change by change, as its services wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from contract import queries, spanner_types, tables
from contract.changes import kind_of, replay_of
from contract.watched import Meaning, WatchedTable
from support.bigquery_rest import Row
from support.lookup import days_of
from support.search import payment_id
from support.warehouse import Warehouse, whole_days


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A column that a change wrote. Values are texts; None is NULL."""

    column: str
    old: str | None
    new: str | None


@dataclass(frozen=True, kw_only=True)
class Event:
    """One change of the payment or of its audit log.

    `committed_at` is RFC 3339 with nanoseconds. `differences`: of an INSERT what was written (old is None), of an
    UPDATE the columns that changed, of a DELETE the before image (new is None). Of a replay who requested it, and why:
    `support.replay.with_reasons` fills these in.
    """

    change_id: str
    committed_at: str
    arrived_at: datetime | None
    table: str
    mod_type: str
    status: str | None
    state: str | None
    expected: bool | None
    service: str | None
    acting_user: str | None
    error: str | None
    differences: tuple[Difference, ...]
    replay: str | None = None
    replayed_by: str | None = None
    replay_reason: str | None = None

    @property
    def replay_kind(self) -> str:
        """What people call it: `replay` or `backfill`."""
        return kind_of(self.replay or "")


@dataclass(frozen=True, kw_only=True)
class Transition:
    """A change of the payment's status. Its creation comes from None, its deletion goes to None."""

    from_status: str | None
    to_status: str | None
    from_state: str | None
    to_state: str | None
    at: datetime
    seconds: float | None
    expected: bool | None


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A payment's life in commit order. The warehouse is complete up to `complete_until`."""

    puid: str
    events: tuple[Event, ...]
    transitions: tuple[Transition, ...]
    complete_until: datetime | None
    payments_table: str

    @property
    def deleted(self) -> bool:
        of_payment = [event for event in self.events if event.table == self.payments_table]
        return bool(of_payment) and of_payment[-1].mod_type == "DELETE"


def timeline(warehouse: Warehouse, puid: str) -> Timeline:
    """Reads everything about a payment; without events when there is no such payment. Raises WarehouseError."""
    payments = warehouse.connection.watched.payments
    wanted = payment_id(payments, puid)
    found = days_of(warehouse, puid)
    changed, days = found.condition("commit_timestamp")
    key = tables.named(payments, "payment")
    sql = f"SELECT * FROM {warehouse.view(queries.PAYMENT_TIMELINE)} WHERE `{key}` = @puid AND {changed}"
    most = warehouse.limit("timeline", days=len(found.days) + whole_days(found.open_from))
    complete, rows = warehouse.complete_rows(sql, "change_id, source_table", most, puid=wanted, **days)
    return Timeline(
        puid=puid,
        events=tuple(_event(row, payments) for row in rows),
        transitions=tuple(_transitions(rows, payments)),
        complete_until=complete.until,
        payments_table=payments.name,
    )


def _event(row: Row, payments: WatchedTable) -> Event:
    def value(meaning: Meaning) -> str | None:
        column = tables.named(payments, meaning)
        return row[queries.timeline_column(column)] if column else None

    return Event(
        change_id=row["change_id"],
        # Its first part; the TIMESTAMP column ends at microseconds.
        committed_at=row["change_id"].split("/", 1)[0],
        arrived_at=row["arrived_at"],
        table=row["source_table"],
        mod_type=row["mod_type"],
        replay=replay_of(row["change_id"]) if row["mod_type"] == "REPLAY" else None,
        status=value("status"),
        state=row["payment_state"],
        # Only the payments' rows have transitions: the status of an event says what became of that event.
        expected=row["transition_expected"] if row["source_table"] == payments.name else None,
        service=value("service"),
        acting_user=row["acting_user"],
        error=value("error"),
        differences=_differences(row, payments),
    )


def _differences(row: Row, payments: WatchedTable) -> tuple[Difference, ...]:
    json_columns = {
        tables.column_name(payments, name)
        for name, column in payments.columns.items()
        if spanner_types.carried_as(column.type) == "JSON"
    }
    key = tables.named(payments, "payment")
    old: Row = row["old_values"] or {}
    # A column that only the old values have was added to the source after this view was made.
    own = [name for name in row if name not in queries.TIMELINE_COLUMNS]
    names = [name for name in dict.fromkeys([*own, *old]) if name != key]
    if row["mod_type"] == "UPDATE":
        names = [name for name in names if name in old]
    pairs = (
        pair for name in names for pair in _by_member(name, _old(name in json_columns, old.get(name)), row.get(name))
    )
    texts = ((name, _text(before), _text(after)) for name, before, after in pairs)
    return tuple(Difference(column=name, old=before, new=after) for name, before, after in texts if before != after)


def _by_member(name: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """(column, old, new); of a JSON object that changed, its members one by one: `Metadata.channel`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for member in dict.fromkeys([*before, *after]):
            yield from _by_member(f"{name}.{member}", before.get(member), after.get(member))
    else:
        yield name, before, after


def _old(is_json: bool, value: Any) -> Any:
    """An old value: in Spanner's JSON encoding, where a JSON column is a JSON text."""
    return json.loads(value) if is_json and isinstance(value, str) else value


def _text(value: Any) -> str | None:
    """A value as Spanner's JSON encoding writes it, so that an old and a new one can be compared."""
    match value:
        case None:
            return None
        case Decimal():
            return format(value.normalize(), "f")
        case datetime():
            return value.isoformat(timespec="auto").replace("+00:00", "Z")
        case dict() | list():
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def _transitions(rows: Iterable[Row], payments: WatchedTable) -> Iterator[Transition]:
    """As the view payment_transitions has them, from rows that are here already."""
    column = str(payments.column("status"))
    status = queries.timeline_column(tables.column_name(payments, column))
    for row in rows:
        before = (row["old_values"] or {}).get(column)
        # Where a change stream carries no old values, it is not known what an UPDATE changed.
        known = row["previous_payment_state_at"] is not None or row["transition_expected"] is not None
        moved = before is not None or (known and row["payment_state"] != row["previous_payment_state"])
        if row["source_table"] != payments.name or not (
            row["mod_type"] in ("INSERT", "DELETE") or (row["mod_type"] == "UPDATE" and moved)
        ):
            continue
        at, earlier = row["payment_state_at"] or row["commit_timestamp"], row["previous_payment_state_at"]
        yield Transition(
            from_status=before,
            to_status=row[status],
            from_state=row["previous_payment_state"],
            to_state=row["payment_state"],
            at=at,
            seconds=(at - earlier).total_seconds() if earlier else None,
            expected=row["transition_expected"],
        )
