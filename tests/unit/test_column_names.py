"""Names collide nowhere: every value of a source column arrives, under its own name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contract import tables
from contract.changes import Column
from contract.watched import WatchedTables
from pipeline.sink import rows
from pipeline.sink.changelogs import Changelogs, Destinations, names_in
from pipeline.transforms.filter import Ignored, keep
from pipeline.transforms.keys import KEY_BYTES, MaskingKeys
from pipeline.transforms.mask import Masker
from tests.shipped import PAYMENTS, WATCHED
from tests.unit.sink_twin import COLUMNS, TABLE, TABLE_ID, Twin, batch, change, column

OURS = [f.name for f in (*tables.METADATA_FIELDS, *tables.ENRICHMENT_FIELDS)]


def arrived(*more: Column, **values: Any) -> dict[str, Any]:
    """The row that the table has of a change with these columns."""
    twin = Twin()
    columns = (*COLUMNS, *more)
    sent = change("p1", columns, **values)
    sent.enriched = {tables.CUSTOMER_ID: "ours", tables.PAYMENT_STATE: "initiated"}
    twin.shard().append(None, batch(sent), columns)
    [row] = twin.tables[TABLE_ID].rows
    return dict(row)


@pytest.mark.parametrize("name", ["customer_id", "payment_state", "acting_user", "transition_expected"])
@pytest.mark.parametrize("spelt", [str.lower, str.upper, str.title])
def test_a_source_column_with_a_name_of_ours_arrives_under_another(name: str, spelt: Any) -> None:
    row = arrived(Column(spelt(name), "STRING", False), **{spelt(name): "theirs"})
    assert row[f"source_{spelt(name)}"] == "theirs"
    assert row[tables.CUSTOMER_ID] == "ours"
    assert row[tables.PAYMENT_STATE] == "initiated"


@pytest.mark.parametrize("name", ["customer_id", "source_customer_id", "SOURCE_SOURCE_payment_state"])
def test_two_source_columns_keep_two_names_whatever_they_are_called(name: str) -> None:
    row = arrived(
        Column(name, "STRING", False), Column("customer_ID", "STRING", False), **{name: "a", "customer_ID": "b"}
    )
    theirs = [value for column, value in row.items() if column.casefold().startswith("source_")]
    assert sorted(theirs) == ["a", "b"]


def test_columns_that_differ_in_case_alone_both_arrive() -> None:
    row = arrived(Column("Note", "STRING", False), Column("NOTE", "STRING", False), Note="a", NOTE="b")
    assert (row["Note"], row["source_NOTE"]) == ("a", "b")


def test_a_column_that_is_called_as_a_token_would_be_arrives_beside_the_token() -> None:
    for name in ("CardNumber_token", "cardnumber_TOKEN", "CardholderName_token"):
        columns = (Column("CardNumber", "STRING", False), Column(name, "STRING", False))
        made = rows.fields(columns, PAYMENTS)
        names = [f.name.casefold() for f in made]
        assert len(set(names)) == len(names)
        theirs = next(f for f in made if f.name == f"source_{name}")
        assert theirs.source == tables.masked_name(PAYMENTS, name) == f"source_{name}"


def test_the_value_and_the_token_both_arrive_where_a_column_is_called_as_the_token_would_be() -> None:
    columns = (
        *COLUMNS,
        Column("CardNumber", "STRING", False),
        Column("CardNumber_token", "STRING", False),
        Column("source_CardNumber_token", "STRING", False),
    )
    sent = change("p1", columns, CardNumber="4111111111111111", CardNumber_token="a", source_CardNumber_token="b")
    Masker(MaskingKeys({"v1": bytes(KEY_BYTES)}), WATCHED, new_columns="scan").mask(sent)
    twin = Twin()
    twin.shard().append(None, batch(sent), columns)
    [row] = twin.tables[TABLE_ID].rows
    assert row["CardNumber"] == "411111******1111"
    assert row["CardNumber_token"].startswith("v1:")
    assert (row["source_CardNumber_token"], row["source_source_CardNumber_token"]) == ("a", "b")


def test_an_ignored_column_that_is_called_as_a_token_is_left_out_with_its_value() -> None:
    sent = change("p1", CardNumber_token="a")
    sent.new[tables.masked_name(PAYMENTS, "CardNumber_token")] = sent.new.pop("CardNumber_token")
    assert keep(sent, Ignored.parse("CardNumber_token"))
    assert sent.new == {"Status": "INITIATED"}


@pytest.mark.parametrize("name", ["cardholdername", "CARDHOLDERNAME"])
def test_a_policy_counts_whatever_the_case_from_masking_to_the_table(name: str) -> None:
    columns = (*COLUMNS, Column(name, "STRING", False), Column("cvv", "STRING", False))
    values: dict[str, Any] = {name: "JANE DOE", "cvv": "123"}
    sent = change("p1", columns, **values)
    Masker(MaskingKeys({"v1": bytes(KEY_BYTES)}), WATCHED, new_columns="scan").mask(sent)
    twin = Twin()
    twin.shard().append(None, batch(sent), columns)
    [row] = twin.tables[TABLE_ID].rows
    assert row[f"{name}_token"].startswith("v1:")
    assert not {"JANE DOE", "123"} & set(map(str, row.values()))


@pytest.mark.parametrize(
    "name",
    [
        *("_TABLE_x", "_file_x", "_PARTITIONTIME", "_ROW_TIMESTAMP", "__root__x", "_colidentifier", "9lives"),
        *("_metadata_x", "__stream", "Gebühr", "a b", "x" * 400),
    ],
)
def test_a_name_that_bigquery_does_not_take_is_carried_under_one_that_it_takes(name: str) -> None:
    carried = tables.column_name(PAYMENTS, name)
    assert carried.isascii() and carried.replace("_", "a").isalnum() and len(carried) <= 300
    assert not carried.casefold().startswith(("_table_", "_file_", "_partition", "_row_timestamp", "__root__"))
    assert not carried[0].isdigit()
    assert tables.column_name(PAYMENTS, carried) != carried or carried[0] != "_"
    [value] = [v for v in arrived(Column(name, "STRING", False), **{name: "theirs"}).values() if v == "theirs"]
    assert value == "theirs"


def test_no_two_names_are_carried_under_one() -> None:
    names = [*OURS, *(f"source_{n}" for n in OURS), *(f"source_source_{n}" for n in OURS), "CardNumber_token"]
    names += ["source_CardNumber_token", "a b", "a_b", "a-b", "x" * 399, "x" * 400, "_TABLE_", "source__TABLE_"]
    carried = [tables.column_name(PAYMENTS, n).casefold() for n in names]
    assert len(set(carried)) == len(names)
    assert not set(carried) & {n.casefold() for n in OURS}


def test_an_ordinary_name_stays_as_it_is() -> None:
    for name in ("PUID", "CVV_token", "source", "source_system", "created_at_json", "_x"):
        assert tables.column_name(PAYMENTS, name) == tables.masked_name(PAYMENTS, name) == name


def test_policies_are_found_whatever_the_case() -> None:
    assert tables.fields_of(PAYMENTS, "CARDEXPIRY", "STRING") == ()
    assert [f.name for f in tables.fields_of(PAYMENTS, "CARDNUMBER", "STRING")] == ["CARDNUMBER", "CARDNUMBER_token"]


def test_the_created_table_has_the_names_that_rows_are_sent_under() -> None:
    columns = (Column("customer_id", "STRING", True), Column("x", "STRING", False), Column("X", "INT64", False))
    made = tables.changelog_table(PAYMENTS, {c.name: c.type for c in columns})
    assert [f.name for f in made.fields] == [f.name for f in rows.fields(columns, PAYMENTS)]


# ---------------------------------------------------------------------- two types of one name


def known(*columns: Any) -> dict[str, Any]:
    return {c.name.casefold(): c for c in columns}


def test_a_changed_type_does_not_take_the_name_of_a_real_column() -> None:
    table = known(column("X"))
    fields = [tables.Field("X", "JSON"), tables.Field("X_json", "STRING")]
    assert names_in(table, fields) == {"X": "X_json_2", "X_json": "X_json"}
    assert names_in(table, fields[::-1]) == {"X": "X_json_2", "X_json": "X_json"}


def test_a_changed_type_does_not_take_a_real_column_of_that_type() -> None:
    table = known(column("X"), column("X_json", "JSON"))
    fields = [tables.Field("X", "JSON"), tables.Field("X_json", "JSON")]
    assert names_in(table, fields) == {"X": "X_json_2", "X_json": "X_json"}


def test_a_column_that_was_made_for_a_changed_type_stays_with_it_when_a_real_one_of_its_name_comes() -> None:
    twin = Twin()
    shard = twin.shard()
    text, json = (*COLUMNS, Column("X", "STRING", False)), (*COLUMNS, Column("X", "JSON", False))
    both = (*json, Column("X_json", "JSON", False))
    position, _ = shard.append(None, batch(change("p1", text, X="t")), text)
    position, _ = shard.append(position, batch(change("p2", json, X='{"a":1}')), json)
    position, _ = shard.append(position, batch(change("p3", both, X='{"a":2}', X_json='{"b":1}')), both)
    fresh = twin.shard("1")
    fresh.append(None, batch(change("p4", json, X='{"a":3}')), json)
    assert twin.values("X") == {"p1": "t", "p2": None, "p3": None, "p4": None}
    assert twin.values("X_json") == {"p1": None, "p2": '{"a":1}', "p3": '{"a":2}', "p4": '{"a":3}'}
    assert twin.values("X_json_json") == {"p1": None, "p2": None, "p3": '{"b":1}', "p4": None}


def test_a_column_that_becomes_an_array_gets_a_column_of_its_own() -> None:
    table = known(column("X", "STRING"), column("X_int64", "INTEGER"))
    assert names_in(table, [tables.Field("X", "INT64", "REPEATED")]) == {"X": "X_int64_2"}
    assert names_in(table, [tables.Field("X", "INT64")]) == {"X": "X_int64"}


def test_the_tables_own_spelling_is_used() -> None:
    assert names_in(known(column("Status")), [tables.Field("STATUS", "STRING")]) == {"STATUS": "Status"}


def test_a_table_whose_key_cannot_cluster_is_made_all_the_same() -> None:
    made: list[Any] = []
    twin = Twin()
    create = twin.create_table

    def noted(table: Any, exists_ok: bool) -> Any:
        made.append(table)
        return create(table, exists_ok)

    twin.create_table = noted  # type: ignore[method-assign]
    columns = (Column("Id", "BYTES", True), Column("customer_id", "STRING", True), Column("F", "FLOAT64", True))
    twin.clients().changelogs.conform("refunds", columns, rows.fields(columns, PAYMENTS))
    assert made[0].clustering_fields == ["source_customer_id"]
    assert TABLE != "refunds"


def test_a_table_that_the_job_makes_is_laid_out_as_described() -> None:
    made: list[Any] = []
    twin = Twin()

    def noted(table: Any, exists_ok: bool) -> Any:
        made.append(table)
        return table

    twin.create_table = noted  # type: ignore[method-assign]
    other = WatchedTables.load(Path(__file__).parents[1] / "examples" / "transfers" / "tables.toml")
    columns = (Column("transfer_no", "INT64", True), Column("branch", "STRING", False))
    destinations = Destinations(project="p", watched=other, dataset="bank_audit")
    Changelogs(twin, destinations).conform("transfers", columns, rows.fields(columns, other.payments))
    assert (made[0].dataset_id, made[0].table_id) == ("bank_audit", "transfers_log")
    assert (made[0].time_partitioning.type_, made[0].clustering_fields) == ("MONTH", ["transfer_no", "branch"])
