"""Exactly-once appends on a real BigQuery emulator: every way an append can be in doubt, and the rows after it."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from contract import tables, timestamps
from contract.changes import Change, Column
from local.emulators.launch import BigQueryEmulator
from pipeline.clients import Endpoints
from pipeline.sink import rows, shards
from pipeline.sink.changelogs import Destinations
from pipeline.sink.config import MetadataDatabase, SinkSettings
from pipeline.sink.fencing import take_over
from pipeline.sink.generations import Fenced
from pipeline.sink.shards import Shard, StreamPosition
from tests.conftest import Warehouse
from tests.shipped import PAYMENT_DATASET, WATCHED
from tests.takeover import TwinSink

TABLE = "payment_audit_trail"
COLUMNS = (Column("PUID", "STRING", True), Column("Status", "STRING", False), Column("Metadata", "JSON", False))
_NUMBERS = itertools.count()


def change(puid: str, columns: tuple[Column, ...] = COLUMNS, **new: Any) -> Change:
    return Change(
        stream="PaymentAuditTrailChangeStream",
        table=TABLE,
        mod_type="INSERT",
        commit_timestamp=timestamps.now(),
        server_transaction_id=f"{next(_NUMBERS)}",
        record_sequence="00000000",
        mod_index=0,
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=columns,
        keys={"PUID": puid},
        new={"Status": "INITIATED"} | new,
        old={},
    )


def batch(*changes: Change) -> pa.Table:
    encoded, failed = rows.encode(changes, WATCHED.of(changes[0].table))
    assert not failed and encoded is not None
    return pa.Table.from_batches([encoded])


@pytest.fixture
def settings(warehouse: Warehouse) -> SinkSettings:
    """A sink whose job has taken over for the first time."""
    sink = TwinSink(
        endpoints=Endpoints(bigquery=warehouse.rest, bigquery_storage=warehouse.grpc),
        metadata=MetadataDatabase(project="p", instance="i", database="d"),
        destinations=Destinations(project=warehouse.project, watched=WATCHED, dataset=PAYMENT_DATASET),
        job_name="job",
    )
    return next_generation(sink)


def next_generation(sink: SinkSettings) -> SinkSettings:
    taken = take_over(sink, timestamps.now())
    return replace(sink, generation=taken.generation, fenced_at=taken.fenced_at)


@pytest.fixture
def opened() -> Iterator[list[Shard]]:
    made: list[Shard] = []
    yield made
    for shard in made:
        shard.close()


def shard_of(settings: SinkSettings, opened: list[Shard]) -> Shard:
    shard = Shard(settings.connect(), TABLE, "0")
    opened.append(shard)
    return shard


def there(warehouse: Warehouse, table: str = "payment_audit.payment_audit_trail_bq") -> Counter[str]:
    return Counter(row[0] for row in warehouse.client.query(f"SELECT PUID FROM `{warehouse.project}.{table}`").result())


def test_rows_are_queryable_when_append_returns(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    shard = shard_of(settings, opened)
    position, outcome = shard.append(None, batch(change("p1"), change("p2")), COLUMNS)
    assert there(warehouse) == Counter(["p1", "p2"])
    assert (outcome.appended, position.offset if position else 0) == (2, 2)
    assert not outcome.notable
    position, _ = shard.append(position, batch(change("p3")), COLUMNS)
    assert there(warehouse) == Counter(["p1", "p2", "p3"])
    assert position is not None and position.offset == 3


def test_a_retried_batch_is_not_appended_twice(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    shard = shard_of(settings, opened)
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    rows_again = batch(change("p1"), change("p2"))
    shard.append(position, rows_again, COLUMNS)
    _, outcome = shard_of(settings, opened).append(position, rows_again, COLUMNS)
    assert there(warehouse) == Counter(["p0", "p1", "p2"])
    assert outcome.counts == {"appended": 0, "already_there": 2, "rejected": 0, "retries": 1}
    assert outcome.notable


def test_a_retry_with_other_rows_at_the_old_offset_loses_none(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    """The trap: ALREADY_EXISTS answers for the offset, not for the rows."""
    shard = shard_of(settings, opened)
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    one, two, three = change("p1"), change("p2"), change("p3")
    shard.append(position, batch(one, two), COLUMNS)
    _, outcome = shard_of(settings, opened).append(position, batch(three, two), COLUMNS)
    assert there(warehouse) == Counter(["p0", "p1", "p2", "p3"])
    assert (outcome.appended, outcome.already_there) == (1, 1)


def test_a_lost_state_neither_loses_nor_doubles(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    rows_again = batch(change("p1"))
    shard_of(settings, opened).append(None, rows_again, COLUMNS)
    _, outcome = shard_of(settings, opened).append(None, rows_again, COLUMNS)
    assert there(warehouse) == Counter(["p1"])
    assert outcome.already_there == 1


def test_two_workers_on_one_shard_take_turns_and_lose_nothing(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    """A worker that was given up continues for a while beside its replacement, with the same rows."""
    everything = [batch(*(change(f"p{i}-{j}") for j in range(3))) for i in range(6)]

    def work() -> None:
        shard, position = shard_of(settings, opened), None
        for part in everything:
            position, _ = shard.append(position, part, COLUMNS)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = there(warehouse)
    assert len(found) == 18
    assert set(found.values()) == {1}


def test_a_new_generation_fences_the_old_ones_stream(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    old = shard_of(settings, opened)
    position, _ = old.append(None, batch(change("p1")), COLUMNS)
    next_generation(settings)
    with pytest.raises(Fenced, match="replaced by generation 2"):
        old.append(position, batch(change("p2")), COLUMNS)
    assert there(warehouse) == Counter(["p1"])


def test_a_new_generation_skips_what_the_old_one_appended(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    reread = [change("p1"), change("p2")]
    shard_of(settings, opened).append(None, batch(reread[0]), COLUMNS)
    newer = next_generation(settings)
    _, outcome = shard_of(newer, opened).append(None, batch(*reread, change("p3")), COLUMNS)
    assert there(warehouse) == Counter(["p1", "p2", "p3"])
    assert (outcome.appended, outcome.already_there) == (2, 1)


def test_a_bad_row_is_rejected_alone(settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]) -> None:
    bad = change("bad", Metadata="{not json")
    _, outcome = shard_of(settings, opened).append(None, batch(change("p1"), bad, change("p2")), COLUMNS)
    assert there(warehouse) == Counter(["p1", "p2"])
    (rejected,) = outcome.rejected
    assert rejected.row["PUID"] == "bad"
    assert "not json" not in rejected.message


def test_a_table_that_is_removed_under_way_is_made_again(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    shard = shard_of(settings, opened)
    position, _ = shard.append(None, batch(change("p1")), COLUMNS)
    warehouse.client.delete_table(f"{warehouse.project}.payment_audit.payment_audit_trail_bq")
    shard.append(position, batch(change("p2")), COLUMNS)
    assert there(warehouse) == Counter(["p2"])
    made = warehouse.client.get_table(f"{warehouse.project}.payment_audit.payment_audit_trail_bq")
    assert made.time_partitioning.field == tables.COMMIT_TIMESTAMP
    assert made.clustering_fields == ["PUID"]


def test_a_new_column_is_added_and_its_first_value_arrives(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    shard = shard_of(settings, opened)
    position, _ = shard.append(None, batch(change("p1")), COLUMNS)
    wider = (*COLUMNS, Column("Colour", "STRING", False))
    shard.append(position, batch(change("p2", wider, Colour="red")), wider)
    found = warehouse.client.query(
        f"SELECT PUID, Colour FROM `{warehouse.project}.payment_audit.payment_audit_trail_bq` ORDER BY PUID"
    ).result()
    assert [tuple(r) for r in found] == [("p1", None), ("p2", "red")]


def test_a_column_whose_type_changes_gets_a_column_of_its_own(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    shard = shard_of(settings, opened)
    position, _ = shard.append(None, batch(change("p1")), COLUMNS)
    changed = (COLUMNS[0], Column("Status", "INT64", False), COLUMNS[2])
    shard.append(position, batch(change("p2", changed, Status="7")), changed)
    found = warehouse.client.query(
        f"SELECT PUID, Status, Status_int64 FROM `{warehouse.project}.payment_audit.payment_audit_trail_bq` ORDER BY 1"
    ).result()
    assert [tuple(r) for r in found] == [("p1", "INITIATED", None), ("p2", None, 7)]


def test_a_table_nobody_announced_is_made(settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]) -> None:
    shard = Shard(settings.connect(), "refunds", "0")
    opened.append(shard)
    unknown = change("p1")
    unknown.table = "refunds"
    shard.append(None, batch(unknown), COLUMNS)
    assert there(warehouse, "payment_audit.refunds_changelog") == Counter(["p1"])


def test_a_frozen_bigquery_is_waited_out(
    settings: SinkSettings,
    warehouse: Warehouse,
    bigquery_emulator: BigQueryEmulator,
    opened: list[Shard],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer is given up before the freeze ends, so the rows are sent again; the first try may land as well."""
    monkeypatch.setattr(shards, "_ANSWER_SECONDS", 1.0)
    shard = shard_of(settings, opened)
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    bigquery_emulator.process.freeze()
    threading.Timer(4, bigquery_emulator.process.thaw).start()
    started = time.monotonic()
    shard.append(position, batch(change("p1"), change("p2")), COLUMNS)
    assert time.monotonic() - started > 1
    assert there(warehouse) == Counter(["p0", "p1", "p2"])


