"""What a change stream reports: partitions that split, merge and move, and the records that are in them.

Pure: no gRPC, no Spanner. A `History` is filled by hand (`commit`, `split`, `merge`, `move`) or by `RandomHistory`, in
the past all at once or live, as its commits happen. Everything stays in memory, so a reader that starts again at an
earlier time gets the same records again.

Times are nanoseconds since 1970 (`int`) inside and RFC 3339 texts outside. How records, partitions and times relate is
Google's "Change streams partitions, records, and queries" (DETAILS below), what they carry [CAPTURE] is
cloud.google.com/spanner/docs/change-streams#value-capture-type.
"""

from __future__ import annotations

import base64
import itertools
import random
import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, NamedTuple, Self

import orjson

from contract import schema as product
from contract.timestamps import from_nanos, normalise, to_nanos

DETAILS: Final = "https://cloud.google.com/spanner/docs/change-streams/details"

ModType = Literal["INSERT", "UPDATE", "DELETE"]
PartitionMode = Literal["IMMUTABLE_KEY_RANGE", "MUTABLE_KEY_RANGE"]
Clock = Callable[[], int]
Row = dict[str, Any]

_ANNOTATED: Final = {"PG_NUMERIC": "NUMERIC", "PG_JSONB": "JSON"}
# Of an UPDATE they carry what it touched, and no type of another column [CAPTURE].
_PARTIAL: Final = ("NEW_VALUES", "OLD_AND_NEW_VALUES")
_WITHOUT_OLD: Final = ("NEW_VALUES", "NEW_ROW")

SECOND: Final = 1_000_000_000
_KEYS: Final = 1 << 32
_WEEK: Final = 7 * 24 * 3600


# --- Tables -----------------------------------------------------------------------------------------------------------


def type_json(spanner_type: str) -> str:
    """The type JSON of a column type, as `column_types.type` has it: `ARRAY<INT64>`, `STRING(36)`, or JSON itself.

    `PG_NUMERIC` and `PG_JSONB` are annotations, as TypeAnnotationCode has them.
    """
    if spanner_type.startswith("{"):
        return spanner_type
    if spanner_type in _ANNOTATED:
        return f'{{"code":"{_ANNOTATED[spanner_type]}","type_annotation":"{spanner_type}"}}'
    if spanner_type.startswith("ARRAY<"):
        return f'{{"array_element_type":{type_json(spanner_type[6:-1])},"code":"ARRAY"}}'
    return f'{{"code":"{spanner_type.partition("(")[0]}"}}'


class ColumnSpec(NamedTuple):
    """A column that a change stream carries. `type` is Spanner's text, or the JSON of a type that has none here."""

    name: str
    type: str
    is_key: bool = False

    @property
    def code(self) -> str:
        """The type's TypeCode: `STRING`, `ARRAY`, …"""
        return str(orjson.loads(type_json(self.type))["code"])


class TableSpec:
    """A watched table at one moment. Another schema of the same table is another TableSpec: equality is identity."""

    def __init__(self, name: str, columns: Iterable[ColumnSpec]) -> None:
        self.name = name
        self.columns = tuple(columns)
        self.keys = tuple(c for c in self.columns if c.is_key)
        self.values = tuple(c for c in self.columns if not c.is_key)

    def with_column(self, column: ColumnSpec) -> TableSpec:
        """The table with a column added, or with the type of one that it has changed."""
        if all(c.name != column.name for c in self.columns):
            return TableSpec(self.name, (*self.columns, column))
        return TableSpec(self.name, (column if c.name == column.name else c for c in self.columns))


def product_tables() -> dict[str, tuple[TableSpec, ...]]:
    """The product's change streams with the tables that they watch, from its own changelog."""
    tables = product.tables()
    return {
        stream: tuple(
            TableSpec(name, tuple(ColumnSpec(c.name, c.type, c.name in tables[name].primary_key) for c in columns))
            for name, columns in ((name, tables[name].columns) for name in watched)
        )
        for stream, watched in product.change_streams().items()
    }


@dataclass(frozen=True, kw_only=True)
class SchemaChange:
    """`after` seconds the table gets this column: a new one, or one that it has with another type."""

    after: float
    table: str
    column: ColumnSpec


# --- Records and partitions -------------------------------------------------------------------------------------------


