"""Dataflow's REST as far as keeping a job running takes it: which jobs of a name there are, launch one, drain one.

Source: cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.locations.jobs and
/projects.locations.flexTemplates/launch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from contract.errors import AuditError
from support.connection import Connection

_GOOGLE: Final = "https://dataflow.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_SECONDS: Final = 60

State = Literal["starting", "running", "draining", "ended", "failed"]
# Google's states, without their prefix. One that ends still has its name, and may still write.
_STATES: Final[Mapping[str, State]] = {
    "PENDING": "starting",
    "QUEUED": "starting",
    "STOPPED": "starting",
    "UNKNOWN": "starting",
    "RUNNING": "running",
    "PAUSING": "draining",
    "PAUSED": "draining",
    "DRAINING": "draining",
    "CANCELLING": "draining",
    "RESOURCE_CLEANING_UP": "draining",
    "DONE": "ended",
    "DRAINED": "ended",
    "CANCELLED": "ended",
    "UPDATED": "ended",
    "FAILED": "failed",
}
ACTIVE: Final = frozenset({"starting", "running", "draining"})


class DataflowError(AuditError):
    """Dataflow did not do it; the message says why, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of Dataflow's. `since`: when it came to its state; None where Google does not say."""

    id: str
    name: str
    state: State
    since: datetime | None = None

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


class Dataflow:
    """The jobs of a stack's project and region. Each method raises DataflowError."""

    def __init__(self, connection: Connection) -> None:
        self._endpoint, self._name = connection.dataflow_endpoint, connection.job_name
        project, region = quote(connection.project, safe=""), quote(connection.region, safe="")
        self._place = f"/v1b3/projects/{project}/locations/{region}"

    def active(self) -> list[Job]:
        """The stack's jobs that start, run or drain, the oldest first."""
        found = [job for job in self._listed() if job.name == self._name and job.active]
        return sorted(found, key=lambda job: (job.since is not None, job.since, job.id))

    def get(self, job_id: str) -> Job:
        return _job(self._ask("GET", f"{self._place}/jobs/{quote(job_id, safe='')}"))

    def launch(self, body: Mapping[str, Any]) -> Job:
        """Launches the flex template. A job that begins has its id at once, and is queued."""
        return _job(self._ask("POST", f"{self._place}/flexTemplates:launch", body).get("job", {}))

    def drain(self, job_id: str) -> None:
        """Requests a drain, and does not wait for its end."""
        body = {"requestedState": "JOB_STATE_DRAINED"}
        self._ask("PUT", f"{self._place}/jobs/{quote(job_id, safe='')}", body)

    def _listed(self) -> Iterator[Job]:
        token = ""
        while True:
            where = f"?filter=ACTIVE&name={quote(self._name, safe='')}" + (f"&pageToken={token}" if token else "")
            page = self._ask("GET", f"{self._place}/jobs{where}")
            yield from map(_job, page.get("jobs", ()))
            if not (token := quote(page.get("nextPageToken", ""), safe="")):
                return

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        import requests
        from google.auth.exceptions import GoogleAuthError

        from pipeline.clients import authorized_session

        url = f"{self._endpoint or _GOOGLE}{path}"
        try:
            session = authorized_session(self._endpoint, _SCOPE)
            answer = session.request(method, url, json=body, timeout=_TIMEOUT_SECONDS)
        except (requests.RequestException, GoogleAuthError) as error:
            raise DataflowError(
                f"Dataflow does not answer ({type(error).__name__}). The next run asks again, and takes what there is."
            ) from error
        if not answer.ok:
            raise _refused(method, answer.status_code)
        content: dict[str, Any] = answer.json()
        return content


def _refused(method: str, status: int) -> DataflowError:
    """Google's message stays out: of a launch it can quote the parameters."""
    what = {"GET": "to list the jobs", "POST": "to launch the job", "PUT": "to drain the job"}[method]
    if status >= 500 or status == 429:
        return DataflowError(f"Dataflow answers {status} when it is {what}. The next run asks again.")
    return DataflowError(
        f"Dataflow answers {status} when it is {what}: that takes roles/dataflow.developer and, for a launch, "
        "roles/iam.serviceAccountUser on the workers' account, and the template that the stack names."
    )


def _job(content: Mapping[str, Any]) -> Job:
    state = str(content.get("currentState", "JOB_STATE_UNKNOWN")).removeprefix("JOB_STATE_")
    since = content.get("currentStateTime") or content.get("createTime")
    return Job(
        id=str(content.get("id", "")),
        name=str(content.get("name", "")),
        state=_STATES.get(state, "starting"),
        since=_moment(since) if since else None,
    )


def _moment(text: str) -> datetime:
    """Google's timestamps have up to nine digits of a second; a datetime has six."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{(fraction or '0')[:6]:0<6}").replace(tzinfo=UTC)
