"""The Liquibase changelog of the source, read without a JVM; or the DDL of a database that others own.

The formatted-SQL changesets in `sql/` are the one source of the schema: Liquibase runs them, Pulumi and the local
stack provision the same statements, and the BigQuery tables are derived from the columns they define. What Liquibase
or Spanner would understand and this module does not is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from contract import dialects
from contract.ddl import Catalog, Column, SchemaError, Stream, Table, head, tokens
from contract.dialects import Dialect

__all__ = ["Catalog", "Changeset", "Column", "SchemaError", "Table"]

# A file of this ending is what `gcloud spanner databases ddl describe` printed of a database that others own.
DUMP = ".ddl"

SQL = Path(__file__).parent / "sql"
AUDIT_DB = SQL / "spanner" / "changelog.yaml"
METADATA_DB = SQL / "metadata" / "changelog.yaml"

# Database roles of the changelog, for fine-grained access: one sees the change streams, the other writes payments.
READER_ROLE = "audit_reader"
WRITER_ROLE = "audit_writer"
# What the probe reads with: the change streams, and of the payments what says that one is stuck. What validation,
# replay and backfill read with: the watched tables.
PROBE_ROLE = "audit_probe"
VALIDATION_ROLE = "audit_validation"
# Of the metadata database: who records replays, and who records erasures.
SUBMITTER_ROLE = "replay_submitter"
ERASER_ROLE = "erasure_submitter"

_INCLUDE = re.compile(r"\s*-\s*include:\s*\{\s*file:\s*([^,\s}]+)\s*(,\s*relativeToChangelogFile:\s*true\s*)?\}\s*")
_CHANGESET = re.compile(r"\s*--\s*changeset[ \t]+(\S+?):(\S+)(.*)", re.I)
# Comments by which Liquibase leaves out, guards or replaces what is in a file.
_DIRECTIVE = re.compile(r"\s*--\s*(changeset|preconditions?|precondition-[\w-]+|property|ignoreLines)\b", re.I)
# What a changeset may say of itself. The rest would make Liquibase run something else than Pulumi does.
_ATTRIBUTE = re.compile(
    r"(context|contextFilter):([a-z]+)|(runInTransaction|stripComments|splitStatements):(true|false)"
)


@dataclass(frozen=True, kw_only=True)
class Changeset:
    """One DDL statement with its identity, as Liquibase records it."""

    author: str
    id: str
    file: str
    context: str | None
    statement: str


def is_dump(path: Path) -> bool:
    """Whether it is the DDL of a database that others own, and no changelog."""
    return path.suffix == DUMP


def changesets(changelog: Path = AUDIT_DB) -> Iterator[Changeset]:
    """Yields the changesets in changelog order, those of a database's DDL by their number. Raises SchemaError where
    Liquibase and Spanner would disagree."""
    if is_dump(changelog):
        for number, statement in enumerate(split(changelog.read_text()), start=1):
            yield Changeset(author="", id=str(number), file=changelog.name, context=None, statement=statement)
        return
    for name in _included(changelog):
        try:
            text = (changelog.parent / name).read_text()
        except FileNotFoundError:
            raise SchemaError(f"{name}: the file must be beside {changelog.name}, which includes it.") from None
        if not text.startswith("--liquibase formatted sql"):
            raise SchemaError(f"{name}: the first line must be '--liquibase formatted sql'.")
        yield from _read(name, text)


def is_name(text: str) -> bool:
    """Whether a text is a name as Spanner and BigQuery take it without quotes."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", text) is not None


def statements(changelog: Path = AUDIT_DB, *, contexts: frozenset[str] = frozenset()) -> list[str]:
    """The DDL statements to run, in order. A changeset with a context runs only where that context is requested."""
    return [c.statement for c in changesets(changelog) if c.context is None or c.context in contexts]


@cache
def tables(changelog: Path = AUDIT_DB) -> dict[str, Table]:
    """The tables that the changelog leaves behind, by name. SchemaError for a statement that is not understood."""
    return _catalog(changelog).tables()


@cache
def change_streams(changelog: Path = AUDIT_DB) -> dict[str, tuple[str, ...]]:
    """The change streams, each with the tables it watches. SchemaError for a statement that is not understood."""
    catalog = _catalog(changelog)
    everything = tuple(catalog.tables())
    return {s.name: everything if s.tables is None else s.tables for s in catalog.streams().values()}


def split(text: str) -> list[str]:
    """The statements of a database's DDL, as `gcloud spanner databases ddl describe` prints them."""
    return [statement for statement in _statements(text, "the DDL") if statement]


def dialect_of(changelog: Path = AUDIT_DB) -> Dialect:
    """The dialect in which the changelog's statements are, or those of a database's DDL."""
    return dialects.of_ddl("\n".join(statements(changelog)))


def read(statements: Iterable[str]) -> Catalog:
    """What the DDL of any database leaves behind; statements that are not understood are left out."""
    statements = list(statements)
    found = Catalog(dialects.of_ddl("\n".join(statements)))
    for statement in statements:
        with suppress(SchemaError):
            found.run(statement)
    return found


@cache
def catalog(changelog: Path = AUDIT_DB) -> Catalog:
    """All that it leaves behind; to be read alone. SchemaError for a statement that is not understood.

    Of a database that others own, statements that are not understood are left out: they may be about anything.
    """
    return _catalog(changelog)


