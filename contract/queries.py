"""The SQL of the warehouse: views, prebuilt queries and scripts, as templates in `sql/bigquery/`.

A template names the places (`${project}`, `${payment_dataset}`, `${views_dataset}`, `${payments}`: the changelog of the
payments), the columns by what they mean (`${status}`, `${region}`), and lists of columns: two tables are never united
by `*`, because their columns need not be in the same order once one was added to a living table.

A line with a meaning that no column of the payments has is left out, and so is a query that says `-- requires MEANING`
of one: write such columns one per line, and none last in its list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Final

from contract import reading, tables
from contract.errors import AuditError
from contract.watched import MEANINGS, OF_TIMELINE, WatchedTable, WatchedTables

SQL = Path(__file__).parent / "sql" / "bigquery"
VIEWS = SQL / "views"
QUERIES = SQL / "queries"

PAYMENT_CURRENT = "payment_current"
PAYMENT_TRANSITIONS = "payment_transitions"
PAYMENT_TIMELINE = "payment_timeline"
PAYMENT_LATEST = "payment_latest"
PAYMENT_CHANGELOG = "payment_changelog"
PAYMENT_CHANGES = "payment_changes"
PAYMENT_LOOKUP = "payment_lookup"
PAYMENT_STUCK = "payment_stuck"
COMPLETE_UNTIL = "complete_until"
VALIDATION_RUNS = "validation_runs"

MERGE_PAYMENT_STATE = "merge_payment_state"
FILL_PAYMENT_LOOKUP = "fill_payment_lookup"
REWIND_PAYMENT_STATE = "rewind_payment_state"
_LATEST_CHANGES: Final = "latest_changes"
_RESUME_POSITION: Final = "resume_position"


# What the timeline has beside the payments' own columns.
TIMELINE_COLUMNS: Final = OF_TIMELINE | {field.name for field in tables.ENRICHMENT_FIELDS}


def timeline_column(name: str) -> str:
    """The name that a column of the payments has in the timeline: its own, unless the timeline has one of that name."""
    return tables.SOURCE_PREFIX + name if name.casefold() in TIMELINE_COLUMNS else name


class QueryError(AuditError, LookupError):
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


def queries(watched: WatchedTables) -> tuple[str, ...]:
    """The names of the prebuilt queries. The first line of each says what it answers, then its `@parameters`."""
    return tuple(name for name in _names(QUERIES) if not _required(QUERIES, name) - watched.payments.meanings.keys())


def names() -> tuple[str, ...]:
    """Every prebuilt query, whether or not a description has the columns that it needs."""
    return _names(QUERIES)


def about(name: str) -> str:
    """What a prebuilt query answers. Raises QueryError."""
    return _template(QUERIES, name).splitlines()[0].removeprefix("-- ")


def arguments(name: str) -> tuple[Argument, ...]:
    """The parameters of a prebuilt query. The type of `puid` is that of the payments' id. Raises QueryError."""
    return tuple(Argument(n, t) for n, t in re.findall(r"@(\w+) ([A-Z0-9<>]+|\$\{\w+\})", _head(name)))


def _head(name: str) -> str:
    return _template(QUERIES, name).splitlines()[1]


def view(name: str, project: str, watched: WatchedTables) -> str:
    """The query of a view: what `CREATE VIEW … AS` takes."""
    if name in (PAYMENT_TIMELINE, PAYMENT_CHANGES):
        return _render(VIEWS, name, project, watched, changes_of_payments_and_events=_timeline(project, watched))
    payment = _lines(f"`{field.name}`" for field in tables.changelogs(watched)[watched.payments.name].fields)
    latest = _render(SQL, _LATEST_CHANGES, project, watched, payment_columns=payment)
    return _render(VIEWS, name, project, watched, payment_columns=payment, latest_changes=latest)


def query(name: str, project: str, watched: WatchedTables) -> str:
    """A prebuilt query, with its named parameters."""
    return _render(QUERIES, name, project, watched)


def table_function(name: str, project: str, watched: WatchedTables) -> TableFunction:
    """A prebuilt query as a table function: its `@parameters` are arguments, and who calls it says its LIMIT.

    BigQuery reads a name that is a column as the column, never as the argument: hence `p_`.
    """
    about, parameters, *lines = query(name, project, watched).splitlines()
    body = re.sub(r"\s+LIMIT @limit\s*$", "", "\n".join(lines))
    used = set(re.findall(r"@(\w+)", body))
    arguments = tuple(Argument(f"p_{n}", t) for n, t in re.findall(r"@(\w+) ([A-Z0-9<>]+)", parameters) if n in used)
    return TableFunction(
        name=name,
        description=f"{about.removeprefix('-- ')} {_reads(name)}",
        arguments=arguments,
        body=re.sub(r"@(\w+)", r"p_\1", body),
    )


def _reads(name: str) -> str:
    found = reading.of(name)
    return f"Reads about {reading.shown(found.reads)} of 500 changes a second for a year, by a model."


def merge_script(project: str, watched: WatchedTables) -> str:
    """The script that brings payment_state up to date; it has no parameter."""
    fields = [f"`{field.name}`" for field in tables.changelogs(watched)[watched.payments.name].fields]
    return _render(
        SQL,
        MERGE_PAYMENT_STATE,
        project,
        watched,
        resume_position=_render(SQL, _RESUME_POSITION, project, watched),
        payment_columns=_lines(fields),
        payment_columns_set=_lines(f"{name} = change.{name}" for name in fields),
        payment_columns_of_change=_lines(f"change.{name}" for name in fields),
    )


