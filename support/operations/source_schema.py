"""The source database's schema: the comparison with what it must have, for a stack's files and for a connection.

`delivery.schema verify` has the stack's files; `audit schema verify` has what the stack put into its connection:
`schemaOwner`, and the DDL of the changelog or, of a database that others own, of its watched tables.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from contract import attached, dialects, schema
from contract.drift import Drift, drift
from contract.errors import AuditError
from contract.watched import WatchedTables
from support.connection import Connection, ConnectionFileError

# What is to be done comes first.
_ORDER: Final = ("missing", "different", "unexpected", "there")


class SchemaUnread(AuditError):
    """The database's DDL cannot be read; the message says the remedy."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`state`: missing, different, unexpected or there. `what` is an object, or the statement that makes it."""

    state: str
    what: str
    detail: str = ""

    @property
    def wrong(self) -> bool:
        """Whether something is to be done. What is there in addition is named, and is right."""
        return self.state in ("missing", "different")


def compared(
    watched: WatchedTables, statements: Sequence[str], there: schema.Catalog, *, others: bool, roles: bool
) -> list[Finding]:
    """What a database must have against what is there. `statements` are the changelog's; `others`: they own it, and
    only what the audit needs is compared, with database roles where there are `roles`."""
    return sorted(
        _of_others(watched, there, roles=roles) if others else _of_changelog(statements, there),
        key=lambda finding: _ORDER.index(finding.state),
    )


def _of_others(watched: WatchedTables, there: schema.Catalog, *, roles: bool) -> Iterator[Finding]:
    found, different = attached.compare(watched, there, roles=roles)
    for each in found:
        detail = "; ".join(f"{short.what}: {short.detail}".removesuffix(": ") for short in each.short)
        yield Finding(state=each.state, what=each.need.statement, detail=detail)
    yield from map(_finding, different)


def _of_changelog(statements: Sequence[str], there: schema.Catalog) -> Iterator[Finding]:
    wanted = schema.Catalog(dialects.of_ddl("\n".join(statements)))
    for statement in statements:
        wanted.run(statement)
    yield from map(_finding, drift(wanted, there))


def _finding(found: Drift) -> Finding:
    return Finding(state=found.state, what=found.what, detail=found.detail)


def live(endpoint: str, project: str, instance: str, database: str) -> list[str]:
    """The statements of a database's DDL, as Spanner has them now. Raises SchemaUnread."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    from pipeline.clients import spanner_database

    name = f"projects/{project}/instances/{instance}/databases/{database}"
    try:
        # Google's client: the emulator's address in the environment would reach it by itself, without ours.
        found = spanner_database(endpoint, project, instance, database)
        return list(found._instance._client.database_admin_api.get_database_ddl(database=name).statements)
    except (GoogleAPIError, GoogleAuthError) as error:
        raise SchemaUnread(
            f"the DDL of {name} cannot be read ({type(error).__name__}). It takes spanner.databases.getDdl; its owners "
            f"can send what `gcloud spanner databases ddl describe {database} --instance={instance} "
            f"--project={project}` prints: pass it with --ddl FILE."
        ) from error


def verify(connection: Connection, dump: str | None = None) -> list[Finding]:
    """The stack's source database against what it must have; `dump` in place of asking it. Raises SchemaUnread, and
    ConnectionFileError."""
    if dump is None:
        project = connection.spanner_project or connection.project
        place = (connection.spanner_endpoint, project, connection.spanner_instance, connection.spanner_database)
        there = schema.read(live(*place))
    else:
        there = schema.read(schema.split(dump))
    roles = bool(connection.database_roles)
    with described(connection) as watched:
        others = connection.schema_owner == attached.EXISTING
        return compared(watched, statements(connection), there, others=others, roles=roles)


def statements(connection: Connection) -> list[str]:
    """The DDL that the stack's connection carries. Raises ConnectionFileError."""
    try:
        known = json.loads(connection.source_schema)
    except ValueError:
        known = None
    if not isinstance(known, list) or not known:
        raise ConnectionFileError(
            "sourceSchema must hold the source's DDL as a JSON list, and does not. Bring the stack up with this "
            "release, or write the file with `python -m delivery.deploy outputs -s STACK > FILE`."
        )
    return [str(each) for each in known]


@contextmanager
def described(connection: Connection) -> Iterator[WatchedTables]:
    """The watched tables with the columns of their source, as BigQuery's tables are made for them."""
    with tempfile.TemporaryDirectory() as folder:
        ddl = Path(folder) / f"source{schema.DUMP}"
        ddl.write_text("".join(f"{statement};\n" for statement in statements(connection)))
        yield replace(connection.watched, changelog=ddl)
