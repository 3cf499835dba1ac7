"""The strict Spanner stand-in: what it serves, what it refuses, and that the real emulator sends the same."""

from __future__ import annotations

import base64
import json
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud.spanner_v1.types import change_stream
from google.cloud.spanner_v1.types import type as types
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2, status_pb2

from contract import schema, timestamps
from local.emulators import launch as emulators
from local.emulators.launch import INSTANCE, PROJECT
from pipeline.source import wire
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.records import (
    Child,
    ChildPartitions,
    DataChange,
    Heartbeat,
    Record,
    RecordReader,
    _as_wire,
    whole_values,
)
from tests.strict.history import (
    SECOND,
    Change,
    ColumnSpec,
    History,
    Partition,
    PartitionMode,
    RandomHistory,
    SchemaChange,
    StreamHistory,
    TableSpec,
    product_tables,
    read_ledger,
    type_json,
)
from tests.strict.plain import PlainQuery
from tests.strict.spanner import StrictSpanner, _cut

DATABASE = "projects/p/instances/i/databases/d"
STREAM = "PaymentAuditTrailChangeStream"
LOGS = "AuditLogChangeStream"
TABLE = TableSpec("T", (ColumnSpec("K", "STRING(8)", True), ColumnSpec("V", "INT64")))


def ago(seconds: float) -> int:
    return time.time_ns() - int(seconds * SECOND)


def query_of(spanner: StrictSpanner, channel: Any, stream: str = STREAM, **options: Any) -> PlainQuery:
    return PlainQuery(ChangeStream(name=stream, database=DATABASE, endpoint=spanner.endpoint, **options), channel)


def ids(stream: str, change: DataChange) -> list[tuple[Any, ...]]:
    return [
        (stream, change.commit_timestamp, change.server_transaction_id, change.record_sequence, i, *mod)
        for i, mod in enumerate(change.mods)
    ]


def committed(history: History, stream: str) -> Counter[tuple[Any, ...]]:
    return Counter(
        (*e.id, e.keys.decode(), e.new.decode(), e.old.decode()) for e in history.entries() if e.stream == stream
    )


def read_all(query: PlainQuery, stream: str, start: str, end: str | None) -> Counter[tuple[Any, ...]]:
    """A simple, correct reader: every partition once, a child from its start on when all its parents have ended."""
    found: Counter[tuple[Any, ...]] = Counter()
    waiting = {child.token: child._replace(parents=()) for child in query.roots(start)}
    ended: set[str] = set()
    while waiting:
        child = next(c for c in waiting.values() if not set(c.parents) - ended)
        del waiting[child.token]
        for record in query.run(child.start, token=child.token, end=end):
            if isinstance(record, DataChange):
                found.update(ids(stream, record))
            elif isinstance(record, ChildPartitions):
                waiting |= {c.token: c for c in record.children}
        ended.add(child.token)
    return found


@pytest.fixture
def channel() -> Iterator[Callable[[StrictSpanner], Any]]:
    made: list[Any] = []

    def connect(spanner: StrictSpanner) -> Any:
        made.append(grpc.insecure_channel(spanner.endpoint, options=[("number", len(made))]))
        return made[-1]

    yield connect
    for each in made:
        each.close()


class Scripted:
    """A history of one stream S with one table, a minute old: two partitions, one of which ends ten seconds ago."""

    def __init__(self) -> None:
        self.history = History(created=ago(60))
        self.stream: StreamHistory = self.history.stream("S", [TABLE], retention_seconds=3600)
        self.a = self.stream.root("a", high=1 << 31)
        self.b = self.stream.root("b", low=1 << 31)
        self.first = self.put(self.a, "k1", 1, at=ago(50))
        self.second = self.put(self.a, "k1", 2, at=ago(40))
        self.third = self.put(self.b, "k2", 3, at=ago(30))
        self.child = self.history.merge([self.a, self.b], "c", at=ago(10))
        self.fourth = self.put(self.child, "k1", 4, at=ago(5))

    def put(self, partition: Partition, key: str, value: int, **when: Any) -> str:
        change = Change("T", "INSERT", {"K": key}, {"V": str(value)}, {}, partition)
        return self.history.commit([change], **when)


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


def put_together(responses: Iterable[Any]) -> Iterator[Any]:
    """The values of a streamed result, put together by the product's reader."""
    return map(struct_pb2.Value.FromString, whole_values(map(_as_wire, responses)))


def values(records: Iterable[Record]) -> list[str]:
    return [json.loads(mod.new_values)["V"] for r in records if isinstance(r, DataChange) for mod in r.mods]


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        result = call()
        if isinstance(result, Iterator):
            list(result)
    return caught.value.code().name, str(caught.value.details())


# --- Histories --------------------------------------------------------------------------------------------------------


def test_a_reader_that_follows_the_partitions_gets_each_change_of_a_random_history_once(channel: Any) -> None:
    history = RandomHistory(7, created=ago(41), rate=25, churn=1.5).play(40)
    with StrictSpanner(history, cut=0.5) as spanner:
        end = timestamps.now()
        for stream in (STREAM, LOGS):
            found = read_all(
                query_of(spanner, channel(spanner), stream), stream, timestamps.from_nanos(history.created), end
            )
            assert found == committed(history, stream)
            assert len(history.streams[stream].partitions) > 15
    assert spanner.history.transactions > 500


def test_a_reader_that_starts_again_at_an_earlier_time_gets_the_same_records(channel: Any) -> None:
    history = RandomHistory(2, created=ago(11), rate=25, churn=2).play(10)
    with StrictSpanner(history) as spanner:
        query, end = query_of(spanner, channel(spanner)), timestamps.now()
        start = timestamps.from_nanos(history.created)
        assert read_all(query, STREAM, start, end) == read_all(query, STREAM, start, end)
        assert spanner.counts()["max_readers_by_partition"].keys() == {"", *history.streams[STREAM].partitions}


