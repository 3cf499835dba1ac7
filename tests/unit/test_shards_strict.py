"""The sink over the strict BigQuery: the real protocol, on a clock of the test's own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from contract import timestamps
from contract.changes import Column, Reason
from pipeline import clients
from pipeline.sink.changelogs import LAG_SECONDS, Changelogs, Destinations
from pipeline.sink.shards import Shard, SinkClients
from tests.shipped import PAYMENT_DATASET, WATCHED
from tests.strict.bigquery import StrictBigQuery
from tests.strict.generations import InMemoryGenerations, Ledger
from tests.unit.sink_twin import COLUMNS, TABLE, batch, change

PROJECT = "audit-tests"
TABLE_ID = WATCHED.of(TABLE).id
WIDER = (*COLUMNS, Column("Colour", "STRING", False))


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bq(clock: Clock) -> Iterator[StrictBigQuery]:
    with StrictBigQuery(PROJECT, clock=clock.time) as strict:
        strict.create_dataset(PAYMENT_DATASET)
        yield strict


class Sink:
    """Shards of one job on the strict BigQuery."""

    def __init__(self, bq: StrictBigQuery, clock: Clock) -> None:
        self.bq, self.clock = bq, clock
        self.generations = InMemoryGenerations(ledger=Ledger(lambda: int(clock.now * 1e9)))
        self.generations.take_over("run", timestamps.now())
        self.write = clients.write_client(bq.grpc)
        self.query = clients.bigquery_client(bq.rest, PROJECT)
        self.made: list[Shard] = []

    def shard(self, number: str = "0", fenced_at: str | None = None) -> Shard:
        destinations = Destinations(project=PROJECT, watched=WATCHED, dataset=PAYMENT_DATASET)
        shard = Shard(
            SinkClients(
                write=self.write,
                query=self.query,
                changelogs=Changelogs(self.query, destinations, clock=self.clock.time, sleep=self.clock.sleep),
                destinations=destinations,
                generations=self.generations,
                generation=1,
                fenced_at=fenced_at,
                clock=self.clock.time,
                sleep=self.clock.sleep,
            ),
            TABLE,
            number,
        )
        self.made.append(shard)
        return shard

    def there(self) -> Counter[str]:
        return Counter(row["PUID"] for row in self.bq.rows(TABLE_ID))


@pytest.fixture
def sink(bq: StrictBigQuery, clock: Clock) -> Iterator[Sink]:
    made = Sink(bq, clock)
    yield made
    for shard in made.made:
        shard.close()


@pytest.mark.parametrize("number", [8, 500])
@pytest.mark.parametrize("mismatch", ["in-band", "ends-call", "row-errors"])
def test_no_row_with_a_new_column_is_lost_to_a_write_path_that_learns_of_it_later(
    sink: Sink, bq: StrictBigQuery, mismatch: str, number: int
) -> None:
    shard = sink.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    bq.set(schema_lag=20, schema_mismatch=mismatch)
    bq.reset_calls()
    rows = batch(*(change(f"c{i}", WIDER, Colour="red") for i in range(number)), change("plain", WIDER))
    _, outcome = shard.append(position, rows, WIDER)
    assert outcome.rejected == []
    assert sink.there() == Counter(["p0", "plain", *(f"c{i}" for i in range(number))])
    assert bq.calls["CreateWriteStream"] <= 3
    assert bq.calls["rest.query"] + bq.calls["jobs.insert"] <= 3
    assert sum(sink.clock.slept) < 40


@pytest.mark.parametrize("second", ["older-ends", "newer-refused"])
def test_a_stream_has_one_connection_at_a_time(sink: Sink, bq: StrictBigQuery, second: str) -> None:
    bq.set(second_connection=second)
    shard = sink.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    for number in range(1, 6):
        columns = WIDER if number % 2 else COLUMNS
        position, outcome = shard.append(position, batch(change(f"p{number}", columns, Colour="red")), columns)
        assert outcome.retries == 0
    assert bq.calls["AppendRows.second_connection"] == 0
    assert len(sink.there()) == 6


@pytest.mark.parametrize("in_band", [True, False])
@pytest.mark.parametrize("code", ["INTERNAL", "ABORTED", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_a_code_that_passes_is_waited_out_however_it_arrives(
    sink: Sink, bq: StrictBigQuery, code: str, in_band: bool
) -> None:
    shard = sink.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    bq.fail(code, in_band, seconds=5)
    _, outcome = shard.append(position, batch(change("p1"), change("p2")), COLUMNS)
    assert (outcome.rejected, sink.there()) == ([], Counter(["p0", "p1", "p2"]))
    assert bq.calls["CreateWriteStream"] == 1


@pytest.mark.parametrize("in_band", [True, False])
def test_one_refused_row_among_many_is_found_without_a_wait(sink: Sink, bq: StrictBigQuery, in_band: bool) -> None:
    shard = sink.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    bq.fail("INVALID_ARGUMENT", in_band, rows={"column": "PUID", "values": ["p250"]})
    _, outcome = shard.append(position, batch(*(change(f"p{i}") for i in range(1, 501))), COLUMNS)
    assert [r.row["PUID"] for r in outcome.rejected] == ["p250"]
    assert sum(sink.there().values()) == 500
    assert sink.clock.slept == []


def test_a_row_of_eleven_megabytes_is_a_dead_letter_and_eleven_others_arrive(sink: Sink) -> None:
    rows = [change(f"p{i}") for i in range(12)]
    rows[3].new["Metadata"] = '"' + "x" * 11_000_000 + '"'
    _, outcome = sink.shard().append(None, batch(*rows), COLUMNS)
    assert [(r.row["PUID"], r.reason) for r in outcome.rejected] == [("p3", Reason.TOO_LARGE)]
    assert len(sink.there()) == 11
    assert sink.clock.slept == []


def test_a_cell_of_ten_megabytes_reaches_bigquery(sink: Sink) -> None:
    big = [change(f"p{i}", Metadata='"' + "x" * 9_999_998 + '"') for i in range(2)]
    _, outcome = sink.shard().append(None, batch(change("small"), *big), COLUMNS)
    assert (outcome.rejected, len(sink.there())) == ([], 3)


@pytest.mark.parametrize("storage_error", ["STREAM_FINALIZED", "STREAM_NOT_FOUND", "INVALID_STREAM_STATE"])
def test_a_stream_that_takes_no_more_is_replaced(sink: Sink, bq: StrictBigQuery, storage_error: str) -> None:
    shard = sink.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    bq.fail("INVALID_ARGUMENT", times=1, storage_error=storage_error)
    _, outcome = shard.append(position, batch(change("p1")), COLUMNS)
    assert (outcome.rejected, sink.there()) == ([], Counter(["p0", "p1"]))


def test_a_stream_that_expired_is_replaced(sink: Sink, bq: StrictBigQuery) -> None:
    shard = sink.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    bq.expire_streams()
    shard.append(position, batch(change("p1")), COLUMNS)
    assert sink.there() == Counter(["p0", "p1"])


def test_an_idle_connection_that_the_server_ended_costs_nothing(sink: Sink, bq: StrictBigQuery) -> None:
    shard = sink.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    connection: Any = shard._connection
    bq.cut()
    # Its own thread alone: other tests of this process have left some.
    connection._receiver.join(10)
    assert connection.ended
    _, outcome = shard.append(position, batch(change("p1")), COLUMNS)
    assert outcome.retries == 0


def test_a_random_history_of_faults_loses_and_doubles_nothing(sink: Sink, bq: StrictBigQuery) -> None:
    dice = random.Random(12)
    shard, position = sink.shard(), None
    expected: Counter[str] = Counter()
    faults: list[Any] = [
        bq.lose_answers,
        lambda: bq.fail("INTERNAL", True, times=2),
        lambda: bq.fail("UNAVAILABLE", False, times=1),
        bq.expire_streams,
        lambda: bq.fail("ALREADY_EXISTS", True, times=1),
        bq.cut,
        lambda: bq.fail_rest(503, times=1),
    ]
    for number in range(60):
        columns = WIDER if number > 30 else COLUMNS
        if number == 31:
            bq.set(schema_lag=5)
        changes = [change(f"p{number}-{i}", columns, at=sink.clock.now - 100) for i in range(dice.randint(1, 9))]
        expected.update(c.keys["PUID"] for c in changes)
        if dice.random() < 0.5:
            dice.choice(faults)()
        if dice.random() < 0.2:
            shard = sink.shard()
        after, outcome = shard.append(position, batch(*changes), columns)
        assert outcome.rejected == []
        if dice.random() < 0.3:
            # The bundle failed after its append: it is tried again, from the state before it.
            again, _ = shard.append(position, batch(*changes), columns)
            after = again
        position = after
    assert sink.there() == expected


@pytest.mark.parametrize("in_band", [True, False])
def test_one_bad_row_alone_with_a_new_column_does_not_hold_the_shard_for_as_long_as_a_column_may_lag(
    sink: Sink, bq: StrictBigQuery, in_band: bool
) -> None:
    shard = sink.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    bq.set(schema_lag=20)
    bq.fail("INVALID_ARGUMENT", in_band, rows={"column": "PUID", "values": ["bad"]})
    rows = batch(change("bad", WIDER, Colour="red"), change("plain", WIDER))
    _, outcome = shard.append(position, rows, WIDER)
    assert [r.row["PUID"] for r in outcome.rejected] == ["bad"]
    assert sink.there() == Counter(["p0", "plain"])
    assert sum(sink.clock.slept) < LAG_SECONDS / 5