def change_retention_hours(changelog: Path = AUDIT_DB, streams: Collection[str] | None = None) -> int:
    """How long Spanner keeps change records: the shortest retention of these streams, or of all of them.

    SchemaError for a stream without one in a changelog; in a database that others own it has Spanner's default, a day.
    """
    found = catalog(changelog).streams()
    default = "1d" if is_dump(changelog) else ""
    # A stream that is still to be made is made with the retention that `delivery.schema owners` writes.
    named = [found.get(name) for name in streams] if streams is not None else list(found.values())
    return min(_hours(stream, default) if stream else 7 * 24 for stream in named)


def _hours(stream: Stream, default: str) -> int:
    kept = stream.options.get("retention_period", default)
    if not re.fullmatch(r"\d+[hd]", kept):
        raise SchemaError(
            f"retention_period must be set for {stream.name} in hours or days, such as '7d', got {kept!r}."
        )
    return int(kept[:-1]) * (24 if kept.endswith("d") else 1)


def _catalog(changelog: Path) -> Catalog:
    """What the changesets without a context leave behind; the others may change nothing of it."""
    if is_dump(changelog):
        return read(statements(changelog))
    catalog = Catalog(dialect_of(changelog))
    for changeset in changesets(changelog):
        before = (catalog.tables(), catalog.streams())
        try:
            catalog.run(changeset.statement)
        except SchemaError as error:
            raise SchemaError(f"{changeset.file}: changeset {changeset.id}: {error}") from None
        if changeset.context and before != (catalog.tables(), catalog.streams()):
            raise SchemaError(
                f"{changeset.file}: changeset {changeset.id} must have no context: BigQuery's tables are made for the "
                "columns and change streams that every stack has."
            )
    return catalog


# ---------------------------------------------------------------------- Liquibase's files


def _included(changelog: Path) -> list[str]:
    """The files of the changelog, in its order."""
    found = []
    for line in changelog.read_text().splitlines():
        if not line.strip() or line.lstrip().startswith("#") or line.rstrip() in ("databaseChangeLog:", "---"):
            continue
        entry = _INCLUDE.fullmatch(line)
        if not entry:
            raise SchemaError(
                f"{changelog.name}: an entry must be `- include: {{file: NAME, relativeToChangelogFile: true}}` on one "
                f"line, got {line.strip()!r}. An entry in another form would be left out."
            )
        found.append(entry[1].strip("'\""))
    return found


@cache
def _read(name: str, text: str) -> tuple[Changeset, ...]:
    """The changesets of a file. Kept: a run of the program comes here hundreds of times."""
    return tuple(_changesets(name, text))


def _changesets(name: str, text: str) -> Iterator[Changeset]:
    begin: re.Match[str] | None = None
    body = ""
    for line in [*text.splitlines(), None]:
        following = None if line is None else _CHANGESET.fullmatch(line)
        if line is None or following:
            yield from _changeset(name, begin, body)
            begin, body = following, ""
        elif directive := _DIRECTIVE.match(line):
            raise SchemaError(
                f"{name}: {directive[1]} is not understood, got {line.strip()!r}. Pulumi runs every changeset as it "
                "is: write it without."
            )
        else:
            body += f"{line}\n"


def _changeset(name: str, begin: re.Match[str] | None, body: str) -> Iterator[Changeset]:
    """The changeset below a `--changeset` line; only comments may come before the first one."""
    where = f"{name}: changeset {begin[2]}" if begin else name
    found = _statements(body, where)
    if begin is None:
        if found:
            raise SchemaError(f"{where}: a statement before the first changeset would not be run. Give it one.")
        return
    if len(found) != 1:
        raise SchemaError(
            f"{where} must hold one DDL statement, got {len(found)}. "
            "Spanner DDL is not transactional; give each statement its own changeset."
        )
    author, change_id = (part.strip('"') for part in begin.groups()[:2])
    yield Changeset(author=author, id=change_id, file=name, context=_context(begin[3], where), statement=found[0])


def _context(attributes: str, where: str) -> str | None:
    """The one context of a changeset, from what it says of itself."""
    context = None
    for attribute in attributes.split():
        known = _ATTRIBUTE.fullmatch(attribute)
        if not known:
            raise SchemaError(
                f"{where}: {attribute} is not understood. A changeset may have one context:NAME in lower case."
            )
        context = known[2] or context
    return context


def _statements(body: str, where: str) -> list[str]:
    """The statements between semicolons, without comments, which Liquibase takes out and Spanner does not take."""
    found, text, begin = [], "", 0
    try:
        for token in tokens(f"{body};", dialects.of_ddl(body)):
            if token.kind == "comment":
                text += body[begin : token.start] + (" " if token.text.startswith("/*") else "")
                begin = token.start + len(token.text)
                # A separate line goes as a whole.
                if not text or text.endswith("\n"):
                    begin += body.startswith("\n", begin)
            elif (token.kind, token.text) == ("mark", ";"):
                found.append((text + body[begin : token.start]).strip())
                text, begin = "", token.start + 1
    except SchemaError as error:
        raise SchemaError(f"{where}: {error} The statement: {head(re.sub('(?m)^--.*', '', body))}") from None
    return [statement for statement in found if statement]