def test_a_live_history_is_pushed_to_open_queries_while_its_partitions_change(channel: Any) -> None:
    with StrictSpanner(RandomHistory(5, rate=400, churn=0.1), cut=0.3) as spanner:
        history = spanner.history
        assert isinstance(history, RandomHistory)
        query, found, seen = query_of(spanner, channel(spanner)), [], set()

        def tail(child: Child) -> None:
            if child.token in seen:
                return
            seen.add(child.token)
            try:
                for record in query.run(child.start, token=child.token):
                    if isinstance(record, DataChange):
                        found.extend(ids(STREAM, record))
                    elif isinstance(record, ChildPartitions):
                        for each in record.children:
                            threading.Thread(target=tail, args=(each,), daemon=True).start()
            except grpc.RpcError:
                return

        for child in query.roots(timestamps.from_nanos(history.created)):
            threading.Thread(target=tail, args=(child,), daemon=True).start()
        history.start(commits=400)
        history.wait()
        history.stop()
        expected = committed(history, STREAM)
        until(lambda: len(found) >= expected.total())
    assert Counter(found) == expected
    assert len(seen) > 6


def test_a_seed_makes_the_same_changes_in_the_same_order_each_time() -> None:
    def keys(history: RandomHistory) -> list[tuple[Any, ...]]:
        found = sorted(history.entries(), key=lambda e: (int(e.server_transaction_id), e.stream, e.record_sequence))
        return [(e.table, e.mod_type, e.keys, json.loads(e.new or b"{}").get("Status")) for e in found]

    one, same, other = (RandomHistory(seed, created=ago(5), rate=50).play(4) for seed in (1, 1, 2))
    assert keys(one)[:150] == keys(same)[:150]
    assert keys(one)[:150] != keys(other)[:150]


def test_the_ledger_file_has_each_committed_modification(tmp_path: Path) -> None:
    with RandomHistory(1, rate=500, ledger=tmp_path / "ledger.jsonl") as history:
        history.stop()
        history.start(commits=50)
        history.wait()
        history.announce()
        lines = list(read_ledger(tmp_path / "ledger.jsonl"))
        entries = [json.loads(e.line()) for e in history.entries()]
    assert len(lines) == history.committed
    assert sorted(map(json.dumps, lines)) == sorted(map(json.dumps, entries))


def test_a_row_is_updated_from_what_it_was_and_is_in_one_partition_at_a_time() -> None:
    history = RandomHistory(3, created=ago(31), rate=100, churn=1).play(30)
    rows: dict[bytes, dict[str, Any]] = {}
    order = sorted(history.entries(), key=lambda e: (e.commit_timestamp, int(e.server_transaction_id)))
    kinds: Counter[str] = Counter()
    for entry in (e for e in order if e.stream == STREAM):
        new, old = json.loads(entry.new), json.loads(entry.old)
        before = rows.get(entry.keys)
        kinds[entry.mod_type] += 1
        if entry.mod_type == "INSERT":
            assert before is None and not old
        else:
            assert before is not None
            assert old.items() <= before.items()
        if entry.mod_type == "UPDATE":
            assert before is not None
            assert before | new == new and {k for k in new if new[k] != before[k]} == set(old)
        if entry.mod_type == "DELETE":
            assert not new and old == rows.pop(entry.keys)
        else:
            rows[entry.keys] = new
    assert min(kinds[k] for k in ("INSERT", "UPDATE", "DELETE")) > 10


def test_some_transactions_share_a_commit_timestamp_and_some_have_several_records_and_mods() -> None:
    history = RandomHistory(3, created=ago(31), rate=100, churn=3).play(30)
    records = [r for p in history.streams[STREAM].partitions.values() for r in p.records]
    by_time: dict[int, set[str]] = {}
    for record in records:
        by_time.setdefault(record.commit, set()).add(record.transaction)
    assert max(map(len, by_time.values())) > 1
    assert max(len(r.mods) for r in records) > 1
    assert max(r.records for r in records) > 1 and max(r.partitions for r in records) > 1
    by_transaction: dict[str, list[Any]] = {}
    for record in records:
        by_transaction.setdefault(record.transaction, []).append(record)
    for found in by_transaction.values():
        assert len(found) == found[0].records
        assert sorted(r.sequence for r in found) == list(range(len(found)))
        assert sum(r.last for r in found) == found[0].partitions


def test_a_schema_change_gives_the_later_records_the_new_type_and_the_new_column(channel: Any) -> None:
    changes = [
        SchemaChange(after=2, table="payment_audit_trail", column=ColumnSpec("RetryCount", "STRING(MAX)")),
        SchemaChange(after=4, table="payment_audit_trail", column=ColumnSpec("Tags", "ARRAY<STRING(8)>")),
    ]
    history = RandomHistory(3, created=ago(7), rate=40, churn=0, schema_changes=changes).play(6)
    shapes = []
    with StrictSpanner(history) as spanner:
        query = query_of(spanner, channel(spanner))
        for root in query.roots(timestamps.from_nanos(history.created)):
            for record in query.run(root.start, token=root.token, end=timestamps.now()):
                if isinstance(record, DataChange):
                    types = {c.name: c.type for c in record.columns}
                    assert all(set(json.loads(m.new_values)) <= set(types) for m in record.mods)
                    shapes.append((record.commit_timestamp, types["RetryCount"], types.get("Tags")))
    assert list(dict.fromkeys(s[1:] for s in sorted(shapes))) == [
        ("INT64", None),
        ("STRING", None),
        ("STRING", "ARRAY<STRING>"),
    ]


