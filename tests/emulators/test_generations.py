"""The generations of a job: what the metadata database does, its twin in memory does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from contract import timestamps
from pipeline.sink.generations import Fenced, Generations, GenerationStore
from tests.strict.generations import InMemoryGenerations, Ledger
from tests.takeover import LATER, START

TABLE = "p.payment_audit.payment_audit_trail_bq"
Stores = Callable[[str], GenerationStore]


@pytest.fixture(params=["metadata database", "twin"])
def stores(request: pytest.FixtureRequest) -> Stores:
    """Gives the generations of a job name; all of them in one database."""
    if request.param == "twin":
        ledger = Ledger()
        return lambda job: InMemoryGenerations(job, ledger)
    database = request.getfixturevalue("audit_database").metadata_database
    return lambda job: Generations(database, job)


@pytest.fixture
def store(stores: Stores) -> GenerationStore:
    return stores("job")


def taken(store: GenerationStore, start: str = START) -> int:
    """The generation of a new run."""
    return store.take_over(store.new_run(), start).generation


def test_a_first_run_begins_at_its_own_start_and_keeps_it_if_it_dies(store: GenerationStore) -> None:
    assert store.position() is None
    first = store.take_over(store.new_run(), START)
    assert (first.generation, first.position, first.fenced_at, first.taken) == (1, START, None, True)
    assert store.position() == START
    second = store.take_over(store.new_run(), LATER)
    assert (second.generation, second.position) == (2, START)


def test_a_run_takes_one_generation_however_often_it_asks(store: GenerationStore) -> None:
    run = store.new_run()
    assert store.take_over(run, START).taken
    again = store.take_over(run, LATER)
    assert (again.generation, again.position, again.taken) == (1, START, False)
    fenced_at = store.fence(1)
    assert store.take_over(run, LATER).fenced_at == fenced_at


def test_a_launch_changes_nothing_until_it_takes_over(store: GenerationStore) -> None:
    generation = taken(store)
    store.new_run()
    store.advance(generation, LATER)
    assert store.position() == LATER


def test_a_run_launched_before_the_newest_takes_nothing_over(store: GenerationStore) -> None:
    early, late = store.new_run(), store.new_run()
    assert early < late
    store.take_over(late, START)
    with pytest.raises(Fenced, match="a run of job was replaced by generation 1"):
        store.take_over(early, LATER)
    assert store.position() == START
    assert not store.take_over(late, START).taken


def test_a_launch_is_later_than_the_run_it_replaces_whatever_the_clock_says(
    store: GenerationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.new_run()
    store.take_over(run, START)
    monkeypatch.setattr("pipeline.sink.generations.time.time_ns", lambda: 1)
    assert store.new_run() > run


def test_a_run_that_was_replaced_does_not_come_back(store: GenerationStore) -> None:
    old, new = store.new_run(), store.new_run()
    store.take_over(old, START)
    store.take_over(new, START)
    with pytest.raises(Fenced, match="replaced by generation 2"):
        store.take_over(old, START)


def test_a_position_that_somebody_has_cleared_is_written_by_the_job_that_runs(audit_database: Any) -> None:
    store = Generations(audit_database.metadata_database, "cleared")
    generation = taken(store)
    with audit_database.metadata_database.batch() as batch:
        batch.update("jobs", ["JobName", "ResumePosition"], [["cleared", None]])
    assert store.position() is None
    store.advance(generation, START)
    assert store.position() == START


def test_a_fenced_generation_records_nothing(store: GenerationStore) -> None:
    old = taken(store)
    new = taken(store)
    for refused in (
        lambda: store.advance(old, LATER),
        lambda: store.fence(old),
        lambda: store.record_stream(old, TABLE, "0", "s/0", replaces=None),
    ):
        with pytest.raises(Fenced, match=f"generation {old} of job was replaced by generation {new}"):
            refused()
    assert (store.position(), store.stream(TABLE, "0")) == (START, None)


def test_the_first_fence_of_a_generation_counts(store: GenerationStore) -> None:
    generation = taken(store)
    fenced_at = store.fence(generation)
    assert store.fence(generation) == fenced_at
    newer = store.take_over(store.new_run(), START)
    assert newer.fenced_at is None
    assert store.fence(newer.generation) > fenced_at


def test_a_stream_is_recorded_in_place_of_the_one_that_was_known(store: GenerationStore) -> None:
    generation = taken(store)
    first = store.record_stream(generation, TABLE, "0", "s/0", replaces=None)
    assert first is not None and timestamps.normalise(first) == first
    assert store.record_stream(generation, TABLE, "0", "s/1", replaces=None) is None
    assert store.stream(TABLE, "0") == "s/0"
    second = store.record_stream(generation, TABLE, "0", "s/1", replaces="s/0")
    assert second is not None and second > first
    assert store.stream(TABLE, "0") == "s/1"
    assert store.stream(TABLE, "1") is store.stream("another", "0") is None


def test_older_streams_are_those_of_earlier_generations(store: GenerationStore) -> None:
    old = taken(store)
    for shard in ("0", "1"):
        store.record_stream(old, TABLE, shard, f"s/old{shard}", replaces=None)
    new = taken(store)
    store.record_stream(new, TABLE, "1", "s/new1", replaces="s/old1")
    store.record_stream(new, TABLE, "2", "s/new2", replaces=None)
    assert store.older_streams(new) == ["s/old0"]
    assert store.older_streams(old) == []


def test_the_position_never_goes_back(store: GenerationStore) -> None:
    generation = taken(store)
    store.advance(generation, LATER)
    store.advance(generation, START)
    assert store.position() == LATER
    assert store.take_over(store.new_run(), START).position == LATER


def test_jobs_of_other_names_are_apart(stores: Stores) -> None:
    one, other = stores("job"), stores("another")
    generation = taken(one)
    one.record_stream(generation, TABLE, "0", "s/0", replaces=None)
    assert (other.position(), other.stream(TABLE, "0")) == (None, None)
    assert taken(other, LATER) == 1
    assert other.older_streams(2) == []
    one.advance(generation, LATER)
