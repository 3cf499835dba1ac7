"""`ReadChanges`: a change stream as an unbounded Beam source.

A thin adapter. Beam 2.77's UnboundedSource is experimental, so what knows it is here, and what knows change streams is
not: the checkpoint is a PartitionSet, the reading is PartitionReaders. The set of partitions with their positions is
saved atomically with the records of a bundle; there is no metadata table to run, and a retried bundle gets a new
reader from its own checkpoint.

A stream is read by one reader, or shared by several (`readers`): the source splits once, before it reads, and each part
has its separate checkpoint.

A runner may resume each bundle in another DoFn instance, or another process. A process keeps the queries of one reader
per source or part: the reader that is asked. It takes over the running queries of the one before if it resumes exactly
at that one's position, and closes them if not; a reader that nobody asks closes its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from uuid import uuid4

import apache_beam as beam
import grpc
from apache_beam import coders
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from contract.timestamps import after, to_micros, to_nanos
from pipeline.clients import spanner_channel
from pipeline.source.backlog import Backlog
from pipeline.source.partition_threads import (
    Ended,
    Failed,
    PartitionReaders,
    Reading,
    ReadThrough,
    Turns,
    Voice,
    pause,
    refusal,
)
from pipeline.source.partitions import END, WHOLE, PartitionSet, Share
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.records import DataChange, PartitionStart, ReadPosition
from pipeline.source.unbounded import ReadWithBacklog, SourceWithBacklog

_LOG = logging.getLogger(__name__)

# A bundle that has nothing yet waits for its first change. To end it and begin another costs a runner far more than to
# wait, and the change would wait for the next bundle.
_WAIT_SECONDS = 1.0
_POLL_SECONDS = 0.01
_MAX_RECORDS_PER_BUNDLE = 2000
_MAX_BYTES_PER_BUNDLE = 16_000_000
_MAX_BUNDLE_SECONDS = 1.0
_SECONDS = len("2026-11-23T09:00:00")
# A parent of a merge is named within seconds of its sibling.
_ORPHAN_SECONDS = 60.0

Start = str | Callable[[], str]


class ReadChanges(beam.PTransform):
    """The data change records of change streams from `start` on, timestamped with their commit timestamps.

    `streams` is one or several, of one or several databases; all of them are read in one stage. Each has `readers`.
    Between them, once a second of the stream, a ReadPosition of each reader says how far it has read. `start` may be a
    picklable function of nothing that returns the timestamp: it is called on the worker that begins to read, not at
    launch. With several readers it must return the same to all of them, until each has emitted a ReadPosition.
    """

    def __init__(
        self, streams: ChangeStream | Sequence[ChangeStream], start: Start, reading: Reading, readers: int = 1
    ) -> None:
        super().__init__()
        several = [streams] if isinstance(streams, ChangeStream) else streams
        group = uuid4().hex
        self._sources = [ChangeStreamSource(stream, start, reading, readers, group) for stream in several]

    def expand(self, pipeline: Any) -> Any:
        return pipeline | ReadWithBacklog(
            self._sources,
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


class ChangeStreamSource(SourceWithBacklog):
    """One change stream, which splits into one part for each of its readers; or one of these parts."""

    def __init__(self, stream: ChangeStream, start: Start, reading: Reading, readers: int = 1, group: str = "") -> None:
        """`group`: the transform that reads it; sources without one are each in a group of one."""
        self._stream = stream
        self._start = start
        self._reading = reading
        self._readers = readers
        self._group = group or uuid4().hex
        # Before the split, and where Beam gives it up after an error, it reads the whole stream.
        self._share = WHOLE
        # Kept when the source is pickled: readers of one source know each other, those of two jobs in a process do not.
        self._id = f"{stream.database}/{stream.name}/{self._group}"

    # Beam pickles the source with every bundle, unless it is equal to one that it has pickled: three milliseconds.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChangeStreamSource) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)

    def split(self, desired_num_splits: int, options: Any = None) -> list[UnboundedSource]:
        """The parts. Their number is the setting's, not the runner's: Beam for Python always desires 20."""
        if self._readers == 1:
            return [self]
        return [self._part(Share(reader, self._readers)) for reader in range(self._readers)]

    def _part(self, share: Share) -> ChangeStreamSource:
        part = ChangeStreamSource(self._stream, self._start, self._reading, group=self._group)
        part._share, part._id = share, f"{self._id}/{share.reader}"
        return part

    def create_reader(self, options: Any, checkpoint_mark: PartitionSetMark | None) -> UnboundedReader:
        partitions = self._partitions(checkpoint_mark)
        return ChangeStreamReader(self._stream, self._reading, partitions, source=self._id, group=self._group)

    def _partitions(self, mark: PartitionSetMark | None) -> PartitionSet:
        if mark:
            return PartitionSet.from_bytes(mark.state)
        return PartitionSet(self._start() if callable(self._start) else self._start, share=self._share)

    def get_checkpoint_mark_coder(self) -> coders.Coder:
        return _MarkCoder()

    def backlog(self) -> int | None:
        reader = _CURRENT.get(self._id)
        return reader.backlog() if reader else None


# The reader of each source whose queries run, or ran last.
_CURRENT: dict[str, ChangeStreamReader] = {}
_CURRENT_LOCK = threading.Lock()


@cache
def _query(stream: ChangeStream) -> ChangeStreamQuery:
    """One session per process, however many readers are made."""
    return ChangeStreamQuery(stream, spanner_channel(stream.endpoint))


@cache
def _turns(group: str) -> Turns:
    return Turns()


class ChangeStreamReader(UnboundedReader):
    """Moves the partition set on with every item that the partitions' threads deliver.

    `source` names the source among those of the process; a reader without a name shares nothing.
    """

    def __init__(
        self,
        stream: ChangeStream,
        reading: Reading,
        partitions: PartitionSet,
        *,
        source: str = "",
        group: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._query = _query(stream)
        self._reading = reading
        self._partitions = partitions
        self._source = source
        self._stream = stream.name
        self._clock = clock
        self._sleep = sleep
        self._turns = _turns(group) if group else Turns()
        self._voice = Voice(clock)
        self._current: DataChange | ReadPosition | None = None
        self._announced = ""
        quiet = reading.window_millis / 1000 if reading.mode == "windows" else stream.heartbeat_millis / 1000
        self._backlog = Backlog(quiet)
        # The bundle that is read for: since when, None between two, how long it waits, and what it has.
        self._bundle_since: float | None = None
        self._bundle_wait = 0.0
        self._bundle_has_changes = False
        self._bundle_bytes = 0
        self._tries = 0
        self._try_at = 0.0
        self._orphans: dict[str, float] = {}
        self._orphans_at = 0.0
        # The queries, while they run; None as long as another reader of the source is the one that is asked.
        self._readers: PartitionReaders | None = None
        # Between two bundles: the checkpoint at which the reader is.
        self._stands_at: bytes | None = partitions.to_bytes()
        if source:
            with _CURRENT_LOCK:
                self._become_current()

    def start(self) -> bool:
        return self.advance()

    def advance(self) -> bool:
        if not self._is_asked():
            return False
        if self._bundle_bytes >= _MAX_BYTES_PER_BUNDLE:
            # Without more for now, a runner ends its bundle.
            self._bundle_bytes = 0
            return False
        self._report_orphans()
        return self._announce() or self._next_change()

    def _is_asked(self) -> bool:
        """Whether the queries run. They are started, taken over, or started again where need be."""
        if self._stands_at is not None:
            with _CURRENT_LOCK:
                self._become_current()
                self._stands_at = None
        elif self._source and _CURRENT.get(self._source) is not self:
            # Another reader was asked in the middle of this bundle: the runner gave the bundle up.
            return False
        if not self._partitions.discovered and not self._discover():
            return False
        readers = self._readers
        if readers is None or readers.closed:
            self._readers = PartitionReaders(self._query, self._reading, turns=self._turns, clock=self._clock)
            self._read()
        return True

    def _become_current(self) -> None:
        if not self._source:
            return
        before = _CURRENT.get(self._source)
        _CURRENT[self._source] = self
        if before is not None and before is not self:
            self._readers = before._hand_over(self._stands_at)
            self._announced = before._announced if self._readers else ""
            self._backlog = before._backlog

    def _hand_over(self, stands_at: bytes | None) -> PartitionReaders | None:
        """The running queries, for a reader that resumes exactly at this one's position. Otherwise closes them."""
        readers, self._readers = self._readers, None
        if readers is None or readers.closed:
            return None
        if self._stands_at is not None and self._stands_at == stands_at:
            return readers
        readers.close()
        return None

    def _discover(self) -> bool:
        """Asks for the first partitions; tried again, with pauses, as long as Spanner does not name them."""
        remaining = self._try_at - self._clock()
        if remaining > 0:
            self._sleep(min(remaining, _WAIT_SECONDS))
            return False
        start = self._partitions.start
        try:
            roots = self._query.roots(start)
        except grpc.RpcError as error:
            if refused := refusal(error, self._stream, start):
                raise refused from error
            self._tries += 1
            self._voice.failed(error, self._tries, start)
        else:
            if roots:
                self._partitions.begin(roots, shared=not self._query.mutable)
                self._say_share(len(roots))
                return True
            # Never taken for the end of the stream.
            self._tries += 1
            self._voice.warn(
                "no partitions", "Change stream %s names no partitions at %s. Asked again.", self._stream, start
            )
        self._try_at = self._clock() + pause(self._tries)
        return False

    def _say_share(self, of: int) -> None:
        reader, readers = self._partitions.share
        if readers > 1:
            held = len(self._partitions.partitions or {})
            _LOG.info(
                "Reader %d of %d of change stream %s begins at %s with %d of %d partitions.",
                reader + 1,
                readers,
                self._stream,
                self._partitions.start,
                held,
                of,
            )

    def _read(self) -> None:
        readers = self._readers
        if readers is not None:
            readable = self._partitions.readable()
            readers.read({token: self._partitions.ask_from(token) for token in readable if token not in readers})

    def _next_change(self) -> bool:
        readers = self._readers
        if self._bundle_since is None:
            self._bundle_since = self._clock()
            # A runner on one machine reads with the readers of a transform in turn, in one bundle.
            self._bundle_wait = _WAIT_SECONDS / (readers.in_turn if readers else 1)
        # Positions alone, which nobody waits for, do not end a bundle; the last one does.
        gathers = self._bundle_has_changes
        wait = self._reading.gather_millis / 1000 if gathers else self._bundle_wait
        ends = self._bundle_since + (0.0 if self._partitions.finished else wait)
        while readers and (delivered := readers.next(max(0.0, ends - self._clock()), gathers=gathers)) is not None:
            token, item = delivered
            match item:
                case DataChange():
                    if self._partitions.claim(token, item):
                        self._bundle_has_changes = True
                        self._current = item
                        weight = item.weight
                        self._bundle_bytes += weight
                        self._backlog.read += weight
                        return True
                case ReadThrough(timestamp):
                    self._partitions.advance(token, timestamp)
                case PartitionStart(children):
                    self._partitions.add(children)
                    self._read()
                case Ended(children):
                    self._partitions.end(token, children)
                    self._read()
                case Failed(error):
                    raise error
            if self._announce():
                return True
        return False

    def _announce(self) -> bool:
        """Emits the position when it has moved into another second, or for the last time.

        Before the next change is taken: also where there is always one, as after an outage.
        """
        position = self._watermark()
        if position[:_SECONDS] == self._announced[:_SECONDS] and not self._partitions.finished:
            return False
        if position == self._announced:
            return False
        if position == END and self._partitions.share.readers > 1:
            reader, readers = self._partitions.share
            _LOG.info(
                "Reader %d of %d of change stream %s has no partitions: others have them all. The next launch "
                "shares them again.",
                reader + 1,
                readers,
                self._stream,
            )
        self._announced = position
        self._current = ReadPosition(self._stream, position, *self._partitions.share)
        return True

    def _watermark(self) -> str:
        if self._partitions.finished and self._reading.end:
            return after(self._reading.end)
        return self._partitions.watermark()

    def _report_orphans(self) -> None:
        """Says which stream waits for a partition that Spanner has not named, and for how long."""
        now = self._clock()
        if now < self._orphans_at:
            return
        self._orphans_at = now + _ORPHAN_SECONDS / 6
        waiting = self._partitions.orphans()
        self._orphans = {token: self._orphans.get(token, now) for token in waiting}
        longest = max((now - since for since in self._orphans.values()), default=0.0)
        if longest >= _ORPHAN_SECONDS:
            self._voice.warn(
                "orphans",
                "%d partitions of change stream %s wait for a parent that Spanner has not named, for %d s. The "
                "position is stalled at %s meanwhile. If it lasts, start the job again: it resumes there with the "
                "partitions that Spanner names then.",
                len(waiting),
                self._stream,
                longest,
                self._partitions.watermark(),
                partitions=len(waiting),
                seconds=int(longest),
            )

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

    def backlog(self) -> int | None:
        """Bytes that were not read yet; None while nothing is known."""
        partitions = self._partitions.partitions
        if partitions is None:
            return None
        now = time.time_ns()
        if self._reading.end:
            now = min(now, to_nanos(self._reading.end))
        waiting = self._readers.waiting_bytes if self._readers else 0
        return self._backlog.size((p.position for p in [*partitions.values()]), now, waiting)

    def get_checkpoint_mark(self) -> PartitionSetMark:
        if self._readers is not None:
            self._readers.rest(has_put_out=self._bundle_has_changes)
        self._bundle_since, self._bundle_has_changes, self._bundle_bytes = None, False, 0
        with _CURRENT_LOCK:
            self._stands_at = self._partitions.to_bytes()
            return PartitionSetMark(self._stands_at)

    def close(self) -> None:
        with _CURRENT_LOCK:
            if _CURRENT.get(self._source) is self:
                del _CURRENT[self._source]
            readers, self._readers = self._readers, None
        if readers is not None:
            readers.close()