@pytest.mark.parametrize(
    ("capture", "columns", "new", "old", "deleted"),
    [
        ("NEW_ROW_AND_OLD_VALUES", "KVW", {"V": "2", "W": "x"}, {"V": "1"}, {"V": "2", "W": "x"}),
        ("NEW_ROW", "KVW", {"V": "2", "W": "x"}, {}, {}),
        ("OLD_AND_NEW_VALUES", "KV", {"V": "2"}, {"V": "1"}, {"V": "2", "W": "x"}),
        ("NEW_VALUES", "KV", {"V": "2"}, {}, {}),
    ],
)
def test_a_stream_carries_of_a_change_what_its_capture_type_says(
    capture: str, columns: str, new: Any, old: Any, deleted: Any
) -> None:
    table = TableSpec("T", (ColumnSpec("K", "STRING(8)", True), ColumnSpec("V", "INT64"), ColumnSpec("W", "STRING(8)")))
    history = History()
    partition = history.stream("S", [table], capture=capture).root()
    row = {"V": "2", "W": "x"}
    for change in (
        Change("T", "INSERT", {"K": "k"}, {"V": "1", "W": "x"}, {}),
        Change("T", "UPDATE", {"K": "k"}, row, {"V": "1"}),
        Change("T", "DELETE", {"K": "k"}, {}, row),
    ):
        history.commit([change])
    found = [
        ("".join(c.name for c in record.table.columns), *map(json.loads, record.mods[0]))
        for record in partition.records
    ]
    keys = {"K": "k"}
    assert found == [
        ("KVW", keys, {"V": "1", "W": "x"}, {}), (columns, keys, new, old), ("KVW", keys, {}, deleted),
    ]  # fmt: skip


def test_a_postgresql_database_answers_its_own_read_function_alone_with_json_texts() -> None:
    history = History()
    history.stream("S", [TABLE], tokens=random.Random(1)).root("root")
    at = history.commit([Change("T", "INSERT", {"K": "k"}, {"V": "1"}, {})])
    with StrictSpanner(history, dialect="POSTGRESQL", cut=0) as spanner, grpc.insecure_channel(spanner.endpoint) as to:
        stream = ChangeStream(name="S", database=DATABASE, endpoint=spanner.endpoint)
        found = ChangeStreamQuery(stream, to).run(at, token="root", end=at)
        [change] = [record for record in found if isinstance(record, DataChange)]
        assert (change.commit_timestamp, change.mods[0].keys, change.columns[1].type) == (at, '{"K":"k"}', "INT64")
        with pytest.raises(grpc.RpcError):
            list(PlainQuery(stream, to).run(at, token="root", end=at))


@pytest.mark.parametrize(
    ("mode", "other", "kind"),
    [("IMMUTABLE_KEY_RANGE", "proto_bytes", types.TypeCode.JSON), ("MUTABLE_KEY_RANGE", "json", types.TypeCode.BYTES)],
)
def test_a_stream_of_a_postgresql_database_has_the_read_function_of_its_mode_alone(
    channel: Any, mode: PartitionMode, other: str, kind: types.TypeCode
) -> None:
    history = RandomHistory(4, created=ago(5), partition_mode=mode, tables={"S": (TABLE,)}).play(2)
    with StrictSpanner(history, dialect="POSTGRESQL") as spanner:
        query = query_of(spanner, channel(spanner), "S")
        request = query.request(timestamps.now(), None, timestamps.now())
        values = [request.params.fields[name] for name in ("start", "end", "token", "heartbeat")]
        for place, value in enumerate(values, 1):
            request.params.fields[f"p{place}"].CopyFrom(value)

        def first(form: str) -> Any:
            request.sql = f'SELECT * FROM spanner."read_{form}_S"($1, $2, $3, $4, NULL)'
            return next(iter(query.execute(request)))

        assert refusal(lambda: first(other))[0] == "INVALID_ARGUMENT"
        answer = first("json" if other == "proto_bytes" else "proto_bytes")
        assert answer.metadata.row_type.fields[0].type_.code == kind
        request.sql = "SELECT `OPTION_VALUE` FROM INFORMATION_SCHEMA.CHANGE_STREAM_OPTIONS"
        request.params.Clear()
        assert refusal(lambda: list(query.execute(request)))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("partitions", [130, 5000])
def test_partitions_by_the_thousand_are_announced_each_once(channel: Any, partitions: int) -> None:
    history = RandomHistory(1, created=ago(3), rate=100, partitions=partitions, churn=0).play(2)
    with StrictSpanner(history) as spanner:
        roots = query_of(spanner, channel(spanner)).roots(timestamps.now())
        assert len({root.token for root in roots}) == len(roots) == partitions


def test_other_tables_have_values_of_each_type() -> None:
    kinds = [
        "BOOL",
        "INT64",
        "FLOAT64",
        "NUMERIC",
        "STRING(9)",
        "BYTES(9)",
        "DATE",
        "TIMESTAMP",
        "JSON",
        "ARRAY<INT64>",
    ]
    proto = '{"code":"PROTO","proto_type_fqn":"a.B"}'
    columns = (
        ColumnSpec("Id", "INT64", True),
        *(ColumnSpec(f"C{i}", k) for i, k in enumerate([*kinds, "UUID", proto])),
    )
    history = RandomHistory(1, tables={"S": (TableSpec("T", columns),)}, created=ago(4), rate=50).play(3)
    assert all(json.loads(e.keys)["Id"].isdigit() for e in history.entries())
    filled = {name for e in history.entries() for name, value in json.loads(e.new).items() if value is not None}
    assert filled == {c.name for c in columns[1:]}
    assert type_json("ARRAY<STRING(MAX)>") == '{"array_element_type":{"code":"STRING"},"code":"ARRAY"}'
    assert type_json(proto) == proto


# --- Queries ----------------------------------------------------------------------------------------------------------


def test_a_query_without_a_token_names_the_partitions_that_are_live_at_its_start(
    scripted: Scripted, channel: Any
) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        assert [r.token for r in query.roots(scripted.first)] == ["a", "b"]
        assert [r.token for r in query.roots(scripted.fourth)] == ["c"]
        assert list(query.run(scripted.fourth, token=None)) == [ChildPartitions((Child("c", scripted.fourth, ()),))]


