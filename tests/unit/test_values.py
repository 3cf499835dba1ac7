"""Values of Spanner's types: what their columns take, and what is kept beside them. Examples: tests/golden/types/."""

import json
from typing import Any

import pyarrow as pa
import pytest

from contract import spanner_types, tables
from contract.changes import Change, Column
from contract.watched import WatchedColumn, WatchedTable
from pipeline.sink import rows, values
from tests.strict import bigquery_rows

TYPES = {"Id": "INT64", "At": "TIMESTAMP", "Doc": "JSON", "Rate": "FLOAT64", "Rates": "ARRAY<FLOAT64>", "Pan": "STRING"}
TABLE = WatchedTable(
    name="t",
    columns={name: WatchedColumn(policy="scan", type=kind) for name, kind in TYPES.items()}
    | {"Pan": WatchedColumn(policy="card", type="STRING")},
)
COLUMNS = tuple(Column(name, kind, name == "Id") for name, kind in TYPES.items())


def change(new: dict[str, Any], old: dict[str, Any] | None = None, keys: dict[str, Any] | None = None) -> Change:
    return Change(
        stream="S",
        table="t",
        mod_type="UPDATE",
        commit_timestamp="2026-11-23T09:00:01.000000123Z",
        server_transaction_id="42",
        record_sequence="0",
        mod_index=0,
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=COLUMNS,
        keys=keys or {"Id": "1"},
        new=new,
        old=old or {},
    )


def encoded(one: Change) -> dict[str, Any]:
    batch, failed = rows.encode([one], TABLE)
    assert batch is not None and not failed
    row: dict[str, Any] = batch.to_pylist()[0]
    return row


def test_old_values_and_json_with_numbers_that_bigquery_s_json_refuses_are_taken() -> None:
    doc = '{"rate": 67.174118, "big": 18446744073709551616}'
    assert bigquery_rows._json(pa.array([doc, '{"Rate":67.174118}'])) == [0, 1]
    row = encoded(change({"Doc": doc}, {"Rate": 67.174118, "Rates": [67.174118, None], "Doc": doc}))
    texts = [row["Doc"], row[tables.OLD_VALUES], row[tables.EXACT_VALUES]]
    assert bigquery_rows._json(pa.array(texts)) == []
    assert json.loads(row[tables.OLD_VALUES]) == {"Rate": "67.174118", "Rates": ["67.174118", None], "Doc": doc}
    assert json.loads(row[tables.EXACT_VALUES]) == {"Doc": doc}


def test_a_key_with_nanoseconds_is_among_the_exact_values() -> None:
    at = "2026-11-23T09:00:00.000000001Z"
    columns = (Column("At", "TIMESTAMP", True),)
    one = change({}, keys={"At": at})
    one.columns = columns
    assert rows.exact_values(one, TABLE) == {"At": at}


def test_a_null_inside_an_array_is_kept_beside_its_column() -> None:
    row = encoded(change({"Rates": [1.5, None, 2.0]}))
    assert row["Rates"] == [1.5, 2.0]
    assert json.loads(row[tables.EXACT_VALUES]) == {"Rates": ["1.5", None, "2.0"]}


def test_a_row_that_its_columns_hold_has_no_exact_values() -> None:
    whole = {"At": "2026-11-23T09:00:00.123456Z", "Doc": '{"a": 1.5}', "Rate": 67.174118, "Rates": [1.5, 2]}
    row = encoded(change(whole))
    assert row[tables.EXACT_VALUES] is None
    assert row[tables.OLD_VALUES] is None


def test_digits_that_are_zero_are_no_nanoseconds() -> None:
    exact = values.exact("TIMESTAMP")
    assert exact is not None
    assert exact("2026-11-23T09:00:00.123456000Z") is None
    assert exact("2026-11-23T09:00:00.1234567Z") == "2026-11-23T09:00:00.123456700Z"


def test_exact_values_are_made_of_what_masking_left() -> None:
    masked = change({"Pan": "411111******1111", "Pan_token": "v1:x"})
    masked.columns = (Column("Id", "INT64", True), Column("Pan", "ARRAY<STRING>", False))
    masked.new = {"Pan": ["411111******1111", None], "Pan_token": "v1:x"}
    assert rows.exact_values(masked, TABLE) == {"Pan": ["411111******1111", None]}


@pytest.mark.parametrize(
    ("written", "base", "element", "carried"),
    [
        ("STRING(36)", "STRING", None, "STRING"),
        ("ARRAY<STRING(MAX)>", "STRING", "STRING(MAX)", "STRING"),
        ("PROTO<shop.Order>", "PROTO", None, "STRING"),
        ("ARRAY<PROTO<shop.Order>>", "PROTO", "PROTO<shop.Order>", "STRING"),
        ("shop.Order", "SHOP.ORDER", None, "STRING"),
        ("ARRAY<FLOAT32>", "FLOAT32", "FLOAT32", "FLOAT64"),
        ("array<json>", "JSON", "json", "JSON"),
        ("GEOGRAPHY", "GEOGRAPHY", None, "STRING"),
    ],
)
def test_a_type_is_known_however_it_is_written(written: str, base: str, element: str | None, carried: str) -> None:
    assert spanner_types.base(written) == base
    assert spanner_types.element(written) == element
    assert spanner_types.carried_as(written) == carried


def test_a_change_record_s_type_is_described_with_postgresql_s_own() -> None:
    numeric = {"code": "NUMERIC", "type_annotation": "PG_NUMERIC"}
    assert spanner_types.described(numeric) == "PG_NUMERIC"
    assert spanner_types.described({"code": "ARRAY", "array_element_type": numeric}) == "ARRAY<PG_NUMERIC>"
    assert spanner_types.described({"code": "INT64", "type_annotation": "PG_OID"}) == "INT64"
    assert spanner_types.described({"code": "PROTO", "proto_type_fqn": "shop.Order"}) == "PROTO"
