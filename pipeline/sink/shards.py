"""Exactly-once appends to one shard of a changelog table.

A shard has one write stream, and every append names the offset at which its rows must land. That makes the stream a
compare-and-swap log: rows land once or the append is refused. A refused offset says only that *something* landed there,
not that it was these rows: a retried bundle may bring other rows, in another order. So after any doubt, and whenever a
stream is opened in place of another, the same three steps restore certainty:

1. finalize the stream: nobody, however late, can append to it any more;
2. record a new stream in its place; the time of that is the new stream's fence;
3. look up which change ids the table has, and append only the missing ones.

The look-up goes on for every row that was committed before the fence, not only for those at hand: whoever wrote to the
old stream may have been further ahead. A row that was committed after the fence cannot be in the table yet.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from google.api_core import exceptions
from google.cloud.bigquery_storage_v1 import types

from contract import tables, timestamps
from contract.changes import Column
from contract.logs import Trouble
from pipeline import logs
from pipeline.sink import rows as row_encoding
from pipeline.sink.changelogs import Changelogs, Destinations, NotReady
from pipeline.sink.connection import AppendConnection, NoAnswer
from pipeline.sink.generations import Generations

_LOG = logging.getLogger(__name__)

_ANSWER_SECONDS = 30.0
_BACKOFF_SECONDS = (0.2, 10.0)
_MOST_BYTES = 3_000_000
_REFUSALS_BEFORE_SPLIT = 3

_TRANSIENT = (
    NoAnswer,
    exceptions.ServerError,
    exceptions.RetryError,
    exceptions.Aborted,
    exceptions.Cancelled,
    exceptions.TooManyRequests,
    exceptions.Forbidden,
    exceptions.Unauthorized,
    NotReady,
    ConnectionError,
)


class StreamPosition(NamedTuple):
    """A write stream and the offset of its next row: the shard's keyed state.

    Rows that were committed up to `fenced_at` may have been appended to an earlier stream; None where there was none.
    """

    stream: str
    offset: int
    fenced_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A row that BigQuery refuses, masked as it is, and BigQuery's own code for the reason."""

    row: dict[str, Any]
    message: str


@dataclass(kw_only=True)
class Outcome:
    """What became of a batch. `retries`: how often it was held up, or its stream given up for another."""

    appended: int = 0
    already_there: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    appends: int = 0
    retries: int = 0

    @property
    def told(self) -> bool:
        """Whether it is worth a line: it took more than one append that was answered."""
        return bool(self.retries or self.already_there or self.rejected)

    @property
    def counts(self) -> dict[str, int]:
        return {
            "appended": self.appended,
            "already_there": self.already_there,
            "rejected": len(self.rejected),
            "retries": self.retries,
        }


@dataclass(frozen=True, kw_only=True)
class SinkClients:
    """What an append needs of the outside. `generations` is None in at-least-once mode."""

    write: Any
    query: Any
    changelogs: Changelogs
    destinations: Destinations
    generations: Generations | None
    generation: int
    # Rows up to this time may have been appended by an older job: they are looked up first.
    fenced_at: str | None = None
    # An emulator does not evaluate a column's default: the worker's clock stands in.
    stamp: Callable[[], int] | None = None