def test_start_and_end_are_both_included(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        assert values(query.run(scripted.first, token="a", end=scripted.second)) == ["1", "2"]
        just_after = timestamps.after(scripted.first)
        assert values(query.run(just_after, token="a", end=scripted.second)) == ["2"]
        just_before = timestamps.from_nanos(timestamps.to_nanos(scripted.second) - 1)
        assert values(query.run(scripted.first, token="a", end=just_before)) == ["1"]


def test_nothing_is_committed_any_more_in_a_time_that_a_query_has_answered_for(channel: Any) -> None:
    moment = ago(10)
    history = History(created=ago(20), clock=lambda: moment)
    root = history.stream("S", [TABLE]).root("a")
    with StrictSpanner(history) as spanner:
        query, end = query_of(spanner, channel(spanner), "S"), timestamps.from_nanos(moment)
        assert values(query.run(timestamps.from_nanos(history.created), token="a", end=end)) == []
        # The clock is stalled, and yet the commit is later than what has been read.
        at = history.commit([Change("T", "INSERT", {"K": "k"}, {"V": "1"}, {}, root)])
        assert at > end
        with pytest.raises(ValueError, match="has been read"):
            history.commit([Change("T", "INSERT", {"K": "l"}, {"V": "1"}, {}, root)], at=end)


def test_both_parents_end_with_the_child_that_they_were_merged_into(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        start = timestamps.from_nanos(scripted.child.start)
        for token in "ab":
            *_, last = query.run(scripted.first, token=token)
            assert last == ChildPartitions((Child("c", start, ("a", "b")),))


@pytest.mark.parametrize("boundary", [True, False])
def test_children_that_start_at_the_very_end_of_a_query_are_returned_or_left_out(
    scripted: Scripted, channel: Any, boundary: bool
) -> None:
    with StrictSpanner(scripted.history, boundary_children=boundary) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        end = timestamps.from_nanos(scripted.child.start)
        records = list(query.run(scripted.first, token="a", end=end))
        assert any(isinstance(r, ChildPartitions) for r in records) == boundary
        assert any(isinstance(r, ChildPartitions) for r in query.run(end, token="a", end=end)) == boundary


def test_a_partition_that_is_idle_sends_heartbeats_and_then_what_is_committed(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history, min_heartbeat_millis=100) as spanner:
        records = query_of(spanner, channel(spanner), "S", heartbeat_millis=100).run(scripted.fourth, token="c")
        assert values([next(records)]) == ["4"]
        first, second = next(records), next(records)
        assert isinstance(first, Heartbeat) and isinstance(second, Heartbeat)
        at = scripted.put(scripted.child, "k9", 9)
        later = next(r for r in records if isinstance(r, DataChange))
        assert later.commit_timestamp == at
        assert first.timestamp < second.timestamp < at
        scripted.history.split(scripted.child, "d", "e")
        assert [c.token for r in records if isinstance(r, ChildPartitions) for c in r.children] == ["d", "e"]


def test_a_start_in_the_future_waits_for_it(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history) as spanner:
        moment = timestamps.from_nanos(time.time_ns() + SECOND // 3)
        assert query_of(spanner, channel(spanner), "S").roots(moment)
        assert timestamps.now() >= moment


def test_a_resume_token_continues_behind_the_response_that_had_it(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history, cut=0, max_response_bytes=1) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        end = scripted.second
        responses = list(query.execute(query.request(scripted.first, "a", end)))
        tokens = [r.resume_token for r in responses if r.resume_token]
        request = query.request(scripted.first, "a", end)
        request.resume_token = tokens[0]
        assert values(RecordReader("S").records(query.execute(request))) == ["2"]


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"start": "2020-01-01T00:00:00Z"}, "OUT_OF_RANGE", "too far in the past"),
        ({"start": "2100-01-01T00:00:00Z"}, "OUT_OF_RANGE", "too far in the future"),
        ({"end": "2020-01-01T00:00:00Z"}, "INVALID_ARGUMENT", "start_timestamp must be <= end_timestamp"),
        ({"start": None}, "INVALID_ARGUMENT", "start_timestamp must not be null"),
        ({"start": "yesterday"}, "INVALID_ARGUMENT", "Expected TIMESTAMP"),
        ({"token": "d"}, "INVALID_ARGUMENT", "does not belong to the Change Stream"),
        ({"token": "c"}, "OUT_OF_RANGE", "invalid for the partition"),
        ({"heartbeat": "10"}, "OUT_OF_RANGE", "must be within min 1000 and max 300000"),
        ({"heartbeat": "300001"}, "OUT_OF_RANGE", "must be within min 1000 and max 300000"),
    ],
)
def test_a_query_out_of_its_bounds_is_refused(
    scripted: Scripted, channel: Any, change: dict[str, str | None], code: str, says: str
) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        request = query.request(scripted.first, "a", scripted.second)
        for name, value in change.items():
            if value is None:
                request.params.fields[name].null_value = 0
            else:
                request.params.fields[name].string_value = value
        found, message = refusal(lambda: query.execute(request))
        assert found == code
        assert says in message


