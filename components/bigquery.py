"""The warehouse: datasets, tables, the queries that keep state and lookup up to date, who may read and write what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import pulumi
from pulumi_gcp import bigquery, projects

from components import bigquery_schema, naming
from components.identity import Identity
from components.settings import Settings
from contract import queries, tables

_DAY_MILLIS: Final = 24 * 3600 * 1000
# What says how far or how well it goes, and is of no use later: readers look back a week at most.
_NOTED_DAYS: Final = 30


@dataclass(frozen=True, kw_only=True)
class WarehouseArgs:
    """`key` encrypts, None leaves it to Google. `personal` is the policy tag of personal columns, None hides none."""

    settings: Settings
    accounts: Identity
    key: pulumi.Input[str] | None = None
    personal: pulumi.Output[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset that the stack makes or, with `existingDatasets`, one that is there. `key` is in Pulumi's names."""

    key: str
    dataset_id: pulumi.Input[str]


class Warehouse(pulumi.ComponentResource):
    """Every dataset and table of the contract, by their ids. `location` is where they are.

    `datasets` are those of the data: neither the views', nor the access log's, to which the console alone appends.
    `personal` is the policy tag of personal columns.
    """

    location: str
    personal: pulumi.Output[str] | None
    datasets: Mapping[str, Dataset]
    made: Mapping[str, bigquery.Table]

    def __init__(self, name: str, args: WarehouseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Warehouse"), name, {}, opts)
        self._args, self._settings = args, args.settings
        self._watched = args.settings.watched
        changelogs = tables.changelogs(self._watched)
        state, self._positions = tables.payment_state_table(self._watched), tables.resume_positions(self._watched)
        self._stuck, self._access_log = tables.stuck_payments_seen(self._watched), tables.access_log(self._watched)
        # The job adds columns to these as they appear in Spanner.
        self._growing = {table.id for table in (*changelogs.values(), state)}
        self._merged = (state.id, tables.merge_progress(self._watched).id, tables.payment_lookup(self._watched).id)
        searched = (self._watched.payments, *self._watched.events)
        self._merged_from = (*(changelogs[table.name].id for table in searched), self._positions.id)
        every = tables.all_tables(self._watched)
        self.location, self.personal = args.settings.warehouse.location, args.personal
        self._all_datasets = {d: self._dataset(d) for d in sorted({table.dataset for table in every})}
        self.datasets = {d: made for d, made in self._all_datasets.items() if d != self._watched.access_dataset}
        self.made = {table.id: self._table(table) for table in every}
        self._access()
        grants = self._merge_access()
        project, warehouse = self._settings.project, self._settings.warehouse
        self._schedule(naming.MERGE, queries.merge_script(project, self._watched), warehouse.merge_minutes, grants)
        self._schedule(naming.FILL, queries.fill_script(project, self._watched), warehouse.lookup_minutes, grants)
        self.register_outputs({"location": self.location})

    def _dataset(self, dataset: str) -> Dataset:
        if dataset in self._settings.warehouse.existing:
            return Dataset(key=dataset, dataset_id=dataset)
        return dataset_of(self, self._settings, dataset, self._args.key)

    def _table(self, table: tables.Table) -> bigquery.Table:
        protect = self._settings.protect
        return bigquery.Table(
            self._watched.without_prefix(table.id),
            dataset_id=self._all_datasets[table.dataset].dataset_id,
            table_id=table.name,
            description=table.description,
            schema=self._schema(table),
            time_partitioning=self._partitioning(table),
            range_partitioning=_buckets(table),
            clusterings=list(table.cluster_by) or None,
            encryption_configuration={"kms_key_name": self._args.key} if self._args.key is not None else None,
            deletion_protection=protect,
            opts=pulumi.ResourceOptions(parent=self, protect=protect),
        )

    def _schema(self, table: tables.Table) -> pulumi.Input[str]:
        existing = bigquery_schema.columns_of(self, self._settings.project, table) if table.id in self._growing else []
        if self._args.personal is None:
            return bigquery_schema.schema(table.fields, existing)
        return self._args.personal.apply(lambda tag: bigquery_schema.schema(table.fields, existing, personal=tag))

    def _partitioning(self, table: tables.Table) -> bigquery.TableTimePartitioningArgsDict | None:
        if not table.partition_by or table.buckets:
            return None
        kept = {self._positions.id: _NOTED_DAYS, self._stuck.id: _NOTED_DAYS}
        kept[self._access_log.id] = self._settings.retention.access_log_days
        days = kept.get(table.id, self._settings.warehouse.partition_days)
        partitioning: bigquery.TableTimePartitioningArgsDict = {"type": table.partition, "field": table.partition_by}
        return {**partitioning, "expiration_ms": days * _DAY_MILLIS} if days else partitioning

    def _schedule(self, name: str, query: str, minutes: int, grants: Sequence[pulumi.Resource]) -> None:
        """A scheduled query that brings a table up to date, once its account has the grants that it takes."""
        bigquery.DataTransferConfig(
            name,
            display_name=self._settings.names.of(name),
            data_source_id="scheduled_query",
            location=self.location,
            schedule=every(minutes),
            params={"query": query},
            service_account_name=self._args.accounts.merge.email,
            disabled=bool(self._args.settings.pause),
            # No key: BigQuery refuses one on a script of several statements, and the tables have their keys:
            # cloud.google.com/bigquery/docs/scheduling-queries.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*self.made.values(), *grants]),
        )

    def _access(self) -> None:
        """The job appends rows, adds columns, makes tables and looks change ids up by query; a replay does the same."""
        accounts = self._args.accounts
        erasure = accounts.erasure.member
        self._on_datasets("pipeline", "dataEditor", accounts.pipeline.member)
        self._on_datasets("validation", "dataEditor", accounts.validation.member)
        self._on_datasets("erasure", "dataEditor", erasure)
        self._grant(self._access_log.id, "dataEditor", "erasure", erasure)
        self._on_datasets("probe", "dataViewer", accounts.probe.member)
        self._grant(self._stuck.id, "dataEditor", "probe", accounts.probe.member)
        # To copy a table takes to read it; where its partitions are listed, the whole dataset.
        for dataset in self._all_datasets.values():
            grant_on_dataset(self, f"{dataset.key}-backup", dataset, "dataViewer", accounts.backup.member)
        # After an erasure it makes a backup.
        grant_on_dataset(
            self, "access-erasure", self._all_datasets[self._watched.access_dataset], "dataViewer", erasure
        )
        if self._settings.console.image:
            self._log_access(accounts.console.member)
        if self._settings.pipeline.image:
            # Google's smallest role that makes a table reads and deletes all of them.
            keeper = naming.role(naming.TABLE_KEEPER, self._settings.project)
            for dataset in self.datasets.values():
                grant_on_dataset(self, f"{dataset.key}-launcher", dataset, keeper, accounts.launcher.member)

    def _on_datasets(self, who: str, role: str, member: pulumi.Input[str]) -> None:
        for dataset in self.datasets.values():
            grant_on_dataset(self, f"{dataset.key}-{who}", dataset, role, member)
        grant_queries(self, self._settings, who, member)

    def _log_access(self, member: pulumi.Input[str]) -> None:
        """The console appends to its log. Google's smallest role for that reads and deletes the table too."""
        table = self.made[self._access_log.id]
        bigquery.IamMember(
            f"{table._name}-console",
            dataset_id=table.dataset_id,
            table_id=table.table_id,
            role=naming.role(naming.ACCESS_LOGGER, self._settings.project),
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _merge_access(self) -> Sequence[pulumi.Resource]:
        member = self._args.accounts.merge.member
        on = partial(self._grant, who="merge", member=member)
        return [
            *(on(table, "dataEditor") for table in self._merged),
            *(on(table, "dataViewer") for table in self._merged_from),
            grant_queries(self, self._settings, "merge", member),
            self._args.accounts,
        ]

    def _grant(self, table: str, role: str, who: str, member: pulumi.Input[str]) -> bigquery.IamMember:
        made = self.made[table]
        return bigquery.IamMember(
            f"{made._name}-{who}",
            dataset_id=made.dataset_id,
            table_id=made.table_id,
            role=f"roles/bigquery.{role}",
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )


def every(minutes: int) -> str:
    """A schedule in the largest unit, so that the service gives back what it was given."""
    return f"every {minutes} minutes" if minutes % 60 else f"every {minutes // 60} hours"


def minutes_of(schedule: str) -> int:
    """The minutes between two runs of a schedule that `every` wrote."""
    _, count, unit = schedule.split()
    return int(count) * (60 if unit == "hours" else 1)


def _buckets(table: tables.Table) -> bigquery.TableRangePartitioningArgsDict | None:
    if not table.buckets:
        return None
    return {"field": str(table.partition_by), "range": {"start": 0, "end": table.buckets, "interval": 1}}


def dataset_of(parent: pulumi.Resource, settings: Settings, dataset: str, key: pulumi.Input[str] | None) -> Dataset:
    """A dataset of the stack: protected, and encrypted by default, as the stack's settings say."""
    protect = settings.protect
    key_of_name = settings.watched.without_prefix(dataset)
    made = bigquery.Dataset(
        key_of_name,
        dataset_id=dataset,
        location=settings.warehouse.location,
        default_encryption_configuration={"kms_key_name": key} if key is not None else None,
        accesses=owners(settings),
        delete_contents_on_destroy=not protect,
        # Grants and authorised datasets are in the list too, as separate resources.
        opts=pulumi.ResourceOptions(parent=parent, protect=protect, ignore_changes=["accesses"]),
    )
    return Dataset(key=key_of_name, dataset_id=made.dataset_id)


def owners(settings: Settings) -> list[bigquery.DatasetAccessArgsDict]:
    """The access list with which a dataset is made. Without it every viewer of the project reads the tables:
    cloud.google.com/bigquery/docs/reference/rest/v2/datasets."""
    return [{"role": "OWNER", "user_by_email": naming.account(naming.DEPLOYER, settings.project)}]


def grant_on_dataset(
    parent: pulumi.Resource, name: str, dataset: Dataset, role: str, member: pulumi.Input[str]
) -> None:
    """Grants a role of BigQuery's, or a whole name of another one, on one dataset."""
    bigquery.DatasetIamMember(
        name,
        dataset_id=dataset.dataset_id,
        role=role if "/" in role else f"roles/bigquery.{role}",
        member=member,
        opts=pulumi.ResourceOptions(parent=parent),
    )


def grant_queries(
    parent: pulumi.Resource, settings: Settings, who: str, member: pulumi.Input[str]
) -> projects.IAMMember:
    """Grants the running of queries, which is on the project; what they may read is granted where it is."""
    return projects.IAMMember(
        f"query-{who}",
        project=settings.project,
        role="roles/bigquery.jobUser",
        member=member,
        opts=pulumi.ResourceOptions(parent=parent),
    )
