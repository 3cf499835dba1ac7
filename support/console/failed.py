"""What the console says to people who use it and run nothing, when a part of the audit service gives no answer.

The error's own message names commands and places: it is for who runs the stack, and is in the console's log.
"""

from __future__ import annotations

import logging

from contract.errors import AuditError
from pipeline.replay.records import ReplayUnavailable
from pipeline.sink.dead_letters import DeadLetterError
from support.cloud_run import CloudRunError
from support.console.card_tokens import TokenServiceError
from support.warehouse import WarehouseError

log = logging.getLogger(__name__)

_WHO: tuple[tuple[type[AuditError], str], ...] = (
    (WarehouseError, "BigQuery, which has the payments' changes,"),
    (ReplayUnavailable, "The database that replays read and are recorded in"),
    (CloudRunError, "The job that runs replays"),
    (TokenServiceError, "The service that searches by card"),
    (DeadLetterError, "The storage of dead letters"),
)


def explained(error: AuditError, where: str) -> str:
    """What does not answer, for people; the log gets the rest. `where` has no payment's data."""
    log.error("%s: %s: %s", where, type(error).__name__, error)
    who = next((text for kind, text in _WHO if isinstance(error, kind)), "A part of the audit service")
    return f"{who} gives no answer now. No payment is affected."
