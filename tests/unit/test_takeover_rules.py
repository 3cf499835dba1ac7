"""Taking over happens when a job runs: once a run, whichever of its workers comes first, dies, or comes late."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

import pytest
from google.api_core import exceptions

from contract import timestamps
from pipeline import clients
from pipeline.clients import Endpoints
from pipeline.sink import fencing
from pipeline.sink.changelogs import Destinations
from pipeline.sink.config import MetadataDatabase
from pipeline.sink.fencing import TakenOver
from pipeline.sink.generations import Fenced
from tests.shipped import PAYMENT_DATASET, WATCHED
from tests.takeover import JOB, LATER, START, Finalizing, TwinSink, join, launched, recorded


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Finalizing:
    made = Finalizing()
    monkeypatch.setattr(clients, "write_client", lambda endpoint: made)
    monkeypatch.setattr(fencing, "_PAUSE_SECONDS", (0.0, 0.0))
    return made


@pytest.fixture
def sink() -> TwinSink:
    return TwinSink(
        endpoints=Endpoints(),
        metadata=MetadataDatabase(project="p", instance="i", database="d"),
        destinations=Destinations(project="p", watched=WATCHED, dataset=PAYMENT_DATASET),
        job_name=JOB,
    )


def row(sink: TwinSink) -> tuple[Any, ...]:
    """What is stored of the job."""
    at = sink.ledger
    return at.generation.get(JOB), at.run.get(JOB), at.position.get(JOB), at.fenced_at.get(JOB)


def test_a_launch_takes_nothing_over_until_one_of_its_workers_runs(sink: TwinSink, writing: Finalizing) -> None:
    running = launched(sink)
    assert join(running).generation == 1
    launched(sink)
    running.generations().advance(1, LATER)
    assert join(running) == TakenOver(1, LATER, None)


def test_every_worker_of_a_run_gets_the_same_generation_and_the_same_fence(sink: TwinSink, writing: Finalizing) -> None:
    join(launched(sink))
    run = launched(sink)
    first = join(run)
    assert first.generation == 2 and first.fenced_at is not None
    assert [join(run) for _ in range(3)] == [first] * 3


def test_a_run_that_was_launched_before_the_newest_does_not_take_over(sink: TwinSink, writing: Finalizing) -> None:
    early, late = launched(sink), launched(sink)
    join(late)
    before = row(sink)
    with pytest.raises(Fenced, match="a run of job was replaced by generation 1"):
        join(early)
    assert row(sink) == before


def test_a_run_that_was_replaced_does_not_come_back(sink: TwinSink, writing: Finalizing) -> None:
    old = launched(sink)
    join(old)
    new = launched(sink)
    join(new)
    with pytest.raises(Fenced, match="replaced by generation 2"):
        join(old)
    assert join(new).generation == 2


def test_a_launcher_whose_clock_is_late_takes_over_all_the_same(
    sink: TwinSink, writing: Finalizing, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(launched(sink))
    monkeypatch.setattr("pipeline.sink.generations.time.time_ns", lambda: 1)
    assert join(launched(sink)).generation == 2
    assert join(launched(sink)).generation == 3


def test_older_streams_are_finalized_before_the_fence_is_set(sink: TwinSink, writing: Finalizing) -> None:
    old = launched(sink)
    streams = {recorded(old, "s/0", "0"), recorded(old, "s/1", "1")}
    fences: list[Any] = []
    writing.meanwhile = lambda: fences.append(sink.ledger.fenced_at.get(JOB))
    taken = join(launched(sink))
    assert set(writing.streams) == streams
    assert fences == [None, None]
    assert taken.fenced_at is not None


def test_what_a_worker_that_died_left_undone_is_done_by_the_next(sink: TwinSink, writing: Finalizing) -> None:
    old = launched(sink)
    stream_of_old = recorded(old, "s/0")
    run = launched(sink)
    taken = run.generations().take_over(run.run_id, run.start)
    assert (taken.generation, taken.fenced_at) == (2, None)
    assert sink.ledger.fenced_at.get(JOB) is None
    joined = join(run)
    assert writing.streams == [stream_of_old]
    assert joined.generation == 2 and joined.fenced_at is not None


def test_a_stream_that_cannot_be_finalized_yet_is_waited_for_and_no_fence_is_set_before(
    sink: TwinSink, writing: Finalizing
) -> None:
    old = launched(sink)
    recorded(old, "s/0")
    writing.fails = [exceptions.ServiceUnavailable("away"), exceptions.DeadlineExceeded("away")]
    assert fencing.join(launched(sink)).fenced_at is not None
    assert writing.streams == ["s/0"] * 3


@pytest.mark.parametrize(
    "gone", [exceptions.NotFound("x"), exceptions.FailedPrecondition("x"), exceptions.InvalidArgument("x")]
)
def test_a_stream_that_is_gone_holds_nothing_up(sink: TwinSink, writing: Finalizing, gone: Exception) -> None:
    recorded(launched(sink), "s/0")
    writing.fails = [gone]
    assert join(launched(sink)).fenced_at is not None


def test_a_worker_that_comes_late_finalizes_no_stream_of_its_own_run(sink: TwinSink, writing: Finalizing) -> None:
    recorded(launched(sink), "s/old", "0")
    run = launched(sink)
    generation = join(run).generation
    recorded(run, "s/new", "1")
    assert run.generations().older_streams(generation) == ["s/old"]


def test_a_fence_that_another_worker_set_first_counts(sink: TwinSink, writing: Finalizing) -> None:
    """It appended behind that fence already: a later one would have its rows looked up, an earlier one there is not."""
    recorded(launched(sink), "s/old")
    run = launched(sink)
    others: list[TakenOver] = []

    def another() -> None:
        writing.meanwhile = lambda: None
        others.append(join(run))

    writing.meanwhile = another
    mine = join(run)
    assert [mine] == others


def test_workers_that_join_at_once_agree(sink: TwinSink, writing: Finalizing) -> None:
    recorded(launched(sink), "s/old")
    run = launched(sink)
    answers: list[TakenOver] = []
    workers = [threading.Thread(target=lambda: answers.append(join(run))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(answers) == 4 and len(set(answers)) == 1
    assert answers[0].generation == 2


def test_a_run_that_is_replaced_while_it_takes_over_is_fenced(sink: TwinSink, writing: Finalizing) -> None:
    recorded(launched(sink), "s/old")
    run, newer = launched(sink), launched(sink)

    def replaced() -> None:
        writing.meanwhile = lambda: None
        join(newer)

    writing.meanwhile = replaced
    with pytest.raises(Fenced, match="generation 2 of job was replaced by generation 3"):
        join(run)


def test_where_a_run_reads_from_is_said_once_however_many_workers_it_has(
    sink: TwinSink, writing: Finalizing, caplog: pytest.LogCaptureFixture
) -> None:
    run = launched(sink)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            join(run)
    assert [m for m in caplog.messages if "reads from" in m] == [f"Job job, generation 1, reads from {START}."]


def test_at_least_once_resumes_at_its_position_and_its_older_job_is_fenced(sink: TwinSink, writing: Finalizing) -> None:
    twice = replace(sink, exactly_once=False)
    first = launched(twice).joined()
    assert first.resume_position() == START
    first.generations().advance(first.generation, LATER)
    second = launched(twice, timestamps.now()).joined()
    assert (second.resume_position(), second.generation) == (LATER, 2)
    second.generations().advance(second.generation, timestamps.now())
    with pytest.raises(Fenced):
        first.generations().advance(first.generation, timestamps.now())


def test_exactly_once_after_at_least_once_looks_up_what_that_one_wrote_before_it_was_replaced(
    sink: TwinSink, writing: Finalizing
) -> None:
    launched(replace(sink, exactly_once=False)).joined()
    before = timestamps.now()
    joined = launched(sink).joined()
    assert joined.generation == 2
    assert joined.fenced_at is not None and joined.fenced_at > before


def test_at_least_once_after_exactly_once_closes_what_that_one_had_open(sink: TwinSink, writing: Finalizing) -> None:
    recorded(launched(sink), "s/0")
    launched(replace(sink, exactly_once=False)).joined()
    assert writing.streams == ["s/0"]
