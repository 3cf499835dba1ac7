"""What a search asks, before anything is asked: of payments with whole numbers as ids, and of ones without a card."""

from __future__ import annotations

from dataclasses import replace

from contract.watched import WatchedTables
from support import search
from support.connection import Connection
from support.lookup import _seen
from support.warehouse import Warehouse
from tests.shipped import WATCHED


def warehouse(watched: WatchedTables) -> Warehouse:
    names = "project location big_query_endpoint spanner_endpoint spanner_instance spanner_database metadata_database"
    texts = dict.fromkeys(f"{names} masking_keys dead_letter_directory job_name".split(), "x")
    return Warehouse(Connection(**texts, watched_tables=watched.to_json()))


def test_where_no_payment_was_found_none_is_read_and_no_array_without_a_type_is_sent() -> None:
    reader = warehouse(WATCHED)
    assert search._of_ids(reader, []) == ("`x.payment_views.payment_latest` WHERE FALSE", {})
    source, parameters = search._of_ids(reader, [7])
    assert source.endswith("WHERE `PUID` IN UNNEST(@ids)") and parameters == {"ids": [7]}


def test_payments_without_a_card_column_are_not_found_by_its_last_four_digits() -> None:
    without = {name: column for name, column in WATCHED.payments.columns.items() if column.policy != "card"}
    tables = tuple(replace(t, columns=without) if t is WATCHED.payments else t for t in WATCHED.tables)
    assert _seen(warehouse(replace(WATCHED, tables=tables)), "last_four") == "FALSE"
    assert "RIGHT(`CardNumber`, 4)" in _seen(warehouse(WATCHED), "last_four")
