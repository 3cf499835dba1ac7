"""`WriteChanges`: encoded rows → BigQuery, and the position to resume from, measured behind both outputs.

Rows of a shard gather in keyed state for `batch_millis`, then one append takes them all; rows that arrive during an
append wait and go with the next. The batch is not frozen before the append: a retried bundle may bring more rows, and
`Shard` is right for any rows at any time, because after a refused offset it asks the table and not the offset.
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
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from contract import metrics, tables, timestamps
from contract.changes import Coordinates, DeadLetter
from contract.logs import PAYMENT
from pipeline import logs
from pipeline.sink import rows
from pipeline.sink.config import SinkSettings
from pipeline.sink.fencing import wait_out
from pipeline.sink.shards import Outcome, Rejected, Shard, StreamPosition
from pipeline.source.records import ReadPosition
from pipeline.steps import DEAD, EncodedRows

_LOG = logging.getLogger(__name__)


# Gathered rows of more bytes than this go at once: what is kept in a runner's state, and what one append takes.
_MOST_PENDING_BYTES: Final = 8_000_000
# A timer waits as long as its key is busy. Behind a backlog the key always is, and the rows would wait for its end.
_MOST_LATE_SECONDS: Final = 0.5


class AppendRows(beam.DoFn):
    """Appends the gathered rows of a shard, exactly once. Rejected rows become dead letters."""

    STREAM = ReadModifyWriteStateSpec("stream", PickleCoder())
    PENDING = BagStateSpec("pending", PickleCoder())
    HELD = ReadModifyWriteStateSpec("held", PickleCoder())
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
        self._told: dict[str, dict[str, int]] = {}

    def process(
        self,
        element: tuple[str, EncodedRows],
        at: Any = beam.DoFn.TimestampParam,
        pending: Any = beam.DoFn.StateParam(PENDING),
        held: Any = beam.DoFn.StateParam(HELD),
        flush: Any = beam.DoFn.TimerParam(FLUSH),
        stream: Any = beam.DoFn.StateParam(STREAM),
    ) -> Iterator[Any]:
        key, encoded = element
        holding = _Held(*(held.read() or ()))
        gathered = holding.gathered + len(encoded.data)
        pending.add(encoded)
        is_late = holding.due and time.time() > holding.due + _MOST_LATE_SECONDS
        if is_late or gathered > _MOST_PENDING_BYTES:
            # The timer that may be set still finds nothing, or what came after.
            yield from self.flush(key, stream, pending, held)
            return
        # After a quiet time rows go at once; while they keep coming, an append takes all of `batch_millis`.
        due = holding.due or max(time.time(), holding.flushed + self._batch_seconds)
        earliest = at.micros if holding.earliest is None else min(at.micros, holding.earliest)
        if earliest != holding.earliest:
            # The timer holds the watermark at the timestamp of the element that set it: the earliest one must.
            flush.set(Timestamp.of(due))
        held.write(tuple(_Held(earliest, due, gathered, holding.flushed)))

    @on_timer(FLUSH)
    def flush(
        self,
        key: str = beam.DoFn.KeyParam,
        stream: Any = beam.DoFn.StateParam(STREAM),
        pending: Any = beam.DoFn.StateParam(PENDING),
        held: Any = beam.DoFn.StateParam(HELD),
    ) -> Iterator[Any]:
        encoded: list[EncodedRows] = list(pending.read())
        pending.clear()
        if not encoded:
            return
        held.write(tuple(_Held(flushed=time.time())))
        table, _, number = key.partition("|")
        shard = self._shards.get(key)
        if shard is None:
            shard = self._shards[key] = Shard(self._clients, table, number)
        state = stream.read()
        position = StreamPosition(*state) if state else None
        told = Outcome()
        for columns, batch in rows.groups((e.columns, e.data) for e in encoded):
            started = time.monotonic()
            position, outcome = shard.append(position, batch, columns)
            self._measure(batch, outcome, time.monotonic() - started)
            told.add(outcome)
            if _LOG.isEnabledFor(logging.DEBUG):
                logs.trace(_LOG, "In BigQuery now:", table, _traced(batch, outcome))
            for rejected in outcome.rejected:
                yield _at_commit(rejected)
        if position is None:
            stream.clear()
        else:
            stream.write(tuple(position))
        if told.told:
            self._told[key] = told.counts

    def finish_bundle(self) -> None:
        """What was out of the ordinary, in one line."""
        if self._told:
            told = "; ".join(f"{key} {_counted(counts)}" for key, counts in self._told.items())
            _LOG.info("Rows took more than one append: %s.", told, extra=logs.fields(shards=self._told))

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


class _Held(NamedTuple):
    """What is gathered: its earliest timestamp in microseconds, when it is due, and its bytes; and the last append."""

    earliest: int | None = None
    due: float = 0.0
    gathered: int = 0
    flushed: float = 0.0


def _at_commit(rejected: Rejected) -> Any:
    """The dead letter at its change's commit timestamp: no position passes that until the dead letter is durable."""
    letter = rejected_letter(rejected)
    at = Timestamp(micros=timestamps.to_micros(letter.coordinates.commit_timestamp))
    return beam.pvalue.TaggedOutput(DEAD, WindowedValue(letter, at, [GlobalWindow()]))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items())


