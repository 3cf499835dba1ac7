"""A first description of the tables of a database that others own."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract import schema
from contract.watched import WatchedTables
from delivery.draft import DraftError, draft

BANK = Path(__file__).parents[1] / "examples" / "bank" / "bank.ddl"
TABLES = schema.read(schema.split(BANK.read_text())).tables()


def drafted(payments: str = "ledger", *events: str) -> str:
    return draft(TABLES, payments, events, ddl="bank.ddl", stream="ledger_changes", dataset="bank_audit")


def test_a_draft_is_a_description_that_fits_its_database(tmp_path: Path) -> None:
    (tmp_path / "bank.ddl").write_text(BANK.read_text())
    (tmp_path / "tables.toml").write_text(drafted("ledger", "ledger_steps"))
    watched = WatchedTables.load(tmp_path / "tables.toml")
    ledger = watched.payments
    assert dict(ledger.meanings) == {
        "payment": "ledger_no", "customer": "customer_no", "status": "stage", "amount": "amount",
        "currency": "iso_currency", "region": "branch", "error": "refusal", "metadata": "details", "changed": "touched",
    }  # fmt: skip
    assert {name: column.policy for name, column in ledger.columns.items() if not column.means} == {
        "pan": "card", "holder": "token", "notes": "scan", "weight": "scan", "booked": "scan",
    }  # fmt: skip
    assert {name for name, column in ledger.columns.items() if column.personal} == {"customer_no", "holder", "details"}
    [steps] = watched.events
    assert dict(steps.meanings) == {"payment": "ledger_no", "action": "what", "time": "came_at"}


def test_no_column_is_left_out_and_a_computed_one_is_none() -> None:
    made = {column.name for column in TABLES["ledger"].columns}
    assert all(f"\n{name} = " in drafted() for name in made)
    assert "\nyear" not in drafted()


def test_card_data_is_never_scanned_only() -> None:
    columns = "id INT64, status STRING(9), cvv STRING(4), card_number STRING(19), expiry DATE, email STRING(9)"
    tables = schema.read([f"CREATE TABLE p ({columns}) PRIMARY KEY (id)"]).tables()
    text = draft(tables, "p", (), ddl="p.ddl", stream="s", dataset="d")
    assert '\ncvv = "drop"' in text and '\ncard_number = "card"' in text and '\nexpiry = "drop"' in text
    assert '\nemail = { policy = "token", personal = true }' in text


@pytest.mark.parametrize(
    ("table", "rule"), [("ledgers", "must be a table of"), ("ledger_steps", "one column as its key")]
)
def test_what_cannot_be_the_payments_is_refused(table: str, rule: str) -> None:
    with pytest.raises(DraftError, match=rule):
        drafted(table)
