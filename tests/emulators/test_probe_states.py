"""What the probe knows between two runs: what the metadata database does, its twin in memory does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from contract import timestamps
from probe.committed import Commit
from probe.state import ProbeError, ProbeState, ProbeStates, Span, StateStore, Totals, Waiting, WaitingWindow
from tests.strict.probe_states import InMemoryProbeStates

BEGAN = datetime(2026, 11, 23, 9, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["metadata database", "twin"])
def store(request: pytest.FixtureRequest) -> StateStore:
    if request.param == "twin":
        return InMemoryProbeStates()
    return ProbeStates(request.getfixturevalue("audit_database").metadata_database, "job")


def state() -> ProbeState:
    return ProbeState(BEGAN, BEGAN + MINUTE)


def commit(minute: int, seconds: float = 1) -> Commit:
    moment = BEGAN + minute * MINUTE + timedelta(seconds=seconds)
    return Commit("payment_audit_trail", timestamps.to_micros(timestamps.from_datetime(moment)))


def window(minute: int, **commits: Waiting) -> WaitingWindow:
    """Of the minute so many after the beginning; a commit a second, in the order given."""
    span = Span(BEGAN + minute * MINUTE, BEGAN + (minute + 1) * MINUTE)
    return WaitingWindow(span, {commit(minute, second): each for second, each in enumerate(commits.values(), 1)})


def test_before_the_first_run_there_is_nothing(store: StateStore) -> None:
    assert store.load() is None
    assert store.waiting(10) == []
    assert store.total() == (0, None)


def test_a_state_is_as_the_last_run_left_it(store: StateStore) -> None:
    made = state()
    store.save(made, [], BEGAN)
    assert made.runs == 1
    made.totals = Totals(committed=5, queryable=4, latency_seconds=1.5, outcomes={"SETTLED": 2})
    made.totals.late(1)
    made.streams, made.letters, made.window_end = {"S": "positions"}, ["id"], BEGAN + 2 * MINUTE
    store.save(made, [], BEGAN)
    assert store.load() == made and made.runs == 2
    # What is changed and not saved is not there.
    made.totals.committed += 1
    assert store.load() != made


def test_of_two_runs_from_one_state_the_second_is_refused_and_changes_nothing(store: StateStore) -> None:
    store.save(state(), [], BEGAN)
    first, second = store.load(), store.load()
    assert first and second
    store.save(first, [], BEGAN)
    second.totals.committed = 7
    with pytest.raises(ProbeError, match="another probe of job ran at the same time"):
        store.save(second, [window(0, a=Waiting(1))], BEGAN)
    assert store.load() == first
    assert store.waiting(10) == []


def test_windows_wait_until_nothing_in_them_does(store: StateStore) -> None:
    made = state()
    store.save(made, [window(0, a=Waiting(3, 1, 2), b=Waiting(2, 1)), window(1, a=Waiting(4))], BEGAN)
    assert store.waiting(10) == [window(0, a=Waiting(3, 1, 2), b=Waiting(2, 1)), window(1, a=Waiting(4))]
    # The first commit has none that is nowhere: its two are dead letters.
    oldest = timestamps.to_datetime(timestamps.from_micros(commit(0, 2).micros))
    assert store.total() == (7, oldest)
    store.save(made, [window(0)], BEGAN)
    assert store.waiting(10) == [window(1, a=Waiting(4))]
    assert store.total().changes == 4


def test_those_not_looked_at_for_longest_come_first_and_in_commit_order(store: StateStore) -> None:
    made = state()
    store.save(made, [window(minute, a=Waiting(1)) for minute in range(3)], BEGAN)
    store.save(made, [window(0, a=Waiting(1))], BEGAN + MINUTE)
    assert store.waiting(2) == [window(1, a=Waiting(1)), window(2, a=Waiting(1))]
    assert store.waiting(3) == [window(minute, a=Waiting(1)) for minute in range(3)]