def _traced(batch: Any, outcome: Outcome) -> list[dict[str, Any]]:
    """The rows that are in the table, by change and payment."""
    ids = batch[tables.CHANGE_ID].to_pylist()
    payments = batch[PAYMENT].to_pylist() if PAYMENT in batch.column_names else [None] * len(ids)
    lost = {rejected.row[tables.CHANGE_ID] for rejected in outcome.rejected}
    return [logs.traced(i, {PAYMENT: payment}) for i, payment in zip(ids, payments, strict=True) if i not in lost]


def rejected_letter(rejected: Rejected) -> DeadLetter:
    """The dead letter of a row that BigQuery refused: the row as it was sent, and where to read the change again."""
    row = {name: _json(value) for name, value in rejected.row.items() if name != rows.STREAM}
    # A transaction's id may be any text, with a / in it too.
    commit_timestamp, _, rest = row[tables.CHANGE_ID].partition("/")
    transaction, sequence, mod_index = rest.rsplit("/", 2)
    now = timestamps.now()
    return DeadLetter(
        coordinates=Coordinates(
            rejected.row[rows.STREAM],
            row[tables.TABLE_NAME],
            commit_timestamp,
            transaction,
            sequence,
            int(mod_index),
        ),
        step="AppendRows",
        reason=rejected.reason,
        message=rejected.message,
        attempts=0,
        first_failed_at=now,
        last_failed_at=now,
        change={"row": row},
    )


def _json(value: Any) -> Any:
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


class TrackPosition(beam.DoFn):
    """Writes the resume position: the read position of the slowest stream, once everything before it is out.

    Its input are the read positions. A timer at a read position fires when the watermark behind appends and dead
    letters has passed it. The next one is set only then: a timer that moves on with each new position would never fire.
    """

    LATEST = ReadModifyWriteStateSpec("latest", PickleCoder())
    AWAITED = ReadModifyWriteStateSpec("awaited", PickleCoder())
    PASSED = TimerSpec("passed", TimeDomain.WATERMARK)

    def __init__(self, settings: SinkSettings, streams: tuple[str, ...], publish_seconds: float = 10.0) -> None:
        self._settings = settings
        self._streams = streams
        self._publish_seconds = publish_seconds

    def setup(self) -> None:
        from pipeline.sink.positions import PositionLog

        self._settings = self._settings.joined()
        self._generations = self._settings.generations()
        self._log = PositionLog(self._settings)
        self._published = 0.0

    def process(
        self,
        element: tuple[bytes, ReadPosition],
        latest: Any = beam.DoFn.StateParam(LATEST),
        awaited: Any = beam.DoFn.StateParam(AWAITED),
        passed: Any = beam.DoFn.TimerParam(PASSED),
    ) -> None:
        read = element[1]
        positions: dict[str, str] = latest.read() or {}
        positions[read.stream] = max(read.position, positions.get(read.stream, ""))
        latest.write(positions)
        if awaited.read() is None and len(positions) == len(self._streams):
            self._await(min(positions.values()), awaited, passed)

    @on_timer(PASSED)
    def advance(
        self,
        latest: Any = beam.DoFn.StateParam(LATEST),
        awaited: Any = beam.DoFn.StateParam(AWAITED),
        passed: Any = beam.DoFn.TimerParam(PASSED),
    ) -> None:
        position: str = awaited.read()
        self._write(position)
        slowest = min(latest.read().values())
        if slowest > position:
            self._await(slowest, awaited, passed)
        else:
            awaited.clear()

    @staticmethod
    def _await(position: str, awaited: Any, passed: Any) -> None:
        awaited.write(position)
        # Runners cut timestamps to milliseconds: a change just before the position counts as of that millisecond.
        passed.set(Timestamp(micros=(timestamps.to_micros(position) // 1000 + 1) * 1000))

    def _write(self, position: str) -> None:
        generation = self._settings.generation
        wait_out("Writing the resume position", lambda: self._generations.advance(generation, position))
        if time.monotonic() - self._published >= self._publish_seconds:
            self._published = time.monotonic()
            self._log.publish(position)


class WriteChanges(beam.PTransform):
    """(encoded rows, dead letters of the steps before, read positions) → BigQuery, dead letters, resume position."""

    def __init__(
        self,
        settings: SinkSettings,
        *,
        batch_millis: int,
        streams: tuple[str, ...],
        dead_letters: beam.PTransform,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._batch_millis = batch_millis
        self._streams = streams
        self._dead_letters = dead_letters

    def expand(self, inputs: dict[str, Any]) -> Any:
        appended = inputs["rows"] | "AppendRows" >> beam.ParDo(
            AppendRows(self._settings, self._batch_millis)
        ).with_outputs(DEAD, main="appended")
        written = (inputs["dead_letters"], appended[DEAD]) | "AllDeadLetters" >> beam.Flatten() | self._dead_letters
        # Of these two only the watermark matters: no position passes before their elements are out.
        return (
            (inputs["positions"], appended["appended"], written)
            | "BehindTheSink" >> beam.Flatten()
            | "OneKey" >> beam.WithKeys(b"").with_output_types(tuple[bytes, Any])
            | "TrackPosition" >> beam.ParDo(TrackPosition(self._settings, self._streams))
        )
