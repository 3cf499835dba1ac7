"""Search and timeline over the views of the BigQuery emulator, as functions and as commands."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from support.cli.main import main
from support.connection import Connection, load
from support.search import Payment, Search, SearchError, search
from support.timeline import Difference, timeline
from support.warehouse import Warehouse, WarehouseError
from tests.emulators.changelog import CARD, NEW_TOKEN, OLD_TOKEN, Changelog, at, row
from tests.shipped import AUDIT_LOG_TABLE, PAYMENT_TABLE


def audit(file: Path, *arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["--connection", str(file), *arguments], input=stdin)


def puids(result: Result) -> list[str]:
    return [payment["puid"] for payment in json.loads(result.stdout)["payments"]]


def searches() -> list[tuple[Search, list[str]]]:
    return [
        (Search(), ["done", "slow", "bad"]),
        (Search(puid="done"), ["done"]),
        (Search(customer_id="C1"), ["done", "bad"]),
        (Search(state="failed"), ["bad"]),
        (Search(status="PENDING"), ["slow"]),
        (Search(since=at(2.5), until=at(4)), ["slow"]),
        (Search(customer_id="C1", state="processed"), ["done"]),
        (Search(card_tokens=(NEW_TOKEN, OLD_TOKEN)), ["done", "gone", "slow"]),
        (Search(customer_id="C3"), ["gone"]),
        (Search(customer_id="C3", state="failed"), []),
        (Search(puid="nobody"), []),
    ]


def test_search_finds_what_fulfils_every_condition(payments: Changelog, reader: Warehouse) -> None:
    for wanted, expected in searches():
        found = search(reader, wanted)
        assert [payment.puid for payment in found.payments] == expected, wanted
        assert found.complete_until == at(6)
        assert not found.more


def test_a_deleted_payment_is_found_as_it_stood(payments: Changelog, reader: Warehouse) -> None:
    [payment] = search(reader, Search(puid="gone")).payments
    assert payment == Payment(
        puid="gone", customer_id="C3", state="processed", status="CAPTURED", status_since=None, amount=Decimal("12.5"),
        currency="EUR", region=None, method=None, card="411111******1111", service=None, acting_user=None, retries=None,
        error=None, changed_at=at(4), deleted_at=at(4),
    )  # fmt: skip


def test_a_search_says_that_there_is_more_than_its_limit(payments: Changelog, reader: Warehouse) -> None:
    found = search(reader, Search(limit=2))
    assert [payment.puid for payment in found.payments] == ["done", "slow"]
    assert found.more


def test_a_replay_moves_no_payment_in_a_search(changelog: Changelog, reader: Warehouse) -> None:
    changelog.payments(
        row("a", "INSERT", 1, "CAPTURED", customer_id="C1"),
        row("b", "INSERT", 5, "CAPTURED", customer_id="C1"),
        row("a", "REPLAY", 100, "CAPTURED", customer_id="C1", payment_state_at=at(1).isoformat()),
    )
    for wanted in (Search(), Search(customer_id="C1"), Search(since=at(0), until=at(10))):
        found = search(reader, wanted).payments
        assert [(each.puid, each.changed_at) for each in found] == [("b", at(5)), ("a", at(1))], wanted
    assert search(reader, Search(since=at(50))).payments == ()
    assert search(reader, Search(until=at(50) + timedelta(days=1))).payments == ()


def test_a_search_that_cannot_be_is_refused() -> None:
    with pytest.raises(SearchError, match="1 to 10,000"):
        Search(limit=0)
    with pytest.raises(SearchError, match="Swap --since and --until"):
        Search(since=at(2), until=at(1))


def test_the_timeline_tells_a_payments_life_with_old_and_new_values(changelog: Changelog, reader: Warehouse) -> None:
    before = {"Status": "INITIATED", "Amount": "10.50", "Metadata": '{"try": 1, "note": "x"}', "CardNumber": None}
    changelog.payments(
        row("a", "INSERT", 1, "INITIATED", Amount="10.5", Metadata='{"note": "x", "try": 1}', CustomerId="C1"),
        row("a", "UPDATE", 3, "CAPTURED", before, Amount="11", Metadata='{"try": 2}', CardNumber="411111******1111",
            CustomerId="C1", previous_payment_state_at=at(1).isoformat(), ServiceName="ledger"),
        row("a", "DELETE", 4, old={"Status": "CAPTURED", "Amount": "11", "Later": "unknown column"}),
    )  # fmt: skip
    changelog.audit_logs(row("a", "INSERT", 2, "OK", table="audit_logs", Action="AUTHORIZE", ErrorDetails="slow"))
    found = timeline(reader, "a")
    assert [(event.table, event.mod_type, event.status) for event in found.events] == [
        (PAYMENT_TABLE, "INSERT", "INITIATED"),
        (AUDIT_LOG_TABLE, "INSERT", "OK"),
        (PAYMENT_TABLE, "UPDATE", "CAPTURED"),
        (PAYMENT_TABLE, "DELETE", None),
    ]
    assert Difference(column="Amount", old=None, new="10.5") in found.events[0].differences
    assert Difference(column="Action", old=None, new="AUTHORIZE") in found.events[1].differences
    assert found.events[2].differences == (
        Difference(column="Amount", old="10.50", new="11"),
        Difference(column="CardNumber", old=None, new="411111******1111"),
        Difference(column="Status", old="INITIATED", new="CAPTURED"),
        Difference(column="Metadata.try", old="1", new="2"),
        Difference(column="Metadata.note", old="x", new=None),
    )
    assert found.events[3].differences == (
        Difference(column="Amount", old="11", new=None),
        Difference(column="Status", old="CAPTURED", new=None),
        Difference(column="Later", old="unknown column", new=None),
    )
    assert found.deleted
    assert [(each.from_status, each.to_status, each.seconds) for each in found.transitions] == [
        (None, "INITIATED", None),
        ("INITIATED", "CAPTURED", 2.0),
        ("CAPTURED", None, None),
    ]
    assert found.events[0].committed_at.startswith(at(1).strftime("%Y-%m-%dT%H:%M:%S.")) and len(
        found.events[0].committed_at
    ) == len("2026-11-23T09:12:54.123456789Z")


def test_the_command_prints_json_where_there_is_no_terminal(payments: Changelog, connection_file: Path) -> None:
    result = audit(connection_file, "search", "done")
    assert result.exit_code == 0
    [payment] = json.loads(result.stdout)["payments"]
    assert (payment["status"], payment["amount"]) == ("CAPTURED", "10.25")
    assert payment["changed_at"] == at(5).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_the_command_prints_tables_on_a_terminal(payments: Changelog, connection_file: Path) -> None:
    def shown(columns: int, *arguments: str) -> str:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "support.cli.main", "--connection", str(connection_file), *arguments]
        env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
        with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env) as process:
            os.close(theirs)
            text = b""
            while chunk := _read(ours):
                text += chunk
        os.close(ours)
        assert process.returncode == 0, text
        return text.decode()

    table = shown(200, "search")
    assert "no [funds]" in table and "411111******1111" in table
    narrow = shown(70, "search")
    assert "no [funds]" not in narrow and "DECLINED" in narrow
    assert "3 payments. Complete up to" in table
    life = shown(200, "timeline", "done")
    assert "Status: INITIATED → CAPTURED" in life and "Transitions" in life


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed
        return b""


def test_a_card_is_searched_by_its_tokens_and_read_from_standard_input(
    payments: Changelog, connection_file: Path
) -> None:
    result = audit(connection_file, "search", "--card", stdin="4111 1111 1111 1111\n")
    assert puids(result) == ["done", "gone", "slow"]
    assert CARD not in result.output
    assert audit(connection_file, "search", "--card", stdin="5500005555555559\n").exit_code == 1


def test_what_is_no_card_is_refused_without_repeating_it(payments: Changelog, connection_file: Path) -> None:
    result = audit(connection_file, "search", "--card", stdin="4111111111111112\n")
    assert result.exit_code == 2
    assert "check digit" in result.output and "41111" not in result.output


def test_a_card_s_last_four_digits_find_the_payments_that_have_it_now(
    payments: Changelog, connection_file: Path
) -> None:
    assert puids(audit(connection_file, "search", "--last-four", "1111")) == ["done", "gone"]
    assert audit(connection_file, "search", "--last-four", "9999").exit_code == 1
    assert audit(connection_file, "search", "--last-four", "11111").exit_code == 2


@pytest.mark.parametrize("arguments", [("search", "nobody"), ("timeline", "nobody")])
def test_finding_nothing_is_exit_code_1(payments: Changelog, connection_file: Path, arguments: tuple[str, ...]) -> None:
    result = audit(connection_file, *arguments)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["complete_until"]


def test_a_warehouse_that_does_not_answer_says_what_to_look_at(connection_file: Path) -> None:
    known = load(connection_file)
    nobody = Connection(
        **{name: getattr(known, name) for name in known.__dataclass_fields__}
        | {"big_query_endpoint": "http://127.0.0.1:9"},
    )
    with pytest.raises(WarehouseError, match="audit local status"):
        Warehouse(nobody).complete_until()


def test_a_project_without_the_views_says_how_to_make_them(connection_file: Path) -> None:
    known = load(connection_file)
    empty = Connection(
        **{name: getattr(known, name) for name in known.__dataclass_fields__} | {"project": "audit-empty"},
    )
    with pytest.raises(WarehouseError, match="pulumi up"):
        Warehouse(empty).complete_until()
