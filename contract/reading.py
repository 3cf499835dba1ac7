"""What a question reads of BigQuery: a model over partitions and blocks, for any load and history.

A table is partitions of blocks, sorted by what it is clustered by. A question names columns, partitions
and keys: without keys it reads its columns of whole partitions, with keys a block for each key and partition. BigQuery
says beforehand what the first would read, clustering or not, and compares that with `maximumBytesBilled`: `at_most`.
The tables of events are not counted. The model is checked on synthetic layouts (tests/unit/test_reading.py); against
Google Cloud it is unproven.

    python -m contract.reading        prints the table of docs/cost.md

Sources: cloud.google.com/bigquery/docs/partitioned-tables, /clustered-tables, /best-practices-costs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from contract import lookups

Source = Literal["changes", "state", "lookup"]

_DAY_SECONDS: Final = 86_400
_MIB: Final = 2**20
# A query is charged for so much of each table at the least.
LEAST: Final = 10 * _MIB
# What the model may be wrong by before a query is refused.
_SLACK: Final = 4
# Partitions that the views of the present state read beside payment_state.
_UNMERGED_DAYS: Final = 15.0
# Columns of a list of payments; of counts by minute, state and reason; of what only finds a payment.
_LIST, _COUNTS, _FOUND, _WHOLE_ROW, _TRANSITION = 280, 120, 90, 2000, 420
# Keys, partitions: as many as the question is about.
_ASKED: Final = -1


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A load and its history. Bytes are of a row; blocks are what clustering leaves unread, or reads whole."""

    changes_per_second: float = 500
    days: float = 365
    row_bytes: int = 2000
    state_row_bytes: int = 1000
    lookup_row_bytes: int = 130
    changes_per_payment: float = 3
    values_per_payment: float = 4
    block_bytes: int = 128 * _MIB

    @property
    def changes_a_day(self) -> float:
        return self.changes_per_second * _DAY_SECONDS

    @property
    def payments(self) -> float:
        return self.changes_a_day * self.days / self.changes_per_payment

    def partition(self, source: Source) -> tuple[float, int]:
        """Rows of a partition, and bytes of a row."""
        if source == "changes":
            return self.changes_a_day, self.row_bytes
        if source == "state":
            return self.payments, self.state_row_bytes
        return self.payments * self.values_per_payment / lookups.BUCKETS, self.lookup_row_bytes


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a question reads of one table: bytes of its columns in a usual row, partitions, and keys (0: all).

    `payments` that follow each other by their keys, in place of keys that are anywhere.
    """

    source: Source
    columns: int
    partitions: float = 1
    keys: int = 0
    payments: int = 0

    def reads(self, layout: Layout, asked: Asked) -> Reading:
        rows, row_bytes = layout.partition(self.source)
        partitions = asked.days if self.partitions == _ASKED else self.partitions
        keys = asked.keys if self.keys == _ASKED else self.keys
        # Of the lookup each key has its partition.
        partitions = keys if self.source == "lookup" else min(partitions, layout.days)
        # The columns' part of a row is the same in a larger one.
        share = self.columns / Layout().partition(self.source)[1]
        whole = rows * row_bytes * share
        blocks = max(1, math.ceil(rows * row_bytes / layout.block_bytes))
        touched = 1 if self.source == "lookup" else blocks * (1 - (1 - 1 / blocks) ** keys)
        if self.payments:
            # Both ends of the range are in the midst of a block.
            touched = 1 + blocks * self.payments / layout.payments
        read = min(whole, touched * layout.block_bytes * share) if keys or self.payments else whole
        return Reading(max(LEAST, int(partitions * read)), max(LEAST, int(partitions * whole)))


class Asked(NamedTuple):
    """How many partitions and keys a question is about, where its parts do not say it."""

    days: float = 2
    keys: int = 1


class Reading(NamedTuple):
    """Bytes that a question reads, and that BigQuery says beforehand it would read at most."""

    reads: int
    at_most: int


_STATE_OF_KEYS: Final = (
    Part(source="state", columns=_LIST, keys=_ASKED),
    Part(source="changes", columns=_LIST, partitions=_UNMERGED_DAYS, keys=_ASKED),
)
_LOOK_UP: Final = (Part(source="lookup", columns=130, keys=1), Part(source="changes", columns=_FOUND))
# Question → what it reads. The names of prebuilt queries are those of their files.
QUESTIONS: Final[Mapping[str, tuple[Part, ...]]] = {
    "search by payment": _STATE_OF_KEYS,
    "search by customer or card": (*_LOOK_UP, *_STATE_OF_KEYS),
    "search of a time": (Part(source="changes", columns=_LIST, partitions=_ASKED),),
    "timeline": (
        Part(source="lookup", columns=130, keys=1),
        Part(source="changes", columns=_WHOLE_ROW, partitions=_ASKED, keys=1),
    ),
    "home page": (Part(source="changes", columns=3 * _COUNTS + _LIST),),
    "payment_by_id": (
        Part(source="state", columns=1000, keys=1),
        Part(source="changes", columns=_WHOLE_ROW, partitions=_UNMERGED_DAYS, keys=1),
    ),
    "payments_by_customer": _LOOK_UP,
    "days_of_payment": (Part(source="lookup", columns=130, keys=1), Part(source="changes", columns=_FOUND, keys=1)),
    "timeline_of_payment": (Part(source="changes", columns=_WHOLE_ROW, partitions=_ASKED, keys=1),),
    "transitions_of_payment": (Part(source="changes", columns=_TRANSITION, partitions=_ASKED, keys=1),),
    "failures": (Part(source="changes", columns=_TRANSITION + _COUNTS, partitions=_ASKED),),
    "failures_by_reason": (Part(source="changes", columns=_COUNTS, partitions=_ASKED),),
    "failures_by_service": (Part(source="changes", columns=_COUNTS, partitions=_ASKED),),
    "summary_by_period": (Part(source="changes", columns=_COUNTS, partitions=_ASKED),),
    "summary_by_customer": (Part(source="changes", columns=_COUNTS, partitions=_ASKED),),
    "summary_by_method": (Part(source="changes", columns=_COUNTS, partitions=_ASKED),),
    "summary_by_region": (Part(source="changes", columns=_COUNTS, partitions=_ASKED),),
    "stuck_payments": (),
    "merge of payment_state": (
        Part(source="state", columns=1000),
        Part(source="changes", columns=_WHOLE_ROW, partitions=_ASKED),
    ),
    "fill of payment_lookup": (Part(source="changes", columns=150),),
    # A million rows; of an id and the commit timestamp.
    "keys of a backfill": (Part(source="changes", columns=46, partitions=math.inf, payments=1_000_000),),
}


def of(question: str, layout: Layout | None = None, asked: Asked | None = None) -> Reading:
    """What a question reads at a load. Without one: 500 changes a second, a year of them."""
    layout, asked = layout or Layout(), asked or Asked()
    parts = [part.reads(layout, asked) for part in QUESTIONS[question]] or [Reading(LEAST, LEAST)]
    return Reading(sum(part.reads for part in parts), sum(part.at_most for part in parts))


def limit(question: str, layout: Layout, asked: Asked) -> int:
    """`maximumBytesBilled`: what BigQuery may say beforehand, with room for what the model does not know."""
    return _SLACK * of(question, layout, asked).at_most


def shown(number: float) -> str:
    """Bytes as people read them: `3.2 GiB`."""
    for unit in ("MiB", "GiB", "TiB"):
        number /= 1024 if unit != "MiB" else _MIB
        if number < 1000 or unit == "TiB":
            break
    return f"{number:,.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"


def table() -> str:
    """The questions and what they read, as Markdown."""
    lines = ["| question | reads | BigQuery says beforehand |", "|---|---|---|"]
    for question in QUESTIONS:
        # A week lies between two merges; a page of payments is fifty.
        asked = Asked(days=7 if question.startswith("merge") else 2, keys=50 if "customer or card" in question else 1)
        found = of(question, asked=asked)
        lines.append(f"| {question} | {shown(found.reads)} | {shown(found.at_most)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
