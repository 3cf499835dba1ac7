"""Has the next launch tried in Google Cloud, as the job's account, before the running job is drained for it.

The stack's Cloud Run job `audit-launch-check` runs the job's own checks; here it is started, awaited, and its result
said. What it found is in its log: `gcloud logging read` shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from components import naming
from delivery.preflight.google import Google, NotSeen
from delivery.stacks import DeliveryError

_RUN: Final = "run.googleapis.com/v2"
_PAUSE_SECONDS: Final = 5.0
# The job has ten minutes, and Google a while to start it.
_LONGEST_SECONDS: Final = 900.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """How it ended. `log` is the command that shows what was found."""

    good: bool
    execution: str
    log: str


def tried(
    google: Google,
    names: naming.Names,
    region: str,
    *,
    pause: float = _PAUSE_SECONDS,
    longest: float = _LONGEST_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Starts the check and waits for its end. Raises DeliveryError where there is none, or none ended in time.

    Source: cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run, and …/executions for its end: the
    execution's condition `Completed`.
    """
    name = names.of(naming.LAUNCH_CHECK)
    job = f"projects/{names.project}/locations/{region}/jobs/{name}"
    started = _asked(lambda: google.post(f"{_RUN}/{job}:run", {}))
    if started is None:
        raise DeliveryError(
            f"the launch must be tried by the Cloud Run job {name}, which is not there. It comes with "
            "the job's image: `delivery.pin image`, then `delivery.deploy up --without-job`."
        )
    # The operation's metadata is the execution.
    execution = str(started["metadata"]["name"])
    log = _log(names.project, execution)
    ends = clock() + longest
    while clock() < ends:
        state = _completed(_asked(lambda: google.get(f"{_RUN}/{execution}")) or {})
        if state in ("CONDITION_SUCCEEDED", "CONDITION_FAILED"):
            return Result(good=state == "CONDITION_SUCCEEDED", execution=execution, log=log)
        time.sleep(pause)
    raise DeliveryError(f"the trial did not end within {longest / 60:.0f} minutes. See what it does: {log}")


def _completed(execution: dict[str, Any]) -> str:
    states = [each.get("state", "") for each in execution.get("conditions", []) if each.get("type") == "Completed"]
    return str(states[0]) if states else ""


def _asked(question: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    try:
        return question()
    except NotSeen as error:
        raise DeliveryError(
            f"the launch could not be tried: {error}. {error.repair or 'It takes roles/run.admin, as deployer-sa has.'}"
        ) from error


def _log(project: str, execution: str) -> str:
    short = execution.rpartition("/")[2]
    query = f'resource.type=cloud_run_job AND labels."run.googleapis.com/execution_name"={short}'
    return f"gcloud logging read '{query}' --project={project} --order=asc --format='value(textPayload,jsonPayload)'"
