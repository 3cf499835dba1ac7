"""A stand-in for Dataflow's REST on one machine: a job is a process, or anything that its runner starts.

A request is read by Google's published types (google-cloud-dataflow-client): a field that a method does not have, or of
another type, is refused as Google refuses it. Known: flexTemplates.launch, jobs.list, jobs.get, and jobs.update of the
requested state. Of two active jobs with one name the second fails. Not known: who may ask, quotas, what is in a
template.

Source: cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.locations.jobs and
/projects.locations.flexTemplates/launch.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from local.machine.ports import LOOPBACK

_JOBS: Final = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs(?:/([^/]+))?")
_LAUNCH: Final = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/flexTemplates:launch")
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_ENDED: Final = frozenset({"DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED"})
# What a job may be requested to become, and what it is until it is so.
_REQUESTED: Final = {"JOB_STATE_DRAINED": "DRAINING", "JOB_STATE_CANCELLED": "CANCELLING"}
_PAGE: Final = 50


class Runner(Protocol):
    """What a job is here. `state` is Google's, without its prefix, as it is now."""

    def start(self, job_id: str, name: str, parameters: Mapping[str, str]) -> None: ...

    def state(self, job_id: str) -> str: ...

    def stop(self, job_id: str, *, drain: bool) -> None: ...


class Refused(Exception):
    """An HTTP status and Google's name for it."""

    def __init__(self, status: int, name: str, why: str) -> None:
        super().__init__(why)
        self.status, self.name = status, name


