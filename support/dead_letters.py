"""Dead letters as people handle them: list, show, hand to the next retry, discard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from contract.changes import DeadLetter
from pipeline.sink.dead_letters import BOTH, DeadLetterQueue, Kind
from support.connection import Connection

__all__ = ["Letter", "all_letters", "discard", "find", "queue", "retry"]


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A dead letter and where it is: `retry` (tried again by the running job) or `severe` (parked).

    `puid` is None where it could not be masked: nothing of the payment is kept then but when and where it changed.
    `retry` says whether trying again helps: `automatic`, `after_fix` or `never`.
    """

    id: str
    kind: Kind
    table: str
    committed_at: str
    puid: str | None
    step: str
    reason: str
    message: str
    remedy: str
    retry: str
    attempts: int
    first_failed_at: str
    last_failed_at: str
    change: dict[str, Any] | None


def queue(connection: Connection) -> DeadLetterQueue:
    """The stack's queue."""
    return DeadLetterQueue(connection.dead_letter_directory)


def all_letters(letters: DeadLetterQueue, kinds: Iterable[Kind] = BOTH) -> list[Letter]:
    """The dead letters in commit order, each once, without their changes: `find` has one with its own."""
    return [replace(_letter(kind, letter), change=None) for kind, letter in letters.every(tuple(kinds))]


def find(letters: DeadLetterQueue, letter_id: str) -> Letter | None:
    """One dead letter with its masked change."""
    found = letters.find(letter_id)
    return _letter(*found) if found else None


def retry(letters: DeadLetterQueue, ids: Iterable[str]) -> int:
    """Hands dead letters to the running job, which tries them within `dlqRetryMinutes`, as if for the first time.

    Also those parked, and those that trying again does not help: once. Says how many there were.
    """
    return letters.release(ids)


def discard(letters: DeadLetterQueue, ids: Iterable[str]) -> int:
    """Gives dead letters up permanently: their changes will never be in BigQuery. Says how many there were."""
    return letters.discard(ids)


def _letter(kind: Kind, letter: DeadLetter) -> Letter:
    return Letter(
        id=letter.id,
        kind=kind,
        table=letter.coordinates.table,
        committed_at=letter.coordinates.commit_timestamp,
        puid=letter.payment,
        step=letter.step,
        reason=letter.reason,
        message=letter.message,
        remedy=letter.info.remedy,
        retry=letter.info.retry,
        attempts=letter.attempts,
        first_failed_at=letter.first_failed_at,
        last_failed_at=letter.last_failed_at,
        change=letter.change,
    )
