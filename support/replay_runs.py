"""Where replays and backfills run: in this process on one machine; in the cloud as a Cloud Run job, which has its own
account.

The job reads Spanner and holds the masking key; who submits a replay does neither. The stack's `replayJob` decides.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from contract.changes import kind_of
from contract.errors import AuditError
from support import cloud_run, replay
from support.connection import Connection

log = logging.getLogger(__name__)


class Runs(Protocol):
    """Has recorded replays run."""

    def start(self, replay_id: str) -> None:
        """Has a replay run, and does not wait for it. Raises ReplayUnavailable."""

    def problem(self, replay_id: str) -> str | None:
        """Why a run that was started here did not finish, as far as it is known."""


def runs(connection: Connection) -> Runs:
    """Where the stack's replays run."""
    return CloudRunJob(connection) if connection.replay_job else InThisProcess(connection)


class InThisProcess:
    """Runs replays in background threads. One that fails stays unfinished: `audit replay resume` runs it again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._work = ThreadPoolExecutor(2, thread_name_prefix="replay")
        self._problems: dict[str, str] = {}

    def start(self, replay_id: str) -> None:
        self._work.submit(self._run, replay_id)

    def problem(self, replay_id: str) -> str | None:
        return self._problems.get(replay_id)

    def _run(self, replay_id: str) -> None:
        try:
            replay.run(self._connection, replay_id)
        except AuditError as error:
            self._problems[replay_id] = str(error)
        except Exception as error:
            self._problems[replay_id] = f"{type(error).__name__}: report it as a bug."
        if problem := self._problems.get(replay_id):
            log.warning("The replay %s did not finish: %s", replay_id, problem)


class CloudRunJob:
    """Starts the job `audit-replay`, which runs each replay that is recorded and not finished."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(self, replay_id: str) -> None:
        try:
            cloud_run.start(self._connection, self._connection.replay_job)
        except cloud_run.CloudRunError as error:
            waits = f"The {kind_of(replay_id)} {replay_id} is recorded and waits"
            raise replay.ReplayUnavailable(f"{error} {waits}: `{replay.resumes(replay_id)}` starts it.") from error

    def problem(self, replay_id: str) -> str | None:
        return None
