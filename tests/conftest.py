"""The emulators, once per test session, and fresh places in them for each test.

A test that freezes an emulator (`spanner_process`, `bigquery_emulator.process`) thaws it again before it ends.

Property tests: the same examples in every run, no time limits, nothing kept on disk.
`pytest --hypothesis-profile=explore` looks further, at other examples each time.
"""

from __future__ import annotations

import gc
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from contract import schema, tables
from local.emulators import launch as emulators
from local.emulators.launch import INSTANCE, PROJECT, BigQueryEmulator, SpannerEmulator
from local.machine.processes import Process
from pipeline import clients
from tests import datasets
from tests.shipped import WATCHED

settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", max_examples=5000, deadline=None, database=None)
settings.load_profile("house")

# Minutes each, in a test or two: what came last would be waited for alone.
LONGEST = ("test_service.py", "test_pulumi.py", "test_pulumi_stacks.py", "test_first_up.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: three run at once, each as a whole (`make test`); part of their time is waiting."""
    items.sort(key=lambda item: item.path.name not in LONGEST)

    # What the imports made stays for the whole run: Beam and Pulumi are a million objects, and each full collection
    # would look at all of them again. It was a quarter of the CPU of a graph.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@dataclass(frozen=True, kw_only=True)
class AuditDatabase:
    """A fresh audit database with its tables and change streams, and its metadata database beside it."""

    endpoint: str
    project: str
    instance: str
    name: str
    metadata: str
    client: Any
    database: Any
    metadata_database: Any


@dataclass(frozen=True, kw_only=True)
class Warehouse:
    """A BigQuery project in which nothing of another test is."""

    rest: str
    grpc: str
    project: str
    client: Any


@pytest.fixture(autouse=True)
def _services_are_strangers() -> None:
    """A service that gets the port of an earlier test's is taken for that one: its stream's mode is known already."""
    if source := sys.modules.get("pipeline.source.beam_source"):
        source._query.cache_clear()


@pytest.fixture(scope="session")
def _spanner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpannerEmulator]:
    emulator = emulators.launch_spanner(logs=tmp_path_factory.mktemp("spanner"))
    with emulator.process:
        emulators.await_spanner(emulator)
        client = emulators.spanner_client(emulator.endpoint)
        instance = client.instance(INSTANCE, configuration_name=f"projects/{PROJECT}/instanceConfigs/emulator-config")
        instance.create().result(30)
        yield emulator


@pytest.fixture(scope="session")
def spanner_emulator(_spanner: SpannerEmulator) -> str:
    """host:port of a Spanner emulator that has the instance `audit-instance` in the project `audit-local`."""
    return _spanner.endpoint


@pytest.fixture(scope="session")
def spanner_process(_spanner: SpannerEmulator) -> Process:
    return _spanner.process


@pytest.fixture(scope="session")
def spanner_client(spanner_emulator: str) -> Any:
    return emulators.spanner_client(spanner_emulator)


@pytest.fixture(scope="session")
def bigquery_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryEmulator]:
    """A BigQuery emulator: `.rest` URL, `.grpc` host:port, `.data` folder, `.process`."""
    folder = tmp_path_factory.mktemp("bigquery")
    emulator = emulators.launch_bigquery(logs=folder, data=folder / "data", arrivals=folder / "arrivals.jsonl")
    with emulator.process:
        emulators.await_bigquery(emulator)
        yield emulator


@pytest.fixture
def audit_database(spanner_emulator: str, spanner_client: Any) -> Iterator[AuditDatabase]:
    """A fresh audit database and metadata database, made from the changelogs; dropped after the test."""
    unique = uuid.uuid4().hex[:8]
    instance = spanner_client.instance(INSTANCE)
    source = instance.database(f"audit-{unique}", ddl_statements=schema.statements(schema.AUDIT_DB))
    metadata = instance.database(f"metadata-{unique}", ddl_statements=schema.statements(schema.METADATA_DB))
    for database in (source, metadata):
        database.create().result(60)
    yield AuditDatabase(
        endpoint=spanner_emulator,
        project=PROJECT,
        instance=INSTANCE,
        name=source.database_id,
        metadata=metadata.database_id,
        client=spanner_client,
        database=source,
        metadata_database=metadata,
    )
    for database in (source, metadata):
        database.drop()


@pytest.fixture
def empty_warehouse(bigquery_emulator: BigQueryEmulator) -> Iterator[Warehouse]:
    """A BigQuery project with nothing in it."""
    # Always the same: each project that the emulator has ever had makes each of its queries slower.
    project = "audit-tests"
    client = clients.bigquery_client(bigquery_emulator.rest, project)
    yield Warehouse(rest=bigquery_emulator.rest, grpc=bigquery_emulator.grpc, project=project, client=client)
    datasets.drop_all(client)


@pytest.fixture
def warehouse(empty_warehouse: Warehouse) -> Warehouse:
    """A BigQuery project with the datasets and tables of the contract."""
    from google.cloud import bigquery

    client, project = empty_warehouse.client, empty_warehouse.project
    for dataset in sorted({table.dataset for table in tables.all_tables(WATCHED)}):
        client.create_dataset(dataset)
    for table in tables.all_tables(WATCHED):
        fields = [
            bigquery.SchemaField(f.name, f.type, f.mode, description=f.description, default_value_expression=f.default)
            for f in table.fields
        ]
        made = bigquery.Table(f"{project}.{table.id}", schema=fields)
        if table.partition_by:
            made.time_partitioning = bigquery.TimePartitioning(field=table.partition_by)
        if table.cluster_by:
            made.clustering_fields = list(table.cluster_by)
        client.create_table(made)
    return empty_warehouse


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "logs"
