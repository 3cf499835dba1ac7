"""The audit probe: once a minute it compares what Spanner committed with what BigQuery holds.

It measures the data itself, from outside the pipeline, so a total outage is seen as one: a change that was committed
and that no query finds is late. `Probe.run` looks at each minute that ended at least a minute ago, and again at what
had not arrived; `probe/series.py` turns its Measurement into series of Cloud Monitoring or Prometheus.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from contract import payments, schema, tables, timestamps
from contract.changes import Reason
from contract.watched import WatchedTables
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.source.closed import changes_before
from pipeline.source.partitions import PartitionSet
from pipeline.transforms.filter import Ignored, IgnoredRecords
from probe.committed import Commit, Window, count
from probe.state import (
    ProbeError,
    ProbeState,
    ProbeStates,
    Span,
    StateStore,
    Totals,
    look_again,
    open_window,
)
from support import stuck
from support.backup.store import Backups
from support.connection import Connection
from support.erasure.store import Erasures
from support.metadata import metadata_database, source_database
from support.operations.ensure import owner_of
from support.operations.runs import Runs, failed, missed
from support.validation.state import States
from support.warehouse import Warehouse, WarehouseError

log = logging.getLogger(__name__)

# What a run that follows a pause takes in at once, and how many of the windows that wait it looks at again.
_CATCH_UP: Final = timedelta(minutes=5)
_LOOKED_AT_AGAIN: Final = 30
_GIB: Final = 2**30
_PRIORITY: Final = "LOW"
_REASONS: Final = tuple(value for name, value in vars(Reason).items() if not name.startswith("_"))


@dataclass(frozen=True, kw_only=True)
class Pace:
    """A window's length, how long after its end it is looked at, and the most that one query may read of BigQuery.

    A query reads the 24 bytes of three columns for each change of the days in it: the limit is a day of 500 changes a
    second, eight times over.
    """

    window: timedelta = timedelta(seconds=60)
    settle: timedelta = timedelta(seconds=60)
    most_bytes: int = 8 * _GIB


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a run found. `windows` are the spans that it took in; `bytes_read` is BigQuery's count.

    `mismatches` and `cards_in_columns` are what the last validation found (support/validation), not the probe; what is
    of backups, their last runs recorded (support/backup). Of operations, by name: support/operations/runs.py.
    """

    at: datetime
    started_at: datetime
    totals: Totals
    windows: tuple[Span, ...]
    waiting: int
    oldest_unaudited_seconds: float
    dead_letters: dict[str, int]
    oldest_dead_letter_seconds: float
    stuck: dict[str, int]
    unclassified_columns: int
    bytes_read: int
    mismatches: int = 0
    cards_in_columns: int = 0
    validation_age_seconds: float = 0.0
    erasure_age_seconds: float = 0.0
    backup_age_seconds: float = 0.0
    backup_drill_age_seconds: float = 0.0
    backup_drill_failed: bool = False
    operations_failed: dict[str, bool] = field(default_factory=dict)
    operations_missed: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class _Letters:
    """The open dead letters as they are read before BigQuery is asked."""

    by_commit: Counter[Commit] = field(default_factory=Counter)
    by_reason: Counter[str] = field(default_factory=Counter)
    reason_of: dict[str, str] = field(default_factory=dict)
    oldest: datetime | None = None

    @classmethod
    def read(cls, queue: DeadLetterQueue) -> _Letters:
        found = cls()
        for _, letter in queue.every():
            at = letter.coordinates
            committed = timestamps.to_micros(at.commit_timestamp)
            found.by_commit[Commit(at.table, committed)] += 1
            found.by_reason[letter.reason] += 1
            found.reason_of[letter.id] = letter.reason
            moment = timestamps.to_datetime(timestamps.from_micros(committed))
            found.oldest = min(found.oldest or moment, moment)
        return found


