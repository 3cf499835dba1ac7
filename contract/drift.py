"""A database's schema against the one that it must have: what is missing, different, or there in addition."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from contract.changes import PARTITION_MODE
from contract.ddl import Catalog, Index, Privilege, Stream, Table
from contract.dialects import beside

State = Literal["missing", "different", "unexpected"]

# Options by which a change stream leaves changes out: those would never arrive.
# https://cloud.google.com/spanner/docs/reference/standard-sql/data-definition-language#create-change-stream
_EXCLUDE: Final = ("exclude_insert", "exclude_update", "exclude_delete", "exclude_ttl_deletes")
# The tables in which Liquibase records what it ran.
_LIQUIBASE: Final = ("DATABASECHANGELOG", "DATABASECHANGELOGLOCK")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One difference. `what` names the object; `detail` says what is there and what must be."""

    what: str
    state: State
    detail: str = ""


def drift(wanted: Catalog, there: Catalog) -> Iterator[Drift]:
    """Where a database differs from the changelog that is to have made all of it."""
    yield from _tables(wanted.tables(), there.tables())
    yield from unmet(wanted, there)
    for name, stream in there.streams().items():
        known = wanted.streams().get(name)
        if known is None:
            yield Drift(what=f"change stream {name}", state="unexpected")
        elif stream.tables != known.tables and set(stream.tables or ()) - set(known.tables or ()):
            more = ", ".join(sorted(set(stream.tables or ()) - set(known.tables or ())))
            yield Drift(what=f"change stream {name}", state="different", detail=f"it also watches {more}")
    for name in sorted(there.indexes.keys() - wanted.indexes.keys()):
        yield Drift(what=f"index {name}", state="unexpected")
    for role in sorted(there.roles - wanted.roles):
        yield Drift(what=f"database role {role}", state="unexpected")
    for extra in sorted(p for p in there.privileges if p.role in wanted.roles and not _covered(p, wanted.privileges)):
        yield Drift(what=f"privilege {spelled(extra)}", state="unexpected")


def unmet(wanted: Catalog, there: Catalog) -> Iterator[Drift]:
    """Change streams, indexes, database roles and privileges that must be there, and are missing or different."""
    streams = there.streams()
    for stream in wanted.streams().values():
        yield from _stream(stream, streams.get(stream.name))
    for index in wanted.indexes.values():
        yield from _index(index, there.indexes.get(index.name))
    for role in sorted(wanted.roles - there.roles):
        yield Drift(what=f"database role {role}", state="missing")
    for privilege in sorted(p for p in wanted.privileges if not _covered(p, there.privileges)):
        yield Drift(what=f"privilege {spelled(privilege)}", state="missing")


def columns(described: Mapping[str, Mapping[str, str]], tables: Mapping[str, Table]) -> Iterator[Drift]:
    """Columns by table, with their types, that are not there so."""
    for table, wanted in described.items():
        if table not in tables:
            yield Drift(what=f"table {table}", state="missing")
            continue
        types = {column.name: column.type for column in tables[table].columns}
        for name, kind in wanted.items():
            if name not in types:
                yield Drift(what=f"column {table}.{name}", state="missing", detail=kind)
            elif types[name] != kind:
                yield Drift(what=f"column {table}.{name}", state="different", detail=f"it is {types[name]}, not {kind}")


def _tables(wanted: Mapping[str, Table], there: Mapping[str, Table]) -> Iterator[Drift]:
    yield from columns({t.name: {c.name: c.type for c in t.columns} for t in wanted.values()}, there)
    for name, table in there.items():
        if name.upper() in _LIQUIBASE:
            continue
        if name not in wanted:
            yield Drift(what=f"table {name}", state="unexpected")
            continue
        if table.primary_key != wanted[name].primary_key:
            keys = f"its key is {', '.join(table.primary_key)}, not {', '.join(wanted[name].primary_key)}"
            yield Drift(what=f"table {name}", state="different", detail=keys)
        required = {c.name: c.not_null for c in wanted[name].columns}
        for column in table.columns:
            what = f"column {name}.{column.name}"
            if column.name not in required:
                yield Drift(what=what, state="unexpected", detail=column.type)
            elif column.not_null != required[column.name]:
                yield Drift(what=what, state="different", detail=f"it is{' ' if column.not_null else ' not '}NOT NULL")


def _stream(wanted: Stream, there: Stream | None) -> Iterator[Drift]:
    what = f"change stream {wanted.name}"
    if there is None:
        yield Drift(what=what, state="missing")
        return
    if there.tables is not None and (absent := set(wanted.tables or ()) - set(there.tables)):
        yield Drift(what=what, state="different", detail=f"it does not watch {', '.join(sorted(absent))}")
    capture = there.options.get("value_capture_type", "OLD_AND_NEW_VALUES")
    if capture != wanted.options.get("value_capture_type", capture):
        detail = f"it captures {capture}, not {wanted.options['value_capture_type']}"
        yield Drift(what=what, state="different", detail=detail)
    mode = there.options.get("partition_mode", PARTITION_MODE)
    if mode != (expected := wanted.options.get("partition_mode", PARTITION_MODE)):
        yield Drift(what=what, state="different", detail=f"its partition_mode is {mode}, not {expected}")
    for option in _EXCLUDE:
        if there.options.get(option, "false").lower() == "true" and wanted.options.get(option) != "true":
            yield Drift(what=what, state="different", detail=f"{option} = true: those changes would never arrive")


def _index(wanted: Index, there: Index | None) -> Iterator[Drift]:
    what = f"index {wanted.name} on {wanted.table}"
    if there is None:
        yield Drift(what=what, state="missing")
    elif there.table != wanted.table or there.key[: len(wanted.key)] != wanted.key:
        detail = f"it is on {there.table} ({', '.join(there.key)}), not on ({', '.join(wanted.key)})"
        yield Drift(what=what, state="different", detail=detail)


def _covered(wanted: Privilege, there: Collection[Privilege]) -> bool:
    """A privilege on all of an object is one on each of its columns; one on all tables of a schema is one on each."""
    wide = wanted._replace(column="")
    return bool({wanted, wide, wide._replace(name=beside(wanted.name, "*"))} & set(there))


def spelled(privilege: Privilege) -> str:
    """A privilege as GRANT has it."""
    columns = f"({privilege.column})" if privilege.column else ""
    return f"{privilege.action}{columns} on {privilege.kind} {privilege.name} to {privilege.role}"
