"""The change stream as a Beam source: its start, its positions, its bundles, and how many readers it has."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from apache_beam.coders.coders import _MemoizingPickleCoder
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker

from pipeline.channels import StreamingCall
from pipeline.source import beam_source as read
from pipeline.source import partition_threads as reading
from pipeline.source import unbounded
from pipeline.source.beam_source import ChangeStreamReader, ChangeStreamSource, PartitionSetMark
from pipeline.source.partition_threads import Ended, Failed, PartitionReaders, Reading, ReadThrough, pause
from pipeline.source.partitions import PartitionSet, Share
from pipeline.source.query import ChangeStream
from pipeline.source.records import Child, ChildPartitions, DataChange, Heartbeat, Mod, ReadPosition
from tests.unit.test_partitions import at, change

START = "2026-11-23T09:00:00.000000000Z"
LATER = "2026-11-23T10:00:00.000000000Z"
STREAM = ChangeStream(name="S", database="projects/p/instances/i/databases/d", endpoint="127.0.0.1:1")


def resume_position() -> str:
    return LATER


def never() -> str:
    raise AssertionError("asked for a start although there is a checkpoint")


def reader(start: str | Callable[[], str], mark: PartitionSetMark | None = None) -> ChangeStreamReader:
    source = pickle.loads(pickle.dumps(ChangeStreamSource(STREAM, start, Reading())))
    made: ChangeStreamReader = source.create_reader(None, mark)
    return made


def test_a_start_may_be_a_text_or_be_asked_for_on_the_worker() -> None:
    assert PartitionSet.from_bytes(reader(START).get_checkpoint_mark().state).watermark() == START
    assert PartitionSet.from_bytes(reader(resume_position).get_checkpoint_mark().state).watermark() == LATER


def test_a_checkpoint_is_resumed_without_asking_for_a_start() -> None:
    mark = PartitionSetMark(PartitionSet(START).to_bytes())
    assert PartitionSet.from_bytes(reader(never, mark).get_checkpoint_mark().state).watermark() == START


class FakeSpanner:
    """Partitions with their records, which can be asked for any number of times. It takes a query's place."""

    stream = "S"
    heartbeat_seconds = 1.0
    mutable = False

    def __init__(self, partitions: dict[str, list[Any]], *, tail: bool = True) -> None:
        self.partitions = partitions
        self.tail = tail
        self.open: Counter[str] = Counter()
        self.most_open: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.unavailable = 0

    def roots(self, start: str) -> list[Child]:
        if self.unavailable:
            self.unavailable -= 1
            raise Unavailable
        return [Child(token, start, ()) for token in self.partitions]

    def unserved(self, call: StreamingCall) -> None:
        call.cancel()

    def run(self, start: str, *, token: str, on_call: Callable[[Any], None], **_: Any) -> Iterator[Any]:
        call = Call()
        on_call(call)
        self.open[token] += 1
        self.asked[token] += 1
        self.most_open[token] = max(self.most_open[token], self.open[token])
        try:
            for record in self.partitions[token]:
                if not isinstance(record, DataChange) or record.commit_timestamp >= start:
                    yield record
            if self.tail:
                call.cancelled.wait()
                raise Cancelled
        finally:
            self.open[token] -= 1


class Call:
    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()

    def silent_seconds(self) -> float:
        return 0.0


