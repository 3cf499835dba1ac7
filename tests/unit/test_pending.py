"""Pending write streams over the strict BigQuery: all of a batch or none of it, but what BigQuery refuses by itself."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.clients import Endpoints
from pipeline.sink.changelogs import Destinations, NotReady
from pipeline.sink.config import MetadataDatabase, SinkSettings
from pipeline.sink.pending import PendingWriter
from tests.shipped import PAYMENT_DATASET, WATCHED
from tests.strict.bigquery import StrictBigQuery
from tests.unit.sink_twin import COLUMNS, TABLE, batch, change

PROJECT = "audit-tests"
TABLE_ID = WATCHED.of(TABLE).id


@pytest.fixture
def bq() -> Iterator[StrictBigQuery]:
    with StrictBigQuery(PROJECT) as strict:
        strict.create_dataset(PAYMENT_DATASET)
        yield strict


@pytest.fixture
def writer(bq: StrictBigQuery) -> PendingWriter:
    settings = SinkSettings(
        endpoints=Endpoints(bigquery=bq.rest, bigquery_storage=bq.grpc),
        metadata=MetadataDatabase(project="p", instance="i", database="d"),
        destinations=Destinations(project=PROJECT, watched=WATCHED, dataset=PAYMENT_DATASET),
        job_name="replay",
    )
    return PendingWriter(settings, patience=5, sleep=lambda _: None)


def rows(*names: str) -> Any:
    [made] = batch(*(change(name) for name in names)).to_batches()
    return made


def there(bq: StrictBigQuery) -> Counter[str]:
    return Counter(row["PUID"] for row in bq.rows(TABLE_ID))


def test_rows_are_seen_once_their_stream_is_committed_and_once_however_often_it_is(
    bq: StrictBigQuery, writer: PendingWriter
) -> None:
    many = [f"p{number}" for number in range(1_200)]
    written = writer.write(TABLE, rows(*many), COLUMNS)
    assert (written.rows, written.refused, there(bq)) == (1_200, {}, Counter())
    for _ in range(2):
        writer.commit(written.stream)
    assert there(bq) == Counter(many)


def test_a_stream_that_two_commit_at_once_is_there_once(bq: StrictBigQuery, writer: PendingWriter) -> None:
    written = writer.write(TABLE, rows("a", "b"), COLUMNS)
    threads = [threading.Thread(target=writer.commit, args=(written.stream,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert there(bq) == Counter(["a", "b"])


def test_a_row_that_bigquery_refuses_is_named_and_takes_no_other_along(
    bq: StrictBigQuery, writer: PendingWriter
) -> None:
    bq.refuse_rows({"column": "PUID", "values": ["p3"]})
    written = writer.write(TABLE, rows(*(f"p{number}" for number in range(6))), COLUMNS)
    writer.commit(written.stream)
    assert (written.rows, list(written.refused)) == (5, [3])
    assert there(bq) == Counter(f"p{number}" for number in range(6) if number != 3)


@pytest.mark.parametrize("in_band", [True, False])
def test_where_bigquery_does_not_say_which_row_it_is_found(
    bq: StrictBigQuery, writer: PendingWriter, in_band: bool
) -> None:
    bq.fail("INVALID_ARGUMENT", in_band, rows={"column": "PUID", "values": ["p3"]})
    written = writer.write(TABLE, rows(*(f"p{number}" for number in range(6))), COLUMNS)
    writer.commit(written.stream)
    assert (written.rows, written.refused) == (5, {3: "INVALID_ARGUMENT"})
    assert there(bq)["p3"] == 0


def test_nothing_is_left_to_commit_where_every_row_is_refused(bq: StrictBigQuery, writer: PendingWriter) -> None:
    bq.refuse_rows({"column": "PUID", "values": ["p0"]})
    written = writer.write(TABLE, rows("p0"), COLUMNS)
    assert (written.stream, written.rows, list(written.refused)) == ("", 0, [0])


@pytest.mark.parametrize("after_append", [True, False])
def test_after_a_doubt_the_rows_go_to_another_stream_and_are_there_once(
    bq: StrictBigQuery, writer: PendingWriter, after_append: bool
) -> None:
    bq.fail("UNAVAILABLE", False, after_append=after_append, times=2)
    written = writer.write(TABLE, rows("a", "b"), COLUMNS)
    writer.commit(written.stream)
    assert there(bq) == Counter(["a", "b"])
    assert bq.calls["CreateWriteStream"] == 3


def test_a_row_too_large_for_a_request_is_named_with_the_rule(bq: StrictBigQuery, writer: PendingWriter) -> None:
    [made] = batch(change("small"), change("large", Status="x" * 11_000_000)).to_batches()
    written = writer.write(TABLE, made, COLUMNS)
    assert (written.rows, written.refused) == (1, {1: "larger than one request may be"})


def test_a_bigquery_that_stays_away_is_an_error_that_can_be_tried_again(
    bq: StrictBigQuery, writer: PendingWriter
) -> None:
    bq.fail("UNAVAILABLE")
    writer._patience = 1
    with pytest.raises(NotReady, match="takes no rows"):
        writer.write(TABLE, rows("a"), COLUMNS)
    assert there(bq) == Counter()
