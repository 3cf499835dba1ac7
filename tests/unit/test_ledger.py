"""The ledger: what is written is read again, and a killed run does not spoil it."""

from __future__ import annotations

from pathlib import Path

from local.traffic.ledger import Entry, Ledger, read_ledger


def entry(number: int) -> Entry:
    return Entry(
        seed=1,
        operation=number,
        table="payment_audit_trail",
        puid="p",
        mod_type="INSERT",
        commit_timestamp="2026-11-23T09:15:00.123456789Z",
        status="INITIATED",
        dead_letter=True,
    )


def test_what_is_appended_is_read_again_over_several_runs(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.jsonl"
    for number in (0, 1):
        with Ledger(path) as ledger:
            ledger.append([entry(number), entry(number)])
            assert len(list(read_ledger(path))) == 2 * (number + 1)
    assert list(read_ledger(path)) == [entry(0), entry(0), entry(1), entry(1)]


def test_there_is_nothing_in_a_ledger_that_is_not_there(tmp_path: Path) -> None:
    assert list(read_ledger(tmp_path / "ledger.jsonl")) == []


def test_half_a_line_of_a_killed_run_is_ignored_and_then_removed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append([entry(0)])
    with path.open("a") as file:
        file.write('{"seed": 1, "oper')
    assert list(read_ledger(path)) == [entry(0)]
    with Ledger(path) as ledger:
        ledger.append([entry(1)])
    assert list(read_ledger(path)) == [entry(0), entry(1)]
