"""The backlog that a runner is given: what was not read yet, and nothing once the reader has caught up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from apache_beam.coders import coders
from apache_beam.io.unbounded_source import _UnboundedSourceRestriction
from apache_beam.runners.common import DoFnSignature

from contract.timestamps import from_nanos
from pipeline.source import beam_source as read
from pipeline.source import unbounded
from pipeline.source.backlog import Backlog
from pipeline.source.beam_source import ChangeStreamReader, ChangeStreamSource
from pipeline.source.partition_threads import Reading
from pipeline.source.partitions import PartitionSet
from pipeline.source.records import Heartbeat
from tests.unit.test_partitions import change
from tests.unit.test_source_read import STREAM, FakeSpanner, bundle

SECOND = 1_000_000_000
NOW = time.time_ns()


def at(seconds_ago: float) -> str:
    return from_nanos(NOW - int(seconds_ago * SECOND))


def read_of(rate: int, *, until: float, partitions: int = 2) -> Backlog:
    """A minute of a stream of so many bytes a second was read, until so many seconds ago."""
    made = Backlog(quiet_seconds=1)
    for second in range(61):
        made.size([at(until + 60 - second)] * partitions, NOW - (60 - second) * SECOND, 0)
        made.read += rate
    return made


def test_the_backlog_is_the_age_of_the_positions_by_the_rate_of_the_stream() -> None:
    size = read_of(1000, until=1006).size([at(1006)] * 3, NOW + SECOND, 0)
    assert size == pytest.approx(1_001_000, rel=0.02)


def test_the_backlog_of_partitions_is_their_average() -> None:
    made = Backlog(quiet_seconds=1)
    for second in range(60):
        made.size([at(266 - second), at(166 - second)], NOW - (60 - second) * SECOND, 0)
        made.read += 1000
    assert made.size([at(206), at(106)], NOW, 0) == pytest.approx(150_000, rel=0.01)


def test_partitions_that_are_read_at_different_speed_do_not_inflate_the_rate() -> None:
    """The slowest one alone would say that all was read in no time."""
    made = Backlog(quiet_seconds=1)
    made.size([at(1006), at(1006)], NOW, 0)
    made.read += 500_000
    assert made.size([at(1006), at(6)], NOW + SECOND, 0) == pytest.approx(500_000, rel=0.01)


def test_a_backlog_that_was_caught_up_with_is_zero_whatever_the_rate() -> None:
    """Beam 24045, 23494: what never falls to zero keeps every worker."""
    assert read_of(1_000_000, until=0).size([at(0), at(4.9)], NOW + SECOND, 0) == 0


def test_a_quiet_partition_is_as_old_as_its_heartbeat_and_not_behind() -> None:
    made = Backlog(quiet_seconds=300)
    made.size([at(364)], NOW - SECOND, 0)
    made.read += 60_000
    assert made.size([at(304)], NOW, 0) == 0
    assert made.size([at(304)], NOW + 101 * SECOND, 0) == pytest.approx(100_000, rel=0.01)


def test_heartbeats_alone_are_no_backlog() -> None:
    """Nothing but heartbeats for ten minutes: the rate of before is forgotten, however old the positions are."""
    made = read_of(1000, until=700)
    made.size([at(700)], NOW + SECOND, 0)
    assert (made.size([at(100)], NOW + 2 * SECOND, 0) or 0) < 1000


def test_what_waits_on_the_worker_is_counted_once() -> None:
    made = read_of(1000, until=106)
    assert made.size([at(106)], NOW + SECOND, 20_000) == pytest.approx(101_000, rel=0.02)
    assert made.size([at(0)], NOW + 2 * SECOND, 20_000) == 20_000


def test_before_anything_is_known_the_backlog_is_not_zero() -> None:
    made = Backlog(quiet_seconds=1)
    assert made.size([at(3600)], NOW, 0) is None
    assert made.size([at(3600)], NOW, 5) == 5


def test_a_stream_without_partitions_left_has_no_backlog() -> None:
    assert read_of(1000, until=100).size([], NOW + SECOND, 0) == 0


def test_positions_are_looked_at_twice_a_second_at_most() -> None:
    """A runner asks at each of its bundles, and there can be thousands."""
    looked = []

    def positions() -> Iterator[str]:
        looked.append(1)
        yield at(0)

    made = Backlog(quiet_seconds=1)
    for millis in range(0, 2000, 10):
        made.size(positions(), NOW + millis * 1_000_000, 0)
    assert len(looked) == 4


# ---------------------------------------------------------------------- what Beam is given


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChangeStreamSource]:
    """An hour of changes, one a second, as bytes of about 1,150 each; then the stream is read as it is written."""
    records: list[Any] = [change(0, f"t{i}")._replace(commit_timestamp=at(3600 - i)) for i in range(3590)]
    made = FakeSpanner({"a": [*records, Heartbeat(at(0))]})
    monkeypatch.setattr(read, "_query", lambda _: made)
    clock = itertools.count(NOW, SECOND)
    monkeypatch.setattr("pipeline.source.beam_source.time.time_ns", lambda: next(clock))
    yield ChangeStreamSource(STREAM, at(3600), Reading())
    for left in list(read._CURRENT.values()):
        left.close()


def restriction(source: ChangeStreamSource, **fields: Any) -> _UnboundedSourceRestriction:
    return _UnboundedSourceRestriction(source=source, **fields)


def read_a_quarter(source: ChangeStreamSource, reader: ChangeStreamReader) -> None:
    """900 of the 3,590 changes: each is followed by a position."""
    for _ in range(2):
        read = 0
        while read < 900:
            read += len(bundle(reader, 900 - read))
        source.backlog()


def test_a_runner_is_given_the_bytes_that_are_not_read_and_about_none_once_they_are(source: ChangeStreamSource) -> None:
    given = unbounded._PROVIDER
    assert given.restriction_size(source, restriction(source)) == 1
    reader: Any = source.create_reader(None, None)
    read_a_quarter(source, reader)
    left = pytest.approx(2697 * change(0).weight, rel=0.01)
    assert given.restriction_size(source, restriction(source)) == left
    assert given.create_tracker(restriction(source)).current_progress().remaining_work == left
    while reader._partitions.watermark() < at(0):
        bundle(reader)
    assert given.restriction_size(source, restriction(source)) == 0
    assert given.create_tracker(restriction(source)).current_progress().fraction_remaining == 0.0


def test_what_is_done_has_no_size(source: ChangeStreamSource) -> None:
    bundle(source.create_reader(None, None), 900)
    assert unbounded._PROVIDER.restriction_size(source, restriction(source, is_done=True)) == 0


def test_the_rate_is_known_to_the_reader_that_takes_over(source: ChangeStreamSource) -> None:
    first: Any = source.create_reader(None, None)
    read_a_quarter(source, first)
    mark = first.get_checkpoint_mark()
    bundle(first, 9)
    # Not where the first one is by now: it has queries of its own, and nothing waits in a queue.
    second: Any = source.create_reader(None, mark)
    assert source.backlog() == pytest.approx(2697 * change(0).weight, rel=0.02)
    assert isinstance(second, ChangeStreamReader)


def test_after_the_end_that_was_given_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    made = FakeSpanner({"a": []})
    monkeypatch.setattr(read, "_query", lambda _: made)
    state = PartitionSet(at(3600))
    state.begin(made.roots(at(3600)))
    reader = ChangeStreamReader(STREAM, Reading(end=at(3500)), state)
    assert reader.backlog() is None
    state.advance("a", at(3590))
    reader._backlog.read += 10_000
    reader._backlog._looked = 0
    # 84 seconds up to the end without those of a quiet partition, and not the hour since.
    assert reader.backlog() == pytest.approx(84_000, rel=0.01)


def test_a_drain_stops_the_reading_and_leaves_nothing_to_be_read(source: ChangeStreamSource) -> None:
    assert unbounded._PROVIDER.truncate(source, restriction(source)) is None


def test_beam_takes_the_restriction_of_the_source_with_a_backlog() -> None:
    signature = DoFnSignature(unbounded._Read())
    assert signature.get_restriction_provider() is unbounded._PROVIDER
    assert signature.is_unbounded_per_element()
    assert isinstance(signature.get_restriction_coder(), coders.Coder)
