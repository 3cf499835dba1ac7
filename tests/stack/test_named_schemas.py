"""Payments in a named schema, in both dialects: made, written to, read, compared and replayed as any other, beside a
table of the default schema that has the name of one in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
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


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path / "state")
    yield made
    run("local", "down", "--state", made.root)


@pytest.mark.parametrize("dialect", ["googlesql", "postgresql"])
def test_payments_in_a_named_schema_arrive_masked_and_are_compared_backfilled_and_replayed(
    state: State, dialect: str
) -> None:
    run("local", "up", f"--tables={TABLES}", f"--dialect={dialect}", "--state", state.root)
    known = json.loads(state.connection.read_text())
    client = launch.spanner_client(known["spannerEndpoint"], known["project"])
    with client.instance(known["spannerInstance"]).database(known["spannerDatabase"]).batch() as batch:
        batch.insert("order", ("order_no", "paid_with"), [("o1", CARD)])
        columns = ("payment_no", "action", "came_at", "paid_with")
        batch.insert("sales.order", columns, [("p1", "SHIP", "2026-11-23T09:00:00Z", CARD)])
    run("local", "traffic", "--tps=40", "--duration=8", "--seed=3", "--state", state.root)
    checked = run("local", "check", "--wait=120", "--state", state.root)
    assert "0 missing, 0 doubled, 0 unmasked, 0 of" in checked
    assert {each["state"] for each in audit(state, "schema", "verify")["findings"]} <= {"there"}
    # Each in its own changelog, by its own line of the description.
    assert _rows(known, "order_log", "order_no") == [{"order_no": "o1", "source": "order"}]
    [row] = _rows(known, "sales_order_log", "payment_no, paid_with", "payment_no = 'p1'")
    assert row["source"] == "sales.order" and row["paid_with"] == "411111******1111"
    # A card that came with a payment is shown without its middle; none was unclassified.
    payments = audit(state, "search", "--state", "processed", "--limit=50")["payments"]
    found = next(found for found in payments if found["card"])
    assert "****" in found["card"] and float(found["amount"]) > 0
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
    run("local", "check", "--wait=120", "--state", state.root)


def _rows(known: dict[str, Any], changelog: str, columns: str, where: str = "TRUE") -> list[dict[str, Any]]:
    client = bigquery_client(known["bigQueryEndpoint"], known["project"])
    sql = f"SELECT {columns}, _metadata_spanner_table_name AS source FROM shop_audit.{changelog} WHERE {where}"
    return [dict(row) for row in client.query(sql).result()]
