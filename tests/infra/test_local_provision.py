"""The program, provisioned onto the real emulators."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contract import payments, queries, schema, tables
from contract.schema import Changeset
from graph.resources import IMAGE
from local.emulators import launch as emulators
from local.emulators.launch import BigQueryEmulator
from local.provision import spanner_resources
from local.provision.engine import Provisioned, Resource, provision
from local.provision.place import LocalEndpoints, LocalMachine, ProviderError
from local.provision.provider import HANDLERS
from pipeline import clients
from tests import datasets
from tests.shipped import PAYMENT_DATASET, PAYMENT_TABLE, WATCHED

HERE_TYPES = {
    "gcp:spanner/instance:Instance",
    "gcp:spanner/database:Database",
    "gcp:bigquery/dataset:Dataset",
    "gcp:bigquery/table:Table",
    "gcp:bigquery/routine:Routine",
    "gcp:storage/bucket:Bucket",
    "gcp:secretmanager/secret:Secret",
    "gcp:bigquery/dataTransferConfig:DataTransferConfig",
    "gcp:dataflow/flexTemplateJob:FlexTemplateJob",
}


class Machine:
    """A separate project on the emulators, with a separate state folder."""

    def __init__(self, endpoints: LocalEndpoints, folder: Path, project: str) -> None:
        self.project = project
        self.folder = folder
        self.endpoints = endpoints
        self.seen: list[Resource] = []

    def provision(self, **config: Any) -> Provisioned:
        return provision(
            stack="local",
            state=self.folder,
            endpoints=self.endpoints,
            on_resource=self.seen.append,
            config={"project": self.project, **config},
        )

    @property
    def bigquery(self) -> Any:
        return clients.bigquery_client(self.endpoints.bigquery, self.project)

    def ddl(self, database: str) -> list[str]:
        client = emulators.spanner_client(self.endpoints.spanner, self.project)
        made = client.instance("audit-instance").database(database)
        made.reload()
        return list(made.ddl_statements)


@pytest.fixture(scope="session")
def endpoints(spanner_emulator: str, bigquery_emulator: BigQueryEmulator) -> LocalEndpoints:
    return LocalEndpoints(
        spanner=spanner_emulator, bigquery=bigquery_emulator.rest, bigquery_storage=bigquery_emulator.grpc
    )


@pytest.fixture
def machine(endpoints: LocalEndpoints, tmp_path: Path) -> Iterator[Machine]:
    # Always the same: each project that the emulator has ever had makes each of its queries slower.
    made = Machine(endpoints, tmp_path / "state", "audit-machine")
    yield made
    datasets.drop_all(made.bigquery)
    emulators.spanner_client(endpoints.spanner, made.project).instance("audit-instance").delete()


@pytest.fixture(scope="module")
def provisioned(endpoints: LocalEndpoints, tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Provisioned]:
    """A provisioned machine that tests only look at."""
    machine = Machine(endpoints, tmp_path_factory.mktemp("machine") / "state", "audit-provisioned")
    return machine, machine.provision()


def test_what_has_an_emulator_is_created_and_the_rest_is_only_recorded(
    provisioned: tuple[Machine, Provisioned],
) -> None:
    machine, made = provisioned
    assert tuple(machine.seen) == made.resources
    assert {r.type for r in made.resources if r.outcome == "created here"} == HERE_TYPES
    recorded = {r.type for r in made.resources if r.outcome == "recorded only"}
    assert not recorded & HERE_TYPES
    assert "gcp:spanner/databaseIAMMember:DatabaseIAMMember" in recorded


def test_provisioning_again_changes_nothing(machine: Machine) -> None:
    first = machine.provision()
    keys = (machine.folder / "masking-keys.json").read_text()
    second = machine.provision()
    handed_back = {"merge-payment-state", "fill-payment-lookup", "audit-stream-job"}
    assert {r.outcome for r in second.resources if r.name not in handed_back} == {"unchanged", "recorded only"}
    assert second.job_parameters == first.job_parameters
    assert second.outputs == first.outputs
    assert (machine.folder / "masking-keys.json").read_text() == keys


def test_the_job_gets_the_local_parameters(provisioned: tuple[Machine, Provisioned]) -> None:
    machine, made = provisioned
    folder, endpoints = machine.folder, machine.endpoints
    assert made.job_parameters == {
        "spannerProjectId": machine.project,
        "spannerInstanceId": "audit-instance",
        "spannerDatabase": "audit-db",
        "spannerMetadataInstanceId": "audit-instance",
        "spannerMetadataDatabase": "audit-metadata",
        "spannerChangeStreamNames": "PaymentAuditTrailChangeStream,AuditLogChangeStream",
        "spannerEndpoint": endpoints.spanner,
        "bigQueryProjectId": machine.project,
        "bigQueryEndpoint": endpoints.bigquery,
        "bigQueryStorageEndpoint": endpoints.bigquery_storage,
        "maskingKeys": f"file:{folder}/masking-keys.json",
        "watchedTables": WATCHED.to_json(),
        "deadLetterQueueDirectory": f"{folder}/dead-letters",
        "readMode": "windows",
        "newColumns": "scan",
        "dlqRetryMinutes": "0.5",
    }
    connection = {
        "watchedTables": WATCHED.to_json(),
        "project": machine.project,
        "location": "us-central1",
        "bigQueryEndpoint": endpoints.bigquery,
        "spannerEndpoint": endpoints.spanner,
        "spannerInstance": "audit-instance",
        "spannerDatabase": "audit-db",
        "metadataDatabase": "audit-metadata",
        "maskingKeys": f"file:{folder}/masking-keys.json",
        "deadLetterDirectory": f"{folder}/dead-letters",
        "jobName": "audit-stream-job",
        "region": "us-central1",
        "paymentStates": payments.format_states(payments.PAYMENT_STATES),
        "stuckLimits": "INITIATED=604800,RETRYING=604800,WAITING_FOR_BANK=60",
        "ignoreFields": "",
        "ignoreTables": "",
        "latencyGoal": "0.99",
        "throughputGoal": "0.999",
        "designTps": "500",
        "dashboard": made.outputs["dashboard"],
    }
    assert {name: made.outputs[name] for name in connection} == connection


def test_the_tables_are_those_of_the_contract(provisioned: tuple[Machine, Provisioned]) -> None:
    machine, _ = provisioned
    client = machine.bigquery
    for table in tables.all_tables(WATCHED):
        made = client.get_table(table.id)
        columns = [(f.name, f.field_type, f.mode, f.default_value_expression) for f in made.schema]
        wanted = [(f.name, _api_type(f.type), f.mode, f.default) for f in table.fields]
        assert columns == wanted, table.id
        partitioned_by = made.time_partitioning.field if made.time_partitioning else None
        # The emulator keeps no partitions of whole numbers: tests/infra/expected/all.yaml has them.
        assert partitioned_by == (None if table.buckets else table.partition_by), table.id
        assert tuple(made.clustering_fields or ()) == table.cluster_by


def _api_type(name: str) -> str:
    """BigQuery's API answers with the older names."""
    return {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}.get(name, name)