class Unavailable(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE


class Cancelled(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED


@pytest.fixture
def spanner(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSpanner]:
    made = FakeSpanner({"a": [change(i / 10, f"t{i}") for i in range(100)] + [Heartbeat(at(20))]})
    monkeypatch.setattr(read, "_query", lambda _: made)
    yield made
    for left in list(read._CURRENT.values()):
        left.close()


def big(seconds: float, megabytes: float) -> DataChange:
    return change(seconds, str(seconds))._replace(mods=(Mod("{}", "x" * int(megabytes * 1_000_000), "{}"),))


def bundle(reader: ChangeStreamReader, most: int = 10_000) -> list[Any]:
    """What a runner does: records until there is none for now."""
    found = []
    available = reader.advance()
    while available:
        found.append(reader.get_current())
        if len(found) == most:
            break
        available = reader.advance()
    return found


def read_until(reader: ChangeStreamReader, done: Callable[[list[Any]], Any], most: int = 10_000) -> list[Any]:
    """Bundles of at most this many items until what came is enough; fails when a hundred of them do not bring it."""
    found: list[Any] = []
    for _ in range(100):
        found += bundle(reader, most)
        if done(found):
            return found
    raise AssertionError(f"{len(changes(found))} changes came, and no more")


def changes(found: list[Any]) -> list[str]:
    return [item.id for item in found if isinstance(item, DataChange)]


# The queue and the bundle are bounded in bytes.


def test_the_queue_is_bounded_by_bytes_and_one_record_of_any_size_passes() -> None:
    queue = reading._Queue(most_bytes=1000, most_items=100)
    assert queue.put("a", big(1, 20))
    taken = threading.Event()

    def second() -> None:
        queue.put("a", big(2, 20))
        taken.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not taken.wait(0.1)
    delivered = queue.get(0)
    assert delivered is not None and isinstance(delivered[1], DataChange)
    thread.join()
    assert queue.get(0) is not None
    assert queue.get(0) is None


def test_many_threads_never_hold_more_than_the_bound_and_one_record_more() -> None:
    queue = reading._Queue(most_bytes=2_000_000, most_items=1000)
    weight = big(1, 0.3).weight
    threads = [threading.Thread(target=lambda: [queue.put("a", big(i, 0.3)) for i in range(5)]) for _ in range(20)]
    for thread in threads:
        thread.start()
    most = 0
    for _ in range(100):
        most = max(most, queue.waiting_bytes)
        assert queue.get(10) is not None
    for thread in threads:
        thread.join()
    assert most <= 2_000_000 + weight
    assert queue.waiting_bytes == 0


@pytest.mark.parametrize("bound", [{"most_bytes": 3 * big(1, 0.3).weight}, {"most_items": 3}], ids=["bytes", "items"])
def test_what_waits_in_the_queue_counts_until_it_is_returned(bound: dict[str, Any]) -> None:
    weight = big(1, 0.3).weight
    queue = reading._Queue(**bound)
    for number in range(3):
        queue.put("a", big(number, 0.3))
    thread = threading.Thread(target=queue.put, args=("a", big(3, 0.3)), daemon=True)
    thread.start()
    assert queue.get(0) is not None
    # The first has made room for one, and two of three are more than half: nobody is woken for one item.
    thread.join(0.1)
    assert (queue.waiting_bytes, queue.has_news, thread.is_alive()) == (2 * weight, True, True)
    assert queue.get(0) is not None
    thread.join(10)
    assert (queue.waiting_bytes, queue.has_news) == (2 * weight, True)
    assert [queue.get(0) is not None for _ in range(3)] == [True, True, False]
    assert (queue.waiting_bytes, queue.has_news) == (0, False)


def test_a_producer_that_looks_while_the_last_item_is_returned_does_not_wait_for_ever() -> None:
    """The consumer returns what it has taken without the lock: also between a producer's look and its wait."""
    consumer = threading.Thread(target=lambda: queue.get(0), daemon=True)
    producer = threading.Thread(target=lambda: queue.put("a", big(2, 0.1)), daemon=True)

    class Looked(reading._Queue):
        @property
        def _fullness(self) -> float:
            seen = super()._fullness
            if threading.current_thread() is producer and seen >= 1 and consumer.ident is None:
                consumer.start()
                while self.waiting_bytes:
                    time.sleep(0.001)
            return seen

    queue = Looked(most_bytes=big(1, 0.3).weight)
    queue.put("a", big(0, 0.1))
    queue.put("a", big(1, 0.3))
    # Both are taken, and what is left is as much as there may be.
    assert queue.get(0) is not None
    producer.start()
    producer.join(10)
    assert consumer.ident is not None
    assert not producer.is_alive()


def test_a_closed_queue_returns_nothing_that_was_taken_before() -> None:
    queue = reading._Queue()
    for number in range(3):
        queue.put("a", big(number, 0.1))
    assert queue.get(0) is not None
    queue.close()
    assert queue.get(0) is None
    assert (queue.waiting_bytes, queue.has_news, queue.put("a", big(4, 0.1))) == (0, False, False)


def test_a_closed_queue_lets_go_of_everybody_who_waits() -> None:
    queue = reading._Queue(most_bytes=1, most_items=1)
    queue.put("a", big(1, 0.1))
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(queue.put("a", big(2, 0.1)))) for _ in range(5)]
    for thread in threads:
        thread.start()
    queue.close()
    for thread in threads:
        thread.join()
    assert results == [False] * 5
    assert queue.get(5) is None


