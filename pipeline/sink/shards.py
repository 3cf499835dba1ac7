"""Exactly-once appends to one shard of a changelog table.

A shard has one write stream, and every append names the offset at which its rows must land. That makes the stream a
compare-and-swap log: rows land once or the append is refused. A refused offset says only that *something* landed there,
not that it was these rows: a retried bundle may bring other rows, in another order. So after any doubt, and whenever a
stream is opened in place of another, the same four steps restore certainty:

1. finalize the stream: nobody, however late, can append to it any more;
2. record a new stream in its place; the time of that is the new stream's fence;
3. ask for the newest commit timestamp in the table: what the finalized streams brought is no younger, and they bring
   nothing more. What others append meanwhile, or this shard to its new stream, are other rows: it can only be later;
4. look up which change ids the table has, and append only the missing ones.

The look-up is repeated for every row that was committed before the fence and that newest timestamp, not only for the
current ones: whoever wrote to the old stream may have been further ahead. Any other row cannot be in the table yet.

What BigQuery refuses is judged by what it says (pipeline/service_errors.py), not by how it says it. What waits, waits
by time. A row is rejected only where it is the row's own fault: on a stream that takes rows, against the table's newest
schema, and not while the write path may not know one of its columns yet.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import grpc
import pyarrow as pa
import pyarrow.compute as pc
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud.bigquery_storage_v1 import types

from contract import tables, timestamps
from contract.changes import Column, Reason
from contract.logs import ErrorClass
from pipeline import logs
from pipeline.service_errors import Action, Failure, failure_of, says_unknown_field
from pipeline.sink import rows as row_encoding
from pipeline.sink.changelogs import Changelogs, Destinations, NotReady
from pipeline.sink.connection import REQUEST_BYTES, AppendConnection, NoAnswer, TooLarge
from pipeline.sink.generations import GenerationStore

_LOG = logging.getLogger(__name__)

_ANSWER_SECONDS = 30.0
# The bytes of several rows that go together. A row that is larger goes alone.
_MOST_BYTES: Final = 9_000_000
_PAUSES: Final = (0.2, 10.0)
_LOG_SECONDS: Final = 30.0
# A table is read again at this interval at most while rows wait.
_REREAD_SECONDS: Final = 15.0
# A stream may be bound to the schema that it was opened with: rows that wait for a column try another one at this
# interval.
_STREAM_SECONDS: Final = 60.0

_PERMISSION_DENIED: Final = 7
_TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

# What a call to Google can end with. Anything else is our fault, and is raised.
_FAILURES = (exceptions.GoogleAPIError, GoogleAuthError, grpc.RpcError, NoAnswer, NotReady, OSError)


class StreamPosition(NamedTuple):
    """A write stream and the offset of its next row: the shard's keyed state.

    Rows that were committed up to `fenced_at` may have been appended to an earlier stream, of this job or of an older
    one; None where there was none.
    """

    stream: str
    offset: int
    fenced_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A row that BigQuery refuses, masked as it is, and BigQuery's own code for the reason."""

    row: dict[str, Any]
    message: str
    reason: str = Reason.REJECTED


@dataclass(kw_only=True)
class Outcome:
    """What became of a batch. `retries`: how often it was held up, or its stream given up for another."""

    appended: int = 0
    already_there: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    appends: int = 0
    retries: int = 0

    @property
    def notable(self) -> bool:
        """Whether it is worth a line: it took more than one append that was answered."""
        return bool(self.retries or self.already_there or self.rejected)

    def add(self, other: Outcome) -> None:
        self.appended += other.appended
        self.already_there += other.already_there
        self.rejected += other.rejected
        self.appends += other.appends
        self.retries += other.retries

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
    generations: GenerationStore | None
    generation: int
    # Rows up to this time may have been appended by an older job: they are looked up first.
    fenced_at: str | None = None
    # An emulator does not evaluate a column's default: the worker's clock is used instead.
    stamp: Callable[[], int] | None = None
    # Seconds, for what waits.
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class _Refused(Exception):
    """An append was not answered with success."""

    def __init__(self, failure: Failure, row_errors: Iterable[Any] = (), cause: BaseException | None = None) -> None:
        super().__init__(failure.name)
        self.failure = failure
        self.row_errors = list(row_errors)
        self.cause = cause

    @property
    def what(self) -> str:
        """What is waited for, without BigQuery's text: it may quote a value."""
        return _what(self.cause) if self.cause is not None else f"BigQuery, which answers {self.failure.name}"

    @property
    def lacks_field(self) -> bool:
        """The write path does not know a column: every refused row says so, or the status does."""
        if self.row_errors:
            return all(says_unknown_field(error.message) for error in self.row_errors)
        return self.failure.lacks_field


