"""The SQL of the warehouse: views, prebuilt queries and scripts, as templates in `sql/bigquery/`.

A template names `${project}`, `${payment_dataset}`, `${audit_log_dataset}` and `${views_dataset}`, and the column lists
below, which come from `contract/tables.py`: two tables are never united by `*`, because their columns need not be in
the same order once one was added to a living table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

from contract import tables

SQL = Path(__file__).parent / "sql" / "bigquery"
VIEWS = SQL / "views"
QUERIES = SQL / "queries"

PAYMENT_CURRENT = "payment_current"
PAYMENT_TRANSITIONS = "payment_transitions"
PAYMENT_TIMELINE = "payment_timeline"
COMPLETE_UNTIL = "complete_until"

MERGE_PAYMENT_STATE = "merge_payment_state"
REWIND_PAYMENT_STATE = "rewind_payment_state"


class QueryError(LookupError):
    """There is no such view, query or script; the message names the existing ones."""


@dataclass(frozen=True)
class Argument:
    """An argument of a table function: `type` is a SQL type, such as `STRING` or `ARRAY<STRING>`."""

    name: str
    type: str


@dataclass(frozen=True, kw_only=True)
class TableFunction:
    """A prebuilt query as a function: `SELECT * FROM payment_views.payment_by_id('…')`."""

    name: str
    description: str
    arguments: tuple[Argument, ...]
    body: str


def views() -> tuple[str, ...]:
    """The names of the views, all in the views' dataset; none reads another."""
    return _names(VIEWS)


def queries() -> tuple[str, ...]:
    """The names of the prebuilt queries. The first line of each says what it answers, then its `@parameters`."""
    return _names(QUERIES)


def view(name: str, project: str) -> str:
    """The query of a view: what `CREATE VIEW … AS` takes."""
    return _render(VIEWS, name, project)


def query(name: str, project: str) -> str:
    """A prebuilt query, with its named parameters."""
    return _render(QUERIES, name, project)


def table_function(name: str, project: str) -> TableFunction:
    """A prebuilt query as a table function: its `@parameters` are arguments, and who calls it says its LIMIT.

    BigQuery reads a name that is a column as the column, never as the argument: hence `p_`.
    """
    about, parameters, *lines = query(name, project).splitlines()
    body = re.sub(r"\s+LIMIT @limit\s*$", "", "\n".join(lines))
    used = set(re.findall(r"@(\w+)", body))
    arguments = tuple(Argument(f"p_{n}", t) for n, t in re.findall(r"@(\w+) ([A-Z0-9<>]+)", parameters) if n in used)
    return TableFunction(
        name=name,
        description=about.removeprefix("-- "),
        arguments=arguments,
        body=re.sub(r"@(\w+)", r"p_\1", body),
    )


def script(name: str, project: str) -> str:
    """A script: `merge_payment_state` (no parameter) or `rewind_payment_state` (`@commit_timestamp`)."""
    return _render(SQL, name, project)


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.sql")))


def _render(folder: Path, name: str, project: str) -> str:
    if name not in _names(folder):
        raise QueryError(f"no {name!r} in {folder.name}: there are {', '.join(_names(folder))}.")
    return Template((folder / f"{name}.sql").read_text()).substitute(_column_lists(), project=project)


@cache
def _column_lists() -> dict[str, str]:
    payment = tables.changelogs()[tables.PAYMENT_TABLE].fields
    source = _source_fields(tables.PAYMENT_TABLE)
    logged = {field.name for field in _source_fields(tables.AUDIT_LOG_TABLE)}
    return {
        "payment_dataset": tables.PAYMENT_DATASET,
        "audit_log_dataset": tables.AUDIT_LOG_DATASET,
        "views_dataset": tables.VIEWS_DATASET,
        "payment_columns": _lines(field.name for field in payment),
        "payment_columns_set": _lines(f"{field.name} = change.{field.name}" for field in payment),
        "payment_columns_of_change": _lines(f"change.{field.name}" for field in payment),
        "payment_source_columns": _lines(field.name for field in source),
        "audit_log_source_columns": _lines(
            field.name if field.name in logged else f"CAST(NULL AS {field.type}) AS {field.name}" for field in source
        ),
    }


def _source_fields(table: str) -> list[tables.Field]:
    """The columns that come from Spanner, without those that the pipeline adds."""
    added = {field.name for field in (*tables.METADATA_FIELDS, *tables.ENRICHMENT_FIELDS)}
    return [field for field in tables.changelogs()[table].fields if field.name not in added]


def _lines(columns: Iterable[str]) -> str:
    return ",\n  ".join(columns)
