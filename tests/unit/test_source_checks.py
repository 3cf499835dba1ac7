"""What a launch asks of a change stream's options."""

from __future__ import annotations

from typing import Any

import pytest

from contract.changes import CAPTURE_TYPES
from pipeline.jobs.checks import change_stream, unreadable, watched_twice
from tests.shipped import WATCHED

CAPTURE = {"value_capture_type": "NEW_ROW_AND_OLD_VALUES"}


@pytest.mark.parametrize("mode", ["A_MODE_OF_TOMORROW", "immutable_key_range_v2"])
def test_a_partition_mode_that_cannot_be_read_is_refused_at_launch_with_the_remedy(mode: str) -> None:
    problem = change_stream("db", "S", "", {"S": CAPTURE | {"partition_mode": mode}}).problem
    assert f"must have partition_mode IMMUTABLE_KEY_RANGE or MUTABLE_KEY_RANGE, has '{mode}'" in problem
    assert "creates a second stream" in problem


@pytest.mark.parametrize(
    "mode", [{}, *({"partition_mode": mode} for mode in ("IMMUTABLE_KEY_RANGE", "MUTABLE_KEY_RANGE", ""))]
)
def test_the_partition_mode_that_can_be_read_passes_set_or_not(mode: dict[str, str]) -> None:
    assert change_stream("db", "S", "", {"S": CAPTURE | mode}).problem == ""


@pytest.mark.parametrize("options", [{}, {"retention_period": "7d"}, {None: None}])
def test_a_stream_without_a_capture_type_has_spanners_default_whose_rows_are_read(options: dict[str, str]) -> None:
    finding = change_stream("db", "S", "", {"S": options})
    assert finding.problem == ""
    assert "captures OLD_AND_NEW_VALUES: each UPDATE costs a read" in finding.warning


def test_every_capture_type_is_accepted_and_what_one_lacks_is_said() -> None:
    findings = {c: change_stream("db", "S", "", {"S": {"value_capture_type": c}}) for c in CAPTURE_TYPES}
    assert [f.problem for f in findings.values()] == [""] * 4
    assert [c for c, f in findings.items() if not f.warning] == ["NEW_ROW_AND_OLD_VALUES"]
    assert [c for c, f in findings.items() if "the previous state of a payment" in f.warning] == [
        "NEW_ROW",
        "NEW_VALUES",
    ]
    unknown = change_stream("db", "S", "", {"S": {"value_capture_type": "ALL_OF_TOMORROW"}}).problem
    assert "must capture one of" in unknown and "ALTER CHANGE STREAM S" in unknown


def test_a_role_that_may_not_read_the_rows_that_it_must_is_refused_at_launch() -> None:
    streams = dict.fromkeys(WATCHED.change_streams, "NEW_VALUES")
    others = [table.name for table in WATCHED.tables[1:]]
    [finding] = unreadable(WATCHED, streams, "audit_reader", others)
    assert f"GRANT SELECT ON TABLE {WATCHED.tables[0].name} TO ROLE audit_reader" in finding.problem
    assert not list(unreadable(WATCHED, dict.fromkeys(streams, "NEW_ROW"), "audit_reader", []))


def test_a_stream_that_is_not_seen_is_named_with_those_that_are() -> None:
    assert "which has A, B" in change_stream("db", "S", "", {"B": CAPTURE, "A": CAPTURE}).problem
    assert "seen by the database role reader in db, which sees none" in change_stream("db", "S", "reader", {}).problem


@pytest.mark.parametrize(
    ("watched", "both"),
    [
        ({"A": {"t", "u"}, "B": {"u", "v"}}, "u by A and B"),
        ({"A": {"t"}, "B": None}, "t by A and B"),
        ({"A": None, "B": {"s.t"}}, "s.t by A and B"),
        ({"A": None, "B": None}, "every table by A and B"),
        ({"A": None, "B": set()}, "every table by A and B"),
    ],
)
def test_a_table_that_two_streams_of_the_job_watch_is_refused_at_launch(watched: Any, both: str) -> None:
    [finding] = watched_twice(watched)
    assert both in finding.problem and "Leave one of the two out of spannerChangeStreamNames" in finding.problem


@pytest.mark.parametrize("watched", [{}, {"A": None}, {"A": {"t"}, "B": {"u"}}, {"A": {"t"}, "B": set()}])
def test_streams_that_share_no_table_pass(watched: Any) -> None:
    assert list(watched_twice(watched)) == []