@dataclass(eq=False)
class _Piece:
    """Rows of one request. `lagging`: they wait for a column; `turn`: which of them is tried alone.

    `doubtful`: some may have landed though the request was refused, regardless of the fence.
    """

    rows: pa.Table
    looked_up: bool = False
    doubtful: bool = False
    lagging: bool = False
    turn: int = 0

    def of(self, rows: pa.Table) -> _Piece:
        return _Piece(rows.combine_chunks(), looked_up=self.looked_up)


@dataclass
class _Run:
    """One call of `append`."""

    position: StreamPosition | None
    columns: tuple[Column, ...]
    oldest: datetime
    pieces: deque[_Piece]
    outcome: Outcome
    pause: _Pause
    # The stream has taken rows in this run, or was opened in it: what it refuses now is the rows' fault.
    trusted: bool = False
    narrowed: bool = True
    opened: int = 0
    opened_at: float = 0.0
    asked: bool = False
    # BigQuery has said of a column that it does not know it: where it says something else, it knows them all.
    field_lacking: bool = False
    read_at: float | None = None


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
        if not batch.num_rows:
            return position, outcome
        run = _Run(
            position=position,
            columns=columns,
            oldest=pc.min(batch[tables.COMMIT_TIMESTAMP]).as_py(),
            pieces=deque(_Piece(part) for part in _parts(batch)),
            outcome=outcome,
            pause=_Pause(self._id, self._clients.clock, self._clients.sleep),
            trusted=self._clients.generations is None,
            opened_at=self._clients.clock(),
        )
        while run.pieces:
            piece = run.pieces.popleft()
            if not piece.rows.num_rows:
                continue
            try:
                names = self._prepare(run, piece)
                if names is None:
                    continue
                rows = self._request_rows(piece.rows, names)
            except _FAILURES as error:
                outcome.retries += 1
                run.pieces.appendleft(piece)
                if isinstance(error, exceptions.NotFound | exceptions.Forbidden):
                    # Forbidden is also what a table is that is not there any more.
                    self._clients.changelogs.forget(self._table)
                run.pause.wait(_what(error))
                continue
            try:
                self._send(run, rows)
            except TooLarge:
                self._halve(run, piece, Reason.TOO_LARGE, "")
            except _Refused as refused:
                outcome.retries += 1
                self._judge(run, piece, rows, refused)
        return run.position, outcome

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ------------------------------------------------------------------ before an append

    def _prepare(self, run: _Run, piece: _Piece) -> dict[str, str] | None:
        """Makes table, stream and certainty ready. Returns the columns' names, of those that are sent.

        None when the piece became others: rows that are there already are left out, and rows with a value in a column
        that the write path may not know yet go after those without one.
        """
        names = self._clients.changelogs.conform(
            self._table,
            run.columns,
            row_encoding.fields(run.columns, self._clients.destinations.watched.of(self._table)),
        )
        if run.position is None:
            run.position = self._open(run)
        if not run.narrowed:
            run.position = self._narrow(run.position, run.oldest)
            run.narrowed = True
        if not piece.looked_up:
            piece.rows = self._missing(run.position, piece, run.outcome)
            piece.looked_up, piece.doubtful = True, False
            if not piece.rows.num_rows:
                return None
        return self._without_lagging(run, piece, names)

    def _without_lagging(self, run: _Run, piece: _Piece, names: dict[str, str]) -> dict[str, str] | None:
        sent = {n: names.get(n, n) for n in piece.rows.column_names if n != row_encoding.STREAM}
        lagging = self._clients.changelogs.lagging(self._table)
        if not lagging:
            return sent
        fresh = [n for n, name in sent.items() if name.casefold() in lagging]
        has_value = {name: _has_value(piece.rows[name]) for name in fresh}
        some = [name for name, mask in has_value.items() if pc.any(mask).as_py()]
        if some:
            valued = has_value[some[0]]
            for name in some[1:]:
                valued = pc.or_(valued, has_value[name])
            if not pc.all(valued).as_py():
                run.pieces.appendleft(piece.of(piece.rows.filter(valued)))
                run.pieces.appendleft(piece.of(piece.rows.filter(pc.invert(valued))))
                return None
        return {n: name for n, name in sent.items() if n not in fresh or n in some}

    def _request_rows(self, batch: pa.Table, names: Mapping[str, str]) -> pa.RecordBatch:
        stamp = self._clients.stamp
        return row_encoding.for_append(batch, names, stamp() if stamp else None)

    def _open(self, run: _Run) -> StreamPosition:
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
        recorded_at = generations.record_stream(
            self._clients.generation, self._id, self._shard, made.name, replaces=recorded
        )
        if recorded_at is None:
            raise NotReady(f"another worker opened a stream for shard {self._shard}: it is closed and looked through")
        schema = getattr(made, "table_schema", None)
        self._clients.changelogs.write_path_has(self._table, [f.name for f in schema.fields] if schema else ())
        fences = [f for f in (self._clients.fenced_at, recorded_at if recorded else None) if f is not None]
        run.trusted, run.narrowed = True, not fences
        run.opened_at = self._clients.clock()
        for piece in run.pieces:
            piece.looked_up = False
        return StreamPosition(made.name, 0, max(fences, default=None))

    def _narrow(self, position: StreamPosition, oldest: datetime) -> StreamPosition:
        """The position with a fence no later than the newest row that is there.

        Only after the older streams are finalized. Rows before `oldest` are not asked for: they stay below the fence.
        """
        assert position.fenced_at is not None
        if oldest > timestamps.to_datetime(position.fenced_at):
            return position
        newest = newest_commit(self._clients.query, self._id, oldest)
        bound = newest if newest is not None else oldest - timedelta(microseconds=1)
        # What is finer than a microsecond is cut in the table.
        last = timestamps.from_nanos(timestamps.to_nanos(timestamps.from_datetime(bound)) + 999)
        return position._replace(fenced_at=min(position.fenced_at, last))

    def _missing(self, position: StreamPosition, piece: _Piece, outcome: Outcome) -> pa.Table:
        """The rows whose change ids the table does not have. Asks only for those that it may have."""
        batch = doubtful = piece.rows
        if not piece.doubtful:
            if position.fenced_at is None:
                return batch
            fence = pa.scalar(timestamps.to_datetime(position.fenced_at), _TIMESTAMP)
            doubtful = batch.filter(pc.less_equal(batch[tables.COMMIT_TIMESTAMP], fence))
            if not doubtful.num_rows:
                return batch
        there = existing_ids(self._clients.query, self._id, doubtful)
        if not there:
            return batch
        outcome.already_there += len(there)
        known = pc.is_in(batch[tables.CHANGE_ID], pa.array(list(there), pa.string()))
        return batch.filter(pc.invert(known)).combine_chunks()

    def _finalize(self, stream: str) -> None:
        try:
            self._clients.write.finalize_write_stream(name=stream)
        except (exceptions.NotFound, exceptions.InvalidArgument, exceptions.FailedPrecondition):
            # Gone with its table, or finalized already: either way it takes no further rows.
            _LOG.info("Write stream of %s, shard %s, was closed already.", self._id, self._shard)

    # ------------------------------------------------------------------ the append, and what came of it

    def _send(self, run: _Run, rows: pa.RecordBatch) -> None:
        """Appends at the position and moves it. Raises TooLarge, or _Refused for anything else."""
        position = run.position
        assert position is not None
        connection = self._connection
        if (
            connection is None
            or connection.ended
            or connection.stream != position.stream
            or connection.schema != rows.schema
        ):
            self.close()
            connection = self._connection = AppendConnection(self._clients.write, position.stream, rows.schema)
        exactly_once = self._clients.generations is not None
        try:
            response = connection.append(rows, position.offset if exactly_once else None, timeout=_ANSWER_SECONDS)
        except _FAILURES as error:
            self.close()
            raise _Refused(failure_of(error), cause=error) from None
        if response.error.code:
            raise _Refused(failure_of(response.error), response.row_errors)
        run.position = position._replace(offset=position.offset + rows.num_rows)
        run.trusted, run.opened = True, 0
        run.outcome.appended += rows.num_rows
        run.outcome.appends += 1
        run.pause.over()
        self._clients.changelogs.taken(self._table, rows.schema.names)

    def _judge(self, run: _Run, piece: _Piece, rows: pa.RecordBatch, refused: _Refused) -> None:
        """What to do about rows that were not taken. They stay among the pieces unless they are rejected."""
        action = refused.failure.action
        if refused.lacks_field:
            self._wait_for_columns(run, piece, rows, refused)
        elif action is Action.WAIT:
            run.pieces.appendleft(piece)
            if refused.failure.lacks_table:
                self._abandon(run)
            elif refused.failure.code == _PERMISSION_DENIED:
                # That stands for a table that is not there any more, too, or for the stream of one.
                self._read_again(run)
                if self._clients.clock() - run.opened_at > _STREAM_SECONDS:
                    self._abandon(run)
            run.pause.wait(refused.what)
        elif action is Action.NEW_STREAM or not (run.trusted or refused.row_errors):
            # Rows are not blamed for what an older stream may be the reason of.
            run.pieces.appendleft(piece)
            self._abandon(run)
            if run.opened:
                run.pause.wait(f"a write stream that takes rows; the last one answered {refused.failure.name}")
            run.opened += 1
        elif action is Action.TOO_LARGE:
            self._halve(run, piece, Reason.TOO_LARGE, refused.failure.name)
        elif self._read_again(run):
            # The table has changed: rows are rejected only against its newest schema.
            run.pieces.appendleft(piece)
        else:
            self._blame(run, piece, rows, refused)

    def _blame(self, run: _Run, piece: _Piece, rows: pa.RecordBatch, refused: _Refused) -> None:
        """Rows are refused for what they are: by name, or else by halving."""
        lagging = self._clients.changelogs.lagging(self._table)
        suspects = [] if run.field_lacking else [n for n in rows.schema.names if n.casefold() in lagging]
        if refused.row_errors:
            # A row of which BigQuery only does not know a column waits: among the others, the error comes again.
            codes = {
                error.index: types.RowError.RowErrorCode(error.code).name
                for error in refused.row_errors
                if not says_unknown_field(error.message)
            }
            if suspects and len(refused.row_errors) == rows.num_rows:
                self._wait_for_columns(run, piece, rows, refused)
                return
            for index in sorted(codes):
                # Not BigQuery's text: it may quote the value.
                run.outcome.rejected.append(_rejected(piece.rows, index, codes[index]))
            if len(codes) == len(refused.row_errors):
                # A row that was not refused had a value in every column that is new: the write path knows them.
                self._clients.changelogs.taken(self._table, suspects)
            keep = pa.array([i not in codes for i in range(rows.num_rows)])
            # Google takes no row of such a request; the emulator takes the good ones.
            run.pieces.appendleft(_Piece(piece.rows.filter(keep).combine_chunks(), doubtful=True))
        elif suspects:
            self._wait_for_columns(run, piece, rows, refused)
        else:
            self._halve(run, piece, Reason.REJECTED, refused.failure.name)

    def _halve(self, run: _Run, piece: _Piece, reason: str, code: str) -> None:
        """BigQuery refuses the rows and does not say which one it is: halving finds it."""
        batch = piece.rows
        if batch.num_rows == 1:
            run.outcome.rejected.append(_rejected(batch, 0, code, reason))
            return
        half = batch.num_rows // 2
        run.pieces.appendleft(piece.of(batch.slice(half)))
        run.pieces.appendleft(piece.of(batch.slice(0, half)))

    def _wait_for_columns(self, run: _Run, piece: _Piece, rows: pa.RecordBatch, refused: _Refused) -> None:
        """The write path does not know a column yet. What waits for none goes first.

        Where BigQuery does not say that this is the reason, one row is tried alone: once it is taken, the columns are
        known, and what is refused then is refused for what it is.
        """
        piece.lagging = True
        run.field_lacking = run.field_lacking or refused.lacks_field
        if not refused.lacks_field and not refused.row_errors and rows.num_rows > 1:
            index = piece.turn % rows.num_rows
            piece.turn += 1
            try:
                self._send(run, rows.slice(index, 1))
            except (_Refused, TooLarge):
                pass
            else:
                keep = pa.array([i != index for i in range(rows.num_rows)])
                run.pieces.appendleft(piece.of(piece.rows.filter(keep)))
                return
        run.pieces.append(piece)
        if refused.lacks_field and not run.asked and not self._clients.changelogs.lagging(self._table):
            # Which column it is, a new stream shows: it comes with the schema that the write path knows.
            run.asked = True
            self._abandon(run)
            return
        if not all(other.lagging for other in run.pieces):
            return
        run.pause.wait(self._awaited_columns(rows))
        if not self._read_again(run) and self._clients.clock() - run.opened_at > _STREAM_SECONDS:
            self._abandon(run)

    def _awaited_columns(self, rows: pa.RecordBatch) -> str:
        lagging = self._clients.changelogs.lagging(self._table)
        found = [n for n in rows.schema.names if n.casefold() in lagging]
        if not found:
            return "BigQuery's write path to learn of a column"
        age = self._clients.changelogs.age(self._table, found)
        return f"BigQuery's write path to learn of the columns {', '.join(found)}, added {age:.0f} s ago"

    def _read_again(self, run: _Run) -> bool:
        """Reads the table's schema again, unless that was done a moment ago. Whether it is another one now."""
        now = self._clients.clock()
        if run.read_at is not None and now - run.read_at < _REREAD_SECONDS:
            return False
        run.read_at = now
        try:
            return self._clients.changelogs.changed(self._table, run.columns)
        except _FAILURES as error:
            _LOG.info("Reading %s again: %s.", self._id, type(error).__name__)
            return False

    def _abandon(self, run: _Run) -> None:
        """Gives the stream up. Opening the next one finalizes it."""
        self.close()
        run.position = None
        for piece in run.pieces:
            piece.looked_up = False
        self._clients.changelogs.forget(self._table)


