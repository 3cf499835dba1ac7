"""The steps of the job as Beam DoFns. Each carries a pure function; what cannot be done becomes a dead letter.

    records → Decode → Mask → Enrich → Filter → EncodeRows ⇒ (keyed by table and shard) AppendRows ⇒ TrackPosition
                └───────┴────────┴─────────────────┴─────────────────┴─────────► WriteDeadLetters ─┘

Everything up to `EncodeRows` runs in one stage with the source, a chain for each change stream: nothing that a runner
writes to disk comes before Mask.
"""

from __future__ import annotations

import logging
import traceback
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
import orjson
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from contract import metrics, timestamps
from contract.changes import Change, Column, Coordinates, DeadLetter, Reason, StepError
from contract.logs import PAYMENT
from pipeline import logs
from pipeline.sink import rows
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.source.records import DataChange, ReadPosition
from pipeline.transforms import decode
from pipeline.transforms.enrich import enrich
from pipeline.transforms.filter import Ignored, keep
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker, NewColumns

_LOG = logging.getLogger(__name__)

DEAD = "dead_letters"
POSITIONS = "positions"


def dead_letter(at: Coordinates, step: str, error: Exception, change: Change | None = None) -> DeadLetter:
    """The one place that turns a failure into a dead letter. `change` must be masked."""
    if isinstance(error, StepError):
        reason, message = error.reason, error.message
    else:
        # Not the exception's own text: it may quote a value.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = Reason.UNEXPECTED
        message = f"{type(error).__name__} in {step}, line {frame.lineno} of {frame.name}. Report it; then retry."
    now = timestamps.now()
    return DeadLetter(
        coordinates=at,
        step=step,
        reason=reason,
        message=message,
        attempts=0,
        first_failed_at=now,
        last_failed_at=now,
        change=change.to_dict() if change else None,
    )


class Decode(beam.DoFn):
    """Data change records → changes. Positions go to a separate output."""

    def __init__(self) -> None:
        self._read = Metrics.counter(metrics.NAMESPACE, metrics.CHANGES_READ)
        self._age = Metrics.distribution(metrics.NAMESPACE, metrics.COMMIT_TO_READ_MILLIS)

    def process(self, record: DataChange | ReadPosition) -> Iterator[Any]:
        if isinstance(record, ReadPosition):
            yield beam.pvalue.TaggedOutput(POSITIONS, record)
            return
        self._read.inc(len(record.mods))
        self._age.update(_millis_since(record.commit_timestamp))
        for index in range(len(record.mods)):
            try:
                yield decode.decode(record, index)
            except Exception as error:
                yield _dead(decode.coordinates(record, index), "Decode", error)


class Mask(beam.DoFn):
    """Masks changes. A failure keeps only where the change can be read again."""

    def __init__(self, keys: str, new_columns: NewColumns) -> None:
        self._keys = keys
        self._new_columns = new_columns
        self._unclassified = Metrics.counter(metrics.NAMESPACE, metrics.UNCLASSIFIED_VALUES)

    def setup(self) -> None:
        self._masker = Masker(MaskingKeys.load(self._keys), new_columns=self._new_columns)

    def process(self, change: Change) -> Iterator[Any]:
        try:
            unclassified = self._masker.mask(change)
        except Exception as error:
            yield _dead(change.coordinates, "Mask", error)
            return
        if unclassified:
            self._unclassified.inc(len(unclassified))
        yield change


class Enrich(beam.DoFn):
    """Adds customer, acting user, payment state and transition."""

    def __init__(self, payment_states: dict[str, str]) -> None:
        self._states = payment_states
        self._unknown = Metrics.counter(metrics.NAMESPACE, metrics.UNKNOWN_STATUS)

    def process(self, change: Change) -> Iterator[Any]:
        try:
            enrich(change, self._states)
        except Exception as error:
            yield _dead(change.coordinates, "Enrich", error, change)
            return
        status = change.new.get("Status")
        if status is not None and status not in self._states:
            self._unknown.inc()
        yield change


