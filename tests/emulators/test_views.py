"""The views, the merge and the prebuilt queries, on the BigQuery emulator."""

from __future__ import annotations

import itertools
import json
import random
from datetime import timedelta
from typing import Any

import pytest

from components import views
from contract import queries, tables
from tests.emulators.changelog import Changelog, at, row
from tests.shipped import WATCHED


def a_life() -> tuple[dict[str, Any], ...]:
    return (
        row("a", "INSERT", 1, "INITIATED"),
        row("a", "UPDATE", 2, "AUTHORIZED", {"Status": "INITIATED"}),
        row("a", "UPDATE", 3, "CAPTURED", {"Status": "AUTHORIZED"}),
    )


def test_the_current_state_is_right_whatever_the_order_of_arrival(changelog: Changelog) -> None:
    for number, order in enumerate(itertools.permutations(a_life())):
        arrived = ({tables.BIG_QUERY_COMMIT_TIMESTAMP: at(60 + place).isoformat()} for place in range(3))
        changelog.payments(*({**each, **when, "PUID": f"a{number}"} for each, when in zip(order, arrived, strict=True)))
    assert changelog.current() == {f"a{number}": "CAPTURED" for number in range(6)}


def test_a_deleted_payment_is_absent_and_one_written_again_is_back(changelog: Changelog) -> None:
    gone = row("gone", "DELETE", 4, old={"Status": "INITIATED"})
    back = (row("back", "DELETE", 4, old={"Status": "INITIATED"}), row("back", "INSERT", 5, "PENDING"))
    changelog.payments(row("gone", "INSERT", 1, "INITIATED"), gone, row("back", "INSERT", 1, "INITIATED"), *back)
    assert changelog.current() == {"back": "PENDING"}
    changelog.position(10)
    changelog.merge()
    assert changelog.current() == {"back": "PENDING"}


def test_changes_after_the_merge_count_and_those_before_it_are_read_from_the_state(changelog: Changelog) -> None:
    changelog.payments(*a_life()[:2])
    changelog.position(2.5)
    changelog.merge()
    # Only payment_state can have it now.
    changelog.query("DELETE FROM payment_audit_trail_bq WHERE TRUE")
    assert changelog.current() == {"a": "AUTHORIZED"}
    changelog.payments(a_life()[2])
    assert changelog.current() == {"a": "CAPTURED"}
    assert changelog.query("SELECT merged_until FROM payment_state_progress") == [{"merged_until": at(2.5)}]


def test_merging_at_any_moment_changes_no_answer(changelog: Changelog) -> None:
    chance = random.Random(7)
    statuses = ("INITIATED", "AUTHORIZED", "CAPTURED", "FAILED")
    changes = [row(f"p{n % 5}", "UPDATE", n, chance.choice(statuses), {}) for n in range(40)]
    expected = {change["PUID"]: change["Status"] for change in changes}
    # Each arrives up to ten changes late; the position is before all that are still to come.
    arriving = sorted(enumerate(changes), key=lambda pair: pair[0] + chance.random() * 10)
    for start in range(0, 40, 8):
        changelog.payments(*(change for _, change in arriving[start : start + 8]))
        changelog.position(min((number for number, _ in arriving[start + 8 :]), default=40) - 0.5)
        changelog.merge()
        seen: dict[str, tuple[int, str]] = {}
        for number, change in arriving[: start + 8]:
            seen[change["PUID"]] = max(seen.get(change["PUID"], (-1, "")), (number, change["Status"]))
        assert changelog.current() == {puid: status for puid, (_, status) in seen.items()}
    assert changelog.current() == expected


def test_a_merge_again_and_a_late_older_change_leave_the_newest_state(changelog: Changelog) -> None:
    changelog.payments(a_life()[2])
    changelog.position(2.5)
    changelog.merge()
    changelog.payments(a_life()[1])
    changelog.rewind(2)
    changelog.merge()
    changelog.merge()
    assert changelog.current() == {"a": "CAPTURED"}
    # Also when the changelog keeps the newer change no longer.
    changelog.query("DELETE FROM payment_audit_trail_bq WHERE Status = 'CAPTURED'")
    changelog.rewind(1)
    changelog.merge()
    assert changelog.query("SELECT Status FROM payment_state") == [{"Status": "CAPTURED"}]