def existing_ids(client: Any, table_id: str, batch: pa.Table) -> set[str]:
    """Which of the batch's change ids a table has. Reads only the partitions that the batch's rows are in."""
    from google.cloud.bigquery import ArrayQueryParameter, ScalarQueryParameter

    span = pc.min_max(batch[tables.COMMIT_TIMESTAMP]).as_py()
    found = _asked(
        client,
        f"SELECT {tables.CHANGE_ID} FROM `{table_id}` WHERE {tables.COMMIT_TIMESTAMP} BETWEEN @first AND @last "
        f"AND {tables.CHANGE_ID} IN UNNEST(@ids)",
        ScalarQueryParameter("first", "TIMESTAMP", span["min"]),
        ScalarQueryParameter("last", "TIMESTAMP", span["max"]),
        ArrayQueryParameter("ids", "STRING", batch[tables.CHANGE_ID].to_pylist()),
    )
    return {row[0] for row in found}


def newest_commit(client: Any, table_id: str, oldest: datetime) -> datetime | None:
    """The newest commit timestamp in a table, of those from `oldest` on; None when there is none."""
    from google.cloud.bigquery import ScalarQueryParameter

    [row] = _asked(
        client,
        f"SELECT MAX({tables.COMMIT_TIMESTAMP}) FROM `{table_id}` WHERE {tables.COMMIT_TIMESTAMP} >= @oldest",
        ScalarQueryParameter("oldest", "TIMESTAMP", oldest),
    )
    newest: datetime | None = row[0]
    return newest