def test_the_databases_are_those_of_the_changelogs(
    provisioned: tuple[Machine, Provisioned], audit_database: Any
) -> None:
    machine, _ = provisioned
    for name, reference in (
        ("audit-db", audit_database.database),
        ("audit-metadata", audit_database.metadata_database),
    ):
        reference.reload()
        assert machine.ddl(name) == list(reference.ddl_statements)


def test_the_views_and_the_merge_run(provisioned: tuple[Machine, Provisioned]) -> None:
    machine, made = provisioned
    client = machine.bigquery
    assert {query.name: query.seconds for query in made.scheduled} == {
        "merge-payment-state": 300,
        "fill-payment-lookup": 300,
    }
    for query in made.scheduled:
        client.query(query.sql).result(timeout=60)
    for view in queries.views():
        client.query(f"SELECT * FROM `{tables.VIEWS_DATASET}.{view}`").result(timeout=60)
    client.query(f"SELECT * FROM `{machine.project}.{tables.VIEWS_DATASET}.payment_by_id`('x')").result(timeout=60)


def test_the_masking_key_is_32_random_bytes_that_only_its_owner_reads(provisioned: tuple[Machine, Provisioned]) -> None:
    machine, _ = provisioned
    file = machine.folder / "masking-keys.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    [(version, key)] = json.loads(file.read_text()).items()
    assert version == "v1"
    assert len(base64.b64decode(key)) == 32


