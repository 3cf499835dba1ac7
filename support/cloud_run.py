"""Starts a Cloud Run job of the stack, as it is: with its own command, environment and account."""

from __future__ import annotations

import re
from typing import Any, Final

from contract.errors import AuditError
from support.connection import Connection

_GOOGLE: Final = "https://run.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_SECONDS: Final = 30
# Of an execution that is not over, in cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs.
_UNDER_WAY: Final = frozenset({"EXECUTION_RUNNING", "EXECUTION_PENDING"})


class CloudRunError(AuditError):
    """The job was not started; the message says why, and the remedy."""


def start(connection: Connection, job: str) -> None:
    """Starts a job by its full name, and does not wait for it. Raises CloudRunError."""
    start_job(connection.cloud_run_endpoint, job)


def start_job(endpoint: str, job: str) -> None:
    """As `start`, at an address; empty is Google's.

    The request has no overrides: who may override arguments may override the environment too, and so send the account's
    token elsewhere. Source: cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run.
    """
    _ask(endpoint, "POST", job, ":run", "when it is to start", "roles/run.invoker")


def running(endpoint: str, job: str) -> str:
    """The name of a job's newest execution where that is not over; else empty. Raises CloudRunError."""
    newest = _ask(endpoint, "GET", job, "", "about the runs of", "roles/run.viewer").get("latestCreatedExecution") or {}
    return re.sub(r".*/", "", newest.get("name", "")) if newest.get("completionStatus") in _UNDER_WAY else ""


def _ask(endpoint: str, method: str, job: str, verb: str, what: str, role: str) -> dict[str, Any]:
    import requests
    from google.auth.exceptions import GoogleAuthError

    from pipeline.clients import authorized_session

    url = f"{endpoint or _GOOGLE}/v2/{job}{verb}"
    body: dict[str, Any] | None = {} if method == "POST" else None
    try:
        answer = authorized_session(endpoint, _SCOPE).request(method, url, json=body, timeout=_TIMEOUT_SECONDS)
        if answer.ok:
            return dict(answer.json())
    except (requests.RequestException, GoogleAuthError) as error:
        raise _failed(job, f"does not answer ({type(error).__name__})", what, role) from error
    raise _failed(job, f"answers {answer.status_code}", what, role)


def _failed(job: str, why: str, what: str, role: str) -> CloudRunError:
    name = re.sub(r".*/", "", job)
    return CloudRunError(f"Cloud Run {why} {what} {name}: that takes {role} on the job.")
