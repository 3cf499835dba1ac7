"""Backups in the cloud: their datasets, buckets and keys, and what their account may do."""

from __future__ import annotations

from typing import Any

import pytest

from components.settings.reader import SettingsError
from contract import tables
from graph.resources import Graph
from guardrails.iam import grants
from support.backup.records import backed
from tests.infra.graphs import graph_of
from tests.shipped import WATCHED


def test_the_account_of_backups_writes_no_table_that_it_backs_up(graph: Graph) -> None:
    held = {(grant.role, grant.resource) for grant in grants(graph) if grant.principal == "backup-sa"}
    sources = {f"dataset {table.id.partition('.')[0]}" for table in backed(WATCHED)}
    assert {role for role, on in held if on in sources} == {"bigquery.dataViewer"}
    editor = {on for role, on in held if role == "bigquery.dataEditor"}
    assert editor == {f"dataset {tables.BACKUPS_DATASET}", f"dataset {tables.RESTORED_DATASET}"}
    # Nor may it delete a snapshot, read a payment in Spanner or the masking key.
    assert not {role for role, _ in held if role.endswith(("dataOwner", "admin", "secretAccessor"))}
    assert not [on for _, on in held if "audit-db" in on]


def test_snapshots_are_kept_as_the_stack_keeps_data_and_what_is_restored_goes_by_itself(graph: Graph) -> None:
    kept, scratch = (graph.one("Dataset", name) for name in (tables.BACKUPS_DATASET, tables.RESTORED_DATASET))
    assert kept.inputs["location"] == scratch.inputs["location"] == graph.config["warehouseLocation"]
    assert kept.inputs.get("defaultTableExpirationMs") is None
    assert scratch.inputs["defaultTableExpirationMs"] == 3 * 86_400_000
    if graph.config.get("customerManagedKeys", True):
        for dataset in (kept, scratch):
            assert "/cryptoKeys/bigquery" in dataset.inputs["defaultEncryptionConfiguration"]["kmsKeyName"]


def test_exports_are_copied_into_another_region_where_config_names_one() -> None:
    assert [n for n in graph_of("prod").of("Bucket") if n.name == "backup-copies"] == []
    graph = graph_of("prod", {"backupLocation": "europe-west4"})
    copies = graph.one("Bucket", "backup-copies")
    assert copies.inputs["location"] == "europe-west4"
    assert "/locations/europe-west4/" in copies.inputs["encryption"]["defaultKmsKeyName"]
    granted = [n.inputs for n in graph.of("BucketIAMMember") if n.inputs["bucket"] == copies.inputs["name"]]
    assert {each["member"].partition("@")[0] for each in granted} == {
        "serviceAccount:backup-sa",
        "serviceAccount:erasure-sa",
    }
    assert graph.outputs["backupCopyDirectory"] == f"gs://{graph.outputs['project']}-backup-copies"
    assert graph.outputs["backupDirectory"] == f"gs://{graph.outputs['project']}-backups"


def test_the_days_of_a_backup_reach_its_job() -> None:
    graph = graph_of("dev", {"backupRetentionDays": 21})
    assert graph.outputs["backupDays"] == "21"


@pytest.mark.parametrize("place", ["us-central1", "EU", "nowhere"])
def test_a_second_region_that_is_none_is_refused(place: str) -> None:
    config: dict[str, Any] = {"backupLocation": place, "region": "us-central1"}
    with pytest.raises(SettingsError, match="backupLocation must be"):
        graph_of("dev", config)
