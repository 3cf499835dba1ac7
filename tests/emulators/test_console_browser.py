"""The console in a real Chromium: what a support agent does, with the mouse and with keys alone."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright

from local.machine import installed
from support import replay
from support.connection import Connection
from support.console.app import create
from support.console.identity import Development, Viewer
from tests.conftest import AuditDatabase
from tests.documents import ROOT
from tests.emulators.changelog import CARD, Changelog, row
from tests.emulators.payments import write
from tests.strict.google_apis import CloudRun, serving

# Looked at by people, after a run.
SCREENSHOTS = ROOT / ".audit" / "screenshots"
LEAD = Viewer(email="lead@localhost", role="lead")
PAGES = {
    "now": "/", "search": "/search", "payment": "/payments/done", "stuck": "/stuck", "failures": "/failures?since=24h",
    "regions": "/by/regions", "methods": "/by/methods", "replays": "/replays",
    "backups": "/backups", "validations": "/validations", "erasures": "/erasures",
    "customers": "/by/customers", "dead-letters": "/dead-letters",
    "objectives": "/slo", "runbooks": "/runbooks", "runbook": "/runbooks/AuditDlqGrowth", "error": "/payments/nobody",
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root, as in a container.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        found = playwright.chromium.launch(executable_path=str(installed.chromium()), args=arguments)
        yield found
        found.close()


@pytest.fixture
def connection(payments: Changelog, both_stores: Connection) -> Connection:
    payments.stuck(("slow", "PENDING", 300_000))
    return both_stores


@pytest.fixture
def served(connection: Connection) -> Iterator[str]:
    yield from serve(connection, LEAD)


def serve(connection: Connection, viewer: Viewer) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        # The browser may come before the server has started: then it waits.
        listening.listen()
        app = create(connection, Development(known=viewer), hosts=frozenset({"127.0.0.1"}))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        app.state.console.poller.end()
        thread.join(10)


@pytest.fixture
def page(browser: Browser, served: str) -> Iterator[Page]:
    context = browser.new_context(base_url=served, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    wrong: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # A page that answers 404 is one that a test asked for.
        if message.type in ("error", "warning") and "404" not in message.text:
            wrong.append(message.text)

    opened.on("console", note)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    yield opened
    context.close()
    assert wrong == []


def test_an_agent_finds_a_payment_by_each_key_and_reads_its_story(page: Page) -> None:
    for typed, found in (("C2", ["slow"]), ("1111", ["done", "gone"]), (CARD, ["done", "gone", "slow"])):
        page.goto("/")
        page.get_by_role("searchbox").fill(typed)
        page.get_by_role("button", name="Find").click()
        expect(page.locator("tbody a.id")).to_have_text(found)
        assert CARD not in page.url
    page.get_by_role("searchbox").fill("done")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url("**/payments/done")
    expect(page.locator("svg rect.bar")).to_have_count(2)
    expect(page.locator("ol.events > li")).to_have_count(2)
    expect(page.locator("ol.statuses").get_by_text("CAPTURED")).to_be_visible()


def test_keys_alone_find_and_open_a_payment(page: Page) -> None:
    page.goto("/search")
    # The box has the focus: a person types at once.
    page.keyboard.type("C1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?customer=C1")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "bad"
    page.keyboard.press("Enter")
    page.wait_for_url("**/payments/bad")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"


def test_the_first_page_is_live_and_a_minute_of_its_chart_leads_to_its_payments(
    page: Page, payments: Changelog
) -> None:
    # Of this hour, unlike the others.
    payments.payments(row("late", "INSERT", 1740, "INITIATED", customer_id="C8"))
    page.goto("/")
    failed = page.locator(".tile", has_text="failed").locator("b")
    expect(failed).to_have_text("1", timeout=30_000)
    expect(page.locator("figure canvas")).to_have_count(1)
    payments.payments(row("new", "INSERT", 1800, "DECLINED", customer_id="C9"))
    expect(failed).to_have_text("2", timeout=60_000)
    page.locator("details summary").click()
    page.locator("details tbody a").first.click()
    page.wait_for_url("**/search?since=*")
    expect(page.locator("tbody a.id")).not_to_have_count(0)


def test_reading_works_without_javascript(browser: Browser, served: str) -> None:
    context = browser.new_context(base_url=served, java_script_enabled=False)
    page = context.new_page()
    page.goto("/search")
    page.get_by_role("searchbox").fill("C1")
    page.get_by_role("button", name="Find").click()
    page.get_by_role("link", name="bad").click()
    expect(page.get_by_text("no [funds]").first).to_be_visible()
    page.goto("/failures?since=24h")
    expect(page.get_by_role("heading", name="Failures")).to_be_visible()
    context.close()


def test_a_viewer_is_offered_nothing_that_changes_anything(browser: Browser, connection: Connection) -> None:
    for address in serve(connection, replace(LEAD, role="viewer")):
        context = browser.new_context(base_url=address)
        page = context.new_page()
        for path in PAGES.values():
            page.goto(path)
            forms = {form.get_attribute("action") for form in page.locator("form[method=post]").all()}
            # Both search: what is typed may be a card, and so is in no address before it was looked at.
            assert forms <= {"/find", "/search"} and "/find" in forms
        context.close()


def test_what_a_replay_wrote_comes_into_the_page_however_slow_it_is(
    browser: Browser, both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    write(audit_database, "lost", "CAPTURED")
    changelog.payments(row("lost", "INSERT", 1, "PENDING", customer_id="C7"))
    job = "projects/p/locations/r/jobs/audit-replay"
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    with serving(CloudRun(jobs=frozenset({job}))) as cloud_run:
        waits = replace(both_stores, replay_job=job, cloud_run_endpoint=cloud_run)
        for address in serve(waits, replace(LEAD, role="agent")):
            context = browser.new_context(base_url=address)
            page = context.new_page()
            # What answers slowly, once the page is there: it is let through by hand.
            first = _ask_for_replay(page)
            page.evaluate("window.loadedOnce = true")
            page.route("**/payments/lost?*", hold)
            replay.run(both_stores, first)
            expect(page.get_by_role("status")).to_contain_text("1 of 1 written", timeout=30_000)
            # Three times the pause between two requests of the line: nothing follows it any more.
            page.wait_for_timeout(6_000)
            assert len(held) == 1
            expect(page.locator("ol.events > li")).to_have_count(1)
            held.pop().continue_()
            expect(page.locator("ol.events > li")).to_have_count(2, timeout=60_000)
            expect(page.locator("ol.events > li").first).to_contain_text("REPLAY")
            expect(page.locator("#now")).to_contain_text("processed")
            expect(page.get_by_role("status")).to_have_count(1)
            assert page.evaluate("window.loadedOnce")

            # Who goes elsewhere meanwhile gets there, also where that page is slow.
            replay.run(both_stores, _ask_for_replay(page))
            expect(page.get_by_role("status")).to_contain_text("1 of 1 written", timeout=30_000)
            page.route("**/stuck", hold)
            page.get_by_role("link", name="Stuck").click(no_wait_after=True)
            page.wait_for_timeout(6_000)
            assert [route.request.url.partition("?")[0].rpartition("/")[2] for route in held] == ["lost", "stuck"]
            held.pop().continue_()
            page.wait_for_url("**/stuck")
            expect(page.get_by_role("heading", name="Stuck payments")).to_be_visible()
            context.close()


def _ask_for_replay(page: Page) -> str:
    """As an agent does it. The replay's id; it waits until the test runs it."""
    page.goto("/payments/lost")
    page.get_by_label("Replay it").fill("its last change never arrived")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status")).to_contain_text("waits for its start")
    return page.url.partition("?replay=")[2]


