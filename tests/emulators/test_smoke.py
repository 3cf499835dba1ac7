"""The smoke test: what it looks at, and what it says when something is wrong. It writes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contract import queries, tables
from contract.operations import SCHEDULED
from delivery import smoke
from support.connection import Connection, load
from support.operations.runs import Runs
from tests.emulators.changelog import Changelog, at
from tests.shipped import WATCHED


@pytest.fixture
def connection_file(tmp_path: Path, changelog: Changelog, bigquery_emulator: Any) -> Path:
    names = ("location", "spannerEndpoint", "spannerInstance", "spannerDatabase", "metadataDatabase", "maskingKeys")
    file = tmp_path / "connection.json"
    file.write_text(
        json.dumps(
            dict.fromkeys((*names, "deadLetterDirectory"), "")
            | {"watchedTables": WATCHED.to_json()}
            | {"project": changelog.project, "bigQueryEndpoint": bigquery_emulator.rest, "jobName": "audit-stream-job"}
        )
    )
    return file


def now() -> float:
    """Seconds after the first one."""
    return (datetime.now(UTC) - at(0)).total_seconds()


def looked(capsys: pytest.CaptureFixture[str], file: Path, *args: str) -> tuple[int, dict[str, Any]]:
    code = smoke.run(["--connection", str(file), "--json", *args])
    report = json.loads(capsys.readouterr().out)
    assert (code == 0) == report["ok"]
    return code, {check["name"]: check for check in report["checks"]}


def test_a_stack_whose_position_follows_the_clock_passes(
    connection_file: Path, changelog: Changelog, capsys: pytest.CaptureFixture[str]
) -> None:
    changelog.position(now() - 2)
    code, checks = looked(capsys, connection_file)
    assert code == 0, checks
    views = {f"view {name}" for name in queries.views()}
    assert set(checks) == {"job audit-stream-job", "position", "operations"} | views
    assert checks["job audit-stream-job"]["ok"] is None and checks["operations"]["ok"] is None


def test_a_position_that_stays_behind_fails(
    connection_file: Path, changelog: Changelog, capsys: pytest.CaptureFixture[str]
) -> None:
    changelog.position(now() - 90)
    code, checks = looked(capsys, connection_file)
    assert code == 1
    assert "s behind now (at most 60)" in checks["position"]["found"]
    assert looked(capsys, connection_file, "--max-lag", "3600")[0] == 0


def test_a_job_that_never_began_fails(connection_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, checks = looked(capsys, connection_file)
    assert code == 1
    assert checks["position"]["found"] == "no job has written one for a week"


def test_a_view_that_bigquery_refuses_fails_and_is_named(
    connection_file: Path, changelog: Changelog, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changelog.position(now())
    monkeypatch.setattr(queries, "views", lambda: ("payment_current", "payment_lost"))
    code, checks = looked(capsys, connection_file)
    assert code == 1
    assert [name for name, check in checks.items() if check["ok"] is False] == ["view payment_lost"]


def test_it_waits_for_a_job_that_is_starting(
    connection_file: Path, changelog: Changelog, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delivery.smoke.time.sleep", lambda _: changelog.position(now()))
    assert looked(capsys, connection_file, "--wait", "600")[0] == 0


def test_it_writes_nothing(connection_file: Path, changelog: Changelog, capsys: pytest.CaptureFixture[str]) -> None:
    changelog.position(now())
    before = {
        table.id: changelog.query(f"SELECT COUNT(*) AS n FROM `{table.id}`") for table in tables.all_tables(WATCHED)
    }
    looked(capsys, connection_file)
    after = {
        table.id: changelog.query(f"SELECT COUNT(*) AS n FROM `{table.id}`") for table in tables.all_tables(WATCHED)
    }
    assert after == before


@pytest.mark.parametrize(
    ("states", "ok"),
    [
        (["JOB_STATE_RUNNING"], True),
        (["JOB_STATE_RUNNING", "JOB_STATE_RUNNING"], False),
        (["JOB_STATE_PENDING"], False),
        (["JOB_STATE_RUNNING", "JOB_STATE_DRAINING"], True),
        ([], False),
    ],
)
def test_in_the_cloud_exactly_one_job_of_the_name_runs(
    states: list[str], ok: bool, connection_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(connection_file.read_text()) | {"bigQueryEndpoint": ""}
    connection_file.write_text(json.dumps(content))
    monkeypatch.setattr(smoke, "_states", lambda *_: states)
    assert smoke._job(load(connection_file), "us-central1").ok is ok


@pytest.mark.parametrize(("given", "region"), [((), "europe-west4"), (("--region", "us-east4"), "us-east4")])
def test_the_job_is_looked_for_in_the_region_of_its_stack(
    given: tuple[str, ...],
    region: str,
    connection_file: Path,
    changelog: Changelog,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = json.loads(connection_file.read_text()) | {"region": "europe-west4"}
    connection_file.write_text(json.dumps(content))
    # The one place that asks Dataflow, which no emulator has.
    seen = list[str]()

    def job(_: Connection, where: str) -> smoke.Check:
        seen.append(where)
        return smoke.Check(name="job", ok=True, found="")

    monkeypatch.setattr(smoke, "_job", job)
    changelog.position(now())
    assert looked(capsys, connection_file, *given)[0] == 0
    assert seen == [region]


def test_a_connection_that_is_none_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.run(["--connection", str(tmp_path / "none.json")]) == 1
    assert "pulumi stack output --json" in capsys.readouterr().err


def test_an_operation_whose_last_run_failed_is_named_and_what_did_not_run_yet_is_no_failure(
    both_stores: Connection,
) -> None:
    connection, runs = replace(both_stores, job_name="job"), Runs(replace(both_stores, job_name="job"))
    moment = datetime.now(UTC)
    for operation, outcome in (("pipeline", "done"), ("validation", "found"), ("backup", "failed")):
        run = runs.begin(operation, "a test", moment)
        runs.end(operation, run, outcome, "what it says", moment)  # type: ignore[arg-type]
    found = {check.name.removeprefix("operation "): check for check in smoke._operations(connection)}
    assert {name: check.ok for name, check in found.items()} == {
        **dict.fromkeys((each.name for each in SCHEDULED), None),
        **{"pipeline": True, "validation": True, "backup": False},
    }
    assert "what it says. Run audit-backup again" in found["backup"].found
    assert found["schema"].found == "has not run yet"
    [unread] = smoke._operations(replace(connection, metadata_database="gone"))
    assert (unread.ok, unread.found) == (None, "their records cannot be read (NotFound)")
