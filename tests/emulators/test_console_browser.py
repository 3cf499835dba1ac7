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
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from local.machine import installed
from support.connection import Connection
from support.console.app import create
from support.console.identity import Development, Viewer
from tests.conftest import AuditDatabase
from tests.documents import ROOT
from tests.emulators.changelog import CARD, Changelog, row
from tests.emulators.payments import write

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


def test_an_agent_replays_a_payment_and_sees_it_arrive(
    browser: Browser, both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    write(audit_database, "lost", "CAPTURED")
    changelog.payments(row("lost", "INSERT", 1, "PENDING", customer_id="C7"))
    for address in serve(both_stores, replace(LEAD, role="agent")):
        context = browser.new_context(base_url=address)
        page = context.new_page()
        page.goto("/payments/lost")
        expect(page.locator("ol.events > li")).to_have_count(1)
        page.get_by_label("Replay it").fill("its last change never arrived")
        page.get_by_role("button", name="Replay").click()
        # Nobody loads the page again: it is loaded once the replay has finished.
        expect(page.locator("ol.events > li")).to_have_count(2, timeout=60_000)
        expect(page.get_by_role("status")).to_contain_text("1 of 1 written")
        expect(page.get_by_text("REPLAY", exact=True)).to_be_visible()
        context.close()


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 390)], ids=["light on a desk", "dark on a phone"]
)
def test_every_page_is_accessible(browser: Browser, served: str, scheme: str, width: int) -> None:
    context = browser.new_context(
        base_url=served, color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": 900}
    )
    page = context.new_page()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    violations = {}
    for name, path in PAGES.items():
        page.goto(path)
        if name == "now":
            expect(page.locator(".tiles")).to_be_visible(timeout=30_000)
        page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}-{width}.png", full_page=True)
        # WCAG 2.1 AA, and nothing runs out of a phone's screen but what scrolls by itself.
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
        if found.violations_count:
            violations[name] = found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
    context.close()
    assert violations == {}
