"""The JSON that pages and scripts share. What it answers is what `audit … --json` prints."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from support import dead_letters, replay, reports
from support.console import personal
from support.console.app import NotFound, of, viewer_of
from support.console.asked import Filters, moment
from support.plain import plain
from support.search import MAX_LIMIT, search
from support.stuck import stuck
from support.timeline import timeline

router = APIRouter()
_MOST: Final = 1000

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most of them to return.")]


class Json(Response):
    """JSON as support writes it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, default=plain, ensure_ascii=False).encode()


@router.get("/me", summary="Who you are, and what you may do.")
def me(request: Request) -> Response:
    return Json(viewer_of(request))


@router.get("/payments", summary="Payments by id, customer, last four digits, state, status and time of last change.")
def payments(
    request: Request,
    puid: str = "",
    customer: str = "",
    last_four: str = "",
    state: str = "",
    status: str = "",
    since: str = "",
    until: str = "",
    limit: Limit = 50,
) -> Response:
    console, viewer = of(request), viewer_of(request)
    filters = Filters(
        puid=puid, customer=customer, last_four=last_four, state=state, status=status, since=since, until=until,
        limit=limit,
    )  # fmt: skip
    wanted = filters.search()
    if customer:
        personal.refuse(viewer)
    found = console.logged(viewer, "search", filters.given(), lambda warehouse: search(warehouse, wanted))
    return Json(personal.of_found(viewer, found))


@router.get("/payments/{puid:path}", summary="Everything that happened to a payment.")
def payment(request: Request, puid: str) -> Response:
    console, viewer = of(request), viewer_of(request)
    found = console.logged(viewer, "payment", {"puid": puid}, lambda warehouse: timeline(warehouse, puid))
    if not found.events:
        raise NotFound("there is no such payment. Search for it by customer or time.")
    found = replay.with_reasons(console.connection, found)
    return Json(personal.of_timeline(viewer, found, console.connection.watched))


@router.get("/stuck", summary="Payments unchanged for longer than their status allows, the longest first; seen when.")
def stuck_payments(request: Request, limit: Limit = 100) -> Response:
    console, viewer = of(request), viewer_of(request)
    found = console.logged(viewer, "stuck", {"limit": limit}, lambda warehouse: stuck(warehouse, limit=limit))
    return Json(found)


@router.get("/reports", summary="The prebuilt queries, and what each answers.")
def all_reports(request: Request) -> Response:
    return Json([{"name": n, "about": reports.about(n)} for n in reports.available(of(request).connection.watched)])


@router.get("/reports/{name}", summary="A prebuilt query; since and until as in a search.")
def report(
    request: Request,
    name: str,
    since: str = "1d",
    until: str = "",
    limit: Limit = 50,
    customer: str = "",
    puid: str = "",
) -> Response:
    console, viewer = of(request), viewer_of(request)
    if name not in reports.available(console.connection.watched):
        raise NotFound("there is no such report. /api/v1/reports lists them.")
    if customer or name == "summary_by_customer":
        personal.refuse(viewer)
    wanted = {argument.name for argument in reports.arguments(name)}
    given = {
        "since": moment(since, "since"), "until": moment(until, "until"), "limit": limit, "customer_id": customer,
        "puid": puid,
    }  # fmt: skip
    taken: dict[str, Any] = {key: value for key, value in given.items() if key in wanted and value}
    found = console.logged(viewer, name, taken, lambda warehouse: reports.run(warehouse, name, **taken))
    return Json(personal.of_report(viewer, found, console.connection.watched))


@router.get("/dead-letters", summary="What could not be written, and why.")
def letters(request: Request) -> Response:
    of(request).first_logged(viewer_of(request), "dead letters", {}, "")
    return Json(dead_letters.all_letters(dead_letters.queue(of(request).connection))[:_MOST])


@router.get("/replays", summary="The last replays, the newest first: who asked for what, and why.")
def replays(request: Request) -> Response:
    of(request).first_logged(viewer_of(request), "replays", {}, "")
    found = replay.latest(of(request).connection)
    return Json([personal.of_replay(viewer_of(request), each) for each in found])


@router.get("/overview", summary="Payments by state, rates, stuck, failures, dead letters: as the poller saw it last.")
def look(request: Request) -> Response:
    of(request).first_logged(viewer_of(request), "overview", {}, "")
    seen = of(request).poller.after(0, 20)
    found = seen.overview and personal.of_overview(viewer_of(request), seen.overview)
    return Json({"overview": found, "alerts": seen.alerts, "error": seen.error})
