"""Reads the live partitions of a change stream, each in a thread of its own, into one bounded queue.

Two ways, one outcome. `tail` keeps one query a partition open and lets Spanner push: right for Google Cloud. `windows`
asks again and again for [position, now]: right for the emulator, which scans its whole stream for every query and again
every 100 ms of an open one.

What a thread has read is not yet consumed: positions belong to the PartitionSet, which moves when the consumer takes an
item from the queue. A thread that fails starts its query again from the last record it delivered.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import grpc

from contract import timestamps
from contract.logs import ERROR_CLASS, Trouble
from pipeline.source.query import ChangeStreamQuery
from pipeline.source.records import Child, ChildPartitions, DataChange, Heartbeat

_LOG = logging.getLogger(__name__)

_QUEUE_ITEMS = 4000
_BACKOFF_SECONDS = (0.1, 10.0)
# Spanner's answer can be late in a busy minute; these mean "ask again", whatever the reason.
_TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAUTHENTICATED,
}
# Permissions and databases come back; a pipeline that ends loses time, one that waits and says so does not.
_WAIT_AND_SAY = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND}


class ReadThrough(NamedTuple):
    """Everything of the partition up to and including `timestamp` is in the queue before this."""

    timestamp: str


class Ended(NamedTuple):
    """The partition has ended; `children` take over."""

    children: tuple[Child, ...]


class Failed(NamedTuple):
    """The partition cannot be read."""

    error: Exception


Item = DataChange | ReadThrough | Ended | Failed


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How partitions are read. `end` is the last commit timestamp to read, or None."""

    mode: Literal["tail", "windows"] = "tail"
    window_millis: int = 200
    end: str | None = None


class PartitionReaders:
    """The threads of one reader and the queue they fill with (partition token, item)."""

    def __init__(self, query: ChangeStreamQuery, reading: Reading) -> None:
        self._query = query
        self._reading = reading
        self._queue: queue.Queue[tuple[str, Item]] = queue.Queue(_QUEUE_ITEMS)
        self._threads: dict[str, _PartitionThread] = {}
        self._stop = threading.Event()

    def read(self, partitions: dict[str, str]) -> None:
        """Starts a thread for each partition (token → position) that has none yet."""
        for token, position in partitions.items():
            if token not in self._threads:
                thread = _PartitionThread(self._query, self._reading, token, position, self._queue, self._stop)
                self._threads[token] = thread
                thread.start()

    def next(self, wait: float = 0.0) -> tuple[str, Item] | None:
        """The next item, or None when nothing comes within `wait` seconds."""
        try:
            token, item = self._queue.get(block=wait > 0, timeout=wait)
        except queue.Empty:
            return None
        if isinstance(item, Ended):
            self._threads.pop(token, None)
        return token, item

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads.values():
            thread.cancel()


class _PartitionThread(threading.Thread):
    def __init__(
        self,
        query: ChangeStreamQuery,
        reading: Reading,
        token: str,
        position: str,
        items: queue.Queue[tuple[str, Item]],
        stop: threading.Event,
    ) -> None:
        super().__init__(name="change-stream-partition", daemon=True)
        self._query = query
        self._reading = reading
        self._token = token
        self._cursor = position
        self._items = items
        self._stopped = stop
        self._call: Any = None

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                for item in self._pass():
                    failures = 0
                    if not self._put(item) or isinstance(item, Ended):
                        return
            except grpc.RpcError as error:
                failures += 1
                if not self._stopped.is_set() and not self._wait_out(error, failures):
                    self._put(Failed(error))
                    return
            except Exception as error:
                self._put(Failed(error))
                return

    def _pass(self) -> Iterator[Item]:
        return self._window() if self._reading.mode == "windows" else self._tail()

    def _tail(self) -> Iterator[Item]:
        """One query without an end. It ends by itself with the partition, whose last record names the children."""
        children: list[Child] = []
        for record in self._records(self._end()):
            if isinstance(record, ChildPartitions):
                children += record.children
            elif isinstance(record, Heartbeat):
                self._cursor = timestamps.after(record.timestamp)
                yield ReadThrough(record.timestamp)
            else:
                yield from self._change(record)
        if children or self._reading.end:
            yield Ended(tuple(children))
        # Without children the query was cut short: the partition lives on, and is asked again from the cursor.

    def _window(self) -> Iterator[Item]:
        """One bounded query up to now, then a rest of at least its own length: the emulator has other work as well."""
        started = time.monotonic()
        end = timestamps.now()
        last = self._reading.end is not None and end > self._reading.end
        if last:
            end = self._end() or end
        children: list[Child] = []
        if end > self._cursor:
            for record in self._records(end):
                if isinstance(record, ChildPartitions):
                    children += record.children
                elif isinstance(record, DataChange):
                    yield from self._change(record)
            if children or last:
                yield Ended(tuple(children))
                return
            self._cursor = timestamps.after(end)
            yield ReadThrough(end)
        took = time.monotonic() - started
        self._stopped.wait(max(self._reading.window_millis / 1000 - took, took))

    def _records(self, end: str | None) -> Iterator[Any]:
        return self._query.run(self._cursor, token=self._token, end=end, on_call=self._remember)

    def _remember(self, call: Any) -> None:
        self._call = call

    def _change(self, change: DataChange) -> Iterator[Item]:
        if self._reading.end is None or change.commit_timestamp <= self._reading.end:
            self._cursor = change.commit_timestamp
            yield change

    def _end(self) -> str | None:
        # A query may leave out the record of children that start at its very end: ask a little further, and cut.
        end = self._reading.end
        return timestamps.from_nanos(timestamps.to_nanos(end) + 1_000_000) if end else None

    def _put(self, item: Item) -> bool:
        while not self._stopped.is_set():
            try:
                self._items.put((self._token, item), timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def _wait_out(self, error: grpc.RpcError, failures: int) -> bool:
        """Waits before another try. False when trying again cannot help."""
        code = error.code()
        if code not in _TRANSIENT and code not in _WAIT_AND_SAY:
            return False
        first, most = _BACKOFF_SECONDS
        if code in _WAIT_AND_SAY or failures in (3, 30):
            _LOG.warning(
                "Change stream query: %s, try %d. Nothing is lost; reading goes on from %s once Spanner answers.",
                code.name,
                failures,
                self._cursor,
                extra={"fields": {ERROR_CLASS: Trouble.SOURCE, "tries": failures}},
            )
        if code is grpc.StatusCode.NOT_FOUND:
            self._query.forget_session()
        self._stopped.wait(min(most, first * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311
        return True
