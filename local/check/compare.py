"""The comparisons behind `audit local check`: pure functions over what the ledger, BigQuery and Spanner hold."""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from contract import spanner_types, tables, timestamps
from contract.changes import Change, Column
from contract.watched import WatchedTable, WatchedTables
from local.traffic.ledger import Entry
from pipeline.sink import values
from pipeline.transforms.cards import hide_cards
from pipeline.transforms.enrich import enrich
from pipeline.transforms.mask import Masker
from support.unmasked import columns_with_cards

Row = Mapping[str, Any]

# Enrichment that follows from the row alone; the rest of it needs the change.
_COMPARED_ENRICHMENT: Final = (tables.CUSTOMER_ID, tables.ACTING_USER, tables.PAYMENT_STATE)


class Finding(NamedTuple):
    """Something that is not as it must be. It names the row, and holds nothing else of it."""

    table: str
    puid: str
    commit_timestamp: str
    what: str


class _Key(NamedTuple):
    table: str
    puid: str
    commit_nanos: int

    def finding(self, what: str) -> Finding:
        return Finding(self.table, hide_cards(self.puid, set()), timestamps.from_nanos(self.commit_nanos), what)


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """How the changes of the ledger arrived. `dead` counts those that must not, and have their dead letter."""

    arrived: int
    dead: int
    missing: tuple[Finding, ...]
    doubled: tuple[Finding, ...]
    extra: tuple[Finding, ...]
    different: tuple[Finding, ...]


def key_of(table: WatchedTable) -> str:
    """The column that has a row's payment, in Spanner and in the changelog."""
    return str(tables.named(table, "payment") or next(iter(table.columns)))


def compare_changes(
    watched: WatchedTables, entries: Sequence[Entry], rows: Mapping[str, Sequence[Row]], dead: Iterable[tuple[str, str]]
) -> Arrivals:
    """Compares the ledger with the changelogs (source table → rows) and the dead letters (table, commit timestamp)."""
    expected = {_Key(e.table, e.puid, timestamps.to_nanos(e.commit_timestamp)): e for e in entries}
    found: dict[_Key, list[Row]] = defaultdict(list)
    for table, changes in rows.items():
        for row in changes:
            if row[tables.MOD_TYPE] == "REPLAY":
                # Of no commit: a person had the payment read again.
                continue
            found[_Key(table, str(row[key_of(watched.of(table))]), row[tables.COMMIT_TIMESTAMP_NANOS])].append(row)
    letters = Counter((table, timestamps.to_nanos(moment)) for table, moment in dead)
    missing, different, kept = [], [], 0
    for key, entry in expected.items():
        if found.get(key):
            if entry.dead_letter:
                different.append(key.finding("must be a dead letter, and is a row"))
            elif fault := _fault(watched.of(key.table), entry, found[key][0]):
                different.append(key.finding(fault))
        elif letters[key.table, key.commit_nanos] > 0:
            letters[key.table, key.commit_nanos] -= 1
            if entry.dead_letter:
                kept += 1
            else:
                missing.append(key.finding("is a dead letter"))
        else:
            missing.append(key.finding("has no dead letter" if entry.dead_letter else "is missing"))
    return Arrivals(
        arrived=sum(1 for key, entry in expected.items() if key in found and not entry.dead_letter),
        dead=kept,
        missing=tuple(missing),
        doubled=tuple(key.finding(f"is there {len(same)} times") for key, same in found.items() if len(same) > 1),
        extra=tuple(key.finding("is not in the ledger") for key in found.keys() - expected.keys()),
        different=tuple(different),
    )


def _fault(table: WatchedTable, entry: Entry, row: Row) -> str | None:
    if row[tables.MOD_TYPE] != entry.mod_type:
        return f"is an {row[tables.MOD_TYPE]}, not an {entry.mod_type}"
    status = tables.named(table, "status")
    if status and row[status] != entry.status:
        return "has another Status"
    return None


def latest(table: WatchedTable, rows: Iterable[Row]) -> dict[str, Row]:
    """The newest row of each payment, in commit order."""
    newest: dict[str, Row] = {}
    key = key_of(table)
    for row in rows:
        puid = str(row[key])
        if puid not in newest or newest[puid][tables.CHANGE_ID] < row[tables.CHANGE_ID]:
            newest[puid] = row
    return newest


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """A Spanner table as it was read: raw values in Spanner's JSON encoding, as a change record carries them."""

    table: WatchedTable
    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Any]]
    # Columns that the reader cannot compare, and whether times are whole seconds: the emulator's change records.
    left_out: frozenset[str] = frozenset()
    whole_seconds: bool = False


def compare_state(
    source: SourceTable, warehouse: Mapping[str, Row], masker: Masker, states: Mapping[str, str], unsure: frozenset[str]
) -> list[Finding]:
    """Compares Spanner's rows, masked and enriched, with the warehouse's newest row of each payment.

    Payments in `unsure` are left out: they changed meanwhile, or wait as a dead letter.
    """
    findings, seen, key = [], set(), key_of(source.table)
    for raw in source.rows:
        puid = str(raw[key])
        seen.add(puid)
        if puid in unsure:
            continue
        if puid not in warehouse:
            findings.append(_Key(source.table.name, puid, 0).finding("is in Spanner and has no current state"))
        elif differing := _differing(source, raw, warehouse[puid], masker, states):
            what = f"differs from Spanner in {', '.join(differing)}"
            findings.append(_Key(source.table.name, puid, warehouse[puid][tables.COMMIT_TIMESTAMP_NANOS]).finding(what))
    for puid in warehouse.keys() - seen - unsure:
        findings.append(
            _Key(source.table.name, puid, warehouse[puid][tables.COMMIT_TIMESTAMP_NANOS]).finding("is not in Spanner")
        )
    return findings


