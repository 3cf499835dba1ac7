"""`ToRows`: the records of a change stream → encoded rows, in one DoFn that calls the pure functions in turn.

    records → decode → mask → redact → enrich → filter → encode ⇒ (keyed by table and shard) AppendRows ⇒ TrackPosition
                └───────┴────────┴────────┴─────────────────┴─────────────────► WriteDeadLetters ─┘

What cannot be done becomes a dead letter that names the step. It is one DoFn, because a hop over Beam costs a change as
much as enriching does, and a runner looks at each transform of a stage, also while nothing comes. It runs in one stage
with the source of all change streams: nothing that a runner writes to disk comes before masking.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import apache_beam as beam
from apache_beam.metrics import Metrics

from contract import metrics, timestamps
from contract.changes import Change
from pipeline.failures import MAIN, Step, failed
from pipeline.sink.encode import EncodedRows, EncodeRows
from pipeline.source.completion import Completer, SpannerRows, lacks_values
from pipeline.source.query import ChangeStream
from pipeline.source.records import DataChange, ReadPosition
from pipeline.transforms import decode
from pipeline.transforms.enrich import enrich
from pipeline.transforms.filter import IgnoredRecords, keep
from pipeline.transforms.settings import TransformSettings

POSITIONS: Final = "positions"
CLOCK: Final = "clock"
# How often the clock ticks, for what is done now and then.
_TICK_SECONDS: Final = 5.0


class ToRows(Step):
    """Data change records → encoded rows, without what is ignored. Read positions go to a separate output.

    A third output is a clock, which ticks every few seconds as long as the stream is read.

    A change is masked before anything keeps it: the dead letter of one that cannot be masked, or not even decoded, has
    nothing but where it can be read again. Changes that leave columns out are completed by reads of their rows at the
    end of a bundle; `stream`, of their database, says how. The changes of customers who were erased are redacted.
    """

    OUTPUTS: ClassVar = (POSITIONS, CLOCK)
    # Keyed here: each further transform would be one more stage of a runner. Behind both there is one key.
    TYPES: ClassVar = {MAIN: tuple[str, EncodedRows], POSITIONS: tuple[bytes, Any], CLOCK: tuple[bytes, Any]}

    def __init__(
        self,
        settings: TransformSettings,
        encode: EncodeRows,
        stream: ChangeStream | None = None,
        ignored: IgnoredRecords | None = None,
    ) -> None:
        self._settings = settings
        self._encode = encode
        self._stream = stream
        self._ignored_records = ignored or None
        self._watched = settings.watched
        self._states = settings.payment_states
        self._ignored = settings.ignored
        self._filtered = Metrics.counter(metrics.NAMESPACE, metrics.CHANGES_FILTERED)
        self._read = Metrics.counter(metrics.NAMESPACE, metrics.CHANGES_READ)
        self._age = Metrics.distribution(metrics.NAMESPACE, metrics.COMMIT_TO_READ_MILLIS)
        self._unclassified = Metrics.counter(metrics.NAMESPACE, metrics.UNCLASSIFIED_VALUES)
        self._unknown = Metrics.counter(metrics.NAMESPACE, metrics.UNKNOWN_STATUS)

    def setup(self) -> None:
        self._completer = Completer(SpannerRows(self._stream)) if self._stream else None
        self._masker = self._settings.masker()
        self._erased = self._settings.erased_now()
        self._tick_at = 0.0

    def start_bundle(self) -> None:
        self._partial: list[Change] = []
        self._encode.begin()

    def process(self, record: DataChange | ReadPosition) -> Iterator[Any]:
        if isinstance(record, ReadPosition):
            yield beam.pvalue.TaggedOutput(POSITIONS, (b"", record))
            if (now := time.monotonic()) >= self._tick_at:
                self._tick_at = now + _TICK_SECONDS
                yield beam.pvalue.TaggedOutput(CLOCK, (b"", None))
            return
        self._read.inc(len(record.mods))
        self._age.update(_millis_since(record.commit_timestamp))
        if self._ignored_records is not None and record in self._ignored_records:
            self._filtered.inc(len(record.mods))
            return
        for index in range(len(record.mods)):
            try:
                change = decode.decode(record, index)
            except Exception as error:
                yield failed(decode.coordinates(record, index), "Decode", error)
                continue
            if lacks_values(change):
                self._partial.append(change)
            else:
                yield from self._rows(change)

    def finish_bundle(self) -> Iterator[Any]:
        if self._partial:
            if self._completer is None:
                raise RuntimeError("ToRows must have a change stream to complete changes with. Report it as a bug.")
            for change, error in self._completer.complete(self._partial):
                if error:
                    yield failed(change.coordinates, "Decode", error)
                else:
                    yield from self._rows(change)
        yield from self._encode.end()

    def _rows(self, change: Change) -> Iterator[Any]:
        try:
            unclassified = self._masker.mask(change)
        except Exception as error:
            yield failed(change.coordinates, "Mask", error)
            return
        if unclassified:
            self._unclassified.inc(len(unclassified))
        table = self._watched.of(change.table)
        # Before anything keeps it. Where it is not known who was erased, the bundle fails and is tried again.
        if not self._erased.current().redact(change, table):
            self._filtered.inc()
            return
        try:
            enrich(change, table, self._states)
        except Exception as error:
            yield failed(change.coordinates, "Enrich", error, change, table)
            return
        status = change.new.get(table.column("status") or "")
        if status is not None and status not in self._states:
            self._unknown.inc()
        if keep(change, self._ignored):
            yield from self._encode.add(change)
        else:
            self._filtered.inc()


def _millis_since(timestamp: str) -> int:
    return max(0, time.time_ns() // 1000 - timestamps.to_micros(timestamp)) // 1000
