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

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)
_CUSTOMER_NAMES: Final = ("customerId", "customer_id")
_USER_NAMES: Final = ("actingUser", "user")


def enrich(change: Change, states: Mapping[str, str]) -> None:
    """Fills `change.enriched`. `states` maps a Status to a payment state.

    Raises StepError when Status is not text. A Status that is not in `states` has the state None.
    """
    row = change.old if change.mod_type == "DELETE" else change.new
    metadata: Row | None = None
    customer = _text(row.get("CustomerId") or change.old.get("CustomerId"))
    user = _text(row.get("UserId"))
    if customer is None or user is None:
        metadata = _metadata(row.get("Metadata") or change.old.get("Metadata"))
    if customer is None and metadata:
        customer = _customer(metadata)
    if user is None and metadata:
        user = _first(metadata, _USER_NAMES)
    change.enriched = {
        CUSTOMER_ID: customer,
        ACTING_USER: user or _text(row.get("ServiceName")),
        **_transition(change, states),
    }


def _transition(change: Change, states: Mapping[str, str]) -> Row:
    new, old = change.new, change.old
    state, at, previous, previous_at, expected = None, None, None, None, None
    if change.mod_type == "DELETE":
        previous, previous_at = _state(old, states), _time(old, change)
    else:
        state, at = _state(new, states), _time(new, change)
        if change.mod_type == "INSERT":
            expected = None if state is None else (None, state) in EXPECTED_TRANSITIONS
        elif old:
            # Status and Timestamp are among the old values when this change touched them.
            before = {**new, **old}
            previous, previous_at = _state(before, states), _time(before, change)
            first = before.get("Status") is None
            if state is not None and (previous is not None or first):
                expected = (previous, state) in EXPECTED_TRANSITIONS
    return {
        PAYMENT_STATE: state,
        PAYMENT_STATE_AT: at,
        PREVIOUS_PAYMENT_STATE: previous,
        PREVIOUS_PAYMENT_STATE_AT: previous_at,
        TRANSITION_EXPECTED: expected,
    }


def _state(row: Row, states: Mapping[str, str]) -> str | None:
    status = row.get("Status")
    if status is None:
        return None
    if not isinstance(status, str):
        raise StepError(Reason.ENRICHMENT, "Status must be text: payment states are found by it. Report it as a bug.")
    return states.get(status)


def _time(row: Row, change: Change) -> str | None:
    """When the row came into its Status: the row's own time, else the commit's. None for a row without a Status."""
    if row.get("Status") is None:
        return None
    # In a table that is not ours, a column of this name may hold anything.
    own = _text(row.get("Timestamp"))
    return own if own and _TIME.fullmatch(own) else change.commit_timestamp


def _metadata(text: Any) -> Row | None:
    """The members of a Metadata that is a JSON object; None for any other."""
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return None
    try:
        members: Row = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return members


def _customer(metadata: Row) -> str | None:
    customer = metadata.get("customer")
    return _first(metadata, _CUSTOMER_NAMES) or (_first(customer, ("id",)) if isinstance(customer, dict) else None)


def _first(members: Row, names: tuple[str, ...]) -> str | None:
    return next((text for name in names if (text := _text(members.get(name))) is not None), None)


def _text(value: Any) -> str | None:
    """A text or whole number as text; None for anything else and for the empty text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None
