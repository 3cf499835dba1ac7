"""Every DAG on Airflow 3 and 2.11, by `dag.test()`: each starts the stack's own command, on real emulators.

Cloud Run and Cloud Logging are stand-ins (tests/strict/cloud_run.py): they run a job's command as a process.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from contract import operations, tables
from support.starter import Jobs
from tests.dags.conftest import DAGS, STACK, Composer, full, lay_out
from tests.dags.versions import Airflow
from tests.emulators.changelog import CARD
from tests.shipped import PAYMENT_TABLE, WATCHED
from tests.strict.cloud_run import CloudRunJobs, Job

ROOT = Path(__file__).parents[2]
# Each DAG, and the operation of its schedule.
SCHEDULES = {
    "audit_pipeline": operations.PIPELINE,
    "audit_validation": operations.VALIDATION,
    "audit_backup": operations.BACKUP,
    "audit_backup_drill": operations.BACKUP_DRILL,
    "audit_dead_letters": operations.DEAD_LETTERS,
    "audit_erasure": operations.ERASURE,
    "audit_schema": operations.SCHEMA,
}


# What both forms run in one test; the others differ by their command alone.
DAGS_OF = {operations.VALIDATION: "audit_validation", operations.ERASURE: "audit_erasure"}


def test_both_versions_read_the_same_dags_from_the_same_source(airflows: tuple[Airflow, ...]) -> None:
    three, two = (airflow.ready for airflow in airflows)
    assert three["errors"] == two["errors"] == {}
    assert three["dags"] == two["dags"]
    assert set(three["dags"]) == set(SCHEDULES)
    for name, dag in three["dags"].items():
        operation = SCHEDULES[name]
        assert (dag["schedule"], dag["catchup"], dag["max_active_runs"]) == (
            operations.cron_of(operation, STACK.pipeline_owner),
            False,
            1,
        )
        assert all(task["retries"] == 0 for task in dag["tasks"].values())
        limits = [task["timeout"] for task in dag["tasks"].values() if task["timeout"]]
        assert limits and min(limits) > operation.seconds * (1 + operation.retries)
        for page in re.findall(r"\]\(https://example.com/runbooks/(\S+?)\)", dag["doc"]):
            assert (ROOT / "runbooks" / page).exists() or page == "AuditOperationFailed.md", page


def test_every_operation_that_has_a_schedule_is_that_of_a_dag() -> None:
    assert {each.name for each in SCHEDULES.values()} == {each.name for each in operations.SCHEDULED}


def test_dags_are_short_and_import_nothing_but_airflow_and_each_other() -> None:
    for file in DAGS.glob("*.py"):
        text = file.read_text()
        for module in re.findall(r"^\s*(?:from|import) ([\w.]+)", text, re.M):
            root = module.partition(".")[0]
            assert root in {"airflow", "payment_audit", "google", *sys.stdlib_module_names}, (file.name, module)
        assert file.name == "operations.py" or len(text.splitlines()) <= 60, file.name


def test_a_mismatch_fails_the_dag_which_names_the_rows_and_a_repair_on_request_makes_it_pass(
    composer: Composer,
) -> None:
    audited = composer.audited
    audited.payment("fine")
    audited.payment("lost", ErrorDetails=f"pan {CARD}")
    audited.carry(but=("lost",))
    for run in composer.on_each("audit_validation"):
        assert (run.state, run.tasks) == ("failed", {"compare_rows": "failed"})
        assert "audit-validation failed, execution audit-validation-" in run.said
        assert '"key": "lost"' in run.said and '"key": "fine"' not in run.said
        assert CARD not in run.said
    three, two = composer.airflows
    assert three.run("audit_validation", repair=True).state == "success"
    audited.retry()
    # What was replayed is newer than the moment that was compared: the position moves past it.
    audited.carry(but=("lost",))
    run = two.run("audit_validation")
    assert (run.state, run.tasks) == ("success", {"compare_rows": "success"}), run.said
    assert [len(composer.started(each)) for each in (operations.VALIDATION, operations.REPAIR)] == [3, 1]


def test_the_form_with_cloud_scheduler_and_that_with_composer_do_the_same_to_the_same_stack(
    composer: Composer, cloud_run: tuple[CloudRunJobs, str]
) -> None:
    """Cloud Scheduler's starter starts a job, a DAG starts it by Google's operator."""
    starter = Jobs(jobs={each.name: full(each.job) for each in DAGS_OF}, endpoint=cloud_run[1])
    audited = composer.audited
    audited.payment("lost")
    audited.carry(but=("lost",))
    for operation, dag in DAGS_OF.items():
        assert starter.start(operation.name)["started"] is True
        composer.cloud_run.await_all()
        runs = composer.on_each(dag)
        assert len(composer.started(operation)) == 3, [run.said[-3000:] for run in runs]
        by_scheduler, *by_composer = (
            (each.code, each.retried, [_undated(line) for line in each.lines if '"key":' in line])
            for each in composer.started(operation)
        )
        assert by_composer == [by_scheduler] * 2, operation.name
        assert by_scheduler[0] == (1 if operation is operations.VALIDATION else 0)
        assert bool(by_scheduler[2]) == (operation is operations.VALIDATION)


def _undated(line: str) -> str:
    """What a command printed, without numbers, which differ between two runs."""
    return re.sub(r"[\d.,:]+", "#", line)


def test_a_drill_passes_and_fails_when_a_snapshot_was_tampered_with(composer: Composer) -> None:
    from google.cloud import bigquery

    from support.backup.store import Backups

    audited = composer.audited
    audited.payment("kept")
    audited.payment("bad")
    audited.carry()
    assert [run.state for run in composer.on_each("audit_backup")] == ["success", "success"]
    # The same day is the same backup.
    [backup] = Backups(audited.connection).all()
    assert [run.state for run in composer.on_each("audit_backup_drill")] == ["success", "success"]
    client, snapshot = audited.changelog.client, backup.table(tables.changelogs(WATCHED)[PAYMENT_TABLE].id).snapshot
    other = f"{tables.RESTORED_DATASET}.other"
    client.copy_table(snapshot, other, job_config=bigquery.CopyJobConfig(operation_type="RESTORE")).result()
    audited.sql(f"DELETE FROM `{audited.changelog.project}.{other}` WHERE PUID = 'bad'")
    client.delete_table(snapshot)
    client.copy_table(other, snapshot, job_config=bigquery.CopyJobConfig(operation_type="SNAPSHOT")).result()
    client.delete_table(other)
    for run in composer.on_each("audit_backup_drill"):
        assert (run.state, run.tasks) == ("failed", {"restore_and_compare": "failed"})
        assert '"passed": false' in run.said and " removed" in run.said
    for dataset in (tables.BACKUPS_DATASET, tables.RESTORED_DATASET):
        for table in client.list_tables(dataset):
            client.delete_table(table)


def test_erasures_that_did_not_end_are_ended(composer: Composer) -> None:
    assert [run.state for run in composer.on_each("audit_erasure")] == ["success", "success"]
    assert len(composer.started(operations.ERASURE)) == 2


# ---------------------------------------------------------------------- the operator, with jobs of a line


@pytest.fixture
def scripts(cloud_run: tuple[CloudRunJobs, str]) -> CloudRunJobs:
    """Jobs whose command says what it is."""
    api = cloud_run[0]
    api.executions.clear()
    api.jobs = {full(each.job): Job(command=("sh", "-c", f"echo {each.name} did it")) for each in operations.OPERATIONS}
    return api


def test_what_an_operation_did_is_in_the_log_of_its_task(scripts: CloudRunJobs, airflows: tuple[Airflow, ...]) -> None:
    for airflow in airflows:
        run = airflow.run("audit_pipeline")
        assert (run.state, "pipeline did it" in run.said) == ("success", True)
    assert [each.job for each in scripts.executions] == [full("audit-pipeline")] * 2


def test_a_param_chooses_the_job_and_no_other_is_started(scripts: CloudRunJobs, airflows: tuple[Airflow, ...]) -> None:
    for airflow in airflows:
        assert airflow.run("audit_dead_letters").state == "success"
        assert airflow.run("audit_dead_letters", retry=True).state == "success"
    assert [each.job for each in scripts.executions] == [
        full("audit-dead-letters"),
        full("audit-dead-letters-retry"),
    ] * 2


def test_a_job_that_does_not_exist_or_was_cancelled_fails_the_dag(
    scripts: CloudRunJobs, airflows: tuple[Airflow, ...]
) -> None:
    del scripts.jobs[full("audit-pipeline")]
    scripts.jobs[full("audit-validation")] = Job(command=("sh", "-c", "kill -9 $$"), cancelled=True)
    for airflow in airflows:
        missing = airflow.run("audit_pipeline")
        assert (missing.state, "'audit-pipeline' of kind 'JOB' was not found" in missing.said) == ("failed", True)
        cancelled = airflow.run("audit_validation")
        # Google's operator notices it in one version, ours in the other.
        said = re.search(r"cancelled(_count=| )1\b", cancelled.said)
        assert (cancelled.state, bool(said)) == ("failed", True), cancelled.said[-2000:]


def test_an_update_of_the_schema_needs_who_approved_it_and_a_job(
    scripts: CloudRunJobs, airflows: tuple[Airflow, ...]
) -> None:
    for airflow in airflows:
        assert airflow.run("audit_schema").tasks == {"approve_update": "skipped", "compare_schema": "success"}
        for params, why in (
            ({}, "approved_by must name"),
            ({"approved_by": "ann"}, "python -m delivery.schema update"),
        ):
            run = airflow.run("audit_schema", update=True, **params)
            assert (run.state, run.tasks["compare_schema"], why in run.said) == ("failed", "upstream_failed", True)
    assert len(scripts.executions) == 2


@pytest.mark.parametrize("number", [0, 1])
def test_a_stack_that_has_a_job_for_updates_and_is_paused(
    scripts: CloudRunJobs,
    airflows: tuple[Airflow, ...],
    cloud_run: tuple[CloudRunJobs, str],
    tmp_path: Path,
    number: int,
) -> None:
    content: dict[str, Any] = operations.operations_file(dataclasses.replace(STACK, paused=True))
    content["operations"]["schema-update"] = {**content["operations"]["schema"], "job": "audit-schema-update"}
    scripts.jobs[full("audit-schema-update")] = Job(command=("true",))
    version = airflows[number].version
    with Airflow(version, tmp_path / "home", lay_out(tmp_path / "dags", content), cloud_run[1]) as airflow:
        assert {dag["schedule"] for dag in airflow.ready["dags"].values()} == {None}
        run = airflow.run("audit_schema", update=True, approved_by="ann")
    assert run.tasks == {"approve_update": "success", "update_schema": "success", "compare_schema": "success"}
    assert [each.job for each in scripts.executions] == [full("audit-schema-update"), full("audit-schema")]