class Probe:
    """Measures one stack. Its state is in the metadata database, so any process can make the next run."""

    def __init__(self, connection: Connection, pace: Pace | None = None) -> None:
        self._connection = connection
        self._pace = pace or Pace()
        self._warehouse = Warehouse(connection)
        self._queue = DeadLetterQueue(connection.dead_letter_directory)
        self._ignored = Ignored.parse(connection.ignore_fields, connection.ignore_tables)
        self._left_out = IgnoredRecords.parse(
            connection.ignore_tables, connection.ignore_operations, connection.ignore_transaction_tags
        )
        self._states = (
            payments.parse_states(connection.payment_states) if connection.payment_states else payments.PAYMENT_STATES
        )
        self._limits = payments.parse_limits(connection.stuck_limits)

    def run(self, now: datetime) -> Measurement:
        """One look. Raises ProbeError, and what Spanner's client raises, where nothing can be measured.

        A warehouse that does not answer is not a reason: then nothing arrived, for nobody can query it.
        """
        state = self._store.load() or self._first(now)
        letters = _Letters.read(self._queue)
        _count_letters(state, letters)
        notes: list[str] = []
        spans: list[Span] = []
        bytes_read = 0
        pieces: list[Span | None] = [*self._spans(state, now)]
        for span in pieces or [None]:
            window = self._committed(state, span, notes) if span else Window()
            waiting = self._store.waiting(_LOOKED_AT_AGAIN)
            arrived, read = self._arrived([w.span for w in waiting] + ([span] if span else []), notes)
            bytes_read += read
            looked_at = waiting if arrived is not None else []
            for old in looked_at:
                look_again(old, arrived or {}, letters.by_commit, state.totals)
            if span:
                spans.append(span)
                state.window_end = span.end
                for outcome, number in window.outcomes.items():
                    state.totals.outcomes[outcome] = state.totals.outcomes.get(outcome, 0) + number
                looked_at = [
                    *looked_at,
                    open_window(span, window.commits, arrived, letters.by_commit, state.totals),
                ]
            self._store.save(state, looked_at, now)
        return self._measured(state, letters, now, spans, bytes_read, notes)

    def _measured(
        self, state: ProbeState, letters: _Letters, now: datetime, spans: list[Span], bytes_read: int, notes: list[str]
    ) -> Measurement:
        waiting, validated = self._store.total(), States(self._connection).load()
        backups = Backups(self._connection).health()
        operations = Runs(self._connection).expected(now)
        return Measurement(
            at=now,
            started_at=state.started_at,
            totals=state.totals,
            windows=tuple(spans),
            waiting=waiting.changes,
            oldest_unaudited_seconds=_age(waiting.oldest_unaudited, now),
            dead_letters={reason: letters.by_reason[reason] for reason in sorted({*_REASONS, *letters.by_reason})},
            oldest_dead_letter_seconds=_age(letters.oldest, now),
            stuck=self._stuck(now, notes),
            unclassified_columns=self._unclassified(state),
            bytes_read=bytes_read,
            mismatches=validated.mismatches,
            cards_in_columns=validated.cards,
            validation_age_seconds=_age(validated.at or state.started_at, now),
            erasure_age_seconds=_age(Erasures(self._connection).oldest_unfinished(), now),
            backup_age_seconds=_age(backups.newest_good or state.started_at, now),
            backup_drill_age_seconds=_age(backups.drilled_at or state.started_at, now),
            backup_drill_failed=backups.failed,
            operations_failed=failed(operations),
            operations_missed=missed(operations, now, owner_of(self._connection)),
            notes=tuple(dict.fromkeys(notes)),
        )

    # ------------------------------------------------------------------ time

    def _first(self, now: datetime) -> ProbeState:
        """Counting begins now: the streams may be no older than this."""
        return ProbeState(started_at=now, window_end=now)

    def _closed(self, now: datetime) -> datetime:
        """The end of the last window that is over for long enough."""
        epoch = datetime.fromtimestamp(0, UTC)
        return epoch + (now - self._pace.settle - epoch) // self._pace.window * self._pace.window

    def _spans(self, state: ProbeState, now: datetime) -> list[Span]:
        """What to look at: from where the last run ended to the last closed window, in pieces that can be held."""
        spans, start, closed = [], state.window_end, self._closed(now)
        while start < closed:
            end = min(start + _CATCH_UP, closed)
            spans.append(Span(start, end))
            start = end
        return spans

    # ------------------------------------------------------------------ the source

    def _committed(self, state: ProbeState, span: Span, notes: list[str]) -> Window:
        import grpc

        window = Window(unclassified=state.unclassified)
        for stream in self._connection.watched.change_streams:
            partitions = self._partitions(state, stream, span)
            try:
                count(
                    window,
                    changes_before(self._query(stream), partitions, timestamps.from_datetime(span.end)),
                    self._connection.watched,
                    self._ignored,
                    self._left_out,
                    self._states,
                )
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                    raise ProbeError(
                        f"Spanner does not answer a change stream query: {error.code().name}. Nothing is counted until "
                        "it does; then the windows are caught up. Look at its status and at the probe's roles."
                    ) from None
                # The records are gone: nobody can count them any more. Counting continues with the next window.
                until = f"{span.end:%Y-%m-%d %H:%M}"
                notes.append(f"{stream} no longer keeps the changes before {until}: they are not counted.")
                partitions = PartitionSet(timestamps.from_datetime(span.end))
            state.streams[stream] = partitions.to_bytes().decode()
        return window

    def _partitions(self, state: ProbeState, stream: str, span: Span) -> PartitionSet:
        if stream in state.streams:
            return PartitionSet.from_bytes(state.streams[stream].encode())
        return PartitionSet(timestamps.from_datetime(span.start))

    def _query(self, stream: str) -> Any:
        from pipeline.source.query import ChangeStream, ChangeStreamQuery

        stack = self._connection
        described = ChangeStream(
            name=stream,
            database=stack.source,
            endpoint=stack.spanner_endpoint,
            role=stack.role(schema.PROBE_ROLE),
            priority=_PRIORITY,
        )
        return ChangeStreamQuery(described, self._channel)

    @cached_property
    def _channel(self) -> Any:
        from pipeline.clients import spanner_channel

        return spanner_channel(self._connection.spanner_endpoint)

    @cached_property
    def _source(self) -> Any:
        return source_database(self._connection, schema.PROBE_ROLE)

    @cached_property
    def _store(self) -> StateStore:
        return ProbeStates(metadata_database(self._connection), self._connection.job_name)

    def _unclassified(self, state: ProbeState) -> int:
        """Columns without a policy for their masking, of those that changes carried.

        INFORMATION_SCHEMA would know those without a change too, but shows a database role only what it may read.
        """
        watched = self._connection.watched
        return sum(
            watched.of(table).policy_of(column) is None
            for table, columns in state.unclassified.items()
            for column in columns
        )

    def _stuck(self, now: datetime, notes: list[str]) -> dict[str, int]:
        """Status → stuck payments; their ids are kept in the warehouse, for those who ask which."""
        watched, limits = self._connection.watched.payments, self._limits
        if not watched.column("changed"):
            return {}
        options = {"priority": f"PRIORITY_{_PRIORITY}"}
        found = stuck.seek(self._source, watched, limits, payments.ends(self._states, limits), now, options=options)
        try:
            stuck.keep(self._warehouse, found, now)
        except WarehouseError as error:
            notes.append(f"Nobody can see which payments are stuck: {error}")
        return found.counts

    # ------------------------------------------------------------------ the warehouse

    def _arrived(self, spans: Sequence[Span], notes: list[str]) -> tuple[dict[Commit, list[int]] | None, int]:
        """Commit → when each of its changes came, of the commits in the spans; and the bytes read. None: no answer."""
        if not spans:
            return {}, 0
        found: dict[Commit, list[int]] = defaultdict(list)
        now = timestamps.to_micros(timestamps.now())
        sql, parameters = arrivals_query(self._connection.project, self._connection.watched, spans)
        try:
            answer = self._warehouse.answer(sql, parameters, most_bytes=self._pace.most_bytes)
        except WarehouseError as error:
            notes.append(f"No change counts as arrived: {error}")
            return None, 0
        for row in answer.rows:
            moment = now if row["arrived"] is None else row["arrived"]
            found[Commit(row["source"], row["committed"])] += [moment] * row["changes"]
        return found, answer.bytes_read


