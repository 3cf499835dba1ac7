"""Enrichment of a masked change: whose payment it is, who acted, and which transition of the payment it was.

It fills `change.enriched` with the columns of `contract.tables.ENRICHMENT_FIELDS`, from the change alone. What the
change does not say is None: an UPDATE without old values, say, has an unknown previous state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from contract.changes import Change, Reason, Row, StepError
from contract.payments import EXPECTED_TRANSITIONS
from contract.tables import (
    ACTING_USER,
    CUSTOMER_ID,
    PAYMENT_STATE,
    PAYMENT_STATE_AT,
    PREVIOUS_PAYMENT_STATE,
    PREVIOUS_PAYMENT_STATE_AT,
    TRANSITION_EXPECTED,
)
from contract.watched import WatchedTable

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)


def enrich(change: Change, table: WatchedTable, states: Mapping[str, str]) -> None:
    """Fills `change.enriched`. `states` maps a status to a payment state; `table` says which column means what.

    Raises StepError when the status is not text. A status that is not in `states` has the state None.
    """
    row = change.old if change.mod_type == "DELETE" else change.new
    column = table.meanings.get
    customer = _text(_value(row, column("customer")) or _value(change.old, column("customer")))
    user = _text(_value(row, column("acting_user")))
    if (customer is None or user is None) and table.metadata:
        members = _members(_value(row, column("metadata")) or _value(change.old, column("metadata")))
        if customer is None and members:
            customer = _first(members, table.metadata.customer_in)
        if user is None and members:
            user = _first(members, table.metadata.acting_user_in)
    change.enriched = {
        CUSTOMER_ID: customer,
        ACTING_USER: user or _text(_value(row, column("service"))),
        **_transition(change, table, states),
    }


def customers(change: Change, table: WatchedTable) -> set[str]:
    """Every customer that a masked change names: in its column and its metadata, before and after."""
    column, metadata = table.column("customer"), table.column("metadata")
    paths = table.metadata.customer_in if table.metadata else ()
    found = set()
    for row in (change.keys, change.new, change.old):
        found.add(_text(_value(row, column)))
        members = _members(_value(row, metadata)) if paths else None
        if members:
            found |= {_text(_at(members, path)) for path in paths}
    return {customer for customer in found if customer}


def _transition(change: Change, table: WatchedTable, states: Mapping[str, str]) -> Row:
    new, old = change.new, change.old
    status, time = table.column("status"), table.column("time")
    state, at, previous, previous_at, expected = None, None, None, None, None
    if change.mod_type == "DELETE":
        previous, previous_at = _state(old, status, states), _time(old, status, time, change)
    else:
        state, at = _state(new, status, states), _time(new, status, time, change)
        if change.mod_type == "INSERT":
            expected = None if state is None else (None, state) in EXPECTED_TRANSITIONS
        elif old:
            # Status and time are among the old values when this change touched them.
            before = {**new, **old}
            previous, previous_at = _state(before, status, states), _time(before, status, time, change)
            first = _value(before, status) is None
            if state is not None and (previous is not None or first):
                expected = (previous, state) in EXPECTED_TRANSITIONS
    return {
        PAYMENT_STATE: state,
        PAYMENT_STATE_AT: at,
        PREVIOUS_PAYMENT_STATE: previous,
        PREVIOUS_PAYMENT_STATE_AT: previous_at,
        TRANSITION_EXPECTED: expected,
    }


def _state(row: Row, column: str | None, states: Mapping[str, str]) -> str | None:
    status = _value(row, column)
    if status is None:
        return None
    if not isinstance(status, str):
        raise StepError(Reason.ENRICHMENT, f"{column} must be text, to find the payment state by. Report it as a bug.")
    return states.get(status)


def _time(row: Row, status: str | None, time: str | None, change: Change) -> str | None:
    """When the row came into its status: the row's own time, else the commit's. None for a row without a status."""
    if _value(row, status) is None:
        return None
    own = _text(_value(row, time))
    return own if own and _TIME.fullmatch(own) else change.commit_timestamp


def _value(row: Row, column: str | None) -> Any:
    return row.get(column) if column else None


def _members(text: Any) -> Row | None:
    """The members of a metadata that is a JSON object; None for any other."""
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return None
    try:
        members: Row = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return members


def _first(members: Row, paths: tuple[str, ...]) -> str | None:
    return next((text for path in paths if (text := _text(_at(members, path))) is not None), None)


def _at(members: Row, path: str) -> Any:
    """A member by its path, such as `customer.id`; None where there is none."""
    found: Any = members
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _text(value: Any) -> str | None:
    """A text or whole number as text; None for anything else and for the empty text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None
