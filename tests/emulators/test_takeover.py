"""Taking over happens when a job runs: once a run, whichever of its workers comes first, dies, or comes late."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions

from contract import timestamps
from local.emulators.launch import INSTANCE
from pipeline import clients
from pipeline.clients import Endpoints
from pipeline.jobs import stream
from pipeline.sink import fencing
from pipeline.sink.changelogs import Destinations
from pipeline.sink.config import MetadataDatabase, SinkSettings
from pipeline.sink.fencing import TakenOver
from pipeline.sink.generations import Fenced, Generations
from tests.conftest import AuditDatabase, Warehouse
from tests.shipped import AUDIT_LOG_DATASET, PAYMENT_DATASET, WATCHED

JOB = "job"
START = "2026-11-23T09:00:00.000000000Z"
LATER = "2026-11-23T10:00:00.000000000Z"


class Finalizing:
    """BigQuery's writing side, as far as finalizing goes: which streams, and what it answers each time."""

    def __init__(self) -> None:
        self.streams: list[str] = []
        self.fails: list[Exception] = []
        self.meanwhile: Callable[[], Any] = lambda: None

    def finalize_write_stream(self, name: str) -> None:
        self.streams.append(name)
        self.meanwhile()
        if self.fails:
            raise self.fails.pop()


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Finalizing:
    made = Finalizing()
    monkeypatch.setattr(clients, "write_client", lambda endpoint: made)
    monkeypatch.setattr(fencing, "_PAUSE_SECONDS", (0.0, 0.0))
    return made


@pytest.fixture
def sink(audit_database: AuditDatabase) -> SinkSettings:
    return SinkSettings(
        endpoints=Endpoints(spanner=audit_database.endpoint),
        metadata=MetadataDatabase(
            project=audit_database.project, instance=audit_database.instance, database=audit_database.metadata
        ),
        destinations=Destinations(project="p", watched=WATCHED, dataset=PAYMENT_DATASET),
        job_name=JOB,
    )


@pytest.fixture
def generations(sink: SinkSettings) -> Generations:
    return sink.generations()


def launched(sink: SinkSettings, start: str = START) -> SinkSettings:
    """What the workers of a launch get."""
    return replace(sink, run_id=sink.generations().new_run(), start=start)


def join(run: SinkSettings) -> TakenOver:
    """As another process of the run: nothing is remembered."""
    return fencing._join(run)


def recorded(sink: SinkSettings, stream: str, shard: str = "0") -> str:
    """A write stream that a worker of the settings' run opened."""
    table = "p.payment_audit.payment_audit_trail_bq"
    fence = sink.generations().record_stream(join(sink).generation, table, shard, stream, replaces=None)
    assert fence is not None
    return stream


def row(database: AuditDatabase) -> dict[str, Any]:
    columns = ["Generation", "ResumePosition", "FencedAt", "RunId", "RunGeneration"]
    with database.metadata_database.snapshot() as snapshot:
        [found] = snapshot.execute_sql(f"SELECT {', '.join(columns)} FROM jobs")
    return dict(zip(columns, found, strict=True))


def test_a_launch_takes_nothing_over_until_one_of_its_workers_runs(sink: SinkSettings, writing: Finalizing) -> None:
    running = launched(sink)
    assert join(running).generation == 1
    launched(sink)
    running.generations().advance(1, LATER)
    assert join(running) == TakenOver(1, LATER, None)


def test_every_worker_of_a_run_gets_the_same_generation_and_the_same_fence(
    sink: SinkSettings, writing: Finalizing
) -> None:
    join(launched(sink))
    run = launched(sink)
    first = join(run)
    assert first.generation == 2 and first.fenced_at is not None
    assert [join(run) for _ in range(3)] == [first] * 3


def test_a_run_that_was_launched_before_the_newest_does_not_take_over(
    sink: SinkSettings, writing: Finalizing, audit_database: AuditDatabase
) -> None:
    early, late = launched(sink), launched(sink)
    join(late)
    before = row(audit_database)
    with pytest.raises(Fenced, match="a run of job was replaced by generation 1"):
        join(early)
    assert row(audit_database) == before


