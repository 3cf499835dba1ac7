"""Runs the schema's changesets with Liquibase, where the stack says that it owns the schema.

\b
    python -m delivery.schema -s prod
    python -m delivery.schema -s prod --dry-run       the SQL that it would run

Where Pulumi owns it there is nothing to do, and that is said. Liquibase is pinned in delivery/liquibase/pom.xml,
runs each changeset once, and refuses one that was edited after it ran.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from components import naming
from components.config import ROOT, stack_config
from contract.errors import AuditError
from contract.watched import WatchedTables
from delivery.program import exit_code
from support.cli.explained import Command

POM: Final = Path(__file__).parent / "liquibase" / "pom.xml"
_NO_CONTEXT: Final = "none"


class LiquibaseError(AuditError):
    """Liquibase did not run, or failed; the message says the remedy."""


@click.command(cls=Command, help=__doc__)
@click.option("-s", "--stack", required=True, help="dev, staging or prod.")
@click.option("--dry-run", is_flag=True, help="Print the SQL, change nothing.")
def main(stack: str, dry_run: bool) -> None:
    config = stack_config(stack)
    if config["schemaOwner"] != "liquibase":
        click.echo(f"{stack}: {config['schemaOwner']} owns the schema; Liquibase has nothing to do.")
        return
    changelog = WatchedTables.load(ROOT / config["tables"]).source_changelog
    goal = "updateSQL" if dry_run else "update"
    done = subprocess.run(liquibase(goal, changelog, database_of(config), config["schemaContexts"]), check=False)
    if done.returncode:
        raise LiquibaseError(
            f"Liquibase's {goal} failed for {stack}. Changesets before the one that it names have run and stay; fix "
            "that one if it never ran anywhere, else append another, and run this again."
        )


def database_of(config: dict[str, Any]) -> str:
    """The JDBC URL of a stack's audit database."""
    place = f"projects/{config['project']}/instances/{naming.INSTANCE}/databases/{naming.AUDIT_DATABASE}"
    return f"jdbc:cloudspanner:/{place}?lenient=true"


def liquibase(goal: str, changelog: Path, url: str, contexts: Sequence[str]) -> list[str]:
    """The command that runs Liquibase. Without contexts, only changesets without one run. Raises LiquibaseError."""
    maven = shutil.which("mvn")
    if not maven:
        raise LiquibaseError("Maven and a JDK run Liquibase: install both (apt-get install maven), and run this again.")
    return [
        maven,
        "--batch-mode",
        "--quiet",
        f"--file={POM}",
        f"org.liquibase:liquibase-maven-plugin:{goal}",
        f"-Dliquibase.url={url}",
        f"-Dliquibase.searchPath={changelog.parent}",
        f"-Dliquibase.changeLogFile={changelog.name}",
        f"-Dliquibase.contexts={','.join(contexts) or _NO_CONTEXT}",
    ]


def run(args: list[str] | None = None) -> int:
    """The program: its exit code, 0 or 1."""
    return exit_code(main, "delivery.schema", args)


if __name__ == "__main__":
    sys.exit(run())
