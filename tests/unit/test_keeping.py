"""Whether the streaming job is to be launched, by what Dataflow and the metadata database say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from contract.operations import BACKUP, BACKUP_DRILL, OPERATIONS, PIPELINE, SCHEMA, VALIDATION
from support.operations.dataflow import Job, State
from support.operations.keeping import (
    FIRST_PAUSE,
    LONGEST_START,
    MOST_LAUNCHES,
    STEADY,
    Launches,
    decide,
    pause_after,
)
from support.operations.runs import LastRun, interval_seconds, missed, outcome_of

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def job(state: State, *, id: str = "one", for_: timedelta = timedelta(hours=3)) -> Job:
    return Job(id=id, name="audit-stream-job", state=state, since=NOW - for_)


def test_where_no_job_runs_it_is_launched() -> None:
    for owner in ("composer", "scheduler"):
        assert decide([], Launches(), owner, NOW).action == "launch"


def test_pulumi_launches_its_job_itself_and_a_missing_one_is_reported() -> None:
    found = decide([], Launches(), "pulumi", NOW)
    assert (found.action, found.well) == ("reported", False)
    assert "delivery.deploy up" in found.why


@pytest.mark.parametrize("state", ["starting", "running", "draining"])
def test_one_job_is_left_alone(state: State) -> None:
    found = decide([job(state, for_=timedelta(minutes=5))], Launches(), "composer", NOW)
    assert (found.action, found.well) == ("nothing", True)


def test_two_jobs_are_refused_by_their_ids() -> None:
    found = decide([job("running"), job("starting", id="two")], Launches(), "composer", NOW)
    assert (found.action, found.well) == ("refused", False)
    assert "one, two" in found.why


def test_a_job_that_starts_for_too_long_needs_a_person() -> None:
    late = decide([job("starting", for_=LONGEST_START + timedelta(seconds=1))], Launches(), "composer", NOW)
    assert (late.action, late.well) == ("failed", False)


def test_nobody_launches_while_a_deployment_has_the_lock() -> None:
    held = Launches(locked_by="delivery.deploy up", locked_until=NOW + timedelta(minutes=1))
    assert decide([], held, "composer", NOW).action == "held"
    assert decide([], held, "composer", NOW, who="delivery.deploy up").action == "launch"
    # One that was killed holds nobody up for good.
    assert decide([], held, "composer", NOW + timedelta(minutes=2)).action == "launch"


def test_a_job_that_a_person_drained_stays_ended_until_resume() -> None:
    drained = Launches(drained_by="ann@example.com", drained_at=NOW - timedelta(hours=1))
    found = decide([], drained, "composer", NOW)
    assert (found.action, found.well) == ("held", True)
    assert "ann@example.com" in found.why and "audit pipeline resume" in found.why


def test_a_paused_stack_has_no_job() -> None:
    assert decide([], Launches(), "composer", NOW, paused=True).action == "held"


def test_launches_that_fail_come_ever_later_and_end_after_the_last() -> None:
    assert [pause_after(n) for n in (0, 1, 2, 3, 4)] == [timedelta(0)] * 2 + [FIRST_PAUSE * n for n in (1, 2, 4)]
    again = Launches(attempts=2, launched_at=NOW)
    soon = decide([], again, "composer", NOW + FIRST_PAUSE - timedelta(seconds=1))
    assert (soon.action, soon.well) == ("waiting", False)
    assert decide([], again, "composer", NOW + FIRST_PAUSE).action == "launch"
    last = replace(again, attempts=MOST_LAUNCHES, launched_id="five")
    found = decide([], last, "composer", NOW + timedelta(days=1))
    assert (found.action, found.well) == ("failed", False)
    assert "five" in found.why and "audit pipeline resume" in found.why


def test_a_job_that_ran_well_forgets_the_launches_that_failed() -> None:
    failed = Launches(attempts=2)
    assert not decide([job("running", for_=STEADY - timedelta(seconds=1))], failed, "composer", NOW).reset
    assert decide([job("running", for_=STEADY)], failed, "composer", NOW).reset
    assert not decide([job("running", for_=STEADY)], Launches(), "composer", NOW).reset


def test_an_exit_code_of_one_is_a_failure_where_no_other_alert_says_it() -> None:
    assert [outcome_of(PIPELINE.name, code) for code in (0, 1, 2)] == ["done", "failed", "failed"]
    assert [outcome_of(VALIDATION.name, code) for code in (0, 1, 2)] == ["done", "found", "failed"]


def test_the_time_between_two_runs_is_read_from_every_schedule() -> None:
    found = {each.name: interval_seconds(each.cron) for each in OPERATIONS if each.cron}
    assert found[PIPELINE.name] == 600 and found[SCHEMA.name] == found[VALIDATION.name] == 3600
    assert found[BACKUP.name] == 86_400 and found[BACKUP_DRILL.name] == 7 * 86_400


def test_an_operation_is_missed_by_the_schedule_that_its_stack_has() -> None:
    """Where Pulumi owns the job, `pipeline` runs hourly: an hour is one interval, and no alert."""
    runs = [
        LastRun(operation=PIPELINE.name, known_since=NOW - timedelta(days=1), succeeded_at=NOW - timedelta(hours=1))
    ]
    assert missed(runs, NOW, "pulumi") == {PIPELINE.name: 1.0}
    assert missed(runs, NOW, "composer") == missed(runs, NOW, "scheduler") == {PIPELINE.name: 6.0}
