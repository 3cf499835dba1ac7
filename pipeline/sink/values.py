"""Values of Spanner's types as BigQuery's columns have them, and what those columns cannot hold of them.

A value is in Spanner's JSON encoding, as change records and reads of rows have it. `converter` makes of it what its
column takes. Where the column holds less than the value, `exact` gives the value as it is, for the row's
`_metadata_spanner_exact_values`: docs/types.md has the rules by type. In what it gives, and among old values, every
number is a text, because BigQuery's JSON refuses or changes some (pipeline/sink/json_numbers.py).
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Mapping
from datetime import date
from decimal import ROUND_DOWN, Context, Decimal
from typing import Any, Final

import orjson

from contract import spanner_types, timestamps
from pipeline.sink.json_numbers import kept

Converter = Callable[[Any], Any]
# What is lost, or None.
Exact = Callable[[Any], Any]

_SPECIAL_FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
# A TIMESTAMP with microseconds, in Spanner's encoding.
_MICROS: Final = len("2026-11-23T09:00:00.123456Z")
# What BigQuery's NUMERIC ends at: digits after the point, and the first number that has too many before it.
_NUMERIC_SCALE: Final = Decimal("1e-9")
_TOO_LARGE: Final = Decimal("1e29")
_NUMERIC: Final = Context(prec=38, rounding=ROUND_DOWN)


def converter(spanner_type: str) -> Converter:
    """A function from a value of a type to what its column takes. It raises ValueError, TypeError, ArithmeticError,
    KeyError or AttributeError for what is not of the type."""
    convert = _CONVERTERS.get(spanner_types.base(spanner_type), _text)
    return convert if spanner_types.element(spanner_type) is None else _repeated(convert)


def exact(spanner_type: str) -> Exact | None:
    """A function from a value of a type to what `_metadata_spanner_exact_values` must have: None where the column holds
    all of it. No function where a column of the type always does."""
    of_one = _EXACT.get(spanner_types.base(spanner_type))
    if spanner_types.element(spanner_type) is None:
        return of_one
    write = _WRITTEN.get(spanner_types.base(spanner_type), _as_it_is)

    def of_array(values: Any) -> list[Any] | None:
        # An ARRAY that is NULL is empty in BigQuery as well.
        lost = not values or None in values or (of_one is not None and any(of_one(v) is not None for v in values))
        return [None if v is None else write(v) for v in values] if lost else None

    return of_array


def without_numbers(row: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """A row for a JSON column, with its numbers as texts. `types`: those of its columns, of which some may lack."""
    return {name: _without_numbers(value, types.get(name, "")) for name, value in row.items()}


def _without_numbers(value: Any, spanner_type: str) -> Any:
    if isinstance(value, list):
        return [_without_numbers(each, spanner_type) for each in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return _WRITTEN.get(spanner_types.base(spanner_type), str)(value)


# ---------------------------------------------------------------------- one value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError
    return int(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _float(value: Any) -> float:
    # NaN and the infinities come as text. A NaN is also sent as null by the emulator; that one is lost before us.
    return _SPECIAL_FLOATS[value] if isinstance(value, str) else float(value)


def _float32(value: Any) -> float:
    """The float64 that is exactly the float32, however many digits its text has."""
    number = _float(value)
    found: float = struct.unpack("f", struct.pack("f", number))[0] if math.isfinite(number) else number
    return found


def _written(convert: Converter) -> Converter:
    """A float as text: the fewest digits that name it as a float64; NaN and the infinities as they are."""
    return lambda value: value if isinstance(value, str) else repr(convert(value))


def _pg_numeric(value: str) -> Decimal | None:
    """As far as NUMERIC holds it: what is finer is cut; None for one that is too large, and for NaN."""
    number = Decimal(value)
    if not number.is_finite() or number.copy_abs() >= _TOO_LARGE:
        return None
    return number if _scale(number) <= 9 else number.quantize(_NUMERIC_SCALE, context=_NUMERIC)


def _exact_pg_numeric(value: str) -> str | None:
    held = _pg_numeric(value)
    return value if held is None or held != Decimal(value) else None


def _scale(number: Decimal) -> int:
    return -int(number.as_tuple().exponent)


def _bytes(value: str) -> bytes:
    return base64.b64decode(value, validate=True)


def _timestamp(value: str) -> int:
    return timestamps.to_micros(timestamps.normalise(value))


def _json(value: Any) -> str:
    return kept(_text(value))


def _repeated(convert: Converter) -> Converter:
    # BigQuery's REPEATED takes neither NULL nor null elements.
    def converted(values: Any) -> list[Any]:
        if not isinstance(values, list):
            raise ValueError
        return [found for v in values if v is not None and (found := convert(v)) is not None]

    return converted


def _as_it_is(value: Any) -> Any:
    return value


def _exact_timestamp(value: str) -> str | None:
    if len(value) <= _MICROS or not value[_MICROS - 1 : -1].strip("0"):
        return None
    return timestamps.normalise(value)


def _exact_json(value: Any) -> str | None:
    text = _text(value)
    return None if kept(text) == text else text


_CONVERTERS: Final[Mapping[str, Converter]] = {
    "BOOL": _boolean,
    "INT64": _integer,
    "FLOAT64": _float,
    "FLOAT32": _float32,
    "NUMERIC": Decimal,
    "PG_NUMERIC": _pg_numeric,
    "BYTES": _bytes,
    "DATE": date.fromisoformat,
    "TIMESTAMP": _timestamp,
    "JSON": _json,
    "PG_JSONB": _json,
}
_WRITTEN: Final[Mapping[str, Converter]] = {"FLOAT64": _written(_float), "FLOAT32": _written(_float32)}
_EXACT: Final[Mapping[str, Exact]] = {
    "TIMESTAMP": _exact_timestamp,
    "PG_NUMERIC": _exact_pg_numeric,
    "JSON": _exact_json,
    "PG_JSONB": _exact_json,
}
