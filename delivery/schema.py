"""The source database's schema: what Liquibase runs, and what is there.

\b
    python -m delivery.schema update -s prod              Liquibase runs the changesets, where it owns the schema
    python -m delivery.schema update -s prod --dry-run    the SQL that it would run
    python -m delivery.schema verify -s prod              the database against what it must have; drift is named
    python -m delivery.schema draft payments.ddl --payments TABLE    a first description of its tables
    python -m delivery.schema fetch -s prod               the DDL of a database that others own, into its file
    python -m delivery.schema owners -s prod              what its owners are to run

Nothing here changes a database that others own. Exit codes of verify: 0 all is there, 1 something is missing or
different, 2 the database could not be read. What is there in addition is named, and is 0.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from components import naming
from components.config import ROOT, stack_config
from contract import attached, schema
from contract.attached import EXISTING
from contract.errors import AuditError
from contract.watched import WatchedTables
from delivery.draft import draft
from delivery.program import exit_code
from support.cli.explained import Group
from support.cli.output import json_option, print_json, wants_json
from support.cli.schema import show
from support.operations.source_schema import Finding, SchemaUnread, compared, live

POM: Final = Path(__file__).parent / "liquibase" / "pom.xml"
_NO_CONTEXT: Final = "none"
_CLOUD: Final = "cloud"


class LiquibaseError(AuditError):
    """Liquibase did not run, or failed; the message says the remedy."""


class SchemaUnknown(AuditError):
    """The stack's files do not say which DDL its database has; the message says the remedy."""


@click.group(cls=Group, help=__doc__)
def main() -> None:
    pass


_stack = click.option("-s", "--stack", required=True, help="dev, staging or prod.")
_ddl = click.option(
    "--ddl",
    "dump",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `gcloud spanner databases ddl describe` printed, instead of asking the database.",
)


@main.command()
@_stack
@click.option("--dry-run", is_flag=True, help="Print the SQL, change nothing.")
def update(stack: str, dry_run: bool) -> None:
    """Runs the changesets with Liquibase, where the stack says that it owns the schema; else says who does.

    Liquibase is pinned in delivery/liquibase/pom.xml, runs each changeset once, and refuses one that was edited after
    it ran.
    """
    config = stack_config(stack)
    if config["schemaOwner"] != "liquibase":
        click.echo(f"{stack}: {config['schemaOwner']} owns the schema; Liquibase has nothing to do.")
        return
    changelog = _watched(config).source_changelog
    goal = "updateSQL" if dry_run else "update"
    command = liquibase(
        goal, changelog, f"jdbc:cloudspanner:/{place_of(config)}?lenient=true", config["schemaContexts"]
    )
    if subprocess.run(command, check=False).returncode:
        raise LiquibaseError(
            f"Liquibase's {goal} failed for {stack}. Changesets before the one that it names have run and stay; fix "
            "that one if it never ran anywhere, else append another, and run this again."
        )


@main.command()
@_stack
@_ddl
@json_option
def verify(stack: str, dump: Path | None, as_json: bool) -> int:
    """Compares the database with what it must have: its changelog or, where others own it, what the audit needs.

    \b
    Examples:
      python -m delivery.schema verify -s prod
      python -m delivery.schema verify -s prod --ddl described.ddl --json
    """
    config = stack_config(stack)
    try:
        there = _catalog(config, dump)
    except SchemaUnread as error:
        click.echo(str(error), err=True)
        return 2
    found = _compared(config, there)
    wrong = any(finding.wrong for finding in found)
    if wants_json(as_json):
        print_json({"stack": stack, "database": place_of(config), "findings": found})
    else:
        show(place_of(config), found)
        if wrong and config["schemaOwner"] == EXISTING:
            click.echo(f"For its owners: python -m delivery.schema owners -s {stack}")
    return int(wrong)


