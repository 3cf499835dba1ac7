"""The source and the metadata database, as support connects to them."""

from __future__ import annotations

from typing import Any

from support.connection import Connection


def metadata_database(connection: Connection, role: str = "") -> Any:
    """The stack's metadata database, by a database role or with all that the account may."""
    from pipeline.clients import spanner_database

    instance = connection.metadata_instance or connection.spanner_instance
    place = (connection.spanner_endpoint, connection.project, instance, connection.metadata_database)
    return spanner_database(*place, role)


def source_database(connection: Connection, role: str) -> Any:
    """The source database, as a database role where the stack has them."""
    from pipeline.clients import spanner_database

    project = connection.spanner_project or connection.project
    place = (project, connection.spanner_instance, connection.spanner_database)
    return spanner_database(connection.spanner_endpoint, *place, connection.role(role))