def test_a_run_that_was_replaced_does_not_come_back(sink: SinkSettings, writing: Finalizing) -> None:
    old = launched(sink)
    join(old)
    new = launched(sink)
    join(new)
    with pytest.raises(Fenced, match="replaced by generation 2"):
        join(old)
    assert join(new).generation == 2


def test_a_launcher_whose_clock_is_late_takes_over_all_the_same(
    sink: SinkSettings, writing: Finalizing, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(launched(sink))
    monkeypatch.setattr("pipeline.sink.generations.time.time_ns", lambda: 1)
    assert join(launched(sink)).generation == 2
    assert join(launched(sink)).generation == 3


def test_a_row_of_an_earlier_release_is_taken_over_from(
    sink: SinkSettings, writing: Finalizing, audit_database: AuditDatabase
) -> None:
    moment = timestamps.to_datetime(LATER)
    with audit_database.metadata_database.batch() as batch:
        columns = ["JobName", "Generation", "ResumePosition", "FencedAt", "UpdatedAt"]
        batch.insert("jobs", columns, [[JOB, 7, moment, "spanner.commit_timestamp()", "spanner.commit_timestamp()"]])
    old_fence = timestamps.normalise(row(audit_database)["FencedAt"].rfc3339())
    taken = join(launched(sink))
    assert (taken.generation, taken.position) == (8, LATER)
    assert taken.fenced_at is not None and taken.fenced_at > old_fence


def test_a_run_that_an_earlier_release_replaced_does_not_come_back(
    sink: SinkSettings, writing: Finalizing, audit_database: AuditDatabase
) -> None:
    """An earlier release raises the generation, and leaves the id of the run that it replaced."""
    run = launched(sink)
    join(run)
    with audit_database.metadata_database.batch() as batch:
        batch.update("jobs", ["JobName", "Generation", "UpdatedAt"], [[JOB, 2, "spanner.commit_timestamp()"]])
    with pytest.raises(Fenced, match="generation 1 of job was replaced by generation 2"):
        join(run)
    assert join(launched(sink)).generation == 3


def test_older_streams_are_finalized_before_the_fence_is_set(
    sink: SinkSettings, writing: Finalizing, audit_database: AuditDatabase
) -> None:
    old = launched(sink)
    streams = {recorded(old, "s/0", "0"), recorded(old, "s/1", "1")}
    fences: list[Any] = []
    writing.meanwhile = lambda: fences.append(row(audit_database)["FencedAt"])
    taken = join(launched(sink))
    assert set(writing.streams) == streams
    assert fences == [None, None]
    assert taken.fenced_at is not None


def test_what_a_worker_that_died_left_undone_is_done_by_the_next(
    sink: SinkSettings, writing: Finalizing, audit_database: AuditDatabase
) -> None:
    old = launched(sink)
    stream_of_old = recorded(old, "s/0")
    run = launched(sink)
    taken = run.generations().take_over(run.run_id, run.start)
    assert (taken.generation, taken.fenced_at) == (2, None)
    assert row(audit_database)["FencedAt"] is None
    joined = join(run)
    assert writing.streams == [stream_of_old]
    assert joined.generation == 2 and joined.fenced_at is not None


def test_a_stream_that_cannot_be_finalized_yet_is_waited_for_and_no_fence_is_set_before(
    sink: SinkSettings, writing: Finalizing
) -> None:
    old = launched(sink)
    recorded(old, "s/0")
    writing.fails = [exceptions.ServiceUnavailable("away"), exceptions.DeadlineExceeded("away")]
    assert fencing.join(launched(sink)).fenced_at is not None
    assert writing.streams == ["s/0"] * 3


@pytest.mark.parametrize(
    "gone", [exceptions.NotFound("x"), exceptions.FailedPrecondition("x"), exceptions.InvalidArgument("x")]
)
def test_a_stream_that_is_gone_holds_nothing_up(sink: SinkSettings, writing: Finalizing, gone: Exception) -> None:
    recorded(launched(sink), "s/0")
    writing.fails = [gone]
    assert join(launched(sink)).fenced_at is not None


def test_a_worker_that_comes_late_finalizes_no_stream_of_its_own_run(sink: SinkSettings, writing: Finalizing) -> None:
    recorded(launched(sink), "s/old", "0")
    run = launched(sink)
    generation = join(run).generation
    recorded(run, "s/new", "1")
    assert run.generations().older_streams(generation) == ["s/old"]


def test_a_fence_that_another_worker_set_first_counts(sink: SinkSettings, writing: Finalizing) -> None:
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


def test_workers_that_join_at_once_agree(sink: SinkSettings, writing: Finalizing) -> None:
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


def test_a_run_that_is_replaced_while_it_takes_over_is_fenced(sink: SinkSettings, writing: Finalizing) -> None:
    recorded(launched(sink), "s/old")
    run, newer = launched(sink), launched(sink)

    def replaced() -> None:
        writing.meanwhile = lambda: None
        join(newer)

    writing.meanwhile = replaced
    with pytest.raises(Fenced, match="generation 2 of job was replaced by generation 3"):
        join(run)


def test_where_a_run_reads_from_is_said_once_however_many_workers_it_has(
    sink: SinkSettings, writing: Finalizing, caplog: pytest.LogCaptureFixture
) -> None:
    run = launched(sink)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            join(run)
    assert [m for m in caplog.messages if "reads from" in m] == [f"Job job, generation 1, reads from {START}."]


def test_at_least_once_resumes_at_its_position_and_its_older_job_is_fenced(
    sink: SinkSettings, writing: Finalizing
) -> None:
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
    sink: SinkSettings, writing: Finalizing
) -> None:
    launched(replace(sink, exactly_once=False)).joined()
    before = timestamps.now()
    joined = launched(sink).joined()
    assert joined.generation == 2
    assert joined.fenced_at is not None and joined.fenced_at > before