@main.command()
@_stack
def fetch(stack: str) -> None:
    """Writes the DDL of a database that others own into the file that the description of its tables names.

    It has names and types, and no data. Commit it: BigQuery's tables are made for these columns.
    """
    config = stack_config(stack)
    _only_existing(stack, config)
    file = _dump_file(config)
    statements = _live(config)
    file.write_text("".join(f"{statement};\n" for statement in statements))
    click.echo(f"{file.relative_to(ROOT)}: {len(statements)} statements of {place_of(config)}.")


@main.command("draft")
@click.argument("ddl", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--payments", required=True, metavar="TABLE", help="The table whose rows are the payments.")
@click.option("--events", multiple=True, metavar="TABLE", help="A table of what else happened to them; again for each.")
@click.option("--stream", default="payment_changes", show_default=True, help="The change stream, there or to be made.")
@click.option("--dataset", default="payment_audit", show_default=True, help="BigQuery's dataset for the changelogs.")
def draft_tables(ddl: Path, payments: str, events: tuple[str, ...], stream: str, dataset: str) -> None:
    """Prints a first description of the tables, by the names and types of their columns. Read and correct it.

    \b
    Examples:
      python -m delivery.schema draft payments.ddl --payments payments > tables.toml
      python -m delivery.schema draft bank.ddl --payments ledger --events ledger_steps --stream ledger_changes
    """
    tables = _described(ddl).tables()
    click.echo(draft(tables, payments, events, ddl=ddl.name, stream=stream, dataset=dataset), nl=False)


@main.command()
@_stack
@_ddl
@click.option("--statements", is_flag=True, help="The DDL alone, for a tool of theirs.")
def owners(stack: str, dump: Path | None, statements: bool) -> None:
    """Prints what the owners of the database are to run: the DDL that it lacks, and grants. They decide, and run it.

    \b
    Examples:
      python -m delivery.schema owners -s prod > for-the-owners.sh
      python -m delivery.schema owners -s prod --statements
    """
    config = stack_config(stack)
    _only_existing(stack, config)
    # From the file that was fetched: nobody but the owners need be able to ask the database.
    there = _described(dump or _watched(config).source_changelog)
    found, _ = attached.compare(_watched(config), there, roles=_CLOUD in config["schemaContexts"])
    if statements:
        click.echo("".join(f"{each.need.statement};\n" for each in found if each.state == "missing"), nl=False)
        return
    click.echo("\n".join(script(stack, config, [each for each in found if each.state != "there"])))


def script(stack: str, config: dict[str, Any], lacking: Sequence[attached.Found]) -> Iterator[str]:
    """A shell script for the owners of the database."""
    project, instance, database = _names(config)
    names = naming.Names.of_config(config)
    where = f"--project={project} --instance={instance}"
    yield "#!/bin/sh"
    yield f"# What the payment audit ({config['project']}, stack {stack}) needs of {place_of(config)}."
    yield "# Read it, and run it as an owner of the database. It adds; it changes and deletes nothing that is there."
    yield "set -eu"
    if lacking:
        yield ""
        for each in lacking:
            yield f"# {each.need.statement.partition('(')[0].strip()}: {each.need.why}."
            for short in each.short:
                if short.state == "different":
                    yield f"#   NOT AS IT IS: {short.what}: {short.detail}. Name another in the tables file instead."
        ddl = ";\n".join(each.need.statement for each in lacking if each.state == "missing")
        if ddl:
            yield f"gcloud spanner databases ddl update {database} {where} --ddl={shlex.quote(ddl)}"
    yield ""
    yield "# Each account acts as its role, and as nothing else."
    for account, role in (
        ("dataflow-sa", schema.READER_ROLE),
        ("probe-sa", schema.PROBE_ROLE),
        ("validation-sa", schema.VALIDATION_ROLE),
    ):
        member = f"--member=serviceAccount:{names.account(account)}"
        grant = f"gcloud spanner databases add-iam-policy-binding {database} {where} {member}"
        yield f"{grant} --role=roles/spanner.fineGrainedAccessUser --condition=None"
        condition = shlex.quote(f"title={role},expression={naming.database_role(role)}")
        yield f"{grant} --role=roles/spanner.databaseRoleUser --condition={condition}"
    yield "# The DDL is compared every hour. None of Google's roles reads it without the rows."
    role, title = naming.DDL_READER, shlex.quote("Payment audit: reads a database's DDL")
    yield (
        f"gcloud iam roles describe {role} --project={project} > /dev/null 2>&1 || gcloud iam roles create {role} "
        f"--project={project} --title={title} --permissions=spanner.databases.getDdl --stage=GA"
    )
    member = f"--member=serviceAccount:{names.account('schema-sa')}"
    yield (
        f"gcloud spanner databases add-iam-policy-binding {database} {where} {member} "
        f"--role={naming.role(role, project)} --condition=None"
    )
    if config["replayDataBoost"]:
        yield "# replayDataBoost: Google's role for Data Boost reads all of the database."
        member = f"--member=serviceAccount:{names.account('validation-sa')}"
        yield (
            f"gcloud spanner databases add-iam-policy-binding {database} {where} {member} "
            "--role=roles/spanner.databaseReaderWithDataBoost --condition=None"
        )


# ---------------------------------------------------------------------- the comparison


def _compared(config: dict[str, Any], there: schema.Catalog) -> list[Finding]:
    watched, contexts = _watched(config), frozenset(config["schemaContexts"])
    others = config["schemaOwner"] == EXISTING
    statements = [] if others else schema.statements(watched.source_changelog, contexts=contexts)
    return compared(watched, statements, there, others=others, roles=_CLOUD in contexts)


def _catalog(config: dict[str, Any], dump: Path | None) -> schema.Catalog:
    """What the database has: all that is understood of its DDL."""
    return _described(dump) if dump else schema.read(_live(config))


def _described(dump: Path) -> schema.Catalog:
    return schema.read(schema.split(dump.read_text()))


def _live(config: dict[str, Any]) -> list[str]:
    """The statements of the database's DDL, as Spanner has them now. Raises SchemaUnread."""
    return live(config["spannerEndpoint"] or os.environ.get("SPANNER_EMULATOR_HOST", ""), *_names(config))


# ---------------------------------------------------------------------- the stack


def _watched(config: dict[str, Any]) -> WatchedTables:
    return WatchedTables.load(ROOT / config["tables"], config["spannerDialect"]).with_prefix(config["prefix"])


def _dump_file(config: dict[str, Any]) -> Path:
    """The file of the DDL, which may be yet to be written."""
    import tomllib

    description = ROOT / config["tables"]
    named = tomllib.loads(description.read_text()).get("ddl")
    if not isinstance(named, str) or not named.endswith(schema.DUMP):
        raise SchemaUnknown(f'{config["tables"]} must say `ddl = "NAME{schema.DUMP}"`, got {named!r}. Add the line.')
    return Path(description.parent / named)


def _only_existing(stack: str, config: dict[str, Any]) -> None:
    if config["schemaOwner"] != EXISTING:
        raise SchemaUnknown(
            f"schemaOwner of {stack} must be existing for this, got {config['schemaOwner']!r}: the stack makes its "
            "database itself. See docs/existing-database.md."
        )


def _names(config: dict[str, Any]) -> tuple[str, str, str]:
    """Project, instance and database."""
    names = naming.Names.of_config(config)
    return (
        config["spannerProject"] or config["project"],
        config["spannerInstance"] or names.of(naming.INSTANCE),
        config["spannerDatabase"] or names.of(naming.AUDIT_DATABASE),
    )


def place_of(config: dict[str, Any]) -> str:
    """The full name of a stack's source database."""
    project, instance, database = _names(config)
    return f"projects/{project}/instances/{instance}/databases/{database}"


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
    """The program: its exit code."""
    return exit_code(main, "delivery.schema", args)


if __name__ == "__main__":
    sys.exit(run())
