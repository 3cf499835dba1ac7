"""What a launch looks at first: each thing that can be wrong says the rule and the remedy; all are said at once."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.api_core.exceptions import PermissionDenied

from contract import timestamps
from pipeline.jobs import checks
from pipeline.jobs.settings import StreamSettings, parse
from tests.conftest import AuditDatabase, Warehouse
from tests.shipped import AUDIT_LOG_DATASET, PAYMENT_DATASET, WATCHED


@pytest.fixture
def options(audit_database: AuditDatabase, empty_warehouse: Warehouse, tmp_path: Path) -> dict[str, str]:
    """Options with which everything is right. The datasets are enough: the job makes its tables."""
    for dataset in (PAYMENT_DATASET, AUDIT_LOG_DATASET):
        empty_warehouse.client.create_dataset(dataset)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"v1": base64.b64encode(b"k" * 32).decode()}))
    return {
        "spannerProjectId": audit_database.project,
        "spannerInstanceId": audit_database.instance,
        "spannerDatabase": audit_database.name,
        "spannerMetadataInstanceId": audit_database.instance,
        "spannerMetadataDatabase": audit_database.metadata,
        "spannerChangeStreamNames": "PaymentAuditTrailChangeStream,AuditLogChangeStream",
        "spannerEndpoint": audit_database.endpoint,
        "maskingKeys": f"file:{keys}",
        "watchedTables": WATCHED.to_json(),
        "bigQueryProjectId": empty_warehouse.project,
        "bigQueryEndpoint": empty_warehouse.rest,
        "bigQueryStorageEndpoint": empty_warehouse.grpc,
        "deadLetterQueueDirectory": str(tmp_path),
    }


def arguments(options: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def problems(options: dict[str, str]) -> list[str]:
    settings: StreamSettings
    settings, _ = parse(arguments(options))
    return [f.problem for f in checks.run(settings) if f.problem]


def test_a_right_configuration_passes(options: dict[str, str]) -> None:
    assert problems(options | {"startTimestamp": timestamps.now()}) == []


def test_a_dry_run_prints_its_findings_and_writes_nothing(
    options: dict[str, str], empty_warehouse: Warehouse, audit_database: AuditDatabase
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.jobs.stream", *arguments(options), "--dryRun=true"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "change stream PaymentAuditTrailChangeStream" in done.stdout
    assert "failed" not in done.stdout
    assert not list(empty_warehouse.client.list_tables(f"{empty_warehouse.project}.{PAYMENT_DATASET}"))
    with audit_database.metadata_database.snapshot() as snapshot:
        assert not list(snapshot.execute_sql("SELECT JobName FROM jobs"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"spannerChangeStreamNames": "Missing"}, "change stream Missing must exist in"),
        ({"startTimestamp": "2020-01-01T00:00:00Z"}, "must lie after the creation of PaymentAuditTrailChangeStream"),
        ({"startTimestamp": "2099-01-01T00:00:00Z"}, "must not be in the future"),
        ({"bigQueryDataset": "nowhere"}, "dataset nowhere must exist"),
        ({"deadLetterQueueDirectory": "/nowhere/at/all"}, "deadLetterQueueDirectory must exist"),
        ({"maskingKeys": "file:/nowhere/keys.json"}, "masking keys cannot be read"),
        ({"spannerDatabase": "no-such-db"}, "the service answered NOT_FOUND"),
        ({"spannerMetadataDatabase": "no-such-db"}, "the service answered NOT_FOUND"),
    ],
)
def test_each_wrong_setting_says_the_rule_and_the_way_out(
    options: dict[str, str], wrong: dict[str, str], says: str
) -> None:
    found = problems(options | wrong)
    assert any(says in problem for problem in found), found


def test_a_stream_that_captures_less_is_accepted_with_a_warning(
    options: dict[str, str], audit_database: AuditDatabase
) -> None:
    audit_database.database.update_ddl(
        ["CREATE CHANGE STREAM Poor FOR audit_logs OPTIONS (value_capture_type = 'NEW_VALUES')"]
    ).result(60)
    settings = parse(arguments(options | {"spannerChangeStreamNames": "Poor"}))[0]
    findings = checks.run(settings)
    assert not [f.problem for f in findings if f.problem]
    [warning] = [f.warning for f in findings if f.warning]
    assert warning.startswith("change stream Poor captures NEW_VALUES")


@pytest.mark.parametrize("watches", ["audit_logs", "ALL", "audit_logs(Action)"])
def test_a_table_that_two_streams_of_the_job_watch_is_refused(
    options: dict[str, str], audit_database: AuditDatabase, watches: str
) -> None:
    audit_database.database.update_ddl(
        [f"CREATE CHANGE STREAM Second FOR {watches} OPTIONS (value_capture_type = 'NEW_ROW_AND_OLD_VALUES')"]
    ).result(60)
    [problem] = problems(options | {"spannerChangeStreamNames": "AuditLogChangeStream,Second"})
    assert "audit_logs by AuditLogChangeStream and Second" in problem


def test_a_metadata_database_without_its_tables_is_refused(
    options: dict[str, str], audit_database: AuditDatabase
) -> None:
    [problem] = problems(options | {"spannerMetadataDatabase": audit_database.name})
    assert "must have the tables erased, jobs, write_streams" in problem


def test_a_metadata_database_of_an_earlier_release_is_refused(
    options: dict[str, str], audit_database: AuditDatabase
) -> None:
    audit_database.metadata_database.update_ddl(["ALTER TABLE jobs DROP COLUMN RunId"]).result(60)
    [problem] = problems(options)
    assert "must have the columns RunId. Run `pulumi up`" in problem


def test_a_metadata_database_that_the_job_may_not_write_to_is_refused(
    options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator knows no permissions: what Spanner answers a reader's transaction with is used instead."""

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionDenied("spanner.databases.write")

    monkeypatch.setattr("google.cloud.spanner_v1.database.Database.run_in_transaction", forbidden)
    [problem] = problems(options)
    assert problem.startswith("metadata database: the service answered PERMISSION_DENIED")


def test_all_problems_are_said_at_once(options: dict[str, str]) -> None:
    assert len(problems(options | {"spannerChangeStreamNames": "Missing", "bigQueryDataset": "nowhere"})) == 2


def test_a_launch_with_a_problem_ends_with_the_message_and_exit_code_1(options: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.jobs.stream", *arguments(options | {"spannerChangeStreamNames": "Missing"})],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "change stream Missing must exist" in done.stderr
    assert "Traceback" not in done.stderr
    # After any first message, our handler, which masks, is there before anybody else can make one.
    assert all(line.startswith('{"severity"') for line in done.stderr.splitlines() if line)


def test_a_column_that_somebody_changed_keeps_the_first_job_from_starting_and_no_later_one(
    options: dict[str, str], audit_database: AuditDatabase
) -> None:
    audit_database.database.update_ddl(
        [
            "ALTER TABLE payment_audit_trail DROP COLUMN RetryCount",
            "ALTER TABLE payment_audit_trail ADD COLUMN RetryCount STRING(20)",
        ]
    ).result(60)
    [problem] = problems(options)
    assert "payment_audit_trail.RetryCount must be of type INT64 to mean 'retries', is STRING(20)" in problem
    settings, _ = parse(arguments(options))
    generations = settings.sink.generations()
    generation = generations.take_over(generations.new_run(), timestamps.now()).generation
    generations.advance(generation, timestamps.now())
    findings = checks.run(settings)
    assert [f.problem for f in findings if f.problem] == []
    assert [f.warning for f in findings if f.warning] == [problem]
