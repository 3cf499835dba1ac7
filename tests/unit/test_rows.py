"""Changes as Arrow rows."""

import datetime
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from contract import tables
from contract.changes import Change, Column, Reason
from pipeline.sink import rows
from tests.shipped import PAYMENTS

TYPES = {
    "PUID": "STRING",
    "Amount": "NUMERIC",
    "Count": "INT64",
    "Ratio": "FLOAT64",
    "Ok": "BOOL",
    "Day": "DATE",
    "At": "TIMESTAMP",
    "Raw": "BYTES",
    "Metadata": "JSON",
    "Tags": "ARRAY<STRING>",
    "Shape": "PROTO",
}
COLUMNS = tuple(Column(name, kind, name == "PUID") for name, kind in TYPES.items())
NEW: dict[str, Any] = {
    "Amount": "12345678901234567890123456789.123456789",
    "Count": "9223372036854775807",
    "Ratio": 0.1,
    "Ok": True,
    "Day": "2026-11-23",
    "At": "2026-11-23T09:00:00.123456789Z",
    "Raw": "AAE=",
    "Metadata": '{"b": 1.10, "a": 12345678901234567890}',
    "Tags": ["x", None, "y"],
    "Shape": "CgJ4",
}


def change(puid: str = "p1", **values: Any) -> Change:
    return Change(
        stream="S",
        table="payment_audit_trail",
        mod_type="INSERT",
        commit_timestamp="2026-11-23T09:00:01.000000123Z",
        server_transaction_id="42",
        record_sequence="00000000",
        mod_index=0,
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=COLUMNS,
        keys={"PUID": puid},
        new=NEW | values,
        old={},
    )


def encoded(*changes: Change) -> list[dict[str, Any]]:
    batch, failed = rows.encode(changes, PAYMENTS)
    assert not failed
    assert batch is not None
    found: list[dict[str, Any]] = batch.to_pylist()
    return found


def test_every_type_keeps_its_value() -> None:
    (row,) = encoded(change())
    assert row["PUID"] == "p1"
    assert row["Amount"] == Decimal("12345678901234567890123456789.123456789")
    assert row["Count"] == 9223372036854775807
    assert row["Ratio"] == 0.1
    assert row["Ok"] is True
    assert row["Day"] == datetime.date(2026, 11, 23)
    assert row["At"] == datetime.datetime(2026, 11, 23, 9, 0, 0, 123456, datetime.UTC)
    assert row["Raw"] == b"\x00\x01"
    assert row["Metadata"] == '{"b": 1.10, "a": 12345678901234567890}'
    assert row["Tags"] == ["x", "y"]


def test_a_type_without_a_counterpart_is_carried_as_text() -> None:
    (row,) = encoded(change())
    assert row["Shape"] == "CgJ4"
    (field,) = tables.fields_of(PAYMENTS, "Shape", "PROTO")
    assert (field.type, field.description) == ("STRING", "Spanner PROTO, carried as text")


def test_nulls_stay_null_and_arrays_empty() -> None:
    (row,) = encoded(change("p1", **dict.fromkeys(NEW)))
    assert all(row[name] is None for name in NEW if name != "Tags")
    assert row["Tags"] == []


def test_a_key_that_is_null_is_a_row_as_any_other() -> None:
    one = change()
    one.keys = {"PUID": None}
    [row] = encoded(one)
    assert row["PUID"] is None and row["Count"] == 9223372036854775807


def test_nan_and_infinities_are_kept() -> None:
    nan, plus, minus = encoded(change(Ratio="NaN"), change(Ratio="Infinity"), change(Ratio="-Infinity"))
    assert math.isnan(nan["Ratio"])
    assert (plus["Ratio"], minus["Ratio"]) == (math.inf, -math.inf)


def test_the_metadata_says_where_and_when() -> None:
    (row,) = encoded(change())
    assert row[tables.COMMIT_TIMESTAMP_NANOS] == 1795424401000000123
    assert row[tables.COMMIT_TIMESTAMP] == datetime.datetime(2026, 11, 23, 9, 0, 1, 0, datetime.UTC)
    assert row[tables.CHANGE_ID] == "2026-11-23T09:00:01.000000123Z/42/00000000/000000"
    assert row[tables.MOD_TYPE] == "INSERT"
    assert row[tables.OLD_VALUES] is None


def test_old_values_are_kept_whole() -> None:
    update = change()
    update.old = {"Amount": "1.50", "Metadata": None}
    (row,) = encoded(update)
    assert row[tables.OLD_VALUES] == '{"Amount":"1.50","Metadata":null}'


def test_one_bad_value_fails_its_own_change_alone() -> None:
    bad = change("p2", Count="not a number")
    batch, failed = rows.encode([change("p1"), bad, change("p3")], PAYMENTS)
    assert batch is not None
    assert [r["PUID"] for r in batch.to_pylist()] == ["p1", "p3"]
    ((culprit, error),) = failed
    assert culprit is bad
    assert error.reason == Reason.VALUE
    assert "payment_audit_trail.Count" in error.message
    assert "not a number" not in error.message


def test_every_kind_of_bad_value_is_named() -> None:
    for column, value in {
        "Amount": "12.3.4",
        "Count": 9223372036854775808,
        "Day": "2026-13-01",
        "At": "yesterday",
        "Ok": "true",
        "Tags": 3,
        "Raw": "%%",
        "Ratio": {},
    }.items():
        batch, failed = rows.encode([change("p1", **{column: value})], PAYMENTS)
        assert batch is None, column
        assert f"payment_audit_trail.{column}" in failed[0][1].message


def test_batches_with_different_columns_merge() -> None:
    narrow, _ = rows.encode([change("p1")], PAYMENTS)
    wide = change("p2", Colour="red")
    wide.columns = (*COLUMNS, Column("Colour", "STRING", False))
    wider, _ = rows.encode([wide], PAYMENTS)
    assert narrow is not None and wider is not None
    merged = rows.merge([rows.to_bytes(narrow), rows.to_bytes(wider)])
    assert merged.num_rows == 2
    assert merged["Colour"].to_pylist() == [None, "red"]
    assert isinstance(merged, pa.Table)


def test_masked_columns_come_as_masking_left_them() -> None:
    masked = change(CardNumber="411111******1111", CardNumber_token="v1:ab", CardholderName_token="v1:cd")
    masked.columns = (
        *COLUMNS,
        Column("CardNumber", "STRING", False),
        Column("CardholderName", "STRING", False),
        Column("CardExpiry", "STRING", False),
    )
    (row,) = encoded(masked)
    assert (row["CardNumber"], row["CardNumber_token"], row["CardholderName_token"]) == (
        "411111******1111",
        "v1:ab",
        "v1:cd",
    )
    assert "CardholderName" not in row
    assert "CardExpiry" not in row


@pytest.mark.parametrize("value", ["abc", {"a": 1}, 5])
def test_what_is_no_array_is_a_dead_letter_and_not_an_array_of_its_letters(value: Any) -> None:
    batch, [(_, error)] = rows.encode([change("p1", Tags=value)], PAYMENTS)
    assert batch is None and error.reason == Reason.VALUE
