"""A stack that is paused: its job is drained and nothing of it is scheduled, while Spanner keeps its change records."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from components.settings.reader import Reader

# What `delivery.deploy pause` passes to the program for one run: since when. No stack's file has it: an `up` ends it.
PAUSED: Final = "delivery:paused"
# The outputs of a paused stack.
SINCE: Final = "pausedSince"
UNTIL: Final = "pausedUntil"


@dataclass(frozen=True, kw_only=True)
class Pause:
    """`since` is when it began. What was committed then is the first that Spanner forgets."""

    since: datetime

    @classmethod
    def parse(cls, since: str | None) -> Self | None:
        """Of a moment in RFC 3339; None where the stack is not paused."""
        return cls(since=datetime.fromisoformat(since).astimezone(UTC)) if since else None

    def until(self, retention_hours: float) -> datetime:
        """When Spanner forgets the first change that no job has read."""
        return self.since + timedelta(hours=retention_hours)

    def relations(self, read: Reader) -> None:
        if read.stack == "prod":
            read.problems.append("A pause must be of a stack other than prod, whose changes must be audited.")
