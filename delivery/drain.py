"""Ends a drain that takes too long.

Google's provider asks for the drain, and then asks for the job's state until it has ended: it has no limit for that,
and Pulumi's own (customTimeouts) does not reach it. A job whose rows nobody accepts never ends its drain, and while it
drains nothing is read. A cancel ends it: the next job resumes where the rows are written, so nothing is lost
(runbooks/how-to/drain-cancel-update.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

KIND: Final = "gcp:dataflow/flexTemplateJob:FlexTemplateJob"
MINUTES: Final = 30.0
_ENDS: Final = frozenset({"delete", "delete-replaced"})
_ANSWER_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of Dataflow's, by Google's id."""

    project: str
    region: str
    id: str


@dataclass
class DrainLimit:
    """Hears a run's events, and cancels a job that drains for more than `minutes`. `say` gets what was done."""

    project: str
    minutes: float
    say: Callable[[str], None]
    cancel: Callable[[Job], None]
    _timers: dict[str, threading.Timer] = field(default_factory=dict)

    def hear(self, event: Any) -> None:
        begun, ended = event.resource_pre_event, event.res_outputs_event or event.res_op_failed_event
        if begun and begun.metadata.type == KIND and begun.metadata.op.value in _ENDS:
            self._start(begun.metadata)
        elif ended and ended.metadata.op.value in _ENDS and ended.metadata.urn in self._timers:
            self._timers.pop(ended.metadata.urn).cancel()

    def _start(self, step: Any) -> None:
        job = Job(project=self.project, region=str(step.old.inputs.get("region", "")), id=str(step.old.id))
        timer = self._timers[step.urn] = threading.Timer(self.minutes * 60, self._exceeded, [job])
        timer.daemon = True
        timer.start()

    def over(self) -> None:
        """The run has ended, with or without a drain."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _exceeded(self, job: Job) -> None:
        by_hand = f"gcloud dataflow jobs cancel {job.id} --region={job.region} --project={job.project}"
        self.say(
            f"The job {job.id} drained for more than {self.minutes:g} minutes (--drain-minutes), and is now cancelled. "
            "The next job resumes where the rows are written: nothing is lost, and in exactly-once nothing "
            "is doubled."
        )
        try:
            self.cancel(job)
        except Exception as error:  # The run must continue, and say what a person can do.
            self.say(f"The cancel was refused: {error}. This run waits on; `{by_hand} --force` ends the job.")


def cancel(job: Job) -> None:
    """Cancels a job of Dataflow's. Raises what the service answers."""
    from google.cloud import dataflow_v1beta3 as dataflow

    request = dataflow.UpdateJobRequest(
        project_id=job.project,
        location=job.region,
        job_id=job.id,
        job=dataflow.Job(requested_state=dataflow.JobState.JOB_STATE_CANCELLED),
    )
    dataflow.JobsV1Beta3Client().update_job(request=request, timeout=_ANSWER_SECONDS)