# As long as ids and texts get.
LONG = "7d0f2c9e-1b1f-4222-8333-000000000001"
WIDE = {
    "customer_id": f"CUST-{LONG}", "acting_user": f"USER-{LONG}", "ServiceName": "payment-gateway-europe-west",
    "Region": "europe-west-1-secondary", "PaymentMethod": "CARD_NOT_PRESENT", "CardNumber": "411111******1111",
    "Amount": "1234567.89", "Currency": "EUR", "RetryCount": 12, "transition_expected": False,
}  # fmt: skip
REASON = "issuer.response.code.51.insufficient.funds.of.the.account.holder " + "declined_by_the_issuer" * 4
# Texts that are beyond the window's edge, and in no box that scrolls.
CUT = """() => [...document.querySelectorAll("main *, header *, footer *")].filter((each) => {
  const box = each.getBoundingClientRect();
  if (each.children.length || !each.textContent.trim()) return false;
  if (each.closest(".scroll, pre, .unseen, thead, svg, nav")) return false;
  return box.width > 1 && box.right > document.documentElement.clientWidth + 1;
}).map((each) => each.textContent.slice(0, 60))"""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 390)], ids=["light on a desk", "dark on a phone"]
)
def test_every_page_is_accessible_and_nothing_of_it_is_cut_off(
    browser: Browser, served: str, payments: Changelog, scheme: str, width: int
) -> None:
    payments.payments(
        row(LONG, "INSERT", 1000, "INITIATED", **WIDE),
        row(LONG, "UPDATE", 1001, "DECLINED", {"Status": "INITIATED"}, ErrorDetails=REASON, **WIDE),
    )
    payments.stuck((LONG, "AUTHORIZATION_PENDING_AT_ISSUER", 300_000))
    context = browser.new_context(
        base_url=served, color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": 900}
    )
    page = context.new_page()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.goto(PAGES["failures"])
    of_reason = str(page.get_by_role("link", name="issuer.response").first.get_attribute("href"))
    violations, cut = {}, {}
    for name, path in (PAGES | {"wide-payment": f"/payments/{LONG}", "failures-of-a-reason": of_reason}).items():
        page.goto(path)
        if name == "now":
            expect(page.locator(".tiles")).to_be_visible(timeout=30_000)
        page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}-{width}.png", full_page=True)
        # WCAG 2.1 AA.
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
        if found.violations_count:
            violations[name] = found.generate_report()
        # What is wider than the window scrolls in its own box.
        if (wider := page.evaluate(WIDER)) > 0 or page.evaluate(CUT):
            cut[name] = (wider, page.evaluate(CUT))
    context.close()
    assert violations == {}
    assert cut == {}