def compare_current(
    table: WatchedTable, current: Iterable[Row], changes: Mapping[str, Row], unsure: frozenset[str]
) -> list[Finding]:
    """Compares the view payment_current with the newest change of each payment."""
    findings, key = [], key_of(table)
    shown: Counter[str] = Counter()
    for row in current:
        puid = str(row[key])
        shown[puid] += 1
        newest = changes.get(puid, {})
        # Of a change that is there twice (at-least-once) either row may be shown: they differ in when they arrived.
        compared = row.keys() - {tables.BIG_QUERY_COMMIT_TIMESTAMP}
        if puid not in unsure and any(row[name] != newest.get(name) for name in compared):
            findings.append(_current(table, row, "payment_current does not show its newest change"))
    for puid, row in changes.items():
        wanted = 0 if row[tables.MOD_TYPE] == "DELETE" else 1
        if puid not in unsure and shown[puid] != wanted:
            findings.append(_current(table, row, f"payment_current shows it {shown[puid]} times, not {wanted}"))
    return findings


def _current(table: WatchedTable, row: Row, what: str) -> Finding:
    return _Key(table.name, str(row[key_of(table)]), row[tables.COMMIT_TIMESTAMP_NANOS]).finding(what)


def _differing(
    source: SourceTable, raw: dict[str, Any], row: Row, masker: Masker, states: Mapping[str, str]
) -> list[str]:
    keys = {c.name: raw[c.name] for c in source.columns if c.is_primary_key}
    new = {name: value for name, value in raw.items() if name not in keys}
    moment = timestamps.from_nanos(row[tables.COMMIT_TIMESTAMP_NANOS])
    change = Change("", source.table.name, "INSERT", moment, "", "", 0, True, 1, 1, source.columns, keys, new, {})
    masker.mask(change)
    enrich(change, source.table, states)
    expected = {**change.keys, **change.new}
    differing = [name for name in _COMPARED_ENRICHMENT if change.enriched[name] != row[name]]
    for column in source.columns:
        if column.name in source.left_out:
            continue
        for field in tables.fields_of(source.table, column.name, column.type):
            base = spanner_types.base(column.type)
            kind = base if base in _OF_THEIR_OWN and field.type == spanner_types.BIGQUERY[base] else field.type
            ours, theirs = _value(kind, expected.get(field.source or field.name)), row.get(field.name)
            if source.whole_seconds and isinstance(ours, datetime) and isinstance(theirs, datetime):
                ours, theirs = ours.replace(microsecond=0), theirs.replace(microsecond=0)
            if ours != theirs:
                differing.append(field.name)
    return differing


# Types whose values differ from those of the BigQuery type that carries them.
_OF_THEIR_OWN: Final = ("FLOAT32", "PG_NUMERIC")
_FROM_SPANNER: Final[dict[str, Callable[[Any], Any]]] = {
    **{kind: values.converter(kind) for kind in _OF_THEIR_OWN},
    "INT64": int,
    "NUMERIC": Decimal,
    "FLOAT64": float,
    "TIMESTAMP": lambda text: timestamps.to_datetime(timestamps.normalise(text)),
    "DATE": date.fromisoformat,
    "BYTES": base64.b64decode,
    "JSON": lambda text: json.loads(values.converter("JSON")(text)),
}


def _value(kind: str, value: Any) -> Any:
    """A value in Spanner's JSON encoding as BigQuery's client gives it."""
    if isinstance(value, list):
        return [_value(kind, each) for each in value if each is not None]
    if value is None or kind not in _FROM_SPANNER:
        return value
    return _FROM_SPANNER[kind](value)


def unmasked(table: WatchedTable, rows: Iterable[Row]) -> list[Finding]:
    """The rows in which a card number can be read, now or before."""
    return [
        _Key(table.name, str(row[key_of(table)]), row[tables.COMMIT_TIMESTAMP_NANOS]).finding("holds a card number")
        for row in rows
        if columns_with_cards(table, row)
    ]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds from commit to queryable, of `changes` changes; `measured` of them by the emulator's own record."""

    p50: int
    p95: int
    p99: int
    max: int
    changes: int
    measured: int


def latency(rows: Mapping[str, Sequence[Row]], queryable_at: Mapping[tuple[str, datetime], datetime]) -> Latency | None:
    """From commit to when a query could see the row: `queryable_at` of its append (table, stamp), else its stamp."""
    waits, measured = [], 0
    for table, changes in rows.items():
        for row in changes:
            stamp = row[tables.BIG_QUERY_COMMIT_TIMESTAMP]
            if stamp is None or row[tables.MOD_TYPE] == "REPLAY":
                # That one has no commit, but the moment of a read.
                continue
            recorded = queryable_at.get((table, stamp))
            measured += recorded is not None
            waits.append(_nanos(recorded or stamp) - row[tables.COMMIT_TIMESTAMP_NANOS])
    if not waits:
        return None
    waits.sort()
    at = {share: round(waits[min(len(waits) - 1, int(len(waits) * share))] / 1e6) for share in (0.5, 0.95, 0.99)}
    return Latency(
        p50=at[0.5], p95=at[0.95], p99=at[0.99], max=round(waits[-1] / 1e6), changes=len(waits), measured=measured
    )


def _nanos(moment: datetime) -> int:
    return timestamps.to_nanos(timestamps.from_datetime(moment.astimezone(UTC)))
