"""The description of the watched tables, against the database's own columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from contract import dialects
from contract.attached import EXISTING
from contract.watched import WatchedTables
from delivery.preflight.findings import Finding, State
from delivery.preflight.google import Google, NotSeen
from delivery.preflight.target import Target, not_seen
from delivery.schema import place_of

OWNERS: Final = "the database's owners"


def columns(target: Target) -> Iterator[Finding]:
    """Each described column is in its table, with a type that can mean what is said; as the job checks at its start."""
    config = dict(target.graph.config)
    database, existing = place_of(config), config["schemaOwner"] == EXISTING
    watched = WatchedTables.from_json(str(target.graph.outputs["watchedTables"]))
    try:
        found = database_columns(target.google, database, [table.name for table in watched.tables])
    except NotSeen as error:
        if not existing:
            raise
        repair = f"send the DDL, for python -m delivery.schema verify -s {target.stack} --ddl FILE"
        yield replace(not_seen("columns", database, error), repair=repair, who=OWNERS)
        return
    if found is not None:
        yield from described(watched, found)
    elif existing:
        why = "there is no such database to attach to"
        repair = "correct spannerProject, spannerInstance and spannerDatabase in the stack's file"
        yield Finding(check="columns", what=database, state=State.BLOCKER, why=why, repair=repair)
    else:
        why = "the database is not made yet: `up` makes it"
        yield Finding(check="columns", what=database, state=State.LATER, why=why)


def described(watched: WatchedTables, found: dict[str, dict[str, str]]) -> Iterator[Finding]:
    """What of the description the database lacks. `found`: tables, their columns and types."""
    from pipeline.jobs.checks import unfit_columns

    fix = "run the schema's changelog, or correct the line in tables.toml"
    for table in watched.tables:
        if table.name not in found:
            why = f"no such table; there are {', '.join(sorted(found)) or 'none'}"
            yield Finding(check="columns", what=table.name, state=State.TO_DO, why=why, repair=fix)
    for unfit in unfit_columns(watched, found):
        if unfit.problem:
            yield Finding(check="columns", what=unfit.checked, state=State.TO_DO, why=unfit.problem, repair=fix)
        else:
            yield Finding(check="columns", what=unfit.checked)


def database_columns(
    google: Google, database: str, tables: Iterable[str], role: str = ""
) -> dict[str, dict[str, str]] | None:
    """The tables in the schemas of `tables` with their columns and types, as the database's information_schema shows
    them to the database role; None where there is no such database. Raises NotSeen.

    `database` is its full name, projects/P/instances/I/databases/D. Source:
    cloud.google.com/spanner/docs/reference/rest/v1/projects.instances.databases.sessions/executeSql.
    """
    address = f"spanner.googleapis.com/v1/{database}"
    session = google.post(f"{address}/sessions", {"session": {"creatorRole": role}} if role else {})
    if session is None:
        return None
    held = f"spanner.googleapis.com/v1/{session['name']}"

    def rows(sql: str) -> list[list[str]]:
        answer: dict[str, Any] = google.post(f"{held}:executeSql", {"sql": sql}) or {}
        return list(answer.get("rows", []))

    try:
        dialect = dialects.answered(rows(dialects.WHICH))
        return dialect.by_table(rows(dialect.columns(tables)))
    finally:
        google.delete(held)
