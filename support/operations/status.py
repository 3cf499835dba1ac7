"""What the streaming job is now, and how a person ends and resumes it where the stack does not launch it by Pulumi."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from contract.errors import AuditError
from support.connection import Connection
from support.metadata import metadata_database
from support.operations.dataflow import Dataflow, Job
from support.operations.ensure import owner_of, state_of
from support.operations.keeping import Launches, Owner
from support.operations.store import LaunchStore, plain_time
from support.who import who


class NotOurs(AuditError):
    """Somebody else launches the job; the message says who, and the way."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """`position`: every change committed before is in BigQuery or is a dead letter; None before the first job.
    `lag_seconds` is its age. `generation` fences older jobs."""

    name: str
    owner: Owner
    state: str
    jobs: tuple[Job, ...]
    position: datetime | None
    lag_seconds: float | None
    generation: int | None
    launches: Launches


def status_of(connection: Connection, now: datetime | None = None) -> Status:
    """Raises AuditError where Dataflow or Spanner does not answer."""
    jobs = tuple(Dataflow(connection).active())
    generation, position = _position(connection)
    lag = ((now or datetime.now(UTC)) - position).total_seconds() if position else None
    return Status(
        name=connection.job_name,
        owner=owner_of(connection),
        state=state_of(jobs),
        jobs=jobs,
        position=position,
        lag_seconds=lag,
        generation=generation,
        launches=LaunchStore(connection).load(),
    )


def drain(connection: Connection) -> str:
    """Drains every job of the name, and keeps it from being launched again. Says what was done."""
    _only_ours(connection, "delivery.deploy pause")
    # First the note: whoever launches would put another in its place.
    LaunchStore(connection).drained(who(connection), datetime.now(UTC))
    dataflow = Dataflow(connection)
    jobs = [job for job in dataflow.active() if job.state != "draining"]
    for job in jobs:
        dataflow.drain(job.id)
    ids = ", ".join(job.id for job in jobs)
    what = f"draining {ids}" if jobs else "no job runs"
    return f"{connection.job_name}: {what}. It is not launched again before `audit pipeline resume`."


def resume(connection: Connection) -> None:
    """Lets the job be launched again, as if no launch had failed."""
    _only_ours(connection, "delivery.deploy resume")
    LaunchStore(connection).resume()


def _only_ours(connection: Connection, instead: str) -> None:
    if owner_of(connection) == "pulumi":
        raise NotOurs(f"pipelineOwner is pulumi, whose program launches the job: use `python -m {instead}` for it.")


def _position(connection: Connection) -> tuple[int | None, datetime | None]:
    from google.cloud.spanner_v1 import KeySet

    keys: Any = KeySet(keys=[[connection.job_name]])
    with metadata_database(connection).snapshot() as snapshot:
        rows = list(snapshot.read("jobs", ("Generation", "ResumePosition"), keys))
    return (rows[0][0], plain_time(rows[0][1])) if rows else (None, None)
