"""The steps before the sink as Beam DoFns. Each carries a pure function; what cannot be done becomes a dead letter.

    records → Decode → Mask → Enrich → Filter → EncodeRows ⇒ (keyed by table and shard) AppendRows ⇒ TrackPosition
                └───────┴────────┴─────────────────┴─────────────────┴─────────► WriteDeadLetters ─┘

Everything up to `EncodeRows` (pipeline/sink/encode.py) runs in one stage with the source, a chain for each change
stream: nothing that a runner writes to disk comes before Mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import apache_beam as beam
from apache_beam.metrics import Metrics

from contract import metrics, timestamps
from contract.changes import Change
from pipeline.failures import Step, at_commit, dead_letter, failed, failed_at_commit
from pipeline.source.completion import Completer, SpannerRows, lacks_values
from pipeline.source.query import ChangeStream
from pipeline.source.records import DataChange, ReadPosition
from pipeline.transforms import decode
from pipeline.transforms.enrich import enrich
from pipeline.transforms.filter import IgnoredRecords, keep
from pipeline.transforms.settings import TransformSettings

POSITIONS: Final = "positions"


class Decode(Step):
    """Data change records → changes, without those that are ignored. Read positions go to a separate output.

    Changes that leave columns out are completed by reads of their rows, at the end of a bundle; `stream` says where.
    """

    OUTPUTS: ClassVar = (POSITIONS,)

    def __init__(self, stream: ChangeStream | None = None, ignored: IgnoredRecords | None = None) -> None:
        self._stream = stream
        self._ignored = ignored or None
        self._filtered = Metrics.counter(metrics.NAMESPACE, metrics.CHANGES_FILTERED)
        self._read = Metrics.counter(metrics.NAMESPACE, metrics.CHANGES_READ)
        self._age = Metrics.distribution(metrics.NAMESPACE, metrics.COMMIT_TO_READ_MILLIS)

    def process(self, record: DataChange | ReadPosition) -> Iterator[Any]:
        if isinstance(record, ReadPosition):
            yield beam.pvalue.TaggedOutput(POSITIONS, record)
            return
        self._read.inc(len(record.mods))
        self._age.update(_millis_since(record.commit_timestamp))
        if self._ignored is not None and record in self._ignored:
            self._filtered.inc(len(record.mods))
            return
        for index in range(len(record.mods)):
            try:
                change = decode.decode(record, index)
            except Exception as error:
                yield failed(decode.coordinates(record, index), self, error)
                continue
            if lacks_values(change):
                self._partial.append(change)
            else:
                yield change

    def setup(self) -> None:
        self._completer = Completer(SpannerRows(self._stream)) if self._stream else None

    def start_bundle(self) -> None:
        self._partial: list[Change] = []

    def finish_bundle(self) -> Iterator[Any]:
        if not self._partial:
            return
        if self._completer is None:
            raise RuntimeError("Decode must have a change stream to complete changes with. Report it as a bug.")
        for change, error in self._completer.complete(self._partial):
            if error:
                yield failed_at_commit(dead_letter(change.coordinates, type(self).__name__, error))
            else:
                yield at_commit(change)
        self._partial = []


class Mask(Step):
    """Masks changes. A failure keeps only where the change can be read again."""

    def __init__(self, settings: TransformSettings) -> None:
        self._settings = settings
        self._unclassified = Metrics.counter(metrics.NAMESPACE, metrics.UNCLASSIFIED_VALUES)

    def setup(self) -> None:
        self._masker = self._settings.masker()

    def process(self, change: Change) -> Iterator[Any]:
        try:
            unclassified = self._masker.mask(change)
        except Exception as error:
            yield failed(change.coordinates, self, error)
            return
        if unclassified:
            self._unclassified.inc(len(unclassified))
        yield change


class Enrich(Step):
    """Redacts the changes of customers who were erased; adds customer, acting user, payment state and transition."""

    def __init__(self, settings: TransformSettings) -> None:
        self._settings = settings
        self._states = settings.payment_states
        self._watched = settings.watched
        self._unknown = Metrics.counter(metrics.NAMESPACE, metrics.UNKNOWN_STATUS)
        self._filtered = Metrics.counter(metrics.NAMESPACE, metrics.CHANGES_FILTERED)

    def setup(self) -> None:
        self._erased = self._settings.erased_now()

    def process(self, change: Change) -> Iterator[Any]:
        table = self._watched.of(change.table)
        # Before anything keeps it. Where it is not known who was erased, the bundle fails and is tried again.
        if not self._erased.current().redact(change, table):
            self._filtered.inc()
            return
        try:
            enrich(change, table, self._states)
        except Exception as error:
            yield failed(change.coordinates, self, error, change, table)
            return
        status = change.new.get(table.column("status") or "")
        if status is not None and status not in self._states:
            self._unknown.inc()
        yield change


class Filter(beam.DoFn):
    """Leaves out what the options say is irrelevant."""

    def __init__(self, settings: TransformSettings) -> None:
        self._ignored = settings.ignored
        self._filtered = Metrics.counter(metrics.NAMESPACE, metrics.CHANGES_FILTERED)

    def process(self, change: Change) -> Iterator[Change]:
        if keep(change, self._ignored):
            yield change
        else:
            self._filtered.inc()


def _millis_since(timestamp: str) -> int:
    return max(0, timestamps.to_micros(timestamps.now()) - timestamps.to_micros(timestamp)) // 1000
