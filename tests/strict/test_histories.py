"""Drawn histories through the job: what arrives is what an oracle says, in every way to carry them."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Final, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import tables
from contract.changes import CAPTURE_TYPES
from contract.timestamps import from_nanos
from pipeline.sink import rows
from pipeline.sink.changelogs import names_in, schema_field
from pipeline.source import wire
from pipeline.source.partition_threads import Reading
from pipeline.source.proto_records import ProtoReader
from pipeline.source.query import ChangeStream
from pipeline.source.records import DataChange, RecordReader
from tests.strict.drawn import (
    DESCRIBED,
    GOOGLE_SQL,
    OF_RECORDS,
    POSTGRESQL,
    Drawn,
    Rendering,
    TablesThen,
    arrived,
    differences,
    expected,
    first_columns,
    histories,
    present,
    render,
)
from tests.strict.history import SECOND, History, PartitionMode, StreamHistory
from tests.strict.one_process import Faults, Job, Steps, Warehouse, masking_keys
from tests.strict.spanner import StrictSpanner, responses

DATABASE: Final = "projects/p/instances/i/databases/d"
CREATED: Final = 1_780_000_000 * SECOND
MODES: Final[tuple[PartitionMode, ...]] = ("IMMUTABLE_KEY_RANGE", "MUTABLE_KEY_RANGE")
DIALECTS: Final = (GOOGLE_SQL, POSTGRESQL)
WAYS: Final = tuple(Rendering(*way) for way in product(DIALECTS, MODES, CAPTURE_TYPES))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    return masking_keys(tmp_path_factory.mktemp("keys"))


def read(stream: StreamHistory, dialect: str, draw: random.Random) -> list[DataChange]:
    """The stream's records, from what a query of each partition returns; some responses are cut."""
    reader = ProtoReader(stream.name) if stream.partition_mode == "MUTABLE_KEY_RANGE" else RecordReader(stream.name)
    return [
        record
        for partition in stream.partitions.values()
        for record in reader.records(map(wire.Response.FromString, responses(stream, partition.records, dialect, draw)))
        if isinstance(record, DataChange)
    ]


def rows_of(drawn: Drawn, way: Rendering, made: History, keys: str, draw: random.Random) -> dict[str, dict[str, Any]]:
    """What the job makes of a history in one way, up to the rows of its requests, by `change id@table`."""
    records = read(made.streams[way.stream], way.dialect, draw)
    draw.shuffle(records)
    steps = Steps(keys, TablesThen(drawn, way.dialect, made.created), shards=1)
    known = {name: {f.name.casefold(): schema_field(f) for f in fields_of(drawn, way, name)} for name in drawn.columns}
    found: list[dict[str, Any]] = []
    while records:
        some = [records.pop() for _ in range(min(len(records), draw.randint(1, 6)))]
        for _, encoded in steps.bundle(some)[0]:
            names = names_in(known[encoded.table], rows.fields(encoded.columns, DESCRIBED.of(encoded.table)))
            for row in rows.merge([encoded.data]).to_pylist():
                assert row.pop(rows.STREAM) == way.stream
                found.append(arrived({names[name]: value for name, value in row.items()}))
    by_id = {f"{row[tables.CHANGE_ID]}@{row[tables.TABLE_NAME]}": row for row in found}
    assert len(by_id) == len(found)
    return by_id


def fields_of(drawn: Drawn, way: Rendering, table: str) -> Sequence[tables.Field]:
    """The changelog as it was made at first."""
    return tables.changelog_table(DESCRIBED.of(table), first_columns(drawn, table, way.dialect)).fields


def right(drawn: Drawn, way: Rendering, made: History) -> dict[str, dict[str, Any]]:
    """What the oracle says."""
    found = expected(drawn, way.capture, made.streams[way.stream], made.created)
    return {change: present(row) for change, row in found.items()}


# What a row says of the values before its change.
OF_OLD_VALUES: Final = frozenset(
    {tables.OLD_VALUES, tables.PREVIOUS_PAYMENT_STATE, tables.PREVIOUS_PAYMENT_STATE_AT, tables.TRANSITION_EXPECTED}
    | {tables.CARD_TOKENS}
)


def comparable(found: dict[str, dict[str, Any]], *without: frozenset[str]) -> dict[Any, dict[str, Any]]:
    """The rows by commit timestamp, table and key, without some columns and those of how records are cut."""
    left_out = OF_RECORDS.union(*without)
    return {
        (row[tables.COMMIT_TIMESTAMP_NANOS], row[tables.TABLE_NAME], row["Id"], row.get("Part")): {
            name: value for name, value in row.items() if name not in left_out
        }
        for row in found.values()
    }