def test_a_dead_letter_that_comes_late_is_seen_after_a_rewind(changelog: Changelog) -> None:
    changelog.position(10)
    changelog.merge()
    changelog.payments(row("late", "INSERT", 5, "PENDING"))
    assert changelog.current() == {}
    changelog.rewind(5)
    assert changelog.current() == {"late": "PENDING"}
    changelog.merge()
    assert changelog.query("SELECT PUID FROM payment_state") == [{"PUID": "late"}]
    assert changelog.query("SELECT merged_until FROM payment_state_progress") == [{"merged_until": at(10)}]


def test_a_rewind_during_a_merge_is_not_lost(changelog: Changelog) -> None:
    changelog.position(5)
    changelog.merge()
    changelog.position(10)
    before, after = queries.merge_script(changelog.project, WATCHED).split("UPDATE `")
    # Later than where this merge began, so that the value alone would not show the rewind.
    rewind = queries.rewind_script(changelog.project, WATCHED)
    changelog.query(f"{before}{rewind};\nUPDATE `{after}", commit_timestamp=at(7), arrived=at(7))
    assert changelog.query("SELECT merged_until FROM payment_state_progress") == [{"merged_until": at(5)}]


def test_without_a_new_position_the_merge_goes_neither_on_nor_back(changelog: Changelog) -> None:
    changelog.position(10)
    changelog.merge()
    changelog.query("DELETE FROM resume_positions WHERE TRUE")
    changelog.merge()
    changelog.position(3)
    changelog.merge()
    assert changelog.query("SELECT merged_until FROM payment_state_progress") == [{"merged_until": at(10)}]


def test_the_job_that_is_behind_says_how_complete_the_warehouse_is(changelog: Changelog) -> None:
    assert changelog.query("SELECT complete_until FROM payment_views.complete_until") == [{"complete_until": None}]
    for second, job in ((5, "one"), (9, "one"), (7, "two")):
        changelog.position(second, job=job)
    assert changelog.query("SELECT complete_until FROM payment_views.complete_until") == [{"complete_until": at(7)}]
    changelog.merge()
    assert changelog.query("SELECT merged_until FROM payment_state_progress") == [{"merged_until": at(7)}]


def test_transitions_have_from_to_duration_and_whether_they_were_expected(changelog: Changelog) -> None:
    changelog.payments(
        row("a", "INSERT", 1, "INITIATED", transition_expected=True),
        row("a", "UPDATE", 2, "INITIATED", {"RetryCount": "1"}, transition_expected=True),
        row("a", "UPDATE", 4.5, "CAPTURED", {"Status": "INITIATED"}, transition_expected=True,
            previous_payment_state_at=at(2).isoformat()),
        row("a", "UPDATE", 5, "INITIATED", {"Status": "CAPTURED"}, transition_expected=False),
        row("a", "UPDATE", 6, "CAPTURED", {"Status": None}, transition_expected=False),
        # Of a change stream that carries no old values: what it changed is not known.
        row("a", "UPDATE", 6.5, "SETTLED", previous_payment_state=None),
        row("a", "DELETE", 7, old={"Status": "CAPTURED"}, payment_state=None, previous_payment_state="processed"),
    )  # fmt: skip
    found = changelog.query(queries.query("transitions_of_payment", changelog.project, WATCHED), puid="a", since=at(0))
    assert [(each["from_status"], each["to_status"], each["to_state"], each["expected"]) for each in found] == [
        (None, "INITIATED", "initiated", True),
        ("INITIATED", "CAPTURED", "processed", True),
        ("CAPTURED", "INITIATED", "initiated", False),
        (None, "CAPTURED", "processed", False),
        ("CAPTURED", None, None, None),
    ]
    assert found[1]["seconds_in_from_state"] == 2.5
    assert found[1]["from_at"] == at(2)
    assert found[1]["to_at"] == at(4.5)


def test_a_change_that_was_written_twice_is_seen_once(changelog: Changelog) -> None:
    changelog.payments(*a_life(), *a_life())
    for view, expected in (("payment_current", 1), ("payment_transitions", 3), ("payment_timeline", 3)):
        assert len(changelog.query(f"SELECT PUID FROM payment_views.{view}")) == expected


def test_the_timeline_has_payments_and_audit_logs_in_commit_order(changelog: Changelog) -> None:
    changelog.payments(a_life()[1], a_life()[0])
    # The same transaction wrote both tables: one change id, two changes.
    changelog.audit_logs(row("a", "INSERT", 2, "OK", table="audit_logs", acting_user="svc", ErrorDetails="slow"))
    found = changelog.query(queries.query("timeline_of_payment", changelog.project, WATCHED), puid="a", since=at(0))
    assert [(each["source_table"], each["Status"]) for each in found] == [
        ("payment_audit_trail", "INITIATED"),
        ("audit_logs", "OK"),
        ("payment_audit_trail", "AUTHORIZED"),
    ]
    assert found[1]["acting_user"] == "svc"
    assert found[1]["Amount"] is None
    assert found[2]["old_values"] == {"Status": "INITIATED"}


def test_what_is_stuck_is_what_the_last_look_of_the_hour_saw(changelog: Changelog) -> None:
    def seen() -> list[tuple[str | None, str | None]]:
        found = changelog.query("SELECT PUID, Status, seen_at FROM payment_views.payment_stuck ORDER BY PUID")
        assert len({each["seen_at"] for each in found}) <= 1
        return [(each["PUID"], each["Status"]) for each in found]

    changelog.stuck(("old", "PENDING", 100), ago=3700)
    assert seen() == []
    changelog.stuck(("a", "PENDING", 100), ("b", "HELD", 100), ago=120)
    assert seen() == [("a", "PENDING"), ("b", "HELD")]
    # A row that was sent again.
    changelog.query("INSERT INTO stuck_payments_seen SELECT * FROM stuck_payments_seen WHERE puid = 'a'")
    assert seen() == [("a", "PENDING"), ("b", "HELD")]
    changelog.stuck(("b", "HELD", 160), ago=60)
    assert seen() == [("b", "HELD")]
    changelog.stuck()
    assert seen() == [(None, None)]


def test_every_prebuilt_query_answers(changelog: Changelog) -> None:
    changelog.payments(
        row("ok", "INSERT", 1, "INITIATED", customer_id="C1", Region="EU", Currency="EUR", Amount="10.5"),
        row("ok", "UPDATE", 2, "CAPTURED", {"Status": "INITIATED"}, customer_id="C1", Region="EU", Currency="EUR",
            Amount="10.5", PaymentMethod="CARD", _metadata_card_tokens=["v1:abc"]),
        row("bad", "INSERT", 3, "DECLINED", customer_id="C1", Region="EU", Currency="EUR", Amount="2",
            PaymentMethod="CARD",
            ErrorDetails="no funds", ServiceName="acquirer"),
        row("slow", "INSERT", 4, "PENDING", customer_id="C2", Region="US", Currency="USD", Amount="7"),
    )  # fmt: skip
    changelog.stuck(("slow", "PENDING", 3600), ("new", "PENDING", 59), ("else", "HELD", 7200))
    given = {
        "puid": "ok", "customer_id": "C1", "statuses": ["PENDING"],
        "older_than_seconds": 60, "since": at(-3600), "until": at(3600), "period_seconds": 86_400, "limit": 10,
    }  # fmt: skip
    answers = {}
    for name in queries.queries(WATCHED):
        sql = queries.query(name, changelog.project, WATCHED)
        answers[name] = changelog.query(sql, **{key: value for key, value in given.items() if f"@{key}" in sql})
    puids = {name: [each["PUID"] for each in rows] for name, rows in answers.items() if rows and "PUID" in rows[0]}
    assert puids == {
        "failures": ["bad"],
        "payment_by_id": ["ok"],
        "payments_by_customer": ["bad", "ok"],
        "stuck_payments": ["slow"],
        "timeline_of_payment": ["ok", "ok"],
        "transitions_of_payment": ["ok", "ok"],
    }
    assert answers["failures"][0]["status_now"] == "DECLINED"
    assert [(each["ErrorDetails"], each["failures"]) for each in answers["failures_by_reason"]] == [("no funds", 1)]
    by_service = {each["ServiceName"]: each["failures"] for each in answers["failures_by_service"]}
    assert by_service == {"acquirer": 1}
    assert sum(each["began"] for each in answers["summary_by_period"]) == 3
    by_region = {each["Region"]: each for each in answers["summary_by_region"]}
    assert (by_region["EU"]["payments"], str(by_region["EU"]["amount"])) == (2, "12.5")
    by_method = {each["PaymentMethod"]: each["payments"] for each in answers["summary_by_method"]}
    assert by_method == {"CARD": 2, None: 1}
    assert [(each["customer_id"], each["failed"]) for each in answers["summary_by_customer"]] == [("C1", 1), ("C2", 0)]
    assert set(answers) == {
        *puids,
        "days_of_payment",
        "failures_by_reason",
        "failures_by_service",
        "summary_by_period",
        "summary_by_region",
        "summary_by_method",
        "summary_by_customer",
    }


def test_a_table_function_answers_as_its_query(changelog: Changelog) -> None:
    from google.cloud import bigquery

    changelog.payments(
        row("ok", "INSERT", 1, "INITIATED", customer_id="C1", Region="EU", Currency="EUR", Amount="10.5",
            ),
        row("ok", "UPDATE", 2, "CAPTURED", {"Status": "INITIATED"}, customer_id="C1", Region="EU", Currency="EUR",
            Amount="10.5"),
        row("bad", "INSERT", 3, "DECLINED", customer_id="C2", ErrorDetails="no funds"),
        row("slow", "INSERT", 4, "PENDING", customer_id="C2"),
    )  # fmt: skip
    changelog.stuck(("slow", "PENDING", 3600))
    given = {
        "puid": "ok", "customer_id": "C1", "statuses": ["PENDING"],
        "older_than_seconds": 60, "since": at(-3600), "until": at(3600), "period_seconds": 86_400, "limit": 100,
    }  # fmt: skip
    for name in queries.queries(WATCHED):
        function = queries.table_function(name, changelog.project, WATCHED)
        place = f"{changelog.project}.{tables.VIEWS_DATASET}.{name}"
        routine = bigquery.Routine(
            place,
            type_="TABLE_VALUED_FUNCTION",
            language="SQL",
            body=function.body,
            arguments=[
                bigquery.RoutineArgument.from_api_repr(
                    {"name": a.name, "dataType": json.loads(views.data_type(a.type))}
                )
                for a in function.arguments
            ],
        )
        changelog.client.delete_routine(place, not_found_ok=True)
        changelog.client.create_routine(routine)
        used = {a.name.removeprefix("p_") for a in function.arguments}
        called = f"SELECT * FROM `{place}`({', '.join(f'@{a.name[2:]}' for a in function.arguments)})"
        parameters = {key: value for key, value in given.items() if key in used}
        query = queries.query(name, changelog.project, WATCHED)
        asked = parameters | ({"limit": 100} if "@limit" in query else {})
        answer, expected = changelog.query(called, **parameters), changelog.query(query, **asked)
        assert expected and sorted(map(str, answer)) == sorted(map(str, expected)), name


def test_no_argument_of_a_table_function_is_named_like_a_column() -> None:
    """BigQuery would read the column: every row would match."""
    columns = {field.name.casefold() for table in tables.all_tables(WATCHED) for field in table.fields}
    for name in queries.queries(WATCHED):
        function = queries.table_function(name, "p", WATCHED)
        assert not {argument.name.casefold() for argument in function.arguments} & columns
        assert "@" not in function.body
        assert "LIMIT" not in function.body


def test_a_query_names_its_parameters_in_its_head(changelog: Changelog) -> None:
    import re

    for name in queries.queries(WATCHED):
        head, _, body = queries.query(name, changelog.project, WATCHED).partition("SELECT")
        used = set(re.findall(r"@(\w+)", body))
        assert set(re.findall(r"@(\w+) (?:STRING|INT64|TIMESTAMP|ARRAY<STRING>)", head)) == used, name


def test_a_change_older_than_the_views_reach_comes_in_with_the_merge(changelog: Changelog) -> None:
    old = row("old", "INSERT", -timedelta(days=20).total_seconds(), "PENDING")
    changelog.payments(old)
    assert changelog.current() == {}
    changelog.merge()
    assert changelog.current() == {"old": "PENDING"}


def test_an_unknown_query_names_those_that_there_are() -> None:
    with pytest.raises(queries.QueryError, match="payment_by_id"):
        queries.query("nope", "p", WATCHED)
