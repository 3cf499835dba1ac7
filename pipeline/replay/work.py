"""A replay: cut into shards at one moment; each shard is read, masked, enriched and appended, and committed once.

    plan ─► each shard: read → mask → enrich → filter → encode → pending stream ─► hand over ─► record ─► commit

Every step can be repeated by anybody at any time: the moment and the shards are those that were recorded first; of a
shard's streams only the one that was recorded first is ever committed, and committing it again does nothing.

A backfill is the same of all rows of tables. It leaves out those whose key the changelog has from before the moment;
no shard of it is read before the streaming job's resume position is past the moment, so that this cannot change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Any, Final

from contract import dialects, tables, timestamps
from contract.changes import REPLAY_TRANSACTION, Change, Column, Row, StepError
from contract.watched import WatchedTable
from pipeline.replay import arrived
from pipeline.replay.arrived import Arrived, Keys
from pipeline.replay.hand_over import Handed
from pipeline.replay.records import MOD_TYPE, Replay, Shard, Written
from pipeline.replay.settings import ReplaySettings
from pipeline.sink import rows as encoding
from pipeline.sink.changelogs import NotReady
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.sink.pending import PendingWriter
from pipeline.sink.rewind import rewind_merge
from pipeline.source.table_rows import KeyRange, TableAt
from pipeline.transforms.cards import find_cards
from pipeline.transforms.enrich import enrich
from pipeline.transforms.filter import keep

# What a run has in memory at once, and what is done again after a failure.
SHARD_ROWS: Final = 5_000
# Shards of a backfill whose keys one query of BigQuery is of, and that one worker runs: a million rows. Each query
# reads a block of every day, and its answer is held: 200 bytes for each key.
SHARDS_AT_ONCE: Final = 200
# Recorded in one transaction; Spanner takes 80,000 values: cloud.google.com/spanner/quotas#limits-for.
_RECORDED_AT_ONCE: Final = 1_000
# How long the resume position may take to pass the moment, and how often it is read.
_PATIENCE_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 1.0
# Spanner keeps every moment for so long at the least (version_retention_period).
_KEPT: Final = timedelta(hours=1)
_NOT_KEPT: Final = (
    "Spanner no longer keeps the moment that it was to read (spannerVersionRetention): the rows that are not done were "
    "not written. Start another one."
)
_NOT_KNOWN: Final = "BigQuery cuts the time in its key to microseconds, so it cannot be known whether the row is there."
_UNRESOLVED: Final = (
    "the dead letters stay: not all that was selected is written. A payment that is not found by the time of its "
    "change has changed again since, or was deleted: name it, or discard the dead letter once its later changes are "
    "there."
)


Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Known:
    """What BigQuery has of the keys of some shards, by their numbers."""

    shards: range
    keys: Keys
    arrived: Arrived


class Replayer:
    """Runs replays. Raises what Spanner's and BigQuery's clients raise, NotReady, ReplayError. For one thread."""

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self._transforms = settings.transforms
        self._watched = settings.transforms.watched
        self.store = settings.store()
        self._replay: Replay | None = None
        self._known: tuple[str, _Known] | None = None

    @cached_property
    def _source(self) -> Any:
        return self._settings.source()

    @cached_property
    def _writer(self) -> PendingWriter:
        return PendingWriter(self._settings.sink)

    @cached_property
    def _masker(self) -> Any:
        return self._transforms.masker()

    @cached_property
    def _erased(self) -> Any:
        return self._transforms.erased_now()

    def plan(self, replay_id: str) -> list[Shard]:
        """The shards that are not finished yet. A replay without its moment gets it, and its shards, now.

        None of one that has ended, also where it had to be given up: Spanner does not keep a moment forever.
        """
        replay = self.store.one(replay_id)
        try:
            if replay.tables and replay.total is None:
                self._plan_backfill(replay)
            elif not replay.read_at:
                now = self._now()
                self.store.plan(replay_id, timestamps.from_datetime(now), *self._cut(replay, now))
        except Exception as error:
            if not self._gave_up(replay, error):
                raise
        if self.store.one(replay_id).finished_at:
            return []
        return [shard for shard in self.store.shards(replay_id) if not shard.finished]

    def wait(
        self,
        replay_id: str,
        progress: Progress = lambda _: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Waits until a backfill may write: every change up to its moment is in BigQuery, or is a dead letter.

        Raises NotReady where the resume position stays behind it.
        """
        replay, began, said = self.store.one(replay_id), clock(), ""
        while replay.tables and not self._is_past(replay):
            if clock() - began > _PATIENCE_SECONDS:
                raise NotReady(f"the resume position of the streaming job to pass {replay.read_at}: `audit health`")
            if (position := self._settings.position() or "nowhere yet") != said:
                progress(f"waiting: the stream is at {position[:19]}, and must pass {str(replay.read_at)[:19]}")
                said = position
            sleep(_POLL_SECONDS)

    def run_shard(self, replay_id: str, number: int) -> None:
        """Brings a shard's rows into BigQuery, and finishes the replay with its last one."""
        shard = self.store.shard(replay_id, number)
        if shard.finished:
            return
        # What is needed of it does not change any more, and what it comes to is a sum over all of its shards.
        if (replay := self._replay) is None or replay.id != replay_id:
            replay = self._replay = self.store.one(replay_id)
        if shard.replayed is None:
            try:
                made = self._write(replay, shard)
            except Exception as error:
                if not self._gave_up(replay, error):
                    raise
                return
            shard = self.store.record(replay_id, number, made)
        self._commit(replay_id, shard)

    def _commit(self, replay_id: str, shard: Shard) -> None:
        if shard.write_stream:
            self._writer.commit(shard.write_stream)
        if self.store.finish_shard(replay_id, shard.number):
            self.finish(replay_id)

    def finish(self, replay_id: str) -> None:
        """Every shard is finished: the merge of the state takes the rows in, and dead letters are resolved."""
        replay = self.store.one(replay_id)
        if replay.finished_at or not replay.read_at or replay.total is None:
            return
        self._rewind(replay)
        self.store.finish(replay_id, self._resolve(replay) if replay.dead_letters else ())

    def _rewind(self, replay: Replay) -> None:
        sink = self._settings.sink
        if replay.read_at and replay.total:
            moment = timestamps.from_datetime(replay.read_at)
            # All of its rows came after its moment, the first of them maybe hours ago.
            rewind_merge(sink.bigquery(), sink.destinations, moment, moment)

    def _gave_up(self, replay: Replay, error: Exception) -> bool:
        """Ends a replay whose moment Spanner no longer keeps. False for any other error."""
        from google.api_core.exceptions import FailedPrecondition, OutOfRange

        began = self.store.one(replay.id).read_at
        if not isinstance(error, FailedPrecondition | OutOfRange) or not began or datetime.now(UTC) - began < _KEPT:
            return False
        while True:
            for shard in self.store.shards(replay.id):
                if shard.replayed is not None and not shard.finished:
                    self._commit(replay.id, shard)
            self._rewind(self.store.one(replay.id))
            if self.store.give_up(replay.id, _NOT_KEPT):
                return True

    def _resolve(self, replay: Replay) -> Sequence[str]:
        """Resolves the dead letters that the replay was for, once all that it selected is written."""
        written = sum(shard.replayed or 0 for shard in self.store.shards(replay.id))
        if not written or written != replay.total:
            return (_UNRESOLVED,)
        DeadLetterQueue(self._settings.dead_letters).resolve(replay.dead_letters)
        return ()

    # ------------------------------------------------------------------ Spanner

    def _now(self) -> datetime:
        """The time by Spanner's clock: the emulator's commits can be ahead of this machine's."""
        with self._source.snapshot() as snapshot:
            [(now,)] = snapshot.execute_sql(dialects.NOW)
        found: datetime = now
        return found

    def _plan_backfill(self, replay: Replay) -> None:
        """Records the moment and then the shards, a thousand at a time. What another run has recorded is continued."""
        if not replay.read_at:
            if self._settings.position() is None:
                raise NotReady("the streaming job to begin: a backfill reads a moment from which the stream continues")
            self.store.begin(replay.id, timestamps.from_datetime(self._now()))
        moment = self.store.one(replay.id).read_at
        assert moment
        tables, problems = [], []
        for name in replay.tables:
            at = self._table(replay, self._watched.of(name), moment)
            if hidden := Keys(self._watched.of(name), at.columns, at.keys).hidden:
                problems.append(
                    f"{name} has a key that masking hides ({', '.join(hidden)}), so it cannot be known which of its "
                    "rows BigQuery has: none was written."
                )
            else:
                tables.append((name, at))
        while True:
            shards = self._shards_of(tables, self.store.last_shard(replay.id))
            while some := list(islice(shards, _RECORDED_AT_ONCE)):
                if not self.store.extend(replay.id, some):
                    break
            else:
                return self.store.planned(replay.id, problems)
            if self.store.one(replay.id).total is not None:
                return None

    @staticmethod
    def _shards_of(tables: Sequence[tuple[str, TableAt]], last: Shard | None) -> Iterator[Shard]:
        """The shards behind the last one that is recorded."""
        number, reached = (last.number + 1, last.table) if last else (0, None)
        names = [name for name, _ in tables]
        for name, at in tables[names.index(reached) if reached else 0 :]:
            after = last.within.last if last and name == reached else None
            if last and name == reached and after is None:
                continue
            for each in at.cut(SHARD_ROWS, after):
                yield Shard(number=number, table=name, within=each)
                number += 1

    def _cut(self, replay: Replay, moment: datetime) -> tuple[list[Shard], list[str]]:
        """The shards, and what is to be said of the replay as a whole."""
        table, most = self._watched.payments, self._settings.most
        ranges = list(self._table(replay, table, moment).cut(SHARD_ROWS))
        total = sum(each.total for each in ranges)
        if total > most:
            return [], [
                f"a replay must be of at most {most:,} payments (replayMost), and {total:,} are selected: nothing was "
                "written. Narrow it by time, or raise replayMost in Pulumi.<stack>.yaml."
            ]
        problems = []
        if missing := len(replay.payments) - total if replay.payments else 0:
            problems.append(f"{missing} of the payments are not in Spanner: they were deleted, or never there.")
        return [Shard(number=number, table=table.name, within=each) for number, each in enumerate(ranges)], problems

    def _table(self, replay: Replay, table: WatchedTable, moment: datetime) -> TableAt:
        where = replay.selection.where(table, self._transforms.payment_states)
        return TableAt(self._source, table.name, moment, where, data_boost=self._settings.data_boost)

    def _write(self, replay: Replay, shard: Shard) -> Written:
        assert replay.read_at
        table = self._watched.of(shard.table)
        at = self._table(replay, table, replay.read_at)
        known, bytes_read = self._arrived(replay, shard, at) if replay.tables else (None, 0)
        problems: list[str] = []
        there: list[int] = []
        changes = list(self._changes(replay, shard, at, table, problems, known, there))
        batch, unfit = encoding.encode(changes, table) if changes else (None, [])
        problems += [_problem(change.keys, table, error.message) for change, error in unfit]
        if batch is None:
            return Written(problems=problems, there=len(there), bytes_read=bytes_read)
        without = {id(change) for change, _ in unfit}
        encoded = [change for change in changes if id(change) not in without]
        pending = self._writer.write(table.name, batch, at.columns)
        problems += [
            _problem(encoded[index].keys, table, f"BigQuery refuses the row: {why}.")
            for index, why in pending.refused.items()
        ]
        self._hand_over(replay, table, [x for number, x in enumerate(encoded) if number not in pending.refused])
        return Written(
            stream=pending.stream, rows=pending.rows, problems=problems, there=len(there), bytes_read=bytes_read
        )

    def _changes(
        self,
        replay: Replay,
        shard: Shard,
        at: TableAt,
        table: WatchedTable,
        problems: list[str],
        known: _Known | None,
        there: list[int],
    ) -> Iterator[Change]:
        """The shard's rows as changes, masked and enriched. One that fails there is a problem, and no change.

        A row that is `known` to BigQuery is `there`, and no change.
        """
        for number, row in enumerate(at.rows(shard.within)):
            if known and not known.keys.is_exact(row):
                problems.append(_problem(row, table, _NOT_KNOWN))
                continue
            if known and known.keys.of_row(row) in known.arrived.keys:
                there.append(number)
                continue
            change = _change(replay, shard, table, at.columns, row, number)
            try:
                self._masker.mask(change)
                kept = self._erased.current().redact(change, table)
                enrich(change, table, self._transforms.payment_states)
            except StepError as error:
                problems.append(_problem(row, table, error.message))
                continue
            if keep(change, self._transforms.ignored) and kept:
                yield change

    # ------------------------------------------------------------------ what BigQuery has already

    def _is_past(self, replay: Replay) -> bool:
        """Whether no change up to the moment can come any more. At the position itself one can."""
        position = self._settings.position()
        assert replay.read_at
        return position is not None and position > timestamps.from_datetime(replay.read_at)

    def _arrived(self, replay: Replay, shard: Shard, at: TableAt) -> tuple[_Known, int]:
        """What BigQuery has of this shard's keys, and the bytes that were read for it now."""
        if self._known and self._known[0] == replay.id and shard.number in self._known[1].shards:
            return self._known[1], 0
        if not self._is_past(replay):
            raise NotReady(f"the resume position of the streaming job to pass {replay.read_at}: `audit health`")
        assert replay.read_at
        last = self.store.shards_from(replay.id, shard.number, SHARDS_AT_ONCE, shard.table)[-1]
        sink, keys = self._settings.sink, Keys(self._watched.of(shard.table), at.columns, at.keys)
        found = keys.arrived(
            sink.bigquery(),
            sink.destinations,
            KeyRange(after=shard.within.after, last=last.within.last, total=0),
            replay.read_at,
            arrived.limit(self._settings.design_tps),
        )
        known = _Known(range(shard.number, last.number + 1), keys, found)
        self._known = replay.id, known
        return known, found.bytes_read

    def _hand_over(self, replay: Replay, table: WatchedTable, changes: list[Change]) -> None:
        """Before the stream is recorded: a shard that is done again is handed over again, none is left out.

        Nothing of a backfill: these payments ran long ago.
        """
        if self._settings.hand_over is None or replay.tables:
            return
        self._settings.hand_over.publish(
            [
                Handed(
                    puid=table.payment_in(change.keys, change.new) or "",
                    table=table.name,
                    state=str(change.enriched.get(tables.PAYMENT_STATE) or ""),
                    replay_id=replay.id,
                    reason=replay.reason,
                )
                for change in changes
            ]
        )


def _change(
    replay: Replay, shard: Shard, table: WatchedTable, columns: tuple[Column, ...], row: Row, number: int
) -> Change:
    assert replay.read_at
    keys = {column.name: row[column.name] for column in columns if column.is_primary_key}
    return Change(
        stream=table.change_stream,
        table=table.name,
        mod_type=MOD_TYPE,
        commit_timestamp=timestamps.from_datetime(replay.read_at),
        server_transaction_id=f"{REPLAY_TRANSACTION}{replay.id}",
        record_sequence=f"{shard.number:08d}",
        mod_index=number,
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=columns,
        keys=keys,
        new={name: value for name, value in row.items() if name not in keys},
        old={},
    )


def _problem(row: Row, table: WatchedTable, message: str) -> str:
    """A row that was not written, and why. An id that holds a card's number is not repeated."""
    puid = table.payment_in(row) or f"a row of {table.name}"
    return f"{'a payment with a card number as its id' if find_cards(puid) else puid}: {message}"