def test_a_start_before_the_retention_is_out_of_range(channel: Any) -> None:
    history = History(created=ago(100))
    history.stream("S", [TABLE], retention_seconds=50).root("a")
    with StrictSpanner(history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        assert refusal(lambda: query.roots(timestamps.from_nanos(ago(60))))[0] == "OUT_OF_RANGE"
        assert query.roots(timestamps.from_nanos(ago(40)))


def test_the_twenty_first_reader_of_a_partition_is_refused(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        calls = [query.run(scripted.fourth, token="c") for _ in range(20)]
        assert [values([next(call)]) for call in calls] == [["4"]] * 20
        assert refusal(lambda: query.run(scripted.fourth, token="c"))[0] == "RESOURCE_EXHAUSTED"
        assert spanner.counts()["max_readers_by_partition"]["c"] == 20


def test_a_connection_has_a_hundred_streams_and_what_is_above_waits_without_a_word(channel: Any) -> None:
    history = RandomHistory(1, created=ago(10), rate=10, partitions=130, churn=0).play(5)
    with StrictSpanner(history) as spanner:
        query = query_of(spanner, channel(spanner))
        calls: list[Any] = []
        roots = query.roots(timestamps.from_nanos(history.created))
        for root in roots:
            query.run(root.start, token=root.token, on_call=calls.append)
        until(lambda: spanner.counts()["open_queries"] == 100)
        # A call more on this connection is not even seen, whatever it asks for.
        assert refusal(lambda: query.execute(query.request(roots[0].start, None, None), timeout=0.3))[0] == (
            "DEADLINE_EXCEEDED"
        )
        counts = spanner.counts()
        assert counts["open_queries"] == counts["max_by_connection"] == 100
        # Over a second connection the others are read.
        other = query_of(spanner, channel(spanner))
        for root in roots:
            if root.token not in counts["queries_by_partition"]:
                other.run(root.start, token=root.token, on_call=calls.append)
        until(lambda: spanner.counts()["open_queries"] == 130)
        assert spanner.counts()["connections"] == 2
        for call in calls:
            call.cancel()
        until(lambda: spanner.counts()["open_queries"] == 0)
        assert spanner.counts()["max_by_connection"] == 100


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- Values that are cut ----------------------------------------------------------------------------------------------


def nested(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.random()
    if kind < 0.4 and depth < 5:
        return [nested(draw, depth + 1) for _ in range(draw.randrange(5))]
    return draw.choice([None, True, False, 1.5, "", "a", "ab", "längerer Text", "x" * 30])


def to_value(content: Any) -> struct_pb2.Value:
    made = struct_pb2.Value()
    if isinstance(content, list):
        made.list_value.SetInParent()
        made.list_value.values.extend(to_value(item) for item in content)
    elif isinstance(content, bool):
        made.bool_value = content
    elif content is None:
        made.null_value = struct_pb2.NULL_VALUE
    elif isinstance(content, float):
        made.number_value = content
    else:
        made.string_value = content
    return made


def joined(first: Any, rest: Any) -> Any:
    """Two parts of a value, by the rules of PartialResultSet.chunked_value, written down once more for this test."""
    if isinstance(first, str) and isinstance(rest, str):
        return first + rest
    assert isinstance(first, list) and isinstance(rest, list)
    if first and rest and type(first[-1]) is type(rest[0]) and isinstance(rest[0], str | list):
        return [*first[:-1], joined(first[-1], rest[0]), *rest[1:]]
    return first + rest


def to_content(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [to_content(v) for v in value.list_value.values]
    assert kind
    return None if kind == "null_value" else getattr(value, kind)


def test_a_value_that_is_cut_anywhere_any_number_of_times_is_the_same_when_it_is_joined() -> None:
    draw = random.Random(1)
    for _ in range(1500):
        content = [nested(draw) for _ in range(draw.randrange(1, 5))]
        value = to_value(content)
        parts, rest = [], value
        while rest is not None:
            head, rest, _ = _cut(rest, draw.randrange(25))
            parts.append(to_content(head))
            if len(parts) > 30 and rest is not None:
                parts.append(to_content(rest))
                break
        whole = parts[0]
        for part in parts[1:]:
            whole = joined(whole, part)
        assert whole == content
        # And our own reader's rules are the same.
        responses = [
            wire.Response(values=[to_value(part).SerializeToString()], chunked_value=i < len(parts) - 1)
            for i, part in enumerate(parts)
        ]
        assert [to_content(v) for v in put_together(responses)] == [content]


def test_a_row_that_is_longer_than_a_response_comes_in_pieces(channel: Any) -> None:
    history = History(created=ago(10))
    table = TableSpec("T", (ColumnSpec("K", "STRING(8)", True), ColumnSpec("V", "STRING(MAX)")))
    root = history.stream("S", [table]).root("a")
    history.commit([Change("T", "INSERT", {"K": "k"}, {"V": "é" * 1_000_000}, {}, root)], at=ago(5))
    with StrictSpanner(history, cut=0, max_response_bytes=100_000) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        responses = list(query.execute(query.request(timestamps.from_nanos(history.created), "a", timestamps.now())))
        assert len(responses) > 9
        assert max(r.ByteSize() for r in responses) < 250_000
        assert [len(v) for v in values(RecordReader("S").records(responses))] == [1_000_000]


# --- Faults -----------------------------------------------------------------------------------------------------------


def test_a_call_that_breaks_in_the_middle_of_a_row_leaves_a_row_that_is_not_whole(
    scripted: Scripted, channel: Any
) -> None:
    with StrictSpanner(scripted.history, cut=0) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        assert query.roots(scripted.first)
        spanner.fail("UNAVAILABLE", where="mid_row", count=1)
        call = query.execute(query.request(scripted.first, "a", scripted.second))
        assert next(call).chunked_value
        assert refusal(lambda: call)[0] == "UNAVAILABLE"
        assert values(query.run(scripted.first, token="a", end=scripted.second)) == ["1", "2"]


@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAVAILABLE"])
def test_calls_are_refused_until_the_fault_is_healed(scripted: Scripted, channel: Any, code: str) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        spanner.fail(code)
        assert refusal(lambda: query.roots(scripted.first))[0] == code
        assert refusal(lambda: query.roots(scripted.first))[0] == code
        spanner.heal()
        assert query.roots(scripted.first)
        assert spanner.counts()["errors"] == {code: 2}


def test_a_fault_ends_by_itself_after_its_seconds_or_its_count(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        spanner.fail("UNAVAILABLE", count=2, stream="S")
        assert [refusal(lambda: query.roots(scripted.first))[0] for _ in range(2)] == ["UNAVAILABLE"] * 2
        assert query.roots(scripted.first)
        spanner.fail("PERMISSION_DENIED", seconds=0.2)
        assert refusal(lambda: query.roots(scripted.first))[0] == "PERMISSION_DENIED"
        time.sleep(0.25)
        assert query.roots(scripted.first)


def test_a_query_that_ends_early_ends_well_and_without_children(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        records = query.run(scripted.fourth, token="c")
        assert values([next(records)]) == ["4"]
        spanner.end_early(token="c")
        assert list(records) == []


def test_a_session_that_has_ended_is_not_found_and_says_so_as_google_does(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        records = query.run(scripted.fourth, token="c")
        assert values([next(records)]) == ["4"]
        spanner.end_sessions()
        assert refusal(lambda: records)[0] == "NOT_FOUND"
        with pytest.raises(grpc.RpcError) as caught:
            query.roots(scripted.first)
        assert caught.value.details() == f"Session not found: {query.session}"
        details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
        info = error_details_pb2.ResourceInfo()
        assert status_pb2.Status.FromString(details).details[0].Unpack(info)
        assert info.resource_name == query.session
        query.forget_session()
        assert query.roots(scripted.first)


def test_a_session_that_nobody_made_is_not_found(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history, database=DATABASE) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        query.session = f"{DATABASE}/sessions/x"
        assert refusal(lambda: query.roots(scripted.first))[0] == "NOT_FOUND"
        elsewhere = PlainQuery(ChangeStream(name="S", database=f"{DATABASE}2"), channel(spanner))
        code, message = refusal(lambda: elsewhere.roots(scripted.first))
        assert (code, message) == ("NOT_FOUND", f"Database not found: {DATABASE}2")


def test_connections_that_are_dropped_end_their_calls_and_can_be_made_again(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        records = query.run(scripted.fourth, token="c")
        assert values([next(records)]) == ["4"]
        before = spanner.endpoint
        spanner.drop_connections()
        assert refusal(lambda: records)[0] in ("UNAVAILABLE", "CANCELLED")
        assert spanner.endpoint == before
        assert query_of(spanner, channel(spanner), "S").roots(scripted.first)
        spanner.down()
        assert refusal(lambda: query_of(spanner, channel(spanner), "S").roots(scripted.first))[0] == "UNAVAILABLE"
        spanner.up()
        assert query_of(spanner, channel(spanner), "S").roots(scripted.first)


def test_a_frozen_server_answers_nothing_and_refuses_nothing(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history) as spanner:
        query = query_of(spanner, channel(spanner), "S")
        assert query.roots(scripted.first)
        spanner.freeze()
        call = query.execute(query.request(scripted.first, "a", scripted.second), timeout=0.2)
        assert refusal(lambda: call)[0] == "DEADLINE_EXCEEDED"
        spanner.thaw()
        assert query.roots(scripted.first)


def test_fields_of_tomorrow_are_behind_those_of_today_at_every_level(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history, cut=0, root_parents="empty") as spanner:
        query = query_of(spanner, channel(spanner), "S")

        def rows() -> list[Any]:
            call = query.execute(query.request(scripted.first, "a", None))
            return [to_content(v) for v in put_together(call)]

        today = rows()
        spanner.extra_fields()
        tomorrow = rows()
        assert len(today[0][0]) == 3 and len(tomorrow[-1][0]) == 4
        assert _today(tomorrow[0][0], today[0][0])
        data = tomorrow[0][0][0][0]
        assert (len(data), len(data[5][0]), len(data[6][0])) == (14, 5, 4)


def _today(tomorrow: Any, today: Any) -> bool:
    """Whether everything of today is there, in its place."""
    if isinstance(today, list):
        return len(tomorrow) >= len(today) and all(map(_today, tomorrow, today))
    return bool(tomorrow == today)


def test_a_parent_that_nobody_announces_is_named_when_it_is_asked_for(scripted: Scripted, channel: Any) -> None:
    with StrictSpanner(scripted.history) as spanner:
        spanner.unannounced_parents()
        *_, last = query_of(spanner, channel(spanner), "S").run(scripted.first, token="a")
        assert isinstance(last, ChildPartitions)
        assert len(last.children[0].parents) == 3
        assert set(last.children[0].parents) - set(scripted.stream.partitions)


# --- The other partition mode -----------------------------------------------------------------------------------------


def test_a_stream_of_mutable_key_ranges_says_so_and_sends_records_of_its_own(channel: Any) -> None:
    history = RandomHistory(4, created=ago(21), rate=20, churn=4, partition_mode="MUTABLE_KEY_RANGE").play(20)
    with StrictSpanner(history) as spanner:
        query = query_of(spanner, channel(spanner))
        start, end = timestamps.from_nanos(history.created), timestamps.now()

        def records(token: str | None) -> list[Any]:
            call = query.execute(query.request(start, token, end))
            reader = change_stream.ChangeStreamRecord.pb()
            return [reader.FromString(base64.b64decode(v.string_value)) for v in put_together(call)]

        assert refusal(lambda: query.execute(query.request(start, None, None)))[0] == "INVALID_ARGUMENT"
        starts = records(None)
        assert [r.WhichOneof("record") for r in starts] == ["partition_start_record"] * 4
        found: Counter[str] = Counter()
        for token in (t for r in starts for t in r.partition_start_record.partition_tokens):
            for record in records(token):
                found[record.WhichOneof("record")] += 1
        assert found["data_change_record"] and found["partition_end_record"] and found["partition_event_record"]
        sql = (
            "SELECT s.CHANGE_STREAM_NAME, o.OPTION_VALUE FROM INFORMATION_SCHEMA.CHANGE_STREAMS AS s LEFT JOIN "
            "INFORMATION_SCHEMA.CHANGE_STREAM_OPTIONS AS o ON o.CHANGE_STREAM_NAME = s.CHANGE_STREAM_NAME "
            "AND o.OPTION_NAME = 'partition_mode'"
        )
        request = query.request(start, None, None)
        request.sql = sql
        request.params.Clear()
        (response,) = query.execute(request)
        assert [v.string_value for v in response.values] == [STREAM, "MUTABLE_KEY_RANGE", LOGS, "MUTABLE_KEY_RANGE"]


# --- As a process -----------------------------------------------------------------------------------------------------


def test_as_a_process_it_serves_is_controlled_and_keeps_a_ledger(tmp_path: Path) -> None:
    ports, ledger = tmp_path / "ports.json", tmp_path / "ledger.jsonl"
    command = [
        sys.executable,
        "-m",
        "tests.strict.spanner",
        "--seed",
        "3",
        "--rate",
        "500",
        "--commits",
        "60",
        "--paused",
    ]
    command += [
        "--ledger",
        str(ledger),
        "--port-file",
        str(ports),
        "--with-history",
        "5",
        "--schema-change",
        "0:audit_logs:X:INT64",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until(ports.exists)
            where = json.loads(ports.read_text())

            def control(name: str, **arguments: Any) -> Any:
                body = json.dumps(arguments).encode()
                with urllib.request.urlopen(f"{where['control']}/{name}", data=body, timeout=10) as answer:
                    return json.loads(answer.read())["ok"]

            before = control("counts")["transactions"]
            control("start", commits=60)
            until(lambda: control("counts")["transactions"] >= before + 60)
            control("stop")
            with grpc.insecure_channel(where["endpoint"]) as connection:
                query = PlainQuery(ChangeStream(name=LOGS, database=DATABASE), connection)
                control("fail", code="UNAVAILABLE", count=1)
                assert refusal(lambda: query.roots(where["created"]))[0] == "UNAVAILABLE"
                found = read_all(query, LOGS, where["created"], timestamps.now())
            lines = [line for line in read_ledger(ledger) if line["stream"] == LOGS]
            assert len(lines) == found.total() > 60
            key = ("stream", "commit_timestamp", "server_transaction_id", "record_sequence", "mod_index")
            assert {tuple(line[k] for k in key) for line in lines} == {f[:5] for f in found}
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


# --- Against the real emulator ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Endpoint and database of an emulator whose partitions end within two seconds, with the product's schema."""
    launched = emulators.launch_spanner(logs=tmp_path_factory.mktemp("emulator"), partition_seconds=1)
    with launched.process:
        emulators.await_spanner(launched)
        client = emulators.spanner_client(launched.endpoint)
        instance = client.instance(INSTANCE, configuration_name=f"projects/{PROJECT}/instanceConfigs/emulator-config")
        instance.create().result(30)
        database = instance.database("audit-db", ddl_statements=schema.statements())
        database.create().result(60)
        yield launched.endpoint, database


class OnTheStandIn:
    """Plays a script of rows on a History: what Spanner would capture, with NEW_ROW_AND_OLD_VALUES."""

    def __init__(self) -> None:
        self.history = History(created=ago(60))
        for name, tables in product_tables().items():
            self.history.stream(name, tables).root()
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.tables = {t.name: t for s in self.history.streams.values() for t in s.tables.values()}

    def commit(self, *operations: tuple[str, str, dict[str, Any]]) -> None:
        changes = []
        for kind, table, given in operations:
            keys = {"PUID": given["PUID"]}
            place, rest = (table, given["PUID"]), {k: v for k, v in given.items() if k != "PUID"}
            if kind == "insert":
                self.rows[place] = {c.name: rest.get(c.name) for c in self.tables[table].values}
                changes.append(Change(table, "INSERT", keys, dict(self.rows[place]), {}))
            elif kind == "update":
                old = {k: self.rows[place][k] for k in rest}
                self.rows[place] |= rest
                changes.append(Change(table, "UPDATE", keys, dict(self.rows[place]), old))
            else:
                changes.append(Change(table, "DELETE", keys, {}, self.rows.pop(place)))
        self.history.commit(changes)


class OnTheEmulator:
    def __init__(self, database: Any) -> None:
        self._database = database

    def commit(self, *operations: tuple[str, str, dict[str, Any]]) -> None:
        from google.cloud.spanner import KeySet

        with self._database.batch() as batch:
            for kind, table, given in operations:
                if kind == "delete":
                    batch.delete(table, KeySet(keys=[[given["PUID"]]]))
                else:
                    getattr(batch, kind)(table, list(given), [list(given.values())])


def script(on: OnTheStandIn | OnTheEmulator) -> None:
    table, log = "payment_audit_trail", "audit_logs"
    base = {"Action": "CREATE", "Timestamp": "2026-11-23T09:00:00Z"}
    one = base | {
        "PUID": "p1",
        "Status": "INITIATED",
        "Amount": "1.5",
        "Metadata": '{"a":[1,"é"],"b":null}',
        "RetryCount": "3",
    }
    on.commit(("insert", table, one), ("insert", table, base | {"PUID": "p2"}), ("insert", log, base | {"PUID": "p1"}))
    on.commit(
        ("update", table, {"PUID": "p1", "Status": "SETTLED", "CreatedAt": "2026-11-23T09:00:01Z"}),
        ("insert", table, base | {"PUID": "p3", "CustomerId": "c"}),
        ("update", table, {"PUID": "p2", "Status": None, "Amount": "2"}),
    )
    on.commit(("delete", table, {"PUID": "p1"}), ("update", log, {"PUID": "p1", "ErrorDetails": "x"}))


def play_back(endpoint: str, database: str, stream: str, start: str, until: str) -> dict[str, Any]:
    """What a service sends: types, the data rows without times and numbers, and the shapes of the other rows."""
    with grpc.insecure_channel(endpoint) as connection:
        query = PlainQuery(ChangeStream(name=stream, database=database, heartbeat_millis=100), connection)
        data: list[Any] = []
        shapes: dict[str, Any] = {}
        metadata = set()
        waiting = {root.token: start for root in query.roots(start)}
        while waiting:
            token, at = waiting.popitem()
            responses = list(query.execute(query.request(at, token, None)))
            metadata.add(responses[0].metadata.SerializeToString(deterministic=True))
            for value in put_together(responses):
                ((changes, heartbeats, children),) = to_content(value)
                data += [(c[0], c[2], [*c[1:2], *c[3:]]) for c in changes]
                for name, records in (("heartbeat", heartbeats), ("children", children)):
                    shapes |= dict.fromkeys([name][: len(records)], shape(records))
                # A partition of the emulator may end between two commits of the script.
                waiting |= {c[0]: r[0] for r in children for c in r[2] if r[0] <= until}
        first = [to_content(v) for v in put_together(query.execute(query.request(start, None, None)))]
    transactions: dict[str, int] = {}
    rows = [(transactions.setdefault(number, len(transactions)), record) for _, number, record in sorted(data)]
    return {"rows": rows, "metadata": metadata, "roots": shape(first[0]), **shapes}


def shape(content: Any) -> Any:
    """A value's nesting and kinds, the first item standing for all of a list of equal ones."""
    if isinstance(content, list):
        kinds = [shape(item) for item in content]
        return kinds[:1] if all(k == kinds[0] for k in kinds) and kinds else kinds
    return type(content).__name__


def test_the_emulator_sends_the_same_for_the_same_script(emulator: tuple[str, Any]) -> None:
    endpoint, database = emulator
    real = OnTheEmulator(database)
    start = timestamps.now()
    script(real)
    end = timestamps.now()
    ours = OnTheStandIn()
    mine = timestamps.now()
    script(ours)
    with StrictSpanner(ours.history, min_heartbeat_millis=100, root_parents="empty") as spanner:

        def end_the_partitions() -> None:
            until(lambda: spanner.counts()["heartbeats"] > 1)
            for stream in ours.history.streams.values():
                ours.history.split(stream.live[0])

        threading.Thread(target=end_the_partitions).start()
        # Whether a heartbeat fits between two records is a matter of the machine's speed: of some query each sends one.
        beats: tuple[list[Any], list[Any]] = ([], [])
        for stream in (STREAM, LOGS):
            theirs = play_back(endpoint, database.name, stream, start, end)
            sent = play_back(spanner.endpoint, DATABASE, stream, mine, mine)
            for kept, found in zip(beats, (sent, theirs), strict=True):
                kept.extend(found.pop("heartbeat", []))
            assert sent == theirs
            assert len(theirs["rows"]) == {STREAM: 4, LOGS: 2}[stream]
            assert theirs["children"]
        assert beats[0] and beats[1]
        assert beats[0][0] == beats[1][0]


def test_the_emulator_refuses_the_same_with_the_same_words(emulator: tuple[str, Any]) -> None:
    endpoint, database = emulator
    history = History(created=ago(30))
    for name, tables in product_tables().items():
        history.stream(name, tables).root()
    now = timestamps.now()

    def ask(query: PlainQuery, how: Callable[[Any], None]) -> tuple[str, str]:
        request = query.request(now, None, None)
        how(request)
        code, message = refusal(lambda: query.execute(request))
        # Times differ, the database's name does, and the emulator may quote the query.
        first_line = message.partition("\n")[0].replace(database.name, DATABASE)
        return code, " ".join(word for word in first_line.split() if "+00:00" not in word)

    def text(name: str, value: str) -> Callable[[Any], None]:
        def put(request: Any) -> None:
            request.params.fields[name].string_value = value

        return put

    def begin(request: Any) -> None:
        request.ClearField("transaction")
        request.transaction.begin.read_only.strong = True

    def stale(request: Any) -> None:
        request.ClearField("transaction")
        request.transaction.single_use.read_only.exact_staleness.seconds = 1

    def combined(request: Any) -> None:
        request.sql = request.sql.replace("SELECT ChangeRecord", "SELECT *, 1")

    def unknown(request: Any) -> None:
        request.sql = request.sql.replace(STREAM, "Nope")

    def session(request: Any) -> None:
        request.session = f"{request.session.rpartition('/')[0]}/nope"

    asked = [
        text("start", "2020-01-01T00:00:00Z"),
        text("start", "2100-01-01T00:00:00Z"),
        text("end", "2020-01-01T00:00:00Z"),
        text("heartbeat", "10"),
        begin,
        stale,
        combined,
        unknown,
        session,
    ]
    with (
        StrictSpanner(history, min_heartbeat_millis=100) as spanner,
        grpc.insecure_channel(endpoint) as theirs,
        grpc.insecure_channel(spanner.endpoint) as ours,
    ):
        real = PlainQuery(ChangeStream(name=STREAM, database=database.name), theirs)
        mine = PlainQuery(ChangeStream(name=STREAM, database=DATABASE), ours)
        for how in asked:
            assert ask(mine, how) == ask(real, how)


def test_everything_else_reaches_the_emulator_behind_it(emulator: tuple[str, Any]) -> None:
    endpoint, database = emulator
    history = RandomHistory(1, created=ago(5), rate=20).play(4)
    with StrictSpanner(history, emulator=endpoint) as spanner:
        client = emulators.spanner_client(spanner.endpoint)
        behind = client.instance(INSTANCE).database("audit-db")
        assert behind.exists()
        with behind.batch() as batch:
            batch.insert("audit_logs", ["PUID", "Action", "Timestamp"], [["behind", "A", "2026-11-23T09:00:00Z"]])
        with behind.snapshot() as snapshot:
            rows = list(snapshot.execute_sql("SELECT Action FROM audit_logs WHERE PUID = 'behind'"))
        assert rows == [["A"]]
        assert (
            behind.run_in_transaction(lambda t: t.execute_update("DELETE FROM audit_logs WHERE PUID = 'behind'")) == 1
        )
        # With the very session that the emulator made, change streams are those of the history.
        with grpc.insecure_channel(spanner.endpoint) as connection:
            query = PlainQuery(ChangeStream(name=STREAM, database=database.name), connection)
            start = timestamps.from_nanos(history.created)
            assert read_all(query, STREAM, start, timestamps.now()) == committed(history, STREAM)
            with pytest.raises(grpc.RpcError) as caught:
                PlainQuery(ChangeStream(name=STREAM, database=f"{database.name}x"), connection).roots(start)
            assert caught.value.details() == f"Database not found: {database.name}x"
            assert "grpc-status-details-bin" in dict(caught.value.trailing_metadata())
            spanner.end_sessions(everywhere=True)
            assert refusal(lambda: query.roots(start))[0] == "NOT_FOUND"
