"""A row of every type has the same digest on both sides, and any other row another one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from google.api_core.datetime_helpers import DatetimeWithNanoseconds

from contract.changes import Change
from contract.watched import WatchedColumn, WatchedTable, WatchedTables
from pipeline import clients
from pipeline.sink import rows
from pipeline.sink.changelogs import Changelogs, Destinations
from pipeline.sink.connection import AppendConnection
from pipeline.transforms.filter import Ignored
from support.bigquery_rest import QueryApi
from support.connection import Connection
from support.validation.comparable import Comparable, digest
from support.validation.source import Masking, Part, Source, as_change
from tests.conftest import AuditDatabase, Warehouse
from tests.shipped import WATCHED

SCALARS = ("STRING", "INT64", "FLOAT64", "FLOAT32", "NUMERIC", "BOOL", "DATE", "TIMESTAMP", "BYTES", "JSON")
TABLE = WatchedTable(
    name="every_type",
    change_stream="S",
    dataset="every_type",
    table="every_type",
    columns={
        "Id": WatchedColumn(policy="identifier", type="INT64"),
        **{f"A{kind}": WatchedColumn(policy="scan", type=kind) for kind in SCALARS},
        **{f"Many{kind}": WatchedColumn(policy="scan", type=f"ARRAY<{kind}>") for kind in SCALARS},
    },
)
EVERY = WatchedTables(tables=(*WATCHED.tables, TABLE))
LENGTHS = {"STRING": "STRING(MAX)", "BYTES": "BYTES(MAX)"}
DDL = (
    "CREATE TABLE every_type (Id INT64 NOT NULL, "
    + ", ".join(f"A{kind} {LENGTHS.get(kind, kind)}, Many{kind} ARRAY<{LENGTHS.get(kind, kind)}>" for kind in SCALARS)
    + ") PRIMARY KEY (Id)"
)
BIG = '{"b": 1.10, "a": [18446744073709551615, -9223372036854775808, 1e3, 1000, 0.1, {"z": null, "y": true}]}'
# Pairs of a type, each different from the other.
VALUES: dict[str, tuple[Any, ...]] = {
    "STRING": ("", "ä'\n\U0001f600", "NULL", "None"),
    "INT64": (0, 2**63 - 1, -(2**63)),
    "FLOAT64": (0.1, 1e300, -2.5, 5e-324, float("inf"), float("-inf"), 3.0),
    "FLOAT32": (0.1, 1.5, float("inf")),
    "NUMERIC": (Decimal("0"), Decimal("1.10"), Decimal("-12345678901234567890123456789.123456789")),
    "BOOL": (True, False),
    "DATE": (date(1, 1, 1), date(2026, 11, 23), date(9999, 12, 31)),
    "TIMESTAMP": (
        datetime(2026, 11, 23, 9, 0, 0, 123456, UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, UTC),
        DatetimeWithNanoseconds(2026, 11, 23, 9, 0, 0, nanosecond=123456001, tzinfo=UTC),
        DatetimeWithNanoseconds(2026, 11, 23, 9, 0, 0, nanosecond=123456002, tzinfo=UTC),
    ),
    "BYTES": (b"", b"\x00\xff'"),
    "JSON": (BIG, "[]", "{}", '"text"', "1.5", "12345678901234567", '{"a": 67.174118}'),
}


@pytest.fixture
def source(audit_database: AuditDatabase, both_stores: Connection) -> Iterator[Source]:
    audit_database.database.update_ddl([DDL]).result(60)
    yield Source(replace(both_stores, watched_tables=EVERY.to_json(), new_columns="scan"))


def written(database: AuditDatabase) -> tuple[list[dict[str, Any]], datetime]:
    """A row for each value of each type, one that is NULL, and one of empty arrays; when Spanner had them all."""
    from google.cloud.spanner_v1 import JsonObject

    def made(kind: str, value: Any) -> Any:
        if kind == "BYTES":
            return base64.b64encode(value)
        return JsonObject.from_str(value) if kind == "JSON" else value

    made_rows: list[dict[str, Any]] = [{"Id": 0}, {"Id": 1, **{f"Many{kind}": [] for kind in SCALARS}}]
    for kind, values in VALUES.items():
        for value in values:
            several = [made(kind, value), None, made(kind, values[0])]
            made_rows.append({"Id": len(made_rows), f"A{kind}": made(kind, value), f"Many{kind}": several})
    for row in made_rows:
        with database.database.batch() as batch:
            batch.insert("every_type", tuple(row), [tuple(row.values())])
    return made_rows, batch.committed


def appended(warehouse: Warehouse, changes: list[Change]) -> dict[str, Any]:
    """Writes changes as the sink does; BigQuery's columns by casefolded name."""
    warehouse.client.create_dataset(TABLE.dataset)
    client = clients.bigquery_client(warehouse.rest, warehouse.project)
    batch, failed = rows.encode(changes, TABLE)
    assert not failed
    columns = changes[0].columns
    destinations = Destinations(project=warehouse.project, watched=EVERY, dataset=TABLE.dataset)
    names = Changelogs(client, destinations).conform(TABLE.name, columns, rows.fields(columns, TABLE))
    assert batch
    sent = {n: names.get(n, n) for n in batch.schema.names if n != rows.STREAM}
    batch = rows.for_append(pa.Table.from_batches([batch]), sent, 0)
    stream = f"projects/{warehouse.project}/datasets/{TABLE.dataset}/tables/{TABLE.table}/streams/_default"
    appending = AppendConnection(clients.write_client(warehouse.grpc), stream, batch.schema)
    response = appending.append(batch, None, timeout=60)
    appending.close()
    assert not response.error.code
    return {f.name.casefold(): f for f in client.get_table(f"{warehouse.project}.{TABLE.id}").schema}


