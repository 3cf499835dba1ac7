"""A stack whose payments are in a PostgreSQL database: made, written to, read, compared and replayed as any other."""

from __future__ import annotations

import json

import pytest

from contract import dialects
from local.emulators import launch
from local.machine.state import State
from pipeline.source.dialect import dialect_of
from tests.stack.commands import audit, run

# A whole stack and what is asked of it: minutes, where the machine has other work.
pytestmark = pytest.mark.timeout(900)


def test_payments_in_postgresql_arrive_and_are_compared_backfilled_and_replayed(state: State) -> None:
    run("local", "up", "--dialect=postgresql", "--state", state.root)
    known = json.loads(state.connection.read_text())
    client = launch.spanner_client(known["spannerEndpoint"], known["project"])
    instance = client.instance(known["spannerInstance"])
    assert dialect_of(instance.database(known["spannerDatabase"])).name == dialects.POSTGRESQL
    assert dialect_of(instance.database(known["metadataDatabase"])).name == dialects.GOOGLE_SQL
    run("local", "traffic", "--tps=40", "--duration=8", "--seed=3", "--state", state.root)
    checked = run("local", "check", "--wait=120", "--state", state.root)
    assert "0 missing, 0 doubled, 0 unmasked, 0 of" in checked
    # The database is as its changelog makes it, by its own DDL.
    assert {each["state"] for each in audit(state, "schema", "verify")["findings"]} <= {"there"}
    # Amounts are numbers, and what was before a change is shown by column.
    payments = audit(state, "search", "--state", "processed", "--limit=50")["payments"]
    assert payments and all(float(found["amount"]) > 0 for found in payments)
    # A bank transfer has no card.
    found = next(found for found in payments if found["card"])
    assert "****" in found["card"]
    # Every row is there: a backfill has nothing to write. A replay reads its payment again.
    backfill = audit(state, "backfill", "start", "--reason", "a try of the dialect")
    assert (backfill["replayed"], backfill["problems"]) == (0, []) and backfill["there"] > 0
    replay = audit(state, "replay", "start", found["puid"], "--reason", "a try of the dialect")
    assert (replay["replayed"], replay["problems"]) == (1, [])
    validated = audit(state, "validate", "--all")
    assert validated["findings"] == [] and validated["open"] == 0
    assert audit(state, "probe")["notes"] == []
    run("local", "check", "--wait=120", "--state", state.root)
