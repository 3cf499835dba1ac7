"""Histories that hypothesis draws, and the rows that must come of them.

`histories` draws tables of any types, transactions, DDL between them, splits, merges and moves of partitions. `render`
writes one as a strict Spanner's streams, in any partition mode and value capture type. `expected` says which rows the
changelogs then have: in plain Python, from what was drawn, without the product's conversions. A value is drawn with
what becomes of it; the rules are those of docs/types.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import random
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final, Literal, NamedTuple

from google.api_core.exceptions import NotFound
from hypothesis import strategies as st

from contract.changes import Column
from contract.timestamps import from_nanos, to_nanos
from contract.watched import WatchedColumn, WatchedTable, WatchedTables
from tests.shipped import WATCHED
from tests.strict.history import (
    SECOND,
    Change,
    ColumnSpec,
    DataRecord,
    History,
    PartitionMode,
    StreamHistory,
    TableSpec,
)
from tests.strict.history import Row as Encoded

GOOGLE_SQL: Final = "GOOGLE_STANDARD_SQL"
POSTGRESQL: Final = "POSTGRESQL"
DATASET: Final = "drawn"
KEY: Final = bytes(range(32))
# The transaction tag that the job leaves out.
IGNORED_TAG: Final = "batch-job"

Row = dict[str, "Value"]
Key = tuple[tuple[str, str], ...]


# --- Values: what Spanner writes, and what must become of it ----------------------------------------------------------


class Value(NamedTuple):
    """As Spanner writes it; in its column, among the exact values (None: the column holds all), among old values."""

    spanner: Any
    column: Any
    exact: Any = None
    old: Any = None

    def __repr__(self) -> str:
        return repr(self.spanner)


NULL: Final = Value(None, None)


class Json(str):
    """A JSON text: equal to any text of the same content."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and json.loads(self) == json.loads(other)

    def __ne__(self, other: object) -> bool:
        return not self == other


class Nan(float):
    """NaN, equal to itself."""

    __slots__ = ()
    __hash__ = float.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and math.isnan(other)

    def __ne__(self, other: object) -> bool:
        return not self == other


class Kind(NamedTuple):
    """A column's type: in both dialects ("": not there), that of its BigQuery column, and its values.

    `wide`: further values, which the other dialect's type does not have.
    """

    google: str
    postgresql: str
    bigquery: str
    values: st.SearchStrategy[Value]
    wide: st.SearchStrategy[Value] | None = None

    def named(self, dialect: str) -> str:
        return self.postgresql if dialect == POSTGRESQL else self.google


def text(value: str) -> Value:
    return Value(value, value, None, value)


def whole(number: int) -> Value:
    return Value(str(number), number, None, str(number))


def binary(value: bytes) -> Value:
    written = base64.b64encode(value).decode()
    return Value(written, value, None, written)


def double(number: float) -> Value:
    return Value(number, number, None, repr(number))


def single(number: float) -> Value:
    """A float32, which Spanner writes with as many digits as it needs."""
    kept = struct.unpack("f", struct.pack("f", number))[0]
    return Value(number, kept, None, repr(kept))


def decimal(number: Decimal) -> Value:
    written = format(number, "f")
    return Value(written, number, None, written)


def wide_decimal(written: str) -> Value:
    """A numeric of PostgreSQL that NUMERIC holds in part, or not at all."""
    number = Decimal(written)
    if number.is_nan() or abs(number) >= 10**29:
        return Value(written, None, written, written)
    cut = number.quantize(Decimal("1e-9"), ROUND_DOWN)
    return Value(written, cut, None if cut == number else written, written)


def moment(seconds: int, nanos: int) -> Value:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    begins = f"{at:%Y-%m-%dT%H:%M:%S}"
    written = f"{begins}{fraction}Z"
    return Value(written, at, f"{begins}.{nanos:09d}Z" if nanos % 1000 else None, written)


def day(of: date) -> Value:
    return Value(of.isoformat(), of, None, of.isoformat())


def document(content: Any) -> Value:
    written = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Value(written, Json(written), None, Json(written))


def changed_document(written: str, kept: str) -> Value:
    """A JSON text with a number that BigQuery's JSON does not keep."""
    return Value(written, Json(kept), Json(written), Json(written))


