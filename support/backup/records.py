"""What is recorded of a backup: of each table and partition the rows and a checksum, and where they are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, Self

from contract import tables
from contract.errors import AuditError
from contract.watched import Partition as Partitioning
from contract.watched import WatchedTables

_UINT64: Final = 2**64


class BackupError(AuditError):
    """The backup, restore or drill cannot be; the message gives the rule and the remedy."""


class Backed(NamedTuple):
    """A table that is backed up, `dataset.name`. `arrived` is the column with the time of a row's append, `key` names
    a row."""

    id: str
    partition_by: str
    partition: Partitioning
    arrived: str
    key: str


def backed(watched: WatchedTables) -> tuple[Backed, ...]:
    """What nothing else can make again. State and lookup come from the changelogs, the rest is of use for days."""
    log, checks = tables.access_log(watched), tables.audit_checks(watched)
    return (
        *(
            Backed(t.id, tables.COMMIT_TIMESTAMP, t.partition, tables.BIG_QUERY_COMMIT_TIMESTAMP, tables.CHANGE_ID)
            for t in watched.tables
        ),
        Backed(log.id, "at", log.partition, "at", "request_id"),
        Backed(checks.id, "checked_at", checks.partition, "checked_at", "run_id"),
    )


class Sum(NamedTuple):
    """Rows, and the sum of their fingerprints: the same in any order, different where a row is doubled."""

    rows: int = 0
    total: int = 0

    def plus(self, other: Sum) -> Sum:
        return Sum(self.rows + other.rows, (self.total + other.total) % _UINT64)

    @property
    def checksum(self) -> str:
        return f"{self.total % _UINT64:016x}"


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition as the snapshot has it. The checksum is over the table's first columns, `columns` of them: one that
    was added later has no value there. `export` is its folder below the backups' directory; empty: none yet.
    """

    rows: int
    checksum: str
    columns: int
    export: str = ""

    def same(self, found: Sum) -> bool:
        return (self.rows, self.checksum) == (found.rows, found.checksum)


@dataclass(frozen=True, kw_only=True)
class TableBackup:
    """A table in a backup. `table` and `snapshot` are `dataset.name`; `made_at` is when BigQuery made the snapshot.

    `layout` is the table's schema, partitioning and clustering as BigQuery's REST has them, for a restore of the
    export. `unchecked` are partitions that wait for a later run, since this one was at its limit of bytes.
    """

    table: str
    snapshot: str
    made_at: datetime
    rows: int
    bytes: int
    layout: dict[str, Any]
    partitions: dict[str, Partition]
    unchecked: tuple[str, ...] = ()

    @property
    def checksum(self) -> str:
        """Of the partitions that were checked."""
        return sums(Sum(p.rows, int(p.checksum, 16)) for p in self.partitions.values()).checksum

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(field["name"] for field in self.layout["schema"]["fields"])

    @property
    def row_bytes(self) -> float:
        return self.bytes / self.rows if self.rows else 0.0

    @property
    def exports(self) -> Iterator[str]:
        yield from (partition.export for partition in self.partitions.values() if partition.export)


def is_id(text: str) -> bool:
    """Whether a backup may be called so: it is part of tables' and files' names."""
    return re.fullmatch(r"[A-Za-z0-9_-]{1,40}", text) is not None


def is_table(text: str) -> bool:
    """Whether it names a table, `dataset.name`."""
    return re.fullmatch(r"\w{1,1024}\.[\w-]{1,1024}", text, re.ASCII) is not None


def sums(parts: Iterable[Sum]) -> Sum:
    found = Sum()
    for part in parts:
        found = found.plus(part)
    return found


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What is not as it was recorded. `keys` are rows by their key (of a changelog the change id), at most 20."""

    table: str
    kind: Literal["missing", "made again", "rows", "altered", "export"]
    partition: str = ""
    recorded_rows: int | None = None
    found_rows: int | None = None
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = {
            "missing": "the snapshot is gone",
            "made again": "the snapshot is another one than the backup made",
            "rows": "other rows than recorded",
            "altered": "as many rows as recorded, with other values",
            "export": "the export has other rows than recorded",
        }[self.kind]
        where = f" {self.partition}" if self.partition else ""
        counts = f" ({self.recorded_rows:,} recorded, {self.found_rows:,} found)" if self.found_rows is not None else ""
        named = f": {', '.join(self.keys)}" if self.keys else ""
        return f"{self.table}{where}: {what}{counts}{named}"


@dataclass(frozen=True, kw_only=True)
class Drill:
    """A restore that was tried. `rows` and `bytes_read` are what it read; `partitions` of `of` had their checksum
    compared, all had their rows counted. `lows`: by table, where the next drill's rotating part begins."""

    at: datetime
    differences: tuple[Difference, ...]
    rows: int
    bytes_read: int
    partitions: int
    of: int
    lows: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.differences


@dataclass(frozen=True, kw_only=True)
class Backup:
    """A backup. All its tables are as they were at `at`. Without `created_at` it is not whole yet.

    `problems`: why it is not good. `bytes_read` are those of its checksums and exports.
    """

    id: str
    at: datetime
    expires_at: datetime
    created_at: datetime | None = None
    tables: tuple[TableBackup, ...] = ()
    bytes_read: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    drill: Drill | None = None

    @property
    def good(self) -> bool:
        """Whether it is whole, held what the tables held, and no drill has found it altered since."""
        return self.created_at is not None and not self.problems and (self.drill is None or self.drill.passed)

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def bytes(self) -> int:
        return sum(table.bytes for table in self.tables)

    @property
    def exports(self) -> set[str]:
        return {folder for table in self.tables for folder in table.exports}

    def age(self, now: datetime) -> timedelta:
        return now - self.at

    def table(self, name: str) -> TableBackup:
        """The table `dataset.name`. Raises BackupError."""
        for found in self.tables:
            if found.table == name:
                return found
        raise BackupError(f"backup {self.id} has {', '.join(t.table for t in self.tables) or 'no table'}, not {name}.")

    def to_dict(self) -> dict[str, Any]:
        """With what a person asks of it first; `from_dict` leaves that out."""
        values = asdict(self)
        for made, table in zip(values["tables"], self.tables, strict=True):
            made["checksum"] = table.checksum
        return values | {"good": self.good, "rows": self.rows, "bytes": self.bytes}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From `to_dict` as JSON has it."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(
            **known
            | {name: _time(known.get(name)) for name in ("at", "expires_at", "created_at")}
            | {"tables": tuple(_table(each) for each in known.get("tables", ()))}
            | {name: tuple(known.get(name, ())) for name in ("problems", "notes")}
            | {"drill": drill_from(known["drill"]) if known.get("drill") else None}
        )


def drill_from(values: dict[str, Any]) -> Drill:
    differences = tuple(Difference(**each | {"keys": tuple(each["keys"])}) for each in values["differences"])
    known = {name: values[name] for name in Drill.__dataclass_fields__}
    return Drill(**known | {"at": _time(values["at"]), "differences": differences, "notes": tuple(values["notes"])})


def _table(values: dict[str, Any]) -> TableBackup:
    known = {name: values[name] for name in TableBackup.__dataclass_fields__}
    return TableBackup(
        **known
        | {"made_at": _time(values["made_at"]), "unchecked": tuple(values["unchecked"])}
        | {"partitions": {name: Partition(**each) for name, each in values["partitions"].items()}}
    )


def _time(text: str | datetime | None) -> Any:
    return datetime.fromisoformat(text) if isinstance(text, str) else text
