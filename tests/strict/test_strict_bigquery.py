"""The strict BigQuery does what Google's documentation says, in each of its faults; and the same as the emulator."""

from __future__ import annotations

import itertools
import json
import queue
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.api_core import exceptions
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import types

from contract import timestamps
from contract.changes import Change, Column
from local.emulators.launch import BigQueryEmulator
from pipeline import clients
from pipeline.sink import rows
from pipeline.sink.changelogs import Changelogs, Destinations
from pipeline.sink.shards import Shard, SinkClients
from tests.conftest import Warehouse
from tests.shipped import PAYMENT_DATASET, WATCHED
from tests.strict.bigquery import StrictBigQuery, StrictBigQueryProcess
from tests.strict.generations import InMemoryGenerations

PROJECT = "audit-tests"
TABLE = "d.t"
PARENT = f"projects/{PROJECT}/datasets/d/tables/t"
DEFAULT = f"{PARENT}/streams/_default"
FIELDS = [
    {"name": "id", "type": "STRING"},
    {"name": "n", "type": "INT64"},
    {"name": "doc", "type": "JSON"},
    {"name": "at", "type": "TIMESTAMP"},
]
COMMITTED = types.WriteStream.Type.COMMITTED
Code = types.StorageError.StorageErrorCode
DEFAULT_VALUE = types.AppendRowsRequest.MissingValueInterpretation.DEFAULT_VALUE
RETRY = {"retry": None, "timeout": 20}


