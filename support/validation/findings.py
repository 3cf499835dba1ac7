"""What a validation finds, and what it reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Self

from contract.errors import AuditError

Kind = Literal["missing", "extra", "different", "doubled", "card"]
# Those that mean a row of BigQuery is wrong. Of a doubled one the views show one; a card is counted apart.
MISMATCHES: Final[frozenset[Kind]] = frozenset({"missing", "extra", "different"})
# How many a run names, and how many are kept until they are resolved. It counts all of them.
MOST_NAMED: Final = 1_000


class ValidationError(AuditError):
    """The validation cannot be; the message gives the rule and the remedy."""


class Identity(NamedTuple):
    """What makes two findings the same."""

    table: str
    key: str
    kind: Kind
    change_id: str | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A row that is not as it must be, named by its key; it has no value of it.

    With a `change_id` it is about that change, without one about the newest row of the key. `columns` are those of
    BigQuery that differ. `raw_key` is the primary key as Spanner reads it. `committed`: of the change, or of Spanner's
    row where it says so. `state_is_wrong`: the payment shows a wrong state by it. `outcome` is what was done about it,
    `final` where nothing more can be.
    """

    table: str
    key: str
    kind: Kind
    change_id: str | None = None
    columns: tuple[str, ...] = ()
    raw_key: tuple[Any, ...] = ()
    committed: str | None = None
    state_is_wrong: bool = True
    outcome: str = ""
    final: bool = False

    @property
    def identity(self) -> Identity:
        return Identity(self.table, self.key, self.kind, self.change_id)

    @property
    def is_open(self) -> bool:
        """Whether it is a mismatch that somebody has to see to."""
        return self.kind in MISMATCHES and not self.final

    def ended(self, outcome: str) -> Self:
        return replace(self, outcome=outcome, final=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**values | {"columns": tuple(values["columns"]), "raw_key": tuple(values["raw_key"])})


@dataclass(kw_only=True)
class Check:
    """One comparison. `scope`: the changes of a window, the keys that changed in it, or a part of all keys.

    Counts and checksums are of masked rows in their compared form; a checksum is the same in any order.
    """

    table: str
    scope: Literal["changes", "keys", "part"]
    until: datetime
    since: datetime | None = None
    low: str | None = None
    high: str | None = None
    source_rows: int = 0
    warehouse_rows: int = 0
    source_checksum: str = ""
    warehouse_checksum: str = ""
    left_out: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    doubled: int = 0

    @property
    def same(self) -> bool:
        return not (self.missing or self.extra or self.different)


@dataclass(kw_only=True)
class Report:
    """A run. `until`: both sides were compared as they were just before. `rows` and `bytes` are what it read."""

    id: str
    at: datetime
    until: datetime
    checks: list[Check] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    resolved: list[Finding] = field(default_factory=list)
    source_rows: int = 0
    warehouse_rows: int = 0
    warehouse_bytes: int = 0
    cpu_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def open(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_open]

    @property
    def unhandled(self) -> list[Finding]:
        """Mismatches about which nothing was done, or nothing can be."""
        return [f for f in self.findings if f.kind in MISMATCHES and (f.final or not f.outcome)]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"open": len(self.open)}
