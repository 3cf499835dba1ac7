"""A database of the PostgreSQL dialect, read by the same code as one of GoogleSQL."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from google.api_core.exceptions import NotFound
from google.cloud.spanner_admin_database_v1.types import DatabaseDialect
from google.cloud.spanner_v1 import COMMIT_TIMESTAMP, JsonObject, KeySet

from contract import attached, dialects, payments, schema, timestamps
from contract.changes import Column
from contract.watched import SHIPPED, WatchedTables
from local.emulators.launch import INSTANCE
from local.traffic import shape
from pipeline.clients import spanner_channel
from pipeline.replay.records import Selection
from pipeline.source.completion import SpannerRows
from pipeline.source.dialect import dialect_of
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.table_rows import ALL, TableAt, Where, watched_columns
from pipeline.transforms.decode import decode
from support import stuck
from tests.emulators.reading import read

POSTGRESQL = schema.SQL / "postgresql" / "changelog.yaml"
WATCHED = WatchedTables.load(SHIPPED, dialects.POSTGRESQL)
STREAM = "PaymentAuditTrailChangeStream"
# Column → PostgreSQL's type, Spanner's, a value as it is written, and as it is read.
TYPES: dict[str, tuple[str, str, Any, Any]] = {
    "Vc": ("character varying(36)", "STRING", "x", "x"),
    "tx": ("text", "STRING", "ä", "ä"),
    "Num": ("numeric", "PG_NUMERIC", "NaN", "NaN"),
    "large": ("numeric", "PG_NUMERIC", f"{'1' * 50}.{'3' * 20}", f"{'1' * 50}.{'3' * 20}"),
    "jb": ("jsonb", "PG_JSONB", JsonObject.from_str('{"b": [1]}'), '{"b": [1]}'),
    "ts": ("timestamp with time zone", "TIMESTAMP", "2026-11-23T09:00:00Z", "2026-11-23T09:00:00Z"),
    "by": ("bytea", "BYTES", b"aGVsbG8=", "aGVsbG8="),
    "d": ("date", "DATE", "2026-11-23", "2026-11-23"),
    "f4": ("real", "FLOAT32", 0.5, 0.5),
    "f8": ("double precision", "FLOAT64", 0.1, 0.1),
    "bo": ("boolean", "BOOL", True, True),
    "bi": ("bigint", "INT64", 2**63 - 1, str(2**63 - 1)),
    "an": ("numeric[]", "ARRAY<PG_NUMERIC>", ["1.5", "NaN"], ["1.5", "NaN"]),
    "aj": ("jsonb[]", "ARRAY<PG_JSONB>", [JsonObject.from_str('{"a": 1}')], ['{"a": 1}']),
    "ai": ("bigint[]", "ARRAY<INT64>", [1, 2], ["1", "2"]),
    "av": ("character varying(20)[]", "ARRAY<STRING>", ["x"], ["x"]),
    "at": ("timestamp with time zone[]", "ARRAY<TIMESTAMP>", ["2026-11-23T09:00:00Z"], ["2026-11-23T09:00:00Z"]),
    "ab": ("boolean[]", "ARRAY<BOOL>", [], []),
}
_COLUMNS = ", ".join(f'"{name}" {kind}' for name, (kind, *_) in TYPES.items())
EVERY_TYPE = [
    f'CREATE TABLE every_type ("Id" bigint NOT NULL, {_COLUMNS}, PRIMARY KEY ("Id"))',
    "CREATE CHANGE STREAM \"Types\" FOR every_type WITH (value_capture_type = 'NEW_ROW_AND_OLD_VALUES')",
]


@pytest.fixture(scope="module")
def database(spanner_client: Any) -> Iterator[Any]:
    """The shipped tables in PostgreSQL, made by their changelog, and a table of every type."""
    made = spanner_client.instance(INSTANCE).database(
        f"pg-{uuid.uuid4().hex[:8]}", database_dialect=DatabaseDialect.POSTGRESQL
    )
    made.create().result(60)
    made.update_ddl([*schema.statements(POSTGRESQL), *EVERY_TYPE]).result(60)
    yield made
    made.drop()


def insert(database: Any, table: str, *rows: dict[str, Any]) -> Any:
    with database.batch() as batch:
        for row in rows:
            batch.insert(table, tuple(row), [tuple(row.values())])
    return batch.committed


def payment(puid: str, status: str | None, changed: Any = COMMIT_TIMESTAMP, **more: Any) -> dict[str, Any]:
    row = {"PUID": puid, "Action": "CREATE", "Timestamp": "2026-11-23T09:00:00Z", "Status": status}
    return row | {"UpdatedAt": changed} | more


def stream_of(database: Any, endpoint: str, name: str) -> ChangeStream:
    return ChangeStream(name=name, database=database.name, endpoint=endpoint, heartbeat_millis=300)


def test_the_shipped_changelogs_make_the_same_tables_streams_indexes_roles_and_privileges() -> None:
    google, postgresql = (
        _catalog(schema.statements(changelog, contexts=frozenset({"cloud"})))
        for changelog in (schema.AUDIT_DB, POSTGRESQL)
    )
    own = {"NUMERIC": "PG_NUMERIC", "JSON": "PG_JSONB"}
    assert {
        table.name: (table.primary_key, [(c.name, own.get(c.type, c.type), c.not_null) for c in table.columns])
        for table in google.tables().values()
    } == {
        table.name: (table.primary_key, [(c.name, c.type, c.not_null) for c in table.columns])
        for table in postgresql.tables().values()
    }
    assert google.streams() == postgresql.streams()
    assert google.indexes == postgresql.indexes
    assert (google.roles, google.privileges) == (postgresql.roles, postgresql.privileges)
    for one, other in zip(schema.changesets(), schema.changesets(POSTGRESQL), strict=True):
        assert (one.id, one.context) == (other.id, other.context)


def _catalog(statements: list[str]) -> schema.Catalog:
    made = schema.Catalog(dialects.of_ddl("\n".join(statements)))
    for statement in statements:
        made.run(statement)
    return made


def test_what_spanner_prints_of_a_database_means_to_us_what_it_made(database: Any) -> None:
    api = database._instance._client.database_admin_api
    there = schema.read(api.get_database_ddl(database=database.name).statements)
    tables = there.tables()
    assert {c.name: c.type for c in tables["payment_audit_trail"].columns} == {
        c.name: c.type for c in schema.tables(POSTGRESQL)["payment_audit_trail"].columns
    }
    assert tables["payment_audit_trail"].primary_key == ("PUID",)
    assert there.streams()[STREAM].options == schema.catalog(POSTGRESQL).streams()[STREAM].options
    assert there.indexes == schema.catalog(POSTGRESQL).indexes
    assert {c.name: re.sub(r"\(\w+\)", "", c.type) for c in tables["every_type"].columns} == {
        "Id": "INT64",
        **{name: kind for name, (_, kind, *_) in TYPES.items()},
    }
    # All that the audit needs is there.
    found, different = attached.compare(WATCHED, there, roles=False)
    assert {each.state for each in found} == {"there"} and not different


def test_every_type_comes_by_the_stream_and_by_a_read_of_the_row(database: Any, spanner_emulator: str) -> None:
    since = timestamps.from_datetime(datetime.now(UTC))
    moment = insert(database, "every_type", {"Id": 1} | {name: value for name, (_, _, value, _) in TYPES.items()})
    [record] = read(stream_of(database, spanner_emulator, "Types"), since, 1)
    change = decode(record, 0)
    expected = {name: value for name, (*_, value) in TYPES.items()}
    columns = {Column("Id", "INT64", True), *(Column(name, kind, False) for name, (_, kind, *_) in TYPES.items())}
    assert (change.table, change.mod_type, change.keys, change.new) == ("every_type", "INSERT", {"Id": "1"}, expected)
    assert set(change.columns) == columns
    at = TableAt(database, "every_type", moment, Where())
    assert set(at.columns) == columns
    assert list(at.rows(ALL)) == [{"Id": "1", **expected}]
    # What completes the changes of the other capture types reads the same.
    rows = SpannerRows(stream_of(database, spanner_emulator, "Types"))
    committed = timestamps.normalise(moment.rfc3339())
    found = rows.columns("Types", "every_type", committed)
    assert set(found) == columns
    assert list(rows.keyed("every_type", found, committed, [["1"]])) == [{"Id": "1", **expected}]


def test_changes_come_in_order_with_their_old_values(database: Any, spanner_emulator: str) -> None:
    since = timestamps.from_datetime(datetime.now(UTC))
    insert(database, "payment_audit_trail", payment("order", "INITIATED", Amount=Decimal("1.10")))
    with database.batch() as batch:
        batch.update("payment_audit_trail", ("PUID", "Status"), [("order", "CAPTURED")])
    changes = [decode(record, 0) for record in read(stream_of(database, spanner_emulator, STREAM), since, 2)]
    assert [(c.mod_type, c.new["Status"], c.new["Amount"], c.old.get("Status")) for c in changes] == [
        ("INSERT", "INITIATED", "1.10", None),
        ("UPDATE", "CAPTURED", "1.10", "INITIATED"),
    ]


def test_a_table_is_cut_into_ranges_that_have_each_row_once(database: Any) -> None:
    puids = [f"cut-{n:02}" for n in range(25)]
    moment = insert(database, "payment_audit_trail", *(payment(puid, "CUT") for puid in puids))
    where = Selection(status="CUT").where(WATCHED.payments, payments.PAYMENT_STATES)
    table = TableAt(database, "payment_audit_trail", moment, where)
    ranges = list(table.cut(10))
    assert [each.total for each in ranges] == [10, 10, 5] and table.count() == 25
    assert [row["PUID"] for each in ranges for row in sorted(table.rows(each), key=lambda r: str(r["PUID"]))] == puids
    named = Selection(payments=("cut-03", "cut-07", "none"), since="2026-01-01T00:00:00Z")
    chosen = TableAt(database, "payment_audit_trail", moment, named.where(WATCHED.payments, payments.PAYMENT_STATES))
    assert {row["PUID"] for row in chosen.rows(ALL)} == {"cut-03", "cut-07"}
    boosted = TableAt(database, "payment_audit_trail", moment, where, data_boost=True)
    assert sorted(str(row["PUID"]) for row in boosted.rows(ranges[0])) == puids[:10]
    assert [json.loads(str(each.last)) for each in ranges[:2]] == [["cut-09"], ["cut-19"]]


def test_stuck_payments_are_sought_in_every_shard(database: Any) -> None:
    with database.batch() as batch:
        # The payments of earlier tests are stuck as well after a minute.
        batch.delete("payment_audit_trail", KeySet(all_=True))
    now = datetime.now(UTC)
    old = now - timedelta(hours=1)
    puids = [f"stuck-{n}" for n in range(20)]
    insert(
        database,
        "payment_audit_trail",
        *(payment(puid, "PENDING", old) for puid in puids),
        payment("fresh", "PENDING", now),
        payment("odd", "NOBODY MAPPED THIS", old),
    )
    limits, ends, deadline = {"PENDING": 60, payments.ANY: 120}, frozenset({"CAPTURED"}), time.monotonic() + 30
    # It reads what was a second ago.
    found = None
    while not (found and found.payments):
        assert time.monotonic() < deadline
        with suppress(NotFound):  # the table itself may be younger
            found = stuck.seek(database, WATCHED.payments, limits, ends, now)
    assert {each.puid for each in found.payments} == {*puids, "odd"}
    assert found.counts == {"PENDING": 20, "NOBODY MAPPED THIS": 1}


def test_a_stream_says_what_it_watches_and_the_traffic_what_it_can_write(database: Any) -> None:
    database.update_ddl(
        ['CREATE CHANGE STREAM "Some" FOR payment_audit_trail ("Status") WITH (value_capture_type = \'NEW_VALUES\')']
    ).result(60)
    # A commit's moment, as the job has it: Spanner's clock may be ahead of the one here.
    moment = insert(database, "payment_audit_trail", payment("a", "INITIATED"))
    assert watched_columns(database, "Some", "payment_audit_trail", moment) == {"Status"}
    assert watched_columns(database, STREAM, "payment_audit_trail", moment) == frozenset()
    columns = {column.name: column for column in shape.columns_of(database, WATCHED)["payment_audit_trail"]}
    assert (columns["UpdatedAt"].stamped, columns["CreatedAt"].stamped) == (True, False)
    assert (columns["PUID"].type, columns["PUID"].required) == ("STRING(36)", True)
    assert "StatusShard" not in columns


def test_the_dialect_is_asked_once_and_is_the_database_s_own(database: Any, spanner_emulator: str) -> None:
    assert dialect_of(database) is dialects.named(dialects.POSTGRESQL)
    query = ChangeStreamQuery(stream_of(database, spanner_emulator, STREAM), spanner_channel(spanner_emulator))
    assert query.roots(timestamps.now())
