"""The shipped description of the watched tables, for tests that are about what is shipped."""

from __future__ import annotations

from typing import Final

from contract.options import OPTIONS
from contract.watched import WatchedTables

WATCHED: Final = WatchedTables.load()
PAYMENTS: Final = WATCHED.payments
EVENTS: Final = WATCHED.events[0]
PAYMENT_TABLE: Final = PAYMENTS.name
AUDIT_LOG_TABLE: Final = EVENTS.name
PAYMENT_DATASET: Final = PAYMENTS.dataset
AUDIT_LOG_DATASET: Final = EVENTS.dataset

# The launch options that have no default, with values that they can have.
REQUIRED_OPTIONS: Final = {
    **{option.name: "x" for option in OPTIONS if option.required},
    "maskingKeys": "file:/keys.json",
    "watchedTables": WATCHED.to_json(),
}