def _asked(client: Any, sql: str, *parameters: Any) -> list[Any]:
    """The rows of a query that asks the table, regardless of an earlier answer."""
    from google.cloud.bigquery import QueryJobConfig

    config = QueryJobConfig(query_parameters=list(parameters), use_query_cache=False)
    return list(client.query(sql, job_config=config).result())


def _rejected(batch: pa.Table, index: int, code: str, reason: str = Reason.REJECTED) -> Rejected:
    if reason == Reason.TOO_LARGE:
        message = (
            f"a row must fit into one request of BigQuery, {REQUEST_BYTES // 1_000_000} MB with the values before the "
            "change. Leave the large column out with ignoreFields or shorten it in Spanner; then retry the dead letter."
        )
    else:
        message = (
            f"BigQuery refused the row ({code}). Compare the row with the table's schema, fix one of them, "
            "and retry the dead letter."
        )
    return Rejected(row=batch.slice(index, 1).to_pylist()[0], message=message, reason=reason)


def _has_value(column: pa.ChunkedArray) -> Any:
    """Where a column has a value. An ARRAY without elements is not a value: BigQuery knows no other."""
    if pa.types.is_list(column.type):
        return pc.greater(pc.fill_null(pc.list_value_length(column), 0), 0)
    return pc.is_valid(column)


