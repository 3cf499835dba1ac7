"""What is recorded of erasures: the tables `erasures` and `erased` of the metadata database."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from contract.errors import AuditError
from support.connection import Connection
from support.metadata import metadata_database

State = Literal["waiting", "running", "finished"]
# Rows of a commit, far below what Spanner takes: https://cloud.google.com/spanner/quotas#limits-for
_AT_ONCE: Final = 5_000
_COLUMNS: Final = ("ErasureId", "RequestedBy", "Reason", "Customer", "RequestedAt", "Report", "FinishedAt")


class ErasureError(AuditError, ValueError):
    """The erasure cannot be; the message gives the rule and the remedy."""

    exit_code = 2


class ErasureWaits(AuditError):
    """The erasure is not finished, and can be run again; the message says what it waits for."""


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """An erasure and what it did. `customer` is None once it is finished: then nothing knows the customer any more.

    `report` counts what was redacted or deleted, by where it was, and says what still holds it and until when.
    """

    id: str
    requested_by: str
    reason: str
    customer: str | None
    requested_at: datetime
    finished_at: datetime | None
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> State:
        return "finished" if self.finished_at else "running" if self.report else "waiting"


def public(erasure: Erasure) -> dict[str, Any]:
    """An erasure as it may be shown: without the customer."""
    return {name: value for name, value in asdict(erasure).items() if name != "customer"} | {"state": erasure.state}


class Erasures:
    """The records of one stack. Raises what Spanner's client raises."""

    def __init__(self, connection: Connection, role: str = "") -> None:
        self._database = metadata_database(connection, role)

    def add(self, erasure_id: str, requested_by: str, reason: str, customer: str) -> Erasure:
        """Records an erasure; one that is there stays as it is."""
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP

        def insert(transaction: Any) -> None:
            if list(transaction.read("erasures", ("ErasureId",), _keys([erasure_id]))):
                return
            values = (erasure_id, requested_by[:256], reason, customer, COMMIT_TIMESTAMP)
            transaction.insert("erasures", ("ErasureId", "RequestedBy", "Reason", "Customer", "RequestedAt"), [values])

        self._database.run_in_transaction(insert)
        return self.one(erasure_id)

    def one(self, erasure_id: str) -> Erasure:
        """Raises ErasureError where there is none of this id."""
        with self._database.snapshot() as snapshot:
            rows = list(snapshot.read("erasures", _COLUMNS, _keys([erasure_id])))
        if not rows:
            raise ErasureError("there is no erasure with this id. `audit erase list` has them.")
        return _erasure(dict(zip(_COLUMNS, rows[0], strict=True)))

    def every(self) -> list[Erasure]:
        """All of them, the newest first, without their customers: a reader needs no access to these."""
        from google.cloud.spanner_v1 import KeySet

        columns = [name for name in _COLUMNS if name != "Customer"]
        with self._database.snapshot() as snapshot:
            rows = snapshot.read("erasures", columns, KeySet(all_=True))
            found = [_erasure({"Customer": None} | dict(zip(columns, row, strict=True))) for row in rows]
        return sorted(found, key=lambda each: each.requested_at, reverse=True)

    def oldest_unfinished(self) -> datetime | None:
        """When the oldest erasure was requested that is not finished; None where all are."""
        with self._database.snapshot() as snapshot:
            sql = "SELECT MIN(RequestedAt) FROM erasures WHERE FinishedAt IS NULL"
            [(found,)] = snapshot.execute_sql(sql)
        at: datetime | None = found
        return at

    def entomb(self, erasure_id: str, tokens: Mapping[str, str]) -> datetime:
        """Adds tokens (token → kind); gives the commit timestamp of the last new one, of all where none is new.

        From then on all that reads them redacts.
        """
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP, KeySet

        with self._database.snapshot() as snapshot:
            known = dict(snapshot.read("erased", ("Token", "ErasedAt"), KeySet(keys=[[token] for token in tokens])))
        latest: datetime | None = max(known.values(), default=None)
        missing = [token for token in tokens if token not in known]
        for some in batched(missing):
            with self._database.batch() as batch:
                batch.insert_or_update(
                    "erased",
                    ("Token", "Kind", "ErasureId", "ErasedAt"),
                    [(token, tokens[token], erasure_id, COMMIT_TIMESTAMP) for token in some],
                )
            latest = batch.committed
        assert latest is not None
        return latest

    def tokens_since(self, at: datetime) -> frozenset[str]:
        """The tokens of who was erased after a moment."""
        with self._database.snapshot() as snapshot:
            rows = snapshot.execute_sql(
                "SELECT Token FROM erased WHERE ErasedAt > @at", params={"at": at}, param_types={"at": _timestamp()}
            )
            return frozenset(token for (token,) in rows)

    def note(self, erasure_id: str, report: Mapping[str, Any]) -> None:
        """Keeps what an erasure has done so far."""
        with self._database.batch() as batch:
            batch.update("erasures", ("ErasureId", "Report"), [(erasure_id, json.dumps(report))])

    def payments(self, erasure_id: str) -> set[str]:
        """The payments that an erasure has found so far, in any of its runs."""
        with self._database.snapshot() as snapshot:
            return {payment for (payment,) in snapshot.read("erasure_payments", ("Payment",), _of(erasure_id))}

    def remember(self, erasure_id: str, payments: Collection[str]) -> None:
        """Keeps payments until the erasure is finished."""
        for some in batched(sorted(payments)):
            with self._database.batch() as batch:
                batch.insert_or_update("erasure_payments", ("ErasureId", "Payment"), [(erasure_id, p) for p in some])

    def finish(self, erasure_id: str, report: Mapping[str, Any]) -> None:
        """Nothing of the customer is left; its id goes as well, and which its payments were."""
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP

        with self._database.batch() as batch:
            batch.delete("erasure_payments", _of(erasure_id))
            columns = ("ErasureId", "Customer", "Report", "FinishedAt")
            batch.update("erasures", columns, [(erasure_id, None, json.dumps(report), COMMIT_TIMESTAMP)])

    # ------------------------------------------------------------------ replays

    def unfinished_replays(self, before: datetime) -> list[str]:
        """Replays that read Spanner before a time and are not finished: what they wrote may not be seen yet."""
        with self._database.snapshot() as snapshot:
            rows = snapshot.execute_sql(
                "SELECT ReplayId FROM replays WHERE FinishedAt IS NULL AND ReadTimestamp < @before",
                params={"before": before},
                param_types={"before": _timestamp()},
            )
            return [replay_id for (replay_id,) in rows]

    def forget_in_replays(self, customer: str) -> int:
        """Takes the customer out of what replays selected. Says of how many."""

        def work(transaction: Any) -> int:
            rows = transaction.execute_sql("SELECT ReplayId, Selection FROM replays WHERE Selection IS NOT NULL")
            found = [(i, json.loads(text)) for i, text in rows if text]
            mine = [
                (i, json.dumps(each | {"customer": "erased"})) for i, each in found if each.get("customer") == customer
            ]
            if mine:
                transaction.update("replays", ("ReplayId", "Selection"), mine)
            return len(mine)

        return int(self._database.run_in_transaction(work))


def _erasure(values: Mapping[str, Any]) -> Erasure:
    return Erasure(
        id=values["ErasureId"],
        requested_by=values["RequestedBy"],
        reason=values["Reason"],
        customer=values["Customer"],
        requested_at=values["RequestedAt"],
        finished_at=values["FinishedAt"],
        report=json.loads(values["Report"]) if values["Report"] else {},
    )


def batched(items: Sequence[str], most: int = _AT_ONCE) -> Iterator[Sequence[str]]:
    """Parts of at most this many, in order."""
    return (items[first : first + most] for first in range(0, len(items), most))


def _of(erasure_id: str) -> Any:
    from google.cloud.spanner_v1 import KeyRange, KeySet

    return KeySet(ranges=[KeyRange(start_closed=[erasure_id], end_closed=[erasure_id])])


def _keys(*keys: Any) -> Any:
    from google.cloud.spanner_v1 import KeySet

    return KeySet(keys=[list(key) for key in keys])


def _timestamp() -> Any:
    from google.cloud.spanner_v1 import param_types

    return param_types.TIMESTAMP
