"""The tables `replays` and `replay_shards` of the metadata database.

Whoever comes first with the read timestamp and its shards, and with a shard's write stream, is the one that counts:
each is a transaction that writes nothing where the value is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from google.cloud.spanner_v1 import COMMIT_TIMESTAMP, KeySet, param_types

from contract.changes import BACKFILL, kind_of
from pipeline.replay.records import Replay, ReplayError, Selection, Shard, Written
from pipeline.source.table_rows import KeyRange

# More is a sign of one cause, and each is kept with the replay.
MOST_PROBLEMS: Final = 100

_COLUMNS: Final = (
    "ReplayId", "RequestedBy", "Reason", "Payments", "RequestedAt", "ReadTimestamp", "Replayed", "Problems",
    "FinishedAt", "Selection", "Total", "DeadLetters", "Tables",
)  # fmt: skip
_SHARD_COLUMNS: Final = ("Shard", "TableName", "AfterKey", "LastKey", "Total", "WriteStream", "Replayed", "FinishedAt")
_OF_SHARDS: Final = {
    "Done": "COALESCE(SUM(s.Total), 0)",
    "There": "COALESCE(SUM(s.AlreadyThere), 0)",
    "Bytes": "COALESCE(SUM(s.BytesRead), 0)",
    "LastFinishedAt": "MAX(s.FinishedAt)",
}
_FINISHED: Final = "FROM replay_shards AS s WHERE s.ReplayId = r.ReplayId AND s.FinishedAt IS NOT NULL"
_SELECTED: Final = (
    *(f"r.{name}" for name in _COLUMNS),
    *(f"(SELECT {value} {_FINISHED}) AS {name}" for name, value in _OF_SHARDS.items()),
)
_SELECT: Final = f"SELECT {', '.join(_SELECTED)} FROM replays AS r"


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

    def add_backfill(self, requested_by: str, reason: str, tables: Sequence[str], *, again: bool) -> str:
        """Records a backfill of these tables, and gives its id. Where there is one of them already, that one's: one
        that is not finished, or, unless it is to be done `again`, one that is complete.

        Raises ReplayError where one that is not finished is of some of the tables, and of others.
        """
        known = f"SELECT r.ReplayId, r.Tables, r.FinishedAt, r.Total, (SELECT {_OF_SHARDS['Done']} {_FINISHED})"

        def work(transaction: Any) -> str:
            rows = list(transaction.execute_sql(f"{known} FROM replays AS r WHERE r.Tables IS NOT NULL"))
            for replay_id, of, finished, total, done in rows:
                if finished is None and set(of) == set(tables):
                    return str(replay_id)
                if finished is None and set(of) & set(tables):
                    raise ReplayError(
                        f"one backfill of a table may run at a time, and {replay_id} is not finished: it is of "
                        f"{', '.join(of)}. See `audit backfill show {replay_id}`, and start this one after it."
                    )
                if finished and not again and total == done and set(of) >= set(tables):
                    return str(replay_id)
            made = f"{BACKFILL}{len(rows) + 1}"
            columns = ("ReplayId", "RequestedBy", "Reason", "Payments", "Tables", "RequestedAt")
            transaction.insert(
                "replays", columns, [(made, requested_by[:256], reason, [], list(tables), COMMIT_TIMESTAMP)]
            )
            return made

        return str(self._run(work))

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

    def latest(self, limit: int, *, backfills: bool = False, unfinished: bool = False) -> list[Replay]:
        """The last replays, the newest first: all, or the backfills among them, or those that are not finished."""
        conditions = [
            *(["r.Tables IS NOT NULL"] if backfills else []),
            *(["r.FinishedAt IS NULL"] if unfinished else []),
        ]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        with self._database.snapshot() as snapshot:
            rows = snapshot.execute_sql(f"{_SELECT}{where} ORDER BY r.RequestedAt DESC LIMIT {int(limit)}")
            return [_replay(row) for row in rows]

    def plan(self, replay_id: str, read_at: str, shards: Sequence[Shard], problems: Sequence[str]) -> None:
        """Sets the moment of the read and the shards, unless another run has."""

        def first(transaction: Any) -> None:
            [(recorded,)] = transaction.read("replays", ("ReadTimestamp",), _key(replay_id))
            if recorded is None:
                values = (replay_id, read_at, sum(each.within.total for each in shards), list(problems))
                transaction.update("replays", ("ReplayId", "ReadTimestamp", "Total", "Problems"), [values])
                if shards:
                    transaction.insert("replay_shards", ("ReplayId", *_SHARD_COLUMNS[:5]), _rows(replay_id, shards))

        self._database.run_in_transaction(first)

    def begin(self, replay_id: str, read_at: str) -> None:
        """Sets the moment of the read, unless another run has. The shards come after it, in parts."""

        def first(transaction: Any) -> None:
            [(recorded,)] = transaction.read("replays", ("ReadTimestamp",), _key(replay_id))
            if recorded is None:
                transaction.update("replays", ("ReplayId", "ReadTimestamp"), [(replay_id, read_at)])

        self._run(first)

    def extend(self, replay_id: str, shards: Sequence[Shard]) -> bool:
        """Adds shards behind those that are there. False where another run was quicker: nothing is added then."""

        def work(transaction: Any) -> bool:
            [(total,)] = transaction.read("replays", ("Total",), _key(replay_id))
            [(last,)] = transaction.execute_sql(
                "SELECT MAX(Shard) FROM replay_shards WHERE ReplayId = @id",
                params={"id": replay_id},
                param_types={"id": param_types.STRING},
            )
            if total is not None or (-1 if last is None else last) != shards[0].number - 1:
                return False
            transaction.insert("replay_shards", ("ReplayId", *_SHARD_COLUMNS[:5]), _rows(replay_id, shards))
            return True

        return bool(self._run(work))

    def last_shard(self, replay_id: str) -> Shard | None:
        """The last shard that is recorded."""
        with self._database.snapshot() as snapshot:
            rows = list(
                snapshot.execute_sql(
                    f"SELECT {', '.join(_SHARD_COLUMNS)} FROM replay_shards WHERE ReplayId = @id "
                    "ORDER BY Shard DESC LIMIT 1",
                    params={"id": replay_id},
                    param_types={"id": param_types.STRING},
                )
            )
        return _shard(rows[0]) if rows else None

    def planned(self, replay_id: str, problems: Sequence[str]) -> None:
        """Every shard is recorded: sets how many rows they have, unless another run has."""

        def work(transaction: Any) -> None:
            [(total,)] = transaction.read("replays", ("Total",), _key(replay_id))
            if total is None:
                rows = transaction.read("replay_shards", ("Total",), _shards_of(replay_id))
                values = (replay_id, sum(rows_of for (rows_of,) in rows), list(problems))
                transaction.update("replays", ("ReplayId", "Total", "Problems"), [values])

        self._run(work)

    def shards(self, replay_id: str) -> list[Shard]:
        """The shards of a replay that has its moment, in order."""
        with self._database.snapshot() as snapshot:
            return [_shard(row) for row in snapshot.read("replay_shards", _SHARD_COLUMNS, _shards_of(replay_id))]

    def shards_from(self, replay_id: str, number: int, most: int, table: str) -> list[Shard]:
        """A shard and those that follow it in its table, `most` in all at the most."""
        from google.cloud.spanner_v1 import KeyRange as Keys

        keys = KeySet(ranges=[Keys(start_closed=[replay_id, number], end_open=[replay_id, number + most])])
        with self._database.snapshot() as snapshot:
            found = [_shard(row) for row in snapshot.read("replay_shards", _SHARD_COLUMNS, keys)]
        return [shard for shard in found if shard.table == table]

    def shard(self, replay_id: str, number: int) -> Shard:
        with self._database.snapshot() as snapshot:
            [row] = snapshot.read("replay_shards", _SHARD_COLUMNS, _key(replay_id, number))
        return _shard(row)

    def record(self, replay_id: str, number: int, made: Written) -> Shard:
        """Makes a stream the shard's, unless another run's is. Gives the shard as it is then.

        Raises ReplayError where the replay was given up meanwhile: what is not recorded by then is never committed.
        """

        def first(transaction: Any) -> None:
            [(recorded,)] = transaction.read("replay_shards", ("Replayed",), _key(replay_id, number))
            if recorded is None:
                [(ended,)] = transaction.read("replays", ("FinishedAt",), _key(replay_id))
                if ended:
                    raise ReplayError(f"{replay_id} has ended without this shard. Start another one.")
                values = {
                    "ReplayId": replay_id,
                    "Shard": number,
                    "WriteStream": made.stream or None,
                    "Replayed": made.rows,
                    "Problems": made.problems[:MOST_PROBLEMS],
                    "ProblemCount": len(made.problems),
                    "AlreadyThere": made.there,
                    "BytesRead": made.bytes_read,
                }
                transaction.update("replay_shards", tuple(values), [tuple(values.values())])

        self._database.run_in_transaction(first)
        return self.shard(replay_id, number)

    def finish_shard(self, replay_id: str, number: int) -> bool:
        """A shard's rows are in BigQuery. Whether none of the replay's is left; two at once can both be the last."""
        with self._database.batch() as batch:
            batch.update("replay_shards", ("ReplayId", "Shard", "FinishedAt"), [(replay_id, number, COMMIT_TIMESTAMP)])
        # Outside: in the same transaction every shard would wait for every other.
        with self._database.snapshot() as snapshot:
            left = snapshot.execute_sql(
                "SELECT 1 FROM replay_shards WHERE ReplayId = @id AND FinishedAt IS NULL LIMIT 1",
                params={"id": replay_id},
                param_types={"id": param_types.STRING},
            )
            return not list(left)

    def finish(self, replay_id: str, more: Sequence[str] = ()) -> None:
        """Every shard is finished. Adds up what they came to; a replay that is finished stays as it is."""
        self._run(lambda transaction: _end(transaction, replay_id, more))

    def give_up(self, replay_id: str, why: str) -> bool:
        """Ends a replay whose other shards can never be done. Nothing that is not recorded by now is ever committed.

        False, and nothing is done, while a shard is recorded and not finished: its rows may be there or not.
        """

        def work(transaction: Any) -> bool:
            rows = list(transaction.read("replay_shards", ("Replayed", "FinishedAt"), _shards_of(replay_id)))
            if any(replayed is not None and finished is None for replayed, finished in rows):
                return False
            _end(transaction, replay_id, [why])
            return True

        return bool(self._run(work))

    def _run(self, work: Callable[[Any], Any]) -> Any:
        return self._database.run_in_transaction(work)


def _end(transaction: Any, replay_id: str, more: Sequence[str]) -> None:
    [(found, finished)] = transaction.read("replays", ("Problems", "FinishedAt"), _key(replay_id))
    if finished:
        return
    columns = ("Replayed", "Problems", "ProblemCount")
    rows = list(transaction.read("replay_shards", columns, _shards_of(replay_id)))
    problems = [*more, *(problem for _, named, _ in rows for problem in named or ()), *(found or ())]
    left_out = sum(count or 0 for *_, count in rows) - sum(len(named or ()) for _, named, _ in rows)
    left_out += max(0, len(problems) - MOST_PROBLEMS)
    what = "rows" if kind_of(replay_id) == "backfill" else "payments"
    more_of_them = [f"{left_out:,} more {what} were not written."] if left_out else []
    written = sum(replayed or 0 for replayed, *_ in rows)
    transaction.update(
        "replays",
        ("ReplayId", "Replayed", "Problems", "FinishedAt"),
        [(replay_id, written, problems[:MOST_PROBLEMS] + more_of_them, COMMIT_TIMESTAMP)],
    )


def _rows(replay_id: str, shards: Sequence[Shard]) -> list[tuple[Any, ...]]:
    return [
        (replay_id, each.number, each.table, each.within.after, each.within.last, each.within.total) for each in shards
    ]


def _key(*key: Any) -> Any:
    return KeySet(keys=[list(key)])


def _shards_of(replay_id: str) -> Any:
    from google.cloud.spanner_v1 import KeyRange as Keys

    return KeySet(ranges=[Keys(start_closed=[replay_id], end_closed=[replay_id])])


def _replay(row: Sequence[Any]) -> Replay:
    values = dict(zip((*_COLUMNS, *_OF_SHARDS), row, strict=True))
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
        kind=kind_of(values["ReplayId"]),
        tables=tuple(values["Tables"] or ()),
        there=values["There"],
        bytes_read=values["Bytes"],
        moved_at=finished or values["LastFinishedAt"] or values["ReadTimestamp"] or values["RequestedAt"],
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