def test_a_bundle_ends_when_it_holds_enough_bytes_and_loses_nothing(spanner: FakeSpanner) -> None:
    spanner.partitions = {"a": [big(i / 100, 6) for i in range(20)] + [Heartbeat(at(9))]}
    reader = ChangeStreamReader(STREAM, Reading(), PartitionSet(START))
    found: list[str] = []
    largest = 0
    for _ in range(100):
        records = bundle(reader)
        largest = max(largest, sum(r.weight for r in records if isinstance(r, DataChange)))
        found += changes(records)
        reader.get_checkpoint_mark()
        if len(found) >= 20:
            break
    reader.close()
    assert found == [big(i / 100, 0).id for i in range(20)]
    assert largest < 16_000_000 + 7_000_000


# Positions.


def test_a_position_is_announced_each_second_of_the_stream_though_there_is_always_a_next_change(
    spanner: FakeSpanner,
) -> None:
    reader = ChangeStreamReader(STREAM, Reading(), PartitionSet(START))
    found = read_until(reader, lambda found: len(changes(found)) >= 100)
    reader.close()
    seconds = [item.position[:19] for item in found if isinstance(item, ReadPosition)]
    assert seconds[:10] == [at(second)[:19] for second in range(10)]


def test_every_change_of_before_a_position_is_emitted_before_it(spanner: FakeSpanner) -> None:
    spanner.partitions = {
        token: [record for i in range(200) for record in (change(i / 20, f"{token}{i}"), Heartbeat(at(i / 20)))]
        for token in "abc"
    }
    reader = ChangeStreamReader(STREAM, Reading(), PartitionSet(START))
    last = ""
    for item in read_until(reader, lambda found: len(changes(found)) >= 600):
        if isinstance(item, ReadPosition):
            assert item.position > last
            last = item.position
        else:
            assert item.commit_timestamp >= last
    reader.close()
    assert last >= at(9)


# What a bundle waits for.


def waits_for(reader: ChangeStreamReader) -> list[float]:
    """The seconds that the reader would wait for something to come, and nothing does."""
    asked: list[float] = []
    reader._readers.next = lambda wait, **_: asked.append(wait)  # type: ignore[union-attr,method-assign]
    while reader.advance():
        assert isinstance(reader.get_current(), ReadPosition)
    return asked


def test_a_bundle_with_changes_gathers_those_that_come_in_its_time(spanner: FakeSpanner) -> None:
    clock = [0.0]
    spanner.partitions = {"a": [change(0.5, "first")]}
    reader = ChangeStreamReader(STREAM, Reading(gather_millis=60_000), PartitionSet(START), clock=lambda: clock[0])
    while not isinstance(reader._current, DataChange):
        assert reader.advance()
    # The time of the bundle counts, not that since the last change.
    for now, wait in ((10.0, 50.0), (61.0, 0.0)):
        clock[0] = now
        assert waits_for(reader) == [wait]
    # The next bundle begins with nothing, and what this one has put out does not wait for other readers.
    assert reader._readers is not None
    for wait, put_out in ((1.0, True), (1.0, False)):
        reader.get_checkpoint_mark()
        assert reader._readers.has_put_out is put_out
        assert waits_for(reader) == [wait]
    reader.close()


