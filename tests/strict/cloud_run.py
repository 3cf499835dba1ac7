"""Cloud Run's jobs and the log of their executions on loopback: each execution is a process of this machine.

A job has the command, the environment, the limit and the retries that Pulumi gives it; what it prints is in the log.
Requests are refused as Google's pages say: cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run and
cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list. A field that a method does not have is
INVALID_ARGUMENT; overrides are PERMISSION_DENIED, since nobody who starts a job of a stack has
`run.jobs.runWithOverrides`. What the pages leave open, how an operation says that its execution failed, is answered as
Airflow's provider has met it: with `error`, and of a cancelled one with a `response` that counts it. Not enforced: who
asks, and how often.
"""

from __future__ import annotations

import re
import subprocess
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from tests.strict.google_apis import Refused, _invalid, _only

_EXECUTION: Final = "type.googleapis.com/google.cloud.run.v2.Execution"
_JOB: Final = re.compile(r"/v2/(projects/([^/]+)/locations/([^/]+)/jobs/([^/:]+))(:run)?")
_EXECUTED: Final = re.compile(r"/v2/(projects/[^/]+/locations/[^/]+/jobs/[^/]+)/executions/([^/:]+)")
_OPERATION: Final = re.compile(r"/v2/(projects/[^/]+/locations/[^/]+/operations/[^/:]+)")
# What a filter for the lines of one execution has, and its order: each part must be there.
_FILTER: Final = (
    r'resource\.type="cloud_run_job" AND resource\.labels\.job_name="([^"]+)" AND '
    r'labels\."run\.googleapis\.com/execution_name"="([^"]+)" AND textPayload:\*'
)
_MOST_ENTRIES: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Job:
    """What runs: a command line with its environment, at most `seconds`, and how often again where it failed.

    One that is `cancelled` ends as if a person had cancelled it.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60
    retries: int = 0
    cancelled: bool = False


@dataclass
class Execution:
    """One run of a job. `code` is None while it runs; `lines` is what it printed."""

    job: str
    name: str
    code: int | None = None
    retried: int = 0
    cancelled: bool = False
    lines: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        counts = {"succeededCount": self.code == 0, "failedCount": self.code not in (None, 0) and not self.cancelled}
        return {
            "@type": _EXECUTION,
            "name": f"{self.job}/executions/{self.name}",
            "job": self.job.rpartition("/")[2],
            "taskCount": 1,
            "retriedCount": self.retried,
            "cancelledCount": int(self.cancelled),
            "logUri": f"https://console.cloud.google.com/logs/{self.name}",
            **{name: int(value) for name, value in counts.items()},
        }


class CloudRunJobs:
    """Both APIs; served by `tests.strict.google_apis.serving`. `jobs` are by full name, `executions` in their order."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self.jobs = dict(jobs)
        self.executions: list[Execution] = []
        self._operations: dict[str, Execution] = {}
        self._threads: list[threading.Thread] = []

    def ask(self, method: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        path = path.partition("?")[0]
        if method == "POST" and path == "/v2/entries:list":
            return self._entries(body)
        if method == "GET" and (asked := _OPERATION.fullmatch(path)):
            return self._operation(asked[1])
        if method == "GET" and (asked := _EXECUTED.fullmatch(path)):
            return self._executed(asked[1], asked[2])
        if not (asked := _JOB.fullmatch(path)) or (method == "POST") != bool(asked[5]):
            raise Refused(404, "NOT_FOUND", "no such method")
        if asked[1] not in self.jobs:
            raise Refused(404, "NOT_FOUND", f"Resource '{asked[4]}' of kind 'JOB' was not found")
        return self._run(asked[1], body) if method == "POST" else self._job(asked[1])

    def started(self, job: str) -> list[Execution]:
        """The executions of a job, by its short name."""
        return [each for each in self.executions if each.job.endswith(f"/{job}")]

    def await_all(self) -> None:
        """Returns once nothing runs."""
        for thread in self._threads:
            thread.join()

    def _run(self, job: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        _only(body, "request", name=str, validateOnly=bool, etag=str, overrides=dict)
        if body.get("name", job) != job:
            raise _invalid("name must be that of the path")
        if body.get("overrides"):
            raise Refused(403, "PERMISSION_DENIED", "Permission 'run.jobs.runWithOverrides' denied")
        execution = Execution(
            job=job, cancelled=self.jobs[job].cancelled, name=f"{job.rpartition('/')[2]}-{uuid.uuid4().hex[:5]}"
        )
        self.executions.append(execution)
        operation = f"{job.rpartition('/jobs/')[0]}/operations/{uuid.uuid4()}"
        self._operations[operation] = execution
        thread = threading.Thread(target=self._execute, args=(self.jobs[job], execution), daemon=True)
        self._threads.append(thread)
        thread.start()
        return self._operation(operation)

    def _job(self, name: str) -> Mapping[str, Any]:
        ran = self.started(name.rpartition("/")[2])
        if not ran:
            return {"name": name}
        last = ran[-1]
        status = {None: "EXECUTION_RUNNING", 0: "EXECUTION_SUCCEEDED"}.get(last.code, "EXECUTION_FAILED")
        newest = {"name": f"{name}/executions/{last.name}", "completionStatus": status}
        return {"name": name, "executionCount": len(ran), "latestCreatedExecution": newest}

    def _executed(self, job: str, name: str) -> Mapping[str, Any]:
        for each in self.executions:
            if (each.job, each.name) == (job, name):
                # In a resource, unlike in an operation's message, there is no type.
                return {key: value for key, value in each.to_json().items() if key != "@type"}
        raise Refused(404, "NOT_FOUND", f"Resource '{name}' of kind 'EXECUTION' was not found")

    def _execute(self, job: Job, execution: Execution) -> None:
        for attempt in range(1 + job.retries):
            execution.retried = attempt
            code = self._attempt(job, execution)
            if code == 0 or execution.cancelled:
                break
        execution.code = code

    def _attempt(self, job: Job, execution: Execution) -> int:
        process = subprocess.Popen(
            list(job.command), env=dict(job.environment), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            said, _ = process.communicate(timeout=job.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            said += f"Terminating task because it has reached the maximum timeout of {job.seconds:.0f} seconds\n"
        execution.lines += said.splitlines()
        return process.returncode

    def _operation(self, name: str) -> Mapping[str, Any]:
        if name not in self._operations:
            raise Refused(404, "NOT_FOUND", "Operation not found")
        execution = self._operations[name]
        said = execution.to_json()
        answer: dict[str, Any] = {"name": name, "metadata": said, "done": execution.code is not None}
        if not answer["done"]:
            return answer
        if execution.code and not execution.cancelled:
            why = f"Task {execution.name}-task0 failed with message: The container exited with an error."
            return answer | {"error": {"code": 9, "message": why}}
        return answer | {"response": said}

    def _entries(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        _only(body, "request", resourceNames=list, filter=str, orderBy=str, pageSize=int, pageToken=str)
        if not body.get("resourceNames"):
            raise _invalid("resourceNames must name at least one resource")
        if not 1 <= body.get("pageSize", 50) <= _MOST_ENTRIES:
            raise _invalid("pageSize must be 1 to 1000")
        if body.get("orderBy", "timestamp asc") not in ("timestamp asc", "timestamp desc"):
            raise _invalid("orderBy")
        if not (asked := re.fullmatch(_FILTER, body.get("filter", ""))):
            raise _invalid("a filter that this stand-in does not know")
        lines = [
            line
            for each in self.started(asked[1])
            if each.name == asked[2] and each.code is not None
            for line in each.lines
        ]
        if body.get("orderBy") == "timestamp desc":
            lines.reverse()
        now = datetime.now(UTC).isoformat()
        # A process that prints an empty line logs no entry of it.
        found = [{"textPayload": line, "timestamp": now} for line in lines if line.strip()]
        return {"entries": found[: body.get("pageSize", 50)]} if found else {}
