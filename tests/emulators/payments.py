"""Payments in a real Spanner emulator, as a service writes them: with cards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from google.cloud import spanner

from contract import timestamps
from tests.conftest import AuditDatabase
from tests.emulators.changelog import CARD
from tests.shipped import PAYMENT_TABLE


def write(database: AuditDatabase, puid: str, status: str, **values: Any) -> str:
    """Gives the commit timestamp, as a change record has it."""
    payment = {
        "PUID": puid, "Action": "PAY", "Timestamp": "2026-11-29T08:00:00Z", "Status": status, "CustomerId": "C7",
        "CardNumber": CARD, "Metadata": json.dumps({"note": f"card {CARD}"}), "UpdatedAt": spanner.COMMIT_TIMESTAMP,
    } | values  # fmt: skip
    with database.database.batch() as batch:
        batch.insert_or_update(PAYMENT_TABLE, tuple(payment), [tuple(payment.values())])
    return timestamps.normalise(batch.committed.rfc3339())


def write_many(database: AuditDatabase, puids: Sequence[str], status: str) -> None:
    """Payments of one status, in commits of 200."""
    columns = ("PUID", "Action", "Timestamp", "Status", "CustomerId", "CardNumber", "Metadata", "UpdatedAt")
    rest = ("PAY", "2026-11-29T08:00:00Z", status, "C7", CARD, json.dumps({"note": CARD}), spanner.COMMIT_TIMESTAMP)
    for start in range(0, len(puids), 200):
        with database.database.batch() as batch:
            batch.insert_or_update(PAYMENT_TABLE, columns, [(puid, *rest) for puid in puids[start : start + 200]])