def test_a_reader_says_whether_it_gathers(spanner: FakeSpanner) -> None:
    spanner.partitions = {"a": [change(0.5, "first")]}
    reader = ChangeStreamReader(STREAM, Reading(), PartitionSet(START), clock=lambda: 0.0)
    said: list[bool] = []
    real = PartitionReaders.next

    def next_(self: PartitionReaders, wait: float = 0.0, *, gathers: bool = False) -> Any:
        said.append(gathers)
        return real(self, wait, gathers=gathers)

    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(PartitionReaders, "next", next_)
        while not isinstance(reader._current, DataChange):
            assert reader.advance()
        assert not reader.advance()
    reader.close()
    assert said[-2:] == [False, True]


def test_a_change_after_a_quiet_time_does_not_wait_for_others(spanner: FakeSpanner) -> None:
    clock = [0.0]
    spanner.partitions = {"a": [change(0.5, "first")]}
    reader = ChangeStreamReader(STREAM, Reading(gather_millis=100), PartitionSet(START), clock=lambda: clock[0])
    real = reading._Queue.get

    def late(self: Any, *arguments: Any) -> Any:
        # Nothing came in the first half second of the bundle.
        clock[0] = 0.5
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(reading._Queue, "get", late)
        while not isinstance(reader._current, DataChange):
            assert reader.advance()
    assert waits_for(reader) == [0.0]
    reader.close()


def test_positions_do_not_end_a_bundle_before_its_time_and_the_last_one_does(spanner: FakeSpanner) -> None:
    clock = [0.0]
    spanner.partitions = {"a": [Heartbeat(at(5))]}
    reader = ChangeStreamReader(STREAM, Reading(), PartitionSet(START), clock=lambda: clock[0])
    while not (isinstance(reader._current, ReadPosition) and reader._current.position > at(4)):
        assert reader.advance()
    clock[0] += 0.25
    assert waits_for(reader) == [0.75]
    reader._partitions.end("a", ())
    assert reader.advance()
    assert waits_for(reader) == [0.0]
    reader.close()


def readers_in_turn(spanner: FakeSpanner, clock: list[float], of: int) -> list[PartitionReaders]:
    turns = reading.Turns()
    return [PartitionReaders(spanner, Reading(), turns=turns, clock=lambda: clock[0]) for _ in range(of)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rests", "put_out", "items", "ends_first", "ends_gathering"),
    [
        (0.0, False, [], False, False),
        (0.0, True, [], True, True),
        (0.0, False, [change(1)], True, False),
        (0.0, False, [Ended(())], True, False),
        (0.0, False, [ReadThrough(at(1))], False, False),
        (6.0, True, [change(1)], False, False),
        (None, True, [change(1)], False, False),
    ],
    ids=["nothing", "has put out", "a change", "an end", "a position", "rested long ago", "is in a bundle"],
)
def test_a_reader_s_wait_ends_by_what_another_has(
    spanner: FakeSpanner, rests: float | None, put_out: bool, items: list[Any], ends_first: bool, ends_gathering: bool
) -> None:
    """One thread reads with one after the other: what the first has put out waits until the last is through."""
    clock = [100.0]
    waiting, other = readers_in_turn(spanner, clock, 2)
    other.rest(has_put_out=put_out)
    if rests is None:
        other.next()
    else:
        clock[0] += rests
    for item in items:
        other._queue.put("x", item)
    turns = waiting._turns
    found = turns.ends_wait(waiting, False), turns.ends_wait(waiting, True)
    # What was taken is there no more.
    other._rests_since, other.has_put_out = clock[0], False
    for _ in items:
        other._queue.get(0)
    assert not turns.ends_wait(waiting, False)
    for each in (waiting, other):
        each.close()
    assert found == (ends_first, ends_gathering)
    assert not turns.readers