class _Refused(Exception):
    """BigQuery refused the append: the stream, the offset or the rows."""

    def __init__(self, code: int, message: str, row_errors: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.row_errors = list(row_errors)


class Shard:
    """One shard of one source table's changelog."""

    def __init__(self, clients: SinkClients, table: str, shard: str) -> None:
        self._clients = clients
        self._table = table
        self._shard = shard
        self._id = clients.destinations.id(table)
        self._connection: AppendConnection | None = None

    def append(
        self, position: StreamPosition | None, batch: pa.Table, columns: tuple[Column, ...]
    ) -> tuple[StreamPosition | None, Outcome]:
        """Appends the rows that are not there yet. Returns the stream's new position and what became of the rows.

        Waits out an unreachable BigQuery: it returns when every row is queryable or rejected. Raises Fenced.
        """
        outcome = Outcome()
        for part in _parts(batch):
            position = self._append_part(position, part, columns, outcome)
        return position, outcome

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _append_part(
        self, position: StreamPosition | None, batch: pa.Table, columns: tuple[Column, ...], outcome: Outcome
    ) -> StreamPosition | None:
        failures = refusals = faulted = 0
        looked_up = False
        while batch.num_rows:
            try:
                names = self._clients.changelogs.conform(self._table, columns, row_encoding.fields(columns))
                if position is None:
                    position, looked_up = self._open(), False
                if not looked_up and self._may_be_there(position, batch):
                    batch, looked_up = self._missing(batch, outcome), True
                    continue
                self._send(position, self._request_rows(batch, names))
                outcome.appended += batch.num_rows
                outcome.appends += 1
                return position._replace(offset=position.offset + batch.num_rows)
            except _TRANSIENT as error:
                outcome.retries += 1
                failures += 1
                self.close()
                _wait_out(error, failures, self._id)
            except _Refused as refused:
                outcome.retries += 1
                if refused.row_errors:
                    # The table may have changed under us: rows are rejected only against its newest schema.
                    faulted += 1
                    if faulted > 1:
                        batch = self._without_rejected(batch, refused, outcome)
                    position = self._abandon()
                    continue
                refusals += 1
                if refusals > _REFUSALS_BEFORE_SPLIT:
                    return self._split(position, batch, columns, outcome, refused)
                position = self._abandon()
            except exceptions.ClientError as error:
                outcome.retries += 1
                refusals += 1
                if refusals > _REFUSALS_BEFORE_SPLIT:
                    return self._split(position, batch, columns, outcome, _Refused(0, type(error).__name__))
                position = self._abandon()
        return position

    def _request_rows(self, batch: pa.Table, names: Mapping[str, str]) -> pa.RecordBatch:
        """The batch under the names that BigQuery's table has for its columns."""
        sent = batch.drop_columns([row_encoding.STREAM])
        if self._clients.stamp is not None:
            now = pa.array([self._clients.stamp()] * sent.num_rows, pa.timestamp("us", tz="UTC"))
            sent = sent.append_column(tables.BIG_QUERY_COMMIT_TIMESTAMP, now)
        sent = sent.rename_columns([names.get(name, name) for name in sent.column_names])
        return sent.to_batches()[0]

    def _send(self, position: StreamPosition, rows: pa.RecordBatch) -> None:
        connection = self._connection
        if connection is None or connection.stream != position.stream or connection.schema != rows.schema:
            self.close()
            connection = self._connection = AppendConnection(self._clients.write, position.stream, rows.schema)
        exactly_once = self._clients.generations is not None
        response = connection.append(rows, position.offset if exactly_once else None, timeout=_ANSWER_SECONDS)
        if response.error.code:
            raise _Refused(response.error.code, response.error.message, response.row_errors)

    def _may_be_there(self, position: StreamPosition, batch: pa.Table) -> bool:
        fences = [f for f in (self._clients.fenced_at, position.fenced_at) if f is not None]
        return bool(fences) and pc.min(batch[tables.COMMIT_TIMESTAMP]).as_py() <= timestamps.to_datetime(max(fences))

    def _open(self) -> StreamPosition:
        """A new stream in place of the recorded one."""
        dataset, name = self._clients.destinations.of(self._table)
        parent = f"projects/{self._clients.destinations.project}/datasets/{dataset}/tables/{name}"
        generations = self._clients.generations
        if generations is None:
            return StreamPosition(f"{parent}/streams/_default", 0)
        recorded = generations.stream(self._id, self._shard)
        if recorded:
            self._finalize(recorded)
        made = self._clients.write.create_write_stream(
            parent=parent, write_stream=types.WriteStream(type_=types.WriteStream.Type.COMMITTED)
        )
        fenced_at = generations.record_stream(
            self._clients.generation, self._id, self._shard, made.name, replaces=recorded
        )
        if fenced_at is None:
            raise NotReady(f"another worker opened a stream for shard {self._shard}: it is closed and looked through")
        return StreamPosition(made.name, 0, fenced_at if recorded else None)

    def _abandon(self) -> StreamPosition | None:
        """Gives the stream up. Opening the next one finalizes it."""
        self.close()
        self._clients.changelogs.forget(self._table)
        return None

    def _finalize(self, stream: str) -> None:
        try:
            self._clients.write.finalize_write_stream(name=stream)
        except (exceptions.NotFound, exceptions.InvalidArgument, exceptions.FailedPrecondition):
            # Gone with its table, or finalized already: either way it takes no more rows.
            _LOG.info("Write stream of %s, shard %s, was closed already.", self._id, self._shard)

    def _missing(self, batch: pa.Table, outcome: Outcome) -> pa.Table:
        """The rows whose change ids the table does not have."""
        there = existing_ids(self._clients.query, self._id, batch)
        if not there:
            return batch
        outcome.already_there += len(there)
        return batch.filter(pc.invert(pc.is_in(batch[tables.CHANGE_ID], pa.array(list(there), pa.string()))))

    def _without_rejected(self, batch: pa.Table, refused: _Refused, outcome: Outcome) -> pa.Table:
        bad = sorted({error.index for error in refused.row_errors})
        codes = {error.index: types.RowError.RowErrorCode(error.code).name for error in refused.row_errors}
        for index in bad:
            # Not BigQuery's text: it may quote the value.
            outcome.rejected.append(_rejected(batch, index, codes[index]))
        keep = pa.array([i not in codes for i in range(batch.num_rows)])
        return batch.filter(keep)

    def _split(
        self,
        position: StreamPosition | None,
        batch: pa.Table,
        columns: tuple[Column, ...],
        outcome: Outcome,
        refused: _Refused,
    ) -> StreamPosition | None:
        """BigQuery refuses the batch and does not say which row it is: halves tell."""
        if batch.num_rows == 1:
            outcome.rejected.append(_rejected(batch, 0, f"status {refused.code}"))
            return position
        half = batch.num_rows // 2
        for part in (batch.slice(0, half), batch.slice(half)):
            position = self._append_part(position, part, columns, outcome)
        return position


def existing_ids(client: Any, table_id: str, batch: pa.Table) -> set[str]:
    """Which of the batch's change ids a table has. Reads only the partitions that the batch's rows are in."""
    from google.cloud.bigquery import ArrayQueryParameter, QueryJobConfig, ScalarQueryParameter

    span = pc.min_max(batch[tables.COMMIT_TIMESTAMP]).as_py()
    job = client.query(
        f"SELECT {tables.CHANGE_ID} FROM `{table_id}` WHERE {tables.COMMIT_TIMESTAMP} BETWEEN @first AND @last "
        f"AND {tables.CHANGE_ID} IN UNNEST(@ids)",
        job_config=QueryJobConfig(
            query_parameters=[
                ScalarQueryParameter("first", "TIMESTAMP", span["min"]),
                ScalarQueryParameter("last", "TIMESTAMP", span["max"]),
                ArrayQueryParameter("ids", "STRING", batch[tables.CHANGE_ID].to_pylist()),
            ]
        ),
    )
    return {row[0] for row in job.result()}


def _rejected(batch: pa.Table, index: int, code: str) -> Rejected:
    return Rejected(
        row=batch.slice(index, 1).to_pylist()[0],
        message=f"BigQuery refused the row ({code}). Compare the row with the table's schema, mend one of them, "
        "and retry the dead letter.",
    )


def _parts(batch: pa.Table) -> list[pa.Table]:
    """Slices that fit into one request."""
    pieces = max(1, -(-batch.nbytes // _MOST_BYTES))
    size = max(1, -(-batch.num_rows // pieces))
    return [batch.slice(start, size).combine_chunks() for start in range(0, batch.num_rows, size)]


def _wait_out(error: Exception, failures: int, table_id: str) -> None:
    if failures in (2, 5) or failures % 20 == 0:
        _LOG.warning(
            "Appending to %s: %s, try %d. Nothing is lost; the rows wait until BigQuery answers.",
            table_id,
            error if isinstance(error, NotReady | NoAnswer) else type(error).__name__,
            failures,
            extra=logs.fields(error_class=Trouble.SINK, table=table_id, tries=failures),
        )
    first, most = _BACKOFF_SECONDS
    time.sleep(min(most, first * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311
