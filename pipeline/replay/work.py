"""A replay: cut into shards at one moment; each shard is read, masked, enriched and appended, and committed once.

    plan ─► each shard: read → mask → enrich → filter → encode → pending stream ─► hand over ─► record ─► commit

Every step can be repeated by anybody at any time: the moment and the shards are those that were recorded first; of a
shard's streams only the one that was recorded first is ever committed, and committing it again does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from contract import tables, timestamps
from contract.changes import REPLAY_TRANSACTION, Change, Column, Row, StepError
from contract.watched import WatchedTable
from pipeline.replay.hand_over import Handed
from pipeline.replay.records import MOD_TYPE, Replay, Shard
from pipeline.replay.settings import ReplaySettings
from pipeline.sink import rows as encoding
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.sink.pending import PendingWriter
from pipeline.sink.rewind import rewind_merge
from pipeline.source.table_rows import TableAt
from pipeline.transforms.cards import find_cards
from pipeline.transforms.enrich import enrich
from pipeline.transforms.filter import keep

# What a run has in memory at once, and what is done again after a failure.
SHARD_ROWS: Final = 5_000
_UNRESOLVED: Final = (
    "the dead letters stay: not all that was selected is written. A payment that is not found by the time of its "
    "change has changed again since, or was deleted: name it, or discard the dead letter once its later changes are "
    "there."
)


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What became of a shard's rows. `problems` say which payments were not written, and why."""

    stream: str
    rows: int
    problems: list[str]


class Replayer:
    """Runs replays. Raises what Spanner's and BigQuery's clients raise, NotReady, ReplayError. For one thread."""

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self._transforms = settings.transforms
        self._watched = settings.transforms.watched
        self.store = settings.store()

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
        """The shards that are not finished yet. A replay without its moment gets it, and its shards, now."""
        replay = self.store.one(replay_id)
        if not replay.read_at:
            with self._source.snapshot() as snapshot:
                [(now,)] = snapshot.execute_sql("SELECT CURRENT_TIMESTAMP()")
            self.store.plan(replay_id, timestamps.from_datetime(now), *self._cut(replay, now))
        return [shard for shard in self.store.shards(replay_id) if not shard.finished]

    def run_shard(self, replay_id: str, number: int) -> None:
        """Brings a shard's rows into BigQuery, and finishes the replay with its last one."""
        shard = self.store.shard(replay_id, number)
        if shard.finished:
            return
        replay = self.store.one(replay_id)
        if shard.replayed is None:
            made = self._write(replay, shard)
            problems, count = made.problems, len(made.problems)
            shard = self.store.record(replay_id, number, made.stream, made.rows, problems, count)
        if shard.write_stream:
            self._writer.commit(shard.write_stream)
        if self.store.finish_shard(replay_id, number):
            self.finish(replay_id)

    def finish(self, replay_id: str) -> None:
        """Every shard is finished: the merge of the state takes the rows in, and dead letters are resolved."""
        replay = self.store.one(replay_id)
        if replay.finished_at or not replay.read_at:
            return
        sink = self._settings.sink
        if replay.total:
            rewind_merge(sink.bigquery(), sink.destinations, timestamps.from_datetime(replay.read_at))
        self.store.finish(replay_id, self._resolve(replay) if replay.dead_letters else ())

    def _resolve(self, replay: Replay) -> Sequence[str]:
        """Resolves the dead letters that the replay was for, once all that it selected is written."""
        written = sum(shard.replayed or 0 for shard in self.store.shards(replay.id))
        if not written or written != replay.total:
            return (_UNRESOLVED,)
        DeadLetterQueue(self._settings.dead_letters).resolve(replay.dead_letters)
        return ()

    # ------------------------------------------------------------------ Spanner

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

    def _write(self, replay: Replay, shard: Shard) -> _Written:
        assert replay.read_at
        table = self._watched.of(shard.table)
        at = self._table(replay, table, replay.read_at)
        problems: list[str] = []
        changes = list(self._changes(replay, shard, at, table, problems))
        batch, unfit = encoding.encode(changes, table) if changes else (None, [])
        problems += [_problem(change.keys, table, error.message) for change, error in unfit]
        if batch is None:
            return _Written(stream="", rows=0, problems=problems)
        without = {id(change) for change, _ in unfit}
        encoded = [change for change in changes if id(change) not in without]
        pending = self._writer.write(table.name, batch, at.columns)
        problems += [
            _problem(encoded[index].keys, table, f"BigQuery refuses the row: {why}.")
            for index, why in pending.refused.items()
        ]
        self._hand_over(replay, table, [x for number, x in enumerate(encoded) if number not in pending.refused])
        return _Written(stream=pending.stream, rows=pending.rows, problems=problems)

    def _changes(
        self, replay: Replay, shard: Shard, at: TableAt, table: WatchedTable, problems: list[str]
    ) -> Iterator[Change]:
        """The shard's rows as changes, masked and enriched. One that fails there is a problem, and no change."""
        for number, row in enumerate(at.rows(shard.within)):
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

    def _hand_over(self, replay: Replay, table: WatchedTable, changes: list[Change]) -> None:
        """Before the stream is recorded: a shard that is done again is handed over again, none is left out."""
        if self._settings.hand_over is None:
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
    """A payment that was not written, and why. An id that holds a card's number is not repeated."""
    puid = table.payment_in(row) or ""
    return f"{'a payment with a card number as its id' if find_cards(puid) else puid}: {message}"