def test_what_comes_for_one_reader_ends_the_wait_of_the_others(spanner: FakeSpanner) -> None:
    *waiting, other = readers_in_turn(spanner, [0.0], 3)
    other.rest(has_put_out=False)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda each=each: found.append(each.next(600.0)), daemon=True) for each in waiting
    ]
    for thread in threads:
        thread.start()
    while len(other._turns.filled._waiters) < 2:  # type: ignore[attr-defined]
        pass
    other._queue.put("x", change(1))
    for thread in threads:
        thread.join(30)
    assert found == [None, None]
    for each in (*waiting, other):
        each.close()


def test_readers_in_one_bundle_share_its_wait(spanner: FakeSpanner) -> None:
    clock = [0.0]
    spanner.partitions = {"a": []}
    made = [
        ChangeStreamReader(STREAM, Reading(), PartitionSet(START), group="g", clock=lambda: clock[0]) for _ in range(5)
    ]
    for each in made:
        while each._readers is None:
            each._is_asked()
    # One after the other, as Prism does; the fifth is read with by another thread, in a bundle that it does not end.
    *in_turn, other = made
    waits: list[list[float]] = []
    for _ in range(2):
        for each in in_turn:
            waits.append(waits_for(each))
            each.get_checkpoint_mark()
    assert waits == [[1.0], [1 / 2], [1 / 3], [1 / 4], *[[1 / 4]] * 4]
    assert waits_for(other) == [1 / 5]
    clock[0] += 6
    assert waits_for(in_turn[0]) == [1.0]
    for each in made:
        each.close()


