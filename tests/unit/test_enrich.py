"""Enrichment: whose payment, who acted, which transition."""

from __future__ import annotations

from typing import Any

import pytest

from contract.changes import Change, ModType, Reason, Row, StepError
from contract.payments import PAYMENT_STATES
from contract.tables import ENRICHMENT_FIELDS
from pipeline.transforms.enrich import enrich
from tests.shipped import PAYMENT_TABLE, WATCHED

COMMIT = "2026-11-23T09:15:00.000000001Z"
THEN, NOW = "2026-11-23T09:00:00Z", "2026-11-23T09:14:59Z"


def enriched(mod_type: ModType, new: Row | None = None, old: Row | None = None) -> dict[str, Any]:
    change = Change(
        stream="S",
        table=PAYMENT_TABLE,
        mod_type=mod_type,
        commit_timestamp=COMMIT,
        server_transaction_id="1",
        record_sequence="0",
        mod_index=0,
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=(),
        keys={"PUID": "p"},
        new=new or {},
        old=old or {},
    )
    enrich(change, WATCHED.of(change.table), PAYMENT_STATES)
    assert list(change.enriched) == [field.name for field in ENRICHMENT_FIELDS]
    return change.enriched


def transition(mod_type: ModType, new: Row | None = None, old: Row | None = None) -> tuple[Any, ...]:
    """State, its time, previous state, its time, expected."""
    return tuple(enriched(mod_type, new, old).values())[2:]


@pytest.mark.parametrize(
    ("row", "customer"),
    [
        ({"CustomerId": "c1", "Metadata": '{"customerId": "c2"}'}, "c1"),
        ({"CustomerId": None, "Metadata": '{"customerId": "c2"}'}, "c2"),
        ({"Metadata": '{"customer_id": "c3"}'}, "c3"),
        ({"Metadata": ' {"customer": {"id": 42}}'}, "42"),
        ({"Metadata": '{"customerId": {"a": 1}, "customer": ["x"]}'}, None),
        ({"Metadata": '{"customerId": true}'}, None),
        ({"Metadata": "[1]"}, None),
        ({"Metadata": '"x"'}, None),
        ({"Metadata": "{not json"}, None),
        ({"Metadata": None}, None),
        ({}, None),
    ],
)
def test_the_customer_comes_from_the_row_or_its_metadata(row: Row, customer: str | None) -> None:
    assert enriched("INSERT", row)["customer_id"] == customer


def test_the_customer_of_a_delete_comes_from_the_before_image() -> None:
    assert enriched("DELETE", old={"CustomerId": "c1"})["customer_id"] == "c1"


@pytest.mark.parametrize(
    ("row", "user"),
    [
        ({"UserId": "u1", "Metadata": '{"actingUser": "u2"}', "ServiceName": "s"}, "u1"),
        ({"Metadata": '{"actingUser": "u2", "user": "u3"}', "ServiceName": "s"}, "u2"),
        ({"Metadata": '{"user": "u3"}', "ServiceName": "s"}, "u3"),
        ({"Metadata": "{}", "ServiceName": "s"}, "s"),
        ({}, None),
    ],
)
def test_the_acting_user_is_a_person_before_a_service(row: Row, user: str | None) -> None:
    assert enriched("INSERT", row)["acting_user"] == user


def test_a_first_state_has_none_before_it() -> None:
    row = {"Status": "INITIATED", "Timestamp": NOW}
    assert transition("INSERT", row) == ("initiated", NOW, None, None, True)


def test_a_payment_that_begins_processed_is_flagged() -> None:
    assert transition("INSERT", {"Status": "SETTLED", "Timestamp": NOW}) == ("processed", NOW, None, None, False)


def test_a_transition_has_both_states_and_both_times() -> None:
    new, old = {"Status": "CAPTURED", "Timestamp": NOW}, {"Status": "AUTHORIZED", "Timestamp": THEN}
    assert transition("UPDATE", new, old) == ("processed", NOW, "initiated", THEN, True)


def test_a_transition_outside_the_table_is_flagged() -> None:
    new, old = {"Status": "INITIATED", "Timestamp": NOW}, {"Status": "SETTLED", "Timestamp": THEN}
    assert transition("UPDATE", new, old) == ("initiated", NOW, "processed", THEN, False)


def test_an_update_that_leaves_the_status_alone_keeps_the_state() -> None:
    new = {"Status": "CAPTURED", "Timestamp": NOW}
    assert transition("UPDATE", new, {"RetryCount": "0"}) == ("processed", NOW, "processed", NOW, True)


def test_a_state_before_which_there_was_no_status_is_a_first_one() -> None:
    new = {"Status": "INITIATED", "Timestamp": NOW}
    assert transition("UPDATE", new, {"Status": None}) == ("initiated", NOW, None, None, True)


@pytest.mark.parametrize(("before", "after"), [("ON_HOLD", "CAPTURED"), ("CAPTURED", "ON_HOLD")])
def test_an_unknown_status_is_neither_expected_nor_unexpected(before: str, after: str) -> None:
    new, old = {"Status": after, "Timestamp": NOW}, {"Status": before, "Timestamp": THEN}
    state, at, previous, previous_at, expected = transition("UPDATE", new, old)
    assert (state, previous) == (PAYMENT_STATES.get(after), PAYMENT_STATES.get(before))
    assert (at, previous_at) == (NOW, THEN)
    assert expected is None


def test_a_row_without_a_time_of_its_own_has_the_time_of_the_commit() -> None:
    assert transition("INSERT", {"Status": "INITIATED"}) == ("initiated", COMMIT, None, None, True)


def test_a_row_without_a_status_has_no_state_and_no_time() -> None:
    assert transition("INSERT", {"Timestamp": NOW}) == (None, None, None, None, None)


def test_a_delete_has_only_the_state_before_it() -> None:
    old = {"Status": "FAILED", "Timestamp": THEN}
    assert transition("DELETE", old=old) == (None, None, "failed", THEN, None)


def test_an_update_without_old_values_has_an_unknown_previous_state() -> None:
    assert transition("UPDATE", {"Status": "CAPTURED", "Timestamp": NOW}) == ("processed", NOW, None, None, None)


def test_a_status_that_is_no_text_is_a_dead_letter_without_the_value() -> None:
    with pytest.raises(StepError) as error:
        enriched("INSERT", {"Status": ["secret"]})
    assert error.value.reason == Reason.ENRICHMENT
    assert "secret" not in error.value.message


@pytest.mark.parametrize("text", ["yesterday", "1700000000", "2026-11-23", "2026-11-23 09:00:00", "", ["x"]])
def test_a_timestamp_column_of_another_kind_makes_no_dead_letter_of_a_good_row(text: Any) -> None:
    assert transition("INSERT", {"Status": "SETTLED", "Timestamp": text})[:2] == ("processed", COMMIT)