def array(elements: Sequence[Value]) -> Value:
    lost = not elements or any(each.spanner is None or each.exact is not None for each in elements)
    old = [each.old for each in elements]
    held = [each.column for each in elements if each.column is not None]
    return Value([each.spanner for each in elements], held, old if lost else None, old)


_TEXT: Final = st.text("ab é山'\"\\\n{,", max_size=5)
_FLOATS: Final = [Value(name, float(name), None, name) for name in ("Infinity", "-Infinity")]
_NAN: Final = Value("NaN", Nan("nan"), None, "NaN")
_EIGHTHS: Final = st.integers(-1000, 1000).map(lambda n: n / 8)
_LEAVES: Final = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from([0.5, -2.25]), _TEXT)
_DOCUMENTS: Final = st.one_of(_LEAVES, st.lists(_LEAVES, max_size=2), st.dictionaries(st.sampled_from("ab"), _LEAVES))
_LARGE: Final = f"{'9' * 45}.{'3' * 12}"

_SCALARS: Final = (
    Kind("INT64", "INT64", "INT64", st.sampled_from([0, 7, -(10**9), 2**53 + 1]).map(whole)),
    Kind("FLOAT64", "FLOAT64", "FLOAT64", _EIGHTHS.map(double) | st.sampled_from([double(0.1), _NAN, *_FLOATS])),
    Kind("FLOAT32", "FLOAT32", "FLOAT64", _EIGHTHS.map(single) | st.sampled_from([single(0.1), _NAN])),
    Kind(
        "NUMERIC",
        "PG_NUMERIC",
        "NUMERIC",
        st.sampled_from(["0", "-1.5", "123456.789", "0.000000001", f"{'9' * 29}.5"]).map(Decimal).map(decimal),
        st.sampled_from(["NaN", "1.10", "-0.1234567899", "0.1200000000000", _LARGE, f"-{_LARGE}"]).map(wide_decimal),
    ),
    Kind("BOOL", "BOOL", "BOOL", st.booleans().map(lambda b: Value(b, b, None, b))),
    Kind("STRING", "STRING", "STRING", _TEXT.map(text)),
    Kind("BYTES", "BYTES", "BYTES", _TEXT.map(str.encode).map(binary)),
    Kind("DATE", "DATE", "DATE", st.dates(date(1999, 1, 1), date(2030, 1, 1)).map(day)),
    Kind(
        "TIMESTAMP",
        "TIMESTAMP",
        "TIMESTAMP",
        st.builds(moment, st.integers(0, 99), st.sampled_from([0, 500_000_000, 123_456_000, 123_456_789, 1])),
    ),
    Kind(
        "JSON",
        "PG_JSONB",
        "JSON",
        _DOCUMENTS.map(document)
        | st.sampled_from(
            [
                changed_document('{"rate": 67.174118}', '{"rate": "67.174118"}'),
                changed_document('{"id": 18446744073709551616}', '{"id": "18446744073709551616"}'),
            ]
        ),
    ),
    Kind("UUID", "UUID", "STRING", st.integers(0, 9).map("00000000-0000-4000-8000-00000000000{}".format).map(text)),
    Kind("INTERVAL", "INTERVAL", "STRING", st.sampled_from(["P1Y2M3D", "PT0.5S", "P0Y"]).map(text)),
    Kind("ENUM", "", "STRING", st.integers(0, 9).map(str).map(text)),
    Kind("PROTO", "", "STRING", st.binary(max_size=3).map(base64.b64encode).map(bytes.decode).map(text)),
)
_KINDS: Final = {kind.google: kind for kind in _SCALARS} | {
    f"ARRAY<{kind.google}>": Kind(
        f"ARRAY<{kind.google}>",
        kind.postgresql and f"ARRAY<{kind.postgresql}>",
        f"ARRAY<{kind.bigquery}>",
        st.lists(kind.values | st.just(NULL), max_size=3).map(array),
        None if kind.wide is None else st.lists(kind.values | kind.wide | st.just(NULL), max_size=3).map(array),
    )
    for kind in _SCALARS
}
# https://cloud.google.com/spanner/docs/schema-updates: a column may change between these two.
_RETYPED: Final = {"STRING": "BYTES", "BYTES": "STRING"}


