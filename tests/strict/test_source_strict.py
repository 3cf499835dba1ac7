"""Reading change streams of a strict Spanner: what both emulators are too kind to show."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import grpc
import orjson
import pytest
from apache_beam.utils.timestamp import MAX_TIMESTAMP

from contract import timestamps
from contract.changes import Coordinates
from contract.dialects import GOOGLE_SQL, POSTGRESQL
from contract.timestamps import from_nanos
from pipeline.clients import spanner_channel
from pipeline.jobs import stream as stream_job
from pipeline.jobs.settings import parse
from pipeline.source.beam_source import ChangeStreamReader
from pipeline.source.closed import changes_before
from pipeline.source.lookup import read_again
from pipeline.source.partition_threads import QueryRefused, Reading
from pipeline.source.partitions import PartitionSet, Share
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.records import DataChange, Mod, ReadPosition
from tests.shipped import REQUIRED_OPTIONS
from tests.strict.history import (
    SECOND,
    Change,
    History,
    Partition,
    PartitionMode,
    RandomHistory,
    product_tables,
    read_ledger,
)
from tests.strict.service import StrictSpannerProcess
from tests.strict.spanner import StrictSpanner

DATABASE = "projects/p/instances/i/databases/d"
STREAM = "PaymentAuditTrailChangeStream"
TABLE = "payment_audit_trail"

Id = tuple[str, str, str, int]


def stream_at(spanner: StrictSpanner | StrictSpannerProcess, **options: Any) -> ChangeStream:
    return ChangeStream(name=STREAM, database=DATABASE, endpoint=spanner.endpoint, **options)


def history(partitions: int = 0, *, created: int | None = None) -> History:
    """A history with the product's payment stream alone."""
    made = History(created=created)
    stream = made.stream(STREAM, product_tables()[STREAM])
    for i in range(partitions):
        stream.root(low=(1 << 32) * i // partitions, high=(1 << 32) * (i + 1) // partitions)
    return made


def insert(partition: Partition | None, puid: str, at: int | None = None, to: History | None = None) -> str:
    assert to is not None
    return to.commit([Change(TABLE, "INSERT", {"PUID": puid}, {"Status": "INITIATED"}, {}, partition)], at=at)


def ids(record: DataChange) -> Iterator[Id]:
    for index in range(len(record.mods)):
        yield record.commit_timestamp, record.server_transaction_id, record.record_sequence, index


def committed(of: History) -> Counter[Id]:
    return Counter(
        (e.commit_timestamp, e.server_transaction_id, e.record_sequence, e.mod_index)
        for e in of.entries()
        if e.stream == STREAM
    )


class Collected:
    """What came out of a reader. Each position is checked: nothing before it comes after it."""

    def __init__(self) -> None:
        self.found: Counter[Id] = Counter()
        self.positions: list[str] = []
        self.watermark = ""

    def take(self, reader: ChangeStreamReader) -> None:
        current = reader.get_current()
        if isinstance(current, ReadPosition):
            self.positions.append(current.position)
            return
        assert current.commit_timestamp >= max(self.positions, default=""), "a change of before an announced position"
        self.found.update(ids(current))

    def until(self, reader: ChangeStreamReader, done: Callable[[], bool], *, seconds: float = 90) -> None:
        """Reads until `done`, a guard against hanging being the only use of time."""
        deadline = time.monotonic() + seconds
        available = reader.start()
        while True:
            if available:
                self.take(reader)
            # Before the next record is taken: a checkpoint that is cut now covers just what was counted.
            if done():
                return
            assert time.monotonic() < deadline, f"{self.found.total()} changes came, watermark {reader.get_watermark()}"
            available = reader.advance()


def open_reader(
    spanner: StrictSpanner | StrictSpannerProcess,
    start: str,
    reading: Reading | None = None,
    **options: Any,
) -> ChangeStreamReader:
    return ChangeStreamReader(stream_at(spanner), reading or Reading(), PartitionSet(start), **options)


@pytest.fixture
def readers() -> Iterator[list[ChangeStreamReader]]:
    made: list[ChangeStreamReader] = []
    yield made
    for reader in made:
        reader.close()


def test_more_partitions_than_a_connection_takes_streams_are_all_read(readers: list[ChangeStreamReader]) -> None:
    made = history(130)
    start = timestamps.now()
    with StrictSpanner(made, max_streams=100) as spanner:
        reader = open_reader(spanner, start)
        readers.append(reader)
        for i, partition in enumerate(made.streams[STREAM].live):
            insert(partition, f"p{i}", to=made)
        collected = Collected()
        # The watermark passes the last change only when every partition is read.
        last = max(e.commit_timestamp for e in made.entries())
        collected.until(reader, lambda: max(collected.positions, default="") > last)
        # A unary call is not kept waiting by the streams.
        assert ChangeStreamQuery(stream_at(spanner), spanner_channel(spanner.endpoint)).roots(start)
        counts = spanner.counts()
    assert collected.found == committed(made)
    assert max(counts["max_readers_by_partition"].values()) == 1
    assert counts["max_by_connection"] < 100


def test_a_connection_that_takes_fewer_streams_than_expected_is_found_out(
    readers: list[ChangeStreamReader], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.source.partition_threads._SILENT_SECONDS", 3.0)
    monkeypatch.setattr("pipeline.source.partition_threads._SILENT_HEARTBEATS", 3)
    made = history(60)
    start = timestamps.now()
    with StrictSpanner(made, max_streams=25) as spanner:
        reader = open_reader(spanner, start)
        readers.append(reader)
        for i, partition in enumerate(made.streams[STREAM].live):
            insert(partition, f"p{i}", to=made)
        collected = Collected()
        last = max(e.commit_timestamp for e in made.entries())
        with caplog.at_level(logging.WARNING):
            collected.until(reader, lambda: max(collected.positions, default="") > last)
    assert collected.found == committed(made)
    assert "has had no answer for" in caplog.text
    assert "A connection to Spanner answers 25 calls at once" in caplog.text


def test_a_query_that_is_frozen_is_asked_again(
    readers: list[ChangeStreamReader], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.source.partition_threads._SILENT_SECONDS", 3.0)
    monkeypatch.setattr("pipeline.source.partition_threads._SILENT_HEARTBEATS", 3)
    made = history(3)
    with StrictSpanner(made) as spanner:
        reader = open_reader(spanner, timestamps.now())
        readers.append(reader)
        collected = Collected()
        insert(None, "before", to=made)
        collected.until(reader, lambda: collected.found.total() == 1)
        spanner.freeze()
        insert(None, "during", to=made)
        with caplog.at_level(logging.WARNING):
            collected.until(reader, lambda: "has had no answer for" in caplog.text)
        spanner.thaw()
        collected.until(reader, lambda: collected.found.total() == 2)
    assert collected.found == committed(made)


def test_a_thousand_partitions_are_read_in_one_reader(readers: list[ChangeStreamReader], tmp_path: Path) -> None:
    """Spanner is its own process: in this one its thousand queries and ours would wait for each other's lock."""
    ledger = tmp_path / "ledger.jsonl"
    spanner = StrictSpannerProcess(
        tmp_path,
        ["--partitions=1000", "--churn=0", "--rate=500", "--with-history=60", "--paused", f"--ledger={ledger}"],
    )
    with spanner.process:
        made = [line for line in read_ledger(ledger) if line["stream"] == STREAM]
        assert len({line["partition"] for line in made}) == 1000
        reader = open_reader(spanner, spanner.created)
        readers.append(reader)
        collected = Collected()
        last = max(line["commit_timestamp"] for line in made)
        collected.until(reader, lambda: max(collected.positions, default="") > last, seconds=240)
        counts = spanner.ask("counts")
    names = "commit_timestamp", "server_transaction_id", "record_sequence", "mod_index"
    assert collected.found == Counter(tuple(line[name] for name in names) for line in made)
    assert counts["max_open_queries"] == 1000


@pytest.mark.parametrize("mode", ["tail", "windows"])
@pytest.mark.parametrize(
    ("seed", "partition_mode"),
    [*((seed, "IMMUTABLE_KEY_RANGE") for seed in range(3)), *((seed, "MUTABLE_KEY_RANGE") for seed in (0, 2))],
)
def test_over_a_random_history_with_every_fault_each_change_comes_once(
    seed: int, partition_mode: PartitionMode, mode: Literal["tail", "windows"], readers: list[ChangeStreamReader]
) -> None:
    """Splits, merges and moves, cut rows, errors in the middle of a row, ended sessions, queries that end early."""
    rng = random.Random(seed)
    begun = time.time_ns() - 60 * SECOND
    made = RandomHistory(
        seed,
        partitions=4,
        rate=60,
        churn=2,
        created=begun,
        tables={STREAM: product_tables()[STREAM]},
        partition_mode=partition_mode,
    )
    made.play(50)
    collected = Collected()
    with (
        StrictSpanner(
            made,
            cut=0.3,
            seed=seed,
            # Windows end at any time, also where partitions do.
            boundary_children=mode == "tail" or seed % 2 == 0,
            root_parents=rng.choice(["null", "empty"]),
            all_parents_start=seed == 2,
        ) as spanner,
        made,
    ):
        state = PartitionSet(from_nanos(begun + (20 * SECOND if seed == 2 else 0)))
        expected_from = state.start
        for turn in range(6):
            if mode == "tail":
                spanner.end_early(count=rng.randint(0, 3))
            spanner.fail("UNAVAILABLE", where="mid_row", count=rng.randint(0, 3))
            spanner.fail(rng.choice(["INTERNAL", "ABORTED", "DEADLINE_EXCEEDED"]), where="row", count=rng.randint(0, 3))
            spanner.fail("UNAVAILABLE", count=rng.randint(0, 3))
            if turn % 3 == 1:
                spanner.end_sessions()
            if turn == 4:
                spanner.drop_connections()
            spanner.extra_fields(on=turn % 2 == 0)
            reader = ChangeStreamReader(stream_at(spanner), Reading(mode=mode, window_millis=50), state)
            readers.append(reader)
            after = collected.found.total() + rng.randint(50, 400)
            stop = time.monotonic() + 2
            before = list(collected.positions)
            collected.until(reader, lambda: collected.found.total() > after or time.monotonic() > stop)  # noqa: B023
            assert collected.positions[len(before) :] == sorted(collected.positions[len(before) :])
            state = PartitionSet.from_bytes(reader.get_checkpoint_mark().state)
            # Before an announced position nothing comes any more, whoever reads on.
            reader.close()
        made.stop()
        spanner.heal()
        reader = ChangeStreamReader(stream_at(spanner), Reading(mode=mode, window_millis=50), state)
        readers.append(reader)
        expected = Counter({key: n for key, n in committed(made).items() if key[0] >= expected_from})
        collected.until(reader, lambda: collected.found.total() >= expected.total())
        last = timestamps.now()
        collected.until(reader, lambda: max(collected.positions) > last)
    assert collected.found == expected
    assert len(made.streams[STREAM].partitions) > 15


def test_reading_from_a_boundary_reads_each_partition_once(readers: list[ChangeStreamReader]) -> None:
    begun = time.time_ns() - 100 * SECOND
    made = history(2, created=begun)
    a, b = made.streams[STREAM].live
    insert(a, "a", at=begun + SECOND, to=made)
    merged = made.merge([a, b], at=begun + 10 * SECOND)
    insert(merged, "m", at=begun + 11 * SECOND, to=made)
    left, right = made.split(merged, at=begun + 12 * SECOND)
    insert(left, "l", at=begun + 13 * SECOND, to=made)
    insert(right, "r", at=begun + 13 * SECOND, to=made)
    for start in (begun + 10 * SECOND - 1, begun + 10 * SECOND, begun + 12 * SECOND, begun):
        with StrictSpanner(made) as spanner:
            reader = open_reader(spanner, from_nanos(start))
            readers.append(reader)
            collected = Collected()
            collected.until(reader, lambda: max(collected.positions, default="") > from_nanos(begun + 90 * SECOND))  # noqa: B023
        assert collected.found == Counter({k: n for k, n in committed(made).items() if k[0] >= from_nanos(start)})


@pytest.mark.parametrize("mode", ["tail", "windows"])
def test_an_end_at_a_boundary_is_kept_to(mode: Literal["tail", "windows"], readers: list[ChangeStreamReader]) -> None:
    begun = time.time_ns() - 100 * SECOND
    made = history(1, created=begun)
    (a,) = made.streams[STREAM].live
    boundary = begun + 10 * SECOND
    insert(a, "before", at=boundary - 1, to=made)
    x, _ = made.split(a, at=boundary)
    insert(x, "at", at=boundary, to=made)
    insert(x, "after", at=boundary + 1, to=made)
    for end in (boundary - 1, boundary, boundary + 1, boundary - 1_000_000, boundary - 1_000_001):
        with StrictSpanner(made) as spanner:
            reader = open_reader(spanner, from_nanos(begun), Reading(mode=mode, end=from_nanos(end)))
            readers.append(reader)
            collected = Collected()
            collected.until(reader, lambda: reader.get_watermark() == MAX_TIMESTAMP)  # noqa: B023
        assert collected.found == Counter({k: n for k, n in committed(made).items() if k[0] <= from_nanos(end)})
        assert collected.positions[-1] == from_nanos(end + 1)


def test_a_session_that_has_ended_is_replaced_for_whoever_queries() -> None:
    """A multiplexed session ends after 28 days: for the reader, and for the one that reads a dead letter again."""
    made = history(1)
    at = insert(None, "p", to=made)
    with StrictSpanner(made) as spanner:
        query = ChangeStreamQuery(stream_at(spanner), spanner_channel(spanner.endpoint))
        coordinates = Coordinates(STREAM, TABLE, at, "1", "00000000", 0)
        assert read_again(query, coordinates) is not None
        spanner.end_sessions()
        assert read_again(query, coordinates) is not None
        spanner.end_sessions()
        assert query.roots(at)
        assert spanner.counts()["calls"]["CreateSession"] == 3


def test_threads_that_find_a_session_ended_together_make_one() -> None:
    made = history(1)
    at = insert(None, "p", to=made)
    with StrictSpanner(made) as spanner:
        query = ChangeStreamQuery(stream_at(spanner), spanner_channel(spanner.endpoint))
        query.roots(at)
        spanner.end_sessions()
        threads = [threading.Thread(target=query.roots, args=(at,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert spanner.counts()["calls"]["CreateSession"] == 2


def test_partitions_that_cannot_be_asked_for_are_asked_for_again(
    readers: list[ChangeStreamReader], caplog: pytest.LogCaptureFixture
) -> None:
    made = history(2)
    start = timestamps.now()
    with StrictSpanner(made) as spanner:
        spanner.fail("UNAVAILABLE", count=4)
        reader = open_reader(spanner, start)
        readers.append(reader)
        insert(None, "p", to=made)
        collected = Collected()
        with caplog.at_level(logging.WARNING):
            collected.until(reader, lambda: collected.found.total() == 1)
    assert f"UNAVAILABLE, try 3. Nothing is lost; reading continues from {start}" in caplog.text


def test_a_database_that_is_gone_is_waited_for(
    readers: list[ChangeStreamReader], caplog: pytest.LogCaptureFixture
) -> None:
    made = history(2)
    with StrictSpanner(made) as spanner:
        reader = open_reader(spanner, timestamps.now())
        readers.append(reader)
        collected = Collected()
        insert(None, "before", to=made)
        collected.until(reader, lambda: collected.found.total() == 1)
        for method in ("CreateSession", "ExecuteStreamingSql"):
            spanner.fail("NOT_FOUND", method=method, message=f"Database not found: {DATABASE}")
        spanner.drop_connections()
        insert(None, "during", to=made)
        with caplog.at_level(logging.WARNING):
            collected.until(reader, lambda: "NOT_FOUND, try 3. Nothing is lost" in caplog.text)
        spanner.heal()
        collected.until(reader, lambda: collected.found.total() == 2)


@pytest.mark.parametrize(
    ("start", "stream", "says"),
    [
        (
            lambda made: from_nanos(made.created - 1),
            STREAM,
            "Start the job under another job_name with a later startTimestamp",
        ),
        (
            lambda made: from_nanos(made.created),
            "Missing",
            "Check that it exists, and that spannerDatabaseRole may run",
        ),
    ],
)
def test_a_query_that_can_never_be_answered_fails_with_the_remedy(
    start: Callable[[History], str], stream: str, says: str
) -> None:
    made = history(1)
    with StrictSpanner(made) as spanner:
        described = ChangeStream(name=stream, database=DATABASE, endpoint=spanner.endpoint)
        reader = ChangeStreamReader(described, Reading(), PartitionSet(start(made)))
        with pytest.raises(QueryRefused, match=says):
            reader.start()


def test_a_partition_whose_retention_is_over_while_it_is_read_fails_with_the_remedy(
    readers: list[ChangeStreamReader],
) -> None:
    made = history(1)
    with StrictSpanner(made) as spanner:
        reader = open_reader(spanner, timestamps.now())
        readers.append(reader)
        spanner.fail("OUT_OF_RANGE", token=made.streams[STREAM].live[0].token)
        collected = Collected()
        with pytest.raises(QueryRefused, match="retention period is over"):
            collected.until(reader, lambda: False)


@pytest.mark.parametrize("dialect", [GOOGLE_SQL, POSTGRESQL])
def test_the_same_history_gives_the_same_records_in_both_partition_modes(
    monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """Also over several queries, one after the other: those of mutable key ranges have an end."""
    monkeypatch.setattr("pipeline.source.query._MOST_NANOS", 3 * SECOND)
    begun = time.time_ns() - 40 * SECOND
    records: dict[str, dict[Any, Any]] = {}
    for partition_mode in ("IMMUTABLE_KEY_RANGE", "MUTABLE_KEY_RANGE"):
        made = RandomHistory(
            5, rate=30, churn=4, created=begun, partition_mode=partition_mode, tables={STREAM: product_tables()[STREAM]}
        ).play(30)
        with StrictSpanner(made, dialect=dialect) as spanner:
            query = ChangeStreamQuery(stream_at(spanner), spanner_channel(spanner.endpoint))
            assert query.mutable is (partition_mode == "MUTABLE_KEY_RANGE")
            partitions, found = PartitionSet(from_nanos(begun)), list[DataChange]()
            for end in (10, 11, 30):
                found += changes_before(query, partitions, from_nanos((begun // SECOND + end) * SECOND))
        records[partition_mode] = {
            (change.server_transaction_id, change.record_sequence): change._replace(
                mods=tuple(Mod(*(orjson.loads(text) for text in mod)) for mod in change.mods)
            )
            for change in found
        }
        assert len(found) == len(records[partition_mode]) > 300
    assert records["IMMUTABLE_KEY_RANGE"] == records["MUTABLE_KEY_RANGE"]


@pytest.mark.parametrize(
    ("chosen", "partitions", "partition_mode", "readers"),
    [
        (0, 0, "IMMUTABLE_KEY_RANGE", 1),
        (0, 49, "IMMUTABLE_KEY_RANGE", 4),
        (0, 49, "MUTABLE_KEY_RANGE", 1),
        (0, 1_200, "IMMUTABLE_KEY_RANGE", 100),
        (3, 49, "IMMUTABLE_KEY_RANGE", 3),
    ],
)
def test_a_stream_has_as_many_readers_as_are_set_or_one_for_ten_partitions(
    chosen: int, partitions: int, partition_mode: PartitionMode, readers: int
) -> None:
    _, project, _, instance, _, database = DATABASE.split("/")
    values = REQUIRED_OPTIONS | {
        "changeStreamReaders": str(chosen),
        "spannerProjectId": project,
        "spannerInstanceId": instance,
        "spannerDatabase": database,
        "spannerChangeStreamNames": f"{STREAM},Other",
    }
    made = history() if partition_mode == "IMMUTABLE_KEY_RANGE" else History(created=time.time_ns())
    if partition_mode == "MUTABLE_KEY_RANGE":
        made.stream(STREAM, product_tables()[STREAM], partition_mode=partition_mode)
    for i in range(partitions):
        made.streams[STREAM].root(low=(1 << 32) * i // partitions, high=(1 << 32) * (i + 1) // partitions)
    # The largest stream counts.
    made.stream("Other", product_tables()[STREAM])
    with StrictSpanner(made) as spanner:
        settings, _ = parse(
            [f"--{name}={value}" for name, value in values.items()] + [f"--spannerEndpoint={spanner.endpoint}"]
        )
        assert stream_job.readers_of(settings) == readers


def test_the_first_of_several_readers_reads_a_stream_of_mutable_key_ranges() -> None:
    """Which partition says that another one starts is not documented: several could say it, or one."""
    begun = time.time_ns() - 30 * SECOND
    made = RandomHistory(
        6,
        rate=30,
        churn=3,
        created=begun,
        partition_mode="MUTABLE_KEY_RANGE",
        tables={STREAM: product_tables()[STREAM]},
    ).play(20)
    end = from_nanos(begun + 20 * SECOND)
    collected = Collected()
    with StrictSpanner(made, all_parents_start=True) as spanner:
        for share in (Share(1, 2), Share(0, 2)):
            reader = ChangeStreamReader(
                stream_at(spanner), Reading(end=end), PartitionSet(from_nanos(begun), share=share)
            )
            while (available := reader.advance()) or reader.get_watermark() < MAX_TIMESTAMP:
                if available and isinstance(current := reader.get_current(), DataChange):
                    collected.found.update(ids(current))
            reader.close()
            assert share.reader == 0 or not collected.found
    assert collected.found == committed(made)


def test_a_child_whose_parent_is_never_discovered_is_reported(
    readers: list[ChangeStreamReader], caplog: pytest.LogCaptureFixture
) -> None:
    made = history(1)
    clock = [1000.0]
    with StrictSpanner(made) as spanner:
        spanner.unannounced_parents()
        reader = open_reader(spanner, timestamps.now(), clock=lambda: clock[0])
        readers.append(reader)
        made.move(made.streams[STREAM].live[0])
        collected = Collected()
        with caplog.at_level(logging.WARNING):

            def reported() -> bool:
                clock[0] += 0.5
                return "for a parent that Spanner has not named" in caplog.text

            collected.until(reader, reported)
    assert "1 partitions of change stream PaymentAuditTrailChangeStream wait" in caplog.text


def test_a_query_that_ends_at_once_is_not_asked_again_without_a_pause(
    readers: list[ChangeStreamReader], caplog: pytest.LogCaptureFixture
) -> None:
    made = history(1)
    with StrictSpanner(made) as spanner:
        spanner.end_early(count=None)
        reader = open_reader(spanner, timestamps.now())
        readers.append(reader)
        collected = Collected()
        with caplog.at_level(logging.WARNING):
            collected.until(reader, lambda: "without a record and without children" in caplog.text)
        asked = spanner.counts()["calls"]["ExecuteStreamingSql"]
        spanner.heal()
        insert(None, "p", to=made)
        collected.until(reader, lambda: collected.found.total() == 1)
    # The partitions, and the query three times until it is said.
    assert asked <= 6


def test_positions_come_once_a_second_of_the_stream_while_catching_up(readers: list[ChangeStreamReader]) -> None:
    begun = time.time_ns() - 130 * SECOND
    made = history(3, created=begun)
    for i in range(1200):
        insert(None, f"p{i}", at=begun + 1 + i * SECOND // 10, to=made)
    with StrictSpanner(made) as spanner:
        reader = open_reader(spanner, from_nanos(begun))
        readers.append(reader)
        collected = Collected()
        collected.until(reader, lambda: collected.found.total() >= 1199)
    assert collected.positions == sorted(collected.positions)
    # Partitions are read side by side: the slowest one's last position is all that the end of the backlog adds.
    assert len({p[:19] for p in collected.positions}) > 20


def test_a_refused_start_is_an_rpc_error_of_the_query_itself() -> None:
    made = history(1)
    with StrictSpanner(made) as spanner, pytest.raises(grpc.RpcError) as refused:
        ChangeStreamQuery(stream_at(spanner), spanner_channel(spanner.endpoint)).roots("2020-01-01T00:00:00.000000000Z")
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE
