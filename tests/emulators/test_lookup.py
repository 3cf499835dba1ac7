"""payment_lookup on the BigQuery emulator: what fills it, and that it and the last changes together miss nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from contract import lookups, queries
from contract.lookups import Kind
from support.lookup import Days, days_of, payments_with
from support.search import Search, search
from support.timeline import timeline
from support.warehouse import Warehouse
from tests.emulators.changelog import NEW_TOKEN, Changelog, at, row
from tests.shipped import WATCHED

_DAY = 86_400.0
SOUGHT: tuple[tuple[Kind, str], ...] = (("customer", "C1"), ("last_four", "1111"), ("card", NEW_TOKEN))
A_PAYMENT = {"customer_id": "C1", "CardNumber": "411111******1111", "_metadata_card_tokens": [NEW_TOKEN]}


def seen(reader: Warehouse) -> list[list[str]]:
    return [payments_with(reader, kind, [value], most=10) for kind, value in SOUGHT]


def test_a_payment_is_found_before_the_first_fill_and_after_each(changelog: Changelog, reader: Warehouse) -> None:
    changelog.payments(row("a", "INSERT", 1, "INITIATED", **A_PAYMENT))
    assert seen(reader) == [["a"]] * 3
    changelog.position(2)
    changelog.fill()
    # Only payment_lookup can have it now.
    changelog.query("DELETE FROM payment_audit_trail_bq WHERE TRUE")
    assert seen(reader) == [["a"]] * 3
    changelog.payments(row("b", "INSERT", 5, "INITIATED", **A_PAYMENT))
    assert seen(reader) == [["b", "a"]] * 3
    assert payments_with(reader, "customer", ["C1"], most=1) == ["b"]
    assert payments_with(reader, "customer", ["C2"], most=10) == []


def test_the_keys_of_the_table_are_those_of_the_code(changelog: Changelog) -> None:
    changelog.payments(row("a", "INSERT", 1, "INITIATED", **A_PAYMENT))
    changelog.audit_logs(row("a", "INSERT", 2, "OK", table="audit_logs", customer_id="C9"))
    changelog.fill()
    found = changelog.query("SELECT bucket, lookup_key, kind, puid, customer_id, day FROM payment_lookup")
    expected = {
        (lookups.key(kind, value), kind, value if kind == "customer" else None)
        for kind, value in (*SOUGHT, ("payment", "a"), ("customer", "C9"))
    }
    assert {(each["lookup_key"], each["kind"], each["customer_id"]) for each in found} == expected
    assert all(each["bucket"] == lookups.bucket(each["lookup_key"]) for each in found)
    assert all(0 <= each["bucket"] < lookups.BUCKETS for each in found)
    assert {(each["puid"], each["day"]) for each in found} == {("a", at(1).date())}


def test_a_fill_adds_a_change_once_also_a_late_one(changelog: Changelog, reader: Warehouse) -> None:
    def rows() -> int:
        return int(changelog.query("SELECT COUNT(*) AS n FROM payment_lookup WHERE kind = 'payment'")[0]["n"])

    changelog.payments(row("a", "INSERT", 1, "INITIATED", **A_PAYMENT))
    changelog.position(10)
    changelog.fill()
    changelog.fill()
    assert rows() == 1
    # A dead letter that is written an hour later.
    arrived = datetime.now(UTC).isoformat()
    changelog.payments(row("late", "INSERT", 5, "INITIATED", _metadata_big_query_commit_timestamp=arrived))
    changelog.fill()
    assert rows() == 1
    changelog.rewind(5)
    # What was added before is known by its arrival, an hour ago, so a fill from the rewound moment adds the late one.
    assert days_of(reader, "late").open_from <= at(5)
    changelog.fill()
    assert rows() == 2
    assert days_of(reader, "late").days == (at(5).date(),)


def test_rows_of_a_long_replay_are_added_though_they_arrived_before_the_last_fill(
    changelog: Changelog, reader: Warehouse
) -> None:
    def arrived(puid: str, minutes: float, second: float) -> None:
        moment = datetime.now(UTC) - timedelta(minutes=minutes)
        stamp = {"_metadata_big_query_commit_timestamp": moment.isoformat()}
        changelog.payments(row(puid, "REPLAY", second, "CAPTURED", customer_id="C1", **stamp))

    changelog.position(10)
    changelog.fill()
    # Its moment is behind what is filled, and it has arrived long before the fill that passed it over.
    arrived("first", 40, 5)
    changelog.fill()
    arrived("last", 0, 5)
    changelog.query("DELETE FROM payment_lookup WHERE TRUE")
    changelog.rewind(5, arrived=datetime.now(UTC) - timedelta(minutes=45))
    changelog.fill()
    found = changelog.query("SELECT puid FROM payment_lookup WHERE kind = 'payment' ORDER BY puid")
    assert [each["puid"] for each in found] == ["first", "last"]


def test_a_rewind_during_a_fill_is_not_lost(changelog: Changelog) -> None:
    changelog.position(5)
    changelog.fill()
    changelog.position(10)
    before, after = queries.fill_script(changelog.project, WATCHED).split("UPDATE `")
    rewind = queries.rewind_script(changelog.project, WATCHED)
    changelog.query(f"{before}{rewind};\nUPDATE `{after}", commit_timestamp=at(7), arrived=datetime.now(UTC))
    assert changelog.query("SELECT filled_until FROM payment_state_progress") == [{"filled_until": at(5)}]


def test_merge_and_fill_share_their_progress_and_do_not_hold_each_other_up(changelog: Changelog) -> None:
    for script, other in ((changelog.merge, changelog.fill), (changelog.fill, changelog.merge)):
        changelog.clear()
        changelog.position(5)
        script()
        other()
        changelog.position(8)
        other()
        script()
        [progress] = changelog.query("SELECT merged_until, filled_until FROM payment_state_progress")
        assert progress == {"merged_until": at(8), "filled_until": at(8)}


def test_a_timeline_reads_the_days_of_the_payment_and_those_that_may_be_missing(
    changelog: Changelog, reader: Warehouse
) -> None:
    changelog.payments(
        row("a", "INSERT", -40 * _DAY, "INITIATED"),
        row("a", "UPDATE", -39 * _DAY, "AUTHORIZED", {"Status": "INITIATED"}),
        row("a", "UPDATE", -3 * _DAY, "CAPTURED", {"Status": "AUTHORIZED"}),
        row("b", "INSERT", -20 * _DAY, "INITIATED"),
    )
    changelog.position(0)
    changelog.fill()
    changelog.payments(row("a", "UPDATE", 5, "REFUNDED", {"Status": "CAPTURED"}))
    found = timeline(reader, "a")
    assert [event.status for event in found.events] == ["INITIATED", "AUTHORIZED", "CAPTURED", "REFUNDED"]
    assert len(list(days_of(reader, "a").ranges())) == 3
    assert [(each.from_status, each.to_status) for each in found.transitions] == [
        (None, "INITIATED"), ("INITIATED", "AUTHORIZED"), ("AUTHORIZED", "CAPTURED"), ("CAPTURED", "REFUNDED"),
    ]  # fmt: skip
    assert timeline(reader, "b").events[0].status == "INITIATED"


def test_the_transitions_of_the_timeline_are_those_of_the_view(changelog: Changelog, reader: Warehouse) -> None:
    changelog.payments(
        row("a", "INSERT", 1, "INITIATED"),
        row("a", "UPDATE", 2, "INITIATED", {"RetryCount": "1"}),
        row("a", "UPDATE", 3, "CAPTURED", {"Status": "INITIATED"}, previous_payment_state_at=at(1).isoformat()),
        row("a", "REPLAY", 4, "CAPTURED"),
        row("a", "UPDATE", 5, None, {"Status": "CAPTURED"}),
        row("a", "DELETE", 6, old={"Status": None}, previous_payment_state="processed"),
    )
    changelog.audit_logs(row("a", "INSERT", 2, "OK", table="audit_logs"))
    expected = changelog.query("SELECT * FROM payment_views.payment_transitions ORDER BY change_id")
    assert [vars(each) for each in timeline(reader, "a").transitions] == [
        {
            "from_status": each["from_status"], "to_status": each["to_status"], "from_state": each["from_state"],
            "to_state": each["to_state"], "at": each["to_at"], "seconds": each["seconds_in_from_state"],
            "expected": each["expected"],
        }
        for each in expected
    ]  # fmt: skip
    assert len(expected) == 4


def test_a_payment_that_has_lost_its_customer_is_not_that_customer_s(changelog: Changelog, reader: Warehouse) -> None:
    changelog.payments(
        row("a", "INSERT", 1, "INITIATED", customer_id="C1"),
        row("a", "UPDATE", 2, "INITIATED", {"CustomerId": "C1"}, customer_id="C2"),
    )
    changelog.position(5)
    changelog.fill()
    assert [payment.puid for payment in search(reader, Search(customer_id="C1")).payments] == []
    assert [payment.puid for payment in search(reader, Search(customer_id="C2")).payments] == ["a"]


def test_a_search_finds_what_a_fill_that_fails_for_days_has_not_added(changelog: Changelog, reader: Warehouse) -> None:
    changelog.position(-5 * _DAY)
    changelog.fill()
    changelog.payments(row("a", "INSERT", -3 * _DAY, "INITIATED", **A_PAYMENT))
    assert seen(reader) == [["a"]] * 3
    assert [event.status for event in timeline(reader, "a").events] == ["INITIATED"]


def test_a_search_without_a_time_is_of_the_last_day(changelog: Changelog, reader: Warehouse) -> None:
    changelog.payments(row("old", "INSERT", -2 * _DAY, "PENDING"), row("new", "INSERT", 1, "PENDING"))
    assert [payment.puid for payment in search(reader, Search()).payments] == ["new"]
    for since in (at(-3 * _DAY), at(-2 * _DAY)):
        found = search(reader, Search(since=since))
        assert [payment.puid for payment in found.payments] == ["new", "old"]


@pytest.mark.parametrize(
    ("days", "ranges"),
    [
        ([], []),
        ([1, 2, 3], [(1, 4)]),
        ([1, 3], [(1, 2), (3, 4)]),
        ([1, 2, 9], [(1, 3), (9, 10)]),
    ],
)
def test_days_are_read_as_few_ranges(days: list[int], ranges: list[tuple[int, int]]) -> None:
    begin = datetime(2026, 1, 10, 7, tzinfo=UTC)
    found = list(Days(days=tuple(date(2026, 1, n) for n in days), open_from=begin).ranges())
    midnight = datetime(2025, 12, 31, tzinfo=UTC)
    assert found[:-1] == [(midnight + timedelta(days=a), midnight + timedelta(days=b)) for a, b in ranges]
    assert found[-1] == (begin, None)
