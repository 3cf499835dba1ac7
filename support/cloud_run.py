"""Starts a Cloud Run job of the stack, as it is: with its own command, environment and account."""

from __future__ import annotations

import re
from typing import Final

from contract.errors import AuditError
from support.connection import Connection

_GOOGLE: Final = "https://run.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_SECONDS: Final = 30


class CloudRunError(AuditError):
    """The job was not started; the message says why, and the remedy."""


def start(connection: Connection, job: str) -> None:
    """Starts a job by its full name, and does not wait for it. Raises CloudRunError.

    The request has no overrides: who may override arguments may override the environment too, and so send the account's
    token elsewhere. Source: cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run.
    """
    import requests
    from google.auth.exceptions import GoogleAuthError

    from pipeline.clients import authorized_session

    endpoint = connection.cloud_run_endpoint
    url = f"{endpoint or _GOOGLE}/v2/{job}:run"
    try:
        answer = authorized_session(endpoint, _SCOPE).post(url, json={}, timeout=_TIMEOUT_SECONDS)
    except (requests.RequestException, GoogleAuthError) as error:
        raise _not_started(job, f"does not answer ({type(error).__name__})") from error
    if not answer.ok:
        raise _not_started(job, f"answers {answer.status_code}")


def _not_started(job: str, why: str) -> CloudRunError:
    name = re.sub(r".*/", "", job)
    return CloudRunError(f"Cloud Run {why} when it is to start {name}: that takes roles/run.invoker on the job.")