def _retyped(value: Value, kind: str) -> Value:
    if value.spanner is None:
        return NULL
    return binary(value.column.encode()) if kind == "BYTES" else text(value.column.decode())


def _card(number: str) -> Value:
    return Value(number, f"{number[:6]}{'*' * (len(number) - 10)}{number[-4:]}")


_STATUSES: Final = ("INITIATED", "CAPTURED", "FAILED", "ODD")
_STATES: Final = {"INITIATED": "initiated", "CAPTURED": "processed", "FAILED": "failed"}
_EXPECTED: Final = {
    (None, "initiated"),
    ("initiated", "initiated"),
    ("initiated", "processed"),
    ("initiated", "failed"),
    ("failed", "initiated"),
    ("processed", "processed"),
    ("failed", "failed"),
}
# What every table has: column → kind and values.
_ALWAYS: Final[Mapping[str, tuple[str, st.SearchStrategy[Value]]]] = {
    "Status": ("STRING", st.sampled_from([*map(text, _STATUSES), NULL])),
    "At": ("TIMESTAMP", _KINDS["TIMESTAMP"].values),
    "Card": ("STRING", st.sampled_from([_card("4111111111111111"), _card("378282246310005"), NULL])),
}
_DRAWN: Final = ("C0", "C1", "C2", "C3", "N0", "N1", "N2")


def watched(*tables: str) -> WatchedTables:
    """A description of drawn tables."""
    columns = {name: WatchedColumn(policy="scan") for name in _DRAWN} | {
        "Id": WatchedColumn(policy="identifier"),
        "Part": WatchedColumn(policy="identifier"),
        "Status": WatchedColumn(policy="scan", means="status"),
        "At": WatchedColumn(policy="scan", means="time"),
        "Card": WatchedColumn(policy="card"),
    }
    made = (WatchedTable(name=name, dataset=DATASET, table=f"{name}_bq", columns=columns) for name in tables)
    return WatchedTables(tables=(*WATCHED.tables, *made))


TABLES: Final = ("ledger", "refunds")
DESCRIBED: Final = watched(*TABLES)


# --- Histories --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """What a transaction does to one row. `schema`: the table's columns and kinds then. `gone`: the row cannot be read
    at the commit timestamp any more."""

    table: str
    mod_type: Literal["INSERT", "UPDATE", "DELETE"]
    key: Key
    before: Row
    after: Row
    touched: frozenset[str]
    schema: Mapping[str, str]
    gone: bool = False


@dataclass(frozen=True)
class Commit:
    at: int
    tag: str
    changes: tuple[Made, ...]


@dataclass(frozen=True)
class Ddl:
    """The table gets the column, or another type of one that it has."""

    at: int
    table: str
    column: str
    kind: str


@dataclass(frozen=True)
class Cut:
    """Partitions split, merge or move."""

    at: int
    how: Literal["split", "merge", "move"]
    place: int
    parts: int


@dataclass(frozen=True)
class Drawn:
    """A history, with times in nanoseconds from the streams' creation on. `keys`, `columns`: by table, the first."""

    keys: Mapping[str, Mapping[str, str]]
    columns: Mapping[str, Mapping[str, str]]
    roots: int
    steps: tuple[Commit | Ddl | Cut, ...]

    @property
    def length(self) -> int:
        return self.steps[-1].at if self.steps else 0


@dataclass
class _State:
    """What the tables are while a history is drawn."""

    schemas: dict[str, dict[str, str]]
    rows: dict[str, dict[Key, Row]]
    added: int = 0
    taken: set[tuple[str, Key]] = field(default_factory=set)


# Between two steps: the same commit timestamp, the next nanosecond, the same second, another one.
_GAPS: Final = st.sampled_from([0, 1, 40_000_000, 300_000_000, SECOND, 2_500_000_000])
_AT_TIMES: Final[st.SearchStrategy[bool]] = st.sampled_from([False, False, False, True])
_SELDOM: Final[st.SearchStrategy[bool]] = st.sampled_from([*[False] * 9, True])
_HOWS: Final[st.SearchStrategy[Literal["split", "merge", "move"]]] = st.sampled_from(["split", "merge", "move"])
_KEYS: Final = ({"Id": "STRING"}, {"Id": "INT64"}, {"Id": "STRING", "Part": "INT64"})


