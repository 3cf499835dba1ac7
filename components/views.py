"""What people read: the views and prebuilt queries, in a separate dataset that the tables' datasets trust."""

import json
import re
from dataclasses import dataclass

import pulumi
from pulumi_gcp import bigquery

from components import naming
from components.bigquery import Dataset, Warehouse, dataset_of, grant_on_dataset, grant_queries
from components.identity import Identity
from components.settings import Settings
from contract import queries, tables


@dataclass(frozen=True, kw_only=True)
class ViewsArgs:
    settings: Settings
    accounts: Identity
    warehouse: Warehouse
    key: pulumi.Input[str] | None = None


class Views(pulumi.ComponentResource):
    """Dataset `payment_views`: its readers need, and get, nothing on the tables below. `dataset` is its name."""

    dataset: pulumi.Output[str]

    def __init__(self, name: str, args: ViewsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Views"), name, {}, opts)
        self._args, self._settings = args, args.settings
        self._dataset = dataset_of(self, args.settings, args.settings.watched.views_dataset, args.key)
        views = [self._view(view) for view in queries.views()]
        for query in queries.queries(args.settings.watched):
            function = queries.table_function(query, args.settings.project, args.settings.watched)
            self._function(function, views)
        for dataset in args.warehouse.datasets.values():
            self._trust(dataset)
        self._access()
        self.dataset = pulumi.Output.from_input(self._dataset.dataset_id)
        self.register_outputs({"dataset": self.dataset})

    def _access(self) -> None:
        """Support and those that search for people; the probe counts by state, erasure finds a customer's payments.

        Who runs queries for more than the views has that role from the warehouse.
        """
        accounts = self._args.accounts
        searching: dict[str, pulumi.Input[str]] = {"card-search": accounts.card_search.member}
        if self._settings.console.image:
            searching["console"] = accounts.console.member
        readers = {reader: reader for reader in self._settings.viewers}
        for who, member in {**readers, **searching}.items():
            grant_queries(self, self._settings, who, member)
        working = {"probe": accounts.probe.member, "erasure": accounts.erasure.member}
        for who, member in {**readers, **searching, **working}.items():
            grant_on_dataset(self, f"{tables.VIEWS_DATASET}-{who}", self._dataset, "dataViewer", member)
        if self._settings.pipeline.image:
            # Whether the views are there, and not what they show.
            launcher = accounts.launcher.member
            grant_on_dataset(self, f"{tables.VIEWS_DATASET}-launcher", self._dataset, "metadataViewer", launcher)

    def _view(self, view: str) -> bigquery.Table:
        return bigquery.Table(
            f"{tables.VIEWS_DATASET}.{view}",
            dataset_id=self._dataset.dataset_id,
            table_id=view,
            view={"query": queries.view(view, self._settings.project, self._settings.watched), "use_legacy_sql": False},
            deletion_protection=False,
            # A view holds nothing. BigQuery checks its query when it is made: its tables, and their new columns, first.
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(self._args.warehouse.made.values())),
        )

    def _function(self, function: queries.TableFunction, views: list[bigquery.Table]) -> None:
        """A prebuilt query. It runs as who calls it, over views that its caller may read."""
        bigquery.Routine(
            f"{tables.VIEWS_DATASET}.{function.name}",
            dataset_id=self._dataset.dataset_id,
            routine_id=function.name,
            routine_type="TABLE_VALUED_FUNCTION",
            language="SQL",
            description=function.description,
            arguments=[{"name": a.name, "data_type": data_type(a.type)} for a in function.arguments],
            definition_body=function.body,
            opts=pulumi.ResourceOptions(parent=self, depends_on=views),
        )

    def _trust(self, trusting: Dataset) -> None:
        """The views read a dataset in their own name. The whole dataset of views is trusted: a view that is made again
        keeps its trust, and none but the deployer may make one there."""
        bigquery.DatasetAccess(
            f"{trusting.key}-{tables.VIEWS_DATASET}",
            dataset_id=trusting.dataset_id,
            authorized_dataset={
                "dataset": {"project_id": self._settings.project, "dataset_id": self._dataset.dataset_id},
                "target_types": ["VIEWS"],
            },
            opts=pulumi.ResourceOptions(parent=self),
        )


def data_type(sql: str) -> str:
    """A SQL type as the API writes it."""
    if array := re.fullmatch(r"ARRAY<(.*)>", sql):
        return json.dumps({"typeKind": "ARRAY", "arrayElementType": {"typeKind": array[1]}})
    return json.dumps({"typeKind": sql})
