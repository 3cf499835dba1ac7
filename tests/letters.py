"""Dead letters for tests."""

from __future__ import annotations

from contract.changes import Coordinates, DeadLetter, Reason


def letter(second: int, puid: str = "p1") -> DeadLetter:
    """One of a payment, committed at that second, that was tried five times."""
    return DeadLetter(
        coordinates=Coordinates("S", "payment_audit_trail", f"2026-11-23T09:12:{second:02d}.000000000Z", "tx", "00", 0),
        step="Enrich",
        reason=Reason.ENRICHMENT,
        message="Status must be text.",
        attempts=5,
        first_failed_at="2026-11-23T09:13:00Z",
        last_failed_at="2026-11-23T10:13:00Z",
        payment=puid,
        change={"keys": {"PUID": puid}, "new": {}, "old": {}},
    )