class Mod(NamedTuple):
    """One modification: the JSON texts, in UTF-8, of its key and of the values after and before it."""

    keys: bytes
    new: bytes
    old: bytes


@dataclass(slots=True, eq=False)
class DataRecord:
    """A data change record. `sequence` counts the records of the transaction in its stream."""

    commit: int
    sequence: int
    transaction: str
    table: TableSpec
    mods: tuple[Mod, ...]
    mod_type: ModType
    last: bool
    records: int
    partitions: int
    tag: str = ""
    system: bool = False

    @property
    def record_sequence(self) -> str:
        return f"{self.sequence:08d}"


@dataclass(slots=True, eq=False)
class Partition:
    """A partition: its records have start <= commit < end, in the order of their commits. `end` is None while it lives.

    `parents` are those that its announcement names; `unannounced` adds some that nobody will ever see.
    """

    token: str
    stream: str
    start: int
    parents: tuple[Partition, ...] = ()
    end: int | None = None
    children: list[Partition] = field(default_factory=list)
    records: list[DataRecord] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)
    low: int = 0
    high: int = _KEYS
    unannounced: tuple[str, ...] = ()

    @property
    def parent_tokens(self) -> tuple[str, ...]:
        return (*(p.token for p in self.parents), *self.unannounced)


class Entry(NamedTuple):
    """One committed modification, as a line of the ledger has it. `keys`, `new` and `old` are JSON texts in UTF-8."""

    stream: str
    table: str
    partition: str
    commit_timestamp: str
    server_transaction_id: str
    record_sequence: str
    mod_index: int
    mod_type: ModType
    keys: bytes
    new: bytes
    old: bytes

    @property
    def id(self) -> tuple[str, str, str, str, int]:
        """What no other modification has: stream, commit timestamp, transaction, record and place in it."""
        return (
            self.stream,
            self.commit_timestamp,
            self.server_transaction_id,
            self.record_sequence,
            self.mod_index,
        )

    def line(self) -> bytes:
        """A JSON object in one line, the values of keys, new and old as objects."""
        return (
            f'{{"stream":"{self.stream}","table":"{self.table}","partition":"{self.partition}",'
            f'"commit_timestamp":"{self.commit_timestamp}","server_transaction_id":"{self.server_transaction_id}",'
            f'"record_sequence":"{self.record_sequence}","mod_index":{self.mod_index},"mod_type":"{self.mod_type}",'
        ).encode() + b'"keys":%b,"new":%b,"old":%b}\n' % (self.keys, self.new, self.old)


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a ledger file that are whole, each as a dict with the names of `Entry`."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield orjson.loads(line)


class Change(NamedTuple):
    """What a transaction does to one row. `partition` says where, for scripts; else the key does.

    `new` is the whole row after it, `old` what an UPDATE touched, or all of a DELETE; a stream carries of both what its
    value capture type says.
    """

    table: str
    mod_type: ModType
    keys: Row
    new: Row
    old: Row
    partition: Partition | None = None


