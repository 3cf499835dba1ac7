"""The warehouse: datasets, tables, views, the scheduled merge of the current state, and who may read and write what."""

import json
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import bigquery, projects

from components import naming
from components.settings import Settings
from contract import queries, tables

# The job adds columns to these as they appear in Spanner; Pulumi must not take them away again.
_GROWING: Final = frozenset({t.id for t in tables.changelogs().values()} | {tables.payment_state_table().id})
_MERGED: Final = (tables.payment_state_table().id, tables.MERGE_PROGRESS.id)
_MERGED_FROM: Final = (tables.changelogs()[tables.PAYMENT_TABLE].id, tables.RESUME_POSITIONS.id)


@dataclass(frozen=True, kw_only=True)
class WarehouseArgs:
    """`pipeline`: the member that the job runs as; `merge`: the e-mail of the scheduled merge's service account."""

    settings: Settings
    pipeline: pulumi.Input[str]
    merge: pulumi.Input[str]


class Warehouse(pulumi.ComponentResource):
    """Every dataset, table and view of the contract. `location` is where they are."""

    location: str

    def __init__(self, name: str, args: WarehouseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Warehouse"), name, {}, opts)
        self._args, self._settings = args, args.settings
        self.location = args.settings.warehouse.location
        self._datasets = {d: self._dataset(d) for d in sorted({t.dataset for t in tables.all_tables()})}
        self._tables = {table.id: self._table(table) for table in tables.all_tables()}
        self._views = {view: self._view(view) for view in queries.views()}
        self._pipeline_access()
        self._merge_access()
        self._merge()
        for reader in args.settings.warehouse.readers:
            self._reader_access(reader)
        if args.settings.warehouse.readers:
            self._authorize_views()
        self.register_outputs({"location": self.location})

    def _dataset(self, dataset: str) -> bigquery.Dataset:
        protect = self._settings.protect
        return bigquery.Dataset(
            dataset,
            dataset_id=dataset,
            location=self.location,
            delete_contents_on_destroy=not protect,
            # Authorised views stand in the access list too, as resources of their own.
            opts=pulumi.ResourceOptions(parent=self, protect=protect, ignore_changes=["accesses"]),
        )

    def _table(self, table: tables.Table) -> bigquery.Table:
        protect = self._settings.protect
        partitioning: bigquery.TableTimePartitioningArgsDict | None = (
            {"type": "DAY", "field": table.partition_by} if table.partition_by else None
        )
        ignore = ["schema"] if table.id in _GROWING else None
        return bigquery.Table(
            table.id,
            dataset_id=self._datasets[table.dataset].dataset_id,
            table_id=table.name,
            description=table.description,
            schema=json.dumps([_column(field) for field in table.fields]),
            time_partitioning=partitioning,
            clusterings=list(table.cluster_by) or None,
            deletion_protection=protect,
            opts=pulumi.ResourceOptions(parent=self, protect=protect, ignore_changes=ignore),
        )

    def _view(self, view: str) -> bigquery.Table:
        return bigquery.Table(
            f"{tables.PAYMENT_DATASET}.{view}",
            dataset_id=self._datasets[tables.PAYMENT_DATASET].dataset_id,
            table_id=view,
            view={"query": queries.view(view, self._settings.project), "use_legacy_sql": False},
            deletion_protection=False,
            # A view holds nothing. BigQuery checks its query when it is made, so what it reads must be there.
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(self._tables.values())),
        )

    def _merge(self) -> None:
        """The scheduled query that brings payment_state up to date."""
        bigquery.DataTransferConfig(
            naming.MERGE,
            display_name=naming.MERGE,
            data_source_id="scheduled_query",
            location=self.location,
            schedule=f"every {self._settings.warehouse.merge_minutes} minutes",
            params={"query": queries.script(queries.MERGE_PAYMENT_STATE, self._settings.project)},
            service_account_name=self._args.merge,
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(self._tables.values())),
        )

    def _pipeline_access(self) -> None:
        """The job appends rows, adds columns and makes tables in the datasets, and looks change ids up by query."""
        for key, dataset in self._datasets.items():
            bigquery.DatasetIamMember(
                f"{key}-pipeline",
                dataset_id=dataset.dataset_id,
                role="roles/bigquery.dataEditor",
                member=self._args.pipeline,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self._may_query("pipeline", self._args.pipeline)

    def _merge_access(self) -> None:
        member = pulumi.Output.concat("serviceAccount:", self._args.merge)
        for table in _MERGED:
            self._may("merge", table, self._tables[table], "dataEditor", member)
        for table in _MERGED_FROM:
            self._may("merge", table, self._tables[table], "dataViewer", member)
        self._may_query("merge", member)

    def _reader_access(self, reader: str) -> None:
        """A reader sees the views and nothing below them."""
        for view, table in self._views.items():
            self._may(reader, view, table, "dataViewer", reader)
        self._may_query(reader, reader)

    def _authorize_views(self) -> None:
        """The views read the tables in their own name, so their readers need not."""
        for key, dataset in self._datasets.items():
            for view, table in self._views.items():
                bigquery.DatasetAccess(
                    f"{key}-{view}",
                    dataset_id=dataset.dataset_id,
                    view={
                        "project_id": self._settings.project,
                        "dataset_id": tables.PAYMENT_DATASET,
                        "table_id": table.table_id,
                    },
                    opts=pulumi.ResourceOptions(parent=self),
                )

    def _may(self, who: str, what: str, table: bigquery.Table, role: str, member: pulumi.Input[str]) -> None:
        bigquery.IamMember(
            f"{what}-{who}",
            dataset_id=table.dataset_id,
            table_id=table.table_id,
            role=f"roles/bigquery.{role}",
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _may_query(self, who: str, member: pulumi.Input[str]) -> None:
        projects.IAMMember(
            f"query-{who}",
            project=self._settings.project,
            role="roles/bigquery.jobUser",
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _column(field: tables.Field) -> dict[str, str]:
    """A column in BigQuery's own JSON."""
    column = {"name": field.name, "type": field.type, "mode": field.mode, "description": field.description}
    if field.default:
        column["defaultValueExpression"] = field.default
    return column
