"""Reads the live partitions of a change stream, each in its own thread, into one queue that is bounded in bytes.

Two ways, one outcome. `tail` keeps one query per partition open and lets Spanner push: right for Google Cloud.
`windows` asks repeatedly for [position, now]: right for the emulator, which scans its whole stream for every query and
again every 100 ms of an open one.

What a thread has read is not yet consumed: positions belong to the PartitionSet, which moves when the consumer takes an
item from the queue. A thread that fails starts its query again from the last record it delivered.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import grpc

from contract import timestamps
from contract.errors import AuditError
from contract.logs import ERROR_CLASS, ErrorClass
from pipeline.channels import StreamingCall
from pipeline.source.query import ChangeStreamQuery
from pipeline.source.records import Child, ChildPartitions, DataChange, Heartbeat, PartitionEnd, PartitionStart

_LOG = logging.getLogger(__name__)

# A record of any size is taken while the queue holds less: the last one may pass it.
_QUEUE_BYTES: Final = 64_000_000
_QUEUE_ITEMS: Final = 4000
_BACKOFF_SECONDS: Final = (0.1, 10.0)
# A partition that has waited for about a second is worth a line; a thousand of them are worth one line too.
_SAY_FROM_TRY: Final = 3
_SAY_EVERY_SECONDS: Final = 10.0
# A query answers at least once a heartbeat. So long without one, and nobody is answering it.
_SILENT_HEARTBEATS: Final = 30
_SILENT_SECONDS: Final = 30.0
# Between two bundles a runner asks at once, or when it has brought the last one through a busy stage.
_IDLE_SECONDS: Final = 15.0
_WATCH_SECONDS: Final = 1.0
# A reader that has rested for longer is read with in another process, or not at all.
_TURN_SECONDS: Final = 5.0

_REMEDIES: Final = {
    grpc.StatusCode.OUT_OF_RANGE: (
        "must keep the changes from {position} on, and does not: its retention period is over, or it was created "
        "later. Start the job under another job_name with a later startTimestamp; what lies between must come from the "
        "source tables"
    ),
    grpc.StatusCode.INVALID_ARGUMENT: (
        "must be one that can be queried from {position} on, and Spanner refuses the query. Check that it "
        "exists, and that spannerDatabaseRole may run its read function: a launch with --dryRun=true checks both"
    ),
    grpc.StatusCode.UNIMPLEMENTED: (
        "must be read from a service that knows change streams, and this one does not. Check spannerEndpoint"
    ),
}


class QueryRefused(AuditError):
    """A change stream query that can never be answered; the message has the remedy."""


def refusal(error: grpc.RpcError, stream: str, position: str) -> QueryRefused | None:
    """The error to give up with. None for what is asked again: services, permissions and databases come back.

    A pipeline that ends loses time, one that waits and says so does not.
    """
    code = error.code()
    if code not in _REMEDIES:
        return None
    if code is grpc.StatusCode.OUT_OF_RANGE and position >= timestamps.now():
        # Spanner's clock is behind ours: the time will come.
        return None
    remedy = _REMEDIES[code].format(position=position)
    return QueryRefused(f"change stream {stream} {remedy} ({code.name}).")


def pause(tries: int) -> float:
    """Seconds before another try: they grow, and differ between those that failed together."""
    first, most = _BACKOFF_SECONDS
    return float(min(most, first * 2 ** min(tries, 20)) * random.uniform(0.5, 1.0))  # noqa: S311


class ReadThrough(NamedTuple):
    """Everything of the partition up to and including `timestamp` is in the queue before this."""

    timestamp: str


class Ended(NamedTuple):
    """The partition has ended; `children` take over."""

    children: tuple[Child, ...]


class Failed(NamedTuple):
    """The partition cannot be read."""

    error: Exception


Item = DataChange | ReadThrough | PartitionStart | Ended | Failed


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How partitions are read. `end` is the last commit timestamp to read, or None.

    `gather_millis`: while changes keep coming, a bundle takes those of this time. What a pipeline costs behind its
    source is more by bundles than by changes. After a quiet time a change does not wait.
    """

    mode: Literal["tail", "windows"] = "tail"
    window_millis: int = 200
    gather_millis: int = 100
    end: str | None = None


