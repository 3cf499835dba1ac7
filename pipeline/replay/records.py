"""A replay, what it is of, and its shards: what the metadata database keeps. A backfill is one of whole tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Self

from contract.changes import ModType
from contract.errors import AuditError
from contract.watched import WatchedTable
from pipeline.source.table_rows import KeyRange, Where

State = Literal["waiting", "running", "finished"]
Kind = Literal["replay", "backfill"]
MOD_TYPE: Final[ModType] = "REPLAY"


class ReplayError(AuditError, ValueError):
    """The replay cannot be; the message gives the rule and the remedy."""

    exit_code = 2


class ReplayUnavailable(AuditError):
    """Spanner or BigQuery does not answer, or refuses; the message says the remedy. It can be tried again."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which payments; all that is given must hold. It is what Spanner has at the moment of the read that counts.

    `since` and `until` bound the time of the last change, RFC 3339 in UTC; `changed_at` is that time exactly. They need
    a column that means `changed`, and a row without a value there is not selected.
    """

    payments: tuple[str, ...] = ()
    customer: str | None = None
    state: str | None = None
    status: str | None = None
    since: str | None = None
    until: str | None = None
    changed_at: tuple[str, ...] = ()

    @property
    def given(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if value}

    def to_json(self) -> str:
        return json.dumps(self.given, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values: dict[str, Any] = json.loads(text)
        given: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        return cls(**given)

    def where(self, table: WatchedTable, states: Mapping[str, str]) -> Where:
        """As a condition in SQL over the source. Raises ReplayError where the table has no such column."""
        where = Where()
        for name, value in self.given.items():
            meaning, comparison, kind = _CONDITIONS[name]
            column = table.column(meaning)  # type: ignore[arg-type]
            if column is None:
                raise ReplayError(f"{table.name} must have a column that means {meaning} to select by {name}.")
            own = table.columns[column].type
            compared: object = list(value) if isinstance(value, tuple) else value
            if name == "state":
                compared = [status for status, state in states.items() if state == value]
            parameters = {name: (kind.replace("OWN", own), compared)}
            where &= Where(sql=f"`{column}` {comparison.format(name)}", parameters=parameters)
        return where


# Field → what the column means, the comparison, the parameter's type; OWN is the column's.
_CONDITIONS: Final[Mapping[str, tuple[str, str, str]]] = {
    "payments": ("payment", "IN UNNEST(@{})", "ARRAY<OWN>"),
    "customer": ("customer", "= @{}", "OWN"),
    "state": ("status", "IN UNNEST(@{})", "ARRAY<STRING>"),
    "status": ("status", "= @{}", "STRING"),
    "since": ("changed", ">= @{}", "TIMESTAMP"),
    "until": ("changed", "< @{}", "TIMESTAMP"),
    "changed_at": ("changed", "IN UNNEST(@{})", "ARRAY<TIMESTAMP>"),
}


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A replay and how far it is. `problems` name payments that were not written, with why and no data of theirs.

    `total` counts the rows at `read_at`, `done` those of finished shards; `replayed` those that are
    written, None until it is finished. `payments` are those that were named; without them `selection` says which.

    A backfill is of all rows of its `tables`. `there` counts those whose key the changelog had already: they are done,
    and not written. `bytes_read`: of BigQuery, to know that. `moved_at` is when it last came further.
    """

    id: str
    requested_by: str
    reason: str
    payments: tuple[str, ...]
    requested_at: datetime
    read_at: datetime | None
    replayed: int | None
    problems: tuple[str, ...]
    finished_at: datetime | None
    selection: Selection
    total: int | None = None
    done: int = 0
    dead_letters: tuple[str, ...] = ()
    state: State = "waiting"
    kind: Kind = "replay"
    tables: tuple[str, ...] = ()
    there: int = 0
    bytes_read: int = 0
    moved_at: datetime | None = None

    @property
    def complete(self) -> bool:
        """Whether it has ended, and every shard of it was done. One that was given up half-way is not."""
        return self.finished_at is not None and self.done == self.total


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of a replay: rows of one table. `replayed` is None until a run has recorded what it appended."""

    number: int
    table: str
    within: KeyRange
    write_stream: str | None = None
    replayed: int | None = None
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of a shard's rows. `problems` say which were not written, and why; see `Replay` for the others."""

    stream: str = ""
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    there: int = 0
    bytes_read: int = 0
