"""What backups there are, for people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from support.backup.records import Backup
from support.backup.store import Backups
from support.connection import Connection

# A backup is made each day.
YOUNG: Final = timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The backups, the newest first, one row each; `too_old` says so where no good one is young enough."""

    rows: list[dict[str, Any]]
    too_old: str

    def to_dict(self) -> dict[str, Any]:
        return {"backups": self.rows, "too_old": self.too_old}


def listed(connection: Connection, now: datetime | None = None) -> Listed:
    """Every recorded backup. Reads the metadata database alone."""
    now, found = now or datetime.now(UTC), Backups(connection, reads=True).all()
    newest = next((each for each in found if each.good and each.expires_at > now), None)
    too_old = ""
    if newest is None:
        too_old = "There is no good backup. Make one: audit backup create."
    elif newest.age(now) > YOUNG:
        too_old = (
            f"The newest good backup is of {newest.at:%Y-%m-%d %H:%M} UTC, older than two days. See why the job "
            "audit-backup makes none, or make one: audit backup create."
        )
    return Listed(rows=[_row(each, now) for each in found], too_old=too_old)


def _row(backup: Backup, now: datetime) -> dict[str, Any]:
    drill = backup.drill
    return {
        "id": backup.id,
        "at": backup.at,
        "age_seconds": int(backup.age(now).total_seconds()),
        "expires_at": backup.expires_at,
        "state": _state(backup, now),
        "tables": len(backup.tables),
        "rows": backup.rows,
        "bytes": backup.bytes,
        "unchecked": sum(len(table.unchecked) for table in backup.tables),
        "bytes_read": backup.bytes_read,
        "drilled_at": drill.at if drill else None,
        "drill_passed": drill.passed if drill else None,
        "problems": list(backup.problems),
        "differences": [str(each) for each in drill.differences] if drill else [],
    }


def _state(backup: Backup, now: datetime) -> str:
    if backup.expires_at <= now:
        return "expired"
    if backup.created_at is None:
        return "not whole"
    return "good" if backup.good else "bad"
