"""`ReadChanges`: a change stream as an unbounded Beam source.

A thin adapter. Beam 2.77's UnboundedSource is experimental, so what knows it is here, and what knows change streams is
not: the checkpoint is a PartitionSet, the reading is PartitionReaders. The set of partitions with their positions is
saved atomically with the records of a bundle; there is no metadata table to run, and a retried bundle gets a reader
made anew from its own checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.io.unbounded_source import CheckpointMark, ReadFromUnboundedSource, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from contract.timestamps import after, to_micros
from pipeline.clients import spanner_channel
from pipeline.source.partitions import PartitionSet
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.reading import Ended, Failed, PartitionReaders, Reading, ReadThrough
from pipeline.source.records import DataChange, ReadPosition

# A bundle that has nothing yet waits for its first change. To end it and begin another costs a runner far more than to
# wait, and the change would wait for the next bundle.
_WAIT_SECONDS = 0.2
_POLL_SECONDS = 0.01
_MAX_RECORDS_PER_BUNDLE = 2000
_MAX_BUNDLE_SECONDS = 1.0
_SECONDS = len("2026-11-23T09:00:00")

Start = str | Callable[[], str]


class ReadChanges(beam.PTransform):
    """The data change records of one change stream from `start` on, timestamped with their commit timestamps.

    Between them, once a second of the stream, a ReadPosition says how far it was read. `start` may be a picklable
    function of nothing that returns the timestamp: it is called on the worker that begins to read, not at launch.
    """

    def __init__(self, stream: ChangeStream, start: Start, reading: Reading) -> None:
        super().__init__()
        self._source = ChangeStreamSource(stream, start, reading)

    def expand(self, pipeline: Any) -> Any:
        return pipeline | ReadFromUnboundedSource(
            self._source,
            poll_interval=_POLL_SECONDS,
            max_records_per_bundle=_MAX_RECORDS_PER_BUNDLE,
            max_read_time_seconds=_MAX_BUNDLE_SECONDS,
        )


class PartitionSetMark(CheckpointMark):
    """The partition set as it was when the bundle ended. Nothing is acknowledged: Spanner keeps the records."""

    def __init__(self, state: bytes) -> None:
        self.state = state


class _MarkCoder(coders.Coder):
    def encode(self, mark: PartitionSetMark) -> bytes:
        return mark.state

    def decode(self, encoded: bytes) -> PartitionSetMark:
        return PartitionSetMark(encoded)

    def is_deterministic(self) -> bool:
        return True


class ChangeStreamSource(UnboundedSource):
    """One change stream. It is not split: one reader carries many times the design load, and a shuffle follows."""

    def __init__(self, stream: ChangeStream, start: Start, reading: Reading) -> None:
        self._stream = stream
        self._start = start
        self._reading = reading

    def split(self, desired_num_splits: int, options: Any = None) -> list[UnboundedSource]:
        return [self]

    def create_reader(self, options: Any, checkpoint_mark: PartitionSetMark | None) -> UnboundedReader:
        return ChangeStreamReader(self._stream, self._reading, self._partitions(checkpoint_mark))

    def _partitions(self, mark: PartitionSetMark | None) -> PartitionSet:
        if mark:
            return PartitionSet.from_bytes(mark.state)
        return PartitionSet(self._start() if callable(self._start) else self._start)

    def get_checkpoint_mark_coder(self) -> coders.Coder:
        return _MarkCoder()


class ChangeStreamReader(UnboundedReader):
    """Moves the partition set on with every item that the partitions' threads deliver."""

    def __init__(self, stream: ChangeStream, reading: Reading, partitions: PartitionSet) -> None:
        self._query = ChangeStreamQuery(stream, spanner_channel(stream.endpoint))
        self._readers = PartitionReaders(self._query, reading)
        self._partitions = partitions
        self._stream = stream.name
        self._end = reading.end
        self._current: DataChange | ReadPosition | None = None
        self._announced = ""
        self._bundle_is_empty = True

    def start(self) -> bool:
        if not self._partitions.discovered:
            self._partitions.begin(self._query.roots(self._partitions.start))
        self._readers.read(self._partitions.readable())
        return self.advance()

    def advance(self) -> bool:
        available = self._next_change() or self._announce()
        if available:
            self._bundle_is_empty = False
        return available

    def _next_change(self) -> bool:
        # What the bundle holds already does not wait for more.
        ends = time.monotonic() + _WAIT_SECONDS if self._bundle_is_empty else 0.0
        while (delivered := self._readers.next(max(0.0, ends - time.monotonic()))) is not None:
            token, item = delivered
            match item:
                case DataChange():
                    if self._partitions.claim(token, item):
                        self._current = item
                        return True
                case ReadThrough(timestamp):
                    self._partitions.advance(token, timestamp)
                case Ended(children):
                    self._partitions.end(token, children)
                    self._readers.read(self._partitions.readable())
                case Failed(error):
                    raise error
        return False

    def _announce(self) -> bool:
        """Emits the position when it has moved into another second, or for the last time."""
        position = self._watermark()
        if position[:_SECONDS] == self._announced[:_SECONDS] and not self._partitions.finished:
            return False
        if position == self._announced:
            return False
        self._announced = position
        self._current = ReadPosition(self._stream, position)
        return True

    def _watermark(self) -> str:
        if self._partitions.finished and self._end:
            return after(self._end)
        return self._partitions.watermark()

    def get_current(self) -> DataChange | ReadPosition:
        if self._current is None:
            raise RuntimeError("get_current before the first record")
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        current = self.get_current()
        at = current.position if isinstance(current, ReadPosition) else current.commit_timestamp
        return Timestamp(micros=to_micros(at))

    def get_watermark(self) -> Timestamp:
        if self._partitions.finished and self._announced == self._watermark():
            return MAX_TIMESTAMP
        return Timestamp(micros=to_micros(self._partitions.watermark()))

    def get_checkpoint_mark(self) -> PartitionSetMark:
        self._bundle_is_empty = True
        return PartitionSetMark(self._partitions.to_bytes())

    def close(self) -> None:
        self._readers.close()
