"""REST APIs of Google's on loopback; they refuse what Google's pages say is refused. Here the two that a replay uses.

Cloud Run: cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run. Pub/Sub:
cloud.google.com/pubsub/docs/reference/rest/v1/projects.topics/publish, with the limits of
cloud.google.com/pubsub/quotas#resource_limits. A field that a method does not have is INVALID_ARGUMENT in both. Not
enforced: who asks, and how often.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

_MOST_BYTES = 10_000_000
_MOST_MESSAGES, _MOST_ATTRIBUTES = 1_000, 100
_KEY_BYTES, _VALUE_BYTES, _ORDERING_BYTES = 256, 1_024, 1_024


class Refused(Exception):
    """An HTTP status and Google's name for it; with a reason, as cloud.google.com/apis/design/errors has them."""

    def __init__(self, status: int, name: str, why: str, reason: str = "") -> None:
        super().__init__(why)
        self.status, self.name, self.reason = status, name, reason


class Dropped(Exception):
    """The connection ends without an answer."""


def _invalid(why: str) -> Refused:
    return Refused(400, "INVALID_ARGUMENT", why)


def _only(given: Mapping[str, Any], where: str, **kinds: type) -> None:
    for name, value in given.items():
        if name not in kinds:
            raise _invalid(f'Invalid JSON payload received. Unknown name "{name}" at {where}')
        if not isinstance(value, kinds[name]):
            raise _invalid(f"{where}.{name} is of another type")


@dataclass
class CloudRun:
    """Jobs that exist, by full name, and the arguments of the executions that were started.

    `newest`: of a job, the name and the status of its newest execution:
    cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs.
    """

    jobs: frozenset[str]
    started: list[tuple[str, list[str]]] = field(default_factory=list)
    newest: dict[str, tuple[str, str]] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.get(path) if method == "GET" else self.post(path, body)

    def get(self, path: str) -> Mapping[str, Any]:
        job = path.removeprefix("/v2/")
        if job not in self.jobs:
            raise Refused(404, "NOT_FOUND", "Resource was not found")
        if job not in self.newest:
            return {"name": job}
        name, status = self.newest[job]
        return {"name": job, "latestCreatedExecution": {"name": f"{job}/executions/{name}", "completionStatus": status}}

    def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        match = re.fullmatch(r"/v2/(projects/[^/]+/locations/[^/]+/jobs/[^/:]+):run", path)
        if not match:
            raise Refused(404, "NOT_FOUND", "no such method")
        if match[1] not in self.jobs:
            raise Refused(404, "NOT_FOUND", f"Resource '{match[1].rpartition('/')[2]}' was not found")
        _only(body, "request", validateOnly=bool, etag=str, overrides=dict)
        overrides = body.get("overrides", {})
        _only(overrides, "overrides", containerOverrides=list, taskCount=int, timeout=str)
        args: list[str] = []
        for each in overrides.get("containerOverrides", []):
            _only(each, "containerOverrides", name=str, args=list, env=list, clearArgs=bool)
            if not all(isinstance(arg, str) for arg in each.get("args", [])):
                raise _invalid("args must be strings")
            args = each.get("args", [])
        self.started.append((match[1], args))
        project, location = match[1].split("/")[1:4:2]
        return {"name": f"projects/{project}/locations/{location}/operations/{len(self.started)}", "done": False}


@dataclass
class PubSub:
    """Topics that exist, by full name, and what was published. `refuse`: statuses of the next requests."""

    topics: frozenset[str]
    messages: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0
    refuse: list[int] = field(default_factory=list)

    def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        self.requests += 1
        if self.refuse:
            raise Refused(self.refuse.pop(0), "UNAVAILABLE", "for the moment")
        match = re.fullmatch(r"/v1/(projects/[^/]+/topics/[^/:]+):publish", path)
        if not match or match[1] not in self.topics:
            raise Refused(404, "NOT_FOUND", "Resource not found")
        _only(body, "request", messages=list)
        messages = body.get("messages", [])
        if not 1 <= len(messages) <= _MOST_MESSAGES:
            raise _invalid("The value for message_count is too large or too small")
        for message in messages:
            self._check(message)
        first = len(self.messages)
        self.messages += messages
        return {"messageIds": [str(first + number) for number in range(len(messages))]}

    def _check(self, message: Mapping[str, Any]) -> None:
        # messageId and publishTime are the server's: what a publisher sends there is ignored.
        _only(message, "message", data=str, attributes=dict, orderingKey=str, messageId=str, publishTime=str)
        attributes = message.get("attributes", {})
        if not (message.get("data") or attributes):
            raise _invalid("One or more messages in the publish request is empty")
        if len(attributes) > _MOST_ATTRIBUTES:
            raise _invalid("too many attributes")
        for name, value in attributes.items():
            if not name or name.startswith("goog") or len(name.encode()) > _KEY_BYTES:
                raise _invalid("an attribute's key")
            if not isinstance(value, str) or len(value.encode()) > _VALUE_BYTES:
                raise _invalid("an attribute's value")
        if len(message.get("orderingKey", "").encode()) > _ORDERING_BYTES:
            raise _invalid("orderingKey")


class Api(Protocol):
    """Answers requests. The path is as it was sent, its query with it; a request without a body has an empty one."""

    def ask(self, method: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]: ...


@contextmanager
def serving(api: CloudRun | PubSub | Api) -> Iterator[str]:
    """The API's address while it is served."""
    ask = _posts_only(api.post) if isinstance(api, PubSub) else api.ask
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(ask))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


_Ask = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]


def _posts_only(post: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]) -> _Ask:
    def ask(method: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if method != "POST":
            raise Refused(404, "NOT_FOUND", "no such method")
        return post(path, body)

    return ask


def _handler(ask: _Ask) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                if len(text) > _MOST_BYTES:
                    raise _invalid("Request payload size exceeds the limit")
                with lock:
                    self._answer(200, ask(self.command, self.path, json.loads(text or "{}")))
            except Dropped:
                self.close_connection = True
            except Refused as refused:
                error = {"code": refused.status, "message": str(refused), "status": refused.name}
                details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": refused.reason}]
                self._answer(refused.status, {"error": error | ({"details": details} if refused.reason else {})})

        def do_GET(self) -> None:
            self.do_POST()

        def do_DELETE(self) -> None:
            self.do_POST()

        def do_PATCH(self) -> None:
            self.do_POST()

        def _answer(self, status: int, body: Mapping[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
