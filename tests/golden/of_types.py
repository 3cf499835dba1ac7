"""One file per type: its values on their way through decode, mask and encode."""

from __future__ import annotations

import base64
import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from contract import tables
from contract.changes import Column
from contract.watched import WatchedColumn, WatchedTable, WatchedTables
from pipeline.sink import rows
from pipeline.source.records import DataChange, Mod
from pipeline.transforms.decode import decode
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker
from tests.shipped import WATCHED

FOLDER = Path(__file__).parent / "types"
_KEYS = MaskingKeys({"v1": bytes(range(32))})


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value as Spanner writes it, and what BigQuery has: in the column, among the exact and among the old values.

    All are JSON texts; None where there is nothing.
    """

    spanner: str
    bigquery: str | None
    exact: str | None
    old: str | None


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A file: a type, what carries it, what is kept of it in words, and its values."""

    type: str
    bigquery: str
    kept: str
    values: tuple[Value, ...]
    path: Path


def load() -> list[Golden]:
    """Every file, those of ARRAYs last."""
    return sorted(map(_read, FOLDER.glob("*.toml")), key=lambda golden: (golden.type.startswith("ARRAY"), golden.type))


def _read(path: Path) -> Golden:
    content = tomllib.loads(path.read_text())
    values = tuple(
        Value(spanner=each["spanner"], **{name: each.get(name) for name in ("bigquery", "exact", "old")})
        for each in content["values"]
    )
    said = {name: content[name] for name in ("type", "bigquery", "kept")}
    return Golden(**said, values=values, path=path)


def text(golden: Golden) -> str:
    """A file's content."""
    return "\n".join(_lines(golden))


def _lines(golden: Golden) -> Iterator[str]:
    yield f'type = "{golden.type}"'
    yield f'bigquery = "{golden.bigquery}"'
    yield f'kept = """\n{golden.kept}"""'
    for value in golden.values:
        yield "\n[[values]]"
        for name in ("spanner", "bigquery", "exact", "old"):
            if (found := getattr(value, name)) is not None:
                yield f"{name} = '''{found}'''"
    yield ""


def made(golden: Golden) -> tuple[Value, ...]:
    """What the pipeline makes of a file's values."""
    column = Column("Value", golden.type, False)
    table = WatchedTable(
        name="golden",
        columns={
            "Id": WatchedColumn(policy="identifier", type="INT64"),
            "Value": WatchedColumn(policy="scan", type=golden.type),
        },
    )
    masker = Masker(_KEYS, WatchedTables(tables=(*WATCHED.tables, table)))
    columns = (Column("Id", "INT64", True), column)
    found = []
    for value in golden.values:
        change = decode(_record(columns, value.spanner), 0)
        masker.mask(change)
        batch, failed = rows.encode([change], table)
        assert batch and not failed, (golden.type, value.spanner, failed)
        [row] = batch.to_pylist()
        exact = json.loads(row[tables.EXACT_VALUES] or "{}").get("Value")
        old = json.loads(row[tables.OLD_VALUES])["Value"]
        found.append(Value(spanner=value.spanner, bigquery=_shown(row["Value"]), exact=_shown(exact), old=_shown(old)))
    return tuple(found)


def _record(columns: tuple[Column, ...], value: str) -> DataChange:
    mod = Mod('{"Id": "1"}', f'{{"Value": {value}}}', f'{{"Value": {value}}}')
    return DataChange(
        stream="S",
        commit_timestamp="2026-11-23T09:00:00.000000000Z",
        record_sequence="0",
        server_transaction_id="t",
        is_last_record_in_transaction_in_partition=True,
        table="golden",
        columns=columns,
        mods=(mod,),
        mod_type="UPDATE",
        value_capture_type="NEW_ROW_AND_OLD_VALUES",
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        transaction_tag="",
        is_system_transaction=False,
    )


def _shown(value: Any) -> str | None:
    return None if value is None else json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    match value:
        case list():
            return [_plain(each) for each in value]
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return str(value) if isinstance(value, Decimal) else value
