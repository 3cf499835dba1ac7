"""Live figures from a ledger and from arrivals."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from contract.changes import Coordinates, DeadLetter, Reason
from local.machine.state import State
from local.stack.figures import Figures, Latency, dead_letters, unreadable
from local.stack.view import View, _spark
from pipeline.sink.dead_letters import DeadLetterQueue
from support.dead_letters import all_letters

NOW = 1_800_000_000.0
TRAIL = "payment_audit.payment_audit_trail_bq"


def _commit(path: Path, second: float, **more: object) -> None:
    stamp = f"2027-01-15T08:00:{second:012.9f}Z"
    _add(path, {"table": "payment_audit_trail", "commit_timestamp": stamp, **more})


def _arrive(path: Path, second: float, latencies: list[int], table: str = TRAIL) -> None:
    stamp = f"2027-01-15T08:00:{second:09.6f}+00:00"
    _add(path, {"table": table, "rows": len(latencies), "queryable_at": stamp, "latencies_ms": latencies})


def _add(path: Path, line: dict[str, object]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


@pytest.fixture
def figures(tmp_path: Path) -> Figures:
    return Figures(tmp_path / "ledger.jsonl", tmp_path / "arrivals.jsonl")


def test_there_is_nothing_to_tell_before_the_traffic_begins(figures: Figures) -> None:
    figures.update()
    assert (figures.committed, figures.arrived, figures.in_flight) == (0, 0, 0)
    assert figures.latency(now=NOW) is None


def test_what_is_committed_and_has_not_arrived_is_in_flight(figures: Figures) -> None:
    for i in range(3):
        _commit(figures.ledger, i)
    _arrive(figures.arrivals, 3, [900, 800])
    figures.update()
    assert (figures.committed, figures.arrived, figures.in_flight) == (3, 2, 1)


def test_a_change_that_must_not_arrive_is_not_in_flight(figures: Figures) -> None:
    _commit(figures.ledger, 1, dead_letter=True)
    figures.update()
    assert figures.in_flight == 0


def test_the_jobs_own_bookkeeping_is_no_change(figures: Figures) -> None:
    _arrive(figures.arrivals, 3, [], table="payment_audit.resume_positions")
    figures.update()
    assert figures.arrived == 0


def test_a_line_that_is_being_written_is_read_once_it_is_complete(figures: Figures) -> None:
    _commit(figures.ledger, 1)
    line = figures.ledger.read_text()
    figures.ledger.write_text(line[:20])
    figures.update()
    assert figures.committed == 0
    figures.ledger.write_text(line)
    figures.update()
    figures.update()
    assert figures.committed == 1


def test_latency_is_of_the_last_seconds_only(figures: Figures) -> None:
    _arrive(figures.arrivals, 1, [60_000])
    _arrive(figures.arrivals, 30, list(range(1, 101)))
    figures.update()
    assert figures.latency(now=NOW + 31) == Latency(p50=51, p95=96, p99=100, max=100)


def test_a_rate_is_an_average_over_whole_seconds() -> None:
    assert Figures.rate(Counter({99: 10, 98: 20, 90: 1000, 100: 500}), now=100.5) == 6


def test_a_history_is_told_oldest_first() -> None:
    assert Figures.history(Counter({99: 3, 97: 1}), now=100.5, seconds=3) == [1, 0, 3]


def test_a_sparkline_is_as_high_as_its_highest_value_and_shows_the_lowest() -> None:
    assert _spark([0, 1, 50, 100]) == " ▁▄█"
    assert _spark([0, 0]) == "  "


def test_dead_letters_are_counted_as_the_command_line_counts_them(tmp_path: Path) -> None:
    queue = DeadLetterQueue(str(tmp_path))
    at = Coordinates("S", "payment_audit_trail", "2026-11-23T09:12:00.000000000Z", "tx", "00", 0)
    letters = [
        DeadLetter(
            coordinates=at._replace(mod_index=index), step="Mask", reason=Reason.NOT_MASKABLE, message="m",
            attempts=0, first_failed_at="", last_failed_at="",
        )
        for index in range(4)
    ]  # fmt: skip
    queue.put(letters)
    queue.put(letters[:1])  # a copy, of a bundle that was repeated
    queue.park(letters[1:2])
    queue.put(letters[:2])  # a crash within a move leaves it in both folders
    file = next((tmp_path / "retry").rglob("*.jsonl"))
    file.write_bytes(file.read_bytes().rstrip(b"\n") + b"\n\n{}\nhalf a li")
    assert dead_letters(tmp_path) == queue.counts() == {"retry": 3, "severe": 1}
    assert len(all_letters(queue)) == 4
    assert unreadable(tmp_path) == queue.unreadable() == 2


def test_without_a_terminal_the_view_is_lines(tmp_path: Path) -> None:
    out = io.StringIO()
    view = View(State(tmp_path), Console(file=out))
    _commit(view.figures.ledger, 1)
    view.show(lambda: True)
    assert "committed 1 " in out.getvalue()
    assert len(out.getvalue().splitlines()) == 1


def test_on_a_terminal_the_view_is_a_picture(tmp_path: Path) -> None:
    out = io.StringIO()
    view = View(State(tmp_path), Console(file=out, force_terminal=True, width=120))
    view.glimpse.recent = [
        {
            "payment": "p-1",
            "region": "EU",
            "amount": None,
            "currency": None,
            "status": "X",
            "payment_state": None,
            "at": _time(),
        }
    ]
    view.show(lambda: True)
    for text in ("committed to Spanner", "searchable in BigQuery", "dead letters", "p-1"):
        assert text in out.getvalue()


def _time() -> object:
    import datetime

    return datetime.datetime(2027, 1, 15, tzinfo=datetime.UTC)
