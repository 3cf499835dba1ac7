"""The tables `replays` and `replay_shards` of the metadata database.

Whoever comes first with the read timestamp and its shards, and with a shard's write stream, is the one that counts:
each is a transaction that writes nothing where the value is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from google.cloud.spanner_v1 import COMMIT_TIMESTAMP, KeySet, param_types

from pipeline.replay.records import Replay, ReplayError, Selection, Shard
from pipeline.source.table_rows import KeyRange

# More is a sign of one cause, and each is kept with the replay.
MOST_PROBLEMS: Final = 100

_COLUMNS: Final = (
    "ReplayId", "RequestedBy", "Reason", "Payments", "RequestedAt", "ReadTimestamp", "Replayed", "Problems",
    "FinishedAt", "Selection", "Total", "DeadLetters",
)  # fmt: skip
_SHARD_COLUMNS: Final = ("Shard", "TableName", "AfterKey", "LastKey", "Total", "WriteStream", "Replayed", "FinishedAt")
_DONE: Final = (
    "(SELECT COALESCE(SUM(s.Total), 0) FROM replay_shards AS s WHERE s.ReplayId = r.ReplayId AND s.FinishedAt "
    "IS NOT NULL)"
)
_SELECT: Final = f"SELECT {', '.join(f'r.{name}' for name in _COLUMNS)}, {_DONE} FROM replays AS r"


class ReplayStore:
    """What is recorded of replays."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def add(self, replay_id: str, requested_by: str, reason: str, selection: Selection, letters: Sequence[str]) -> None:
        """Records a replay; one that is there stays as it is."""

        def insert(transaction: Any) -> None:
            if list(transaction.read("replays", ("ReplayId",), _key(replay_id))):
                return
            transaction.insert(
                "replays",
                ("ReplayId", "RequestedBy", "Reason", "Payments", "Selection", "DeadLetters", "RequestedAt"),
                [
                    (
                        *(replay_id, requested_by[:256], reason, list(selection.payments), selection.to_json()),
                        *(list(letters), COMMIT_TIMESTAMP),
                    )
                ],
            )

        self._database.run_in_transaction(insert)

    def one(self, replay_id: str) -> Replay:
        """A replay. Raises ReplayError where there is none of this id."""
        with self._database.snapshot() as snapshot:
            rows = list(
                snapshot.execute_sql(
                    f"{_SELECT} WHERE r.ReplayId = @id",
                    params={"id": replay_id},
                    param_types={"id": param_types.STRING},
                )
            )
        if not rows:
            raise ReplayError("there is no replay with this id. `audit replay list` has the last ones.")
        return _replay(rows[0])

    def latest(self, limit: int) -> list[Replay]:
        """The last replays, the newest first."""
        with self._database.snapshot() as snapshot:
            rows = snapshot.execute_sql(f"{_SELECT} ORDER BY r.RequestedAt DESC LIMIT {int(limit)}")
            return [_replay(row) for row in rows]

    def plan(self, replay_id: str, read_at: str, shards: Sequence[Shard], problems: Sequence[str]) -> None:
        """Sets the moment of the read and the shards, unless another run has."""
        rows = [
            (replay_id, each.number, each.table, each.within.after, each.within.last, each.within.total)
            for each in shards
        ]

        def first(transaction: Any) -> None:
            [(recorded,)] = transaction.read("replays", ("ReadTimestamp",), _key(replay_id))
            if recorded is None:
                values = (replay_id, read_at, sum(each.within.total for each in shards), list(problems))
                transaction.update("replays", ("ReplayId", "ReadTimestamp", "Total", "Problems"), [values])
                if rows:
                    transaction.insert("replay_shards", ("ReplayId", *_SHARD_COLUMNS[:5]), rows)

        self._database.run_in_transaction(first)

    def shards(self, replay_id: str) -> list[Shard]:
        """The shards of a replay that has its moment, in order."""
        with self._database.snapshot() as snapshot:
            return [_shard(row) for row in snapshot.read("replay_shards", _SHARD_COLUMNS, _shards_of(replay_id))]

    def shard(self, replay_id: str, number: int) -> Shard:
        with self._database.snapshot() as snapshot:
            [row] = snapshot.read("replay_shards", _SHARD_COLUMNS, _key(replay_id, number))
        return _shard(row)

    def record(
        self, replay_id: str, number: int, stream: str, replayed: int, problems: Sequence[str], problem_count: int
    ) -> Shard:
        """Makes a stream the shard's, unless another run's is. Gives the shard as it is then."""

        def first(transaction: Any) -> None:
            [(recorded,)] = transaction.read("replay_shards", ("Replayed",), _key(replay_id, number))
            if recorded is None:
                columns = ("ReplayId", "Shard", "WriteStream", "Replayed", "Problems", "ProblemCount")
                values = (replay_id, number, stream or None, replayed, list(problems)[:MOST_PROBLEMS], problem_count)
                transaction.update("replay_shards", columns, [values])

        self._database.run_in_transaction(first)
        return self.shard(replay_id, number)

    def finish_shard(self, replay_id: str, number: int) -> bool:
        """A shard's rows are in BigQuery. Whether it was the last one of the replay."""

        def work(transaction: Any) -> bool:
            transaction.update(
                "replay_shards", ("ReplayId", "Shard", "FinishedAt"), [(replay_id, number, COMMIT_TIMESTAMP)]
            )
            rows = transaction.read("replay_shards", ("Shard", "FinishedAt"), _shards_of(replay_id))
            return all(finished or shard == number for shard, finished in rows)

        return bool(self._run(work))

    def finish(self, replay_id: str, more: Sequence[str] = ()) -> None:
        """Every shard is finished. Adds up what they came to; a replay that is finished stays as it is."""

        def work(transaction: Any) -> None:
            [(found, finished)] = transaction.read("replays", ("Problems", "FinishedAt"), _key(replay_id))
            if finished:
                return
            columns = ("Replayed", "Problems", "ProblemCount")
            rows = list(transaction.read("replay_shards", columns, _shards_of(replay_id)))
            problems = [*more, *(problem for _, named, _ in rows for problem in named or ()), *(found or ())]
            left_out = sum(count or 0 for *_, count in rows) - sum(len(named or ()) for _, named, _ in rows)
            left_out += max(0, len(problems) - MOST_PROBLEMS)
            more_of_them = [f"{left_out:,} more payments were not written."] if left_out else []
            written = sum(replayed or 0 for replayed, *_ in rows)
            transaction.update(
                "replays",
                ("ReplayId", "Replayed", "Problems", "FinishedAt"),
                [(replay_id, written, problems[:MOST_PROBLEMS] + more_of_them, COMMIT_TIMESTAMP)],
            )

        self._run(work)

    def _run(self, work: Callable[[Any], Any]) -> Any:
        return self._database.run_in_transaction(work)


