"""What validation costs: rows per CPU second on each side, and memory per million changes.

    python -m bench.validation [--rounds 3]

Without I/O, over recorded change records of the simulator's traffic: Spanner's responses to masked digests on one side,
BigQuery's REST pages to digests, scanned for card numbers, on the other. Memory is what a window holds of BigQuery's
rows before Spanner's come.
"""

from __future__ import annotations

import argparse
import base64
import json
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

from google.cloud.spanner_v1.types.result_set import PartialResultSet as _Response

from bench import record
from bench.results import keep, machine
from contract import payments
from contract.changes import Change, StepError
from contract.watched import WatchedTable, WatchedTables
from pipeline.sink import rows
from pipeline.sink.changelogs import schema_field
from pipeline.source.records import DataChange, RecordReader
from pipeline.transforms import decode
from pipeline.transforms.enrich import enrich
from pipeline.transforms.filter import Ignored
from pipeline.transforms.keys import KEY_BYTES, MaskingKeys
from pipeline.transforms.mask import Masker
from support.bigquery_rest import _rows
from support.unmasked import columns_with_cards
from support.validation.comparable import Comparable, digest
from support.validation.compare import ChangesOfWindow

WATCHED = WatchedTables.load()
_MICROS = 1e6


def _masked(kept: dict[str, list[bytes]], masker: Masker) -> Iterator[Change]:
    for stream, responses in kept.items():
        for found in RecordReader(stream).records(map(_Response.pb().FromString, responses)):
            if not isinstance(found, DataChange):
                continue
            for index in range(len(found.mods)):
                change = decode.decode(found, index)
                try:
                    masker.mask(change)
                except StepError:
                    continue
                enrich(change, WATCHED.of(change.table), payments.PAYMENT_STATES)
                yield change


def _form(table: WatchedTable, change: Change) -> Comparable:
    known = {f.name.casefold(): schema_field(f) for f in rows.fields(change.columns, table)}
    return Comparable(table, change.columns, known, ignored=Ignored(), hold_new=False, emulated=False)


def _page(table: WatchedTable, changes: list[Change]) -> str:
    """The changes as BigQuery's REST API answers with their rows."""
    batch, _ = rows.encode(changes, table)
    assert batch is not None
    fields = rows.fields(changes[0].columns, table)
    shown = [f for f in fields if f.name in batch.schema.names]
    answered = [{"f": [_cell(row[f.name]) for f in shown]} for row in batch.to_pylist()]
    schema = [{"name": f.name, "type": f.type, "mode": f.mode} for f in shown]
    return json.dumps({"schema": {"fields": schema}, "rows": answered})


def _cell(value: Any) -> dict[str, Any]:
    match value:
        case list():
            return {"v": [_cell(each) for each in value]}
        case datetime():
            return {"v": str(int(value.replace(tzinfo=UTC).timestamp() * _MICROS))}
        case bytes():
            return {"v": base64.b64encode(value).decode()}
        case None | date():
            return {"v": None if value is None else value.isoformat()}
    return {"v": str(value)}


def measure(rounds: int) -> dict[str, Any]:
    """Rows per CPU second of each side, the best of some rounds, and bytes of memory per change."""
    kept, masker = record.recording(), Masker(MaskingKeys({"v1": bytes(range(KEY_BYTES))}), WATCHED, new_columns="scan")
    changes = list(_masked(kept, masker))
    forms = {change.table: _form(WATCHED.of(change.table), change) for change in changes}
    pages = {
        name: _page(form.table, [change for change in changes if change.table == name]) for name, form in forms.items()
    }
    spanner = bigquery = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for change in _masked(kept, masker):
            form = forms[change.table].of_change(change)
            digest((*form.state, *form.history))
        spanner = min(spanner, time.process_time() - began)
        began = time.process_time()
        for name, page in pages.items():
            window = ChangesOfWindow(forms[name])
            for row in _rows(json.loads(page)):
                columns_with_cards(window.form.table, row)
                window.add_row(row)
        bigquery = min(bigquery, time.process_time() - began)
    return {
        "changes": len(changes),
        "spanner_per_cpu_second": round(len(changes) / spanner),
        "bigquery_per_cpu_second": round(len(changes) / bigquery),
        "bytes_per_change": _memory(forms, pages, len(changes)),
    }


def _memory(forms: dict[str, Comparable], pages: dict[str, str], changes: int) -> int:
    tracemalloc.start()
    held = []
    before = tracemalloc.get_traced_memory()[0]
    for name, page in pages.items():
        window = ChangesOfWindow(forms[name])
        for row in _rows(json.loads(page)):
            window.add_row(row)
        held.append(window)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return round(taken / changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    before = machine()
    found = measure(parser.parse_args().rounds)
    print(
        f"{found['changes']:,} changes: Spanner's side {found['spanner_per_cpu_second']:,} per CPU second, BigQuery's "
        f"{found['bigquery_per_cpu_second']:,}; {found['bytes_per_change']:,} bytes held per change"
    )
    print(keep("validation", {"machine": before, **found}))


if __name__ == "__main__":
    main()
