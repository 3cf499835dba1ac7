"""The pages. Each is a form of what `api` answers; addresses have ids and filters, never a card."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from contract import payments as known
from contract import tables
from contract.watched import Meaning, WatchedTables
from support import dead_letters, replay, reports
from support.backup.listing import listed
from support.bigquery_rest import Row
from support.connection import Connection
from support.console import asked, personal, picture, render
from support.console.api import find_replay
from support.console.app import NotFound, allow, of, viewer_of
from support.console.asked import Filters
from support.console.live import Poller, Seen
from support.erasure import work as erasing
from support.erasure.store import public
from support.replay import Selection, selected
from support.requested import LEAST_REASON
from support.search import MAX_LIMIT, Search, search
from support.stuck import stuck
from support.timeline import Timeline, timeline
from support.validation import runs

router = APIRouter(include_in_schema=False)

_STUCK: Final = 200
# Of one validation, on the page.
_FINDINGS: Final = 10
_PERIODS: Final = ("15m", "1h", "24h", "7d")
_FAILURES: Final = 50
# Changes of a payment of which the differences are unfolded, the newest.
_OPENED: Final = 3
# Of a service or a reason, the last failures are looked through.
_CHOSEN_FROM: Final = 1_000
_SUMMARIES: Final = {"customers": "customer", "regions": "region", "methods": "method"}
_LAST: Final = 4
# What a look may be old before the first page says so, and before something is wrong if somebody watched all the time.
_STALE_SECONDS: Final = 60
_LATE_SECONDS: Final = 300
_NO_CARD: Final = (
    "no payment has this id, and as the number of a card a digit is wrong or missing. Ask for the number again, and "
    "type it into the box at the top, which keeps it nowhere."
)


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page in the console's frame."""
    console = of(request)
    viewer = getattr(request.state, "viewer", None)
    text = console.templates.get_template(template).render(
        viewer=viewer, path=request.url.path, states=known.STATES, project=console.connection.project, **values
    )
    return HTMLResponse(text, status_code=status)


@router.get("/")
def home(request: Request) -> Response:
    console, viewer = of(request), viewer_of(request)
    console.first_logged(viewer, "overview", {}, "")
    return page(request, "home.html", **_shown(console.poller, console.poller.seen(), viewer))


@router.get("/live")
def live(request: Request) -> Response:
    console, viewer = of(request), viewer_of(request)
    template = console.templates.get_template("_overview.html")
    console.first_logged(viewer, "overview", {}, "")
    events: AsyncIterator[str] = console.poller.events(
        lambda seen: template.render(**_shown(console.poller, seen, viewer))
    )
    return StreamingResponse(events, media_type="text/event-stream")


def _shown(poller: Poller, seen: Seen, viewer: Any) -> dict[str, Any]:
    shown = personal.of_seen(viewer, seen)
    old = (datetime.now(UTC) - shown.overview.at).total_seconds() if shown.overview else 0.0
    late = min(old, poller.watched_seconds()) > _LATE_SECONDS
    return {"seen": shown, "overview": shown.overview, "stale": old > _STALE_SECONDS, "late": late}


@router.get("/search")
def found(request: Request, filters: Annotated[Filters, Query()]) -> Response:
    console, viewer = of(request), viewer_of(request)
    wanted = filters.search()
    if filters.customer:
        personal.refuse(viewer)
    result = console.logged(viewer, "search", filters.given(), lambda warehouse: search(warehouse, wanted))
    more = urlencode({**filters.given(), "limit": min(MAX_LIMIT, 4 * filters.limit)}) if result.more else ""
    return page(
        request, "search.html", filters=filters, found=personal.of_found(viewer, result), card=False, more=more,
        periods=_PERIODS,
    )  # fmt: skip


@router.post("/search")
def filtered(request: Request, filters: Annotated[Filters, Form()]) -> Response:
    """The form: what is typed is judged before it is in an address."""
    if len(re.sub(r"\D", "", filters.last_four)) > _LAST:
        raise asked.AskedError(
            "the last four digits must be four, got more. Type a whole number into the box at the top, which keeps it "
            "nowhere."
        )
    filters.search()
    typed: dict[Meaning, str] = {"payment": filters.puid, "customer": filters.customer, "status": filters.status}
    payments = of(request).connection.watched.payments
    for meaning, text in typed.items():
        # Where ids are whole numbers, as many digits as a card has may be one.
        column = payments.columns.get(payments.column(meaning) or "")
        if asked.may_be_card(text) and not (column and column.type == "INT64"):
            raise asked.AskedError(_NO_CARD)
    return _to(f"/search?{urlencode(filters.given())}")


