"""Payments in a real Spanner emulator, as a service writes them: with cards."""

from __future__ import annotations

import json
from typing import Any

from google.cloud import spanner

from tests.conftest import AuditDatabase
from tests.emulators.changelog import CARD
from tests.shipped import PAYMENT_TABLE


def write(database: AuditDatabase, puid: str, status: str, **values: Any) -> None:
    payment = {
        "PUID": puid, "Action": "PAY", "Timestamp": "2026-11-29T08:00:00Z", "Status": status, "CustomerId": "C7",
        "CardNumber": CARD, "Metadata": json.dumps({"note": f"card {CARD}"}), "UpdatedAt": spanner.COMMIT_TIMESTAMP,
    } | values  # fmt: skip
    with database.database.batch() as batch:
        batch.insert_or_update(PAYMENT_TABLE, tuple(payment), [tuple(payment.values())])
