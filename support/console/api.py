"""The JSON that pages and scripts share. What it answers is what `audit … --json` prints."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import Response
from pydantic import SecretStr

from support import dead_letters, replay, reports, slo
from support.backup.listing import Listed, listed
from support.console import asked, personal
from support.console.app import NotFound, of, viewer_of
from support.console.asked import Customer, Filters, Limit, Puid, Since, Until, moment
from support.console.identity import Viewer
from support.console.live import Seen
from support.dead_letters import Letter
from support.erasure import work as erasing
from support.erasure.store import public
from support.plain import plain
from support.promql import MonitoringError, Prometheus
from support.replay import Replay, ReplayError
from support.reports import Report
from support.search import Found, Search, search
from support.stuck import Look, stuck
from support.timeline import Timeline, timeline
from support.validation import runs

router = APIRouter()
_MOST: Final = 1000


class Json(Response):
    """JSON as support writes it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, default=plain, ensure_ascii=False).encode()


@router.get("/me", summary="Who you are, and what you may do.", response_model=Viewer)
def me(request: Request) -> Response:
    return Json(viewer_of(request))


@router.get("/payments", summary="Payments that match every filter, the last changed first.", response_model=Found)
def payments(request: Request, filters: Annotated[Filters, Query()]) -> Response:
    console, viewer = of(request), viewer_of(request)
    wanted = filters.search()
    if filters.customer:
        personal.refuse(viewer)
    found = console.logged(viewer, "search", filters.given(), lambda warehouse: search(warehouse, wanted))
    return Json(personal.of_found(viewer, found))


@router.post(
    "/payments/by-card",
    summary="The payments in which a card was ever seen, then or now.",
    description="The number is in the body, which is in no log. A script sends `Origin` with the console's address.",
    response_model=Found,
)
def payments_by_card(
    request: Request,
    number: Annotated[SecretStr, Body(embed=True, description="The card's number, blanks allowed.")],
    limit: Annotated[Limit, Body(embed=True)] = 50,
) -> Response:
    console, viewer = of(request), viewer_of(request)
    wanted = Search(card_tokens=asked.tokens(console.connection, number.get_secret_value()), limit=limit)
    subject = {"card": "by its token", "last_four": number.get_secret_value().strip()[-4:]}
    found = console.logged(viewer, "search", subject, lambda warehouse: search(warehouse, wanted))
    return Json(personal.of_found(viewer, found))


@router.get("/payments/{puid:path}", summary="Everything that happened to a payment.", response_model=Timeline)
def payment(request: Request, puid: str) -> Response:
    console, viewer = of(request), viewer_of(request)
    found = console.logged(viewer, "payment", {"puid": puid}, lambda warehouse: timeline(warehouse, puid))
    if not found.events:
        raise NotFound("there is no such payment. Search for it by customer or time.")
    found = replay.with_reasons(console.connection, found)
    return Json(personal.of_timeline(viewer, found, console.connection.watched))


@router.get(
    "/stuck",
    summary="Payments unchanged for longer than their status allows, the longest first; seen when.",
    response_model=Look,
)
def stuck_payments(request: Request, limit: Annotated[Limit, Query()] = 100) -> Response:
    console, viewer = of(request), viewer_of(request)
    found = console.logged(viewer, "stuck", {"limit": limit}, lambda warehouse: stuck(warehouse, limit=limit))
    return Json(found)


@router.get("/reports", summary="The prebuilt queries, and what each answers.", response_model=list[dict[str, str]])
def all_reports(request: Request) -> Response:
    return Json([{"name": n, "about": reports.about(n)} for n in reports.available(of(request).connection.watched)])


