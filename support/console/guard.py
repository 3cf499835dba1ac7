"""What every request passes: who sent it, from which page, how large it is, how often; and what a browser may do."""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote_plus

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, Response

from pipeline.transforms.cards import find_cards
from support.console.identity import Identity, NotIdentified

log = logging.getLogger(__name__)

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_LARGEST_BODY: Final = 16 * 1024
_LONGEST_QUERY: Final = 2 * 1024
# Of a defect's frames, the innermost.
_FRAMES: Final = 4
_SAFE: Final = frozenset({"GET", "HEAD"})
# A viewer who asks more often than a person can read: a script. It should use BigQuery.
_REQUESTS: Final = 120
_PER_SECONDS: Final = 60.0

Next = Callable[[Request], Awaitable[Response]]


@dataclass
class Guard:
    """The one middleware. `broken` is the answer where a page has a defect.

    `hosts`: the names under which the console is reached; empty for any, behind the proxy.
    """

    identity: Identity
    broken: Callable[[Request], Response]
    hosts: frozenset[str] = frozenset()
    requests: int = _REQUESTS
    _asked: dict[str, deque[float]] = field(default_factory=dict)

    async def __call__(self, request: Request, call_next: Next) -> Response:
        response = await self._answer(request, call_next)
        for name, value in _HEADERS.items():
            response.headers[name] = value
        if not request.url.path.startswith("/static/"):
            # What is personal is in no cache.
            response.headers["Cache-Control"] = "no-store"
        return response

    async def _answer(self, request: Request, call_next: Next) -> Response:
        if request.url.path == "/healthz":
            return PlainTextResponse("ok\n")
        if refusal := self._refusal(request):
            return refusal
        try:
            # In a thread: once an hour it fetches the proxy's keys.
            request.state.viewer = await run_in_threadpool(self.identity.viewer, request.headers)
        except NotIdentified as error:
            log.warning("A request was refused: %s", error)
            return _refused(401, f"Not signed in: {error}")
        if not request.url.path.startswith("/static/") and not self._in_time(request.state.viewer.email):
            return _refused(429, "Too many requests in a minute. Wait, or query the views in BigQuery.")
        try:
            return await call_next(request)
        except Exception as error:
            # Where it happened, and not its text, which may quote a value of a payment.
            frames = traceback.extract_tb(error.__traceback__)
            at = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-_FRAMES:]))
            log.error("A page has a defect: %s at %s", type(error).__name__, at)
            return self.broken(request)

    def _refusal(self, request: Request) -> Response | None:
        """What is refused whoever sends it; None where nothing is wrong."""
        # A page elsewhere can make a browser ask a loopback address by another name.
        if self.hosts and request.headers.get("host", "").rpartition(":")[0] not in self.hosts:
            return _refused(421, "The console does not have this name. Open the address that it printed.")
        length = request.headers.get("content-length", "0")
        if request.method in _SAFE and find_cards(unquote_plus(f"{request.url.path}?{request.url.query}")):
            return _refused(400, "A card's number must not be in an address, which is kept. Type it into the box.")
        if len(request.url.query) > _LONGEST_QUERY or not length.isdecimal() or int(length) > _LARGEST_BODY:
            return _refused(413, "The request is too large. Search by fewer or shorter values.")
        if request.headers.get("transfer-encoding"):
            return _refused(411, "The request does not say how large it is.")
        if request.method not in _SAFE and not _of_this_site(request):
            return _refused(
                403, "The request comes from another site, so nothing is done. Open the console and repeat."
            )
        return None

    def _in_time(self, email: str) -> bool:
        now, asked = time.monotonic(), self._asked.setdefault(email, deque())
        while asked and now - asked[0] > _PER_SECONDS:
            asked.popleft()
        if len(asked) >= self.requests:
            return False
        asked.append(now)
        return True


def _of_this_site(request: Request) -> bool:
    """Whether a form of this console sent it. A browser says so, and no page can make it say otherwise."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    return bool(origin) and origin.partition("://")[2] == request.headers.get("host")


def _refused(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status_code=status)