@dataclass
class _Job:
    id: str
    name: str
    created: datetime
    place: tuple[str, str]
    state: str = "QUEUED"
    since: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class Dataflow:
    """The jobs, and the bodies of the launches that were accepted. `clock` is what the service's times are of."""

    runner: Runner
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    launches: list[dict[str, Any]] = field(default_factory=list)
    _jobs: dict[str, _Job] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request. Raises Refused."""
        url = urlsplit(path)
        if method == "POST" and (match := _LAUNCH.fullmatch(url.path)):
            return self._launch((match[1], match[2]), body)
        if match := _JOBS.fullmatch(url.path):
            place = (match[1], match[2])
            if method == "GET" and not match[3]:
                return self._list(place, parse_qs(url.query))
            if method == "GET":
                return self._shown(self._found(place, match[3]))
            if method == "PUT" and match[3]:
                return self._update(self._found(place, match[3]), body)
        raise Refused(404, "NOT_FOUND", "no such method")

    def adopt(self, job_id: str, name: str, place: tuple[str, str]) -> None:
        """A job that its runner has started by itself."""
        self._jobs[job_id] = _Job(id=job_id, name=name, created=self.clock(), place=place, since=self.clock())

    # ------------------------------------------------------------------ the methods

    def _launch(self, place: tuple[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
        from google.cloud import dataflow_v1beta3 as types

        request = _read(types.LaunchFlexTemplateRequest, body)
        given = request.launch_parameter
        if not _NAME.fullmatch(given.job_name):
            raise _invalid("job_name must match [a-z]([-a-z0-9]{0,61}[a-z0-9])?")
        if not given.container_spec_gcs_path.startswith("gs://"):
            raise _invalid("container_spec_gcs_path must be a path of Cloud Storage")
        if given.update:
            raise _invalid("update is not known here: the stack replaces its job")
        now = self.clock()
        number = len(self._jobs) + 1
        job = _Job(id=f"{now:%Y-%m-%d_%H_%M_%S}-{number}", name=given.job_name, created=now, place=place, since=now)
        taken = any(other.name == job.name and self._current(other) not in _ENDED for other in self._jobs.values())
        self._jobs[job.id] = job
        self.launches.append(dict(body))
        if taken:
            # The launch is accepted, and its job fails: an active job has the name.
            self._become(job, "FAILED")
        else:
            self.runner.start(job.id, job.name, dict(given.parameters))
        # The launcher's answer has the job as it was queued.
        return {"job": self._shown(job, "QUEUED")}

    def _list(self, place: tuple[str, str], query: Mapping[str, list[str]]) -> dict[str, Any]:
        unknown = query.keys() - {"filter", "name", "pageSize", "pageToken", "view"}
        if unknown:
            raise _invalid(f"Cannot bind query parameter {sorted(unknown)[0]}")
        which = query.get("filter", ["ALL"])[0]
        if which not in ("ALL", "ACTIVE", "TERMINATED", "UNKNOWN"):
            raise _invalid(f"Invalid value at 'filter': {which}")
        name = query.get("name", [""])[0]
        found = [job for job in self._jobs.values() if job.place == place and name in ("", job.name)]
        if which in ("ACTIVE", "TERMINATED"):
            found = [job for job in found if (self._current(job) in _ENDED) is (which == "TERMINATED")]
        size = int(query.get("pageSize", [str(_PAGE)])[0]) or _PAGE
        first = int(query.get("pageToken", ["0"])[0])
        page: dict[str, Any] = {"jobs": [self._shown(job) for job in found[first : first + size]]}
        if first + size < len(found):
            page["nextPageToken"] = str(first + size)
        # As Google's JSON is: what is empty is left out.
        return {key: value for key, value in page.items() if value}

    def _update(self, job: _Job, body: Mapping[str, Any]) -> dict[str, Any]:
        from google.cloud import dataflow_v1beta3 as types

        wanted = _read(types.Job, body).requested_state.name
        if wanted not in _REQUESTED:
            raise _invalid(f"requested_state may be {' or '.join(_REQUESTED)}")
        if self._current(job) in _ENDED:
            raise Refused(400, "FAILED_PRECONDITION", f"Cannot modify a terminated job: {job.id}")
        self._become(job, _REQUESTED[wanted])
        self.runner.stop(job.id, drain=wanted == "JOB_STATE_DRAINED")
        return self._shown(job)

    # ------------------------------------------------------------------ a job

    def _found(self, place: tuple[str, str], job_id: str) -> _Job:
        job = self._jobs.get(job_id)
        if job is None or job.place != place:
            raise Refused(404, "NOT_FOUND", f"Information about job {job_id} could not be found in our system")
        return job

    def _current(self, job: _Job) -> str:
        """Its state now. What has ended stays as it ended."""
        if job.state not in _ENDED:
            state = self.runner.state(job.id)
            if job.state in ("DRAINING", "CANCELLING") and state in _ENDED:
                state = "DRAINED" if job.state == "DRAINING" else "CANCELLED"
            elif job.state in ("DRAINING", "CANCELLING"):
                state = job.state
            self._become(job, state)
        return job.state

    def _become(self, job: _Job, state: str) -> None:
        if state != job.state:
            job.state, job.since = state, self.clock()

    def _shown(self, job: _Job, state: str = "") -> dict[str, Any]:
        return {
            "id": job.id,
            "projectId": job.place[0],
            "location": job.place[1],
            "name": job.name,
            "type": "JOB_TYPE_STREAMING",
            "createTime": _time(job.created),
            "currentState": f"JOB_STATE_{state or self._current(job)}",
            "currentStateTime": _time(job.since),
        }


def _read(kind: Any, body: Mapping[str, Any]) -> Any:
    """The body as Google's type; unknown fields are refused."""
    from google.protobuf import json_format

    try:
        return kind.wrap(json_format.ParseDict(dict(body), kind.pb(kind()), ignore_unknown_fields=False))
    except json_format.ParseError as error:
        raise _invalid(f"Invalid JSON payload received. {error}") from None


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _invalid(why: str) -> Refused:
    return Refused(400, "INVALID_ARGUMENT", why)


@contextmanager
def serving(dataflow: Dataflow) -> Iterator[str]:
    """Its address while it is served."""
    server = ThreadingHTTPServer((LOOPBACK, 0), _handler(dataflow))
    thread = threading.Thread(target=server.serve_forever, name="dataflow", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _handler(dataflow: Dataflow) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                with lock:
                    status, body = 200, dataflow.ask(self.command, self.path, json.loads(text or "{}"))
            except Refused as refused:
                status = refused.status
                body = {"error": {"code": status, "message": str(refused), "status": refused.name}}
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.do_POST()

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: Any) -> None:
            """Whoever asks says what came of it."""

    return Handler
