"""What the audit needs of a source database that others own, as DDL for its owners.

They run it, if they agree. What is there already is used as it is, their change streams too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from contract import schema
from contract.changes import MUTABLE, PARTIAL_CAPTURE_TYPES
from contract.ddl import Catalog, Stream
from contract.dialects import beside, quoted, schema_of
from contract.drift import Drift, columns, unmet
from contract.watched import WatchedTable, WatchedTables

# What schemaOwner says of such a database.
EXISTING: Final = "existing"
# What the job can read, and how far back it can be caught up.
CAPTURE_TYPE: Final = "NEW_ROW_AND_OLD_VALUES"
RETENTION: Final = "7d"
# Spanner's, of a stream that does not say.
_DEFAULT_CAPTURE: Final = "OLD_AND_NEW_VALUES"


@dataclass(frozen=True, kw_only=True)
class Need:
    """A statement that the audit needs, and why."""

    statement: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """A need, and in what the database falls short of it: nothing where it is there."""

    need: Need
    short: tuple[Drift, ...]

    @property
    def state(self) -> str:
        """there, missing, or different."""
        if not self.short:
            return "there"
        return "missing" if all(each.state == "missing" for each in self.short) else "different"


def needs(watched: WatchedTables, *, roles: bool, there: Catalog | None = None) -> Iterator[Need]:
    """The statements, in the database's dialect and in the order in which they can be run. `roles`: those of database
    roles too.

    A change stream that is `there` keeps its partition mode and its value capture type. Where that leaves columns out,
    the job reads the rows.
    """
    dialect = schema.dialect_of(watched.source_changelog)
    streams = there.streams() if there else {}
    mutable = {name for name, stream in streams.items() if stream.options.get("partition_mode") == MUTABLE}
    for need in _needs(watched, roles=roles, streams=streams, mutable=mutable):
        yield replace(need, statement=dialect.ddl(need.statement, mutable))


def _needs(
    watched: WatchedTables, *, roles: bool, streams: Mapping[str, Stream], mutable: Collection[str]
) -> Iterator[Need]:
    """In GoogleSQL. `streams` are there, of which some are `mutable`."""
    capture_types = {
        name: streams[name].options.get("value_capture_type", _DEFAULT_CAPTURE) if name in streams else CAPTURE_TYPE
        for name in watched.change_streams
    }
    for stream in watched.change_streams:
        tables = ", ".join(quoted(table.name) for table in watched.tables if table.change_stream == stream)
        mode = f", partition_mode = '{MUTABLE}'" if stream in mutable else ""
        yield Need(
            statement=f"CREATE CHANGE STREAM `{stream}` FOR {tables} "
            f"OPTIONS (retention_period = '{RETENTION}', value_capture_type = '{capture_types[stream]}'{mode})",
            why="the job reads every change from it, with the whole row and what was before",
        )
    payments = watched.payments
    if (index := payments.status_index) and not index.shard:
        key = ", ".join(
            f"`{payments.column(meaning)}`" for meaning in ("status", "changed") if payments.column(meaning)
        )
        yield Need(
            statement=f"CREATE INDEX {quoted(beside(payments.name, index.name))} ON {quoted(payments.name)} ({key})",
            why="stuck payments are sought in it once a minute, instead of in the whole table",
        )
    if roles:
        yield from _roles(watched)
        read = [t.name for t in watched.tables if capture_types[t.change_stream] in PARTIAL_CAPTURE_TYPES]
        if read:
            why = "their change stream leaves out of an UPDATE what it did not touch: the job reads that there"
            yield from _select(read, schema.READER_ROLE, why)


def _roles(watched: WatchedTables) -> Iterator[Need]:
    streams = ", ".join(f"`{stream}`" for stream in watched.change_streams)
    functions = ", ".join(f"`READ_{stream}`" for stream in watched.change_streams)
    payments, every = watched.payments, [table.name for table in watched.tables]
    for role, what, read, of in (
        (schema.READER_ROLE, "the job reads as this role: the change streams, and no table", [], []),
        (
            schema.PROBE_ROLE,
            "the probe counts changes, and payments that are stuck",
            [payments.name],
            _of_stuck(payments),
        ),
        (schema.VALIDATION_ROLE, "validation, replay and backfill compare and read the rows", every, []),
    ):
        yield Need(statement=f"CREATE ROLE {role}", why=what)
        yield Need(statement=f"GRANT SELECT ON CHANGE STREAM {streams} TO ROLE {role}", why=what)
        yield Need(statement=f"GRANT EXECUTE ON TABLE FUNCTION {functions} TO ROLE {role}", why=what)
        if read:
            yield from _select(read, role, what, of)


def _select(tables: Collection[str], role: str, why: str, of: Collection[str] = ()) -> Iterator[Need]:
    """What lets a role read tables, or some columns `of` them. In a named schema it takes USAGE of that too.

    https://cloud.google.com/spanner/docs/named-schemas
    """
    if schemas := ", ".join(f"`{name}`" for name in sorted({*map(schema_of, tables)} - {""})):
        yield Need(statement=f"GRANT USAGE ON SCHEMA {schemas} TO ROLE {role}", why=why)
    names, columns = ", ".join(map(quoted, tables)), ", ".join(map(quoted, of))
    yield Need(statement=f"GRANT SELECT{f' ({columns})' if of else ''} ON TABLE {names} TO ROLE {role}", why=why)


def _of_stuck(payments: WatchedTable) -> list[str]:
    """The columns by which a stuck payment is found."""
    shard = payments.status_index.shard if payments.status_index else ""
    found = [payments.column("payment"), payments.column("status"), payments.column("changed"), shard]
    return [column for column in found if column]


def compare(watched: WatchedTables, there: Catalog, *, roles: bool) -> tuple[list[Found], list[Drift]]:
    """Each need with its state in a database, and where described columns differ from what is there."""
    made = schema.tables(watched.source_changelog)
    described = {
        table.name: {column.name: column.type for column in made[table.name].columns if column.name in table.columns}
        for table in watched.tables
    }
    found = [
        Found(need=need, short=tuple(unmet(_alone(watched, need), there)))
        for need in needs(watched, roles=roles, there=there)
    ]
    return found, list(columns(described, there.tables()))


def _alone(watched: WatchedTables, need: Need) -> Catalog:
    """What one statement leaves behind where the watched tables are there."""
    wanted = Catalog(schema.dialect_of(watched.source_changelog))
    for name, table in schema.tables(watched.source_changelog).items():
        if any(each.name == name for each in watched.tables):
            wanted.know(table)
    wanted.run(need.statement)
    return wanted
