"""Two Airflows beside the emulators, and a Cloud Run whose jobs are the stack's own commands."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from contract import operations
from local.emulators.launch import PROJECT
from support.connection import Connection
from tests.conftest import AuditDatabase
from tests.dags.versions import VERSIONS, Airflow, Run
from tests.emulators.audited import JOB, Audited
from tests.emulators.changelog import Changelog
from tests.emulators.conftest import _changelog, both_stores, changelog, connection_file, payments  # noqa: F401
from tests.strict.cloud_run import CloudRunJobs, Execution, Job
from tests.strict.google_apis import serving

DAGS = Path(__file__).parents[2] / "delivery" / "dags"
REGION = "us-central1"
STACK = operations.Stack(
    stack="local",
    project=PROJECT,
    prefix="",
    region=REGION,
    pipeline_owner="composer",
    paused=False,
    runbooks="https://example.com/runbooks",
    template_path="",
    launch={},
    tables=(),
)


def full(job: str) -> str:
    return f"projects/{PROJECT}/locations/{REGION}/jobs/{job}"


def lay_out(folder: Path, content: dict[str, Any]) -> Path:
    """The DAGs as they are in a bucket, with what Pulumi writes beside them."""
    shutil.copytree(DAGS, folder / "payment_audit")
    (folder / "payment_audit" / operations.OPERATIONS_FILE).write_text(json.dumps(content))
    return folder


def job_of(operation: operations.Operation, connection: dict[str, str]) -> Job:
    """An operation's job as Pulumi makes it: its command, its limit and its connection."""
    return Job(
        command=(sys.executable, "-m", "support.cli.main", *operation.command),
        environment={
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "AUDIT_CONNECTION_JSON": json.dumps(connection),
            "AUDIT_OPERATION": operation.name,
        },
        seconds=operation.seconds,
        retries=operation.retries,
    )


@pytest.fixture(scope="session")
def cloud_run() -> Iterator[tuple[CloudRunJobs, str]]:
    """Cloud Run's stand-in, and its address."""
    api = CloudRunJobs({})
    with serving(api) as endpoint:
        yield api, endpoint


@pytest.fixture(scope="session")
def airflows(
    tmp_path_factory: pytest.TempPathFactory, cloud_run: tuple[CloudRunJobs, str]
) -> Iterator[tuple[Airflow, ...]]:
    """Airflow 3 and 2, each one process for all DAGs."""
    folder = tmp_path_factory.mktemp("airflow")
    dags = lay_out(folder / "dags", operations.operations_file(STACK))
    with ExitStack() as stack:
        yield tuple(stack.enter_context(Airflow(version, folder / version, dags, cloud_run[1])) for version in VERSIONS)


@dataclass
class Composer:
    """A stack whose operations Composer runs."""

    audited: Audited
    airflows: tuple[Airflow, ...]
    cloud_run: CloudRunJobs
    connection: dict[str, str]

    def on_each(self, dag: str, **params: Any) -> list[Run]:
        """A run of a DAG on each version, one after the other."""
        return [airflow.run(dag, **params) for airflow in self.airflows]

    def give(self, **more: str) -> None:
        """Adds to the connection of the jobs."""
        self.connection |= more
        self.cloud_run.jobs = {full(each.job): job_of(each, self.connection) for each in operations.OPERATIONS}

    def started(self, operation: operations.Operation) -> list[Execution]:
        return self.cloud_run.started(operation.job)


@pytest.fixture
def composer(
    both_stores: Connection,  # noqa: F811
    connection_file: Path,  # noqa: F811
    changelog: Changelog,  # noqa: F811
    audit_database: AuditDatabase,
    airflows: tuple[Airflow, ...],
    cloud_run: tuple[CloudRunJobs, str],
    tmp_path: Path,
) -> Iterator[Composer]:
    """A stack with empty tables, and the jobs of its operations."""
    Path(both_stores.dead_letter_directory).mkdir()
    more = {
        "jobName": JOB,
        "newColumns": "scan",
        "backupDirectory": str(tmp_path / "backups"),
        "region": REGION,
    }
    audited = Audited(
        replace(both_stores, job_name=JOB, new_columns="scan", backup_directory=more["backupDirectory"]),
        audit_database,
        changelog,
    )
    api = cloud_run[0]
    api.executions.clear()
    made = Composer(audited, airflows, api, json.loads(connection_file.read_text()))
    made.give(**more)
    yield made
    api.await_all()
