"""Arrow rows of an append → rows of a table, or what BigQuery has against them.

Sources: cloud.google.com/bigquery/docs/supported-data-types (which Arrow type a column takes, and its range),
`AppendRowsRequest`, `AppendRowsResponse.row_errors` and `StorageError` in
cloud.google.com/bigquery/docs/reference/storage/rpc/google.cloud.bigquery.storage.v1.
"""

from __future__ import annotations

import datetime
import decimal
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tests.strict.bigquery_store import ARROW, UTC_MICROS, Version, arrow_type

# 0001-01-01 to 9999-12-31, of the same page.
_DAYS = (-719162, 2932896)
_MICROS = (-62135596800_000_000, 253402300799_999_999)
_NUMERIC_DIGITS = {"NUMERIC": (29, 9), "BIGNUMERIC": (38, 38)}


@dataclass
class Plan:
    """How a writer's schema fits a table's: made once per connection and schema of the table."""

    version: Version
    extra: list[str] = field(default_factory=list)
    clashes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    columns: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    defaults: list[dict[str, Any]] = field(default_factory=list)


def plan(writer: pa.Schema, version: Version) -> Plan:
    """Names are compared whatever their case: cloud.google.com/bigquery/docs/schemas#column_names."""
    made = Plan(version)
    known = {f["name"].casefold(): f for f in version.fields}
    seen: set[str] = set()
    for index, column in enumerate(writer):
        folded = column.name.casefold()
        to = known.get(folded)
        if to is None:
            made.extra.append(column.name)
        elif folded in seen:
            made.clashes.append(f"{column.name} (twice)")
        elif not _takes(to, column.type):
            made.clashes.append(f"{column.name} ({column.type} for {to['mode']} {to['type']})")
        else:
            made.columns.append((index, to))
        seen.add(folded)
    for name, to in known.items():
        if name in seen:
            continue
        if to.get("defaultValueExpression"):
            made.defaults.append(to)
        elif to["mode"] == "REQUIRED":
            made.missing.append(to["name"])
    return made


def _takes(to: dict[str, Any], kind: pa.DataType) -> bool:
    if to["mode"] == "REPEATED":
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            return False
        kind = kind.value_type
    return _TAKES[to["type"]](kind)


def _text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


_TAKES: dict[str, Callable[[pa.DataType], bool]] = {
    "STRING": _text,
    "JSON": _text,
    "BYTES": lambda k: pa.types.is_binary(k) or pa.types.is_large_binary(k) or pa.types.is_fixed_size_binary(k),
    "INTEGER": lambda k: pa.types.is_integer(k) and not pa.types.is_uint64(k),
    "FLOAT": pa.types.is_floating,
    "BOOLEAN": pa.types.is_boolean,
    "NUMERIC": pa.types.is_decimal,
    "BIGNUMERIC": pa.types.is_decimal,
    "DATE": pa.types.is_date32,
    # A time zone makes it a point in time; without one it is a DATETIME.
    "TIMESTAMP": lambda k: pa.types.is_timestamp(k) and k.tz is not None,
    "DATETIME": lambda k: pa.types.is_timestamp(k) and k.tz is None,
}


def row_errors(batch: pa.RecordBatch, made: Plan, fill_nulls: bool) -> dict[int, str]:
    """Row → what is wrong with it. "If a request failed due to corrupted rows, no rows … will be appended"."""
    bad: dict[int, str] = {}
    for index, to in made.columns:
        values = batch.column(index)
        if to["mode"] == "REPEATED":
            # Assumed from the emulator and from BigQuery SQL, whose arrays have neither: a NULL list, a NULL element.
            _mark(bad, values.is_null(), values.null_count, f"{to['name']}: NULL for a REPEATED field")
            elements = values.flatten()
            parents = pc.list_parent_indices(values)
            if elements.null_count:
                for row in pc.unique(parents.filter(elements.is_null())).to_pylist():
                    bad.setdefault(row, f"{to['name']}: a NULL element in a REPEATED field")
            for position in _bad_values(to["type"], elements):
                bad.setdefault(parents[position].as_py(), f"{to['name']}: a value that {to['type']} does not take")
            continue
        if to["mode"] == "REQUIRED" and not (fill_nulls and to.get("defaultValueExpression")):
            _mark(bad, values.is_null(), values.null_count, f"{to['name']}: NULL for a REQUIRED field")
        for position in _bad_values(to["type"], values):
            bad.setdefault(position, f"{to['name']}: a value that {to['type']} does not take")
    return bad


def _mark(bad: dict[int, str], mask: pa.Array, count: int, why: str) -> None:
    if count:
        for row in pc.indices_nonzero(mask).to_pylist():
            bad.setdefault(row, why)


def _bad_values(kind: str, values: pa.Array) -> list[int]:
    check = _CHECKS.get(kind)
    return check(values) if check and len(values) > values.null_count else []


