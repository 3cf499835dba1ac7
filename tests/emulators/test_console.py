"""The console's pages and API over the views of the BigQuery emulator."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from contract import tables
from contract.changes import DeadLetter
from pipeline.sink.dead_letters import DeadLetterQueue
from support import backfill, replay
from support.connection import Connection
from support.console import pages
from support.console.app import create
from support.console.asked import Filters
from support.console.identity import Development, Viewer
from support.erasure import work as erasing
from support.replay import Selection
from support.warehouse import Warehouse
from tests.conftest import AuditDatabase
from tests.emulators.changelog import CARD, NEW_TOKEN, Changelog, row
from tests.emulators.payments import write
from tests.letters import letter
from tests.shipped import WATCHED
from tests.strict.google_apis import CloudRun, serving

LEAD = Viewer(email="lead@localhost", role="lead")
HERE = {"sec-fetch-site": "same-origin"}
MARKUP = '<img src=x onerror="alert(1)">'


def console(connection: Connection, viewer: Viewer = LEAD) -> TestClient:
    app = create(connection, Development(known=viewer), hosts=frozenset({"127.0.0.1"}))
    return TestClient(app, base_url="http://127.0.0.1:8090", headers=HERE, follow_redirects=False)


@pytest.fixture
def connection(payments: Changelog, both_stores: Connection) -> Connection:
    return both_stores


@pytest.fixture
def lead(connection: Connection) -> Iterator[TestClient]:
    with console(connection) as client:
        yield client


def logged(changelog: Changelog) -> list[tuple[str, str, dict[str, Any], str | None]]:
    table = tables.access_log(WATCHED).id
    rows = changelog.query(f"SELECT viewer, action, subject, reason FROM `{changelog.project}.{table}` ORDER BY at")
    return [(r["viewer"], r["action"], _json(r["subject"]), r["reason"]) for r in rows]


def _json(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    return found


PAGES = (
    "/search", "/search?state=failed", "/payments/done", "/payments/gone", "/stuck", "/failures?since=2h",
    "/by/regions", "/by/methods", "/by/customers", "/dead-letters", "/replays", "/validations", "/backups", "/erasures",
    "/slo", "/runbooks",
    "/runbooks/AuditDlqGrowth", "/",
)  # fmt: skip


@pytest.mark.parametrize("address", PAGES)
def test_every_page_answers_and_links_only_to_pages_that_do(lead: TestClient, address: str) -> None:
    answer = lead.get(address)
    assert answer.status_code == 200, answer.text
    assert "<h1>" in answer.text
    assert CARD not in answer.text
    main = answer.text[answer.text.index("<main") :]
    links = {html.unescape(link).partition("#")[0] for link in re.findall(r'<a [^>]*href="([^"]*)"', main)}
    links = {link for link in links if not link.startswith("https://")}
    assert all(link.startswith("/") for link in links), links
    assert {link: code for link in sorted(links) if (code := lead.get(link).status_code) != 200} == {}


def test_a_list_counts_payments_of_each_state_and_of_none(lead: TestClient, changelog: Changelog) -> None:
    changelog.payments(row("odd", "INSERT", 4, "???"), row("odder", "INSERT", 4, "??"))
    answer = lead.get("/search")
    assert answer.status_code == 200, answer.text
    assert "(1 failed, 1 initiated, 1 processed, 2 unknown)" in re.sub(r"\s+", " ", answer.text)


def test_a_defect_has_a_page_with_the_menu_and_its_text_is_in_no_log(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("a card 4111111111111111")

    with console(connection) as client:
        monkeypatch.setattr("support.reports.run", broken)
        page, answer = client.get("/failures"), client.get("/api/v1/reports/failures")
    assert (page.status_code, "<nav" in page.text, "4111" in page.text) == (500, True, False)
    assert (
        page.headers["cache-control"] == "no-store" and "default-src 'none'" in page.headers["content-security-policy"]
    )
    assert (answer.status_code, list(answer.json())) == (500, ["error"])
    assert re.search(r"A page has a defect: TypeError at test_console\.py:\d+ < pages\.py:\d+", caplog.text)
    assert "4111" not in caplog.text


@pytest.mark.parametrize(
    ("typed", "address"),
    [("done", "/payments/done"), ("C1", "/search?customer=C1"), ("1111", "/search?last_four=1111"), ("", "/search")],
)
def test_the_one_box_takes_an_id_a_customer_and_the_last_four_digits(
    lead: TestClient, typed: str, address: str
) -> None:
    answer = lead.post("/find", data={"q": typed})
    assert (answer.status_code, answer.headers["location"]) == (303, address)
    assert lead.get(address).status_code == 200


def test_a_card_is_found_by_its_token_and_its_number_is_in_no_address_page_or_log(
    lead: TestClient, changelog: Changelog
) -> None:
    answer = lead.post("/find", data={"q": "4111 1111 1111 1111"})
    assert answer.status_code == 200
    assert re.findall(r'href="/payments/(\w+)"', answer.text) == ["done", "gone", "slow"]
    for secret in (CARD, "4111 1111", NEW_TOKEN):
        assert secret not in answer.text
    [(_, action, subject, _)] = logged(changelog)
    assert (action, subject) == ("search", {"card": "by its token", "last_four": "1111"})
    assert lead.get(f"/search?puid={CARD}").status_code == 400
    assert lead.get(f"/payments/{CARD}").status_code == 400
    for address in (f"payments?customer={CARD}", f"payments/{CARD}", f"reports/payment_by_id?puid={CARD}"):
        assert lead.get(f"/api/v1/{address}").status_code == 400
    assert lead.get(f"/search?status={CARD}").status_code == 400
    assert lead.post("/replays", data={"puid": "done", "reason": f"card {CARD}"}).status_code == 400
    assert lead.post("/replays", data={"puid": CARD, "reason": WHY}).status_code == 400
    assert len(logged(changelog)) == 1


def test_a_payment_tells_its_story(lead: TestClient) -> None:
    text = lead.get("/payments/done").text
    assert re.findall(r'class="bar (\w+)"', text) == ["initiated", "processed"]
    assert "<del>INITIATED</del>" in text and "<ins>CAPTURED</ins>" in text
    story = lead.get("/api/v1/payments/done").json()
    assert [event["mod_type"] for event in story["events"]] == ["INSERT", "UPDATE"]
    assert "deleted" in lead.get("/payments/gone").text
    for address in ("/payments/nobody", "/api/v1/payments/nobody", "/payments/..%2f..%2fetc%2fpasswd", "/by/nothing"):
        assert lead.get(address).status_code == 404


def test_the_api_answers_what_the_pages_show(lead: TestClient) -> None:
    found = lead.get("/api/v1/payments", params={"customer": "C1"}).json()
    assert [payment["puid"] for payment in found["payments"]] == ["done", "bad"]
    assert found["payments"][0]["amount"] == "10.25"
    assert lead.get("/api/v1/me").json() == {
        "email": "lead@localhost", "role": "lead", "sees_personal": True, "unchecked": [],
    }  # fmt: skip
    reasons = lead.get("/api/v1/reports/failures_by_reason", params={"since": "2h"}).json()
    assert [(r["error"], r["failures"]) for r in reasons["rows"]] == [("no [funds]", 1)]
    assert {"summary_by_region", "stuck_payments"} <= {each["name"] for each in lead.get("/api/v1/reports").json()}
    seen = lead.get("/api/v1/overview").json()
    assert seen["overview"]["states"] == {"initiated": 1, "processed": 1, "failed": 1, "unknown": 0}
    assert seen["monitored"]["speed"] is None and "without monitoring" in seen["monitored"]["why"]
    assert "without monitoring" in lead.get("/").text
    assert lead.get("/api/v1/objectives").json() == []
    assert lead.get("/api/v1/replays/nobody").status_code == 404


def test_every_prebuilt_query_is_in_the_api_and_a_card_s_number_in_its_body_alone(
    lead: TestClient, changelog: Changelog
) -> None:
    given: dict[str, str | int] = {
        "puid": "done", "customer": "C1", "since": "2h", "status": "PENDING", "older_than_seconds": 60,
        "period_seconds": 86_400,
    }  # fmt: skip
    changelog.stuck(("slow", "PENDING", 600))
    for name in {each["name"] for each in lead.get("/api/v1/reports").json()}:
        found = lead.get(f"/api/v1/reports/{name}", params=given)
        assert found.status_code == 200 and found.json()["rows"], name
    found = lead.post("/api/v1/payments/by-card", json={"number": "4111 1111 1111 1111"})
    assert [payment["puid"] for payment in found.json()["payments"]] == ["done", "gone", "slow"]
    for number in ("4111111111111112", "x", None):
        refused = lead.post("/api/v1/payments/by-card", json={"number": number})
        assert refused.status_code in (400, 422) and "41111" not in refused.text, refused.text
    assert (
        lead.post("/api/v1/payments/by-card", json={"number": CARD}, headers={"sec-fetch-site": "none"}).status_code
        == 403
    )
    subjects = [subject for _, action, subject, _ in logged(changelog) if action == "search"]
    assert subjects == [{"card": "by its token", "last_four": "1111"}]


def test_the_api_is_described_with_each_parameter_and_answer(lead: TestClient) -> None:
    described = lead.get("/api/v1/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"].endswith("."), (path, method)
            assert operation["responses"]["200"]["content"]["application/json"]["schema"], (path, method)
            for parameter in operation.get("parameters", []):
                assert parameter["in"] == "path" or parameter["schema"].get("description"), (path, parameter["name"])
    [filters] = [o["get"]["parameters"] for p, o in described["paths"].items() if p == "/api/v1/payments"]
    assert {each["name"] for each in filters} == set(Filters.model_fields)
    assert {"Found", "Timeline", "Stuck", "Report", "Letter", "Replay", "Standing", "Seen"} <= described["components"][
        "schemas"
    ].keys()


def test_the_stuck_are_those_of_the_last_look_and_an_old_look_says_so(lead: TestClient, changelog: Changelog) -> None:
    assert "Nobody has looked for stuck payments" in lead.get("/stuck").text
    assert lead.get("/api/v1/overview").json()["overview"]["stuck"] is None
    changelog.stuck(("slow", "PENDING", 7300), ("slower", "HELD", 200_000), ago=400)
    text = lead.get("/stuck").text
    assert re.findall(r'href="/payments/(\w+)"', text) == ["slower", "slow"]
    assert "2 d" in text and "2 h" in text and "The probe looks once a minute" in text
    # Counted to now, not to that look.
    changelog.stuck(("slow", "PENDING", 7000), ago=250)
    assert '<td class="number">2 h</td>' in lead.get("/stuck").text
    changelog.stuck(("slow", "PENDING", 7700))
    look = lead.get("/api/v1/stuck").json()
    assert [(e["puid"], e["status"], e["seconds"], e["limit_seconds"]) for e in look["payments"]] == [
        ("slow", "PENDING", 7700, 60)
    ]
    assert look["at"] and look["warning"] == ""
    changelog.stuck()
    assert "No payment is stuck." in lead.get("/stuck").text


def test_whatever_is_asked_is_in_the_access_log(lead: TestClient, changelog: Changelog) -> None:
    lead.get("/search", params={"customer": "C1", "limit": 9})
    lead.get("/payments/done")
    lead.get("/api/v1/payments/bad")
    lead.get("/stuck")
    for address in ("/", "/dead-letters", "/replays", "/api/v1/dead-letters", "/api/v1/replays"):
        lead.get(address)
    assert logged(changelog) == [
        ("lead@localhost", "search", {"customer": "C1", "limit": 9}, None),
        ("lead@localhost", "payment", {"puid": "done"}, None),
        ("lead@localhost", "payment", {"puid": "bad"}, None),
        ("lead@localhost", "stuck", {"limit": 200}, None),
        ("lead@localhost", "overview", {}, None),
        ("lead@localhost", "dead letters", {}, None),
        ("lead@localhost", "replays", {}, None),
        ("lead@localhost", "dead letters", {}, None),
        ("lead@localhost", "replays", {}, None),
    ]


@pytest.mark.parametrize(
    "address", ["/", "/search", "/payments/done", "/api/v1/payments/done", "/stuck", "/failures", "/dead-letters"]
)
def test_what_cannot_be_logged_is_not_shown(connection: Connection, changelog: Changelog, address: str) -> None:
    table = f"{changelog.project}.{tables.access_log(WATCHED).id}"
    made = changelog.client.get_table(table)
    changelog.client.delete_table(table)
    try:
        with console(connection) as client:
            answer = client.get(address)
        assert answer.status_code == 503
        assert "done" not in answer.text.replace("/payments/done", "")
    finally:
        changelog.client.create_table(made)


def test_a_viewer_who_may_not_see_personal_data_sees_none_and_cannot_ask_by_it(
    connection: Connection, changelog: Changelog
) -> None:
    changelog.payments(
        row("own", "INSERT", 1, "FAILED", customer_id="CUST-9", acting_user="USER-9", CustomerId="CUST-9",
            UserId="USER-9", Metadata='{"customer": "CUST-9"}', ErrorDetails="no funds"),
    )  # fmt: skip
    with console(connection, replace(LEAD, sees_personal=False)) as client:
        for address in ("/search", "/payments/own", "/failures?since=2h", "/", "/stuck"):
            text = client.get(address).text
            assert "USER-9" not in text and "CUST-9" not in text, address
        for address in (
            "/api/v1/payments", "/api/v1/payments/own", "/api/v1/reports/failures?since=2h", "/api/v1/overview",
            "/api/v1/reports/payment_by_id?puid=own", "/api/v1/reports/timeline_of_payment?puid=own",
        ):  # fmt: skip
            answer = client.get(address)
            assert answer.status_code == 200, address
            assert "USER-9" not in answer.text and "CUST-9" not in answer.text, address
        for address in (
            "/search?customer=CUST-9", "/by/customers", "/api/v1/payments?customer=CUST-9",
            "/api/v1/reports/summary_by_customer", "/api/v1/reports/payments_by_customer?customer=CUST-9",
        ):  # fmt: skip
            assert client.get(address).status_code == 403, address
    with console(connection) as client:
        assert "CUST-9" in client.get("/payments/own").text


def test_markup_in_a_payment_is_shown_as_text(connection: Connection, changelog: Changelog) -> None:
    changelog.payments(
        row("x", "INSERT", 1, "FAILED", customer_id=MARKUP, ErrorDetails=MARKUP, Metadata=json.dumps({"n": MARKUP}))
    )
    with console(connection) as client:
        client.get("/api/v1/overview")
        for address in ("/search", "/payments/x", "/failures?since=2h", "/by/customers", "/"):
            text = client.get(address).text
            assert "<img" not in text, address
        assert "&lt;img" in client.get("/payments/x").text
        assert "<img" not in client.get(f"/search?puid={MARKUP}&status={MARKUP}").text
        assert client.get("/api/v1/payments").headers["content-type"] == "application/json"


@pytest.mark.parametrize("value", ["' OR 1=1 --", "x'; DROP TABLE payment_state; --", "`", "\\", "@puid", "${payment}"])
def test_what_is_typed_is_a_value_and_never_sql(lead: TestClient, changelog: Changelog, value: str) -> None:
    for name in ("puid", "customer", "status"):
        answer = lead.get("/api/v1/payments", params={name: value})
        assert (answer.status_code, answer.json()["payments"]) == (200, [])
    assert lead.post("/find", data={"q": value}).status_code == 303
    assert lead.get("/api/v1/payments/" + value.replace("/", "")).status_code == 404
    assert len(lead.get("/api/v1/payments").json()["payments"]) == 3


def test_bad_filters_get_a_page_with_the_rule(lead: TestClient) -> None:
    for address, rule in (
        ("/search?since=yesterday", "since must be a time"),
        ("/search?last_four=12", "must be four digits"),
        ("/search?since=2026-11-30&until=2026-11-29", "must begin before it ends"),
        (f"/search?status={'x' * 300}", "at most 200 characters"),
    ):
        answer = lead.get(address)
        assert answer.status_code == 400 and rule in answer.text, address
    for address in ("/search?limit=0", "/search?limit=typed", "/api/v1/payments?limit=typed"):
        answer = lead.get(address)
        assert answer.status_code == 422
        assert "limit: Input should be" in answer.text and "typed" not in answer.text
    for address in (
        "/search?puid=a%00",
        "/api/v1/payments?customer=a%0Ab",
        "/payments/a%00",
        "/api/v1/reports/payment_by_id?puid=%00",
        "/api/v1/reports/payments_by_customer?customer=%7F",
    ):
        answer = lead.get(address)
        assert answer.status_code == 400 and "no other control characters" in answer.text, address


def test_more_than_the_limit_is_offered_and_ten_thousand_are_the_most(lead: TestClient) -> None:
    text = lead.get("/search?limit=2").text
    assert "there are more" in text and 'href="/search?limit=8"' in text
    assert lead.get("/search?limit=10000").status_code == 200


def test_a_warehouse_that_does_not_answer_is_a_page_that_says_so(connection: Connection) -> None:
    nobody = replace(connection, big_query_endpoint="http://127.0.0.1:9")
    with console(nobody) as client:
        for address in ("/search", "/payments/done", "/stuck"):
            answer = client.get(address)
            assert answer.status_code == 503
            assert "gives no answer" in answer.text
        # What cannot be logged is not shown: the first page neither.
        answer = client.get("/api/v1/overview")
        assert answer.status_code == 503 and "does not answer" in answer.json()["error"]
        assert client.get("/runbooks").status_code == 200
        assert client.get("/healthz").text == "ok\n"


WHY = "its last change never arrived"


def test_an_agent_replays_a_payment_and_it_arrives(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    write(audit_database, "lost", "CAPTURED")
    changelog.payments(row("lost", "INSERT", 1, "PENDING", customer_id="C7"))
    agent = replace(LEAD, email="agent@localhost", role="agent")
    with console(both_stores, agent) as client:
        answer = client.post("/replays", data={"puid": "lost", "reason": WHY})
        assert answer.status_code == 303
        address, _, started = answer.headers["location"].partition("?replay=")
        assert address == "/payments/lost"
        deadline = time.monotonic() + 60
        while "1 of 1 written" not in (line := client.get(f"/replays/{started}/state").text):
            assert time.monotonic() < deadline and "every 2s" in line and "look again" in line
            time.sleep(0.2)
        text = client.get(answer.headers["location"]).text
        assert "REPLAY" in text and "1 of 1 written" in text and f"by agent@localhost: {WHY}" in text
        [payment] = client.get("/api/v1/payments", params={"puid": "lost"}).json()["payments"]
        assert payment["status"] == "CAPTURED"
        [kept] = client.get("/api/v1/replays").json()
        assert (kept["requested_by"], kept["reason"], kept["replayed"]) == ("agent@localhost", WHY, 1)
        assert started in client.get("/replays").text and CARD not in text
        subject = {"replay": started, "puid": "lost", "limit": 1000}
        assert ("agent@localhost", "replay", subject, WHY) in logged(changelog)
        # Many at once are for a lead.
        assert client.post("/replays", data={"state": "initiated", "reason": WHY}).status_code == 403


def test_a_lead_replays_what_a_search_finds_and_never_everything(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    for puid in ("p", "q"):
        write(audit_database, puid, "DECLINED")
        changelog.payments(row(puid, "INSERT", 1, "DECLINED", customer_id="C7"))
    with console(both_stores) as client:
        assert "Replay all" in client.get("/search?state=failed").text
        assert "Replay all" not in client.get("/search").text
        answer = client.post("/replays", data={"state": "failed", "reason": WHY})
        assert answer.status_code == 303
        page = client.get(answer.headers["location"]).text
        assert re.findall(r'class="id" href="/payments/(\w)"', page) == ["p", "q"]
        for data, status in (
            ({"reason": WHY}, 400),
            ({"state": "failed", "reason": " no "}, 400),
            ({"state": "processed", "reason": WHY}, 400),
        ):
            assert client.post("/replays", data=data).status_code == status
        assert client.get("/replays/nobody").status_code == 404
    with console(both_stores, replace(LEAD, role="viewer")) as client:
        assert client.post("/replays", data={"puid": "p", "reason": WHY}).status_code == 403
    with console(both_stores, replace(LEAD, sees_personal=False)) as client:
        assert client.post("/replays", data={"customer": "C7", "reason": WHY}).status_code == 403


def test_in_the_cloud_the_console_records_a_replay_and_has_the_job_run_it(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    write(audit_database, "lost", "CAPTURED")
    changelog.payments(row("lost", "INSERT", 1, "PENDING"))
    job = "projects/p/locations/r/jobs/audit-replay"
    cloud = CloudRun(jobs=frozenset({job}))
    with serving(cloud) as address:
        submits = replace(both_stores, replay_job=job, cloud_run_endpoint=address, masking_keys="file:none")
        with console(submits) as client:
            answer = client.post("/replays", data={"puid": "lost", "reason": WHY})
            started = answer.headers["location"].partition("?replay=")[2]
            assert cloud.started == [(job, [])]
            assert "waits" in client.get(f"/replays/{started}/state").text
            # What the job does, with its own account.
            assert replay.run(both_stores, started).replayed == 1
            answer = client.get(f"/replays/{started}/state")
            # The page is not loaded again, which would take a person back who went elsewhere: its parts are, once.
            assert "HX-Refresh" not in answer.headers and "every 2s" not in answer.text
            assert re.findall(r'hx-trigger="(\w+)"', answer.text) == ["load"]
            assert "hx-" not in client.get(f"/payments/lost?replay={started}").text


def test_the_customer_of_a_replay_is_not_shown_to_who_may_not_see_one(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOST", 1)
    for puid in ("p", "q"):
        write(audit_database, puid, "DECLINED")
        changelog.payments(row(puid, "INSERT", 1, "DECLINED", customer_id="C7"))
    changelog.fill()
    with console(both_stores) as client:
        answer = client.post("/replays", data={"customer": "C7", "reason": WHY})
        page = answer.headers["location"]
        assert "customer C7" in client.get(page).text
    with console(both_stores, replace(LEAD, sees_personal=False)) as client:
        assert "C7" not in client.get(page).text
        assert "C7" not in client.get("/api/v1/replays").text


def test_a_backfill_is_shown_among_the_replays_and_one_that_stopped_half_way_says_how_to_go_further(
    both_stores: Connection, audit_database: AuditDatabase
) -> None:
    started, _ = backfill.start(both_stores, (), requested_by="ann", reason="the audit begins")
    replay.submit(both_stores, Selection(payments=("p",)), requested_by="bob", reason=WHY, replay_id="R")
    with console(both_stores) as client:
        page = client.get("/replays").text
        assert "payment_audit_trail, audit_logs" in page and "has not come further" not in page
        assert "All rows of payment_audit_trail, audit_logs" in client.get(f"/replays/{started.id}").text
        assert "Backfill" in client.get(f"/replays/{started.id}/state").text
        found = {each["id"]: each for each in client.get("/api/v1/replays").json()}
        assert (found["backfill-1"]["kind"], found["R"]["kind"]) == ("backfill", "replay")
        assert found["backfill-1"]["tables"] == ["payment_audit_trail", "audit_logs"]
        with audit_database.metadata_database.batch() as older:
            moment = datetime.now(UTC) - timedelta(minutes=16)
            older.update("replays", ("ReplayId", "ReadTimestamp"), [(started.id, moment)])
        page = client.get("/replays").text
        assert "audit backfill resume backfill-1" in page and "audit replay resume R" not in page


def test_a_validation_is_shown_with_the_rows_that_it_names(lead: TestClient, connection: Connection) -> None:
    found = {
        "kind": "missing",
        "table": "payment_audit_trail",
        "key": "done",
        "columns": ["Region"],
        "outcome": "read again",
    }
    row = {
        "run_id": "r1",
        "checked_at": datetime.now(UTC).isoformat(),
        "read_timestamp": datetime.now(UTC).isoformat(),
        "mismatches": 1,
        "source_rows": 3,
        "warehouse_rows": 2,
        "warehouse_bytes": 5,
        "checks": "[]",
        "findings": json.dumps([found]),
        "resolved": json.dumps([found | {"key": "gone"}]),
        "notes": ["a note"],
    }
    Warehouse(connection).append(tables.audit_checks(connection.watched).id, {"r1": row})
    text = lead.get("/validations").text
    for shown in (
        "1 row of BigQuery is wrong",
        'href="/payments/done"',
        "in Region: read again",
        "right again",
        "a note",
    ):
        assert shown in text, shown
    [run] = lead.get("/api/v1/validations").json()
    assert run["findings"] == [found] and run["mismatches"] == 1


@pytest.mark.parametrize("typed", ["4111 1111 1111 1112", "4111-1111-1111-1112", "4111111111111112", "411111111111"])
def test_a_card_with_a_wrong_digit_comes_into_no_address(lead: TestClient, typed: str) -> None:
    for path, data in (("/find", {"q": typed}), ("/search", {"customer": typed}), ("/search", {"puid": typed})):
        answer = lead.post(path, data=data)
        assert answer.status_code == 400 and "location" not in answer.headers, path
        assert "a digit is wrong or missing" in answer.text and typed not in answer.text


def test_a_mistyped_card_is_in_no_log(lead: TestClient, changelog: Changelog) -> None:
    lead.post("/find", data={"q": "4111 1111 1111 1112"})
    assert ("lead@localhost", "search", {"puid": "16 digits"}, None) in logged(changelog)
    assert "1112" not in str(logged(changelog))


def test_an_old_look_says_how_old_it_is(lead: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = time.monotonic() + 30
    while "Complete up to" not in lead.get("/").text and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "nobody watched" not in lead.get("/").text
    monkeypatch.setattr(pages, "_STALE_SECONDS", -1)
    main = lead.get("/").text.partition("<main")[2]
    assert "Unknown: their status is mapped to no state" in main and "Failures</a> counts each time" in main
    assert "since nobody watched" in main and 'class="problem"' not in main
    monkeypatch.setattr(pages, "_LATE_SECONDS", -1)
    main = lead.get("/").text.partition("<main")[2]
    assert "though somebody watched" in main and 'class="problem"' in main


def test_the_form_of_a_search_leads_to_an_address_with_its_filters(lead: TestClient) -> None:
    answer = lead.post("/search", data={"customer": "C1", "last_four": "1111", "since": "2h"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/search?customer=C1&last_four=1111&since=2h")
    assert lead.post("/search", data={"customer": CARD}).status_code == 400
    for digits in ("4111 1111 1111 1111", "41111"):
        answer = lead.post("/search", data={"last_four": digits})
        assert answer.status_code == 400 and "must be four, got more" in answer.text and digits not in answer.text
    assert "masking key" not in lead.post("/find", data={"q": "5555 5555 5555 4444"}).text
    assert "Search" in lead.post("/search", data={"since": "x"}).text


def test_an_id_in_capitals_is_found(lead: TestClient) -> None:
    assert lead.post("/find", data={"q": "DONE"}).headers["location"] == "/payments/done"


def test_failures_are_counted_by_service_and_lead_to_their_payments(lead: TestClient, changelog: Changelog) -> None:
    for number, service in enumerate(("gateway", "gateway", "checkout")):
        changelog.payments(
            row(f"f{number}", "INSERT", 1000 + number, "DECLINED", ServiceName=service, ErrorDetails="no")
        )
    text = lead.get("/failures?since=2h").text
    link = "/failures?since=2h&amp;service=gateway"
    assert f'<a href="{link}">gateway</a>' in text
    of_gateway = lead.get(html.unescape(link)).text
    assert all(f"/payments/f{n}" in of_gateway for n in (0, 1)) and "/payments/f2" not in of_gateway
    assert "2 failures in that time of gateway" in of_gateway
    # Another period is of the same service.
    assert '<a href="/failures?since=24h&amp;service=gateway"' in of_gateway


def test_a_reason_leads_to_its_payments_and_all_failures_are_counted(lead: TestClient, changelog: Changelog) -> None:
    long = "declined by the issuer " * 100
    changelog.payments(
        row("f0", "INSERT", 1000, "DECLINED", ServiceName="gateway", ErrorDetails=long),
        row("f1", "INSERT", 1001, "DECLINED", ServiceName="gateway", ErrorDetails=long),
        row("f2", "INSERT", 1002, "DECLINED", ServiceName="checkout", ErrorDetails=long),
    )
    text = lead.get("/failures?since=2h").text
    assert "4 failures in that time" in text and "is failed" not in text
    [link] = re.findall(r'<a href="(/failures[^"]*reason=\w+)">no \[funds\]</a>', text)
    [others, _] = re.findall(r'<a href="(/failures[^"]*reason=\w+)">declined', text)
    of_funds, of_gateway = lead.get(html.unescape(link)).text, lead.get(html.unescape(others)).text
    assert "1 failure in that time for the reason “no [funds]”" in of_funds
    assert re.findall(r'class="id" href="/payments/(\w+)"', of_funds) == ["bad"]
    assert re.findall(r'class="id" href="/payments/(\w+)"', of_gateway) == ["f1", "f0"]
    headings = re.findall(r'<th scope="col">([^<]*)</th>', text)
    assert {"Payment", "Customer", "From", "Reason", "Failed at"} <= set(headings)
    assert all(heading[0].isupper() and "_" not in heading for heading in headings)


def test_an_address_that_is_no_page_is_answered_by_a_page(lead: TestClient) -> None:
    # Enter in the address bar, after a search by card.
    answer = lead.get("/find")
    assert (answer.status_code, answer.headers["location"]) == (303, "/search")
    for address, status in (("/nothing", 404), ("/dead-letters/x/retry", 405), ("/static/nothing.js", 404)):
        answer = lead.get(address)
        assert answer.status_code == status and answer.headers["content-type"].startswith("text/html"), address
        assert "<h1>" in answer.text
    assert "no such page" in lead.get("/api/v1/nothing").json()["error"]


def test_an_event_of_another_table_is_never_an_unusual_transition(lead: TestClient, changelog: Changelog) -> None:
    changelog.payments(row("odd", "INSERT", 1000, "CAPTURED", transition_expected=False))
    changelog.audit_logs(row("odd", "INSERT", 1001, "OK", table="audit_logs", transition_expected=False))
    story = lead.get("/payments/odd").text.partition('id="story"')[2]
    assert story.count("audit_logs") == 1 and story.count("not a usual transition") == 1
    assert [e["expected"] for e in lead.get("/api/v1/payments/odd").json()["events"]] == [False, None]


def test_a_payment_says_its_status_in_words_and_the_newest_change_first(lead: TestClient, changelog: Changelog) -> None:
    updates = [
        row("many", "UPDATE", 1001 + n, "PENDING", {"RetryCount": str(n)}, RetryCount=n + 1, payment_state_at=None)
        for n in range(5)
    ]
    changelog.payments(row("many", "INSERT", 1000, "PENDING"), *updates)
    # What a replay brought is what the payment is now.
    changelog.payments(row("many", "REPLAY", 1100, "CAPTURED"))
    text = lead.get("/payments/many").text
    top, _, story = text.partition('id="story"')
    assert re.search(r"<dt>Status</dt><dd><span[^>]*>CAPTURED</span>: processed</dd>", top)
    mods = re.findall(r'class="mod">(\w+)<', story)
    assert mods == ["REPLAY", *["UPDATE"] * 5, "INSERT"]
    # The older differences are folded: the page stays short.
    assert story.count("<details open>") == 2 and story.count("<details") == 7


def test_an_error_is_shown_of_a_failed_payment_alone(lead: TestClient, changelog: Changelog) -> None:
    changelog.payments(
        row("retried", "INSERT", 1000, "DECLINED", ErrorDetails="the issuer was away"),
        row("retried", "UPDATE", 1001, "CAPTURED", {"Status": "DECLINED"}, ErrorDetails="the issuer was away"),
    )
    text = lead.get("/search").text
    assert "retried" in text and "the issuer was away" not in text and "no [funds]" in text


def test_no_page_of_an_agent_without_an_answer_names_a_command_and_the_log_says_why(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with console(replace(connection, big_query_endpoint="http://127.0.0.1:9"), replace(LEAD, role="agent")) as client:
        for address in ("/search?customer=C1", "/payments/done", "/"):
            main = client.get(address).text.partition("<main")[2].partition("</main")[0]
            assert "BigQuery" in main and "who is on call" in main
            assert not re.search(r"`|--|make run|audit |127\.0\.0\.1", main), main
    lines = [record.getMessage() for record in caplog.records if record.name == "support.console.failed"]
    assert any(line.startswith("GET /search: WarehouseError: BigQuery on http://127.0.0.1:9") for line in lines)
    # The route's form, not what was opened.
    assert any(line.startswith("GET /payments/{puid:path}: ") for line in lines)
    assert "C1" not in str(lines) and "done" not in str(lines)


def test_how_long_a_payment_may_stay_is_said(connection: Connection, lead: TestClient, changelog: Changelog) -> None:
    with console(replace(connection, stuck_limits="HELD=60,*=7200")) as client:
        limits = client.get("/stuck").text.partition("How long a payment may stay")[2]
    names = re.findall(r'<th scope="row">([^<]+)</th>', limits)
    assert names[-2:] == ["HELD", "any other"] and names.count("any other") == 1
    changelog.payments(row("waiting", "INSERT", 1100, "INITIATED"))
    assert "stuck after" in lead.get("/payments/waiting").text
    assert "stuck after" not in lead.get("/payments/done").text


def test_a_warehouse_that_does_not_answer_offers_to_try_again(connection: Connection) -> None:
    with console(replace(connection, big_query_endpoint="http://127.0.0.1:9")) as client:
        answer = client.get("/search?customer=C1")
    assert answer.status_code == 503 and 'href="/search?customer=C1">Try again' in answer.text


def test_an_erasure_is_shown_and_not_of_whom(lead: TestClient, connection: Connection) -> None:
    erasing.submit(connection, "customer-4711", requested_by="lead", reason="request DSR-1", erasure_id="DSR-1")
    for answer in (lead.get("/erasures").text, lead.get("/api/v1/erasures").text):
        assert "DSR-1" in answer and "waiting" in answer and "customer-4711" not in answer


@pytest.fixture
def parked(connection: Connection) -> tuple[DeadLetterQueue, DeadLetter]:
    queue = DeadLetterQueue(connection.dead_letter_directory)
    queue.put([letter(1)])
    queue.park([letter(1)])
    return queue, letter(1)


def test_a_lead_tries_a_dead_letter_again_and_says_why(
    lead: TestClient, changelog: Changelog, parked: tuple[DeadLetterQueue, DeadLetter]
) -> None:
    queue, stored = parked
    assert stored.reason in lead.get("/dead-letters").text
    answer = lead.post(f"/dead-letters/{stored.id}/retry", data={"reason": "the column is classified"})
    assert answer.status_code == 303
    assert (queue.counts()["retry"], queue.counts()["severe"]) == (1, 0)
    assert ("lead@localhost", "retry", {"dead_letter": stored.id}, "the column is classified") in logged(changelog)
    assert lead.post("/dead-letters/nobody/retry", data={"reason": "the column"}).status_code == 404


def test_who_is_no_lead_gives_no_reason_or_comes_from_elsewhere_tries_nothing_again(
    connection: Connection, parked: tuple[DeadLetterQueue, DeadLetter]
) -> None:
    queue, stored = parked
    address, why = f"/dead-letters/{stored.id}/retry", {"reason": "the column is classified"}
    for role in ("viewer", "agent"):
        with console(connection, replace(LEAD, role=role)) as client:
            assert client.post(address, data=why).status_code == 403
            assert "Try again" not in client.get("/dead-letters").text
    with console(connection) as client:
        assert client.post(address, data={"reason": " no "}).status_code == 400
        assert client.post(address, data=why, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert queue.counts()["severe"] == 1
