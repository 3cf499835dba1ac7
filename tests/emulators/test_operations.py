"""Tables and job are kept as they must be: on real emulators, with a stand-in where Dataflow would be."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from contract import queries, schema, tables
from contract.operations import PIPELINE, SCHEMA, VALIDATION
from delivery import lock
from local.emulators.dataflow import Dataflow, serving
from local.emulators.launch import INSTANCE, PROJECT, BigQueryEmulator, spanner_client
from pipeline import clients
from support.cli.main import main
from support.connection import Connection, load
from support.operations.ensure import Ensure, Report
from support.operations.keeping import FIRST_PAUSE, MOST_LAUNCHES, STEADY
from support.operations.runs import LastRun, Runs, failed, missed
from support.operations.status import status_of
from support.operations.store import LaunchStore, MadeTables
from tests import datasets
from tests.conftest import AuditDatabase
from tests.emulators.changelog import KEYS
from tests.emulators.kept_job import Processes
from tests.shipped import PAYMENT_DATASET, WATCHED


@dataclass
class Jobs:
    """A runner whose jobs are what a test says they are; `begin`: what a job is once it was launched."""

    begin: str = "RUNNING"
    states: dict[str, str] = field(default_factory=dict)

    def start(self, job_id: str, name: str, parameters: Mapping[str, str]) -> None:
        self.states[job_id] = self.begin

    def state(self, job_id: str) -> str:
        return self.states[job_id]

    def stop(self, job_id: str, *, drain: bool) -> None:
        self.states[job_id] = "DRAINED" if drain else "CANCELLED"


@dataclass
class Stack:
    """One stack whose job a scheduler keeps: its connection, Dataflow, and the time."""

    connection: Connection
    file: Path
    jobs: Jobs
    dataflow: Dataflow
    warehouse: Any
    now: datetime

    def ensure(self, **changed: Any) -> Report:
        return Ensure(
            replace(self.connection, **changed), clock=lambda: self.now, sleep=self.passes, wait=timedelta(minutes=1)
        ).run()

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def run(self, *args: str, operation: str = "") -> Result:
        return CliRunner().invoke(
            main, ["--connection", str(self.file), *args], env={"AUDIT_OPERATION": operation} if operation else {}
        )

    def rewrite(self, **keys: str) -> None:
        """Changes the connection file."""
        self.file.write_text(json.dumps(json.loads(self.file.read_text()) | keys))
        self.connection = load(self.file)

    def last(self, operation: str) -> LastRun:
        return {run.operation: run for run in Runs(self.connection).last()}[operation]


@pytest.fixture
def launched() -> Jobs:
    return Jobs()


@dataclass(frozen=True)
class Place:
    """Datasets and a metadata database, made once: a test has its tables, and rows of its job, to itself."""

    client: Any
    rest: str
    grpc: str
    spanner: str
    metadata: str


@pytest.fixture(scope="module")
def place(bigquery_emulator: BigQueryEmulator, spanner_emulator: str) -> Iterator[Place]:
    project = "audit-tests"
    client = clients.bigquery_client(bigquery_emulator.rest, project)
    for dataset in {table.dataset for table in tables.all_tables(WATCHED)} | {tables.VIEWS_DATASET}:
        client.create_dataset(dataset)
    instance = spanner_client(spanner_emulator, project).instance(
        INSTANCE, configuration_name=f"projects/{project}/instanceConfigs/emulator-config"
    )
    instance.create().result(30)
    made = instance.database(f"metadata-{uuid4().hex[:8]}", ddl_statements=schema.statements(schema.METADATA_DB))
    made.create().result(60)
    yield Place(client, bigquery_emulator.rest, bigquery_emulator.grpc, spanner_emulator, made.database_id)
    made.drop()
    instance.delete()
    datasets.drop_all(client)


@pytest.fixture
def stack(tmp_path: Path, place: Place, launched: Jobs) -> Iterator[Stack]:
    """Datasets and views are there, and no table; nothing was ever recorded of its job."""
    client = place.client
    for table in tables.all_tables(WATCHED):
        client.delete_table(table.id, not_found_ok=True)
    _views(client)
    job = f"audit-{uuid4().hex[:8]}"
    known = {
        "project": client.project,
        "spannerProject": PROJECT,
        "location": "US",
        "region": "us-central1",
        "bigQueryEndpoint": place.rest,
        "bigQueryStorageEndpoint": place.grpc,
        "spannerEndpoint": place.spanner,
        "spannerInstance": INSTANCE,
        "spannerDatabase": "",
        "metadataDatabase": place.metadata,
        "maskingKeys": "",
        "deadLetterDirectory": str(tmp_path / "dead-letters"),
        "jobName": job,
        "watchedTables": WATCHED.to_json(),
        "schemaOwner": "pulumi",
        "sourceSchema": json.dumps(WATCHED.source_statements(frozenset())),
        "pipelineOwner": "scheduler",
        "pipelineLaunch": json.dumps(launch(job)),
    }
    file, dataflow = tmp_path / "connection.json", Dataflow(launched)
    with serving(dataflow) as url:
        file.write_text(json.dumps(known | {"dataflowEndpoint": url}))
        made = Stack(load(file), file, launched, dataflow, client, datetime.now(UTC))
        dataflow.clock = lambda: made.now
        yield made


def launch(job: str, **parameters: str) -> dict[str, Any]:
    """The body of a launch, as a stack writes it."""
    environment = {
        "serviceAccountEmail": "dataflow-sa@p.iam.gserviceaccount.com",
        "ipConfiguration": "WORKER_IP_PRIVATE",
        "additionalExperiments": ["use_runner_v2"],
        "additionalPipelineOptions": ["disk_size_gb=50"],
    }
    template = "gs://templates/audit-stream-job-1.json"
    asked = {"jobName": job, "containerSpecGcsPath": template, "parameters": parameters, "environment": environment}
    return {"launchParameter": asked}


def _views(client: Any) -> None:
    """A view and a function of each name: what they say is tested elsewhere (tests/emulators/test_views.py)."""
    from google.cloud import bigquery

    place = f"{client.project}.{tables.VIEWS_DATASET}"
    there = {view.table_id for view in client.list_tables(place)}
    for name in set(queries.views()) - there:
        view = bigquery.Table(f"{place}.{name}")
        view.view_query = "SELECT 1 AS one"
        client.create_table(view)
    there = {routine.routine_id for routine in client.list_routines(place)}
    for name in set(queries.queries(WATCHED)) - there:
        kind = {"type_": "TABLE_VALUED_FUNCTION", "language": "SQL", "body": "SELECT 1 AS one"}
        client.create_routine(bigquery.Routine(f"{place}.{name}", **kind))


CHANGELOG = f"{PAYMENT_DATASET}.payment_audit_trail_bq"


def states(report: Report) -> set[str]:
    return {table.state for table in report.tables}


def test_tables_that_were_never_there_are_made_and_the_job_is_launched_once(stack: Stack) -> None:
    first = stack.ensure()
    assert (first.outcome, states(first), first.problems) == ("launched", {"made"}, ())
    assert first.job.launched and first.job.state == "running"
    assert stack.dataflow.launches == [launch(stack.connection.job_name)]
    made = stack.warehouse.get_table(CHANGELOG)
    expected = {table.id: table for table in tables.all_tables(WATCHED)}[CHANGELOG]
    assert [column.name for column in made.schema] == [field.name for field in expected.fields]
    # A second run changes nothing.
    second = stack.ensure()
    assert (second.outcome, states(second), second.problems) == ("unchanged", {"there"}, ())
    assert len(stack.dataflow.launches) == 1


def test_a_table_that_was_there_and_is_gone_is_named_and_not_made_empty(stack: Stack) -> None:
    stack.ensure()
    stack.warehouse.delete_table(CHANGELOG)
    report = stack.ensure()
    assert report.outcome == "failed" and CHANGELOG not in tables_of(stack)
    [lost] = [table for table in report.tables if table.state == "lost"]
    assert lost.name == CHANGELOG and "audit backup restore" in lost.detail
    # Nor does a job make it: none is launched over the gap.
    stack.jobs.states = dict.fromkeys(stack.jobs.states, "FAILED")
    report = stack.ensure()
    assert (report.outcome, report.job.launched) == ("failed", None) and len(stack.dataflow.launches) == 1
    assert stack.run("pipeline", "ensure", "--wait=0", operation=PIPELINE.name).exit_code == 1
    assert stack.last(PIPELINE.name).outcome == "failed" and CHANGELOG in stack.last(PIPELINE.name).summary


def tables_of(stack: Stack) -> set[str]:
    return {f"{PAYMENT_DATASET}.{table.table_id}" for table in stack.warehouse.list_tables(PAYMENT_DATASET)}


def test_tables_of_a_stack_that_lives_already_are_recorded_at_first_sight(stack: Stack) -> None:
    stack.ensure()
    recorded = MadeTables(stack.connection)
    with recorded._database.batch() as batch:
        from google.cloud.spanner_v1 import KeySet

        keys = [[stack.connection.job_name, table.id] for table in tables.all_tables(WATCHED)]
        batch.delete("tables_made", KeySet(keys=keys))
    assert recorded.all() == frozenset() and states(stack.ensure()) == {"there"}
    assert recorded.all() == {table.id for table in tables.all_tables(WATCHED)}


def test_columns_that_differ_and_views_that_are_missing_are_named(stack: Stack) -> None:
    stack.ensure()
    table = stack.warehouse.get_table(CHANGELOG)
    stack.warehouse.delete_table(CHANGELOG)
    from google.cloud import bigquery

    columns = [c for c in table.schema if c.name != "Region"]
    columns = [bigquery.SchemaField(c.name, "STRING") if c.name == "RetryCount" else c for c in columns]
    stack.warehouse.create_table(bigquery.Table(f"{stack.warehouse.project}.{CHANGELOG}", schema=columns))
    stack.warehouse.delete_table(f"{tables.VIEWS_DATASET}.payment_current")
    report = stack.ensure()
    assert report.outcome == "failed"
    assert {found.name: found.detail for found in (*report.tables, *report.views) if found.wrong} == {
        CHANGELOG: "column Region is missing (STRING); column RetryCount is STRING, not INT64",
        f"{tables.VIEWS_DATASET}.payment_current": "`delivery.deploy up` makes it",
    }


def test_two_jobs_of_one_name_are_refused_and_said(stack: Stack) -> None:
    stack.ensure()
    stack.dataflow.adopt("by-hand", stack.connection.job_name, ("audit-tests", "us-central1"))
    stack.jobs.states["by-hand"] = "RUNNING"
    report = stack.ensure()
    assert (report.outcome, report.job.state) == ("refused", "many") and "by-hand" in report.problems[0]
    assert len(stack.dataflow.launches) == 1


def test_a_job_that_fails_again_and_again_is_launched_ever_later_and_then_no_more(stack: Stack) -> None:
    stack.jobs.begin = "FAILED"
    store = LaunchStore(stack.connection)
    assert [stack.ensure().outcome for _ in range(3)] == ["failed", "failed", "waiting"]
    stack.passes(FIRST_PAUSE.total_seconds())
    assert stack.ensure().outcome == "failed" and len(stack.dataflow.launches) == 3
    while store.launching(stack.now) < MOST_LAUNCHES:
        pass
    stack.passes(24 * 3600)
    report = stack.ensure()
    assert (report.outcome, report.job.attempts) == ("failed", MOST_LAUNCHES) and len(stack.dataflow.launches) == 3
    assert "audit pipeline resume" in report.problems[-1]
    # A person has seen to it.
    stack.jobs.begin = "RUNNING"
    assert stack.run("pipeline", "resume", "--wait=0").exit_code == 0
    assert len(stack.dataflow.launches) == 4
    assert stack.ensure().job.state == "running" and store.load().attempts == 1
    stack.passes(STEADY.total_seconds())
    stack.ensure()
    assert store.load().attempts == 0


def test_a_launch_that_google_refuses_is_said_without_its_parameters(stack: Stack) -> None:
    bad = launch(stack.connection.job_name)
    bad["launchParameter"]["unknownField"] = 1
    report = stack.ensure(pipeline_launch=json.dumps(bad))
    assert report.outcome == "failed" and "400" in report.problems[-1] and "unknownField" not in report.problems[-1]
    assert stack.dataflow.launches == []


def test_nobody_launches_while_a_deployment_replaces_the_job(stack: Stack) -> None:
    store = LaunchStore(stack.connection)
    assert store.lock("delivery.deploy up", stack.now, timedelta(minutes=5)) is not None
    assert store.lock("another", stack.now, timedelta(minutes=5)) is None
    report = stack.ensure()
    assert (report.outcome, report.problems) == ("held", ()) and stack.dataflow.launches == []
    store.unlock("another")
    assert stack.ensure().outcome == "held"
    store.unlock("delivery.deploy up")
    assert stack.ensure().outcome == "launched"


def test_a_job_that_drains_keeps_the_next_one_from_being_launched(stack: Stack) -> None:
    stack.ensure()
    [job_id] = stack.jobs.states
    stack.jobs.states[job_id] = "DRAINING"
    report = stack.ensure()
    assert (report.outcome, report.job.state) == ("unchanged", "draining") and len(stack.dataflow.launches) == 1
    stack.jobs.states[job_id] = "DRAINED"
    stack.passes(600)
    assert stack.ensure().outcome == "launched"


def test_a_drained_job_stays_ended_until_somebody_resumes_it(stack: Stack) -> None:
    stack.ensure()
    drained = stack.run("pipeline", "drain")
    assert drained.exit_code == 0, drained.output
    assert stack.ensure().outcome == "held"
    status = json.loads(stack.run("pipeline", "status", "--json").output)
    assert status["state"] == "none" and status["launches"]["drained_by"] and status["owner"] == "scheduler"
    assert stack.run("pipeline", "resume", "--wait=0").exit_code == 0
    assert len(stack.dataflow.launches) == 2


def test_where_pulumi_launches_the_job_it_is_only_reported(stack: Stack) -> None:
    report = stack.ensure(pipeline_owner="pulumi", pipeline_launch="")
    assert (report.outcome, report.job.state) == ("reported", "none") and "delivery.deploy up" in report.problems[0]
    stack.rewrite(pipelineOwner="pulumi")
    refused = stack.run("pipeline", "drain")
    assert refused.exit_code == 2 and "delivery.deploy pause" in refused.output


def test_a_job_that_a_deployment_of_pulumi_is_about_to_start_is_awaited(stack: Stack) -> None:
    def started(seconds: float) -> None:
        stack.passes(seconds)
        stack.dataflow.adopt("next", stack.connection.job_name, (stack.connection.project, stack.connection.region))
        stack.jobs.states["next"] = "RUNNING"

    ours = replace(stack.connection, pipeline_owner="pulumi", pipeline_launch="")
    report = Ensure(ours, clock=lambda: stack.now, sleep=started, wait=timedelta(minutes=1)).run()
    assert report.well and (report.job.state, stack.dataflow.launches) == ("running", [])


def test_the_schema_is_compared_and_what_is_missing_is_named(stack: Stack, audit_database: AuditDatabase) -> None:
    stack.rewrite(spannerDatabase=audit_database.name)
    whole = stack.run("schema", "verify", "--json", operation=SCHEMA.name)
    assert whole.exit_code == 0, whole.output
    assert stack.last(SCHEMA.name).outcome == "done" and stack.last(SCHEMA.name).succeeded_at
    audit_database.database.update_ddl(["ALTER TABLE audit_logs DROP COLUMN ErrorDetails"]).result(60)
    found = stack.run("schema", "verify", "--json", operation=SCHEMA.name)
    assert found.exit_code == 1
    assert json.loads(found.stdout)["findings"][0]["what"] == "column audit_logs.ErrorDetails"
    last = stack.last(SCHEMA.name)
    assert (last.outcome, last.failures) == ("failed", 1) and "ErrorDetails missing" in last.summary
    stack.rewrite(spannerDatabase="no-such-database")
    unread = stack.run("schema", "verify", operation=SCHEMA.name)
    assert unread.exit_code == 2 and stack.last(SCHEMA.name).failures == 2


def test_a_run_is_recorded_as_an_operation_and_a_persons_is_not(stack: Stack) -> None:
    Path(stack.connection.dead_letter_directory).mkdir()
    assert stack.run("dead-letters", "report").exit_code == 0
    assert Runs(stack.connection).last() == []
    assert stack.run("dead-letters", "report", operation="dead-letters").exit_code == 0
    last = stack.last("dead-letters")
    assert (last.outcome, last.summary) == ("done", "0 to retry, 0 parked") and last.started_by
    wrong = stack.run("dead-letters", "report", operation="no-such")
    assert wrong.exit_code == 2 and "dead-letters-retry" in wrong.output


def test_a_run_that_began_later_keeps_its_record(stack: Stack) -> None:
    runs, early, late = Runs(stack.connection), stack.now, stack.now + timedelta(minutes=1)
    runs.expected(early - timedelta(days=1))
    first = runs.begin(VALIDATION.name, "a", early)
    second = runs.begin(VALIDATION.name, "b", late)
    runs.end(VALIDATION.name, first, "done", "first", late)
    last = stack.last(VALIDATION.name)
    assert (last.started_by, last.outcome, last.succeeded_at) == ("b", None, late)
    runs.end(VALIDATION.name, second, "failed", "second", late)
    last = stack.last(VALIDATION.name)
    assert (last.outcome, last.summary, last.failures) == ("failed", "second", 1)
    assert last.known_since == early - timedelta(days=1)


def test_an_operation_that_never_ran_is_missed_since_it_was_first_expected(stack: Stack) -> None:
    runs, hours = Runs(stack.connection), timedelta(hours=1)
    assert set(missed(runs.expected(stack.now), stack.now, "composer").values()) == {0.0}
    later = stack.now + 5 * hours
    found = missed(runs.expected(later), later, "composer")
    assert (found[SCHEMA.name], found[PIPELINE.name]) == (5.0, 30.0)
    runs.end(SCHEMA.name, runs.begin(SCHEMA.name, "a", later), "failed", "", later)
    assert missed(runs.expected(later), later, "composer")[SCHEMA.name] == 5.0 and failed(runs.last())[SCHEMA.name]
    runs.end(SCHEMA.name, runs.begin(SCHEMA.name, "a", later), "done", "", later)
    assert missed(runs.expected(later), later, "composer")[SCHEMA.name] == 0.0 and not failed(runs.last())[SCHEMA.name]


def test_a_deployment_keeps_the_scheduler_from_launching_until_it_ends(stack: Stack) -> None:
    outputs = json.loads(stack.file.read_text())
    said: list[str] = []
    with lock.held(outputs, said.append):
        stack.now = datetime.now(UTC)
        assert stack.ensure().outcome == "held"
        with pytest.raises(lock.JobIsLaunched, match="delivery"), lock.held(outputs, said.append, patience=0):
            pass
    assert stack.ensure().outcome == "launched" and said == []


def test_a_deployment_of_a_job_that_pulumi_launches_takes_no_lock(stack: Stack) -> None:
    outputs = json.loads(stack.file.read_text())
    no_outputs: dict[str, Any] = {}
    for each in (no_outputs, outputs | {"pipelineOwner": "pulumi"}):
        with lock.held(each, pytest.fail):
            assert LaunchStore(stack.connection).load().locked_by == ""


@pytest.mark.parametrize("why", ["it is not there", "nobody is signed in"])
def test_a_metadata_database_that_cannot_be_read_keeps_no_deployment_back(
    why: str, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, said = json.loads(stack.file.read_text()), list[str]()
    if why == "it is not there":
        outputs |= {"metadataDatabase": "no-such-database"}
    else:
        # Google's, where the library finds no credentials: neither in the environment nor of gcloud nor of a machine.
        outputs |= {"spannerEndpoint": ""}
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with lock.held(outputs, said.append):
        pass
    found = {"it is not there": "NotFound", "nobody is signed in": "DefaultCredentialsError"}[why]
    assert said == [f"The launch of the job cannot be held up ({found} of the metadata database): continuing."]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.end()


def await_(condition: Callable[[], Any], what: str, seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited for: {what}"
        time.sleep(0.5)
    return found


def parameters(stack: Connection, keys: Path) -> dict[str, str]:
    """What a stack gives its job."""
    return {
        "spannerProjectId": stack.spanner_project,
        "spannerInstanceId": stack.spanner_instance,
        "spannerDatabase": stack.spanner_database,
        "spannerMetadataProjectId": stack.project,
        "spannerMetadataInstanceId": stack.spanner_instance,
        "spannerMetadataDatabase": stack.metadata_database,
        "spannerChangeStreamNames": ",".join(WATCHED.change_streams),
        "watchedTables": stack.watched_tables,
        "spannerEndpoint": stack.spanner_endpoint,
        "bigQueryProjectId": stack.project,
        "bigQueryEndpoint": stack.big_query_endpoint,
        "bigQueryStorageEndpoint": stack.big_query_storage_endpoint,
        "maskingKeys": f"file:{keys}",
        "deadLetterQueueDirectory": stack.dead_letter_directory,
    }


def test_a_job_that_fails_is_launched_again_and_resumes_with_no_row_lost_and_none_doubled(
    stack: Stack, processes: Processes, audit_database: AuditDatabase, tmp_path: Path
) -> None:
    stack.rewrite(spannerDatabase=audit_database.name)
    keys = tmp_path / "masking-keys.json"
    keys.write_text(json.dumps({version: base64.b64encode(key).decode() for version, key in KEYS.items()}))
    Path(stack.connection.dead_letter_directory).mkdir()
    committed: set[str] = set()

    def pay(*names: str) -> None:
        from google.cloud.spanner_v1 import COMMIT_TIMESTAMP

        columns = ("PUID", "Action", "Timestamp", "Status", "CreatedAt", "UpdatedAt")
        now = "2026-11-30T00:00:00Z"
        for name in names:
            with audit_database.database.batch() as batch:
                batch.insert("payment_audit_trail", columns, [(name, "PAY", now, "CAPTURED", now, COMMIT_TIMESTAMP)])
            committed.add(name)

    def arrived() -> list[str]:
        rows = stack.warehouse.query(f"SELECT PUID FROM {CHANGELOG}").result()
        return sorted(row[0] for row in rows)

    dataflow = Dataflow(processes)
    with serving(dataflow) as url:
        known = replace(
            stack.connection,
            dataflow_endpoint=url,
            pipeline_launch=json.dumps(launch(stack.connection.job_name, **parameters(stack.connection, keys))),
        )
        assert Ensure(known).run().outcome == "launched"
        [first] = processes.running
        await_(lambda: status_of(known).position, "the first job")
        pay("a", "b", "c")
        await_(lambda: arrived() == ["a", "b", "c"], "the first payments")
        pay("d", "e")
        processes.kill(first)
        pay("f", "g")
        again = Ensure(known).run()
        assert (again.outcome, again.job.attempts) == ("launched", 2)
        await_(lambda: committed <= set(arrived()), "all payments")
        status = status_of(known)
        assert (status.state, status.generation) == ("running", 2)
    assert arrived() == sorted(committed)
    [[changes]] = list(stack.warehouse.query(f"SELECT COUNT(DISTINCT {tables.CHANGE_ID}) FROM {CHANGELOG}").result())
    assert changes == len(committed)
