"""`audit_pipeline` on both versions of Airflow: a stack from nothing to a table that is lost, as a DAG sees it.

The streaming job is what a stand-in for Dataflow says it is (local/emulators/dataflow.py). That a job that was
launched again loses and doubles no row is tested with the real job, in tests/emulators/test_operations.py.
"""

from __future__ import annotations

import json

import pytest

from contract import operations
from support.operations.runs import LastRun, Runs
from tests.conftest import AuditDatabase
from tests.dags.conftest import full, job_of
from tests.dags.versions import Airflow, Run
from tests.emulators.test_operations import CHANGELOG, Stack, launched, place, stack  # noqa: F401 - fixtures
from tests.strict.cloud_run import CloudRunJobs


def last(kept: Stack) -> LastRun:
    [found] = [run for run in Runs(kept.connection).last() if run.operation == operations.PIPELINE.name]
    return found


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["3, 2.11", "2.11, 3"])
def test_the_job_is_launched_once_resumed_and_refused_and_a_lost_table_is_an_alert(
    order: tuple[int, int],
    airflows: tuple[Airflow, ...],
    cloud_run: tuple[CloudRunJobs, str],
    stack: Stack,  # noqa: F811
) -> None:
    kept, (first, second) = stack, (airflows[number] for number in order)
    connection = json.loads(kept.file.read_text())
    cloud_run[0].executions.clear()
    cloud_run[0].jobs = {full(operations.PIPELINE.job): job_of(operations.PIPELINE, connection)}

    def run(airflow: Airflow) -> Run:
        found = airflow.run("audit_pipeline")
        assert found.tasks == {"ensure_tables_and_job": found.state}
        return found

    # Nothing was ever there: tables are made, and the job is launched.
    made = run(first)
    assert made.state == "success", made.said
    assert len(kept.dataflow.launches) == 1 and last(kept).outcome == "done"
    assert kept.warehouse.get_table(CHANGELOG).schema
    # It runs: nothing is launched.
    assert [run(second).state, run(first).state] == ["success", "success"]
    assert len(kept.dataflow.launches) == 1
    # It failed: it is launched again.
    kept.jobs.states = dict.fromkeys(kept.jobs.states, "FAILED")
    assert run(second).state == "success"
    assert len(kept.dataflow.launches) == 2
    # Somebody has started another one: refused.
    kept.dataflow.adopt("by-hand", kept.connection.job_name, (kept.connection.project, kept.connection.region))
    kept.jobs.states["by-hand"] = "RUNNING"
    for airflow in (first, second):
        two = run(airflow)
        assert two.state == "failed" and "exactly one job of the name may run, and 2 do" in two.said
    kept.jobs.states["by-hand"] = "CANCELLED"
    # A table is gone: named, not made empty, an alert (AuditOperationFailed reads the record).
    kept.warehouse.delete_table(CHANGELOG)
    for airflow in (first, second):
        lost = run(airflow)
        assert lost.state == "failed" and CHANGELOG in lost.said and "audit backup restore" in lost.said
        assert last(kept).outcome == "failed" and CHANGELOG in last(kept).summary
    assert CHANGELOG.rpartition(".")[2] not in {t.table_id for t in kept.warehouse.list_tables("payment_audit")}
    assert len(kept.dataflow.launches) == 2


def test_the_schema_that_lacks_something_fails_its_dag_which_names_it(
    airflows: tuple[Airflow, ...],
    cloud_run: tuple[CloudRunJobs, str],
    stack: Stack,  # noqa: F811
    audit_database: AuditDatabase,
) -> None:
    kept = stack
    kept.rewrite(spannerDatabase=audit_database.name)
    cloud_run[0].executions.clear()
    cloud_run[0].jobs = {full(operations.SCHEMA.job): job_of(operations.SCHEMA, json.loads(kept.file.read_text()))}
    for airflow in airflows:
        same = airflow.run("audit_schema")
        assert same.state == "success", same.said
    audit_database.database.update_ddl(["DROP INDEX PaymentAuditTrailByStatus"]).result(60)
    for airflow in airflows:
        drifted = airflow.run("audit_schema")
        assert drifted.state == "failed" and "PaymentAuditTrailByStatus" in drifted.said
