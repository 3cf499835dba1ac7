"""Spanner's types, and what carries each in BigQuery: the one list of them.

A type is written in three ways: by a change record (`PROTO`, without what it is of), by INFORMATION_SCHEMA
(`PROTO<shop.Order>`, `STRING(36)`) and by DDL (`shop.Order`, which says not even whether it is PROTO or ENUM). Each
function here takes all of them. How a value is written: https://cloud.google.com/spanner/docs/reference/rest/v1/TypeCode
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_ARRAY: Final = re.compile(r"\s*ARRAY\s*<(.*)>\s*", re.I | re.S)

# Spanner's type → BigQuery's. Any other, one of tomorrow too, is carried as STRING with the text that Spanner writes.
BIGQUERY: Final[Mapping[str, str]] = {
    "BOOL": "BOOL",
    "INT64": "INT64",
    "FLOAT32": "FLOAT64",
    "FLOAT64": "FLOAT64",
    "NUMERIC": "NUMERIC",
    "STRING": "STRING",
    "BYTES": "BYTES",
    "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP",
    "JSON": "JSON",
    "PG_JSONB": "JSON",
    "PG_NUMERIC": "NUMERIC",
}
_AS_TEXT: Final = "STRING"
# Types of PostgreSQL that a change record only annotates. `numeric` there has more digits than NUMERIC, and NaN; `oid`,
# annotated as well, is an INT64.
# Type → the code that it annotates.
ANNOTATED: Final[Mapping[str, str]] = {"PG_NUMERIC": "NUMERIC", "PG_JSONB": "JSON"}


def element(spanner_type: str) -> str | None:
    """The type of an ARRAY's elements; None for any other type."""
    found = _ARRAY.fullmatch(spanner_type)
    return found[1] if found else None


def base(spanner_type: str) -> str:
    """A type, or that of an ARRAY's elements, without its length or what it is of: `ARRAY<STRING(36)>` → `STRING`."""
    return re.split(r"[(<]", element(spanner_type) or spanner_type, maxsplit=1)[0].strip().upper()


def carried_as(spanner_type: str) -> str:
    """The BigQuery type of a column; of an ARRAY, that of each element."""
    return BIGQUERY.get(base(spanner_type), _AS_TEXT)


def is_carried_as_text(spanner_type: str) -> bool:
    """Whether BigQuery has no type for it, so that it is carried as the text that Spanner writes."""
    return base(spanner_type) not in BIGQUERY


def described(column_type: Mapping[str, Any]) -> str:
    """The type that a change record describes: `{"code": "ARRAY", "array_element_type": {"code": "INT64"}}` →
    `ARRAY<INT64>`."""
    code = str(column_type["code"])
    if code == "ARRAY":
        return f"ARRAY<{described(column_type['array_element_type'])}>"
    annotation = column_type.get("type_annotation")
    return str(annotation) if annotation in ANNOTATED else code
