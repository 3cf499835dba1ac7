"""Parts of the console without a warehouse: the guard, filters, pictures, what is personal, what is served."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

import support.console
from contract.errors import AuditError
from support.console import asked, picture, render
from support.console.asked import AskedError, Filters
from support.console.guard import Guard
from support.console.identity import Development, Viewer
from support.console.live import Poller, Seen
from support.console.personal import is_personal
from support.monitored import Monitored
from support.overview import Overview
from support.search import SearchError
from support.timeline import Transition
from tests.shipped import WATCHED

CARD = "4111111111111111"
HERE = {"sec-fetch-site": "same-origin"}
NOW = datetime(2026, 11, 29, 10, 0, tzinfo=UTC)


@pytest.fixture
def guarded() -> TestClient:
    app = FastAPI()
    known = Viewer(email="a@localhost", role="viewer")
    hosts = frozenset({"127.0.0.1"})
    app.middleware("http")(Guard(Development(known=known), lambda _: PlainTextResponse("broken"), hosts, requests=5))

    @app.get("/x")
    def read() -> str:
        return "read"

    @app.post("/x")
    def write() -> str:
        return "written"

    return TestClient(app, base_url="http://127.0.0.1:8090")


def test_a_form_of_another_site_does_nothing(guarded: TestClient) -> None:
    assert guarded.post("/x", headers=HERE).text == '"written"'
    assert guarded.post("/x", headers={"origin": "http://127.0.0.1:8090"}).status_code == 200
    for headers in (
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8090"},
    ):
        assert guarded.post("/x", headers=headers).status_code == 403, headers


def test_a_name_that_a_page_elsewhere_gave_the_loopback_address_is_refused(guarded: TestClient) -> None:
    assert guarded.get("/x", headers={"host": "rebound.example:8090"}).status_code == 421


def test_a_card_in_an_address_is_refused_before_anything_is_done_with_it(guarded: TestClient) -> None:
    for address in (f"/x?q={CARD}", f"/x?a=card+{CARD}+x", "/x?a=4111%201111%201111%201111", f"/x/{CARD}"):
        answer = guarded.get(address)
        assert answer.status_code == 400 and CARD not in answer.text, address
    assert guarded.get("/x?since=2026-11-29T10:00:00Z&puid=7d0f2c9e-1b1f-4222-8333-000000000001").status_code == 200


def test_what_is_too_large_or_too_often_is_refused(guarded: TestClient) -> None:
    assert guarded.get(f"/x?q={'a' * 3000}").status_code == 413
    assert guarded.post("/x", content=b"a" * 20_000, headers=HERE).status_code == 413
    assert guarded.post("/x", content=iter([b"a"]), headers=HERE).status_code == 411
    codes = [guarded.get("/x").status_code for _ in range(7)]
    assert codes == [200] * 5 + [429] * 2


def test_a_browser_runs_nothing_but_the_console_s_own_files_and_keeps_no_page(guarded: TestClient) -> None:
    headers = guarded.get("/x").headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


def test_no_template_has_code_or_style_that_the_policy_would_refuse() -> None:
    folder = Path(support.console.__file__).parent / "templates"
    for file in folder.glob("*.html"):
        text = file.read_text()
        assert not re.search(r"""\s(on\w+|style)=|javascript:|\|\s*safe\b""", text), file.name
        assert all("src=" in tag or 'type="application/json"' in tag for tag in re.findall(r"<script[^>]*>", text)), (
            file
        )


def test_the_libraries_are_those_that_were_published() -> None:
    folder = Path(support.console.__file__).parent / "static" / "vendor"
    listed = dict(re.findall(r"^\| `([\w.-]+)` .* \| `([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.M))
    there = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir() if f.suffix != ".md"}
    assert listed == there


@pytest.mark.parametrize("number", [CARD, "4111 1111 1111 1111", "4111-1111-1111-1111", " 378282246310005 "])
def test_a_card_is_known_as_one_and_is_in_no_filter(number: str) -> None:
    assert asked.is_card(number)
    for filters in (Filters(puid=number), Filters(customer=number)):
        with pytest.raises(AskedError, match="must not be in an address") as refused:
            filters.search()
        assert number.strip() not in str(refused.value)


@pytest.mark.parametrize("text", ["", "C-1042", "4111111111111112", "7d0f2c9e-1b1f-4222-8333-000000000001", "123456"])
def test_an_id_is_no_card(text: str) -> None:
    assert not asked.is_card(text)


def test_filters_become_a_search_and_what_cannot_be_read_says_the_rule() -> None:
    wanted = Filters(customer=" C1 ", state="failed", since="2h", until="2999-11-29", limit=7).search()
    assert (wanted.customer_id, wanted.state, wanted.limit) == ("C1", "failed", 7)
    assert wanted.until == datetime(2999, 11, 29, tzinfo=UTC)
    for wrong in (
        Filters(since="yesterday"), Filters(puid="x" * 300), Filters(since="999999d"), Filters(since="9999999d"),
    ):  # fmt: skip
        with pytest.raises(AskedError):
            wrong.search()
    for refused in (
        Filters(last_four="12345"), Filters(last_four="12a4"), Filters(since="2026-11-30", until="2026-11-29"),
    ):  # fmt: skip
        with pytest.raises(SearchError):
            refused.search()


def transition(seconds: float, to: str | None, state: str | None = None, expected: bool | None = True) -> Transition:
    return Transition(
        from_status=None, to_status=to, from_state=None, to_state=state, at=NOW + timedelta(seconds=seconds),
        seconds=None, expected=expected,
    )  # fmt: skip


def test_a_life_is_a_bar_for_each_status_that_fills_the_picture_and_shows_short_ones() -> None:
    life = [transition(0, "INITIATED", "initiated"), transition(0.1, "PENDING", "initiated"),
            transition(3600, "FAILED", "failed", expected=False)]  # fmt: skip
    bars = picture.bars(life, now=NOW + timedelta(seconds=7200))
    assert [(bar.status, bar.seconds) for bar in bars] == [("INITIATED", 0.1), ("PENDING", 3599.9), ("FAILED", None)]
    assert [bar.unexpected for bar in bars] == [False, False, True]
    assert sum(bar.width for bar in bars) == pytest.approx(1000)
    assert all(bar.width > 15 for bar in bars) and bars[1].width > 5 * bars[0].width
    assert [bar.left for bar in bars] == pytest.approx([0, bars[0].width, bars[0].width + bars[1].width])


def test_the_life_of_a_deleted_payment_ends_with_its_deletion() -> None:
    [bar] = picture.bars([transition(0, "CAPTURED", "processed"), transition(60, None)], now=NOW + timedelta(days=9))
    assert bar.seconds == 60
    assert picture.bars([]) == ()


@pytest.mark.parametrize(
    ("column", "personal"),
    [("CustomerId", True), ("customer_id", True), ("acting_user", True), ("Status", False), ("Amount", False)],
)
def test_personal_is_what_the_description_says_in_any_table_and_what_enrichment_adds(
    column: str, personal: bool
) -> None:
    assert is_personal(WATCHED, column) is personal
    assert is_personal(WATCHED, f"{column}.member") is personal


def test_a_runbook_is_a_page_with_links_to_the_console_s_own_and_no_path_opens_a_file() -> None:
    text = render.runbook("AuditDlqGrowth")
    assert text and "<h2>Mitigate</h2>" in text and "<!--" not in text
    index = render.runbook("README")
    assert index and 'href="/runbooks/AuditDlqGrowth"' in index
    how_to = render.runbook("how-to/replay")
    assert how_to and 'href="/runbooks/how-to/dead-letters"' in how_to
    for name in ("../README", "how-to/../../README", "/etc/passwd", "README.md", "", ".."):
        assert render.runbook(name) is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59, "59 s"), (61, "1 min"), (7100, "118 min"), (7200, "2 h"), (2e5, "2 d")],
)
def test_an_age_is_in_its_largest_unit_that_says_enough(seconds: float, shown: str) -> None:
    assert render._age(seconds) == shown


def test_markup_in_data_ends_no_script() -> None:
    assert "<" not in render._data({"error": "</script><script>alert(1)</script>"})


def overview(number: int) -> Overview:
    return Overview(
        at=NOW, complete_until=NOW, states={"failed": number}, minutes=(), reasons=(), latest=(), stuck=0,
        dead_letters={},
    )  # fmt: skip


def test_one_poller_looks_for_all_viewers_and_each_is_shown_every_look() -> None:
    looks = 0

    def look() -> Overview:
        nonlocal looks
        looks += 1
        return overview(looks)

    poller = Poller(look, Monitored, pause=0.01)
    assert looks == 0

    async def watch() -> list[str]:
        stream = poller.events(lambda seen: f"n={seen.number}")
        return [await anext(stream) for _ in range(3)]

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*(watch() for _ in range(200)))

    # In one thread: a stream that waited in a thread would hold the others up.
    for shown in asyncio.run(all_of_them()):
        assert all(event.startswith("event: seen\ndata: n=") and event.endswith("\n\n") for event in shown)
    assert len({thread.name for thread in threading.enumerate() if thread.name == "console-poller"}) == 1
    seen = poller.seen()
    poller.end()
    # Two hundred viewers were shown three looks each: a look for each of them alone would be more.
    assert seen.overview and looks < 200


def test_a_look_that_fails_keeps_what_was_seen_and_says_why() -> None:
    answers: list[Any] = [overview(1), AuditError("BigQuery does not answer."), RuntimeError("a payment's data")]

    def look() -> Overview:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return replace(answer)

    poller = Poller(look, Monitored, pause=0.01)
    first = poller.after(0, 5)
    second = poller.after(1, 5)
    third = poller.after(2, 5)
    poller.end()
    assert first.error == "" and first.overview
    assert second.overview == first.overview and "gives no answer now" in second.error
    assert third.overview == first.overview and "a payment's data" not in third.error and third.error


def test_the_first_viewer_after_a_pause_is_looked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    poller = Poller(lambda: overview(1), Monitored, pause=3600)
    assert poller.after(0, 5).number == 1
    # Who watches already waits for the pause.
    assert poller.after(1, 0.2).number == 1
    monkeypatch.setattr("support.console.live._WATCHED_SECONDS", 0.0)
    assert poller.after(1, 5).number == 2
    poller.end()


def test_what_bigquery_is_paid_for_is_not_looked_at_sooner_for_a_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.console.live._WATCHED_SECONDS", 0.0)
    poller = Poller(lambda: replace(overview(1), bytes_read=2**40), Monitored, pause=0.01)
    assert poller.after(0, 5).number == 1
    assert poller.after(1, 0.5).number == 1
    poller.end()


def test_nobody_who_watches_ends_the_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.console.live._WATCHED_SECONDS", 0.0)
    poller = Poller(lambda: overview(1), Monitored, pause=0.01)
    poller.after(0, 5)
    thread = poller._thread
    assert thread
    thread.join(5)
    assert not thread.is_alive()
    assert poller.after(1, 5).number > 1
    poller.end()
    assert Seen().number == 0
