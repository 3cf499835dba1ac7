"""Whether the streaming job is to be launched: a pure decision over what Dataflow and the metadata database say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from support.operations.dataflow import Job

Owner = Literal["pulumi", "composer", "scheduler"]
Action = Literal["nothing", "launch", "held", "reported", "refused", "waiting", "failed"]

MOST_LAUNCHES: Final = 5
# After the second launch; twice as long after each further one.
FIRST_PAUSE: Final = timedelta(minutes=10)
# A job that ran for so long runs well: what failed before counts no more.
STEADY: Final = timedelta(minutes=30)
# Google needs minutes to start workers; a launcher that hangs is ended after 30.
LONGEST_START: Final = timedelta(minutes=40)


@dataclass(frozen=True, kw_only=True)
class Launches:
    """What is recorded of the job: `attempts` to launch it since it last ran well, and who else decides about it."""

    attempts: int = 0
    launched_at: datetime | None = None
    launched_id: str = ""
    locked_by: str = ""
    locked_until: datetime | None = None
    drained_by: str = ""
    drained_at: datetime | None = None

    def locked(self, now: datetime, who: str = "") -> bool:
        """Whether somebody else than `who` launches or replaces the job now."""
        return self.locked_until is not None and self.locked_until > now and self.locked_by != who


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`why` is for people. `well`: whether all is as it is to be. `reset`: earlier failures count no more."""

    action: Action
    why: str
    well: bool
    reset: bool = False


def decide(
    jobs: Sequence[Job], known: Launches, owner: Owner, now: datetime, *, paused: bool = False, who: str = ""
) -> Decision:
    """What `who` is to do, given the jobs of the stack's name that start, run or drain."""
    if len(jobs) > 1:
        ids = ", ".join(job.id for job in jobs)
        return Decision(
            action="refused",
            why=f"exactly one job of the name may run, and {len(jobs)} do: {ids}. The newer one has fenced the older: "
            "end the older one (runbooks/how-to/drain-cancel-update.md). Nothing was launched.",
            well=False,
        )
    if jobs:
        return _one(jobs[0], known, now)
    return _none(known, owner, now, paused=paused, who=who)


def _one(job: Job, known: Launches, now: datetime) -> Decision:
    age = now - job.since if job.since else timedelta(0)
    if job.state == "starting" and age > LONGEST_START:
        why = f"job {job.id} has been starting for {_minutes(age)}: see its log (runbooks/how-to/restart.md)."
        return Decision(action="failed", why=why, well=False)
    if job.state == "draining":
        return Decision(
            action="nothing", why=f"job {job.id} is draining: its successor is launched after it.", well=True
        )
    steady = job.state == "running" and age >= STEADY and known.attempts > 0
    return Decision(action="nothing", why=f"job {job.id} is {job.state}.", well=True, reset=steady)


def _none(known: Launches, owner: Owner, now: datetime, *, paused: bool, who: str) -> Decision:
    if held := _on_purpose(known, now, paused=paused, who=who):
        return Decision(action="held", why=f"no job runs: {held}", well=True)
    if owner == "pulumi":
        why = (
            "no job runs, and pipelineOwner is pulumi: `python -m delivery.deploy up` launches it. "
            "See runbooks/how-to/restart.md."
        )
        return Decision(action="reported", why=why, well=False)
    if known.attempts >= MOST_LAUNCHES:
        why = (
            f"no job runs, and {known.attempts} launches in a row failed, the last as {known.launched_id or 'no job'}. "
            "Its log says why; after the fix `audit pipeline resume` launches it again."
        )
        return Decision(action="failed", why=why, well=False)
    if known.launched_at and (wait := known.launched_at + pause_after(known.attempts)) > now:
        why = f"no job runs: launch {known.attempts} failed, the next is due at {wait:%H:%M:%S} UTC."
        return Decision(action="waiting", why=why, well=False)
    return Decision(action="launch", why="no job runs.", well=False)


def _on_purpose(known: Launches, now: datetime, *, paused: bool, who: str) -> str:
    """Who keeps the job from running, and until when; empty where nobody does."""
    if paused:
        return "the stack is paused, until `delivery.deploy resume`."
    if known.drained_by:
        at = f"{known.drained_at:%Y-%m-%d %H:%M}" if known.drained_at else "some time"
        return f"{known.drained_by} drained it at {at} UTC. `audit pipeline resume` launches it again."
    if known.locked(now, who):
        return f"{known.locked_by} replaces or launches it, until {known.locked_until:%H:%M:%S} UTC at most."
    return ""


def pause_after(attempts: int) -> timedelta:
    """How long after a launch the next one may come: none after the first, then 10, 20, 40 minutes."""
    return FIRST_PAUSE * 2 ** (attempts - 2) if attempts > 1 else timedelta(0)


def _minutes(length: timedelta) -> str:
    return f"{length.total_seconds() / 60:.0f} minutes"