def test_a_missing_dataset_is_waited_for(
    settings: SinkSettings, empty_warehouse: Warehouse, opened: list[Shard]
) -> None:
    empty = replace(
        settings,
        destinations=replace(settings.destinations, project=empty_warehouse.project, dataset="late"),
    )
    # A table that is described has a dataset of its own.
    shard = Shard(empty.connect(), "refunds", "0")
    opened.append(shard)
    unknown = change("p1")
    unknown.table = "refunds"
    threading.Timer(2, lambda: empty_warehouse.client.create_dataset("late")).start()
    shard.append(None, batch(unknown), COLUMNS)
    assert there(empty_warehouse, "late.refunds_changelog") == Counter(["p1"])


def test_at_least_once_appends_to_the_default_stream(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    shard = shard_of(replace(settings, exactly_once=False), opened)
    position, _ = shard.append(None, batch(change("p1")), COLUMNS)
    assert isinstance(position, StreamPosition) and position.stream.endswith("/_default")
    shard.append(position, batch(change("p2")), COLUMNS)
    assert there(warehouse) == Counter(["p1", "p2"])


def test_a_batch_larger_than_a_request_is_cut(
    settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]
) -> None:
    big = [change(f"p{i}", Metadata='{"note":"' + "x" * 1_000_000 + '"}') for i in range(7)]
    _, outcome = shard_of(settings, opened).append(None, batch(*big), COLUMNS)
    assert outcome.appends == 1
    bigger = [change(f"q{i}", Metadata='{"note":"' + "x" * 2_900_000 + '"}') for i in range(7)]
    _, outcome = shard_of(settings, opened).append(None, batch(*bigger), COLUMNS)
    assert outcome.appends == 3
    assert len(there(warehouse)) == 14


def test_a_cell_of_ten_megabytes_arrives(settings: SinkSettings, warehouse: Warehouse, opened: list[Shard]) -> None:
    big = change("big", Metadata='"' + "x" * 9_999_998 + '"')
    _, outcome = shard_of(settings, opened).append(None, batch(change("p1"), big), COLUMNS)
    assert (outcome.rejected, there(warehouse)) == ([], Counter(["p1", "big"]))
