"""Dead letters as people handle them: list, show, hand to the next retry, discard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from contract import timestamps
from contract.changes import DeadLetter
from pipeline.sink.dead_letters import BOTH, DeadLetterQueue, Kind
from support.connection import Connection

__all__ = ["Group", "Letter", "Waiting", "all_letters", "discard", "find", "queue", "retry", "waiting"]

# How long a dead letter waits, in the steps that a report has.
_AGES: Final = (
    ("under 1 h", timedelta(hours=1)),
    ("1 to 4 h", timedelta(hours=4)),
    ("4 to 24 h", timedelta(days=1)),
    ("1 to 7 d", timedelta(days=7)),
)
_OLDEST: Final = "over 7 d"


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


@dataclass(frozen=True, kw_only=True)
class Group:
    """Dead letters of one place, reason and age. `age` counts from the commit: Spanner's retention does so too."""

    kind: Kind
    reason: str
    age: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How many dead letters wait, by place, reason and age. `oldest_seconds` is None where none waits."""

    at: datetime
    retry: int
    severe: int
    oldest_seconds: float | None
    by: tuple[Group, ...]
    unreadable: int

    @property
    def summary(self) -> str:
        """One line, which names no payment."""
        oldest = "" if self.oldest_seconds is None else f", the oldest {self.oldest_seconds / 3600:.1f} h old"
        return f"{self.retry} to retry, {self.severe} parked{oldest}"


def waiting(letters: DeadLetterQueue, now: datetime) -> Waiting:
    """Counts the dead letters."""
    groups: Counter[tuple[Kind, str, str]] = Counter()
    oldest: timedelta | None = None
    for kind, letter in letters.every():
        committed = timestamps.to_datetime(letter.coordinates.commit_timestamp)
        waited = max(timedelta(0), now - committed)
        oldest = waited if oldest is None else max(oldest, waited)
        groups[kind, letter.reason, _age(waited)] += 1
    order = [*(name for name, _ in _AGES), _OLDEST]
    return Waiting(
        at=now,
        retry=sum(number for (kind, _, _), number in groups.items() if kind == "retry"),
        severe=sum(number for (kind, _, _), number in groups.items() if kind == "severe"),
        oldest_seconds=None if oldest is None else oldest.total_seconds(),
        by=tuple(
            Group(kind=kind, reason=reason, age=age, number=number)
            for (kind, reason, age), number in sorted(groups.items(), key=lambda x: (x[0][:2], order.index(x[0][2])))
        ),
        unreadable=letters.unreadable(),
    )


def _age(waited: timedelta) -> str:
    return next((name for name, limit in _AGES if waited < limit), _OLDEST)


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