@router.get("/find")
def found_again() -> Response:
    """The address of a search by card, entered once more: what was typed is kept nowhere, so it is typed again."""
    return _to("/search")


@router.post("/find")
def find(request: Request, q: Annotated[str, Form()] = "") -> Response:
    """The one box. A card is searched here and now, so that its number is in no address."""
    console, viewer, text = of(request), viewer_of(request), q.strip()
    if not text:
        return _to("/search")
    if asked.is_card(text):
        wanted = Search(card_tokens=console.tokens(text))
        subject = {"card": "by its token", "last_four": text[-4:]}
        result = console.logged(viewer, "search", subject, lambda warehouse: search(warehouse, wanted))
        shown = personal.of_found(viewer, result)
        return page(request, "search.html", filters=Filters(), found=shown, card=True, more="", periods=_PERIODS)
    if len(text) == 4 and text.isascii() and text.isdigit():
        return _to(f"/search?{urlencode({'last_four': text})}")
    if len(text) > asked.LONGEST:
        raise asked.AskedError(f"what is searched must be at most {asked.LONGEST} characters long. Shorten it.")
    by_id = Filters(puid=text).search()
    # A card with a wrong digit is as good as kept, were it in the log.
    named = f"{len(re.sub(r'[^0-9]', '', text))} digits" if asked.may_be_card(text) else text
    result = console.logged(viewer, "search", {"puid": named}, lambda warehouse: search(warehouse, by_id))
    if not result.payments and text != text.lower():
        # A UUID as some systems print it.
        text_as_kept = text.lower()
        result = search(console.warehouse, Filters(puid=text_as_kept).search())
        text = text_as_kept if result.payments else text
    if result.payments:
        return _to(f"/payments/{quote(text, safe='')}")
    if asked.may_be_card(text):
        # A digit was misheard: the number must not come into an address as somebody's id.
        raise asked.AskedError(_NO_CARD)
    return _to(
        f"/search?{urlencode({'customer': text})}" if viewer.sees_personal else f"/search?{urlencode({'puid': text})}"
    )


@router.get("/payments/{puid:path}")
def payment(request: Request, puid: str, replayed: Annotated[str, Query(alias="replay")] = "") -> Response:
    console, viewer = of(request), viewer_of(request)
    if asked.is_card(puid):
        raise asked.AskedError("a card's number must not be in an address. Type it into the search box.")
    # Before the changes are read: a page that says the replay has finished shows what it wrote.
    awaited = find_replay(request, replayed) if replayed else None
    result = console.logged(viewer, "payment", {"puid": puid}, lambda warehouse: timeline(warehouse, puid))
    if not result.events:
        raise NotFound("there is no such payment. Search for it by customer, card or time.")
    result = replay.with_reasons(console.connection, result)
    shown = personal.of_timeline(viewer, result, console.connection.watched)
    facts = _facts(shown, console.connection.watched)
    limits, ends = _limits(console.connection)
    last = next((t.to_status for t in reversed(result.transitions)), None)
    limit = None if last is None or last in ends else limits.get(last, limits[known.ANY])
    now = next((each for each in reversed(shown.events) if each.table == shown.payments_table), None)
    return page(
        request, "payment.html", timeline=shown, bars=picture.bars(result.transitions), facts=facts, replay=awaited,
        problem=console.runs.problem(replayed), limit=limit, now=now, opened=_OPENED,
    )  # fmt: skip


def _limits(connection: Connection) -> tuple[dict[str, int], list[str]]:
    """How long a payment may stay in a status, by status, and the statuses at which payments end."""
    states = known.parse_states(connection.payment_states) if connection.payment_states else known.PAYMENT_STATES
    limits = known.parse_limits(connection.stuck_limits)
    named = {status: limits[status] for status in sorted(limits, key=lambda status: status == known.ANY)}
    return named, sorted(known.ends(states, limits))


_FACTS: Final[tuple[Meaning, ...]] = ("amount", "currency", "customer", "region", "method", "service", "retries")


