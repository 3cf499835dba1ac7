"""Commits to Spanner whose outcome is always known, over raw gRPC.

A commit of a transaction that was begun can be sent again: Spanner answers with the first commit's timestamp. So when
an answer is lost (a frozen server, a broken connection, a killed writer), the same commit is sent until it is answered.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc

from contract import timestamps
from contract.errors import AuditError
from local.traffic.simulator import Mutation, Operation

_SERVICE: Final = "/google.spanner.v1.Spanner/"
_CALL_SECONDS: Final = 5.0
_LONGEST_PAUSE: Final = 1.0
_LOST: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


class CommitError(AuditError):
    """Spanner refuses a commit permanently. The message has its code and the remedy, no row's data."""


class Unanswered(Exception):
    """Stopped before Spanner answered: whether the commit happened is not known yet."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A commit that was sent: enough to send it again, from another process too."""

    session: str
    transaction: bytes

    def to_dict(self) -> dict[str, str]:
        return {"session": self.session, "transaction": base64.b64encode(self.transaction).decode()}

    @classmethod
    def from_dict(cls, texts: dict[str, str]) -> Attempt:
        return cls(session=texts["session"], transaction=base64.b64decode(texts["transaction"]))


class Committer:
    """Commits operations one after another in one session. Not safe for use by several threads.

    `give_up` is asked after each answer that was lost.
    """

    def __init__(self, endpoint: str, database: str, give_up: Callable[[], bool]) -> None:
        from google.cloud.spanner_v1.types import commit_response, spanner, transaction

        self.aborted = 0
        self.repeated = 0
        self._types: Any = spanner
        self._database = database
        self._give_up = give_up
        self._session = ""
        self._channel = grpc.insecure_channel(endpoint)
        self._create = self._method("CreateSession", spanner.Session)
        self._begin = self._method("BeginTransaction", transaction.Transaction)
        self._commit = self._method("Commit", commit_response.CommitResponse)

    def commit(
        self, operation: Operation, *, attempting: Callable[[Attempt], None], earlier: Attempt | None = None
    ) -> str:
        """Commits the operation exactly once and returns the commit timestamp, nine fractional digits.

        `attempting` is called before each attempt that can take effect. `earlier` is an attempt whose answer was lost.
        Raises CommitError where Spanner refuses, Unanswered when stopped before that.
        """
        while True:
            attempt = earlier or self._attempt()
            earlier = None
            attempting(attempt)
            request = self._types.CommitRequest.pb()(session=attempt.session, transaction_id=attempt.transaction)
            for mutation in operation.mutations:
                _add(request, mutation)
            try:
                answer = self._until_answered(self._commit, request)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.ABORTED:
                    raise _refused(error, operation) from None
                self.aborted += 1
                continue
            at = answer.commit_timestamp
            return timestamps.from_nanos(at.seconds * 1_000_000_000 + at.nanos)

    def close(self) -> None:
        self._channel.close()

    def _attempt(self) -> Attempt:
        try:
            if not self._session:
                request = self._types.CreateSessionRequest.pb()(database=self._database)
                self._session = self._until_answered(self._create, request).name
            begin = self._types.BeginTransactionRequest.pb()(session=self._session)
            begin.options.read_write.SetInParent()
            transaction = self._until_answered(self._begin, begin).id
        except grpc.RpcError as error:
            raise CommitError(
                f"Spanner does not let {self._database} be written to: {error.code().name}. "
                "Is the stack up? Look with `audit local status`."
            ) from None
        return Attempt(session=self._session, transaction=transaction)

    def _until_answered(self, call: Callable[..., Any], request: Any) -> Any:
        """Sends a request until there is an answer to it. Raises RpcError for an answer that says no."""
        pause = 0.05
        while True:
            try:
                return call(request, timeout=_CALL_SECONDS)
            except grpc.RpcError as error:
                if error.code() not in _LOST:
                    raise
            self.repeated += 1
            if self._give_up():
                raise Unanswered
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _method(self, name: str, answer: Any) -> Callable[..., Any]:
        call: Callable[..., Any] = self._channel.unary_unary(
            _SERVICE + name,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=answer.pb().FromString,
        )
        return call


def _refused(error: grpc.RpcError, operation: Operation) -> CommitError:
    return CommitError(
        f"Spanner refused operation {operation.number}: {error.code().name}. The database has rows that the ledger "
        "does not have, or has lost some: use another --seed, or start from scratch with `audit local down` and "
        "`audit local up`."
    )


def _add(request: Any, mutation: Mutation) -> None:
    added = request.mutations.add()
    if mutation.kind == "delete":
        added.delete.table = mutation.table
        added.delete.key_set.keys.add().values.add().string_value = mutation.puid
        return
    write = getattr(added, mutation.kind)
    write.table = mutation.table
    write.columns.extend(mutation.values)
    row = write.values.add()
    for value in mutation.values.values():
        if value is None:
            row.values.add().null_value = 0
        elif isinstance(value, bool):
            row.values.add().bool_value = value
        elif isinstance(value, float):
            row.values.add().number_value = value
        else:
            row.values.add().string_value = value
