"""Keeps whoever launches the streaming job from doing so while a deployment replaces what it is launched with.

Where Pulumi launches the job, nobody else does, and no lock is taken.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contract.errors import AuditError
from support import connection as connections
from support.connection import Connection
from support.operations.ensure import owner_of
from support.operations.store import LaunchStore

# A deployment that is killed holds a launch up for so long; one that runs renews its lock.
HELD: Final = timedelta(minutes=5)
_RENEWED_SECONDS: Final = 60.0
# A launch holds it for seconds.
_PATIENCE_SECONDS: Final = 240.0
_POLL_SECONDS: Final = 5.0


class JobIsLaunched(AuditError):
    """Somebody else launches or replaces the job now; the message says who, and the remedy."""


@contextmanager
def held(
    outputs: Mapping[str, Any], say: Callable[[str], None], *, patience: float = _PATIENCE_SECONDS
) -> Iterator[None]:
    """Nobody launches the job of a stack with these outputs meanwhile. Raises JobIsLaunched.

    A stack that has no outputs yet has no job. A metadata database that does not answer keeps no deployment back: it
    says so, and who launches the job finds the one that runs.
    """
    connection = _launched_by_others(outputs)
    if connection is None:
        yield
        return
    who, over = f"delivery.deploy {uuid.uuid4().hex[:8]}", threading.Event()
    try:
        store = LaunchStore(connection)
        _taken(store, who, over, patience)
    except AuditError:
        raise
    except Exception as error:
        say(f"The launch of the job cannot be held up ({type(error).__name__} of the metadata database): continuing.")
        yield
        return
    thread = threading.Thread(target=_renew, args=(store, who, over, say), name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        try:
            store.unlock(who)
        except Exception as error:
            say(f"The lock on the job's launch was not given back ({type(error).__name__}): it ends by itself.")


def _launched_by_others(outputs: Mapping[str, Any]) -> Connection | None:
    try:
        known = connections.of(dict(outputs), "the stack's outputs")
        return None if owner_of(known) == "pulumi" else known
    except connections.ConnectionFileError:
        return None


def _taken(store: LaunchStore, who: str, over: threading.Event, patience: float) -> None:
    waited = 0.0
    while store.lock(who, datetime.now(UTC), HELD) is None:
        if waited >= patience:
            raise JobIsLaunched(
                f"nobody else may launch or replace the job meanwhile, and {store.load().locked_by} does. It gives its "
                f"lock back within {HELD.seconds // 60} minutes: run this again."
            )
        over.wait(_POLL_SECONDS)
        waited += _POLL_SECONDS


def _renew(store: LaunchStore, who: str, over: threading.Event, say: Callable[[str], None]) -> None:
    while not over.wait(_RENEWED_SECONDS):
        try:
            store.lock(who, datetime.now(UTC), HELD)
        except Exception as error:
            # A deployment that is under way is not given up for it: the next minute tries again.
            say(f"The lock on the job's launch was not renewed ({type(error).__name__}).")
