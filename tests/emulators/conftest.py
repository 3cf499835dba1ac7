"""A warehouse with views, made once and emptied for each test that asks for it, and what a command needs to read it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from local.emulators.launch import PROJECT
from pipeline import clients
from support.connection import Connection, load
from support.warehouse import Warehouse
from tests.conftest import AuditDatabase
from tests.emulators.changelog import KEYS, NEW_TOKEN, OLD_TOKEN, Changelog, row
from tests.shipped import WATCHED


@pytest.fixture(scope="session")
def _changelog(bigquery_emulator: Any) -> Changelog:
    # The project of the Spanner emulator's instance: a connection names one project for both.
    made = Changelog(clients.bigquery_client(bigquery_emulator.rest, PROJECT), PROJECT)
    made.create()
    return made


@pytest.fixture
def changelog(_changelog: Changelog) -> Changelog:
    """The tables and views of the contract in a BigQuery project, without rows."""
    _changelog.clear()
    return _changelog


@pytest.fixture
def connection_file(tmp_path: Path, changelog: Changelog, bigquery_emulator: Any) -> Path:
    keys = tmp_path / "masking-keys.json"
    keys.write_text(json.dumps({version: base64.b64encode(key).decode() for version, key in KEYS.items()}))
    file = tmp_path / "connection.json"
    texts = dict.fromkeys(
        ("location", "spannerEndpoint", "spannerInstance", "spannerDatabase", "metadataDatabase", "jobName"), ""
    )
    file.write_text(
        json.dumps(
            texts
            | {"project": changelog.project, "bigQueryEndpoint": bigquery_emulator.rest}
            | {"maskingKeys": f"file:{keys}", "deadLetterDirectory": str(tmp_path / "dead-letters"), "other": 1}
            | {"watchedTables": WATCHED.to_json()}
        )
    )
    return file


@pytest.fixture
def reader(connection_file: Path) -> Warehouse:
    """The warehouse as support reads it."""
    return Warehouse(load(connection_file))


@pytest.fixture
def payments(changelog: Changelog) -> Changelog:
    """Four payments: one processed, one failed, one pending with an older key's token, one deleted."""
    gone = {"Status": "CAPTURED", "Amount": "12.5", "Currency": "EUR", "CardNumber": "411111******1111"}
    changelog.payments(
        row("done", "INSERT", 1, "INITIATED", customer_id="C1", Amount="10.25", Currency="EUR"),
        row("done", "UPDATE", 5, "CAPTURED", {"Status": "INITIATED"}, customer_id="C1", Amount="10.25", Currency="EUR",
            CardNumber="411111******1111", _metadata_card_tokens=[NEW_TOKEN]),
        row("bad", "INSERT", 2, "DECLINED", customer_id="C1", ErrorDetails="no [funds]"),
        row("slow", "INSERT", 3, "PENDING", customer_id="C2", _metadata_card_tokens=[OLD_TOKEN, "v1:other"]),
        row("gone", "INSERT", 3, "CAPTURED", customer_id="C3", CardNumber="411111******1111",
            _metadata_card_tokens=[NEW_TOKEN]),
        row("gone", "DELETE", 4, old=gone, customer_id="C3", previous_payment_state="processed"),
    )  # fmt: skip
    changelog.position(6)
    return changelog


@pytest.fixture
def both_stores(
    changelog: Changelog, connection_file: Path, audit_database: AuditDatabase, bigquery_emulator: Any
) -> Connection:
    """A connection whose Spanner is real too; written back to the file, for commands."""
    known = json.loads(connection_file.read_text())
    known |= {
        "spannerEndpoint": audit_database.endpoint,
        "spannerInstance": audit_database.instance,
        "spannerDatabase": audit_database.name,
        "metadataDatabase": audit_database.metadata,
        "bigQueryStorageEndpoint": bigquery_emulator.grpc,
        "location": "US",
    }
    connection_file.write_text(json.dumps(known))
    return load(connection_file)