def _json(values: pa.Array) -> list[int]:
    # A JSON column takes a string that is JSON: cloud.google.com/bigquery/docs/json-data#storage-write-api. A number
    # that it would not write back as it came is refused: wide_number_mode "exact", as for PARSE_JSON.
    return [i for i, text in enumerate(values.to_pylist()) if text is not None and not _is_json(text)]


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=_whole, parse_float=_fraction, parse_constant=_no_json)
    except ValueError:
        return False
    return True


def _no_json(constant: str) -> float:
    raise ValueError(f"{constant} is a word of JavaScript")


# Numbers that BigQuery was seen to refuse: github.com/airbytehq/airbyte/pull/29590.
_REFUSED = ("67.174118",)


def _whole(text: str) -> int:
    if not -(2**63) <= (number := int(text)) < 2**64:
        raise ValueError("beyond 64 bits")
    return number


def _fraction(text: str) -> float:
    number = float(text)
    if text in _REFUSED or decimal.Decimal(text) != decimal.Decimal(repr(number)):
        raise ValueError("not written back as it came")
    return number


def _within(values: pa.Array, kind: pa.DataType, bounds: tuple[int, int]) -> list[int]:
    numbers = values.cast(kind)
    ends = pc.min_max(numbers).as_py()
    if bounds[0] <= ends["min"] and ends["max"] <= bounds[1]:
        return []
    return [i for i, n in enumerate(numbers.to_pylist()) if n is not None and not bounds[0] <= n <= bounds[1]]


def _timestamps(values: pa.Array) -> list[int]:
    if values.type.unit != "us":
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)
    return _within(values, pa.int64(), _MICROS)


def _decimals(kind: str) -> Callable[[pa.Array], list[int]]:
    whole, fraction = _NUMERIC_DIGITS[kind]

    def check(values: pa.Array) -> list[int]:
        if values.type.scale <= fraction and values.type.precision - values.type.scale <= whole:
            return []
        most = decimal.Decimal(10) ** whole
        return [
            i
            for i, n in enumerate(values.to_pylist())
            if n is not None and (abs(n) >= most or -n.normalize().as_tuple().exponent > fraction)
        ]

    return check


_CHECKS: dict[str, Callable[[pa.Array], list[int]]] = {
    "JSON": _json,
    "DATE": lambda values: _within(values, pa.int32(), _DAYS),
    "TIMESTAMP": _timestamps,
    "DATETIME": _timestamps,
    "NUMERIC": _decimals("NUMERIC"),
    "BIGNUMERIC": _decimals("BIGNUMERIC"),
}


def stored(
    batch: pa.RecordBatch, made: Plan, fill_nulls: bool, clock_ns: Callable[[], int] = time.time_ns
) -> pa.RecordBatch:
    """The rows under the table's names, with defaults filled in.

    A column that the writer's schema lacks gets its default always; a NULL in a column that it has gets it where the
    missing value interpretation says so: cloud.google.com/bigquery/docs/default-values#write-api (first half), and
    `AppendRowsRequest.MissingValueInterpretation` (second half).
    """
    arrays, names = [], []
    for index, to in made.columns:
        values, kind = batch.column(index), arrow_type(to)
        if values.type != kind:
            values = values.cast(kind)
        if fill_nulls and values.null_count and to.get("defaultValueExpression"):
            values = pc.fill_null(values, default_of(to, clock_ns))
        arrays.append(values)
        names.append(to["name"])
    for to in made.defaults:
        arrays.append(pa.repeat(default_of(to, clock_ns), batch.num_rows))
        names.append(to["name"])
    return pa.RecordBatch.from_arrays(arrays, names=names)


def default_of(to: dict[str, Any], clock_ns: Callable[[], int] = time.time_ns) -> pa.Scalar:
    """The value of a column's default: a literal, or the server's own clock."""
    text = to["defaultValueExpression"].strip()
    kind = ARROW[to["type"]]
    if re.fullmatch(r"CURRENT_TIMESTAMP(\(\s*\))?", text, re.I):
        return pa.scalar(clock_ns() // 1000, UTC_MICROS)
    if re.fullmatch(r"CURRENT_DATE(\(\s*\))?", text, re.I):
        return pa.scalar(datetime.datetime.fromtimestamp(clock_ns() / 1e9, datetime.UTC).date(), kind)
    if quoted := re.fullmatch(r"'([^']*)'|\"([^\"]*)\"", text):
        return pa.scalar(quoted[1] or quoted[2] or "", kind)
    if text.upper() in ("TRUE", "FALSE"):
        return pa.scalar(text.upper() == "TRUE", kind)
    if text.upper() == "NULL":
        return pa.scalar(None, kind)
    return pa.scalar(decimal.Decimal(text) if kind not in (pa.int64(), pa.float64()) else float(text), kind)