def _key(*key: Any) -> Any:
    return KeySet(keys=[list(key)])


def _shards_of(replay_id: str) -> Any:
    from google.cloud.spanner_v1 import KeyRange as Keys

    return KeySet(ranges=[Keys(start_closed=[replay_id], end_closed=[replay_id])])


def _replay(row: Sequence[Any]) -> Replay:
    values = dict(zip((*_COLUMNS, "Done"), row, strict=True))
    finished, payments = values["FinishedAt"], tuple(values["Payments"])
    chosen = values["Selection"]
    return Replay(
        id=values["ReplayId"],
        requested_by=values["RequestedBy"],
        reason=values["Reason"],
        payments=payments,
        requested_at=values["RequestedAt"],
        read_at=values["ReadTimestamp"],
        replayed=values["Replayed"] if finished else None,
        problems=tuple(values["Problems"] or ()),
        finished_at=finished,
        selection=Selection.from_json(chosen) if chosen else Selection(payments=payments),
        total=values["Total"],
        done=values["Done"],
        dead_letters=tuple(values["DeadLetters"] or ()),
        state="finished" if finished else "running" if values["ReadTimestamp"] else "waiting",
    )


def _shard(row: Sequence[Any]) -> Shard:
    values = dict(zip(_SHARD_COLUMNS, row, strict=True))
    return Shard(
        number=values["Shard"],
        table=values["TableName"],
        within=KeyRange(after=values["AfterKey"], last=values["LastKey"], total=values["Total"]),
        write_stream=values["WriteStream"],
        replayed=values["Replayed"],
        finished=values["FinishedAt"] is not None,
    )
