"""Whether a stack is healthy, on one screen: how far it is complete, how fast it is, what waits and what fires."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from contract.errors import AuditError
from support import dead_letters
from support.connection import Connection
from support.monitored import Speed, monitored
from support.promql import Firing
from support.stuck import stuck
from support.warehouse import Warehouse

if TYPE_CHECKING:
    from support.operations.runs import LastRun

T = TypeVar("T")
_PATIENCE_SECONDS: Final = 15.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """`stuck` counts to a thousand. None is what could not be looked at; `problems` say why.

    `operations` are those that ever ran, None where there is none to be seen.
    """

    at: datetime
    complete_until: datetime | None
    speed: Speed | None
    stuck: int | None
    dead_letters: dict[str, int] | None
    alerts: tuple[Firing, ...] | None
    operations: tuple[LastRun, ...] | None
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether all was looked at and no alert fires."""
        return not (self.alerts or self.problems)


def health(connection: Connection) -> Health:
    """Looks at each part; one that does not answer hides no other."""
    warehouse = Warehouse(connection)
    problems: list[str] = []

    def known(what: str, look: Callable[[], T]) -> T | None:
        try:
            return look()
        except AuditError as error:
            problems.append(str(error))
        except Exception as error:
            problems.append(f"{what} could not be looked at: {type(error).__name__}.")
        return None

    now = datetime.now(UTC)
    # Both at once: where BigQuery does not answer, a person waits for it once.
    queried = known("BigQuery", lambda: (warehouse.complete_until(), stuck(warehouse)))
    complete_until, seen = queried or (None, None)
    letters = known("The dead letters", lambda: dead_letters.queue(connection).counts())
    measured = monitored(connection)
    return Health(
        at=now,
        complete_until=complete_until,
        speed=measured.speed,
        stuck=len(seen.payments) if seen and not seen.warning else None,
        dead_letters={str(kind): number for kind, number in letters.items()} if letters is not None else None,
        alerts=measured.alerts,
        operations=_operations(connection),
        problems=(*problems, *filter(None, (seen.warning if seen else "", measured.why))),
    )


def _operations(connection: Connection) -> tuple[LastRun, ...] | None:
    """None where the metadata database does not answer, or not to this person: support staff have no grant on it."""
    if not connection.metadata_database:
        return None
    found: list[LastRun] = []

    def look() -> None:
        from support.operations.runs import Runs

        with suppress(Exception):
            found.extend(run for run in Runs(connection, reads=True).last() if run.started_at)

    # Spanner's client keeps trying for minutes.
    thread = threading.Thread(target=look, name="operations", daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    return None if thread.is_alive() else tuple(found) or None
