"""The console as a web application. Reading works without JavaScript; with it the pages are live."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment
from starlette.exceptions import HTTPException

from contract.errors import AuditError
from support.connection import Connection
from support.console import access_log, asked, failed, render
from support.console.guard import Guard
from support.console.identity import Identity, Role, Viewer
from support.console.live import Poller
from support.console.personal import PersonalDataError
from support.monitored import monitored
from support.overview import overview
from support.replay_runs import Runs, runs
from support.warehouse import Warehouse, WarehouseError

T = TypeVar("T")

_STATIC: Final = Path(__file__).parent / "static"
API: Final = "/api/v1"


class NotFound(AuditError):
    """There is nothing of that name."""


class NotAllowed(AuditError):
    """The viewer's role does not do this; the message says which one does."""


@dataclass
class Console:
    """What a request needs: the stack, the poller, the templates."""

    connection: Connection
    poller: Poller
    templates: Environment
    _local: threading.local
    _logs: ThreadPoolExecutor
    # Where replays run.
    runs: Runs
    # A card's number → its tokens.
    tokens: Callable[[str], tuple[str, ...]]

    @property
    def warehouse(self) -> Warehouse:
        """The thread's own: a session is for one thread, and keeps its connection."""
        if not hasattr(self._local, "warehouse"):
            self._local.warehouse = Warehouse(self.connection)
        found: Warehouse = self._local.warehouse
        return found

    def logged(
        self, viewer: Viewer, action: str, subject: dict[str, Any], answer: Callable[[Warehouse], T], reason: str = ""
    ) -> T:
        """The answer, once the access is in the log: what cannot be logged is not shown. Both are under way at once."""
        access = access_log.Access(viewer=viewer, action=action, subject=subject, reason=reason)
        # The session is that of the thread that writes.
        written = self._logs.submit(lambda: access_log.write(self.warehouse, access))
        try:
            found = answer(self.warehouse)
        finally:
            written.result()
        return found

    def first_logged(self, viewer: Viewer, action: str, subject: dict[str, Any], reason: str) -> None:
        """Logs what is about to be done. Raises WarehouseError, and then it is not done."""
        access_log.write(
            self.warehouse, access_log.Access(viewer=viewer, action=action, subject=subject, reason=reason)
        )


def create(
    connection: Connection,
    identity: Identity,
    *,
    hosts: frozenset[str] = frozenset(),
    tokens: Callable[[str], tuple[str, ...]] | None = None,
) -> FastAPI:
    """The application over a stack. `hosts` are its names where it is not behind a proxy.

    `tokens` gives a card's tokens; by default they are made here, with the masking key.
    """
    from support.console import api, pages

    looker = Warehouse(connection)
    poller = Poller(lambda: overview(looker), lambda: monitored(connection))
    console = Console(
        connection=connection,
        poller=poller,
        templates=render.environment(),
        _local=threading.local(),
        _logs=ThreadPoolExecutor(8, thread_name_prefix="access-log"),
        tokens=tokens or (lambda card: asked.tokens(connection, card)),
        runs=runs(connection),
    )

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        poller.end()

    app = FastAPI(
        title="Payment audit",
        version="1",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
    )
    app.state.console = console
    app.middleware("http")(Guard(identity, _broken, hosts))
    app.add_exception_handler(AuditError, _explained)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _unknown)
    app.include_router(api.router, prefix=API)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    return app


def of(request: Request) -> Console:
    """The console of a request."""
    console: Console = request.app.state.console
    return console


def viewer_of(request: Request) -> Viewer:
    """Who sent a request; the guard has found out."""
    viewer: Viewer = request.state.viewer
    return viewer


def allow(viewer: Viewer, role: Role, what: str) -> None:
    """Raises NotAllowed unless the viewer has the role."""
    if not viewer.may(role):
        raise NotAllowed(
            f"{what} takes the role {role}; you are a {viewer.role}. A stack's config names who has it.{viewer.doubt}"
        )


def _invalid(request: Request, error: Exception) -> Response:
    """As `_explained`, of a parameter that is not of its type. What was typed is not repeated: it can be a card."""
    assert isinstance(error, RequestValidationError)
    rules = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
    return _shown(request, 422, f"{rules}.")


def _explained(request: Request, error: Exception) -> Response:
    """A page, or JSON for the API, with the error's message: it has the rule and the remedy, and no payment's data.

    Where something does not answer, the message is for who runs the stack: the log has it, and a page says it in words
    for people who use it.
    """
    assert isinstance(error, AuditError)
    status, text = _status(error), str(error)
    if status == _NO_ANSWER:
        # The route's own form: an address may name a payment or a customer.
        where = f"{request.method} {getattr(request.scope.get('route'), 'path', 'unknown')}"
        for_people = failed.explained(error, where)
        text = text if request.url.path.startswith(API) else for_people
    return _shown(request, status, text)


def _unknown(request: Request, error: Exception) -> Response:
    """As `_explained`, of an address that nothing answers, or not for that method."""
    assert isinstance(error, HTTPException)
    text = _UNKNOWN.get(error.status_code, "the console cannot answer this. Choose a page of the menu.")
    answer = _shown(request, error.status_code, text)
    answer.headers.update(error.headers or {})
    return answer


def _broken(request: Request) -> Response:
    """As `_explained`, of a defect, which the guard has logged."""
    return _shown(
        request, 500, "this page has a defect, which is in the log. Choose another page, or report it to on-call."
    )


def _shown(request: Request, status: int, text: str) -> Response:
    if request.url.path.startswith(API):
        return JSONResponse({"error": text}, status_code=status)
    from support.console.pages import page

    path = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    again = path if status == _NO_ANSWER and request.method == "GET" else ""
    title = _TITLES.get(status, "That did not work")
    return page(request, "error.html", status=status, title=title, text=text, again=again, search=status == _ASKED)


_NO_ANSWER: Final = 503
_ASKED: Final = 400
_UNKNOWN: Final = {
    404: "there is no such page. The menu has those that exist.",
    405: "this address is for a form's answer alone. Open the page that has the form.",
}
_TITLES: Final = {
    405: "Not a page",
    404: "Not found",
    403: "Not allowed",
    400: "That cannot be searched",
    422: "That cannot be read",
    500: "This page is broken",
    503: "No answer",
}


def _status(error: Exception) -> int:
    match error:
        case NotFound():
            return 404
        case NotAllowed() | PersonalDataError():
            return 403
        case WarehouseError() if error.too_much:
            return 400
        case WarehouseError():
            return 503
        case AuditError() if error.exit_code == 2:
            return 400
    return 503
