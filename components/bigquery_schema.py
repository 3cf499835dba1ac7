"""The schema of a living table: the columns that it has already, and those that the contract has beyond them.

The job adds columns while it runs, so the table knows more than the program, and after a new changeset the program more
than the table. Asking for the union leaves both in place, and what reads the new column waits for it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pulumi
from pulumi_gcp import bigquery

from contract import tables
from contract.errors import AuditError

# No table, no dataset, or a new project in which BigQuery is not even switched on.
_ABSENT: Final = r"(?i)not ?found|\b404\b|SERVICE_DISABLED|accessNotConfigured|has not been used in project"
# BigQuery's API answers with the older names.
_KINDS: Final = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}

Column = Mapping[str, Any]


class SchemaUnknownError(AuditError):
    """It could not be found which columns a table has; the message says the remedy."""


def schema(fields: Sequence[tables.Field], existing: Sequence[Column] = (), *, personal: str = "") -> str:
    """A table's schema in BigQuery's own JSON: the columns that are `there`, in their order, then what they lack.

    `personal` is the policy tag of the columns that identify a person; empty, they have none. A living column keeps a
    tag that an update says nothing of, so an empty list takes it off.
    """
    wanted = {field.name.casefold(): _column(field, personal) for field in fields}
    kept = [_kept(column, wanted.pop(column["name"].casefold(), {})) for column in existing]
    # BigQuery takes a further column of a living table only without a default.
    lacking = [
        {k: v for k, v in c.items() if not (existing and k == "defaultValueExpression")} for c in wanted.values()
    ]
    return json.dumps([*kept, *lacking])


def columns_of(parent: pulumi.Resource, project: str, table: tables.Table) -> list[Column]:
    """The columns that a table has now; none when there is no such table yet. Raises SchemaUnknownError."""
    try:
        found = bigquery.get_table(
            project=project,
            dataset_id=table.dataset,
            table_id=table.name,
            opts=pulumi.InvokeOptions(parent=parent),
        )
    except Exception as error:
        if re.search(_ABSENT, str(error)):
            return []
        raise SchemaUnknownError(
            f"the columns of {table.id} must be known before it is changed, and BigQuery answered: {error}. "
            "Without them those that the job has added would be taken away. "
            "Give who runs Pulumi roles/bigquery.metadataViewer."
        ) from error
    columns: list[Column] = json.loads(found.schema or "[]")
    return columns


def _kept(existing: Column, wanted: dict[str, Any]) -> dict[str, Any]:
    """An existing column: as the contract describes it, of the type that it has."""
    as_it_is = {key: value for key, value in existing.items() if value}
    kind = _KINDS.get(existing["type"], existing["type"])
    if wanted and existing.get("policyTags"):
        wanted.setdefault("policyTags", {"names": []})
    return {**(wanted or as_it_is), "name": existing["name"], "type": kind, "mode": existing.get("mode") or "NULLABLE"}


def _column(field: tables.Field, personal: str) -> dict[str, Any]:
    column: dict[str, Any] = {
        "name": field.name,
        "type": field.type,
        "mode": field.mode,
        "description": field.description,
    }
    if field.default:
        column["defaultValueExpression"] = field.default
    if field.personal:
        column["policyTags"] = {"names": [personal] if personal else []}
    return column
