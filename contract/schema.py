"""The Liquibase changelog of the source, read without a JVM.

The formatted-SQL changesets in `sql/` are the one source of the schema: Liquibase runs them, Pulumi and the local
stack provision the same statements, and the BigQuery tables are derived from the columns they define.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SQL = Path(__file__).parent / "sql"
AUDIT_DB = SQL / "spanner" / "changelog.yaml"
METADATA_DB = SQL / "metadata" / "changelog.yaml"

# Database roles of the changelog, for fine-grained access: one sees the change streams, the other writes payments.
READER_ROLE = "audit_reader"
WRITER_ROLE = "audit_writer"

_INCLUDE = re.compile(r"^\s*-\s*include:\s*\{\s*file:\s*([^,\s}]+)", re.M)
_CHANGESET = re.compile(r"^--changeset[ \t]+(\S+?):(\S+)(.*)$", re.M)
_CONTEXT = re.compile(r"context:(\S+)")


class SchemaError(ValueError):
    """A changelog breaks a rule; the message names the file, the changeset and the way out."""


@dataclass(frozen=True, kw_only=True)
class Changeset:
    """One DDL statement with its identity, as Liquibase records it."""

    author: str
    id: str
    file: str
    context: str | None
    statement: str


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a source table. `type` is Spanner's own text, such as `STRING(36)` or `ARRAY<INT64>`."""

    name: str
    type: str
    not_null: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A source table: the columns a change stream can carry (generated ones are left out) and its key."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = field(default=())


def changesets(changelog: Path = AUDIT_DB) -> Iterator[Changeset]:
    """Yields the changesets in changelog order. Raises SchemaError where Liquibase and Spanner would disagree."""
    for name in _INCLUDE.findall(changelog.read_text()):
        text = (changelog.parent / name).read_text()
        if not text.startswith("--liquibase formatted sql"):
            raise SchemaError(f"{name}: the first line must be '--liquibase formatted sql'.")
        parts = _CHANGESET.split(text)
        for author, change_id, attributes, body in zip(parts[1::4], parts[2::4], parts[3::4], parts[4::4], strict=True):
            sql = "\n".join(line for line in body.splitlines() if not line.startswith("--"))
            statements = [s.strip() for s in sql.split(";") if s.strip()]
            if len(statements) != 1:
                raise SchemaError(
                    f"{name}: changeset {change_id} must hold one DDL statement, got {len(statements)}. "
                    "Spanner DDL is not transactional; give each statement a changeset of its own."
                )
            context = _CONTEXT.search(attributes)
            yield Changeset(
                author=author,
                id=change_id,
                file=name,
                context=context.group(1) if context else None,
                statement=statements[0],
            )


def statements(changelog: Path = AUDIT_DB, *, contexts: frozenset[str] = frozenset()) -> list[str]:
    """The DDL statements to run, in order. A changeset with a context runs only where that context is asked for."""
    return [c.statement for c in changesets(changelog) if c.context is None or c.context in contexts]


@cache
def tables(changelog: Path = AUDIT_DB) -> dict[str, Table]:
    """The tables that the changelog leaves behind, by name."""
    found: dict[str, Table] = {}
    for sql in statements(changelog):
        if created := re.match(r"CREATE TABLE (\w+) \((.*)\) PRIMARY KEY \(([^)]*)\)", sql, re.S):
            name, body, key = created.groups()
            columns = tuple(c for line in _split(body) if (c := _column(line)))
            primary_key = tuple(part.split()[0] for part in key.split(","))
            found[name] = Table(name=name, columns=columns, primary_key=primary_key)
        elif added := re.match(r"ALTER TABLE (\w+) ADD COLUMN (.*)", sql, re.S):
            table = found[added[1]]
            column = _column(added[2])
            extra = (column,) if column else ()
            found[table.name] = Table(name=table.name, columns=table.columns + extra, primary_key=table.primary_key)
        elif dropped := re.match(r"ALTER TABLE (\w+) DROP COLUMN (\w+)", sql):
            table = found[dropped[1]]
            kept = tuple(c for c in table.columns if c.name != dropped[2])
            found[table.name] = Table(name=table.name, columns=kept, primary_key=table.primary_key)
    return found


@cache
def change_streams(changelog: Path = AUDIT_DB) -> dict[str, tuple[str, ...]]:
    """The change streams, each with the tables it watches."""
    found = {}
    for sql in statements(changelog):
        if created := re.match(r"CREATE CHANGE STREAM (\w+)\s+FOR (.*?)(?:\s+OPTIONS\b.*)?$", sql, re.S):
            found[created[1]] = tuple(part.strip() for part in created[2].split(","))
    return found


def change_retention_hours(changelog: Path = AUDIT_DB) -> int:
    """How long Spanner keeps change records: the shortest of the streams' retentions. SchemaError without one."""
    hours: dict[str, int] = {}
    for sql in statements(changelog):
        stream = re.match(r"(?:CREATE|ALTER) CHANGE STREAM (\w+)", sql)
        kept = re.search(r"retention_period\s*=\s*'(\d+)([hd])'", sql)
        if stream and kept:
            hours[stream[1]] = int(kept[1]) * (24 if kept[2] == "d" else 1)
    if missing := sorted(change_streams(changelog).keys() - hours.keys()):
        raise SchemaError(f"retention_period must be set for {', '.join(missing)}. Set it in hours or days: '7d'.")
    return min(hours.values())


def _split(body: str) -> list[str]:
    """Splits a column list at its top-level commas."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(body):
        depth += (char in "(<") - (char in ")>")
        if char == "," and depth == 0:
            parts.append(body[start:i])
            start = i + 1
    return [p.strip() for p in [*parts, body[start:]] if p.strip()]


def _column(definition: str) -> Column | None:
    """The column a definition makes, or None for a generated one: change streams do not carry those."""
    matched = re.match(r"(\w+)\s+((?:ARRAY<[^>]*>)|\w+(?:\([^)]*\))?)(.*)$", definition.strip(), re.S)
    if not matched:
        raise SchemaError(f"column definition not understood: {definition.strip()!r}")
    name, kind, rest = matched.groups()
    if re.search(r"\bAS\s*\(", rest):
        return None
    return Column(name=name, type=kind, not_null="NOT NULL" in rest)