def _facts(timeline: Timeline, watched: WatchedTables) -> dict[str, str]:
    """What a payment is now, or was before its deletion, put together from its changes: name → value."""
    values: dict[str, str | None] = {}
    for event in timeline.events:
        if event.table == timeline.payments_table:
            after = event.mod_type != "DELETE"
            values |= {each.column: each.new if after else each.old for each in event.differences}
    columns: dict[str, str | None] = {meaning: tables.named(watched.payments, meaning) for meaning in _FACTS}
    cards = [name for name, column in watched.payments.columns.items() if column.policy == "card"]
    columns["card"] = tables.column_name(watched.payments, cards[0]) if cards else None
    found = {name: values.get(column) for name, column in columns.items() if column}
    return {name: value for name, value in found.items() if value is not None}


@router.get("/stuck")
def stuck_payments(request: Request) -> Response:
    console, viewer = of(request), viewer_of(request)
    result = console.logged(viewer, "stuck", {"limit": _STUCK}, lambda warehouse: stuck(warehouse, limit=_STUCK))
    limits, ends = _limits(console.connection)
    return page(request, "stuck.html", look=result, most=_STUCK, limits=limits, ends=ends)


@router.get("/failures")
def failures(request: Request, since: str = "1h", until: str = "", service: str = "", reason: str = "") -> Response:
    console, viewer = of(request), viewer_of(request)
    begin = asked.moment(since, "since") or asked.moment("1h", "since")
    assert begin
    asked.refuse_cards(service)
    end = asked.moment(until, "until")
    during = {"since": begin, **({"until": end} if end else {})}
    subject = {"since": since, "until": until, "service": service[: asked.LONGEST], "reason": reason[: asked.LONGEST]}
    reasons = console.logged(
        viewer, "failures", subject, lambda warehouse: reports.run(warehouse, "failures_by_reason", **during)
    )
    watched = console.connection.watched
    by_service = "failures_by_service" in reports.available(watched)
    services = reports.run(console.warehouse, "failures_by_service", **during) if by_service else None
    most = _CHOSEN_FROM if service or reason else _FAILURES
    last = reports.run(console.warehouse, "failures", **during, limit=most)

    def chosen(row: Row) -> bool:
        return service in ("", row.get("service")) and reason in ("", render.reason(row))

    last = replace(last, rows=tuple(filter(chosen, last.rows)))
    reasons = replace(reasons, rows=tuple(filter(chosen, reasons.rows)))
    return page(
        request, "failures.html", reasons=reasons, services=services, periods=_PERIODS,
        failures=personal.of_report(viewer, last, watched), since=since, until=until, service=service, reason=reason,
        total=sum(row["failures"] for row in reasons.rows), chosen=next(iter(reasons.rows), None) if reason else None,
        most=most,
    )  # fmt: skip


@router.get("/by/{what}")
def summary(request: Request, what: str, since: str = "24h") -> Response:
    console, viewer = of(request), viewer_of(request)
    by = _SUMMARIES.get(what, "")
    name = f"summary_by_{by}"
    if name not in reports.available(console.connection.watched):
        raise NotFound("there is no such summary. The menu has those that exist.")
    if by == "customer":
        personal.refuse(viewer)
    begin = asked.moment(since, "since") or asked.moment("24h", "since")
    assert begin
    result = console.logged(
        viewer, name, {"since": since}, lambda warehouse: reports.run(warehouse, name, since=begin, limit=200)
    )
    return page(request, "summary.html", report=result, what=what, by=by, since=since, periods=_PERIODS)


@router.get("/dead-letters")
def letters(request: Request, done: str = "") -> Response:
    console = of(request)
    console.first_logged(viewer_of(request), "dead letters", {}, "")
    every = dead_letters.all_letters(dead_letters.queue(console.connection))
    return page(request, "dead_letters.html", letters=every[-_STUCK:], total=len(every), done=done)


@router.post("/dead-letters/{letter_id:path}/retry")
def retry(request: Request, letter_id: str, reason: Annotated[str, Form()] = "") -> Response:
    console, viewer = of(request), viewer_of(request)
    allow(viewer, "lead", "trying a dead letter again")
    asked.refuse_cards(reason)
    if len(reason.strip()) < LEAST_REASON:
        raise asked.AskedError(f"a reason must have at least {LEAST_REASON} characters: it is kept in the access log.")
    console.first_logged(viewer, "retry", {"dead_letter": letter_id}, reason.strip()[: asked.LONGEST])
    if not dead_letters.retry(dead_letters.queue(console.connection), [letter_id]):
        raise NotFound("there is no such dead letter: it was written in the meantime, or discarded.")
    return _to("/dead-letters?done=retry")