def undone(row: dict[str, Any]) -> dict[str, Any]:
    """The emulator writes the elements of an ARRAY of JSON or BYTES twice over into its answer; BigQuery does not."""
    read: dict[str, Callable[[Any], Any]] = {"ManyJSON": json.loads, "ManyBYTES": base64.b64decode}
    return row | {name: [undo(each) for each in row[name]] for name, undo in read.items()}


def test_every_value_of_every_type_is_the_same_on_both_sides(
    source: Source, audit_database: AuditDatabase, warehouse: Warehouse, both_stores: Connection
) -> None:
    # Spanner's time: the emulator's commits can be ahead of this machine's clock.
    made, moment = written(audit_database)
    columns = source.columns(TABLE, moment)
    raw = list(source.part(TABLE, None, Part(), moment))
    assert len(raw) == len(made)
    masking = Masking(replace(both_stores, watched_tables=EVERY.to_json(), new_columns="scan"))
    changes = [as_change(TABLE, columns, row, "2026-11-23T09:00:00.000000000Z") for row in raw]
    for change in changes:
        assert masking.prepare(change)
    known = appended(warehouse, changes)
    form = Comparable(TABLE, columns, known, ignored=Ignored(), hold_new=False, emulated=False)
    api = QueryApi(warehouse.rest, warehouse.project, "US", 60)
    answer = api.answer(f"SELECT * FROM {TABLE.id}", {})
    theirs = {form.key_of_row(row): form.of_row(undone(row)) for row in answer.rows}
    ours = {form.key_of_change(change): form.of_change(change) for change in changes}
    for key, change in zip(ours, changes, strict=True):
        assert form.differing(ours[key], theirs[key], history=True) == (), change.new
    digests = [digest(form.state) for form in theirs.values()]
    assert digests == [digest(ours[key].state) for key in theirs]
    # The key is compared as well. NULL and the empty array differ by the exact values alone.
    assert len(set(digests)) == len(made)
    assert len({digest(form.state[1:]) for form in ours.values()}) == len(made)


def test_json_is_the_same_whatever_its_order_and_form_of_numbers() -> None:
    from support.validation.comparable import _json

    same = ('{"a": 1, "b": [1e3, 0.10]}', '{"b": [1000, 0.1], "a": 1.0}')
    assert len({_json(json.loads(text)) for text in same}) == 1
    others = ('{"a": 1}', '{"a": "1"}', '{"a": true}', '{"a": [1]}', '{"a": null}', "{}", "[]", '"{}"')
    assert len({_json(json.loads(text)) for text in others}) == len(others)