class Voice:
    """Logs at intervals what happens all the time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}

    def warn(self, topic: str, message: str, *arguments: Any, **fields: Any) -> None:
        """Logs the line, unless one of this topic was logged a moment ago."""
        with self._lock:
            now = self._clock()
            if now - self._said.get(topic, float("-inf")) < _SAY_EVERY_SECONDS:
                return
            self._said[topic] = now
        _LOG.warning(message, *arguments, extra={"fields": {ERROR_CLASS: ErrorClass.SOURCE, **fields}})

    def failed(self, error: grpc.RpcError, tries: int, position: str) -> None:
        """A query that is asked again."""
        if tries >= _SAY_FROM_TRY:
            self.warn(
                error.code().name,
                "Change stream query: %s, try %d. Nothing is lost; reading continues from %s once Spanner answers.",
                error.code().name,
                tries,
                position,
                tries=tries,
            )


class Turns:
    """The readers of one transform in a process. A runner on one machine reads with one after the other, in one bundle.

    So what one of them has, or has put out, must not wait until another has waited for something to come.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.filled = threading.Condition(self.lock)
        self.readers: set[PartitionReaders] = set()

    def ends_wait(self, reader: PartitionReaders, gathers: bool) -> bool:
        """Whether another reader has what should not wait for this one. The caller holds the lock.

        A reader that gathers, with changes already, waits a moment longer: only changes of the same bundle end that.
        """
        others = (each for each in self.readers if each is not reader and each.has_just_rested)
        return any(each.has_put_out or (not gathers and each.has_news) for each in others)


class _Queue:
    """Items of all the partitions, bounded by what they weigh. Many producers, one consumer.

    The consumer takes all there is under the lock, and returns it item by item without: where changes wait, a lock for
    each of them is a tenth of the time. What it has taken counts until it is returned.
    """

    def __init__(
        self, most_bytes: int = _QUEUE_BYTES, most_items: int = _QUEUE_ITEMS, turns: Turns | None = None
    ) -> None:
        self._items: deque[tuple[str, Item, int]] = deque()
        self._taken: deque[tuple[str, Item, int]] = deque()
        # Of all so far: what was put by the producers, under the lock, and what was returned, by the consumer alone.
        self._bytes_put = self._bytes_returned = 0
        # Items that say more than how far a quiet partition is.
        self._news_put = self._news_returned = 0
        self._most_bytes = most_bytes
        self._most_items = most_items
        turns = turns or Turns()
        self._lock = turns.lock
        self._filled = turns.filled
        self._emptied = threading.Condition(self._lock)
        self._producers_waiting = 0
        self.closed = False

    def put(self, token: str, item: Item) -> bool:
        """Waits for room. False when the queue is closed."""
        weight = item.weight if isinstance(item, DataChange) else 0
        with self._lock:
            # Before it looks: the consumer makes room first, and looks for who waits then.
            self._producers_waiting += 1
            while not self.closed and self._fullness >= 1:
                self._emptied.wait()
            self._producers_waiting -= 1
            if self.closed:
                return False
            self._items.append((token, item, weight))
            self._bytes_put += weight
            self._news_put += not isinstance(item, ReadThrough)
            self._filled.notify_all()
            return True

    @property
    def waiting_bytes(self) -> int:
        return 0 if self.closed else self._bytes_put - self._bytes_returned

    @property
    def has_news(self) -> bool:
        """Whether there is more than how far quiet partitions are, which nobody waits for."""
        return not self.closed and self._news_put > self._news_returned

    @property
    def _fullness(self) -> float:
        """Of the bound that is nearer: 1 and above is full."""
        items = len(self._items) + len(self._taken)
        return max(items / self._most_items, (self._bytes_put - self._bytes_returned) / self._most_bytes)

    def get(self, wait: float, or_until: Callable[[], bool] = lambda: False) -> tuple[str, Item] | None:
        """The oldest item, or None when nothing comes within `wait` seconds or until something else is so."""
        if not self._taken:
            with self._lock:
                if wait > 0:
                    self._filled.wait_for(lambda: self._items or self.closed or or_until(), wait)
                self._taken, self._items = self._items, self._taken
        try:
            token, item, weight = self._taken.popleft()
        except IndexError:  # nothing has come, or another thread has just closed the queue
            return None
        self._bytes_returned += weight
        self._news_returned += not isinstance(item, ReadThrough)
        # Half of the room at once: nobody is woken for each item.
        if self._producers_waiting and self._fullness < 0.5:
            with self._lock:
                self._emptied.notify_all()
        return token, item

    def close(self) -> None:
        with self._lock:
            self.closed = True
            self._items.clear()
            self._taken.clear()
            self._filled.notify_all()
            self._emptied.notify_all()


