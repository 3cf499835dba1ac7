"""The same history in every value capture type gives the same rows where it can, and the documented ones where not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.cloud import spanner

from contract.changes import CAPTURE_TYPES, Change
from contract.watched import WatchedTables
from support.connection import Connection
from support.validation.source import Source
from tests.conftest import AuditDatabase
from tests.shipped import WATCHED

TABLES = {f"t{number}": capture for number, capture in enumerate(CAPTURE_TYPES)}
_COLUMNS = "Id STRING(36) NOT NULL, Status STRING(20), Amount NUMERIC, Tags ARRAY<STRING(MAX)>, Noted TIMESTAMP"


@pytest.fixture
def source(audit_database: AuditDatabase, both_stores: Connection) -> Iterator[Source]:
    audit_database.database.update_ddl(
        [
            statement
            for table, capture in TABLES.items()
            for statement in (
                f"CREATE TABLE {table} ({_COLUMNS}) PRIMARY KEY (Id)",
                f"CREATE CHANGE STREAM S{table} FOR {table} OPTIONS (value_capture_type = '{capture}')",
            )
        ]
    ).result(60)
    yield Source(replace(both_stores, watched_tables=WatchedTables(tables=WATCHED.tables).to_json()))


def history(database: Any, table: str) -> None:
    """Three inserts, updates of one and of several rows in a transaction, and a delete."""
    names = ("Id", "Status", "Amount", "Tags")
    with database.batch() as batch:
        batch.insert(table, names, [[key, "INITIATED", "1.10", ["x"]] for key in ("a", "b", "c")])
    with database.batch() as batch:
        batch.update(table, ("Id", "Status"), [["a", "CAPTURED"]])
    with database.batch() as batch:
        batch.update(table, ("Id", "Amount"), [["a", "2.5"], ["b", None]])
        batch.update(table, ("Id", "Status"), [["b", "FAILED"]])
    with database.batch() as batch:
        batch.delete(table, spanner.KeySet(keys=[["c"]]))
    with database.batch() as batch:
        batch.update(table, ("Id", "Status", "Amount"), [["a", "REFUNDED", "3"]])


def test_every_capture_type_gives_the_same_rows_and_old_values_where_it_has_them(
    source: Source, audit_database: AuditDatabase
) -> None:
    began = next_second()
    for table in TABLES:
        history(audit_database.database, table)
    until = next_second()
    found = {capture: changes(source, f"S{table}", began, until) for table, capture in TABLES.items()}
    whole = found["NEW_ROW_AND_OLD_VALUES"]
    assert [c.mod_type for c in whole] == ["INSERT"] * 3 + ["UPDATE"] * 3 + ["DELETE", "UPDATE"]
    assert whole[-1].new == {"Status": "REFUNDED", "Amount": "3", "Tags": ["x"], "Noted": None}
    for capture, these in found.items():
        assert [(c.mod_type, c.keys, c.new) for c in these] == [(c.mod_type, c.keys, c.new) for c in whole], capture
        assert not any(c.is_incomplete for c in these)
        assert {c.value_capture_type for c in these} == {capture}
        assert {frozenset(c.columns) for c in these if c.mod_type == "UPDATE"} == {frozenset(whole[0].columns)}, capture
    assert [c.old for c in found["OLD_AND_NEW_VALUES"]] == [c.old for c in whole]
    for capture in ("NEW_ROW", "NEW_VALUES"):
        assert {repr(c.old) for c in found[capture]} == {"{}"}


def next_second() -> datetime:
    """Waits for the next whole second, as validation's windows are of."""
    second = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    time.sleep((second - datetime.now(UTC)).total_seconds() + 0.05)
    return second


def changes(source: Source, stream: str, since: datetime, until: datetime) -> list[Change]:
    found = list(source.changes(stream, since, until))
    return sorted(found, key=lambda c: (c.commit_timestamp, sorted(c.keys.items())))


def test_the_values_are_those_of_the_commit_and_not_of_now(source: Source, audit_database: AuditDatabase) -> None:
    [table] = [table for table, capture in TABLES.items() if capture == "NEW_VALUES"]
    began = next_second()
    history(audit_database.database, table)
    audit_database.database.run_in_transaction(lambda t: t.execute_update(f"DELETE FROM {table} WHERE TRUE"))
    until = next_second()
    updates = [c for c in changes(source, f"S{table}", began, until) if c.mod_type == "UPDATE"]
    assert [(c.keys["Id"], c.new["Status"], c.new["Amount"]) for c in updates] == [
        ("a", "CAPTURED", "1.1"), ("a", "CAPTURED", "2.5"), ("b", "FAILED", None), ("a", "REFUNDED", "3"),
    ]  # fmt: skip
    assert all(c.new["Tags"] == ["x"] and not c.is_incomplete for c in updates)
