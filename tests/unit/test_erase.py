"""Erasure of what is on its way: redacted by tokens, known soon enough, and never by a key that is gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contract.changes import Change
from pipeline.transforms.erase import CUSTOMER, PAYMENT, Erased
from pipeline.transforms.erased import OLDEST_SECONDS, ErasedNow
from pipeline.transforms.keys import MaskingKeyError, MaskingKeys
from tests.shipped import AUDIT_LOG_TABLE, PAYMENT_TABLE, WATCHED

KEYS = MaskingKeys({"v1": b"k" * 32})
GONE = frozenset({KEYS.token(CUSTOMER, "C7"), KEYS.token(PAYMENT, "p7")})
ROW = {
    "CustomerId": "C7", "UserId": "u", "CardNumber": "411111******1111", "CardNumber_token": "v1:c",
    "CardholderName_token": "v1:n", "Metadata": '{"customerId":"C7"}', "Status": "CAPTURED", "Amount": "3",
}  # fmt: skip


def change(puid: str = "p", table: str = PAYMENT_TABLE, **rows: Any) -> Change:
    return Change(
        stream="S", table=table, mod_type="UPDATE", commit_timestamp="2026-11-23T09:15:00.000000001Z",
        server_transaction_id="1", record_sequence="0", mod_index=0, is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1, number_of_partitions_in_transaction=1, columns=(), keys={"PUID": puid},
        new=rows.get("new", {}), old=rows.get("old", {}), card_tokens=["v1:c"],
    )  # fmt: skip


def redacted(made: Change, tokens: frozenset[str] = GONE) -> Change:
    assert Erased(tokens, KEYS).redact(made, WATCHED.of(made.table))
    return made


@pytest.mark.parametrize(
    "made",
    [
        change(new=dict(ROW)),
        change(new={"CustomerId": None, "Metadata": '{"customer":{"id":"C7"}}', "Status": "CAPTURED", "Amount": "3"}),
        change(new={"CustomerId": "C8", "Status": "CAPTURED", "Amount": "3"}, old={"CustomerId": "C7", "Amount": "2"}),
        change("p7", new={"CustomerId": "C8", "UserId": "u", "Status": "CAPTURED", "Amount": "3"}),
        change(old=dict(ROW)),
    ],
)
def test_what_names_the_customer_or_the_payment_keeps_nothing_personal(made: Change) -> None:
    made = redacted(made)
    kept = {name: value for name, value in made.new.items() if value is not None}
    assert kept in ({"Status": "CAPTURED", "Amount": "3"}, {})
    assert made.old.keys() <= {"Status", "Amount"} and made.card_tokens == []
    assert made.keys["PUID"] in ("p", "p7")


def test_others_stay_as_they_are() -> None:
    made = change(new=ROW | {"CustomerId": "C8", "Metadata": "{}"})
    before = replace(made, new=dict(made.new))
    assert redacted(made) == before
    assert redacted(change(new=dict(ROW)), frozenset()).new == ROW


def test_an_event_of_an_erased_payment_is_redacted_though_it_names_no_customer() -> None:
    made = redacted(change("p7", AUDIT_LOG_TABLE, new={"Metadata": '{"note":"Jo"}', "Status": "CAPTURED"}))
    assert made.new == {"Metadata": None, "Status": "CAPTURED"}


def test_a_row_about_the_customer_and_no_payment_is_not_kept() -> None:
    columns = {name: c for name, c in WATCHED.payments.columns.items() if c.means != "payment"}
    customers = replace(WATCHED.payments, name="customers", kind="other", columns=columns)
    made = change(table="customers", new=dict(ROW))
    assert not Erased(GONE, KEYS).redact(made, customers)
    assert Erased(GONE, KEYS).redact(change(table="customers", new={"CustomerId": "C8"}), customers)


def test_tokens_of_an_older_key_count_and_one_of_a_key_that_is_gone_stops() -> None:
    rotated = MaskingKeys({"v1": b"k" * 32, "v2": b"l" * 32})
    made = change(new=dict(ROW))
    Erased(GONE, rotated).redact(made, WATCHED.payments)
    assert made.new["CustomerId"] is None
    with pytest.raises(MaskingKeyError, match="masking key v1 must stay enabled"):
        Erased(GONE, MaskingKeys({"v2": b"l" * 32}))


AT = datetime(2026, 11, 29, tzinfo=UTC)


class Reads:
    """Answers by turns, tokens as recorded after `AT`; an exception is raised. `since`: what it was called with."""

    def __init__(self, *answers: Any) -> None:
        self._answers: Iterator[Any] = iter(answers)
        self.since: list[datetime | None] = []

    def __call__(self, since: datetime | None) -> Mapping[str, datetime]:
        self.since.append(since)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return {token: AT + timedelta(seconds=len(self.since)) for token in answer}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_who_is_erased_is_read_again_and_never_too_old(caplog: pytest.LogCaptureFixture) -> None:
    clock, down = Clock(), OSError("down")
    reads = Reads(down, (), down, down, GONE, down, down)
    known = ErasedNow(reads, lambda: KEYS, clock)
    # Not known at all: nothing is written.
    with pytest.raises(OSError, match="down"):
        known.current()
    assert not known.current().has_customer("C7") and len(reads.since) == 2
    clock.now += 9
    assert not known.current().has_customer("C7") and len(reads.since) == 2
    for _ in range(2):
        clock.now += 10
        assert not known.current().has_customer("C7")
    assert [record.getMessage() for record in caplog.records] == [
        "Who was erased could not be read again (OSError); trying again."
    ] * 2
    clock.now += OLDEST_SECONDS
    assert known.current().has_customer("C7") and len(reads.since) == 5
    clock.now += OLDEST_SECONDS
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            known.current()


def test_what_was_erased_before_is_kept_and_only_what_came_since_is_read() -> None:
    clock, later = Clock(), KEYS.token(CUSTOMER, "C8")
    reads = Reads(GONE, {later}, {later})
    known = ErasedNow(reads, lambda: KEYS, clock)
    for _ in range(3):
        current = known.current()
        clock.now += 10
    assert current.has_customer("C7") and current.has_customer("C8")
    assert reads.since == [None, AT + timedelta(seconds=1), AT + timedelta(seconds=2)]


def test_a_token_of_a_key_that_was_added_meanwhile_has_the_keys_loaded_again() -> None:
    rotated = MaskingKeys({"v1": b"k" * 32, "v2": b"l" * 32})
    clock, loaded = Clock(), iter([KEYS, rotated])
    known = ErasedNow(Reads((), {rotated.token(CUSTOMER, "C9")}), lambda: next(loaded), clock)
    assert not known.current().has_customer("C9")
    clock.now += 10
    assert known.current().has_customer("C9")