def test_the_readers_of_a_transform_know_each_other_and_those_of_another_do_not(
    spanner: FakeSpanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_stream = ChangeStream(name="T", database=STREAM.database, endpoint=STREAM.endpoint)
    first = read.ReadChanges([STREAM, other_stream], START, Reading(), readers=2)
    second = read.ReadChanges(STREAM, START, Reading())
    parts = [part for source in first._sources for part in source.split(20)]
    assert [(part._stream.name, part._share) for part in parts] == [
        (name, Share(reader, 2)) for name in "ST" for reader in range(2)
    ]
    made = [part.create_reader(None, None) for part in parts]
    [alone] = [source.create_reader(None, None) for source in second._sources]
    assert len({id(each._turns) for each in made}) == 1
    assert alone._turns is not made[0]._turns
    assert len({part._id for part in parts}) == 4


# One reader a source.


def source_of() -> ChangeStreamSource:
    return ChangeStreamSource(STREAM, START, Reading())


def copy(source: ChangeStreamSource) -> ChangeStreamSource:
    made: ChangeStreamSource = pickle.loads(pickle.dumps(source))
    return made


def test_a_reader_that_resumes_where_another_stands_takes_its_queries_over(spanner: FakeSpanner) -> None:
    source = source_of()
    mark, found = None, []
    readers = []
    for _ in range(20):
        reader = copy(source).create_reader(None, mark)
        readers.append(reader)
        found += bundle(reader, 7)
        mark = reader.get_checkpoint_mark()
    assert changes(found) == [change(i / 10, f"t{i}").id for i in range(len(changes(found)))]
    assert spanner.asked["a"] == 1
    assert spanner.most_open["a"] == 1


def test_a_reader_from_another_checkpoint_closes_the_one_before(spanner: FakeSpanner) -> None:
    source = source_of()
    first = source.create_reader(None, None)
    bundle(first, 7)
    mark = first.get_checkpoint_mark()
    went_on = changes(bundle(first, 9))
    queries = first._readers
    # The bundle is given up, and done again from its checkpoint elsewhere.
    second = copy(source).create_reader(None, mark)
    # A new reader says its position first, so a bundle of nine may hold a change less.
    again = changes(bundle(second, 9))
    assert again == went_on[: len(again)]
    assert first.advance() is False
    assert queries is not None and queries.closed
    third = copy(source).create_reader(None, second.get_checkpoint_mark())
    assert changes(bundle(third, 5))[0] == f"t{int(again[-1].split('/')[0][1:]) + 1}/00000000"
    second.close()
    first.close()
    assert changes(bundle(third, 5))


def test_a_reader_whose_queries_were_taken_over_starts_again_when_its_bundle_is_done_again(
    spanner: FakeSpanner,
) -> None:
    source = source_of()
    first = source.create_reader(None, None)
    bundle(first, 7)
    mark = first.get_checkpoint_mark()
    second = copy(source).create_reader(None, mark)
    ahead = changes(bundle(second, 9))
    second.get_checkpoint_mark()
    again = changes(bundle(first, 9))
    assert again
    assert again == ahead[: len(again)]


def test_a_source_is_pickled_once_however_often_a_bundle_brings_it() -> None:
    """Beam decodes another object with every bundle, and codes it again for the next one."""
    source, other = source_of(), source_of()
    coder = _MemoizingPickleCoder()
    written = coder.encode(source)
    again = [coder.decode(written) for _ in range(3)]
    assert all(coder.encode(each) is written for each in again)
    assert coder.encode(other) != written
    one, two = ChangeStreamSource(STREAM, START, Reading(), readers=2).split(20)
    assert coder.encode(one) != coder.encode(two)


def test_two_sources_of_one_stream_do_not_know_each_other(spanner: FakeSpanner) -> None:
    readers = [source_of().create_reader(None, None) for _ in range(2)]
    for reader in readers:
        assert len(changes(bundle(reader, 50))) > 40
    for reader in readers:
        assert changes(bundle(reader, 9))


def test_a_reader_that_nobody_asks_closes_its_queries_and_goes_on_where_it_was(spanner: FakeSpanner) -> None:
    clock = [0.0]
    reader = ChangeStreamReader(STREAM, Reading(), PartitionSet(START), clock=lambda: clock[0])
    found = changes(bundle(reader, 20))
    queries = reader._readers
    assert queries is not None
    clock[0] += 10
    queries.watch()
    assert not queries.closed
    clock[0] += 10
    queries.watch()
    assert queries.closed
    found += changes(read_until(reader, lambda more: len(found) + len(changes(more)) >= 100, 20))
    reader.close()
    assert found == [change(i / 10, f"t{i}").id for i in range(100)]


def test_beams_own_reader_cache_in_two_instances_keeps_one_query_a_partition(spanner: FakeSpanner) -> None:
    """Each bundle lands on the other DoFn instance, as Runner v2 may do."""
    provider = unbounded._PROVIDER
    instances = [unbounded._Read(max_records_per_bundle=6) for _ in range(2)]
    for instance in instances:
        instance.setup()
    restriction = provider.initial_restriction(copy(source_of()))
    coder = provider.restriction_coder()
    found: list[str] = []
    turn = 0
    while len(found) < 100 and turn < 1000:
        tracker = provider.create_tracker(restriction)
        inner = ThreadsafeRestrictionTracker(tracker)
        for element in instances[turn % 2].process(
            None,
            bundle_finalizer=Finalizer(),
            tracker=RestrictionTrackerView(inner),
            watermark_estimator=Estimator(),
        ):
            found += changes([element.value])
        residual = inner.deferred_status()
        assert residual is not None
        restriction = coder.decode(coder.encode(residual[0]))
        turn += 1
    for instance in instances:
        instance.teardown()
    assert turn > 10
    assert Counter(found) == Counter({change(i / 10, f"t{i}").id: 1 for i in range(100)})
    assert spanner.asked["a"] == 1


class Finalizer:
    def register(self, callback: Any) -> None:
        pass


class Estimator:
    def current_watermark(self) -> None:
        return None

    def set_watermark(self, at: Any) -> None:
        pass


# What fails is asked again, with pauses, and said.


def test_the_first_partitions_are_asked_for_again_without_failing_the_bundle(
    spanner: FakeSpanner, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    spanner.unavailable = 5
    reader = ChangeStreamReader(STREAM, Reading(), PartitionSet(START), clock=lambda: clock[0], sleep=sleep)
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            assert reader.advance() is False
            reader.get_checkpoint_mark()
            if not spanner.unavailable:
                break
    found = read_until(reader, changes, 5)
    reader.close()
    assert changes(found)
    assert "UNAVAILABLE, try 3. Nothing is lost" in caplog.text


def test_no_first_partition_is_not_the_end_of_the_stream(spanner: FakeSpanner) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    had, spanner.partitions = spanner.partitions, {}
    reader = ChangeStreamReader(STREAM, Reading(), PartitionSet(START), clock=lambda: clock[0], sleep=sleep)
    for _ in range(5):
        assert reader.advance() is False
    spanner.partitions = had
    found = read_until(reader, changes, 5)
    reader.close()
    assert changes(found)


def test_an_outage_of_many_hours_still_has_a_pause() -> None:
    assert all(0 < pause(tries) <= 10 for tries in (1, 20, 1000, 5000, 10**6))


def test_a_query_that_ends_at_once_is_asked_again_with_growing_pauses(
    spanner: FakeSpanner, caplog: pytest.LogCaptureFixture
) -> None:
    spanner.partitions, spanner.tail = {"a": []}, False
    readers = PartitionReaders(spanner, Reading())  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        readers.read({"a": START})
        assert readers.next(1.0) is None
    readers.close()
    assert spanner.asked["a"] < 10
    assert "has ended 3 times in a row without a record and without children" in caplog.text


@pytest.mark.parametrize("named", [[], [ChildPartitions(())]])
def test_a_query_that_names_no_children_is_not_the_end_of_its_partition(spanner: FakeSpanner, named: list[Any]) -> None:
    spanner.partitions, spanner.tail = {"a": [change(1), *named]}, False
    readers = PartitionReaders(spanner, Reading())  # type: ignore[arg-type]
    readers.read({"a": START})
    items = [readers.next(10.0) for _ in range(3)]
    readers.close()
    assert all(item is not None and isinstance(item[1], DataChange) for item in items)


def test_children_that_several_records_name_are_all_taken(spanner: FakeSpanner) -> None:
    x, y = Child("x", at(5), ("a",)), Child("y", at(5), ("a",))
    spanner.partitions, spanner.tail = {"a": [ChildPartitions((x,)), ChildPartitions((y,))]}, False
    readers = PartitionReaders(spanner, Reading())  # type: ignore[arg-type]
    readers.read({"a": START})
    delivered = readers.next(10.0)
    readers.close()
    assert delivered == ("a", Ended((x, y)))


def test_whatever_goes_wrong_in_a_partitions_thread_reaches_the_reader(spanner: FakeSpanner) -> None:
    class Broken(FakeSpanner):
        def run(self, start: str, **_: Any) -> Iterator[Any]:
            raise RuntimeError("broken")

    readers = PartitionReaders(Broken({}), Reading())  # type: ignore[arg-type]
    readers.read({"a": START})
    delivered = readers.next(10.0)
    readers.close()
    assert delivered is not None and isinstance(delivered[1], Failed)


def test_the_same_trouble_of_a_thousand_partitions_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    clock = [0.0]
    voice = reading.Voice(lambda: clock[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            voice.failed(Unavailable(), 3, START)
        assert len(caplog.records) == 1
        clock[0] += 60
        voice.failed(Unavailable(), 40, START)
    assert len(caplog.records) == 2


def test_children_that_begin_where_a_window_ends_are_found_by_the_next_one(
    spanner: FakeSpanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query may leave out what bears its very start or end: the emulator does so with children."""
    boundary = at(5)
    moments = iter([boundary, *(at(i) for i in range(6, 50))])
    monkeypatch.setattr("pipeline.source.partition_threads.timestamps.now", lambda: next(moments))

    class Boundary(FakeSpanner):
        def run(self, start: str, *, end: str = "", **_: Any) -> Iterator[Any]:
            if start < boundary < end:
                yield ChildPartitions((Child("x", boundary, ("a",)),))

    readers = PartitionReaders(Boundary({}), Reading(mode="windows", window_millis=1))  # type: ignore[arg-type]
    readers.read({"a": START})
    items = [readers.next(10.0), readers.next(10.0)]
    readers.close()
    assert items[1] == ("a", Ended((Child("x", boundary, ("a",)),)))