@st.composite
def histories(draw: st.DrawFn, dialects: Sequence[str] = (GOOGLE_SQL, POSTGRESQL), most_steps: int = 12) -> Drawn:
    """`dialects`: those that must be able to hold it; with both, values that both have."""
    kinds = sorted(name for name, kind in _KINDS.items() if all(kind.named(dialect) for dialect in dialects))
    # More of those that may change, for DDL to have some.
    kinds += [*_RETYPED] * (len(kinds) // 4)
    values = _values(tuple(dialects))
    names = TABLES[: draw(st.integers(1, 2))]
    keys = {name: draw(st.sampled_from(_KEYS)) for name in names}
    columns = {
        name: {own: kind for own, (kind, _) in _ALWAYS.items()}
        | {f"C{i}": kind for i, kind in enumerate(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4)))}
        for name in names
    }
    state = _State({name: dict(columns[name]) for name in names}, {name: {} for name in names})
    steps: list[Commit | Ddl | Cut] = []
    at = 1
    for _ in range(draw(st.integers(3, most_steps))):
        what = draw(st.sampled_from(["commit", "commit", "commit", "commit", "cut", "ddl"]))
        gap = draw(_GAPS)
        if what == "commit":
            last = steps[-1] if steps else None
            # What follows DDL or a cut may have its time, but not the other way round.
            at += gap if isinstance(last, Commit | Cut) else max(gap, 1)
            if gap:
                state.taken.clear()
            if changes := _changes(draw, state, keys, values):
                steps.append(Commit(at, draw(st.sampled_from(["", "", "", IGNORED_TAG])), changes))
            continue
        at += max(gap, 1)
        state.taken.clear()
        if what == "cut":
            steps.append(Cut(at, draw(_HOWS), draw(st.integers(0, 5)), draw(st.integers(2, 3))))
        elif altered := _alter(draw, state, kinds, columns):
            steps.append(Ddl(at, *altered))
    return Drawn(keys, columns, draw(st.integers(1, 3)), tuple(steps))


def _values(dialects: tuple[str, ...]) -> dict[str, st.SearchStrategy[Value]]:
    wide = dialects == (POSTGRESQL,)
    return {
        name: st.just(NULL) | kind.values | (kind.wide if wide and kind.wide is not None else st.nothing())
        for name, kind in _KINDS.items()
    }


def _changes(
    draw: st.DrawFn,
    state: _State,
    keys: Mapping[str, Mapping[str, str]],
    values: Mapping[str, st.SearchStrategy[Value]],
) -> tuple[Made, ...]:
    found = []
    for _ in range(draw(st.integers(1, 4))):
        table = draw(st.sampled_from(sorted(keys)))
        number = draw(st.integers(0, 2))
        # As Spanner's JSON has them: an INT64 is a text.
        key: Key = tuple(
            (name, f"k{number}" if kind == "STRING" else str(number)) for name, kind in keys[table].items()
        )
        if (table, key) in state.taken:
            continue
        state.taken.add((table, key))
        found.append(_change(draw, state, table, key, values))
    return tuple(found)


def _change(
    draw: st.DrawFn, state: _State, table: str, key: Key, values: Mapping[str, st.SearchStrategy[Value]]
) -> Made:
    rows, schema = state.rows[table], dict(state.schemas[table])

    def value(column: str) -> Value:
        return draw(_ALWAYS[column][1] if column in _ALWAYS else values[schema[column]])

    before = rows.get(key)
    if before is None:
        rows[key] = {column: value(column) for column in schema}
        return Made(table, "INSERT", key, {}, rows[key], frozenset(), schema)
    if draw(_AT_TIMES):
        del rows[key]
        return Made(table, "DELETE", key, before, {}, frozenset(), schema)
    touched = draw(st.sets(st.sampled_from(sorted(schema)), min_size=1, max_size=3))
    rows[key] = before | {column: value(column) for column in sorted(touched)}
    gone = draw(_SELDOM)
    return Made(table, "UPDATE", key, before, rows[key], frozenset(touched), schema, gone)


