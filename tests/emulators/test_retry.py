"""Dead letters are tried again on real emulators: resolved once their rows are in the table, parked when not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract import payments, tables, timestamps
from contract.changes import Coordinates, DeadLetter, Reason, StepError
from pipeline.clients import Endpoints, spanner_channel
from pipeline.failures import dead_letter
from pipeline.sink.changelogs import Destinations
from pipeline.sink.config import MetadataDatabase, SinkSettings
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.sink.fencing import take_over
from pipeline.sink.retry import Retrier, RetrySettings
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.records import DataChange
from pipeline.transforms import decode
from pipeline.transforms.filter import Ignored
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker
from pipeline.transforms.settings import TransformSettings
from tests.conftest import AuditDatabase, Warehouse
from tests.erased import nobody
from tests.shipped import PAYMENT_DATASET, WATCHED

STREAM = "PaymentAuditTrailChangeStream"
CARD = "4111111111111111"


@pytest.fixture
def settings(audit_database: AuditDatabase, warehouse: Warehouse, tmp_path: Path) -> RetrySettings:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"v1": base64.b64encode(b"k" * 32).decode()}))
    (tmp_path / "dead-letters").mkdir()
    sink = SinkSettings(
        endpoints=Endpoints(spanner=audit_database.endpoint, bigquery=warehouse.rest, bigquery_storage=warehouse.grpc),
        metadata=MetadataDatabase(
            project=audit_database.project, instance=audit_database.instance, database=audit_database.metadata
        ),
        destinations=Destinations(project=warehouse.project, watched=WATCHED, dataset=PAYMENT_DATASET),
        job_name="job",
    )
    # The job has everything of these tests behind it.
    taken = take_over(sink, "2100-01-01T00:00:00.000000000Z")
    return RetrySettings(
        directory=str(tmp_path / "dead-letters"),
        every_seconds=600,
        max_retries=2,
        transforms=TransformSettings(
            masking_keys=f"file:{keys}",
            new_columns="scan",
            payment_states=payments.PAYMENT_STATES,
            ignored=Ignored(),
            watched=WATCHED,
            erased=nobody,
        ),
        streams=(ChangeStream(name=STREAM, database=audit_database.database.name, endpoint=audit_database.endpoint),),
        sink=replace(sink, generation=taken.generation, fenced_at=taken.fenced_at),
    )


@pytest.fixture
def record(audit_database: AuditDatabase) -> Callable[..., DataChange]:
    """Commits a payment and reads its record from the change stream."""

    def commit(puid: str, **values: str) -> DataChange:
        start = timestamps.now()
        row = {"PUID": puid, "Action": "TEST", "Timestamp": "2026-11-23T09:00:00Z", "Status": "INITIATED"} | values
        with audit_database.database.batch() as batch:
            batch.insert_or_update("payment_audit_trail", list(row), [list(row.values())])
        stream = ChangeStream(name=STREAM, database=audit_database.database.name, endpoint=audit_database.endpoint)
        query = ChangeStreamQuery(stream, spanner_channel(audit_database.endpoint))
        [found] = [
            r
            for root in query.roots(start)
            for r in query.run(start, token=root.token, end=timestamps.now())
            if isinstance(r, DataChange)
        ]
        return found

    return commit


def failed(at: Coordinates) -> DeadLetter:
    return dead_letter(at, "Mask", StepError(Reason.NOT_MASKABLE, "fix it"))


def there(warehouse: Warehouse) -> list[Any]:
    table = f"{warehouse.project}.payment_audit.payment_audit_trail_bq"
    return [tuple(r) for r in warehouse.client.query(f"SELECT PUID, CardNumber FROM `{table}` ORDER BY 1").result()]


def test_a_letter_without_a_change_is_read_again_masked_and_resolved(
    settings: RetrySettings, record: Callable[..., DataChange], warehouse: Warehouse
) -> None:
    queue = DeadLetterQueue(settings.directory)
    queue.put([failed(decode.coordinates(record("p1", CardNumber=CARD), 0))])
    Retrier(settings).run()
    assert there(warehouse) == [("p1", "411111******1111")]
    assert queue.counts() == {"retry": 0, "severe": 0}


def test_a_letter_of_a_stream_that_leaves_columns_out_is_completed_from_the_row_and_masked(
    settings: RetrySettings, record: Callable[..., DataChange], warehouse: Warehouse, audit_database: AuditDatabase
) -> None:
    record("p1", CardNumber=CARD)
    options = "SET OPTIONS (value_capture_type = 'NEW_VALUES')"
    audit_database.database.update_ddl([f"ALTER CHANGE STREAM {STREAM} {options}"]).result(60)
    update = record("p1", Status="CAPTURED")
    assert "CardNumber" not in update.mods[0].new_values
    queue = DeadLetterQueue(settings.directory)
    queue.put([failed(decode.coordinates(update, 0))])
    Retrier(settings).run()
    assert there(warehouse) == [("p1", "411111******1111")]
    assert queue.counts() == {"retry": 0, "severe": 0}


def test_a_letter_with_its_masked_change_needs_no_second_read(
    settings: RetrySettings, record: Callable[..., DataChange], warehouse: Warehouse
) -> None:
    change = decode.decode(record("p1", CardNumber=CARD), 0)
    Masker(MaskingKeys.load(settings.transforms.masking_keys), WATCHED, new_columns="scan").mask(change)
    queue = DeadLetterQueue(settings.directory)
    queue.put([dead_letter(change.coordinates, "Enrich", StepError(Reason.ENRICHMENT, "fix it"), change)])
    Retrier(replace(settings, streams=())).run()
    assert there(warehouse) == [("p1", "411111******1111")]
    assert queue.counts() == {"retry": 0, "severe": 0}


def test_a_letter_whose_row_is_there_is_resolved_without_a_second_row(
    settings: RetrySettings, record: Callable[..., DataChange], warehouse: Warehouse
) -> None:
    letter = failed(decode.coordinates(record("p1"), 0))
    queue = DeadLetterQueue(settings.directory)
    for _ in range(2):
        queue.put([letter])
        Retrier(settings).run()
    assert len(there(warehouse)) == 1
    assert queue.counts() == {"retry": 0, "severe": 0}


def test_a_letter_that_fails_again_is_parked_and_says_why(
    settings: RetrySettings, record: Callable[..., DataChange], warehouse: Warehouse
) -> None:
    queue = DeadLetterQueue(settings.directory)
    queue.put([failed(decode.coordinates(record("p1", CustomerId=CARD), 0))])
    queue.put([failed(decode.coordinates(record("p2"), 0))])
    for _ in range(settings.max_retries):
        Retrier(settings).run()
    # The reason now known is one that trying again does not help: one attempt only.
    assert [puid for puid, _ in there(warehouse)] == ["p2"]
    assert queue.counts() == {"retry": 0, "severe": 1}
    [letter] = queue.letters("severe")
    assert (letter.reason, letter.attempts) == (Reason.CARD_IN_KEY, 1)
    assert CARD not in "".join(p.read_text() for p in Path(settings.directory).rglob("*.jsonl"))


def test_a_session_that_spanner_ended_is_replaced_and_costs_no_attempt(
    settings: RetrySettings, record: Callable[..., DataChange], warehouse: Warehouse
) -> None:
    queue = DeadLetterQueue(settings.directory)
    queue.put([failed(decode.coordinates(record("p1"), 0))])
    retrier = Retrier(settings)
    retrier.run()
    query = retrier._queries[STREAM]
    query._session = query._session.rpartition("/")[0] + "/ended-after-28-days"
    queue.put([failed(decode.coordinates(record("p2"), 0))])
    retrier.run()
    assert [puid for puid, _ in there(warehouse)] == ["p1", "p2"]
    assert queue.counts() == {"retry": 0, "severe": 0}


def test_a_record_that_the_stream_no_longer_has_says_so(
    settings: RetrySettings, record: Callable[..., DataChange]
) -> None:
    at = decode.coordinates(record("p1"), 0)
    queue = DeadLetterQueue(settings.directory)
    queue.put([failed(at._replace(commit_timestamp="2020-01-01T00:00:00.000000000Z"))])
    Retrier(settings).run()
    [letter] = queue.letters("severe")
    assert (letter.reason, letter.attempts) == (Reason.GONE, 1)
    assert "retention period" in letter.message


def test_a_late_row_rewinds_the_merge_of_the_state(
    settings: RetrySettings, record: Callable[..., DataChange], warehouse: Warehouse
) -> None:
    progress = f"{warehouse.project}.{tables.merge_progress(WATCHED).id}"
    at = decode.coordinates(record("p1"), 0)
    warehouse.client.query(
        f"INSERT INTO `{progress}` (merged_until, merged_at) VALUES ('2099-01-01 00:00:00+00', CURRENT_TIMESTAMP())"
    ).result()
    DeadLetterQueue(settings.directory).put([failed(at)])
    Retrier(settings).run()
    [(merged_until,)] = warehouse.client.query(f"SELECT merged_until FROM `{progress}`").result()
    assert merged_until == timestamps.to_datetime(at.commit_timestamp)
