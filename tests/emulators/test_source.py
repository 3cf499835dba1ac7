"""Reading a change stream of a real Spanner emulator: partitions move, split and merge under it all the time."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import grpc
import pytest
from apache_beam.utils.timestamp import MAX_TIMESTAMP

from contract import timestamps
from contract.changes import Column, Coordinates
from local.emulators import launch as emulators
from local.machine.processes import Process
from pipeline.clients import spanner_channel
from pipeline.source.beam_source import ChangeStreamReader
from pipeline.source.completion import SpannerRows
from pipeline.source.lookup import read_again
from pipeline.source.partition_threads import Reading
from pipeline.source.partitions import PartitionSet
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.records import DataChange, ReadPosition
from tests.conftest import AuditDatabase

STREAM = "PaymentAuditTrailChangeStream"


def stream_of(audit: AuditDatabase) -> ChangeStream:
    return ChangeStream(name=STREAM, database=audit.database.name, endpoint=audit.endpoint, heartbeat_millis=300)


def insert(audit: AuditDatabase, *puids: str) -> str:
    """Commits payments in one transaction; returns its commit timestamp."""
    with audit.database.batch() as batch:
        batch.insert(
            "payment_audit_trail",
            ["PUID", "Action", "Timestamp", "Status"],
            [[puid, "CREATE", "2026-11-23T09:00:00Z", "INITIATED"] for puid in puids],
        )
    return timestamps.normalise(batch.committed.rfc3339())


def collect(
    reader: ChangeStreamReader, until: Callable[[Counter[str]], bool], *, seconds: float = 60
) -> tuple[Counter[str], list[ReadPosition]]:
    """Reads until the condition holds: how often each PUID came, and the positions that were announced."""
    found: Counter[str] = Counter()
    positions: list[ReadPosition] = []
    deadline = time.monotonic() + seconds
    available = reader.start()
    while True:
        if available:
            current = reader.get_current()
            if isinstance(current, ReadPosition):
                positions.append(current)
            else:
                found.update(json.loads(mod.keys)["PUID"] for mod in current.mods)
        else:
            time.sleep(0.02)
        # Before the next record is taken: a checkpoint that is cut now covers just what was counted.
        if until(found):
            return found, positions
        assert time.monotonic() < deadline, f"only {len(found)} came"
        available = reader.advance()


@pytest.fixture
def readers() -> Iterator[list[ChangeStreamReader]]:
    made: list[ChangeStreamReader] = []
    yield made
    for reader in made:
        reader.close()


@pytest.mark.parametrize("mode", ["windows", "tail"])
def test_every_change_comes_once(
    audit_database: AuditDatabase, readers: list[ChangeStreamReader], mode: Literal["tail", "windows"]
) -> None:
    start = timestamps.now()
    reader = ChangeStreamReader(stream_of(audit_database), Reading(mode=mode), PartitionSet(start))
    readers.append(reader)
    puids = [f"p{i}" for i in range(60)]
    for i in range(0, 60, 3):
        insert(audit_database, *puids[i : i + 3])
    found, _ = collect(reader, lambda f: len(f) == 60)
    assert set(found.values()) == {1}


def test_nothing_is_lost_or_doubled_while_partitions_churn_and_readers_are_replaced(
    tmp_path: Any, readers: list[ChangeStreamReader]
) -> None:
    """Partitions live one to two seconds here; the reader is rebuilt from its checkpoint in between."""
    emulator = emulators.launch_spanner(logs=tmp_path, partition_seconds=1)
    with emulator.process:
        emulators.await_spanner(emulator)
        audit = _database(emulator.endpoint)
        state = PartitionSet(timestamps.now())
        committed: list[str] = []
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                puid = f"p{len(committed)}"
                insert(audit, puid)
                committed.append(puid)
                time.sleep(0.01)

        writer = threading.Thread(target=write)
        writer.start()
        found: Counter[str] = Counter()
        tokens: set[str] = set()
        for _ in range(6):
            reader = ChangeStreamReader(stream_of(audit), Reading(mode="windows", window_millis=50), state)
            readers.append(reader)
            deadline = time.monotonic() + 2
            part, _ = collect(reader, lambda f, until=deadline: time.monotonic() > until)  # type: ignore[misc]
            found += part
            mark = reader.get_checkpoint_mark().state
            state = PartitionSet.from_bytes(mark)
            tokens |= set(state.partitions or {})
            reader.close()
        stop.set()
        writer.join()
        reader = ChangeStreamReader(stream_of(audit), Reading(mode="windows"), state)
        readers.append(reader)
        rest, _ = collect(reader, lambda f: len(found + f) >= len(committed))
        found += rest
    assert len(tokens) > 4
    assert set(found) == set(committed)
    assert set(found.values()) == {1}


def test_positions_are_announced_and_nothing_before_them_comes_later(
    audit_database: AuditDatabase, readers: list[ChangeStreamReader]
) -> None:
    start = timestamps.now()
    reader = ChangeStreamReader(stream_of(audit_database), Reading(mode="windows"), PartitionSet(start))
    readers.append(reader)
    insert(audit_database, "p1")
    deadline = time.monotonic() + 4
    _, positions = collect(reader, lambda _: time.monotonic() > deadline)
    assert len(positions) >= 3
    assert [p.position for p in positions] == sorted(p.position for p in positions)
    late = insert(audit_database, "p2")
    assert late > positions[-1].position


def test_an_end_is_kept_to_and_finishes_the_source(
    audit_database: AuditDatabase, readers: list[ChangeStreamReader]
) -> None:
    start = timestamps.now()
    end = insert(audit_database, "p1")
    insert(audit_database, "p2")
    modes: tuple[Literal["windows", "tail"], ...] = ("windows", "tail")
    for mode in modes:
        reader = ChangeStreamReader(
            stream_of(audit_database),
            Reading(mode=mode, end=end),
            PartitionSet(start),
        )
        readers.append(reader)
        found, positions = collect(reader, lambda _, r=reader: r.get_watermark() == MAX_TIMESTAMP)  # type: ignore[misc]
        assert found == Counter(["p1"])
        assert positions[-1].position == timestamps.after(end)


def test_a_frozen_spanner_is_waited_out(
    audit_database: AuditDatabase, spanner_process: Process, readers: list[ChangeStreamReader]
) -> None:
    start = timestamps.now()
    reader = ChangeStreamReader(stream_of(audit_database), Reading(mode="windows"), PartitionSet(start))
    readers.append(reader)
    insert(audit_database, "p1")
    collect(reader, lambda f: len(f) == 1)
    spanner_process.freeze()
    time.sleep(3)
    spanner_process.thaw()
    insert(audit_database, "p2")
    resumed = ChangeStreamReader(
        stream_of(audit_database),
        Reading(mode="windows"),
        PartitionSet.from_bytes(reader.get_checkpoint_mark().state),
    )
    readers.append(resumed)
    found, _ = collect(resumed, lambda f: "p2" in f)
    assert found == Counter(["p2"])


def test_a_start_before_the_stream_existed_is_refused(audit_database: AuditDatabase) -> None:
    query = ChangeStreamQuery(stream_of(audit_database), spanner_channel(audit_database.endpoint))
    with pytest.raises(grpc.RpcError) as refused:
        query.roots("2020-01-01T00:00:00.000000000Z")
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE


def test_a_record_is_read_again_at_its_coordinates(audit_database: AuditDatabase) -> None:
    start = timestamps.now()
    insert(audit_database, "p1")
    insert(audit_database, "p2", "p3")
    query = ChangeStreamQuery(stream_of(audit_database), spanner_channel(audit_database.endpoint))
    records: list[DataChange] = []
    for root in query.roots(start):
        records += [r for r in query.run(start, token=root.token, end=timestamps.now()) if isinstance(r, DataChange)]
    for record in records:
        at = Coordinates(
            STREAM, record.table, record.commit_timestamp, record.server_transaction_id, record.record_sequence, 0
        )
        assert read_again(query, at) == record
        assert read_again(query, at._replace(server_transaction_id="none")) is None


def test_rows_that_complete_a_change_are_read_with_what_the_stream_is_read_with(
    audit_database: AuditDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = insert(audit_database, "a")
    rows = SpannerRows(replace(stream_of(audit_database), priority="LOW", directed_reads="us-east4:READ_ONLY"))
    api, requests = rows._database.spanner_api, list[Any]()
    ask = api.streaming_read

    def seen(request: Any, **more: Any) -> Any:
        requests.append(request)
        return ask(request=request, **more)

    monkeypatch.setattr(api, "streaming_read", seen)
    [row] = rows.keyed("payment_audit_trail", [Column("Status", "STRING", False)], at, [["a"]])
    assert row == {"Status": "INITIATED"}
    [request] = requests
    [replica] = request.directed_read_options.include_replicas.replica_selections
    assert (replica.location, replica.type_.name) == ("us-east4", "READ_ONLY")
    assert request.request_options.priority.name == "PRIORITY_LOW"


def _database(endpoint: str) -> AuditDatabase:
    from contract import schema
    from local.emulators.launch import INSTANCE, PROJECT

    client = emulators.spanner_client(endpoint)
    instance = client.instance(INSTANCE, configuration_name=f"projects/{PROJECT}/instanceConfigs/emulator-config")
    instance.create().result(30)
    database = instance.database("audit-db", ddl_statements=schema.statements())
    database.create().result(60)
    return AuditDatabase(
        endpoint=endpoint,
        project=PROJECT,
        instance=INSTANCE,
        name="audit-db",
        metadata="",
        client=client,
        database=database,
        metadata_database=None,
    )