class PartitionReaders:
    """The threads of one reader and the queue they fill with (partition token, item).

    Closes itself when nobody has asked for `idle_seconds`: a runner may have continued with another worker process.
    """

    def __init__(
        self,
        query: ChangeStreamQuery,
        reading: Reading,
        *,
        turns: Turns | None = None,
        idle_seconds: float = _IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._query = query
        self._reading = reading
        self._turns = turns or Turns()
        self._queue = _Queue(turns=self._turns)
        # Between two bundles: since when, and whether the one before has put out changes.
        self._rests_since: float | None = None
        self.has_put_out = False
        self._threads: dict[str, _PartitionThread] = {}
        self._stop = threading.Event()
        self._voice = Voice(clock)
        self._idle_seconds = idle_seconds
        self._silent_seconds = max(_SILENT_SECONDS, _SILENT_HEARTBEATS * query.heartbeat_seconds)
        self._clock = clock
        self._asked = clock()
        with self._turns.lock:
            self._turns.readers.add(self)
        threading.Thread(target=self._watch, name="change-stream-watch", daemon=True).start()

    @property
    def closed(self) -> bool:
        return self._stop.is_set()

    @property
    def waiting_bytes(self) -> int:
        """What was read from Spanner and not taken yet."""
        return self._queue.waiting_bytes

    def __contains__(self, token: str) -> bool:
        return token in self._threads

    def read(self, partitions: dict[str, str]) -> None:
        """Starts a thread for each partition (token → position) that has none yet."""
        for token, position in partitions.items():
            if token not in self._threads:
                thread = _PartitionThread(
                    self._query, self._reading, token, position, self._queue, self._stop, self._voice
                )
                self._threads[token] = thread
                thread.start()

    def next(self, wait: float = 0.0, *, gathers: bool = False) -> tuple[str, Item] | None:
        """The next item, or None when nothing comes within `wait` seconds, or another reader has something first.

        `gathers`: the bundle has changes already.
        """
        self._asked, self._rests_since = self._clock(), None
        delivered = self._queue.get(wait, lambda: self._turns.ends_wait(self, gathers))
        if delivered is not None and isinstance(delivered[1], Ended):
            self._threads.pop(delivered[0], None)
        return delivered

    def rest(self, *, has_put_out: bool) -> None:
        """A bundle is over; `has_put_out`: with changes in it."""
        self._rests_since, self.has_put_out = self._clock(), has_put_out

    @property
    def in_turn(self) -> int:
        """How many readers share a bundle with this one, itself included. Those that other threads read with do not
        rest."""
        with self._turns.lock:
            return 1 + sum(each.has_just_rested for each in self._turns.readers if each is not self)

    @property
    def has_just_rested(self) -> bool:
        """Whether it was in the bundle that is read for, or in the one before, and is not read with now."""
        since = self._rests_since
        return since is not None and self._clock() - since <= _TURN_SECONDS

    @property
    def has_news(self) -> bool:
        return self._queue.has_news

    def close(self) -> None:
        """Ends the queries. What was read and not taken is dropped: it is after the positions."""
        self._stop.set()
        self._queue.close()
        with self._turns.lock:
            self._turns.readers.discard(self)
        for thread in list(self._threads.values()):
            thread.cancel()

    def watch(self) -> None:
        """Closes what nobody asks for, and ends queries that nobody answers."""
        if self._clock() - self._asked > self._idle_seconds:
            _LOG.info("Nobody has asked for the changes of %s: its queries are closed until then.", self._query.stream)
            self.close()
            return
        for thread in list(self._threads.values()):
            thread.end_silent(self._silent_seconds)

    def _watch(self) -> None:
        while not self._stop.wait(_WATCH_SECONDS):
            try:
                self.watch()
            except Exception:
                _LOG.exception("The watch over the queries of %s had an error and continues.", self._query.stream)


class _PartitionThread(threading.Thread):
    def __init__(
        self,
        query: ChangeStreamQuery,
        reading: Reading,
        token: str,
        position: str,
        items: _Queue,
        stop: threading.Event,
        voice: Voice,
    ) -> None:
        super().__init__(name="change-stream-partition", daemon=True)
        self._query = query
        self._reading = reading
        self._token = token
        self._cursor = position
        self._items = items
        self._stopped = stop
        self._voice = voice
        self._call: StreamingCall | None = None
        self._unanswered: StreamingCall | None = None
        self._tries = 0

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def end_silent(self, most_seconds: float) -> None:
        """Ends the query if nothing has come for so long, not even a heartbeat; it is asked again elsewhere."""
        call = self._call
        if call is None or call is self._unanswered or (silent := call.silent_seconds()) < most_seconds:
            return
        self._unanswered = call
        self._voice.warn(
            "silent",
            "A query of change stream %s has had no answer for %d s, not even a heartbeat. It is asked again from %s.",
            self._query.stream,
            silent,
            self._cursor,
        )
        self._query.unserved(call)

    def run(self) -> None:
        try:
            while not self._stopped.is_set() and self._pass_on():
                pass
        except Exception as error:
            self._items.put(self._token, Failed(error))

    def _pass_on(self) -> bool:
        """Delivers what one query returns. False when there is nothing more to ask."""
        try:
            for item in self._window() if self._reading.mode == "windows" else self._tail():
                self._tries = 0
                if not self._items.put(self._token, item) or isinstance(item, Ended):
                    return False
        except grpc.RpcError as error:
            if self._stopped.is_set():
                return False
            if refused := refusal(error, self._query.stream, self._cursor):
                raise refused from error
            self._tries += 1
            self._voice.failed(error, self._tries, self._cursor)
            self._stopped.wait(pause(self._tries))
        return True

    def _tail(self) -> Iterator[Item]:
        """One query without an end. It ends by itself with the partition, whose last records say so."""
        end = self._end()
        ended, children = False, list[Child]()
        if end is None or self._cursor <= end:
            for record in self._records(end):
                if isinstance(record, PartitionStart):
                    yield record
                elif isinstance(record, PartitionEnd):
                    ended = True
                elif isinstance(record, ChildPartitions):
                    children += record.children
                elif isinstance(record, Heartbeat):
                    # Not past it: children may begin at this very time.
                    self._cursor = max(self._cursor, record.timestamp)
                    yield ReadThrough(record.timestamp)
                else:
                    yield from self._change(record)
        if ended or children or (end is not None and end <= timestamps.now()):
            yield Ended(tuple(children))
            return
        # The query was cut short: the partition lives on, and is asked again from the cursor.
        self._tries += 1
        if self._tries >= _SAY_FROM_TRY:
            self._voice.warn(
                "cut short",
                "A query of change stream %s has ended %d times in a row without a record and without children. It is "
                "asked again from %s.",
                self._query.stream,
                self._tries,
                self._cursor,
            )
        self._stopped.wait(pause(self._tries))

    def _window(self) -> Iterator[Item]:
        """One bounded query up to now, then a rest of at least its own length: the emulator has other work as well."""
        started = time.monotonic()
        end = timestamps.now()
        last = self._reading.end is not None and end > self._reading.end
        if last:
            end = self._end() or end
        ended, children = last, list[Child]()
        if end >= self._cursor:
            for record in self._records(end):
                if isinstance(record, ChildPartitions):
                    children += record.children
                elif isinstance(record, PartitionStart):
                    yield record
                elif isinstance(record, PartitionEnd):
                    ended = True
                elif isinstance(record, DataChange):
                    yield from self._change(record)
        if ended or children:
            yield Ended(tuple(children))
            return
        if end > self._cursor:
            # The next window begins an instant before this one's end: a change or children that bear that very time may
            # come only then, and not to a query that begins there.
            self._cursor = max(self._cursor, timestamps.before(end))
            yield ReadThrough(timestamps.before(end))
        took = time.monotonic() - started
        self._stopped.wait(max(self._reading.window_millis / 1000 - took, took))

    def _records(self, end: str | None) -> Iterator[Any]:
        return self._query.run(self._cursor, token=self._token, end=end, on_call=self._remember, avoid=self._unanswered)

    def _remember(self, call: StreamingCall) -> None:
        self._call, self._unanswered = call, None
        if self._stopped.is_set():
            call.cancel()

    def _change(self, change: DataChange) -> Iterator[Item]:
        if self._reading.end is None or change.commit_timestamp <= self._reading.end:
            self._cursor = change.commit_timestamp
            yield change

    def _end(self) -> str | None:
        # A query may leave out the record of children that start at its very end: ask a little further, and cut.
        end = self._reading.end
        return timestamps.from_nanos(timestamps.to_nanos(end) + 1_000_000) if end else None
