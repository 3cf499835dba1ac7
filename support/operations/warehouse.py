"""BigQuery's tables and views against the contract: what is there, what was lost, what was never made.

A table is made only where none was ever seen. One that was there and is gone took its rows along: an empty one in its
place would hide that, so it is named, and restored by a person.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from contract import queries, tables
from contract.errors import AuditError
from contract.watched import WatchedTables
from support.connection import Connection

State = Literal["there", "made", "lost", "missing", "different"]

# BigQuery's API answers with the older names.
_KINDS: Final = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
_RESTORE: Final = "runbooks/how-to/restore.md, `audit backup restore`"


class WarehouseUnread(AuditError):
    """BigQuery's tables could not be looked at; the message says the remedy."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A table, view or function, by `dataset.name`, and what was found of it."""

    name: str
    state: State
    detail: str = ""

    @property
    def wrong(self) -> bool:
        return self.state in ("lost", "missing", "different")


# Column → type and whether it is repeated; by casefolded name, as BigQuery compares names.
Columns = Mapping[str, tuple[str, bool]]


def look(expected: Sequence[tables.Table], there: Mapping[str, Columns], seen: Collection[str]) -> Iterator[Looked]:
    """Each table of the contract. `there`: the columns of those that exist; `seen`: those that existed once.

    One that is missing was never made: it may be made. Columns beyond the contract are the job's, and are right.
    """
    for table in expected:
        if table.id not in there:
            yield _gone(table.id) if table.id in seen else Looked(name=table.id, state="missing")
            continue
        wrong = list(_columns(table, there[table.id]))
        state: State = "different" if wrong else "there"
        yield Looked(name=table.id, state=state, detail="; ".join(wrong))


def _gone(name: str) -> Looked:
    return Looked(
        name=name, state="lost", detail=f"it was there and is gone: restore it ({_RESTORE}), make no empty one"
    )


def _columns(table: tables.Table, there: Columns) -> Iterator[str]:
    for field in table.fields:
        name = field.name.casefold()
        if name not in there:
            yield f"column {field.name} is missing ({field.type})"
        # A source column whose type was changed has its new values in a column beside it.
        elif there[name] != (field.type, field.mode == "REPEATED") and f"{name}_{field.type.lower()}" not in there:
            kind, repeated = there[name]
            yield f"column {field.name} is {'repeated ' * repeated}{kind}, not {field.type}"


def look_at_views(watched: WatchedTables, there: Collection[str]) -> Iterator[Looked]:
    """Each view and prebuilt query. They hold nothing: `up` makes them."""
    for name in (*queries.views(), *queries.queries(watched)):
        known = f"{watched.views_dataset}.{name}"
        state: State = "there" if known in there else "missing"
        yield Looked(name=known, state=state, detail="" if known in there else "`delivery.deploy up` makes it")


class Warehouse:
    """BigQuery's side. Each method raises WarehouseUnread."""

    def __init__(self, connection: Connection) -> None:
        from pipeline.clients import bigquery_client

        self._project, self._personal = connection.project, connection.personal_tag
        self._client = bigquery_client(connection.big_query_endpoint, connection.project)

    def columns(self, expected: Sequence[tables.Table]) -> dict[str, Columns]:
        """The columns of the tables that exist, by `dataset.name`."""
        from google.api_core.exceptions import NotFound

        found: dict[str, Columns] = {}
        for table in expected:
            try:
                made = self._ask(lambda id=table.id: self._client.get_table(f"{self._project}.{id}"))
            except NotFound:
                continue
            found[table.id] = {
                column.name.casefold(): (_KINDS.get(column.field_type, column.field_type), column.mode == "REPEATED")
                for column in made.schema
            }
        return found

    def views(self, views_dataset: str) -> frozenset[str]:
        """The views and functions that exist, by `dataset.name`."""
        from google.api_core.exceptions import NotFound

        dataset = f"{self._project}.{views_dataset}"
        try:
            made = self._ask(lambda: [view.table_id for view in self._client.list_tables(dataset)])
            made += self._ask(lambda: [each.routine_id for each in self._client.list_routines(dataset)])
        except NotFound:
            return frozenset()
        return frozenset(f"{views_dataset}.{name}" for name in made)

    def make(self, table: tables.Table) -> Looked:
        """Makes a table that was never there. Its dataset must be."""
        from google.api_core.exceptions import NotFound
        from google.cloud import bigquery

        made = bigquery.Table(f"{self._project}.{table.id}", schema=[self._column(field) for field in table.fields])
        made.description = table.description
        made.clustering_fields = list(table.cluster_by) or None
        if table.buckets:
            span = bigquery.PartitionRange(start=0, end=table.buckets, interval=1)
            made.range_partitioning = bigquery.RangePartitioning(field=str(table.partition_by), range_=span)
        elif table.partition_by:
            made.time_partitioning = bigquery.TimePartitioning(type_=table.partition, field=table.partition_by)
        try:
            # Who made it in between made it as well.
            self._ask(lambda: self._client.create_table(made, exists_ok=True))
        except NotFound:
            detail = f"dataset {table.dataset} is missing: `delivery.deploy up` makes it"
            return Looked(name=table.id, state="missing", detail=detail)
        return Looked(name=table.id, state="made", detail="it was never there")

    def _column(self, field: tables.Field) -> Any:
        from google.cloud import bigquery

        from pipeline.sink.changelogs import schema_field

        column = schema_field(field)
        if not (field.personal and self._personal):
            return column
        return bigquery.SchemaField.from_api_repr({**column.to_api_repr(), "policyTags": {"names": [self._personal]}})

    def _ask(self, question: Any) -> Any:
        from google.api_core.exceptions import GoogleAPIError, NotFound
        from google.auth.exceptions import GoogleAuthError
        from requests import RequestException

        try:
            return question()
        except NotFound:
            raise
        except (GoogleAPIError, GoogleAuthError, RequestException) as error:
            raise WarehouseUnread(
                f"BigQuery's tables cannot be looked at ({type(error).__name__}): that takes "
                "roles/bigquery.metadataViewer on the datasets, and to make a table the custom role auditTableKeeper."
            ) from error


def made_by(warehouse: Warehouse, expected: Sequence[tables.Table], looked: Sequence[Looked]) -> list[Looked]:
    """The same with the tables that were never there made."""
    by_id = {table.id: table for table in expected}
    return [warehouse.make(by_id[each.name]) if each.state == "missing" else each for each in looked]