class StreamHistory:
    """One change stream: its tables, and its partitions from its creation on."""

    def __init__(
        self,
        name: str,
        tables: Iterable[TableSpec],
        *,
        created: int,
        retention_seconds: float = _WEEK,
        capture: str = "NEW_ROW_AND_OLD_VALUES",
        partition_mode: PartitionMode = "IMMUTABLE_KEY_RANGE",
        tokens: random.Random | None = None,
    ) -> None:
        self.name = name
        self.tables = {table.name: table for table in tables}
        self.created = created
        self.retention = int(retention_seconds * SECOND)
        self.capture = capture
        self.partition_mode: PartitionMode = partition_mode
        self.partitions: dict[str, Partition] = {}
        self._tokens = tokens or random.Random(name)
        self._live: list[Partition] = []
        self._parts: dict[tuple[TableSpec, frozenset[str]], TableSpec] = {}

    def carried(self, change: Change) -> tuple[TableSpec, Row, Row]:
        """What the stream's records have of a change: the columns, the values after and those before it."""
        table, new, old = self.tables[change.table], change.new, change.old
        if change.mod_type == "UPDATE" and self.capture in _PARTIAL:
            new = {name: value for name, value in new.items() if name in old}
            part = table, frozenset(old)
            table = self._parts.get(part) or self._parts.setdefault(
                part, TableSpec(table.name, (c for c in table.columns if c.is_key or c.name in old))
            )
        return table, new, {} if self.capture in _WITHOUT_OLD else old

    @property
    def live(self) -> tuple[Partition, ...]:
        """The partitions that have not ended, in the order of their keys."""
        return tuple(self._live)

    def live_at(self, moment: int) -> list[Partition]:
        """The partitions that a query without a token names."""
        return [p for p in self.partitions.values() if p.start <= moment and (p.end is None or moment < p.end)]

    def root(self, token: str = "", *, low: int = 0, high: int = _KEYS, unannounced: tuple[str, ...] = ()) -> Partition:
        """A partition that is there from the stream's creation on, for the keys from `low` to `high`."""
        return self._add(Partition(self._token(token), self.name, self.created, (), low=low, high=high), unannounced)

    def of_key(self, key: int) -> Partition:
        """The live partition that has the key, a number below 2**32."""
        return self._live[bisect_right(self._live, key, key=lambda p: p.low) - 1]

    def replace(
        self,
        ended: Sequence[Partition],
        at: int,
        tokens: Sequence[str],
        unannounced: tuple[str, ...] = (),
    ) -> list[Partition]:
        """Ends partitions at a time and starts as many children as there are tokens, which share their keys."""
        low, high = min(p.low for p in ended), max(p.high for p in ended)
        bounds = [low + (high - low) * i // len(tokens) for i in range(len(tokens) + 1)]
        for partition in ended:
            partition.end = at
            self._live.remove(partition)
        children = [
            self._add(
                Partition(self._token(token), self.name, at, tuple(ended), low=first, high=after),
                unannounced,
            )
            for token, (first, after) in zip(tokens, itertools.pairwise(bounds), strict=True)
        ]
        for partition in ended:
            partition.children += children
        return children

    def _add(self, partition: Partition, unannounced: tuple[str, ...]) -> Partition:
        if partition.token in self.partitions:
            raise ValueError(f"{self.name} has a partition of this name already: tokens are unique in a stream")
        partition.unannounced = unannounced
        self.partitions[partition.token] = partition
        insort(self._live, partition, key=lambda p: p.low)
        return partition

    def _token(self, token: str) -> str:
        # As long and as opaque as Google's, so that nobody reads anything into one.
        return token or base64.urlsafe_b64encode(self._tokens.randbytes(96)).decode()


class History:
    """What was committed to a database, and how its change streams are cut into partitions.

    `created` is when the streams were made. `through` says how far everything is known: no later commit is at or before
    it. Safe for several threads: whoever reads records or `through` holds `lock`.
    """

    def __init__(self, *, created: int | None = None, clock: Clock = time.time_ns, ledger: Path | None = None) -> None:
        self.clock = clock
        self.created = clock() if created is None else created
        self.streams: dict[str, StreamHistory] = {}
        self.lock = threading.RLock()
        self.committed = 0
        self.transactions = 0
        self.last_commit = 0
        self._through = self.created - 1
        self._listeners: list[Callable[[list[Partition]], None]] = []
        self._touched: list[Partition] = []
        self._file: IO[bytes] | None = None
        if ledger:
            ledger.parent.mkdir(parents=True, exist_ok=True)
            self._file = ledger.open("ab")

    def stream(self, name: str, tables: Iterable[TableSpec], **options: Any) -> StreamHistory:
        """A further change stream, without partitions. `options` are those of StreamHistory."""
        self.streams[name] = StreamHistory(name, tables, created=self.created, **options)
        return self.streams[name]

    def commit(self, changes: Sequence[Change], *, at: int | str | None = None, tag: str = "") -> str:
        """One transaction. Without `at` it is committed now. Returns its commit timestamp, nine fractional digits.

        Changes of one type to one table in one partition become one record with several mods.
        """
        with self.lock:
            moment = self._moment(at)
            self._append(changes, moment, tag)
        self.announce()
        return from_nanos(moment)

    def split(self, partition: Partition, *tokens: str, at: int | str | None = None, **how: Any) -> list[Partition]:
        """Ends a partition; its keys continue in as many children as there are tokens, two without any."""
        return self._replace([partition], tokens or ("", ""), at, **how)

    def merge(
        self, parents: Sequence[Partition], token: str = "", at: int | str | None = None, **how: Any
    ) -> Partition:
        """Ends neighbours; their keys continue in one child, which each of them announces."""
        return self._replace(parents, (token,), at, **how)[0]

    def move(self, partition: Partition, token: str = "", at: int | str | None = None, **how: Any) -> Partition:
        """Ends a partition; its keys continue in one child, on another server."""
        return self._replace([partition], (token,), at, **how)[0]

    def through(self) -> int:
        """Closes the past: a commit that comes after this call is later than what it returns."""
        with self.lock:
            self._through = max(self._through, self.clock())
            return self._through

    def entries(self) -> Iterator[Entry]:
        """Every modification committed so far; the order is each partition's own."""
        with self.lock:
            partitions = [p for s in self.streams.values() for p in s.partitions.values()]
            found = [(p, list(p.records)) for p in partitions]
        for partition, records in found:
            for record in records:
                yield from _entries(partition, record)

    def subscribe(self, listener: Callable[[list[Partition]], None]) -> None:
        """`listener` gets the partitions that have something new, each time there is something."""
        self._listeners.append(listener)

    def announce(self) -> None:
        """Notifies the listeners, and writes what is committed to the ledger file."""
        with self.lock:
            touched, self._touched = self._touched, []
            if self._file:
                self._file.flush()
        if touched:
            for listener in self._listeners:
                listener(touched)

    def close(self) -> None:
        """Closes the ledger file."""
        if self._file:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _moment(self, at: int | str | None) -> int:
        if at is not None:
            moment = to_nanos(normalise(at)) if isinstance(at, str) else at
            if moment <= self._through:
                raise ValueError(
                    f"nothing can be committed at {from_nanos(moment)}: {from_nanos(self._through)} has been read. "
                    "Give a later time, or write the history before it is served."
                )
            return moment
        self._through = moment = max(self.clock(), self._through + 1)
        return moment

    def _replace(
        self, ended: Sequence[Partition], tokens: Sequence[str], at: int | str | None, **how: Any
    ) -> list[Partition]:
        with self.lock:
            children = self.streams[ended[0].stream].replace(ended, self._moment(at), tokens, **how)
            self._touched += ended
        self.announce()
        return children

    def _append(self, changes: Sequence[Change], moment: int, tag: str = "") -> None:
        """Cuts one transaction into records: by stream, partition, columns and type, in the order of its changes."""
        self.transactions += 1
        transaction = str(self.transactions)
        grouped: dict[str, dict[tuple[str, TableSpec, ModType], tuple[Partition, TableSpec, list[Mod]]]] = {}
        for change in changes:
            keys = _json(change.keys)
            whole = Mod(keys, _json(change.new), _json(change.old))
            for stream in self.streams.values():
                if change.table not in stream.tables or (change.partition and change.partition.stream != stream.name):
                    continue
                table, new, old = stream.carried(change)
                mod = Mod(
                    keys,
                    whole.new if new is change.new else _json(new),
                    whole.old if old is change.old else _json(old),
                )
                partition = change.partition or stream.of_key(_place(keys))
                groups = grouped.setdefault(stream.name, {})
                key = (partition.token, table, change.mod_type)
                if key in groups:
                    groups[key][2].append(mod)
                else:
                    groups[key] = (partition, table, [mod])
        for groups in grouped.values():
            # The last record of each partition.
            last = {token: number for number, (token, _, _) in enumerate(groups)}
            for number, ((token, _, mod_type), (partition, table, mods)) in enumerate(groups.items()):
                record = DataRecord(
                    moment,
                    number,
                    transaction,
                    table,
                    tuple(mods),
                    mod_type,
                    last[token] == number,
                    len(groups),
                    len(last),
                    tag,
                )
                self._put(partition, record)

    def _put(self, partition: Partition, record: DataRecord) -> None:
        if partition.end is not None or record.commit < max(partition.start, *partition.commits[-1:], 0):
            raise ValueError("records of a partition are committed in order, and not after it has ended")
        partition.records.append(record)
        partition.commits.append(record.commit)
        self._touched.append(partition)
        self.committed += len(record.mods)
        self.last_commit = max(self.last_commit, record.commit)
        if self._file:
            self._file.writelines(entry.line() for entry in _entries(partition, record))


def _entries(partition: Partition, record: DataRecord) -> Iterator[Entry]:
    at, sequence = from_nanos(record.commit), record.record_sequence
    for index, mod in enumerate(record.mods):
        yield Entry(
            partition.stream,
            record.table.name,
            partition.token,
            at,
            record.transaction,
            sequence,
            index,
            record.mod_type,
            *mod,
        )


def _json(row: Row) -> bytes:
    if not row:
        return b"{}"
    # A copy: what orjson returns keeps the room of its buffer, ten times as much as is in it.
    return bytes(memoryview(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)))


