"""Tables of a named schema in Spanner itself, in both dialects: what asks the source by a table's name gets that table.

One of them has a reserved word for its name, and so has a table of the default schema.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import InvalidArgument, NotFound
from google.cloud.spanner_admin_database_v1.types import DatabaseDialect
from google.cloud.spanner_v1 import COMMIT_TIMESTAMP

from contract import attached, payments, schema, timestamps
from contract.changes import Column
from contract.watched import WatchedTables
from local.emulators.launch import INSTANCE
from local.traffic import shape
from pipeline.source.completion import SpannerRows
from pipeline.source.dialect import dialect_of
from pipeline.source.query import ChangeStream
from pipeline.source.table_rows import ALL, TableAt, Where, watched_columns
from pipeline.transforms.decode import decode
from support import stuck
from tests.emulators.reading import read

SHOP = Path(__file__).parents[1] / "examples" / "shop" / "tables.toml"


@dataclass(frozen=True, kw_only=True)
class Shop:
    """The tables in a database of a dialect, with what its owners ran: they made no index and no change stream."""

    database: Any
    watched: WatchedTables
    stream: ChangeStream

    def put(self, table: str, **row: Any) -> Any:
        with self.database.batch() as batch:
            batch.insert_or_update(table, tuple(row), [tuple(row.values())])
        return batch.committed


@pytest.fixture(scope="module", params=["GOOGLE_STANDARD_SQL", "POSTGRESQL"])
def shop(request: pytest.FixtureRequest, spanner_client: Any, spanner_emulator: str) -> Iterator[Shop]:
    watched = WatchedTables.load(SHOP, request.param)
    made = spanner_client.instance(INSTANCE).database(
        f"shop-{uuid.uuid4().hex[:8]}", database_dialect=DatabaseDialect[request.param]
    )
    made.create().result(60)
    theirs = schema.statements(watched.source_changelog)
    made.update_ddl([each for each in theirs if each.startswith(("CREATE SCHEMA", "CREATE TABLE"))]).result(60)
    # The emulator has no database roles.
    made.update_ddl([need.statement for need in attached.needs(watched, roles=False)]).result(60)
    stream = ChangeStream(name="shop_changes", database=made.name, endpoint=spanner_emulator, heartbeat_millis=300)
    yield Shop(database=made, watched=watched, stream=stream)
    made.drop()


def test_what_spanner_prints_has_all_that_its_owners_were_to_run(shop: Shop) -> None:
    api = shop.database._instance._client.database_admin_api
    there = schema.read(api.get_database_ddl(database=shop.database.name).statements)
    found, different = attached.compare(shop.watched, there, roles=False)
    assert [each.state for each in found] == ["there", "there"] and not different
    assert there.indexes == schema.catalog(shop.watched.source_changelog).indexes


def test_the_columns_of_two_tables_of_one_name_are_kept_apart(shop: Shop) -> None:
    dialect = dialect_of(shop.database)
    with shop.database.snapshot() as snapshot:
        found = dialect.by_table(snapshot.execute_sql(dialect.columns(table.name for table in shop.watched.tables)))
    described = {table.name: set(table.columns) for table in shop.watched.tables}
    assert {table: set(columns) for table, columns in found.items()} == described
    writable = shape.columns_of(shop.database, shop.watched)
    assert {table: {column.name for column in columns} for table, columns in writable.items()} == described
    assert {column.name for column in writable["sales.payments"] if column.stamped} == {"touched"}
    assert watched_columns(shop.database, "shop_changes", "sales.order", datetime.now(UTC)) == frozenset()


def test_rows_of_two_tables_of_one_name_come_by_the_stream_and_by_reads_of_each(shop: Shop) -> None:
    since = timestamps.from_datetime(datetime.now(UTC))
    shop.put("order", order_no="o1", paid_with="x")
    moment = shop.put("sales.order", payment_no="p1", action="SHIP", came_at="2026-11-23T09:00:00Z", paid_with="y")
    came = [decode(record, 0) for record in read(shop.stream, since, 2)]
    assert [(each.table, each.keys) for each in came] == [
        ("order", {"order_no": "o1"}),
        ("sales.order", {"payment_no": "p1"}),
    ]
    there = TableAt(shop.database, "sales.order", moment, Where(sql="`payment_no` = 'p1'"))
    assert there.keys == (Column("payment_no", "STRING", True),) and there.count() == 1
    [row] = there.rows(ALL)
    assert row == came[1].new | came[1].keys
    assert list(TableAt(shop.database, "order", moment, Where()).rows(ALL)) == [{"order_no": "o1", "paid_with": "x"}]
    assert [each.total for each in there.cut(10)] == [1]
    # What completes a change that its stream has in part.
    committed = timestamps.normalise(moment.rfc3339())
    rows = SpannerRows(shop.stream)
    columns = rows.columns("shop_changes", "sales.order", committed)
    assert {column.name for column in columns} == set(shop.watched.of("sales.order").columns)
    assert list(rows.keyed("sales.order", columns, committed, [["p1"]])) == [row]


def test_stuck_payments_are_sought_in_the_index_of_their_schema(shop: Shop) -> None:
    now = datetime.now(UTC)
    limits, ends, deadline = {"PENDING": 60, payments.ANY: 120}, frozenset({"CAPTURED"}), time.monotonic() + 30
    shop.put("sales.payments", payment_no="stuck", stage="PENDING", touched=now - timedelta(hours=1))
    shop.put("sales.payments", payment_no="fresh", stage="PENDING", touched=COMMIT_TIMESTAMP)
    found = None
    # It reads what was a second ago.
    while not (found and found.payments):
        assert time.monotonic() < deadline
        with suppress(NotFound, InvalidArgument):  # the table itself may be younger
            found = stuck.seek(shop.database, shop.watched.payments, limits, ends, now)
    assert [each.puid for each in found.payments] == ["stuck"]