def _parts(batch: pa.Table) -> list[pa.Table]:
    """Slices that fit into one request, by the bytes of their rows. A row that is larger than that is alone."""
    if batch.nbytes <= _MOST_BYTES:
        return [batch.combine_chunks()]
    starts, gathered = [0], 0
    for index, size in enumerate(row_encoding.sizes(batch)):
        if gathered and gathered + size > _MOST_BYTES:
            starts.append(index)
            gathered = 0
        gathered += size
    ends = [*starts[1:], batch.num_rows]
    return [batch.slice(first, last - first).combine_chunks() for first, last in zip(starts, ends, strict=True)]


def _what(error: BaseException) -> str:
    """What is waited for when a call ended with this."""
    if isinstance(error, NotReady | NoAnswer):
        return str(error)
    return f"BigQuery, which answers {type(error).__name__}"


class _Pause:
    """Waits by time: each pause longer than the last, up to ten seconds, and a line in the log now and then."""

    def __init__(self, table_id: str, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._table_id = table_id
        self._clock = clock
        self._sleep = sleep
        self._tries = 0
        self._since = self._logged = 0.0

    def wait(self, what: str) -> None:
        now = self._clock()
        self._tries += 1
        if self._tries == 1:
            self._since = now
        say = self._tries == 2 or (self._tries > 2 and now - self._logged >= _LOG_SECONDS)
        if say:
            self._logged = now
        _wait_out(what, self._tries, self._table_id, seconds=now - self._since, say=say, sleep=self._sleep)

    def over(self) -> None:
        """Rows were taken: the next pause is a short one again."""
        self._tries = 0


def _wait_out(
    what: object,
    tries: int,
    table_id: str,
    *,
    seconds: float = 0.0,
    say: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    if say:
        _LOG.warning(
            "Appending to %s: waiting for %s, try %d after %.0f s. Nothing is lost; the rows wait.",
            table_id,
            what,
            tries,
            seconds,
            extra=logs.fields(error_class=ErrorClass.SINK, table=table_id, tries=tries),
        )
    first, most = _PAUSES
    sleep(min(most, first * 2 ** min(tries, 10)) * random.uniform(0.5, 1.0))  # noqa: S311
