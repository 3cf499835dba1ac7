"""Filtering by the options ignoreFields and ignoreTables."""

from __future__ import annotations

import pytest

from contract.changes import Change, ModType, Row
from pipeline.transforms.filter import Ignored, IgnoredRecords, keep
from tests.unit.test_partitions import change as record_at


def change(new: Row, old: Row | None = None, *, table: str = "payments", mod_type: ModType = "UPDATE") -> Change:
    return Change(
        stream="S",
        table=table,
        mod_type=mod_type,
        commit_timestamp="",
        server_transaction_id="1",
        record_sequence="0",
        mod_index=0,
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=(),
        keys={"PUID": "p"},
        new=new,
        old=old or {},
    )


def test_without_options_every_change_is_kept_as_it_is() -> None:
    one = change({"A": 1}, {"A": 0})
    assert keep(one, Ignored.parse())
    assert (one.new, one.old) == ({"A": 1}, {"A": 0})


def test_an_ignored_table_is_left_out() -> None:
    ignored = Ignored.parse(tables=" payments , sales.orders")
    assert not keep(change({}), ignored)
    assert not keep(change({}, table="sales.orders"), ignored)
    assert keep(change({}, table="orders"), ignored)


def test_an_ignored_column_is_taken_out_and_the_rest_kept() -> None:
    one = change({"A": 1, "B": 2}, {"A": 0, "B": 1})
    assert keep(one, Ignored.parse("B"))
    assert (one.new, one.old) == ({"A": 1}, {"A": 0})


def test_a_column_can_be_ignored_in_one_table() -> None:
    ignored = Ignored.parse("payments.B, sales.orders.C")
    here, there = change({"A": 1, "B": 2}, {"A": 0}), change({"A": 1, "B": 2}, {"A": 0}, table="logs")
    named = change({"A": 1, "C": 2}, {"A": 0}, table="sales.orders")
    assert all(keep(one, ignored) for one in (here, there, named))
    assert (here.new, there.new, named.new) == ({"A": 1}, {"A": 1, "B": 2}, {"A": 1})


def test_the_token_of_an_ignored_column_goes_with_it() -> None:
    one = change({"A": 1, "CardNumber": "x", "CardNumber_token": "y"}, {"A": 0})
    assert keep(one, Ignored.parse("CardNumber"))
    assert one.new == {"A": 1}


def test_an_update_that_touches_ignored_columns_only_is_left_out() -> None:
    ignored = Ignored.parse("B,C")
    assert not keep(change({"A": 1, "B": 2, "C": 3}, {"B": 1, "C": 0}), ignored)
    assert keep(change({"A": 1, "B": 2}, {"A": 0, "B": 1}), ignored)


def test_without_old_values_the_new_ones_say_what_an_update_touches() -> None:
    assert not keep(change({"B": 2}), Ignored.parse("B"))
    assert keep(change({"A": 1, "B": 2}), Ignored.parse("B"))


@pytest.mark.parametrize("mod_type", ["INSERT", "DELETE"])
def test_an_insert_or_delete_is_kept_even_if_all_its_columns_are_ignored(mod_type: ModType) -> None:
    assert keep(change({"B": 2}, {"B": 1}, mod_type=mod_type), Ignored.parse("B"))


def test_a_key_is_never_taken_out() -> None:
    one = change({"A": 1}, {"A": 0})
    assert keep(one, Ignored.parse("PUID"))
    assert one.keys == {"PUID": "p"}


@pytest.mark.parametrize("text", ["a b", "payments.*", "a.b.c.d", ".x", "1st"])
def test_what_is_no_column_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(ValueError, match=r"ignoreFields must be table\.column or column"):
        Ignored.parse(text)


def test_what_is_no_table_is_refused_with_the_rule() -> None:
    with pytest.raises(ValueError, match="ignoreTables must be tables"):
        Ignored.parse(tables="pay*")


@pytest.mark.parametrize("fields", ["payments.a", "PAYMENTS.A", "a"])
def test_a_column_is_left_out_however_its_name_is_written(fields: str) -> None:
    one = change({"A": 1, "A_token": 2, "B": 3}, {"A": 0, "B": 1}, table="Payments")
    assert keep(one, Ignored.parse(fields))
    assert (one.new, one.old) == ({"B": 3}, {"B": 1})
    assert not keep(change({"A": 1}, {"A": 0}, table="Payments"), Ignored.parse(fields))


def test_a_table_is_left_out_however_its_name_is_written() -> None:
    assert not keep(change({}, table="Sales.Orders"), Ignored.parse(tables="sales.ORDERS"))


def test_a_record_is_left_out_by_its_table_its_operation_or_its_transaction_s_tag() -> None:
    record = record_at(1, "t")._replace(table="Payments", mod_type="UPDATE", transaction_tag="app=nightly")
    left_out: list[tuple[str, ...]] = [("payments",), ("", "INSERT, UPDATE"), ("", "", "other, app=nightly")]
    assert all(record in IgnoredRecords.parse(*options) for options in left_out)
    kept: list[tuple[str, ...]] = [("payment",), ("", "INSERT,DELETE"), ("", "", "app=night, APP=NIGHTLY"), ()]
    assert all(record not in IgnoredRecords.parse(*options) for options in kept)
    # A transaction without a tag has an empty one.
    assert record._replace(transaction_tag="") not in IgnoredRecords.parse(tags="a,b")


def test_rows_differ_where_some_changes_of_a_row_are_left_out() -> None:
    assert not IgnoredRecords.parse("payments").rows_differ
    assert IgnoredRecords.parse(operations="DELETE").rows_differ
    assert IgnoredRecords.parse(tags="a").rows_differ
