"""Taking over in the real metadata database: rows of earlier releases, workers at once, and launches that fail."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from contract import timestamps
from local.emulators.launch import INSTANCE
from pipeline import clients
from pipeline.clients import Endpoints
from pipeline.jobs import stream
from pipeline.sink import fencing
from pipeline.sink.changelogs import Destinations
from pipeline.sink.config import MetadataDatabase, SinkSettings
from pipeline.sink.fencing import TakenOver
from pipeline.sink.generations import Fenced
from tests.conftest import AuditDatabase, Warehouse
from tests.shipped import AUDIT_LOG_DATASET, PAYMENT_DATASET, WATCHED
from tests.takeover import JOB, LATER, Finalizing, join, launched, recorded


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


def row(database: AuditDatabase) -> dict[str, Any]:
    columns = ["Generation", "ResumePosition", "FencedAt", "RunId", "RunGeneration"]
    with database.metadata_database.snapshot() as snapshot:
        [found] = snapshot.execute_sql(f"SELECT {', '.join(columns)} FROM jobs")
    return dict(zip(columns, found, strict=True))


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
