"""`AppendRows`: encoded rows → BigQuery, exactly once.

After a quiet time rows of a shard go at once. What comes less than `batch_millis` behind the end of an append gathers
in keyed state, and so does what came during it; then one append takes all of it, with the next that comes or when a
timer fires. The batch is not frozen before the append: a retried bundle may bring more rows, and `Shard` is right for
any rows at any time, because after a refused offset it asks the table and not the offset.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from contract import metrics, tables
from contract.changes import DeadLetter
from contract.watched import WatchedTable
from pipeline import logs
from pipeline.failures import Step, failed_at_commit, refused_row
from pipeline.sink import rows
from pipeline.sink.config import SinkSettings
from pipeline.sink.encode import EncodedRows
from pipeline.sink.shards import Outcome, Rejected, Shard, StreamPosition

_LOG = logging.getLogger(__name__)


# Gathered rows of more bytes than this go at once: what is kept in a runner's state, and what one append takes.
_MOST_PENDING_BYTES: Final = 8_000_000


class AppendRows(Step):
    """Appends the gathered rows of a shard, exactly once. Rejected rows become dead letters."""

    # Each cell that is read or written is a call to the runner: what is small is in one.
    SHARD = ReadModifyWriteStateSpec("shard", PickleCoder())
    PENDING = BagStateSpec("pending", PickleCoder())
    FLUSH = TimerSpec("flush", TimeDomain.REAL_TIME)

    def __init__(self, settings: SinkSettings, batch_millis: int) -> None:
        self._settings = settings
        self._batch_seconds = batch_millis / 1000
        self._appended = Metrics.counter(metrics.NAMESPACE, metrics.ROWS_APPENDED)
        self._already_there = Metrics.counter(metrics.NAMESPACE, metrics.ROWS_ALREADY_THERE)
        self._millis = Metrics.distribution(metrics.NAMESPACE, metrics.APPEND_MILLIS)
        self._rows = Metrics.distribution(metrics.NAMESPACE, metrics.BATCH_ROWS)
        self._age = Metrics.distribution(metrics.NAMESPACE, metrics.COMMIT_TO_APPENDED_MILLIS)

    def setup(self) -> None:
        self._clients = self._settings.connect()
        self._shards: dict[str, Shard] = {}

    def start_bundle(self) -> None:
        self._notable: dict[str, dict[str, int]] = {}

    def process(
        self,
        element: tuple[str, EncodedRows],
        at: Any = beam.DoFn.TimestampParam,
        shard: Any = beam.DoFn.StateParam(SHARD),
        pending: Any = beam.DoFn.StateParam(PENDING),
        flush: Any = beam.DoFn.TimerParam(FLUSH),
    ) -> Iterator[Any]:
        key, encoded = element
        kept = _Kept(*(shard.read() or ()))
        gathered = kept.gathered + len(encoded.data)
        due = kept.due or kept.flushed + self._batch_seconds
        if due <= time.time() or gathered > _MOST_PENDING_BYTES:
            # Without a timer: it waits as long as its key is busy, and Prism spins while one that is due waits. One
            # that is set still finds nothing, or what came after.
            yield from self._append(key, kept, encoded, shard, pending)
            return
        pending.add(encoded)
        earliest = at.micros if kept.earliest is None else min(at.micros, kept.earliest)
        if earliest != kept.earliest:
            # The timer holds the watermark at the timestamp of the element that set it: the earliest one must.
            flush.set(Timestamp.of(due))
        shard.write(tuple(kept._replace(earliest=earliest, due=due, gathered=gathered)))

    @on_timer(FLUSH)
    def flush(
        self,
        key: str = beam.DoFn.KeyParam,
        shard: Any = beam.DoFn.StateParam(SHARD),
        pending: Any = beam.DoFn.StateParam(PENDING),
    ) -> Iterator[Any]:
        kept = _Kept(*(shard.read() or ()))
        if kept.due:
            yield from self._append(key, kept, None, shard, pending)

    def _append(self, key: str, kept: _Kept, last: EncodedRows | None, state: Any, pending: Any) -> Iterator[Any]:
        """Appends what is pending, if anything is, and the last rows, which are not."""
        encoded: list[EncodedRows] = list(pending.read()) if kept.due else []
        if kept.due:
            pending.clear()
        if last is not None:
            encoded.append(last)
        table, _, number = key.partition("|")
        watched = self._clients.destinations.watched.of(table)
        shard = self._shards.get(key)
        if shard is None:
            shard = self._shards[key] = Shard(self._clients, table, number)
        position = StreamPosition(*kept.stream) if kept.stream else None
        total = Outcome()
        for columns, batch in rows.groups((e.columns, e.data) for e in encoded):
            started = time.monotonic()
            position, outcome = shard.append(position, batch, columns)
            self._measure(batch, outcome, time.monotonic() - started)
            total.add(outcome)
            if _LOG.isEnabledFor(logging.DEBUG):
                logs.trace(_LOG, "In BigQuery now:", table, _traced(batch, outcome, watched))
            for rejected in outcome.rejected:
                yield failed_at_commit(rejected_letter(rejected, watched))
        state.write(tuple(_Kept(stream=tuple(position) if position else None, flushed=time.time())))
        if total.notable:
            self._notable[key] = total.counts

    def finish_bundle(self) -> None:
        """What was out of the ordinary, in one line."""
        if self._notable:
            notable = "; ".join(f"{key} {_counted(counts)}" for key, counts in self._notable.items())
            _LOG.info("Rows took more than one append: %s.", notable, extra=logs.fields(shards=self._notable))

    def teardown(self) -> None:
        for shard in self._shards.values():
            shard.close()

    def _measure(self, batch: Any, outcome: Outcome, seconds: float) -> None:
        self._appended.inc(outcome.appended)
        self._already_there.inc(outcome.already_there)
        self._millis.update(int(seconds * 1000))
        self._rows.update(batch.num_rows)
        newest = batch[tables.COMMIT_TIMESTAMP_NANOS][batch.num_rows - 1].as_py()
        self._age.update(max(0, time.time_ns() - newest) // 1_000_000)


class _Kept(NamedTuple):
    """What is kept of a shard: its StreamPosition, the time at which its last append ended, and what is pending.

    Of the latter the earliest timestamp in microseconds, when it is due (0: nothing is pending), and its bytes.
    """

    stream: tuple[Any, ...] | None = None
    flushed: float = 0.0
    earliest: int | None = None
    due: float = 0.0
    gathered: int = 0


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items())


def _traced(batch: Any, outcome: Outcome, table: WatchedTable) -> list[dict[str, Any]]:
    """The rows that are in the table, by change and payment."""
    ids = batch[tables.CHANGE_ID].to_pylist()
    column = tables.named(table, "payment")
    payments = batch[column].to_pylist() if column in batch.column_names else [None] * len(ids)
    lost = {rejected.row[tables.CHANGE_ID] for rejected in outcome.rejected}
    return [logs.traced(i, payment) for i, payment in zip(ids, payments, strict=True) if i not in lost]


def rejected_letter(rejected: Rejected, table: WatchedTable) -> DeadLetter:
    """The dead letter of a row that BigQuery refused."""
    row = {name: value for name, value in rejected.row.items() if name != rows.STREAM}
    return refused_row(row, rejected.row[rows.STREAM], rejected.reason, rejected.message, table)
