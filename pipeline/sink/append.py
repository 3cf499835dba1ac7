"""`AppendRows`: encoded rows → BigQuery, exactly once.

What a bundle brings of a shard goes in one append, at the end of the bundle. What comes during it waits in the runner,
which has a shard's key in one bundle at a time, and goes together in the next. A retried bundle may bring other rows:
`Shard` is right for any rows at any time, because after a refused offset it asks the table and not the offset.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

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


# Rows of a shard of more bytes than this do not wait for the end of the bundle.
_MOST_BYTES: Final = 8_000_000


@dataclass
class _Gathered:
    """What a bundle has of a shard: rows that were not appended yet, where they go, the cell that keeps where, and
    what became of the others."""

    cell: Any
    position: StreamPosition | None
    rows: list[EncodedRows] = field(default_factory=list)
    bytes: int = 0
    outcome: Outcome = field(default_factory=Outcome)


class AppendRows(Step):
    """Appends the rows of a shard, exactly once. Rejected rows become dead letters."""

    # The shard's StreamPosition, as a tuple.
    STREAM = ReadModifyWriteStateSpec("stream", PickleCoder())

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._appended = Metrics.counter(metrics.NAMESPACE, metrics.ROWS_APPENDED)
        self._already_there = Metrics.counter(metrics.NAMESPACE, metrics.ROWS_ALREADY_THERE)
        self._millis = Metrics.distribution(metrics.NAMESPACE, metrics.APPEND_MILLIS)
        self._rows = Metrics.distribution(metrics.NAMESPACE, metrics.BATCH_ROWS)
        self._age = Metrics.distribution(metrics.NAMESPACE, metrics.COMMIT_TO_APPENDED_MILLIS)

    def setup(self) -> None:
        self._clients = self._settings.connect()
        self._shards: dict[str, Shard] = {}

    def start_bundle(self) -> None:
        self._gathered: dict[str, _Gathered] = {}

    def process(self, element: tuple[str, EncodedRows], stream: Any = beam.DoFn.StateParam(STREAM)) -> Iterator[Any]:
        key, encoded = element
        gathered = self._gathered.get(key)
        if gathered is None:
            kept = stream.read()
            # Beam commits state behind `finish_bundle`, so that the cell can be written there. Were it not committed,
            # the next append would be refused for its offset, and ask the table.
            gathered = self._gathered[key] = _Gathered(stream, StreamPosition(*kept) if kept else None)
        gathered.rows.append(encoded)
        gathered.bytes += len(encoded.data)
        if gathered.bytes > _MOST_BYTES:
            yield from self._append(key, gathered)

    def finish_bundle(self) -> Iterator[Any]:
        for key, gathered in self._gathered.items():
            yield from self._append(key, gathered)
        notable = {key: each.outcome.counts for key, each in self._gathered.items() if each.outcome.notable}
        if notable:
            # What was out of the ordinary, in one line.
            text = "; ".join(f"{key} {_counted(counts)}" for key, counts in notable.items())
            _LOG.info("Rows took more than one append: %s.", text, extra=logs.fields(shards=notable))

    def _append(self, key: str, gathered: _Gathered) -> Iterator[Any]:
        encoded, gathered.rows, gathered.bytes = gathered.rows, [], 0
        table, _, number = key.partition("|")
        watched = self._clients.destinations.watched.of(table)
        shard = self._shards.get(key)
        if shard is None:
            shard = self._shards[key] = Shard(self._clients, table, number)
        for columns, batch in rows.groups((e.columns, e.data) for e in encoded):
            started = time.monotonic()
            gathered.position, outcome = shard.append(gathered.position, batch, columns)
            self._measure(batch, outcome, time.monotonic() - started)
            gathered.outcome.add(outcome)
            if _LOG.isEnabledFor(logging.DEBUG):
                logs.trace(_LOG, "In BigQuery now:", table, _traced(batch, outcome, watched))
            for rejected in outcome.rejected:
                yield failed_at_commit(rejected_letter(rejected, watched))
        gathered.cell.write(tuple(gathered.position) if gathered.position else None)

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