def fill_script(project: str, watched: WatchedTables) -> str:
    """The script that brings payment_lookup up to date; it has no parameter."""
    return _render(
        SQL,
        FILL_PAYMENT_LOOKUP,
        project,
        watched,
        resume_position=_render(SQL, _RESUME_POSITION, project, watched),
        values_of_payments_and_events=_values(project, watched),
    )


def rewind_script(project: str, watched: WatchedTables) -> str:
    """The script that makes the next merge and the next fill go back to `@commit_timestamp`."""
    return _render(SQL, REWIND_PAYMENT_STATE, project, watched)


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.sql")))


@lru_cache(maxsize=64)
def _template(folder: Path, name: str) -> str:
    if name not in _names(folder):
        raise QueryError(f"no {name!r} in {folder.name}: there are {', '.join(_names(folder))}.")
    return (folder / f"{name}.sql").read_text()


def _required(folder: Path, name: str) -> set[str]:
    return set(re.findall(r"^-- requires (\w+)$", _template(folder, name), re.M))


def _render(folder: Path, name: str, project: str, watched: WatchedTables, **more: str) -> str:
    text = _template(folder, name)
    payments = watched.payments
    if absent := _required(folder, name) - payments.meanings.keys():
        raise QueryError(f"{name} needs a column that means {', '.join(sorted(absent))}: describe it in tables.toml.")
    columns: dict[str, str] = {meaning: f"`{tables.named(payments, meaning)}`" for meaning in payments.meanings}
    lines = [line for line in text.splitlines() if not _absent(line, columns) and not line.startswith("-- requires")]
    values = {
        "project": project,
        "payment_dataset": payments.dataset,
        "payments": f"{payments.dataset}.{payments.table}",
        "views_dataset": watched.views_dataset,
        "payment_type": payments.payment_type,
        "status_path": payments.column("status") or "",
    }
    return Template("\n".join(lines) + "\n").substitute(values | columns | more)


def _absent(line: str, columns: Mapping[str, str]) -> bool:
    """Whether a line names a column by a meaning that none has."""
    return any(name in MEANINGS and name not in columns for name in re.findall(r"\$\{(\w+)\}", line))


def _timeline(project: str, watched: WatchedTables) -> str:
    """The changes of the payments and of each table of events, with the columns of the payments in their order."""
    changelogs = tables.changelogs(watched)
    source = _source_fields(changelogs[watched.payments.name])
    parts = []
    for table in (watched.payments, *watched.events):
        columns = [_of_event(field, watched.payments, table, changelogs[table.name]) for field in source]
        changelog = changelogs[table.name].id
        text = Template(_template(SQL, "timeline_part"))
        parts.append(
            text.substitute(project=project, changelog=changelog, source_table=table.name, columns=_lines(columns))
        )
    return "\n    UNION ALL\n".join(parts)


def _values(project: str, watched: WatchedTables) -> str:
    """What people search payments by, as (kind, value, puid, commit_timestamp), of the payments and the events."""
    changelogs = tables.changelogs(watched)
    key = tables.named(watched.payments, "payment")
    [payment] = [field for field in _source_fields(changelogs[watched.payments.name]) if field.name == key]
    cards = [name for name, column in watched.payments.columns.items() if column.policy == "card"]
    selects = []
    for table in (watched.payments, *watched.events):
        puid = _of_event(payment, watched.payments, table, changelogs[table.name]).removesuffix(f" AS `{payment.name}`")
        found = {"payment": f"CAST({puid} AS STRING)", "customer": tables.CUSTOMER_ID}
        if table is watched.payments and cards:
            found["last_four"] = f"RIGHT(`{tables.column_name(table, cards[0])}`, 4)"
        changelog = f"`{project}.{changelogs[table.name].id}`"
        sources = {kind: (value, changelog) for kind, value in found.items()}
        sources["card"] = ("token", f"{changelog} CROSS JOIN UNNEST({tables.CARD_TOKENS}) AS token")
        selects += [
            f"    SELECT '{kind}' AS kind, {value} AS value, {puid} AS puid, {tables.COMMIT_TIMESTAMP} AS "
            f"commit_timestamp\n    FROM {source}\n    WHERE {tables.COMMIT_TIMESTAMP} >= from_timestamp AND "
            f"COALESCE({tables.BIG_QUERY_COMMIT_TIMESTAMP}, CURRENT_TIMESTAMP()) >= from_arrival"
            for kind, (value, source) in sources.items()
        ]
    return "\n    UNION ALL\n".join(selects)


def _of_event(field: tables.Field, payments: WatchedTable, table: WatchedTable, changelog: tables.Table) -> str:
    """A column of the payments in the timeline of a table: that of the same meaning, or else of the same name."""
    meaning = next((m for m in payments.meanings if tables.named(payments, m) == field.name), None)
    name = (tables.named(table, meaning) if meaning else None) or field.name
    own, shown = {f.name: f for f in _source_fields(changelog)}.get(name), timeline_column(field.name)
    if own is None or own.mode != field.mode:
        empty = "[]" if field.mode == "REPEATED" else f"CAST(NULL AS {field.type})"
        return f"{empty} AS `{shown}`"
    if own.type != field.type:
        return f"SAFE_CAST(`{name}` AS {field.type}) AS `{shown}`"
    return f"`{name}`" if name == shown else f"`{name}` AS `{shown}`"


def _source_fields(changelog: tables.Table) -> list[tables.Field]:
    """The columns that come from Spanner, without those that the pipeline adds."""
    return [field for field in changelog.fields if field.source is not None]


def _lines(columns: Iterable[str]) -> str:
    return ",\n  ".join(columns)
