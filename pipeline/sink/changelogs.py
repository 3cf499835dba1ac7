"""The changelog tables as BigQuery has them: made when absent, widened when a change brings a new column.

Columns and tables are only ever added. Several workers may add the same one at once: the loser reads the table again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contract import tables
from contract.changes import Column

_LOG = logging.getLogger(__name__)
_TRIES = 5


class NotReady(Exception):
    """What must be there for a write is not there yet. The message says what, and how it gets there."""


@dataclass(frozen=True, kw_only=True)
class Destinations:
    """Where a source table's changelog is. `places` maps source tables to (dataset, table)."""

    project: str
    dataset: str = tables.PAYMENT_DATASET
    name_template: str = "{_metadata_spanner_table_name}_changelog"
    places: Mapping[str, tuple[str, str]]

    def of(self, table: str) -> tuple[str, str]:
        """(dataset, table) of a source table. A named schema's dot becomes an underscore, as BigQuery has none."""
        if table in self.places:
            return self.places[table]
        name = self.name_template.replace("{" + tables.TABLE_NAME + "}", table)
        return self.dataset, name.replace(".", "_")

    def id(self, table: str) -> str:
        dataset, name = self.of(table)
        return f"{self.project}.{dataset}.{name}"


class Changelogs:
    """Reads and widens the changelog tables; remembers what it has seen."""

    def __init__(self, client: Any, destinations: Destinations) -> None:
        self._client = client
        self._destinations = destinations
        self._known: dict[str, dict[str, Any]] = {}

    def conform(self, table: str, columns: Iterable[Column], fields: Iterable[tables.Field]) -> dict[str, str]:
        """Makes BigQuery ready for rows with `fields`, and returns the name that each field has there.

        A field whose type differs from the table's goes to a column of its own, `<name>_<type>`.
        """
        fields = tuple(fields)
        for _ in range(_TRIES):
            known = self._columns(table, columns)
            names = {f.name: self._name(f, known) for f in fields}
            missing = [(names[f.name], f) for f in fields if names[f.name].casefold() not in known]
            if not missing:
                return names
            self._add(table, missing)
        raise RuntimeError(f"columns could not be added to {self._destinations.id(table)} in {_TRIES} tries")

    def forget(self, table: str) -> None:
        """The table is read again before its next rows: it may have been changed or dropped."""
        self._known.pop(table, None)

    @staticmethod
    def _name(field: tables.Field, known: Mapping[str, Any]) -> str:
        there = known.get(field.name.casefold())
        if there is None or (_kind(there.field_type), there.mode == "REPEATED") == (
            field.type,
            field.mode == "REPEATED",
        ):
            return field.name
        return f"{field.name}_{field.type.lower()}"

    def _columns(self, table: str, columns: Iterable[Column]) -> dict[str, Any]:
        """The table's columns by casefolded name: BigQuery's names do not differ by case."""
        from google.api_core.exceptions import NotFound

        if table not in self._known:
            name = self._destinations.id(table)
            try:
                found = self._client.get_table(name)
            except NotFound:
                found = self._create(table, columns)
            self._known[table] = {f.name.casefold(): f for f in found.schema}
        return self._known[table]

    def _create(self, table: str, columns: Iterable[Column]) -> Any:
        from google.api_core.exceptions import NotFound
        from google.cloud import bigquery

        dataset, name = self._destinations.of(table)
        planned = tables.changelog_table(dataset, name, {c.name: c.type for c in columns})
        made = bigquery.Table(self._destinations.id(table), schema=[schema_field(f) for f in planned.fields])
        made.description = planned.description
        made.time_partitioning = bigquery.TimePartitioning(field=planned.partition_by)
        keys = [c.name for c in columns if c.is_primary_key][:4]
        made.clustering_fields = list(planned.cluster_by) or keys or None
        _LOG.info("Table %s did not exist: made.", self._destinations.id(table))
        try:
            return self._client.create_table(made, exists_ok=True)
        except NotFound:
            raise NotReady(
                f"dataset {dataset} must exist in {self._destinations.project}: run `pulumi up`. Rows wait for it."
            ) from None

    def _add(self, table: str, missing: list[tuple[str, tables.Field]]) -> None:
        from google.api_core.exceptions import BadRequest, Conflict, PreconditionFailed

        name = self._destinations.id(table)
        current = self._client.get_table(name)
        there = {f.name.casefold() for f in current.schema}
        added = [schema_field(f, name) for name, f in missing if name.casefold() not in there]
        self.forget(table)
        if not added:
            return
        current.schema = [*current.schema, *added]
        try:
            self._client.update_table(current, ["schema"])
        except (BadRequest, Conflict, PreconditionFailed) as error:
            # Another worker was quicker; the next look at the table tells.
            _LOG.info("Adding columns to %s was refused (%s); looking again.", name, error.code)
            return
        _LOG.info("Added to %s: %s.", name, ", ".join(f.name for f in added))


# The REST API writes the older names of two types.
_KINDS = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


def _kind(field_type: str) -> str:
    return _KINDS.get(field_type, field_type)


def schema_field(field: tables.Field, name: str | None = None) -> Any:
    """The client library's column. Columns of a living table can only be added without REQUIRED and without default."""
    from google.cloud import bigquery

    return bigquery.SchemaField(
        name or field.name,
        field.type,
        mode=field.mode,
        description=field.description or None,
        default_value_expression=None if name else field.default,
    )
