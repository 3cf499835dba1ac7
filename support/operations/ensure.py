"""Keeps a stack's tables and its job as they must be: makes, launches, or says what a person must do.

The tables first: a job that is launched while one is lost would make an empty one in its place.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, cast

from contract import tables
from support.connection import Connection, ConnectionFileError
from support.operations import source_schema
from support.operations.dataflow import Dataflow, DataflowError, Job
from support.operations.keeping import MOST_LAUNCHES, Decision, Launches, Owner, decide
from support.operations.store import LaunchStore, MadeTables
from support.operations.warehouse import Looked, Warehouse, look, look_at_views, made_by

Outcome = Literal["unchanged", "made", "launched", "reported", "held", "waiting", "refused", "failed"]

_OWNERS: Final = ("pulumi", "composer", "scheduler")
# A flex template takes minutes to start its workers; the operation has twenty (contract/operations.py).
WAIT: Final = timedelta(minutes=12)
_POLL_SECONDS: Final = 10.0
# A launch that was killed half-way keeps the next one away for so long.
_LOCKED: Final = timedelta(minutes=3)
# What Dataflow has launched, and does not list yet.
_UNSEEN: Final = timedelta(minutes=2)


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """`state` is that of the one job, or `none`, or `many`; `launched` is the id of the one that this run launched."""

    name: str
    state: str
    jobs: tuple[Job, ...] = ()
    launched: str | None = None
    attempts: int = 0


class _Kept(NamedTuple):
    """What came of the job; `why` is a problem unless it is `well`."""

    outcome: Outcome
    job: JobReport
    why: str
    well: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run found and did. `problems` are what a person must see to."""

    at: datetime
    outcome: Outcome
    owner: Owner
    tables: tuple[Looked, ...]
    views: tuple[Looked, ...]
    job: JobReport
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        return not self.problems

    @property
    def summary(self) -> str:
        """One line."""
        made = [each.name for each in self.tables if each.state == "made"]
        parts = [f"job {self.job.state}", *([f"made {', '.join(made)}"] if made else [])]
        parts += [f"launched {self.job.launched}"] if self.job.launched else []
        return "; ".join([*parts, *self.problems])