class Filter(beam.DoFn):
    """Leaves out what the options say is irrelevant."""

    def __init__(self, ignored: Ignored) -> None:
        self._ignored = ignored
        self._filtered = Metrics.counter(metrics.NAMESPACE, metrics.CHANGES_FILTERED)

    def process(self, change: Change) -> Iterator[Change]:
        if keep(change, self._ignored):
            yield change
        else:
            self._filtered.inc()


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one table as an Arrow stream, and the source columns they were made from."""

    table: str
    columns: tuple[Column, ...]
    data: bytes


# What one batch weighs at most, in bytes of JSON: it is one element in the runner's shuffle. A row that weighs more is
# a separate batch.
_MOST_BATCH_BYTES: Final = 4_000_000


class EncodeRows(beam.DoFn):
    """Changes → encoded rows, one batch per shard and bundle, keyed by `table|shard`; more where rows are many or
    large.

    What crosses the shuffle is a few large elements, and it is masked.
    """

    def __init__(self, shards: int, most_rows: int, most_bytes: int = _MOST_BATCH_BYTES) -> None:
        self._shards = shards
        self._most_rows = most_rows
        self._most_bytes = most_bytes

    def start_bundle(self) -> None:
        self._pending: dict[tuple[str, tuple[Column, ...]], list[Change]] = defaultdict(list)
        self._bytes: dict[tuple[str, tuple[Column, ...]], int] = defaultdict(int)

    def process(self, change: Change) -> Iterator[Any]:
        group = self._key(change), change.columns
        size = _bytes_of(change)
        if self._bytes[group] and self._bytes[group] + size > self._most_bytes:
            yield from self._emit(group)
        pending = self._pending[group]
        pending.append(change)
        self._bytes[group] += size
        if len(pending) >= self._most_rows or self._bytes[group] >= self._most_bytes:
            yield from self._emit(group)

    def finish_bundle(self) -> Iterator[Any]:
        for group in list(self._pending):
            yield from self._emit(group)

    def _emit(self, group: tuple[str, tuple[Column, ...]]) -> Iterator[Any]:
        self._bytes.pop(group, None)
        yield from self._encode(group[0], self._pending.pop(group))

    def _key(self, change: Change) -> str:
        if self._shards == 1:
            return f"{change.table}|0"
        key = orjson.dumps(change.keys, option=orjson.OPT_SORT_KEYS)
        return f"{change.table}|{zlib.crc32(key) % self._shards}"

    def _encode(self, key: str, changes: list[Change]) -> Iterator[Any]:
        batch, failed = rows.encode(changes)
        for change, error in failed:
            letter = dead_letter(change.coordinates, "EncodeRows", error, change)
            yield beam.pvalue.TaggedOutput(DEAD, _at(letter, change.commit_timestamp))
        if _LOG.isEnabledFor(logging.DEBUG):
            logs.trace(_LOG, "Encoded", changes[0].table, [logs.traced(c.change_id, c.keys) for c in changes])
        if batch is not None:
            # The earliest of its changes holds the watermark back until the whole batch is appended.
            earliest = min(c.commit_timestamp for c in changes)
            yield _at((key, EncodedRows(changes[0].table, changes[0].columns, rows.to_bytes(batch))), earliest)


class WriteDeadLetters(beam.DoFn):
    """Makes dead letters durable before the bundle ends, so that the position behind them can be trusted."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def setup(self) -> None:
        self._queue = DeadLetterQueue(self._directory)

    def start_bundle(self) -> None:
        self._letters: list[DeadLetter] = []

    def process(self, letter: DeadLetter) -> None:
        self._letters.append(letter)

    def finish_bundle(self) -> None:
        if not self._letters:
            return
        self._queue.put(self._letters)
        reasons = Counter(letter.reason for letter in self._letters)
        for reason, count in reasons.items():
            Metrics.counter(metrics.NAMESPACE, f"{metrics.DEAD_LETTERS}_{reason}").inc(count)
        first = self._letters[0]
        _LOG.warning(
            "%d dead letters written to %s, the first of step %s: %s",
            len(self._letters),
            self._directory,
            first.step,
            first.message,
            extra=logs.fields(**trouble_of(self._letters), reasons=reasons),
        )


def trouble_of(letters: list[DeadLetter]) -> dict[str, Any]:
    """What a line about dead letters has: the class that most of them are of, and their changes."""
    most = Counter(letter.reason for letter in letters).most_common(1)[0][0]
    return {"error_class": most, "changes": [_traced(letter) for letter in letters[: logs.MOST_CHANGES]]}


def _traced(letter: DeadLetter) -> dict[str, Any]:
    """The change of a dead letter in a line. One that could not be masked has no payment to name."""
    keys = {PAYMENT: letter.payment}
    return logs.traced(letter.coordinates.change_id, keys, step=letter.step, error_class=letter.reason)


def _dead(at: Coordinates, step: str, error: Exception, change: Change | None = None) -> Any:
    return beam.pvalue.TaggedOutput(DEAD, dead_letter(at, step, error, change))


def _at(value: Any, timestamp: str) -> WindowedValue:
    return WindowedValue(value, Timestamp(micros=timestamps.to_micros(timestamp)), [GlobalWindow()])


def _bytes_of(change: Change) -> int:
    """About the bytes of the change's row."""
    try:
        return len(orjson.dumps((change.new, change.old)))
    except TypeError:  # a value that no JSON has: encoding says which
        return len(repr((change.new, change.old)))


def _millis_since(timestamp: str) -> int:
    return max(0, timestamps.to_micros(timestamps.now()) - timestamps.to_micros(timestamp)) // 1000