@router.get(
    "/reports/{name}",
    summary="A prebuilt query. Each takes some of the parameters: /reports says what it answers.",
    response_model=Report,
)
def report(
    request: Request,
    name: str,
    since: Annotated[Since, Query()] = "1d",
    until: Annotated[Until, Query()] = "",
    limit: Annotated[Limit, Query()] = 50,
    customer: Annotated[Customer, Query()] = "",
    puid: Annotated[Puid, Query()] = "",
    status: Annotated[list[str], Query(description="Statuses, of stuck_payments.")] = [],  # noqa: B006
    older_than_seconds: Annotated[int, Query(ge=1, description="For at least so long, of stuck_payments.")] = 3600,
    period_seconds: Annotated[int, Query(ge=1, description="A row's period, of summary_by_period.")] = 3600,
) -> Response:
    console, viewer = of(request), viewer_of(request)
    if name not in reports.available(console.connection.watched):
        raise NotFound("there is no such report. /api/v1/reports lists them.")
    if customer or name == "summary_by_customer":
        personal.refuse(viewer)
    wanted = {argument.name for argument in reports.arguments(name)}
    given = {
        "since": moment(since, "since"), "until": moment(until, "until"), "limit": limit, "customer_id": customer,
        "puid": puid, "statuses": status, "older_than_seconds": older_than_seconds, "period_seconds": period_seconds,
    }  # fmt: skip
    taken: dict[str, Any] = {key: value for key, value in given.items() if key in wanted and value}
    found = console.logged(viewer, name, taken, lambda warehouse: reports.run(warehouse, name, **taken))
    return Json(personal.of_report(viewer, found, console.connection.watched))


@router.get("/dead-letters", summary="What could not be written, and why.", response_model=list[Letter])
def letters(request: Request) -> Response:
    of(request).first_logged(viewer_of(request), "dead letters", {}, "")
    return Json(dead_letters.all_letters(dead_letters.queue(of(request).connection))[:_MOST])


@router.get(
    "/replays", summary="The last replays, the newest first: who asked for what, and why.", response_model=list[Replay]
)
def replays(request: Request) -> Response:
    of(request).first_logged(viewer_of(request), "replays", {}, "")
    found = replay.latest(of(request).connection)
    return Json([personal.of_replay(viewer_of(request), each) for each in found])


@router.get("/replays/{replay_id}", summary="A replay, its payments and how far it is.", response_model=Replay)
def one_replay(request: Request, replay_id: str) -> Response:
    of(request).first_logged(viewer_of(request), "replays", {"replay": replay_id}, "")
    return Json(find_replay(request, replay_id))


@router.get(
    "/backups",
    summary="The backups of BigQuery, the newest first: how old, what they hold, and what their last drill found.",
    response_model=Listed,
)
def backups(request: Request) -> Response:
    of(request).first_logged(viewer_of(request), "backups", {}, "")
    return Json(listed(of(request).connection))


@router.get(
    "/validations",
    summary="The validations of a week, the newest first: what each compared, and which rows are wrong.",
    response_model=list[runs.Run],
)
def validations(request: Request) -> Response:
    of(request).first_logged(viewer_of(request), "validations", {}, "")
    return Json(runs.latest(of(request).warehouse))


@router.get("/erasures", summary="The erasures, the newest first; not of whom.", response_model=list[dict[str, Any]])
def erasures(request: Request) -> Response:
    of(request).first_logged(viewer_of(request), "erasures", {}, "")
    return Json([public(each) for each in erasing.every(of(request).connection)])


@router.get(
    "/objectives",
    summary="Each objective: attained, budget left, how fast it burns. Empty where nobody measures.",
    response_model=list[slo.Standing],
)
def objectives(request: Request) -> Response:
    connection = of(request).connection
    try:
        return Json(slo.standings(Prometheus(connection), slo.goals(connection)))
    except MonitoringError:
        return Json([])


@router.get(
    "/overview",
    summary="Payments by state, stuck, failures, dead letters, latency, rate, alerts: as the poller saw it last.",
    response_model=Seen,
)
def look(request: Request) -> Response:
    of(request).first_logged(viewer_of(request), "overview", {}, "")
    seen = of(request).poller.after(0, 20)
    return Json(personal.of_seen(viewer_of(request), seen))


def find_replay(request: Request, replay_id: str) -> Replay:
    """Raises NotFound."""
    try:
        return personal.of_replay(viewer_of(request), replay.find(of(request).connection, replay_id))
    except ReplayError:
        raise NotFound("there is no such replay. /replays has the last ones.") from None