def arrivals_query(project: str, watched: WatchedTables, spans: Iterable[Span]) -> tuple[str, dict[str, datetime]]:
    """The query for what is in the changelogs of the spans, and its parameters.

    The spans are constants, so only the partitions of their days are read. A replay's rows have their own mod type.
    """
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    parameters: dict[str, datetime] = {}
    ranges = []
    for number, span in enumerate(merged):
        parameters |= {f"start{number}": span.start, f"end{number}": span.end}
        ranges.append(f"({tables.COMMIT_TIMESTAMP} >= @start{number} AND {tables.COMMIT_TIMESTAMP} < @end{number})")
    selects = [
        f"SELECT '{table.name}' AS source, UNIX_MICROS({tables.COMMIT_TIMESTAMP}) AS committed, "
        f"UNIX_MICROS({tables.BIG_QUERY_COMMIT_TIMESTAMP}) AS arrived, COUNT(*) AS changes\n"
        f"FROM `{project}.{table.id}`\n"
        f"WHERE ({' OR '.join(ranges)}) AND {tables.MOD_TYPE} IN ('INSERT', 'UPDATE', 'DELETE')\n"
        "GROUP BY source, committed, arrived"
        for table in watched.tables
    ]
    return "\nUNION ALL\n".join(selects), parameters


def _count_letters(state: ProbeState, letters: _Letters) -> None:
    """Counts the dead letters that were not there the last time."""
    new = letters.reason_of.keys() - set(state.letters)
    state.totals.dead_letters += len(new)
    state.totals.cards_in_keys += sum(letters.reason_of[letter] == Reason.CARD_IN_KEY for letter in new)
    state.letters = sorted(letters.reason_of)


def _age(moment: datetime | None, now: datetime) -> float:
    return max(0.0, (now - moment).total_seconds()) if moment else 0.0