def _place(keys: bytes) -> int:
    """Where a key is among the keys, a number below 2**32: the same in every run, spread evenly."""
    value = 2166136261
    for byte in keys[-12:]:
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


# --- Random histories -------------------------------------------------------------------------------------------------


class RandomHistory(History):
    """A history that a seed makes: what is committed, to which keys and in which order, is the same in every run.

    Filled in the past with `play`, or live with `start` and `stop` (or as a context manager). Times, and with them the
    partitions that a record is in, are those of the clock when it is live.

    `rate`: transactions a second; about half have rows of both product tables. `partitions`: live ones a stream at the
    beginning. `churn`: seconds between two changes of a stream's partitions, 0 for none; their number stays within half
    and twice of the beginning. `tables`: stream → its tables. Card numbers are the networks' public test numbers.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        tables: dict[str, tuple[TableSpec, ...]] | None = None,
        partitions: int = 4,
        rate: float = 100.0,
        churn: float = 5.0,
        schema_changes: Sequence[SchemaChange] = (),
        created: int | None = None,
        clock: Clock = time.time_ns,
        ledger: Path | None = None,
        retention_seconds: float = _WEEK,
        partition_mode: PartitionMode = "IMMUTABLE_KEY_RANGE",
    ) -> None:
        super().__init__(created=created, clock=clock, ledger=ledger)
        self.rate = rate
        self.churn = churn
        self._partitions = partitions
        self._due = sorted(schema_changes, key=lambda change: change.after)
        self._changes = _Changes(seed)
        self._places = random.Random(f"partitions {seed}")
        self._moments = random.Random(f"moments {seed}")
        for name, watched in (tables or product_tables()).items():
            stream = self.stream(
                name,
                watched,
                retention_seconds=retention_seconds,
                partition_mode=partition_mode,
                tokens=random.Random(f"tokens {seed} {name}"),
            )
            for i in range(partitions):
                stream.root(low=_KEYS * i // partitions, high=_KEYS * (i + 1) // partitions)
        self._tables = {t.name: t for s in self.streams.values() for t in s.tables.values()}
        self._began = 0
        self._churn_at = self._next_churn(0)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def play(self, seconds: float) -> Self:
        """Fills the history with this many seconds from its end (at first, its creation) on, all at once.

        They should be in the past when it is served: `created=time.time_ns() - n * SECOND`.
        """
        moment = self._through + 1
        end = moment + int(seconds * SECOND)
        self._began = self._began or moment
        while True:
            moment += max(1, int(self._moments.expovariate(self.rate) * SECOND))
            if moment >= end:
                break
            with self.lock:
                self._step(moment)
        with self.lock:
            self._through = end - 1
        self.announce()
        return self

    def start(self, *, commits: int | None = None, tick: float = 0.01) -> Self:
        """Commits in real time, in a thread, until `stop` or until there were this many transactions."""
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, args=(commits, tick), name="history", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends what `start` began, or waits for nothing. What was committed stays."""
        self._stopped.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        self.announce()

    def wait(self) -> None:
        """Waits until the number of transactions that `start` was given is reached."""
        if self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self.close()

    def _run(self, commits: int | None, tick: float) -> None:
        began, done = self.clock(), 0
        self._began = self._began or began
        while not self._stopped.is_set() and (commits is None or done < commits):
            due = int((self.clock() - began) * self.rate / SECOND) + 1
            with self.lock:
                for _ in range(min(due, commits or due) - done):
                    self._step(None)
                    done += 1
            self.announce()
            self._stopped.wait(tick)

    def _step(self, at: int | None) -> None:
        """The next transaction, and what the partitions and the schema do before it."""
        moment = self._moment(at)
        elapsed = (moment - self._began) / SECOND
        while self._due and self._due[0].after <= elapsed:
            self._alter(self._due.pop(0))
        if self.churn and elapsed >= self._churn_at:
            self._churn_at = self._next_churn(elapsed)
            for stream in self.streams.values():
                self._change_partitions(stream, moment)
        taken: set[tuple[str, str]] = set()
        self._append(self._changes.next(self._tables, moment, taken), moment)
        # Transactions that touch nothing in common may have one commit timestamp (DETAILS, "Data change records").
        while self._moments.random() < 0.02:
            self._append(self._changes.next(self._tables, moment, taken), moment)

    def _alter(self, change: SchemaChange) -> None:
        before = self._tables[change.table]
        after = before.with_column(change.column)
        self._tables[change.table] = after
        self._changes.altered(before, change.column)
        for stream in self.streams.values():
            if change.table in stream.tables:
                stream.tables[change.table] = after

    def _next_churn(self, elapsed: float) -> float:
        return elapsed + self.churn * self._places.uniform(0.5, 1.5)

    def _change_partitions(self, stream: StreamHistory, moment: int) -> None:
        live = stream.live
        chosen = self._places.randrange(len(live))
        kind = self._places.choice(("split", "merge", "move", "split", "merge"))
        if kind == "merge" and len(live) > max(1, self._partitions // 2):
            chosen = min(chosen, len(live) - 2)
            ended, tokens = list(live[chosen : chosen + 2]), [""]
        elif kind == "split" and len(live) < 2 * self._partitions:
            ended, tokens = [live[chosen]], [""] * (2 if self._places.random() < 0.8 else 3)
        else:
            ended, tokens = [live[chosen]], [""]
        stream.replace(ended, moment, tokens)
        self._touched += ended


# What the product's columns hold, so that a reader has something to mask, to enrich and to count.
_CARDS: Final = ("4111111111111111", "5555555555554444", "378282246310005", "6011111111111117", "3530111333300000")
_HOLDERS: Final = ("ANN EXAMPLE", "BOB SAMPLE", "CHLOÉ O'TESTER", "山田 太郎")
_NEXT_STATUS: Final[dict[str | None, tuple[str, ...]]] = {
    None: ("INITIATED",),
    "INITIATED": ("AUTHORIZED", "AUTHORIZED", "PENDING", "DECLINED"),
    "AUTHORIZED": ("CAPTURED", "CAPTURED", "FAILED"),
    "PENDING": ("SETTLED", "FAILED"),
    "DECLINED": ("RETRYING",),
    "FAILED": ("RETRYING",),
    "RETRYING": ("AUTHORIZED", "CANCELLED"),
    "CAPTURED": ("SETTLED",),
    "SETTLED": ("REFUNDED", "SETTLED"),
}
_ROWS_REMEMBERED: Final = 3000
_PAYMENTS: Final = "payment_audit_trail"
_LOGS: Final = "audit_logs"


class _Changes:
    """An endless sequence of transactions. Remembers the rows that are there, for updates and deletes need them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"changes {seed}")
        # Values of columns that came later have dice of their own, so the others do not depend on when they came.
        self._later = random.Random(f"later columns {seed}")
        self._first: dict[str, frozenset[ColumnSpec]] = {}
        self._makers: dict[TableSpec, list[tuple[str, Maker]]] = {}
        self._rows: dict[str, dict[str, tuple[Row, Row]]] = {}
        self._ids: dict[str, list[str]] = {}
        self._number = 0

    def next(self, tables: dict[str, TableSpec], moment: int, taken: set[tuple[str, str]]) -> list[Change]:
        """The changes of the next transaction: mostly one row, sometimes up to five; none of `taken`, which grows."""
        draw = self._random
        names = [name for name in tables if not (name == _LOGS and _PAYMENTS in tables)]
        now = spanner_text(moment)
        changes = []
        for _ in range(1 if draw.random() < 0.9 else draw.randint(2, 5)):
            name = draw.choice(names) if len(names) > 1 else names[0]
            change = self._change(tables[name], now, taken)
            changes.append(change)
            taken.add((name, str(change.keys)))
            if name == _PAYMENTS and _LOGS in tables and draw.random() < 0.55:
                changes.append(self._upsert(tables[_LOGS], change.keys["PUID"], now))
        return changes

    def altered(self, before: TableSpec, column: ColumnSpec) -> None:
        """The rows that are there get the column, or their values in its new type."""
        old = {c.name: c for c in before.columns}.get(column.name)
        for _, row in self._rows.get(before.name, {}).values():
            row[column.name] = None if old is None else convert(row.get(column.name), old, column)

    def _change(self, table: TableSpec, now: str, taken: set[tuple[str, str]]) -> Change:
        draw = self._random
        ids = self._ids.setdefault(table.name, [])
        chance = draw.random()
        if ids and chance > 0.4:
            place = int(draw.random() * len(ids))
            keys, row = self._rows[table.name][ids[place]]
            if (table.name, ids[place]) not in taken:
                return self._delete(table, place) if chance > 0.97 else self._update(table, keys, row, now)
        return self._insert(table, {c.name: self._key(c) for c in table.keys}, now)

    def _upsert(self, table: TableSpec, puid: str, now: str) -> Change:
        keys = {"PUID": puid}
        found = self._rows.get(table.name, {}).get(str(keys))
        return self._update(table, keys, found[1], now) if found else self._insert(table, keys, now)

    def _insert(self, table: TableSpec, keys: Row, now: str) -> Change:
        nothing: Row = {}
        row = {name: make(nothing, now) for name, make in self._makers_of(table)}
        ids, rows = self._ids.setdefault(table.name, []), self._rows.setdefault(table.name, {})
        key = str(keys)
        if len(ids) >= _ROWS_REMEMBERED:
            # Forgotten, not deleted: it just does not change any more.
            place = int(self._random.random() * len(ids))
            del rows[ids[place]]
            ids[place] = key
        else:
            ids.append(key)
        rows[key] = (keys, row)
        return Change(table.name, "INSERT", keys, dict(row), {})

    def _update(self, table: TableSpec, keys: Row, row: Row, now: str) -> Change:
        old = {}
        for name, make in self._makers_of(table):
            if name not in _STEADY and self._random.random() > 0.4:
                value = make(row, now)
                if value != row[name]:
                    old[name] = row[name]
                    row[name] = value
        return Change(table.name, "UPDATE", keys, dict(row), old)

    def _delete(self, table: TableSpec, place: int) -> Change:
        ids = self._ids[table.name]
        ids[place], ids[-1] = ids[-1], ids[place]
        keys, row = self._rows[table.name].pop(ids.pop())
        return Change(table.name, "DELETE", keys, {}, row)

    def _key(self, column: ColumnSpec) -> Any:
        self._number += 1
        if column.code in ("STRING", "UUID"):
            bits = f"{self._random.getrandbits(128):032x}"
            return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-8{bits[17:20]}-{bits[20:]}"
        return str(self._number) if column.code == "INT64" else random_value(self._random, column)

    def _makers_of(self, table: TableSpec) -> list[tuple[str, Maker]]:
        makers = self._makers.get(table)
        if makers is None:
            first = self._first.setdefault(table.name, frozenset(table.columns))
            makers = [(c.name, self._maker(c, self._random if c in first else self._later)) for c in table.values]
            self._makers[table] = makers
        return makers

    def _maker(self, column: ColumnSpec, draw: random.Random) -> Maker:
        made = _PRODUCT.get((column.name, column.code))
        if made:
            return partial(made, draw)
        return lambda row, now: random_value(draw, column)


Maker = Callable[[Row, str], Any]


def _one_of(*values: Any) -> Callable[[random.Random, Row, str], Any]:
    return lambda draw, row, now: values[int(draw.random() * len(values))]


def _numbered(prefix: str, most: int) -> Callable[[random.Random, Row, str], str]:
    return lambda draw, row, now: f"{prefix}{int(draw.random() * most)}"


def _now(draw: random.Random, row: Row, now: str) -> str:
    return now


def _amount(draw: random.Random, row: Row, now: str) -> str:
    # Spanner writes a NUMERIC without zeros at its end.
    return f"{int(draw.random() * 10**6)}.{int(draw.random() * 98) + 1:02d}".rstrip("0")


def _status(draw: random.Random, row: Row, now: str) -> str:
    following = _NEXT_STATUS.get(row.get("Status"), ("INITIATED",))
    return following[int(draw.random() * len(following))]


def _metadata(draw: random.Random, row: Row, now: str) -> str:
    number = int(draw.random() * 10**9)
    return (
        f'{{"actingUser":"svc-{number % 7}","channel":"web","customerId":"cus_{number % 997}",'
        f'"orderId":"ord_{number}","riskScore":{number % 1000 / 1000}}}'
    )


_PRODUCT: Final[dict[tuple[str, str], Callable[[random.Random, Row, str], Any]]] = {
    ("CustomerId", "STRING"): _numbered("cus_", 1000),
    ("UserId", "STRING"): _numbered("usr_", 1000),
    ("Region", "STRING"): _one_of("us-central1", "europe-west1", "asia-south1"),
    ("Amount", "NUMERIC"): _amount,
    ("Currency", "STRING"): _one_of("EUR", "USD", "JPY"),
    ("PaymentMethod", "STRING"): _one_of("CARD", "WALLET", "BANK_TRANSFER"),
    ("CardNumber", "STRING"): _one_of(*_CARDS, None),
    ("CardholderName", "STRING"): _one_of(*_HOLDERS, None),
    ("CardExpiry", "STRING"): _one_of("01/2029", "12/2031", None),
    ("Action", "STRING"): _numbered("STEP_", 12),
    ("Timestamp", "TIMESTAMP"): _now,
    ("Status", "STRING"): _status,
    ("ServiceName", "STRING"): _one_of("checkout", "settlement", "card-gateway"),
    ("Metadata", "JSON"): _metadata,
    ("RetryCount", "INT64"): _numbered("", 4),
    ("ErrorDetails", "STRING"): _one_of(None, None, "05: do not honor", "timed out"),
    ("CreatedAt", "TIMESTAMP"): _now,
    ("UpdatedAt", "TIMESTAMP"): _now,
}
# What an update of a payment leaves alone.
_STEADY: Final = frozenset(
    {
        "CustomerId",
        "UserId",
        "Region",
        "Amount",
        "Currency",
        "PaymentMethod",
        "CardNumber",
        "CardholderName",
        "CardExpiry",
        "CreatedAt",
    }
)


def random_value(draw: random.Random, column: ColumnSpec) -> Any:
    """A value of the column's type in Spanner's JSON encoding, one time in ten NULL."""
    if draw.random() < 0.1:
        return None
    kind = column.type if not column.type.startswith("{") else column.code
    if kind.startswith("ARRAY<"):
        element = ColumnSpec(column.name, kind[6:-1])
        return [random_value(draw, element) for _ in range(draw.randrange(4))]
    make = _BY_TYPE.get(kind.partition("(")[0], "text {}".format)
    return make(draw.randrange(10**6))


_BY_TYPE: Final[dict[str, Callable[[int], Any]]] = {
    "INT64": lambda number: str(number - 5 * 10**5),
    "ENUM": str,
    "FLOAT64": lambda number: number / 8,
    "FLOAT32": lambda number: number / 8,
    "NUMERIC": "{}.5".format,
    "BOOL": lambda number: number % 2 == 0,
    "TIMESTAMP": "2026-01-01T00:00:00.{:06d}Z".format,
    "DATE": lambda number: f"2026-01-{number % 28 + 1:02d}",
    "JSON": '{{"a":[{0},null],"b":"é{0}"}}'.format,
    "BYTES": lambda number: base64.b64encode(number.to_bytes(4, "big")).decode(),
    "PROTO": lambda number: base64.b64encode(number.to_bytes(4, "big")).decode(),
    "UUID": "00000000-0000-4000-8000-{:012d}".format,
}


def convert(value: Any, old: ColumnSpec, new: ColumnSpec) -> Any:
    """A row's value after its column's type has changed; NULL where nothing carries over."""
    if value is None or old.code == new.code:
        return value
    match old.code, new.code:
        case "INT64", "STRING":
            return value
        case "STRING", "JSON":
            return orjson.dumps(value).decode()
        case "STRING", "BYTES":
            return base64.b64encode(value.encode()).decode()
        case _:
            return None


def spanner_text(moment: int) -> str:
    """A timestamp as Spanner writes it: no more fractional digits than it has."""
    return f"{from_nanos(moment)[:-1].rstrip('0').rstrip('.')}Z"


def records_between(partition: Partition, start: int, end: int | None) -> tuple[int, int]:
    """The places of the partition's records from `start` to `end`, both included: first, and one after the last."""
    first = bisect_left(partition.commits, start)
    return first, len(partition.commits) if end is None else bisect_right(partition.commits, end)