class Clock:
    """Seconds that pass only on request."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bq(clock: Clock) -> Iterator[StrictBigQuery]:
    with StrictBigQuery(project=PROJECT, clock=clock) as made:
        made.create_table(TABLE, FIELDS)
        yield made


@pytest.fixture
def write(bq: StrictBigQuery) -> Any:
    return clients.write_client(bq.grpc)


@pytest.fixture
def client(bq: StrictBigQuery) -> Any:
    return clients.bigquery_client(bq.rest, PROJECT)


def stream_of(write: Any, kind: Any = COMMITTED) -> str:
    made: str = write.create_write_stream(parent=PARENT, write_stream=types.WriteStream(type_=kind), **RETRY).name
    return made


def batch(*ids: str, **columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": pa.array(ids, pa.string()), **columns})


@dataclass
class Outcome:
    """What an append came to: the offset, or the code, how it came, and the StorageError."""

    code: int = 0
    offset: int | None = None
    ended: bool = False
    storage: int = 0
    rows: list[int] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.code, self.ended, self.storage))


class Call:
    """One AppendRows call, a request at a time."""

    def __init__(self, write: Any, stream: str) -> None:
        self._stream = stream
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._schema: pa.Schema | None = None
        threading.Thread(target=self._receive, args=(write,), daemon=True).start()

    def _receive(self, write: Any) -> None:
        try:
            for answer in write.append_rows(iter(self._requests.get, None), retry=None, timeout=None):
                self._answers.put(answer)
        except Exception as error:
            self._answers.put(error)

    def send(self, rows: pa.RecordBatch, offset: int | None = None, **more: Any) -> Call:
        request = types.AppendRowsRequest(**more)
        if offset is not None:
            request.offset = offset
        if self._schema is None:
            request.write_stream = self._stream
        if self._schema != rows.schema:
            request.arrow_rows.writer_schema.serialized_schema = rows.schema.serialize().to_pybytes()
            self._schema = rows.schema
        request.arrow_rows.rows.serialized_record_batch = rows.serialize().to_pybytes()
        self._requests.put(request)
        return self

    def answer(self) -> Outcome:
        found = self._answers.get(timeout=20)
        if isinstance(found, Exception):
            assert isinstance(found, exceptions.GoogleAPICallError), found
            status = found.grpc_status_code
            assert status is not None
            return Outcome(code=status.value[0], ended=True, storage=_storage(found.details))
        if found.error.code:
            return Outcome(
                code=found.error.code,
                storage=_storage(found.error.details),
                rows=[e.index for e in found.row_errors],
            )
        updated = [f.name for f in found.updated_schema.fields]
        result = found.append_result
        return Outcome(offset=result.offset if "offset" in result else None, updated=updated)

    def __call__(self, rows: pa.RecordBatch, offset: int | None = None, **more: Any) -> Outcome:
        return self.send(rows, offset, **more).answer()

    def close(self) -> None:
        self._requests.put(None)


def _storage(details: Any) -> int:
    for detail in details:
        found = types.StorageError.pb()()
        if hasattr(detail, "Unpack") and detail.Unpack(found):
            return int(found.code)
    return 0


def ids(bq: Any) -> list[str]:
    return [row["id"] for row in bq.rows(TABLE)]


# Offsets and streams


def test_an_append_at_the_right_offset_lands_once(bq: StrictBigQuery, write: Any) -> None:
    append = Call(write, stream_of(write))
    assert append(batch("a", "b"), 0).offset == 0
    assert append(batch("c"), 2).offset == 2
    assert ids(bq) == ["a", "b", "c"]
    assert all(row["_arrived_ns"] > 0 for row in bq.rows(TABLE))


def test_a_repeated_offset_already_exists_whatever_the_rows_are(bq: StrictBigQuery, write: Any) -> None:
    append = Call(write, stream_of(write))
    append(batch("a", "b"), 0)
    assert tuple(append(batch("other"), 0)) == (6, False, Code.OFFSET_ALREADY_EXISTS)
    assert append(batch("c"), 2).offset == 2
    assert ids(bq) == ["a", "b", "c"]


def test_a_gap_is_out_of_range(bq: StrictBigQuery, write: Any) -> None:
    append = Call(write, stream_of(write))
    assert tuple(append(batch("a"), 1)) == (11, False, Code.OFFSET_OUT_OF_RANGE)
    assert append(batch("a"), 0).code == 0
    assert ids(bq) == ["a"]


def test_a_finalized_stream_takes_no_row(bq: StrictBigQuery, write: Any) -> None:
    stream = stream_of(write)
    append = Call(write, stream)
    append(batch("a"), 0)
    assert write.finalize_write_stream(name=stream, **RETRY).row_count == 1
    assert tuple(append(batch("b"), 1)) == (9, False, Code.STREAM_FINALIZED)
    assert write.finalize_write_stream(name=stream, **RETRY).row_count == 1
    assert ids(bq) == ["a"]


def test_an_unknown_stream_ends_the_call_and_so_does_a_malformed_name(write: Any) -> None:
    assert tuple(Call(write, f"{PARENT}/streams/none")(batch("a"), 0)) == (5, True, Code.STREAM_NOT_FOUND)
    assert tuple(Call(write, "streams/none")(batch("a"), 0)) == (3, True, 0)
    with pytest.raises(exceptions.NotFound):
        write.finalize_write_stream(name=f"{PARENT}/streams/none", **RETRY)


def test_a_stream_that_nobody_used_expires(bq: StrictBigQuery, write: Any, clock: Clock) -> None:
    bq.set(stream_seconds=60)
    append = Call(write, stream_of(write))
    append(batch("a"), 0)
    clock.now += 61
    assert tuple(append(batch("b"), 1)) == (5, True, Code.STREAM_NOT_FOUND)


def test_a_stream_goes_with_its_table(bq: StrictBigQuery, write: Any, client: Any) -> None:
    stream = stream_of(write)
    append = Call(write, stream)
    append(batch("a"), 0)
    client.delete_table(f"{PROJECT}.{TABLE}")
    assert tuple(append(batch("b"), 1)) == (5, True, Code.STREAM_NOT_FOUND)
    with pytest.raises(exceptions.NotFound):
        stream_of(write)
    bq.create_table(TABLE, FIELDS)
    assert tuple(Call(write, stream)(batch("b"), 1)) == (5, True, Code.STREAM_NOT_FOUND)


def test_the_default_stream_takes_no_offset_many_connections_and_no_finalize(bq: StrictBigQuery, write: Any) -> None:
    one, two = Call(write, DEFAULT), Call(write, DEFAULT)
    assert (one(batch("a")).offset, two(batch("b")).offset, one(batch("c")).code) == (None, None, 0)
    assert tuple(two(batch("d"), 0)) == (3, True, 0)
    with pytest.raises(exceptions.InvalidArgument):
        write.finalize_write_stream(name=DEFAULT, **RETRY)
    assert sorted(ids(bq)) == ["a", "b", "c"]


def test_pending_rows_are_seen_when_they_are_committed(bq: StrictBigQuery, write: Any) -> None:
    stream = stream_of(write, types.WriteStream.Type.PENDING)
    Call(write, stream)(batch("a"), 0)
    refused = write.batch_commit_write_streams({"parent": PARENT, "write_streams": [stream]}, **RETRY)
    assert [e.code for e in refused.stream_errors] == [Code.INVALID_STREAM_STATE]
    write.finalize_write_stream(name=stream, **RETRY)
    assert ids(bq) == []
    write.batch_commit_write_streams({"parent": PARENT, "write_streams": [stream]}, **RETRY)
    again = write.batch_commit_write_streams({"parent": PARENT, "write_streams": [stream]}, **RETRY)
    assert [e.code for e in again.stream_errors] == [Code.STREAM_ALREADY_COMMITTED]
    assert ids(bq) == ["a"]


def test_buffered_rows_are_seen_when_they_are_flushed(bq: StrictBigQuery, write: Any) -> None:
    stream = stream_of(write, types.WriteStream.Type.BUFFERED)
    Call(write, stream)(batch("a", "b", "c"), 0)
    assert write.flush_rows({"write_stream": stream, "offset": 1}, **RETRY).offset == 1
    assert ids(bq) == ["a", "b"]
    with pytest.raises(exceptions.OutOfRange):
        write.flush_rows({"write_stream": stream, "offset": 3}, **RETRY)


@pytest.mark.parametrize(
    ("rule", "older", "newer"), [("older-ends", 10, 0), ("newer-refused", 0, 10), ("allowed", 0, 0)]
)
def test_a_stream_that_an_application_made_has_one_connection(
    bq: StrictBigQuery, write: Any, rule: str, older: int, newer: int
) -> None:
    bq.set(second_connection=rule)
    stream = stream_of(write)
    one, two = Call(write, stream), Call(write, stream)
    one(batch("a"), 0)
    second = two(batch("b"), 1)
    # What was sent after the newer call is refused with the older one's end.
    first = one.send(batch("c"), 2 if newer == 0 else 1).answer()
    assert (first.code, second.code) == (older, newer)
    assert bq.calls["AppendRows.second_connection"] == (rule != "allowed")


def test_a_connection_that_was_closed_makes_room_for_the_next(bq: StrictBigQuery, write: Any) -> None:
    bq.set(second_connection="newer-refused")
    stream = stream_of(write)
    one = Call(write, stream)
    one(batch("a"), 0)
    one.close()
    while bq.streams()[0]["connected"]:
        threading.Event().wait(0.01)
    assert Call(write, stream)(batch("b"), 1).offset == 1


def test_only_one_of_an_append_and_a_finalize_wins(bq: StrictBigQuery, write: Any) -> None:
    for number in range(10):
        stream = stream_of(write)
        append = Call(write, stream).send(batch(f"r{number}"), 0)
        counted = write.finalize_write_stream(name=stream, **RETRY).row_count
        assert (append.answer().code == 0) == (counted == 1)


# Requests and rows


def test_a_request_over_ten_megabytes_ends_the_call(bq: StrictBigQuery, write: Any) -> None:
    append = Call(write, stream_of(write))
    assert append(batch("x" * (10 * 1024 * 1024 - 2000)), 0).code == 0
    assert tuple(append(batch("x" * (10 * 1024 * 1024)), 1)) == (3, True, 0)
    bq.set(request_bytes=1000)
    assert tuple(Call(write, DEFAULT)(batch("x" * 1000))) == (3, True, 0)
    assert [len(i) for i in ids(bq)] == [10 * 1024 * 1024 - 2000]


def test_the_first_request_names_the_stream_and_the_schema(write: Any) -> None:
    request = types.AppendRowsRequest()
    request.arrow_rows.rows.serialized_record_batch = batch("a").serialize().to_pybytes()
    for stream in ("", DEFAULT):
        request.write_stream = stream
        with pytest.raises(exceptions.InvalidArgument, match="first request"):
            list(write.append_rows(iter([request]), retry=None))


def test_the_stream_of_a_call_changes_on_default_streams_alone(bq: StrictBigQuery, write: Any) -> None:
    bq.create_table("d.other", FIELDS)
    other = f"projects/{PROJECT}/datasets/d/tables/other/streams/_default"
    append = Call(write, DEFAULT)
    append(batch("a"))
    assert append(batch("b"), write_stream=other).code == 0
    assert bq.counts() == {"d.t": 1, "d.other": 1}
    own = Call(write, stream_of(write))
    own(batch("c"), 0)
    assert tuple(own(batch("d"), 1, write_stream=stream_of(write))) == (3, True, 0)


def test_a_bad_row_is_named_and_no_row_of_its_request_lands(bq: StrictBigQuery, write: Any) -> None:
    append = Call(write, stream_of(write))
    doc = pa.array(["{}", "{no", None, "[1"], pa.string())
    outcome = append(batch("a", "b", "c", "d", doc=doc), 0)
    assert (outcome.code, outcome.ended, outcome.rows) == (3, False, [1, 3])
    assert ids(bq) == []
    assert append(batch("a", "c"), 0).offset == 0


def _bad_values() -> dict[str, tuple[dict[str, Any], pa.Array]]:
    return {
        "NULL where it is REQUIRED": (
            {"name": "x", "type": "STRING", "mode": "REQUIRED"},
            pa.array(["a", None], pa.string()),
        ),
        "a NULL list": ({"name": "x", "type": "STRING", "mode": "REPEATED"}, pa.array([["a"], None])),
        "a NULL element": ({"name": "x", "type": "STRING", "mode": "REPEATED"}, pa.array([["a"], ["b", None]])),
        "too wide for NUMERIC": (
            {"name": "x", "type": "NUMERIC"},
            pa.array([1, 10**29], pa.decimal256(60, 9)),
        ),
        "too fine for NUMERIC": (
            {"name": "x", "type": "NUMERIC"},
            pa.array([Decimal(1), Decimal("1e-10")], pa.decimal128(38, 10)),
        ),
        "a year of six digits": (
            {"name": "x", "type": "TIMESTAMP"},
            pa.array([0, 10**18], pa.timestamp("us", "UTC")),
        ),
        "a DATE after 9999": ({"name": "x", "type": "DATE"}, pa.array([0, 2932897], pa.date32())),
        "no JSON": ({"name": "x", "type": "JSON"}, pa.array(["1", "NaN"])),
    }


@pytest.mark.parametrize("name", list(_bad_values()))
def test_a_value_that_a_column_does_not_take_is_the_rows_error(bq: StrictBigQuery, write: Any, name: str) -> None:
    to, values = _bad_values()[name]
    bq.create_table("d.v", [to])
    append = Call(write, f"projects/{PROJECT}/datasets/d/tables/v/streams/_default")
    rows_ = pa.RecordBatch.from_arrays([values], names=["x"])
    outcome = append(rows_)
    assert (outcome.code, outcome.ended, outcome.rows) == (3, False, [1])
    assert append(rows_.slice(0, 1)).code == 0


@pytest.mark.parametrize(
    "columns",
    [
        {"n": pa.array(["7"], pa.string())},
        {"doc": pa.array([1], pa.int64())},
        {"at": pa.array([1], pa.timestamp("us"))},
        {"at": pa.array([1], pa.int64())},
        {"n": pa.array([[1]])},
        {"ID": pa.array(["twice"])},
    ],
    ids=["text for INT64", "INT64 for JSON", "no time zone", "INT64 for TIMESTAMP", "a list", "a name twice"],
)
def test_a_column_of_another_type_is_a_schema_mismatch(write: Any, columns: dict[str, Any]) -> None:
    outcome = Call(write, DEFAULT)(batch("a", **columns))
    assert (outcome.code, outcome.ended, outcome.rows) == (3, False, [])


def test_names_do_not_differ_by_case(bq: StrictBigQuery, write: Any) -> None:
    assert Call(write, DEFAULT)(pa.RecordBatch.from_pydict({"ID": ["a"]})).code == 0
    assert ids(bq) == ["a"]


def test_a_missing_column_gets_its_default_from_the_servers_clock(bq: StrictBigQuery, write: Any) -> None:
    stamp = {"name": "stamp", "type": "TIMESTAMP", "defaultValueExpression": "CURRENT_TIMESTAMP()"}
    bq.create_table("d.s", [*FIELDS, stamp])
    append = Call(write, f"projects/{PROJECT}/datasets/d/tables/s/streams/_default")
    null = pa.nulls(1, pa.timestamp("us", "UTC"))
    append(batch("absent"))
    append(batch("null", stamp=null))
    append(batch("null as default", stamp=null), default_missing_value_interpretation=DEFAULT_VALUE)
    append(batch("and from then on", stamp=null))
    assert [row["stamp"] is not None for row in bq.rows("d.s")] == [True, False, True, True]


# Schemas over time


def add_column(client: Any, name: str = "colour", **more: Any) -> Any:
    table = client.get_table(f"{PROJECT}.{TABLE}")
    table.schema = [*table.schema, bigquery.SchemaField(name, "STRING", **more)]
    return client.update_table(table, ["schema"])


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("in-band", (3, False, Code.SCHEMA_MISMATCH_EXTRA_FIELDS)),
        ("ends-call", (3, True, Code.SCHEMA_MISMATCH_EXTRA_FIELDS)),
        ("row-errors", (3, False, 0)),
    ],
)
def test_the_write_path_learns_late_of_a_column_that_rest_shows(
    bq: StrictBigQuery, write: Any, client: Any, clock: Clock, form: str, expected: Any
) -> None:
    bq.set(schema_lag=20, schema_mismatch=form)
    add_column(client)
    assert "colour" in [f.name for f in client.get_table(f"{PROJECT}.{TABLE}").schema]
    wider = batch("a", "b", colour=["red", "blue"])
    clock.now += 19.9
    outcome = Call(write, stream_of(write))(wider, 0)
    assert tuple(outcome) == expected
    assert outcome.rows == ([0, 1] if form == "row-errors" else [])
    made = write.create_write_stream(parent=PARENT, write_stream=types.WriteStream(type_=COMMITTED), **RETRY)
    assert "colour" not in [f.name for f in made.table_schema.fields]
    clock.now += 0.2
    made = write.create_write_stream(parent=PARENT, write_stream=types.WriteStream(type_=COMMITTED), **RETRY)
    assert "colour" in [f.name for f in made.table_schema.fields]
    assert Call(write, made.name)(wider, 0).code == 0
    assert [row["colour"] for row in bq.rows(TABLE)] == ["red", "blue"]


def test_a_connection_is_told_once_of_a_new_schema(bq: StrictBigQuery, write: Any, client: Any, clock: Clock) -> None:
    bq.set(schema_lag=20)
    append = Call(write, stream_of(write))
    assert append(batch("a"), 0).updated == []
    add_column(client)
    assert append(batch("b"), 1).updated == []
    clock.now += 20
    assert append(batch("c"), 2).updated[-1] == "colour"
    assert append(batch("d"), 3).updated == []
    assert [row["colour"] for row in bq.arrow(TABLE).to_pylist()] == [None] * 4


def test_the_write_path_learns_late_of_a_new_table(bq: StrictBigQuery, write: Any, client: Any, clock: Clock) -> None:
    bq.set(table_lag=5)
    client.create_table(bigquery.Table(f"{PROJECT}.d.late", schema=[bigquery.SchemaField("id", "STRING")]))
    late = f"projects/{PROJECT}/datasets/d/tables/late"
    with pytest.raises(exceptions.NotFound):
        write.create_write_stream(parent=late, write_stream=types.WriteStream(type_=COMMITTED), **RETRY)
    assert tuple(Call(write, f"{late}/streams/_default")(batch("a"))) == (5, True, Code.TABLE_NOT_FOUND)
    clock.now += 5
    assert Call(write, f"{late}/streams/_default")(batch("a")).code == 0


def test_columns_are_only_added_and_never_required(client: Any) -> None:
    with pytest.raises(exceptions.BadRequest, match="required"):
        add_column(client, mode="REQUIRED")
    with pytest.raises(exceptions.BadRequest, match="default"):
        add_column(client, default_value_expression="'x'")
    with pytest.raises(exceptions.BadRequest, match="Duplicate"):
        add_column(client, "ID")
    table = client.get_table(f"{PROJECT}.{TABLE}")
    table.schema = table.schema[1:]
    with pytest.raises(exceptions.BadRequest, match="missing"):
        client.update_table(table, ["schema"])
    table.schema = [bigquery.SchemaField("id", "INT64"), *table.schema]
    with pytest.raises(exceptions.BadRequest, match="type"):
        client.update_table(table, ["schema"])


def test_an_update_with_an_old_etag_is_refused(client: Any) -> None:
    old = client.get_table(f"{PROJECT}.{TABLE}")
    add_column(client)
    old.schema = [*old.schema, bigquery.SchemaField("other", "STRING")]
    with pytest.raises(exceptions.PreconditionFailed):
        client.update_table(old, ["schema"])


# REST


def test_datasets_and_tables_are_made_found_and_dropped(client: Any) -> None:
    with pytest.raises(exceptions.NotFound):
        client.create_table(bigquery.Table(f"{PROJECT}.none.t"))
    client.create_dataset("late")
    with pytest.raises(exceptions.Conflict):
        client.create_dataset("late")
    made = bigquery.Table(f"{PROJECT}.late.t", schema=[bigquery.SchemaField("at", "TIMESTAMP")])
    made.time_partitioning = bigquery.TimePartitioning(field="at")
    made.clustering_fields = ["at"]
    client.create_table(made)
    assert client.create_table(made, exists_ok=True).time_partitioning.field == "at"
    assert client.get_table(f"{PROJECT}.late.t").clustering_fields == ["at"]
    assert [t.table_id for t in client.list_tables("late")] == ["t"]
    client.delete_dataset("late", delete_contents=True)
    with pytest.raises(exceptions.NotFound):
        client.get_table(f"{PROJECT}.late.t")


def lookup(client: Any, *wanted: str, first: int = 0, last: int = 100, extra: str = "", **options: Any) -> list[str]:
    moments = [timestamps.to_datetime(timestamps.from_micros(n)) for n in (first, last)]
    config = bigquery.QueryJobConfig(
        query_parameters=[
            bigquery.ScalarQueryParameter("first", "TIMESTAMP", moments[0]),
            bigquery.ScalarQueryParameter("last", "TIMESTAMP", moments[1]),
            bigquery.ArrayQueryParameter("ids", "STRING", list(wanted)),
        ],
        **options,
    )
    sql = f"SELECT id FROM `{PROJECT}.{TABLE}` WHERE at BETWEEN @first AND @last AND id IN UNNEST(@ids){extra}"
    return [row[0] for row in client.query(sql, job_config=config).result()]


def at(*micros: int) -> pa.Array:
    return pa.array(micros, pa.timestamp("us", "UTC"))


def test_a_look_up_sees_rows_at_once_and_reads_only_their_time(bq: StrictBigQuery, write: Any, client: Any) -> None:
    append = Call(write, stream_of(write))
    append(batch("a", "b", at=at(1, 2)), 0)
    append(batch("c", at=at(200)), 2)
    assert lookup(client, "a", "c", "none") == ["a"]
    assert (bq.calls["query.lookup"], bq.calls["query.lookup.ids"]) == (1, 3)
    assert bq.calls["query.lookup.rows_scanned"] == 2
    assert lookup(client, "a", "b", last=1) == ["a"]
    assert lookup(
        client, "a", "b", extra=" AND at >= TIMESTAMP_SUB(@last, INTERVAL 1 DAY) ORDER BY id DESC LIMIT 1"
    ) == ["b"]


def test_a_query_may_be_answered_from_the_cache_unless_it_says_not(
    bq: StrictBigQuery, write: Any, client: Any, clock: Clock
) -> None:
    assert lookup(client, "a") == []
    bq.set(cache_seconds=10)
    append = Call(write, stream_of(write))
    assert lookup(client, "a") == []
    append(batch("a", at=at(1)), 0)
    assert lookup(client, "a") == []
    assert lookup(client, "a", use_query_cache=False) == ["a"]
    assert lookup(client, "a", "b") == ["a"]
    clock.now += 10
    assert lookup(client, "a") == ["a"]
    assert bq.calls["query.cached"] == 1


def test_the_jobs_own_queries_are_answered(bq: StrictBigQuery, write: Any, client: Any) -> None:
    def one(sql: str, **given: Any) -> Any:
        parameters = [bigquery.ScalarQueryParameter(name, "TIMESTAMP", value) for name, value in given.items()]
        found = client.query(sql, job_config=bigquery.QueryJobConfig(query_parameters=parameters)).result()
        return [tuple(row) for row in found]

    Call(write, stream_of(write))(batch("a", "b", at=at(1, 5)), 0)
    moment = timestamps.to_datetime(timestamps.from_micros(3))
    assert one(f"SELECT COUNT(*) FROM `{PROJECT}.{TABLE}`") == [(2,)]
    assert one(f"SELECT MAX(at) FROM `{PROJECT}.{TABLE}` WHERE at < @x", x=moment)[0][0].microsecond == 1
    assert one(f"SELECT MAX(at) AS newest FROM `{PROJECT}.{TABLE}` WHERE id = 'none'") == [(None,)]
    assert one(f"SELECT id, COUNT(*) n FROM `{PROJECT}.{TABLE}` GROUP BY id ORDER BY id") == [("a", 1), ("b", 1)]
    bq.create_table("d.progress", [{"name": n, "type": "TIMESTAMP"} for n in ("merged_until", "merged_at")])
    progress = f"`{PROJECT}.d.progress`"
    one(f"INSERT INTO {progress} (merged_until, merged_at) VALUES (TIMESTAMP '1970-01-01 00:00:00.000005+00', NULL)")
    one(
        f"UPDATE {progress} SET merged_until = LEAST(merged_until, @oldest), "
        "merged_at = CURRENT_TIMESTAMP() WHERE TRUE",
        oldest=moment,
    )
    [(until, merged_at)] = one(f"SELECT merged_until, merged_at FROM {progress}")
    assert until == moment and merged_at is not None


def test_sql_that_nobody_evaluates_is_refused(client: Any) -> None:
    for sql in (
        f"SELECT id FROM `{PROJECT}.{TABLE}` WHERE id = 'a' OR id = 'b'",
        f"SELECT UPPER(id) FROM `{PROJECT}.{TABLE}`",
        f"MERGE `{PROJECT}.{TABLE}` USING x ON FALSE",
        f"UPDATE `{PROJECT}.{TABLE}` SET id = 'a'",
    ):
        with pytest.raises(exceptions.BadRequest, match=r"know|WHERE"):
            client.query(sql).result()
    with pytest.raises(exceptions.NotFound):
        client.query(f"SELECT id FROM `{PROJECT}.d.none`").result()


# Faults


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 7, 8, 9, 10, 13, 14, 16])
@pytest.mark.parametrize("in_band", [True, False])
def test_an_append_is_refused_by_any_code_inside_the_response_or_by_ending_the_call(
    bq: StrictBigQuery, write: Any, code: int, in_band: bool
) -> None:
    stream = stream_of(write)
    fault = bq.fail(code, in_band, times=1)
    append = Call(write, stream)
    assert tuple(append(batch("a"), 0)) == (code, not in_band, 0)
    if not in_band:
        append = Call(write, stream)
    assert append(batch("a"), 0).code == 0
    assert (ids(bq), fault.struck) == (["a"], 1)


def test_a_fault_lasts_its_seconds_and_strikes_what_it_is_for(bq: StrictBigQuery, write: Any, clock: Clock) -> None:
    append = Call(write, DEFAULT)
    bq.fail("INTERNAL", seconds=5)
    bq.fail("RESOURCE_EXHAUSTED", rows={"column": "id", "values": ["bad"]})
    bq.fail(
        "ABORTED",
        when=lambda attempt: attempt.rows is not None and attempt.rows.num_rows == 3,
        storage_error="KMS_SERVICE_ERROR",
    )
    assert append(batch("a")).code == 13
    clock.now += 5
    assert append(batch("a")).code == 0
    assert append(batch("a", "bad")).code == 8
    assert tuple(append(batch("a", "b", "c"))) == (10, False, Code.KMS_SERVICE_ERROR)
    bq.clear_faults()
    assert append(batch("bad")).code == 0


def test_rows_are_refused_one_by_one(bq: StrictBigQuery, write: Any) -> None:
    bq.refuse_rows({"column": "id", "values": ["b", "d"]})
    bq.refuse_rows(lambda row: row["id"] == "a")
    outcome = Call(write, DEFAULT)(batch("a", "b", "c", "d"))
    assert (outcome.code, outcome.rows) == (3, [0, 1, 3])
    assert ids(bq) == []


def test_unary_calls_fail_as_well(bq: StrictBigQuery, write: Any) -> None:
    bq.fail("UNAVAILABLE", times=1, methods=["CreateWriteStream"])
    with pytest.raises(exceptions.ServiceUnavailable):
        stream_of(write)
    stream_of(write)
    assert bq.calls["CreateWriteStream"] == 2
    assert bq.calls["CreateWriteStream.refused"] == 1


def test_a_lost_answer_leaves_the_rows_there(bq: StrictBigQuery, write: Any) -> None:
    stream = stream_of(write)
    bq.lose_answers()
    assert tuple(Call(write, stream)(batch("a"), 0)) == (14, True, 0)
    assert ids(bq) == ["a"]
    assert Call(write, stream)(batch("a"), 0).code == 6


def test_what_was_sent_to_a_frozen_server_lands_when_it_thaws(bq: StrictBigQuery, write: Any) -> None:
    append = Call(write, stream_of(write))
    bq.freeze()
    append.send(batch("a"), 0)
    while not bq.calls["AppendRows.connections"]:
        threading.Event().wait(0.01)
    assert ids(bq) == []
    bq.thaw()
    assert append.answer().offset == 0
    assert ids(bq) == ["a"]


def test_every_open_connection_can_be_cut(bq: StrictBigQuery, write: Any) -> None:
    calls = [Call(write, DEFAULT) for _ in range(3)]
    for call in calls:
        call(batch("a"))
    assert bq.cut() == 3
    assert [tuple(call.answer()) for call in calls] == [(14, True, 0)] * 3


def test_permissions_can_go_and_come_back(bq: StrictBigQuery, write: Any, client: Any, clock: Clock) -> None:
    bq.deny(seconds=5)
    with pytest.raises(exceptions.PermissionDenied):
        stream_of(write)
    with pytest.raises(exceptions.Forbidden):
        client.get_table(f"{PROJECT}.{TABLE}")
    assert tuple(Call(write, DEFAULT)(batch("a"))) == (7, True, 0)
    clock.now += 5
    client.get_table(f"{PROJECT}.{TABLE}")
    assert Call(write, DEFAULT)(batch("a")).code == 0


def test_bigquery_can_be_away(bq: StrictBigQuery, write: Any, client: Any, clock: Clock) -> None:
    append = Call(write, DEFAULT)
    append(batch("a"))
    bq.away(seconds=5)
    assert append.answer().code == 14
    with pytest.raises(exceptions.ServiceUnavailable):
        stream_of(write)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{bq.rest}/bigquery/v2/projects/{PROJECT}/datasets", timeout=10)
    clock.now += 5
    assert Call(write, DEFAULT)(batch("b")).code == 0


def test_rest_fails_by_status_reason_and_path_and_can_lose_its_answer(bq: StrictBigQuery, client: Any) -> None:
    bq.fail_rest(403, "rateLimitExceeded", path="^PATCH", times=1)
    bq.fail_rest(500, "internalError", path="^POST .*/datasets$", times=1, after=True)
    with pytest.raises(exceptions.Forbidden):
        client._connection.api_request(method="PATCH", path=f"/projects/{PROJECT}/datasets/d/tables/t", data={})
    with pytest.raises(exceptions.InternalServerError):
        client.create_dataset("lost", retry=None)
    assert client.get_dataset("lost").dataset_id == "lost"
    assert bq.calls["rest.tables.patch"] == 1


# Arrivals, the process


def test_arrivals_are_written_as_the_emulators_are(tmp_path: Path) -> None:
    file = tmp_path / "arrivals.jsonl"
    with StrictBigQuery(project=PROJECT, arrivals=file, arrival_ids=True) as bq:
        bq.create_tables()
        shard, _ = shard_of(bq)
        shard.append(None, batch_of(change("p1"), change("p2")), COLUMNS)
        shard.close()
    [line] = [json.loads(text) for text in file.read_text().splitlines()]
    assert (line["table"], line["rows"], len(line["latencies_ms"])) == ("payment_audit.payment_audit_trail_bq", 2, 2)
    assert set(line) >= {"stamp", "queryable_at", "time_ns"}
    assert len(line["change_ids"]) == 2


def test_it_runs_as_a_process_and_is_told_of_faults_there(tmp_path: Path) -> None:
    with StrictBigQueryProcess(tmp_path, contract_tables=True, arrivals=tmp_path / "arrivals.jsonl") as bq:
        shard, _ = shard_of(bq)
        fault = bq.fail("INTERNAL", True, times=1)
        _, outcome = shard.append(None, batch_of(change("p1")), COLUMNS)
        shard.close()
        assert outcome.appended == 1
        bq.cancel(fault)
        bq.set(schema_lag=20)
        with pytest.raises(ValueError, match="no setting"):
            bq.set(colour="red")
        assert [row["PUID"] for row in bq.rows("payment_audit.payment_audit_trail_bq")] == ["p1"]
        assert bq.counts()["payment_audit.payment_audit_trail_bq"] == 1
        assert bq.calls["AppendRows.rows"] == 1
        lines = urllib.request.urlopen(
            f"{bq.control}/rows?table=payment_audit.payment_audit_trail_bq&format=jsonl"
        ).read()
        assert json.loads(lines)["PUID"] == "p1"


# The product's own shard

COLUMNS = (Column("PUID", "STRING", True), Column("Status", "STRING", False), Column("Metadata", "JSON", False))
_NUMBERS = itertools.count()


def change(puid: str, **new: Any) -> Change:
    return Change(
        stream="PaymentAuditTrailChangeStream",
        table="payment_audit_trail",
        mod_type="INSERT",
        commit_timestamp=timestamps.now(),
        server_transaction_id=f"{next(_NUMBERS)}",
        record_sequence="00000000",
        mod_index=0,
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=COLUMNS,
        keys={"PUID": puid},
        new={"Status": "INITIATED"} | new,
        old={},
    )


def batch_of(*changes: Change) -> pa.Table:
    encoded, failed = rows.encode(changes, WATCHED.of(changes[0].table))
    assert not failed and encoded is not None
    return pa.Table.from_batches([encoded])


def shard_of(bq: Any, generations: InMemoryGenerations | None = None) -> tuple[Shard, InMemoryGenerations]:
    generations = generations or InMemoryGenerations()
    taken = generations.take_over("run", timestamps.now())
    query = clients.bigquery_client(bq.rest, PROJECT)
    destinations = Destinations(project=PROJECT, watched=WATCHED, dataset=PAYMENT_DATASET)
    made = SinkClients(
        write=clients.write_client(bq.grpc),
        query=query,
        changelogs=Changelogs(query, destinations),
        destinations=destinations,
        generations=generations,
        generation=taken.generation,
        sleep=lambda _: None,
    )
    return Shard(made, "payment_audit_trail", "0"), generations


def test_the_products_shard_appends_to_it_exactly_once(bq: StrictBigQuery) -> None:
    bq.create_tables()
    shard, generations = shard_of(bq)
    position, _ = shard.append(None, batch_of(change("p0")), COLUMNS)
    again = batch_of(change("p1"), change("p2"))
    bq.lose_answers()
    shard.append(position, again, COLUMNS)
    # A retried bundle, with the old position and one row more.
    other, _ = shard_of(bq, generations)
    _, outcome = other.append(position, pa.concat_tables([again, batch_of(change("p3"))]), COLUMNS)
    found = bq.rows("payment_audit.payment_audit_trail_bq")
    assert Counter(row["PUID"] for row in found) == Counter(["p0", "p1", "p2", "p3"])
    assert outcome.already_there == 2
    assert all(row["_metadata_big_query_commit_timestamp"] for row in found)
    for one in (shard, other):
        one.close()


# Beside the emulator


def play(write: Any, client: Any, project: str) -> dict[str, Any]:
    """A plain script: what each step comes to."""
    table = bigquery.Table(
        f"{project}.plain.t",
        schema=[
            bigquery.SchemaField("id", "STRING"),
            bigquery.SchemaField("doc", "JSON"),
            bigquery.SchemaField("at", "TIMESTAMP"),
        ],
    )
    parent = f"projects/{project}/datasets/plain/tables/t"
    seen: dict[str, Any] = {}

    def code_of(step: Any) -> Any:
        try:
            return step() and "ok"
        except exceptions.GoogleAPICallError as error:
            return error.code

    def made() -> str:
        stream = types.WriteStream(type_=COMMITTED)
        name: str = write.create_write_stream(parent=parent, write_stream=stream, **RETRY).name
        return name

    seen["a table without its dataset"] = code_of(lambda: client.create_table(table))
    client.create_dataset("plain")
    seen["a stream of no table"] = code_of(made)
    seen["a table"] = code_of(lambda: client.create_table(table))
    seen["a table again"] = code_of(lambda: client.create_table(table))
    stream = made()
    append = Call(write, stream)
    seen["at the offset"] = append(batch("a", "b", at=at(1, 2)), 0)
    seen["at the next"] = append(batch("c", at=at(3)), 2)
    seen["a repeated offset"] = append(batch("x", at=at(4)), 1)
    seen["a gap"] = append(batch("x", at=at(4)), 9)
    seen["no offset"] = append(batch("d", at=at(5)))
    seen["finalized"] = write.finalize_write_stream(name=stream, **RETRY).row_count
    seen["after the end"] = append(batch("x", at=at(4)), 4)
    append.close()
    default = Call(write, f"{parent}/streams/_default")
    seen["on the default stream"] = default(batch("e", at=at(6)))
    default.close()
    second = Call(write, made())
    seen["a bad row"] = second(batch("x", "y", doc=pa.array(["{}", "{no"], pa.string())), 0)
    second.close()
    seen["an unknown stream"] = Call(write, f"{parent}/streams/none")(batch("x"), 0)
    unknown = Call(write, made())
    seen["an unknown column"] = unknown(batch("x", colour=["red"]), 0)
    unknown.close()
    config = bigquery.QueryJobConfig(
        query_parameters=[
            bigquery.ScalarQueryParameter("first", "TIMESTAMP", timestamps.to_datetime(timestamps.from_micros(2))),
            bigquery.ScalarQueryParameter("last", "TIMESTAMP", timestamps.to_datetime(timestamps.from_micros(9))),
            bigquery.ArrayQueryParameter("ids", "STRING", ["a", "b", "e", "none"]),
        ]
    )
    sql = f"SELECT id FROM `{project}.plain.t` WHERE at BETWEEN @first AND @last AND id IN UNNEST(@ids)"
    seen["a look-up"] = sorted(row[0] for row in client.query(sql, job_config=config).result())
    newest = client.query(f"SELECT MAX(at) FROM `{project}.plain.t` WHERE at < TIMESTAMP '2000-01-01 00:00:00+00'")
    seen["the newest"] = [tuple(row) for row in newest.result()]
    seen["the number"] = [tuple(row) for row in client.query(f"SELECT COUNT(*) FROM `{project}.plain.t`").result()]
    return seen


# Where the emulator is kinder or plainer than Google; everything else is the same on both.
def test_the_same_script_comes_to_the_same_on_the_emulator(
    empty_warehouse: Warehouse, bigquery_emulator: BigQueryEmulator
) -> None:
    theirs = play(clients.write_client(empty_warehouse.grpc), empty_warehouse.client, PROJECT)
    with StrictBigQuery(project=PROJECT, upstream=(bigquery_emulator.rest, bigquery_emulator.grpc)) as front:
        empty_warehouse.client.delete_dataset("plain", delete_contents=True)
        in_front = play(clients.write_client(front.grpc), clients.bigquery_client(front.rest, PROJECT), PROJECT)
        assert front.counts()["plain.t"] == 5
    with StrictBigQuery(project=PROJECT) as alone:
        ours = play(clients.write_client(alone.grpc), clients.bigquery_client(alone.rest, PROJECT), PROJECT)
    known = {
        # It appends the good rows and then reports the bad one as if it had appended none.
        "the number",
        # An error of every row; BigQuery: a mismatch of the request.
        "an unknown column",
        # INVALID_ARGUMENT; assumed of BigQuery: FAILED_PRECONDITION and NOT_FOUND. It has no StorageError anywhere.
        "after the end",
        "an unknown stream",
    }
    same = {step: _plain(outcome) for step, outcome in ours.items()}
    assert {s: o for s, o in same.items() if s not in known} == {
        s: _plain(o) for s, o in theirs.items() if s not in known
    }
    assert same == {s: _plain(o) for s, o in in_front.items()}
    assert {s for s in same if same[s] != _plain(theirs[s])} == known


def _plain(outcome: Any) -> Any:
    """Without the StorageError, which the emulator lacks."""
    return (outcome.code, outcome.offset, outcome.rows) if isinstance(outcome, Outcome) else outcome