@settings(max_examples=80)
@given(drawn=histories(), seed=st.integers(0, 2**32))
def test_a_history_gives_the_same_rows_in_both_modes_both_dialects_and_every_capture_type(
    keys: str, drawn: Drawn, seed: int
) -> None:
    draw = random.Random(seed)
    made = {dialect: render(drawn, [way for way in WAYS if way.dialect == dialect], CREATED) for dialect in DIALECTS}
    found: dict[str, list[dict[str, dict[str, Any]]]] = defaultdict(list)
    for way in WAYS:
        rows_found = rows_of(drawn, way, made[way.dialect], keys, draw)
        assert differences(right(drawn, way, made[way.dialect]), rows_found) == [], way
        found[way.capture].append(rows_found)
    for same in found.values():
        assert len(same) == len(DIALECTS) * len(MODES)
        assert all(one == same[0] for one in same)
    # docs/types.md, "Value capture types".
    whole = found["NEW_ROW_AND_OLD_VALUES"][0]
    assert comparable(found["NEW_ROW"][0], OF_OLD_VALUES) == comparable(whole, OF_OLD_VALUES)
    assert tables.OLD_VALUES not in {name for row in found["NEW_ROW"][0].values() for name in row}
    for capture, without in (("OLD_AND_NEW_VALUES", frozenset[str]()), ("NEW_VALUES", OF_OLD_VALUES)):
        partial, all_of = comparable(found[capture][0], without), comparable(whole, without)
        assert partial.keys() == all_of.keys()
        for change, row in partial.items():
            if not row.get(tables.IS_INCOMPLETE):
                assert row == all_of[change]


@settings(max_examples=40)
@given(
    drawn=histories(dialects=[POSTGRESQL]),
    mode=st.sampled_from(MODES),
    capture=st.sampled_from(CAPTURE_TYPES),
    seed=st.integers(0, 2**32),
)
def test_values_that_one_dialect_alone_has_arrive_as_documented(
    keys: str, drawn: Drawn, mode: PartitionMode, capture: str, seed: int
) -> None:
    way = Rendering(POSTGRESQL, mode, capture)
    made = render(drawn, [way], CREATED)
    found = rows_of(drawn, way, made, keys, random.Random(seed))
    assert differences(right(drawn, way, made), found) == []


# --- Through the whole job --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spanners() -> Iterator[dict[str, StrictSpanner]]:
    """A strict Spanner for each dialect; a test gives them a history."""
    made = {dialect: StrictSpanner(History(created=0), dialect=dialect, cut=0.3) for dialect in DIALECTS}
    for spanner in made.values():
        spanner.start()
    yield made
    for spanner in made.values():
        spanner.stop()


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Warehouse]:
    made = Warehouse()
    yield made
    made.stop()


BUNDLES: Final = st.tuples(st.integers(1, 4), st.sampled_from(["kept", "lost", "given up", "handed over"]))
APPENDS: Final = st.sampled_from(["works", "state lost", "answer lost", "waits"])
ENDS: Final = st.tuples(st.integers(1, 6), st.sampled_from(["killed", "drained"]), st.integers(1, 4))
FAULTS: Final = st.builds(
    Faults,
    bundles=st.lists(BUNDLES, min_size=2, max_size=12),
    appends=st.lists(APPENDS, max_size=8),
    ends=st.lists(ENDS, max_size=2),
)
CASES: Final = st.sampled_from(WAYS).flatmap(
    lambda way: st.tuples(st.just(way), histories(dialects=[way.dialect], most_steps=16))
)


@settings(max_examples=40)
@given(
    case=CASES,
    faults=FAULTS,
    readers=st.integers(1, 4),
    mode=st.sampled_from(["tail", "windows"]),
)
def test_each_change_arrives_once_and_right_however_the_job_is_killed(
    keys: str,
    spanners: dict[str, StrictSpanner],
    warehouse: Warehouse,
    case: tuple[Rendering, Drawn],
    faults: Faults,
    readers: int,
    mode: Literal["tail", "windows"],
) -> None:
    way, drawn = case
    created = (time.time_ns() // SECOND - 120) * SECOND
    made = render(drawn, [way], created)
    spanner = spanners[way.dialect]
    spanner.history = made
    warehouse.empty(drawn, way.dialect)
    stream = ChangeStream(name=way.stream, database=DATABASE, endpoint=spanner.endpoint)
    reading = Reading(mode=mode, window_millis=20, end=from_nanos(created + drawn.length + 1))
    then = TablesThen(drawn, way.dialect, created)
    job = Job(stream, reading, lambda shards: Steps(keys, then, shards), warehouse)
    job.run(from_nanos(created), readers, faults)
    found = [arrived(row) for row in warehouse.rows(drawn)]
    by_id = {f"{row[tables.CHANGE_ID]}@{row[tables.TABLE_NAME]}": row for row in found}
    assert differences(right(drawn, way, made), by_id) == []
    assert len(by_id) == len(found), "a row is there twice"
