"""Payments in a named schema, in both dialects: made, written to, read, compared and replayed as any other, beside a
table of the default schema that has the name of one in it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from local.emulators import launch
from local.machine.state import State
from pipeline.clients import bigquery_client
from tests.emulators.changelog import CARD
from tests.stack.commands import audit, run

TABLES = Path(__file__).parents[1] / "examples" / "shop" / "tables.toml"
# A whole stack and what is asked of it: minutes, where the machine has other work.
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("dialect", ["googlesql", "postgresql"])
def test_payments_in_a_named_schema_arrive_masked_and_are_compared_backfilled_and_replayed(
    state: State, dialect: str
) -> None:
    run("local", "up", f"--tables={TABLES}", f"--dialect={dialect}", "--state", state.root)
    known = json.loads(state.connection.read_text())
    run("local", "traffic", "--tps=40", "--duration=8", "--seed=3", "--state", state.root)
    checked = run("local", "check", "--wait=120", "--state", state.root)
    assert "0 missing, 0 doubled, 0 unmasked, 0 of" in checked
    assert {each["state"] for each in audit(state, "schema", "verify")["findings"]} <= {"there"}
    # A card that came with a payment is shown without its middle.
    payments = audit(state, "search", "--state", "processed", "--limit=50")["payments"]
    found = next(found for found in payments if found["card"])
    assert "****" in found["card"] and float(found["amount"]) > 0
    # Two tables of one name, each in its own changelog, by its own lines of the description.
    client = launch.spanner_client(known["spannerEndpoint"], known["project"])
    with client.instance(known["spannerInstance"]).database(known["spannerDatabase"]).batch() as batch:
        batch.insert("order", ("order_no", "paid_with"), [("o1", CARD)])
        columns = ("payment_no", "action", "came_at", "paid_with")
        batch.insert_or_update("sales.order", columns, [(found["puid"], "SHIP", "2026-11-23T09:00:00Z", CARD)])
    assert _arrived(known, "order_log", "order_no") == ("order", "o1")
    assert _arrived(known, "sales_order_log", "paid_with") == ("sales.order", "411111******1111")
    # What a dropped column leaves: nothing.
    assert "paid_with" not in {field.name for field in _bigquery(known).get_table("shop_audit.order_log").schema}
    story = audit(state, "timeline", found["puid"])
    assert {event["table"] for event in story["events"]} == {"sales.payments", "sales.order"}
    probed = audit(state, "probe", "--once")
    assert probed["notes"] == [] and probed["unclassified_columns"] == 0
    # Every row is there: a backfill has nothing to write. A replay reads its payment again.
    backfill = audit(state, "backfill", "start", "--reason", "a try of the schema")
    assert (backfill["replayed"], backfill["problems"]) == (0, []) and backfill["there"] > 0
    replay = audit(state, "replay", "start", found["puid"], "--reason", "a try of the schema")
    assert (replay["replayed"], replay["problems"]) == (1, [])
    validated = audit(state, "validate", "--all")
    assert validated["findings"] == [] and validated["open"] == 0
    assert {check["table"] for check in validated["checks"]} == {"sales.payments", "sales.order", "order"}


def _bigquery(known: dict[str, Any]) -> Any:
    return bigquery_client(known["bigQueryEndpoint"], known["project"])


def _arrived(known: dict[str, Any], changelog: str, column: str) -> tuple[str, str]:
    """Source table and column of the one row with a value, once it is there or a minute is over."""
    sql = f"SELECT _metadata_spanner_table_name, {column} FROM shop_audit.{changelog} WHERE {column} IS NOT NULL"
    until = time.monotonic() + 60
    while not (rows := [(row[0], row[1]) for row in _bigquery(known).query(sql).result()]):
        assert time.monotonic() < until, f"nothing arrived in {changelog}"
        time.sleep(0.5)
    [row] = rows
    return row