def test_at_least_once_after_exactly_once_closes_what_that_one_had_open(
    sink: SinkSettings, writing: Finalizing
) -> None:
    recorded(launched(sink), "s/0")
    launched(replace(sink, exactly_once=False)).joined()
    assert writing.streams == ["s/0"]


# --------------------------------------------------------------------- a launch


@pytest.fixture
def arguments(audit_database: AuditDatabase, empty_warehouse: Warehouse, tmp_path: Path) -> dict[str, str]:
    for dataset in (PAYMENT_DATASET, AUDIT_LOG_DATASET):
        empty_warehouse.client.create_dataset(dataset)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"v1": base64.b64encode(b"k" * 32).decode()}))
    return {
        "spannerProjectId": audit_database.project,
        "spannerInstanceId": INSTANCE,
        "spannerDatabase": audit_database.name,
        "spannerMetadataInstanceId": INSTANCE,
        "spannerMetadataDatabase": audit_database.metadata,
        "spannerChangeStreamNames": "PaymentAuditTrailChangeStream,AuditLogChangeStream",
        "spannerEndpoint": audit_database.endpoint,
        "maskingKeys": f"file:{keys}",
        "watchedTables": WATCHED.to_json(),
        "bigQueryProjectId": empty_warehouse.project,
        "bigQueryEndpoint": empty_warehouse.rest,
        "bigQueryStorageEndpoint": empty_warehouse.grpc,
        "deadLetterQueueDirectory": str(tmp_path),
        "job_name": JOB,
    }


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"runner": "PrismRunner", "prism_location": "/nowhere/prism"}, 1),
        ({"runner": "PortableRunner"}, 1),
        ({"runner": "DataflowRunner", "temp_location": "nowhere"}, 1),
        ({"runner": "PrismRunner", "experiments": "enable_data_sampling"}, 2),
        ({"ignoreFields": "payment_audit_trail.Error Details"}, 2),
        ({"spannerChangeStreamNames": "Missing"}, 1),
        ({"bigQueryDataset": "nowhere"}, 1),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_launch_that_fails_leaves_the_running_job_its_generation(
    sink: SinkSettings,
    arguments: dict[str, str],
    audit_database: AuditDatabase,
    given: dict[str, str],
    code: int,
) -> None:
    running = launched(sink).joined()
    before = row(audit_database)
    assert stream.main([f"--{name}={value}" for name, value in (arguments | given).items()]) == code
    assert row(audit_database) == before
    running.generations().advance(running.generation, timestamps.now())
