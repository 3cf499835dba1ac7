"""The load that an estimate of cost is for: what no setting says. The command line reads it: it imports nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Self

# A month.
HOURS: Final = 730
DAYS: Final = HOURS / 24
WORKDAYS: Final = 22
_SECONDS: Final = HOURS * 3600
GIB: Final = 2**30


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """The load and its shape: what no setting says. Bytes are of a payment's row in Spanner."""

    tps: float = field(default=500, metadata={"help": "Commits a second, on average over the month."})
    row_bytes: float = field(default=1000, metadata={"help": "Bytes of a payment's row in Spanner."})
    changes_per_payment: float = field(default=3, metadata={"help": "Commits in the life of a payment."})
    source_months: float = field(default=3, metadata={"help": "Months that a payment stays in Spanner."})
    retention_months: float = field(default=12, metadata={"help": "Months that a change stays in BigQuery."})
    changelog_factor: float = field(
        default=2, metadata={"help": "Bytes of a changelog row, as a multiple of the payment's row."}
    )
    stream_days: float = field(default=7, metadata={"help": "Days that Spanner keeps change records."})
    workers: float = field(default=0, metadata={"help": "Dataflow workers on average; 0 is the job's initial workers."})
    queries_tib: float = field(default=1, metadata={"help": "TiB that people's SQL reads a month."})
    agents: float = field(default=10, metadata={"help": "Support agents who search payments."})
    searches: float = field(default=30, metadata={"help": "Searches of an agent a day, each with a payment opened."})
    found: float = field(default=10, metadata={"help": "Payments that a search by customer finds."})
    dead_letter_share: float = field(default=0.0001, metadata={"help": "Share of changes that become dead letters."})
    backfill_rows: float = field(default=0, metadata={"help": "Rows that a backfill writes in the month."})
    log_bytes: float = field(default=1500, metadata={"help": "Bytes of a Data Access log entry."})
    log_share: float = field(default=0.01, metadata={"help": "Log entries a commit, besides the services' own writes."})
    secret_versions: float = field(default=2, metadata={"help": "Enabled masking keys."})

    @property
    def idle(self) -> Self:
        """The same stack where nothing is written, and nobody searches."""
        return replace(self, tps=0, agents=0, queries_tib=0, backfill_rows=0)

    @property
    def changes(self) -> float:
        """Changes a month."""
        return self.tps * _SECONDS

    @property
    def payments(self) -> float:
        """New payments a month."""
        return self.changes / self.changes_per_payment

    @property
    def source_gib(self) -> float:
        """Payments in Spanner, without the change records."""
        return self.payments * self.source_months * self.row_bytes / GIB

    @property
    def changelog_bytes(self) -> float:
        """Bytes that a month adds to the changelogs."""
        return self.changes * self.row_bytes * self.changelog_factor
