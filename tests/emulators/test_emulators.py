"""The emulators as the local stack starts them."""

from __future__ import annotations

from typing import Any

from contract import schema, tables


def test_a_fresh_audit_database_has_the_tables_and_streams_of_the_changelog(audit_database: Any) -> None:
    with audit_database.database.snapshot() as snapshot:
        streams = {
            row[0] for row in snapshot.execute_sql("SELECT change_stream_name FROM information_schema.change_streams")
        }
    assert streams == set(schema.change_streams())


def test_a_fresh_warehouse_has_the_tables_of_the_contract(warehouse: Any) -> None:
    made = {
        f"{dataset.dataset_id}.{table.table_id}"
        for dataset in warehouse.client.list_datasets()
        for table in warehouse.client.list_tables(dataset.reference)
    }
    assert made == {table.id for table in tables.all_tables()}
