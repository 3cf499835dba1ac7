"""The last validations, as they were recorded: what each compared and found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contract import queries
from support.warehouse import Warehouse

PERIOD: Final = timedelta(days=7)
MOST: Final = 100


@dataclass(frozen=True, kw_only=True)
class Run:
    """A validation. `findings` and `resolved` name rows by key and columns, and hold no value of them."""

    run_id: str
    checked_at: datetime
    read_timestamp: datetime
    mismatches: int
    source_rows: int
    warehouse_rows: int
    warehouse_bytes: int
    findings: list[dict[str, Any]]
    resolved: list[dict[str, Any]]
    notes: list[str]


def latest(warehouse: Warehouse) -> list[Run]:
    """The runs of a week, the newest first, the last hundred. Raises WarehouseError."""
    names = tuple(Run.__dataclass_fields__)
    rows = warehouse.rows(
        f"SELECT {', '.join(names)} FROM {warehouse.view(queries.VALIDATION_RUNS)} "
        f"WHERE checked_at >= @since ORDER BY checked_at DESC LIMIT {MOST}",
        since=datetime.now(UTC) - PERIOD,
    )
    return [Run(**{name: row[name] for name in names}) for row in rows]
