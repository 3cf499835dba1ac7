"""One file per value capture type: the same history, as its stream carries it and as BigQuery has it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from contract import tables
from contract.changes import CAPTURE_TYPES, PARTIAL_CAPTURE_TYPES, WITHOUT_OLD_VALUES, Column, Row
from contract.payments import PAYMENT_STATES
from pipeline.sink import rows
from pipeline.source.completion import Completer
from pipeline.source.records import DataChange, Mod
from pipeline.transforms.decode import decode
from pipeline.transforms.enrich import enrich
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker
from tests.shipped import PAYMENTS, WATCHED

FOLDER = Path(__file__).parent / "capture"
_COLUMNS: Final = (
    Column("PUID", "STRING", True),
    Column("Status", "STRING", False),
    Column("Amount", "NUMERIC", False),
    Column("CustomerId", "STRING", False),
)
# The row after each change; None where there is none. The last UPDATE is of a row that cannot be read any more.
_INITIATED: Final[Row] = {"Status": "INITIATED", "Amount": "12.5", "CustomerId": "c1"}
_CAPTURED: Final[Row] = _INITIATED | {"Status": "CAPTURED"}
_HISTORY: Final[tuple[tuple[str, str, Row | None, Row | None, bool], ...]] = (
    ("a payment begins", "INSERT", None, _INITIATED, True),
    ("its status changes", "UPDATE", _INITIATED, _CAPTURED, True),
    (
        "its amount changes, and its row is gone when it is read",
        "UPDATE",
        _CAPTURED,
        _CAPTURED | {"Amount": "3"},
        False,
    ),
    ("it is deleted", "DELETE", _CAPTURED, None, True),
)
_SHOWN: Final = (
    *("Status", "Amount", "CustomerId", tables.PAYMENT_STATE, tables.PREVIOUS_PAYMENT_STATE),
    *(tables.TRANSITION_EXPECTED, tables.OLD_VALUES, tables.IS_INCOMPLETE),
)


class _Table:
    """The table at the moment of each change."""

    def __init__(self, rows: dict[str, Row | None]) -> None:
        self._rows = rows

    def columns(self, stream: str, table: str, at: str) -> tuple[Column, ...]:
        return _COLUMNS

    def keyed(self, table: str, columns: Sequence[Column], at: str, keys: Sequence[Sequence[Any]]) -> Iterable[Row]:
        row = self._rows[at]
        return [] if row is None else [{"PUID": "p1"} | row]


def paths() -> dict[str, Path]:
    """Each capture type's file."""
    return {capture: FOLDER / f"{capture}.toml" for capture in CAPTURE_TYPES}


def text(capture: str) -> str:
    """A file's content, as the pipeline makes it."""
    return "\n".join(_lines(capture))


def _lines(capture: str) -> Iterator[str]:
    yield f'capture = "{capture}"'
    for number, (what, kind, before, after, readable) in enumerate(_HISTORY):
        at = f"2026-11-23T09:00:0{number}.000000000Z"
        new, old = _carried(capture, kind, before, after)
        row = _row(capture, kind, at, new, old, after if readable else None)
        yield f"\n# {what[0].upper()}{what[1:]}."
        yield "[[changes]]"
        yield f'mod_type = "{kind}"'
        yield f"new_values = '''{json.dumps(new)}'''"
        yield f"old_values = '''{json.dumps(old)}'''"
        yield "[changes.row]"
        yield from (f"{name} = {json.dumps(row[name])}" for name in _SHOWN if row[name] is not None)
    yield ""


def _carried(capture: str, kind: str, before: Row | None, after: Row | None) -> tuple[Row, Row]:
    """What a stream carries as new and old values: cloud.google.com/spanner/docs/change-streams#value-capture-type."""
    touched = {name for name in after or {} if before is None or before[name] != (after or {})[name]}
    whole = kind == "INSERT" or capture not in PARTIAL_CAPTURE_TYPES
    new = {name: value for name, value in (after or {}).items() if whole or name in touched}
    if capture in WITHOUT_OLD_VALUES:
        return new, {}
    return new, {name: value for name, value in (before or {}).items() if kind == "DELETE" or name in touched}


def _row(capture: str, kind: str, at: str, new: Row, old: Row, there: Row | None) -> dict[str, Any]:
    carried = {"PUID", *new, *old} if capture in PARTIAL_CAPTURE_TYPES else {column.name for column in _COLUMNS}
    record = DataChange(
        stream="S",
        commit_timestamp=at,
        record_sequence="0",
        server_transaction_id="t",
        is_last_record_in_transaction_in_partition=True,
        table=PAYMENTS.name,
        columns=tuple(column for column in _COLUMNS if column.name in carried),
        mods=(Mod('{"PUID": "p1"}', json.dumps(new), json.dumps(old)),),
        mod_type=kind,
        value_capture_type=capture,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        transaction_tag="",
        is_system_transaction=False,
    )
    [(change, error)] = Completer(_Table({at: there})).complete([decode(record, 0)])
    assert error is None
    Masker(MaskingKeys({"v1": bytes(range(32))}), WATCHED).mask(change)
    enrich(change, PAYMENTS, PAYMENT_STATES)
    batch, failed = rows.encode([change], PAYMENTS)
    assert batch and not failed
    [row] = batch.to_pylist()
    if row.get("Amount") is not None:
        row["Amount"] = str(row["Amount"].normalize())
    return dict.fromkeys(_SHOWN) | row
