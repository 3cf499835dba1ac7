"""Tables that are not the shipped ones: described in one file, and everything else follows, as a user runs it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.machine.state import State
from tests.stack.commands import AUDIT, audit, run

TABLES = Path(__file__).parents[1] / "examples" / "transfers" / "tables.toml"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    """A stack of the example, with traffic that has ended and arrived: what `audit local check` says is right."""
    made = State(tmp_path_factory.mktemp("transfers") / "state")
    run("local", "up", f"--tables={TABLES}", "--state", made.root)
    run("local", "traffic", "--tps=40", "--duration=10", "--seed=3", "--state", made.root)
    run("local", "check", "--wait=120", "--state", made.root)
    yield made
    run("local", "down", "--state", made.root)


def test_a_payment_is_found_by_its_number_and_by_its_customer_and_has_its_story(state: State) -> None:
    found = audit(state, "search", "--limit=200")["payments"]
    # Cents, as the table has them; no column says a method or a service.
    assert {(each["method"], each["service"]) for each in found} == {(None, None)}
    payment = next(each for each in found if each["state"] == "processed" and each["card"])
    assert payment["puid"].isdigit()
    assert float(payment["amount"]).is_integer()
    assert "****" in payment["card"]
    assert audit(state, "search", payment["puid"])["payments"] == [payment]
    assert payment in audit(state, "search", "--customer", payment["customer_id"])["payments"]
    story = audit(state, "timeline", payment["puid"])
    # Some cards are declined first, and tried again.
    steps = [event["status"] for event in story["events"] if event["status"] not in ("DECLINED", "RETRYING")]
    assert steps[:2] == ["INITIATED", "AUTHORIZED"]
    assert {event["table"] for event in story["events"]} == {"transfers"}
    columns = {each["column"] for each in story["events"][0]["differences"]}
    # Dropped columns are nowhere, held ones have no value, and a column with a name of ours goes by another.
    assert {"cents", "from_pan", "from_pan_token", "payer_token", "source_customer_id"} <= columns
    assert not {"good_thru", "remark", "payer"} & columns


def test_an_id_that_is_no_number_is_refused_with_the_rule(state: State) -> None:
    done = subprocess.run(
        [AUDIT, "--connection", state.connection, "search", "7d0f"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "must be a whole number" in done.stderr


def test_the_probe_counts_its_changes_and_its_stuck_payments(state: State) -> None:
    measured = audit(state, "probe", "--once")
    assert measured["unclassified_columns"] == 0
    assert sum(measured["stuck"].values()) == 0