def _alter(
    draw: st.DrawFn, state: _State, kinds: Sequence[str], columns: Mapping[str, Mapping[str, str]]
) -> tuple[str, str, str] | None:
    table = draw(st.sampled_from(sorted(columns)))
    schema = state.schemas[table]
    can_change = [c for c in columns[table] if c.startswith("C") and c != "Card" and schema[c] in _RETYPED]
    change = draw(st.booleans())
    if change and can_change:
        column = draw(st.sampled_from(can_change))
        kind = _RETYPED[schema[column]]
        state.rows[table] = {k: r | {column: _retyped(r[column], kind)} for k, r in state.rows[table].items()}
    elif state.added < 3:
        column, kind = f"N{state.added}", draw(st.sampled_from(kinds))
        state.added += 1
        state.rows[table] = {k: r | {column: NULL} for k, r in state.rows[table].items()}
    else:
        return None
    schema[column] = kind
    return table, column, kind


# --- As a strict Spanner has it ---------------------------------------------------------------------------------------


def first_columns(drawn: Drawn, table: str, dialect: str) -> dict[str, str]:
    """The columns that a table has in the beginning, with their types."""
    return {**drawn.keys[table], **{c: _KINDS[kind].named(dialect) for c, kind in drawn.columns[table].items()}}


class Rendering(NamedTuple):
    """One way to carry a history."""

    dialect: str
    mode: PartitionMode
    capture: str

    @property
    def stream(self) -> str:
        return f"S_{self.mode[:3]}_{self.capture}"


