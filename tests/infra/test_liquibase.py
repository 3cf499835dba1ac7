"""The changelog means the same to Liquibase and to Pulumi."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from components import config
from contract import schema
from delivery import schema as delivery
from delivery.schema import liquibase
from local.emulators.launch import INSTANCE, PROJECT


def _update(endpoint: str, database: str, changelog: Path) -> subprocess.CompletedProcess[str]:
    """Runs Liquibase as delivery does; without contexts, since the emulator rejects what `cloud` guards."""
    place = f"{endpoint}/projects/{PROJECT}/instances/{INSTANCE}/databases/{database}"
    url = f"jdbc:cloudspanner://{place}?autoConfigEmulator=true;lenient=true"
    command = liquibase("update", changelog, url, [])
    # It runs for seconds: what a JVM compiles best would not be used any more.
    environment = {**os.environ, "MAVEN_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)


def _made_by(statements: list[str]) -> list[str]:
    """The database's own text of its schema, without Liquibase's two tables."""
    return [statement for statement in statements if "DATABASECHANGELOG" not in statement]


@pytest.mark.parametrize("changelog", [schema.AUDIT_DB, schema.METADATA_DB], ids=["audit-db", "metadata"])
def test_liquibase_makes_the_schema_that_pulumi_makes(
    spanner_emulator: str, spanner_client: Any, changelog: Path
) -> None:
    instance = spanner_client.instance(INSTANCE)
    unique = uuid.uuid4().hex[:8]
    ours = instance.database(f"ours-{unique}", ddl_statements=schema.statements(changelog))
    theirs = instance.database(f"theirs-{unique}")
    for database in (ours, theirs):
        database.create().result(60)
    run = _update(spanner_emulator, theirs.database_id, changelog)
    assert run.returncode == 0, run.stdout + run.stderr
    for database in (ours, theirs):
        database.reload()
    assert _made_by(theirs.ddl_statements) == _made_by(ours.ddl_statements)
    with theirs.snapshot() as snapshot:
        run_ids = [row[0] for row in snapshot.execute_sql("SELECT id FROM DATABASECHANGELOG ORDER BY orderexecuted")]
    assert run_ids == [c.id for c in schema.changesets(changelog) if c.context is None]
    for database in (ours, theirs):
        database.drop()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Maven is asked to do; it does nothing, and fails where the file `fail` is beside it."""
    maven = tmp_path / "mvn"
    maven.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$(dirname "$0")/asked"; [ ! -e "$(dirname "$0")/fail" ]\n')
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "asked"


def _owned_by_liquibase(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {**config.stack_config("prod"), "schemaOwner": "liquibase", "project": "audit-prod"}
    monkeypatch.setattr(delivery, "stack_config", lambda _: values)


def test_delivery_leaves_the_schema_alone_where_pulumi_owns_it(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert delivery.run(["update", "-s", "dev"]) == 0
    assert "pulumi owns the schema" in capsys.readouterr().out
    assert not asked.exists()


@pytest.mark.parametrize(("options", "goal"), [([], "update"), (["--dry-run"], "updateSQL")])
def test_delivery_runs_the_changelog_where_liquibase_owns_it(
    options: list[str], goal: str, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _owned_by_liquibase(monkeypatch)
    assert delivery.run(["update", "-s", "prod", *options]) == 0
    words = asked.read_text().splitlines()
    place = "projects/audit-prod/instances/audit-instance/databases/audit-db"
    assert f"org.liquibase:liquibase-maven-plugin:{goal}" in words
    assert f"-Dliquibase.url=jdbc:cloudspanner:/{place}?lenient=true" in words
    assert "-Dliquibase.contexts=cloud" in words
    [pom] = [word.removeprefix("--file=") for word in words if word.startswith("--file=")]
    assert Path(pom).is_file()


def test_a_changeset_that_fails_stops_the_delivery(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _owned_by_liquibase(monkeypatch)
    asked.with_name("fail").touch()
    assert delivery.run(["update", "-s", "prod"]) == 1
    assert "fix that one if it never ran anywhere, else append another" in capsys.readouterr().err


def test_delivery_without_maven_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _owned_by_liquibase(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert delivery.run(["update", "-s", "prod"]) == 1
    assert "Maven and a JDK" in capsys.readouterr().err