@dataclass
class Ensure:
    """One run over a stack. `clock` and `sleep` are of the one who waits for the job to run."""

    connection: Connection
    progress: Callable[[str], None] = lambda text: None
    wait: timedelta = WAIT
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    _who: str = field(default_factory=lambda: f"audit pipeline ensure {uuid.uuid4().hex[:8]}")

    def run(self) -> Report:
        """Checks and does what is needed. A second run changes nothing. Raises AuditError where it could not look."""
        made, views = self.tables(make=True)
        problems = [f"{each.name}: {each.detail or each.state}" for each in (*made, *views) if each.wrong]
        lost = [each.name for each in made if each.state in ("lost", "missing")]
        kept = self._job(lost)
        outcome = kept.outcome
        if outcome == "unchanged" and any(each.state == "made" for each in made):
            outcome = "made"
        if outcome == "unchanged" and problems:
            outcome = "failed"
        return Report(
            at=self.clock(),
            outcome=outcome,
            owner=owner_of(self.connection),
            tables=tuple(made),
            views=tuple(views),
            job=kept.job,
            problems=(*problems, *([] if kept.well else [kept.why])),
            notes=(kept.why,) if kept.well else (),
        )

    def tables(self, *, make: bool) -> tuple[list[Looked], list[Looked]]:
        """The tables and the views; those that were never there are made, where `make` says so."""
        warehouse, record = Warehouse(self.connection), MadeTables(self.connection)
        with source_schema.described(self.connection) as watched:
            expected = tables.all_tables(watched)
            there, seen = warehouse.columns(expected), record.all()
            found = list(look(expected, there, seen))
            views = list(look_at_views(watched, warehouse.views(watched.views_dataset)))
        if make:
            record.add(there.keys() - seen)
            found = made_by(warehouse, expected, found)
            record.add([each.name for each in found if each.state == "made"])
        return found, views

    # ------------------------------------------------------------------ the job

    def _job(self, lost: Sequence[str]) -> _Kept:
        dataflow, store = Dataflow(self.connection), LaunchStore(self.connection)
        jobs, known, decision = self._settled(dataflow, store)
        if decision.reset:
            store.runs_well()
        if decision.action != "launch":
            return self._as_decided(decision, jobs, known)
        if lost:
            why = f"no job runs, and none is launched while {', '.join(lost)} is gone: it would make an empty one."
            return _Kept("failed", self._report(jobs, known), why)
        return self._launch(dataflow, store)

    def _settled(self, dataflow: Dataflow, store: LaunchStore) -> tuple[list[Job], Launches, Decision]:
        """What is decided once no deployment by Pulumi is between two jobs: it drains one, then starts the next."""
        deadline = self.clock() + self.wait
        while True:
            found = self._decided(dataflow, store)
            if found[2].action != "reported" or self.clock() >= deadline:
                return found
            self.progress("no job runs: a deployment may be about to start it")
            self.sleep(_POLL_SECONDS)

    def _decided(self, dataflow: Dataflow, store: LaunchStore) -> tuple[list[Job], Launches, Decision]:
        jobs, known = dataflow.active(), store.load()
        if not jobs and known.launched_id and known.launched_at and self.clock() - known.launched_at < _UNSEEN:
            # Launched a moment ago: the list may lag behind.
            job = dataflow.get(known.launched_id)
            jobs = [job] if job.active else []
        paused = bool(self.connection.pipeline_paused)
        return jobs, known, decide(jobs, known, owner_of(self.connection), self.clock(), paused=paused, who=self._who)

    def _launch(self, dataflow: Dataflow, store: LaunchStore) -> _Kept:
        body = launch_body(self.connection)
        if store.lock(self._who, self.clock(), _LOCKED) is None:
            held = store.load()
            return _Kept("held", self._report([], held), f"no job runs: {held.locked_by} launches it.", well=True)
        try:
            # Once more under the lock: who had it before may have launched it.
            jobs, known, decision = self._decided(dataflow, store)
            if decision.action != "launch":
                return self._as_decided(decision, jobs, known)
            attempt = store.launching(self.clock())
            self.progress(f"launch {attempt} of {MOST_LAUNCHES}")
            job = dataflow.launch(body)
            store.launched(job.id)
        except DataflowError as error:
            return _Kept("failed", self._report([], store.load()), str(error))
        finally:
            store.unlock(self._who)
        return self._awaited(dataflow, store, job)

    def _awaited(self, dataflow: Dataflow, store: LaunchStore, job: Job) -> _Kept:
        """Waits until the job runs, has ended, or the time is over."""
        deadline, launched = self.clock() + self.wait, job.id
        while job.state == "starting" and self.clock() < deadline:
            self.progress(f"job {launched} is {job.state}")
            self.sleep(_POLL_SECONDS)
            job = dataflow.get(launched)
        report = replace(self._report([job] if job.active else [], store.load()), launched=launched)
        if job.state in ("running", "starting"):
            return _Kept("launched", report, f"job {launched} was launched, and is {job.state}.", well=True)
        why = f"job {launched} was launched, and has {job.state}: see its log (runbooks/AuditOperationFailed.md)."
        return _Kept("failed", report, why)

    def _as_decided(self, decision: Decision, jobs: Sequence[Job], known: Launches) -> _Kept:
        outcome: Outcome = "unchanged" if decision.action == "nothing" else cast(Outcome, decision.action)
        return _Kept(outcome, self._report(jobs, known), decision.why, well=decision.well)

    def _report(self, jobs: Sequence[Job], known: Launches) -> JobReport:
        return JobReport(name=self.connection.job_name, state=state_of(jobs), jobs=tuple(jobs), attempts=known.attempts)


def state_of(jobs: Sequence[Job]) -> str:
    """`none`, `many`, or that of the one job."""
    return "many" if len(jobs) > 1 else jobs[0].state if jobs else "none"


def owner_of(connection: Connection) -> Owner:
    """Who launches the job. Raises ConnectionFileError."""
    owner = connection.pipeline_owner or "pulumi"
    if owner not in _OWNERS:
        raise ConnectionFileError(f"pipelineOwner must be one of {', '.join(_OWNERS)}, got {owner!r}.")
    return cast(Owner, owner)


def launch_body(connection: Connection) -> Mapping[str, Any]:
    """The body of the launch, as the stack wrote it. Raises ConnectionFileError."""
    try:
        body = json.loads(connection.pipeline_launch)
    except ValueError:
        body = None
    if not isinstance(body, dict) or "launchParameter" not in body:
        raise ConnectionFileError(
            "pipelineLaunch must hold the body of a launch, and does not. Bring the stack up: with pipelineOwner "
            "composer or scheduler it writes it."
        )
    return body
