"""How many dead letters wait, by place, reason and age: counts alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from contract.changes import Coordinates, DeadLetter, Reason
from pipeline.sink.dead_letters import DeadLetterQueue
from support.dead_letters import Group, waiting

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def letter(age: timedelta, reason: str, number: int = 0) -> DeadLetter:
    committed = (NOW - age).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
    return DeadLetter(
        coordinates=Coordinates("PaymentAuditTrailChangeStream", "payment_audit_trail", committed, "tx", "0", number),
        step="WriteChanges",
        reason=reason,
        message="the row is larger than an append takes.",
        attempts=1,
        first_failed_at="2026-11-30T11:00:00Z",
        last_failed_at="2026-11-30T11:00:00Z",
        change=None,
    )


def test_dead_letters_are_counted_by_place_reason_and_age(tmp_path: Path) -> None:
    queue = DeadLetterQueue(str(tmp_path))
    young = [letter(timedelta(minutes=10), Reason.REJECTED, number) for number in range(2)]
    old = [letter(timedelta(hours=5), Reason.REJECTED), letter(timedelta(days=8), Reason.CARD_IN_KEY)]
    queue.put([*young, *old])
    queue.park([old[1]])
    found = waiting(queue, NOW)
    assert (found.retry, found.severe, found.oldest_seconds) == (3, 1, 8 * 86_400.0)
    assert found.summary == "3 to retry, 1 parked, the oldest 192.0 h old"
    assert Group(kind="retry", reason=Reason.REJECTED, age="under 1 h", number=2) in found.by
    assert Group(kind="retry", reason=Reason.REJECTED, age="4 to 24 h", number=1) in found.by
    assert Group(kind="severe", reason=Reason.CARD_IN_KEY, age="over 7 d", number=1) in found.by


def test_none_waits_where_the_queue_is_empty(tmp_path: Path) -> None:
    found = waiting(DeadLetterQueue(str(tmp_path)), NOW)
    assert (found.retry, found.severe, found.oldest_seconds, found.by) == (0, 0, None, ())