@router.get("/replays")
def replays(request: Request) -> Response:
    console = of(request)
    console.first_logged(viewer_of(request), "replays", {}, "")
    found, stopped = replay.latest(console.connection), replay.stopped(console.connection)
    return page(request, "replays.html", replays=found, stopped=stopped)


class _Chosen(Filters):
    """What to replay, and why."""

    limit: asked.Limit = replay.MOST
    reason: str = ""


@router.post("/replays")
def start_replay(request: Request, form: Annotated[_Chosen, Form()]) -> Response:
    """Replays one payment, which an agent may, or all that a search finds, which a lead may."""
    console, viewer = of(request), viewer_of(request)
    puid, reason, filters = form.puid, form.reason, Filters(**form.model_dump(exclude={"reason"}))
    one = bool(puid)
    allow(viewer, "agent" if one else "lead", "replaying a payment" if one else "replaying many payments")
    if form.customer:
        personal.refuse(viewer)
    if not one and len(filters.given()) <= 1:
        raise asked.AskedError("a replay needs a filter: all payments are never replayed at once.")
    chosen = Selection(payments=(puid,)) if one else selected(console.warehouse, filters.search())
    replay.check(console.connection, chosen, reason.strip())
    new = uuid.uuid4().hex
    console.first_logged(viewer, "replay", {"replay": new, **filters.given()}, reason.strip())
    started = replay.submit(console.connection, chosen, requested_by=viewer.email, reason=reason, replay_id=new)
    console.runs.start(started.id)
    return _to(f"/payments/{quote(puid, safe='')}?replay={started.id}" if one else f"/replays/{started.id}")


@router.get("/replays/{replay_id}")
def show_replay(request: Request, replay_id: str) -> Response:
    of(request).first_logged(viewer_of(request), "replays", {"replay": replay_id}, "")
    found = find_replay(request, replay_id)
    return page(
        request, "replay.html", replay=found, chosen=found.selection.given, problem=of(request).runs.problem(replay_id)
    )


@router.get("/replays/{replay_id}/state")
def state_of_replay(request: Request, replay_id: str) -> Response:
    """The line of a page that waits for a replay; once it has finished, one that brings what it wrote into the page."""
    found = find_replay(request, replay_id)
    template = of(request).templates.get_template("_replay.html")
    return HTMLResponse(template.render(replay=found, problem=of(request).runs.problem(replay_id), waited=True))


@router.get("/backups")
def backups(request: Request) -> Response:
    console = of(request)
    console.first_logged(viewer_of(request), "backups", {}, "")
    return page(request, "backups.html", found=listed(console.connection), most=_STUCK)


@router.get("/validations")
def validations(request: Request) -> Response:
    console = of(request)
    console.first_logged(viewer_of(request), "validations", {}, "")
    payments = console.connection.watched.payments.name
    return page(request, "validations.html", runs=runs.latest(console.warehouse), payments=payments, most=_FINDINGS)


@router.get("/erasures")
def erasures(request: Request) -> Response:
    console = of(request)
    console.first_logged(viewer_of(request), "erasures", {}, "")
    return page(
        request, "erasures.html", erasures=[public(each) for each in erasing.every(console.connection)[:_STUCK]]
    )


@router.get("/slo")
def objectives(request: Request) -> Response:
    from support import slo
    from support.promql import MonitoringError, Prometheus

    console = of(request)
    try:
        standings, why = slo.standings(Prometheus(console.connection), slo.goals(console.connection)), ""
    except MonitoringError as error:
        standings, why = [], str(error)
    return page(request, "slo.html", standings=standings, why=why, seen=console.poller.seen())


@router.get("/runbooks")
@router.get("/runbooks/{name:path}")
def runbook(request: Request, name: str = "README") -> Response:
    text = render.runbook(name)
    if text is None:
        raise NotFound("there is no such runbook. /runbooks lists them.")
    return page(request, "runbook.html", text=text, name=name)


def _to(address: str) -> RedirectResponse:
    return RedirectResponse(address, status_code=303)
