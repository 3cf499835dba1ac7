"""The changelog means the same to Liquibase and to Pulumi."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from components.config import ROOT
from contract import schema
from local.emulators import INSTANCE, PROJECT

POM = ROOT / "tests" / "liquibase" / "pom.xml"


def _update(endpoint: str, database: str, changelog: Path) -> subprocess.CompletedProcess[str]:
    """Runs `liquibase update`. The context is one that no changeset has: the emulator rejects what `cloud` guards."""
    maven = shutil.which("mvn")
    assert maven, "Maven and a JDK run Liquibase: install both (apt-get install maven), and run the tests again."
    place = f"{endpoint}/projects/{PROJECT}/instances/{INSTANCE}/databases/{database}"
    command = [
        maven,
        "--batch-mode",
        "--quiet",
        f"--file={POM}",
        "org.liquibase:liquibase-maven-plugin:update",
        f"-Dliquibase.url=jdbc:cloudspanner://{place}?autoConfigEmulator=true;lenient=true",
        f"-Dliquibase.searchPath={changelog.parent}",
        f"-Dliquibase.changeLogFile={changelog.name}",
        "-Dliquibase.contexts=emulator",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


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