def render(drawn: Drawn, renderings: Iterable[Rendering], created: int) -> History:
    """The history with a change stream for each rendering, all of one dialect."""
    made = History(created=created)
    renderings = list(renderings)
    dialect = renderings[0].dialect
    specs = {
        name: TableSpec(
            name,
            (
                *(ColumnSpec(key, kind, is_key=True) for key, kind in drawn.keys[name].items()),
                *(ColumnSpec(column, _KINDS[kind].named(dialect)) for column, kind in columns.items()),
            ),
        )
        for name, columns in drawn.columns.items()
    }
    streams = [
        made.stream(
            each.stream,
            specs.values(),
            capture=each.capture,
            partition_mode=each.mode,
            tokens=random.Random(each.stream),
        )
        for each in renderings
    ]
    for stream in streams:
        for i in range(drawn.roots):
            stream.root(low=(1 << 32) * i // drawn.roots, high=(1 << 32) * (i + 1) // drawn.roots)
    for step in drawn.steps:
        match step:
            case Commit():
                made.commit([_encoded(change) for change in step.changes], at=created + step.at, tag=step.tag)
            case Ddl():
                column = ColumnSpec(step.column, _KINDS[step.kind].named(dialect))
                for stream in streams:
                    stream.tables[step.table] = stream.tables[step.table].with_column(column)
            case Cut():
                for stream in streams:
                    _cut(made, stream, step, created + step.at)
    return made


def _encoded(change: Made) -> Change:
    old = change.before if change.mod_type == "DELETE" else {c: change.before[c] for c in change.touched}
    return Change(change.table, change.mod_type, dict(change.key), _written(change.after), _written(old))


def _written(row: Row) -> Encoded:
    return {name: value.spanner for name, value in row.items()}


def _cut(made: History, stream: StreamHistory, cut: Cut, at: int) -> None:
    live = stream.live
    place = cut.place % len(live)
    if cut.how == "merge" and len(live) > 1:
        place = min(place, len(live) - 2)
        made.merge(live[place : place + 2], at=at)
    elif cut.how == "split" and len(live) < 5:
        made.split(live[place], *[""] * cut.parts, at=at)
    else:
        made.move(live[place], at=at)


class TablesThen:
    """The tables at each commit timestamp, for what completes changes. A `Rows` of pipeline/source/completion.py.

    What a change says itself must not be taken from here: these columns are NULL.
    """

    def __init__(self, drawn: Drawn, dialect: str, created: int) -> None:
        self._drawn, self._dialect, self._created = drawn, dialect, created

    def columns(self, stream: str, table: str, at: str) -> tuple[Column, ...]:
        keys, schema = self._drawn.keys[table], self._schema(table, at)
        return (
            *(Column(name, kind, True) for name, kind in keys.items()),
            *(Column(name, _KINDS[kind].named(self._dialect), False) for name, kind in schema.items()),
        )

    def keyed(
        self, table: str, columns: Sequence[Column], at: str, keys: Sequence[Sequence[Any]]
    ) -> Iterable[dict[str, Any]]:
        schema = self._schema(table, at)
        if any(not column.is_primary_key and column.name not in schema for column in columns):
            raise NotFound("a column is not there at this moment")
        then: dict[Key, Made] = {}
        for step in self._drawn.steps:
            if isinstance(step, Commit) and step.at <= self._moment(at):
                then |= {change.key: change for change in step.changes if change.table == table}
        found = {tuple(value for _, value in key): change for key, change in then.items()}
        for key in map(tuple, keys):
            change = found[key]
            if not change.gone and change.mod_type != "DELETE":
                # Of a column that came since the row's last change: NULL.
                row = dict(change.key) | {c: self._now(change, c, schema).spanner for c in schema}
                yield {column.name: row[column.name] for column in columns}

    def _now(self, change: Made, column: str, schema: Mapping[str, str]) -> Value:
        value = NULL if column in change.touched else change.after.get(column, NULL)
        return value if change.schema.get(column, schema[column]) == schema[column] else _retyped(value, schema[column])

    def _schema(self, table: str, at: str) -> dict[str, str]:
        altered = (s for s in self._drawn.steps if isinstance(s, Ddl) and s.table == table and s.at <= self._moment(at))
        return {**self._drawn.columns[table], **{step.column: step.kind for step in altered}}

    def _moment(self, at: str) -> int:
        return to_nanos(at) - self._created


# --- What must arrive -------------------------------------------------------------------------------------------------


def expected(drawn: Drawn, capture: str, stream: StreamHistory, created: int) -> dict[str, dict[str, Any]]:
    """The rows of the changelogs by `change id@table`. The stream says how transactions were cut into records."""
    made = {
        (step.at, change.table, change.key): (step, change)
        for step in drawn.steps
        if isinstance(step, Commit)
        for change in step.changes
    }
    found = {}
    for partition in stream.partitions.values():
        for record in partition.records:
            for index, mod in enumerate(record.mods):
                keys = json.loads(mod.keys)
                key = tuple((name, keys[name]) for name in drawn.keys[record.table.name])
                step, change = made[record.commit - created, record.table.name, key]
                if step.tag != IGNORED_TAG:
                    row = _of_record(record, index) | _of_change(drawn, change, capture, record.commit)
                    found[f"{row['_metadata_change_id']}@{change.table}"] = row
    return found


def _of_record(record: DataRecord, index: int) -> dict[str, Any]:
    at = f"{from_nanos(record.commit)}/{record.transaction}/{record.record_sequence}/{index:06d}"
    return {
        "_metadata_spanner_mod_type": record.mod_type,
        "_metadata_spanner_table_name": record.table.name,
        "_metadata_spanner_commit_timestamp": _instant(record.commit),
        "_metadata_spanner_commit_timestamp_nanos": record.commit,
        "_metadata_spanner_server_transaction_id": record.transaction,
        "_metadata_spanner_record_sequence": record.record_sequence,
        "_metadata_spanner_is_last_record_in_transaction_in_partition": record.last,
        "_metadata_spanner_number_of_records_in_transaction": record.records,
        "_metadata_spanner_number_of_partitions_in_transaction": record.partitions,
        "_metadata_change_id": at,
    }


# What depends on how a stream cuts a transaction into records, which another capture type may do otherwise.
OF_RECORDS: Final = frozenset(
    {
        "_metadata_spanner_record_sequence",
        "_metadata_spanner_is_last_record_in_transaction_in_partition",
        "_metadata_spanner_number_of_records_in_transaction",
        "_metadata_change_id",
    }
)


def _of_change(drawn: Drawn, change: Made, capture: str, commit: int) -> dict[str, Any]:
    """What docs/types.md says of a change in this capture type ("Value capture types")."""
    has_old = capture in ("OLD_AND_NEW_VALUES", "NEW_ROW_AND_OLD_VALUES")
    partial = capture in ("NEW_VALUES", "OLD_AND_NEW_VALUES")
    incomplete = change.mod_type == "UPDATE" and partial and change.gone
    new = {c: v for c, v in change.after.items() if c in change.touched} if incomplete else change.after
    old = {c: v for c, v in change.before.items() if change.mod_type == "DELETE" or c in change.touched}
    old = old if has_old else {}
    row = _key(drawn, change)
    for column, value in new.items():
        row[_column(drawn, change, column)] = value.column
    row["Card_token"] = _token(new.get("Card", NULL))
    exact = {c: v.exact for c, v in new.items() if v.exact is not None}
    cards = {_token(row["Card"]) for row in (new, old) if "Card" in row} - {None}
    return row | {
        "_metadata_spanner_old_values": _old(old) if old else None,
        "_metadata_spanner_exact_values": exact or None,
        "_metadata_spanner_is_incomplete": incomplete or None,
        "_metadata_card_tokens": sorted(str(token) for token in cards),
        **_transition(change, new, old, commit),
    }


def _key(drawn: Drawn, change: Made) -> dict[str, Any]:
    return {name: int(v) if drawn.keys[change.table][name] == "INT64" else v for name, v in change.key}


def _column(drawn: Drawn, change: Made, column: str) -> str:
    """The column of a value: another one where the type is not that of the beginning."""
    kind = change.schema[column]
    first = drawn.columns[change.table].get(column, kind)
    return column if first == kind else f"{column}_{_KINDS[kind].bigquery.lower()}"


def _old(old: Row) -> dict[str, Any]:
    found = {column: value.old for column, value in old.items()}
    if "Card" in old:
        found |= {"Card": old["Card"].column, "Card_token": _token(old["Card"])}
    return found


def _token(card: Value) -> str | None:
    if card.spanner is None:
        return None
    return f"v1:{hmac.new(KEY, f'card:{card.spanner}'.encode(), hashlib.sha256).hexdigest()[:32]}"


def _transition(change: Made, new: Row, old: Row, commit: int) -> dict[str, Any]:
    def state(row: Row) -> str | None:
        return _STATES.get(row.get("Status", NULL).column)

    def since(row: Row) -> datetime | None:
        if row.get("Status", NULL).column is None:
            return None
        return row.get("At", NULL).column or _instant(commit)

    now = previous = None
    expected: bool | None = None
    if change.mod_type == "DELETE":
        previous = old
    else:
        now = new
        if change.mod_type == "INSERT":
            expected = None if state(new) is None else (None, state(new)) in _EXPECTED
        elif old:
            previous = {**new, **old}
            known = state(previous) is not None or previous.get("Status", NULL).column is None
            if state(new) is not None and known:
                expected = (state(previous), state(new)) in _EXPECTED
    return {
        "customer_id": None,
        "acting_user": None,
        "payment_state": state(now) if now else None,
        "payment_state_at": since(now) if now else None,
        "previous_payment_state": state(previous) if previous else None,
        "previous_payment_state_at": since(previous) if previous else None,
        "transition_expected": expected,
    }


def _instant(nanos: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanos // 1000)


_OF_ARRIVAL: Final = ("_metadata_big_query_commit_timestamp", "_arrived_ns")


def arrived(row: Mapping[str, Any]) -> dict[str, Any]:
    """A changelog's row in the form of `expected`: JSON read, NaN comparable, what is NULL or empty left out."""
    found = {
        name: _comparable(value)
        for name, value in row.items()
        if value is not None and value != [] and name not in _OF_ARRIVAL
    }
    for name in ("_metadata_spanner_old_values", "_metadata_spanner_exact_values"):
        if name in found:
            found[name] = json.loads(found[name])
    return found


def _comparable(value: Any) -> Any:
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    return Nan(value) if isinstance(value, float) and math.isnan(value) else value


def present(row: Mapping[str, Any]) -> dict[str, Any]:
    """An expected row without what is NULL or empty."""
    return {name: value for name, value in row.items() if value is not None and value != []}


def differences(expected: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """(change, column, expected, found) of everything that differs; None where there is no value or no row."""
    nothing: Mapping[str, Any] = {}
    return [
        (change, name, expected.get(change, nothing).get(name), found.get(change, nothing).get(name))
        for change in sorted(expected.keys() | found.keys())
        for name in sorted(expected.get(change, nothing).keys() | found.get(change, nothing).keys())
        if expected.get(change, nothing).get(name) != found.get(change, nothing).get(name)
    ]