def _changelog(monkeypatch: pytest.MonkeyPatch, statements: list[str]) -> None:
    """Gives audit-db another changelog."""
    real = schema.changesets

    def changed(changelog: Path = schema.AUDIT_DB) -> Iterator[Changeset]:
        if changelog != schema.AUDIT_DB:
            yield from real(changelog)
            return
        for number, statement in enumerate(statements):
            yield Changeset(author="test", id=str(number), file="test.sql", context=None, statement=statement)

    monkeypatch.setattr(schema, "changesets", changed)


def test_a_later_changeset_is_appended(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.provision()
    _changelog(monkeypatch, [*schema.statements(), "ALTER TABLE audit_logs ADD COLUMN CorrelationId STRING(36)"])
    provisioned = machine.provision()
    assert [r.name for r in provisioned.resources if r.outcome == "updated"] == ["audit-db"]
    assert any("CorrelationId" in statement for statement in machine.ddl("audit-db"))
    assert not [r for r in machine.provision().resources if r.outcome == "updated"]


@pytest.fixture
def later_column(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The product's own changelog, with one more changeset: a column that no table has yet."""
    _changelog(monkeypatch, [*schema.statements(), "ALTER TABLE payment_audit_trail ADD COLUMN Channel STRING(32)"])
    schema.tables.cache_clear()
    yield
    monkeypatch.undo()
    schema.tables.cache_clear()


def test_a_column_of_a_later_changeset_reaches_tables_views_and_merge_of_a_living_stack(
    machine: Machine, request: pytest.FixtureRequest
) -> None:
    machine.provision()
    client = machine.bigquery
    changelog, state = f"{PAYMENT_DATASET}.payment_audit_trail_bq", tables.payment_state_table(WATCHED).id
    # Meanwhile the job met a column of somebody else's.
    client.query(f"ALTER TABLE `{machine.project}.{changelog}` ADD COLUMN ByTheJob STRING").result(timeout=60)
    request.getfixturevalue("later_column")

    provisioned = machine.provision()
    widened = {changelog, state, f"{tables.VIEWS_DATASET}.{queries.PAYMENT_CURRENT}"}
    assert widened <= {r.name for r in provisioned.resources if r.outcome == "updated"}
    row = {"PUID": "p", "Channel": "web", "ByTheJob": "x", tables.MOD_TYPE: "INSERT", tables.CHANGE_ID: "1"}
    row |= {tables.COMMIT_TIMESTAMP: datetime.now(UTC).isoformat(), tables.TABLE_NAME: PAYMENT_TABLE}
    assert client.insert_rows_json(client.get_table(f"{machine.project}.{changelog}"), [row]) == []
    for view in (queries.PAYMENT_CURRENT, queries.PAYMENT_TIMELINE):
        [shown] = client.query(f"SELECT Channel FROM `{tables.VIEWS_DATASET}.{view}`").result(timeout=60)
        assert shown["Channel"] == "web"
    [merge] = [query.sql for query in provisioned.scheduled if query.name == "merge-payment-state"]
    client.query(merge).result(timeout=60)
    [merged] = client.query(f"SELECT Channel FROM `{state}`").result(timeout=60)
    assert merged["Channel"] == "web"
    assert not [r for r in machine.provision().resources if r.outcome == "updated"]


def test_a_column_added_by_hand_is_nobody_s_fault(machine: Machine) -> None:
    machine.provision()
    client = emulators.spanner_client(machine.endpoints.spanner, machine.project)
    database = client.instance("audit-instance").database("audit-db")
    database.update_ddl(["ALTER TABLE audit_logs ADD COLUMN ByHand STRING(36)"]).result(30)
    assert not [r for r in machine.provision().resources if r.outcome == "updated"]


def test_a_changed_earlier_changeset_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.provision()
    first, *rest = schema.statements()
    _changelog(monkeypatch, [first.replace("STRING(50)", "STRING(60)"), *rest])
    with pytest.raises(ProviderError, match="audit-db: an earlier statement of the changelog was changed or removed"):
        machine.provision()


def test_a_missing_column_is_added_and_an_extra_one_stays(machine: Machine) -> None:
    machine.provision()
    client = machine.bigquery
    table = tables.resume_positions(WATCHED)
    made = client.get_table(table.id)
    kept = [field for field in made.schema if field.name != "written_at"]
    client.delete_table(table.id)
    from google.cloud import bigquery

    extra = bigquery.SchemaField("by_the_job", "STRING")
    client.create_table(bigquery.Table(f"{machine.project}.{table.id}", schema=[*kept, extra]))
    provisioned = machine.provision()
    assert [r.name for r in provisioned.resources if r.outcome == "updated"] == [table.id]
    assert [f.name for f in client.get_table(table.id).schema] == [*(f.name for f in kept), "by_the_job", "written_at"]


def test_a_changed_view_is_made_again(machine: Machine) -> None:
    machine.provision()
    from google.cloud import bigquery

    name = f"{machine.project}.{tables.VIEWS_DATASET}.{queries.PAYMENT_CURRENT}"
    machine.bigquery.delete_table(name)
    old = bigquery.Table(name)
    old.view_query = "SELECT 1 AS one"
    machine.bigquery.create_table(old)
    provisioned = machine.provision()
    assert [r.name for r in provisioned.resources if r.outcome == "updated"] == ["payment_views.payment_current"]
    assert machine.bigquery.get_table(name).view_query == queries.view(
        queries.PAYMENT_CURRENT, machine.project, WATCHED
    )


def test_every_handler_takes_away_what_it_made(machine: Machine) -> None:
    inputs: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "gcp:bigquery/table:Table": [
            ("t", {"datasetId": "d", "tableId": "t", "schema": '[{"name":"a","type":"INT64"}]'})
        ],
        "gcp:bigquery/routine:Routine": [
            (
                "f",
                {
                    "datasetId": "d",
                    "routineId": "f",
                    "routineType": "TABLE_VALUED_FUNCTION",
                    "language": "SQL",
                    "definitionBody": "SELECT p_x AS x",
                    "arguments": [{"name": "p_x", "dataType": '{"typeKind": "STRING"}'}],
                },
            )
        ],
        "gcp:bigquery/dataset:Dataset": [("d", {"datasetId": "d", "location": "US"})],
        "gcp:spanner/database:Database": [("b", {"instance": "ii", "name": "b-b", "ddls": []})],
        "gcp:spanner/instance:Instance": [
            ("ii", {"name": "ii", "displayName": "ii", "config": "emulator-config", "processingUnits": 100})
        ],
        "gcp:storage/bucket:Bucket": [("b", {"name": "b"})],
        "gcp:secretmanager/secret:Secret": [("s", {"secretId": "s"})],
    }
    on = LocalMachine(machine.project, machine.folder, machine.endpoints)
    for kind, resources in reversed(inputs.items()):
        for name, given in resources:
            assert not HANDLERS[kind].read(on, name, given)
            HANDLERS[kind].create(on, name, given)
            assert HANDLERS[kind].read(on, name, given)
    for kind, resources in inputs.items():
        for name, given in resources:
            HANDLERS[kind].delete(on, name, given)
            assert not HANDLERS[kind].read(on, name, given)


def test_an_emulator_that_is_not_there_is_said_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    patience = spanner_resources._PATIENCE
    monkeypatch.setitem(patience, "retry", patience["retry"].with_timeout(1))
    nowhere = LocalEndpoints(spanner="127.0.0.1:1", bigquery=machine.endpoints.bigquery, bigquery_storage="127.0.0.1:1")
    with pytest.raises(ProviderError) as refused:
        provision(
            stack="local",
            state=machine.folder,
            endpoints=nowhere,
            on_resource=lambda _: None,
            config={"project": machine.project},
        )
    assert "gcp:spanner/instance:Instance audit-instance could not be made" in str(refused.value)
    assert "`audit local down`, then `up`" in str(refused.value)


def test_composer_s_pipeline_cannot_run_here(machine: Machine) -> None:
    with pytest.raises(ProviderError, match="pipelineOwner must be pulumi here"):
        machine.provision(pipelineOwner="scheduler", image=IMAGE)


def test_nothing_of_the_caller_s_environment_is_used(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even another emulator that the shell points to."""
    monkeypatch.setenv("SPANNER_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "somewhere-else")
    machine.provision()
    assert os.environ["SPANNER_EMULATOR_HOST"] == "127.0.0.1:1"
