"""`audit schema`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from support.cli.explained import Group
from support.cli.operated import attempt, summarise
from support.cli.output import current_connection, json_option, print_json, print_table, wants_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.operations.source_schema import Finding


@click.group(cls=Group)
def schema() -> None:
    """Compare the source database with the schema that it must have.

    \b
    Examples:
      audit schema verify
    """


@schema.command()
@click.option(
    "--ddl",
    "dump",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `gcloud spanner databases ddl describe` printed, instead of asking the database.",
)
@json_option
@click.pass_context
def verify(ctx: click.Context, dump: Path | None, as_json: bool) -> None:
    """Compares the source database with its changelog or, where others own it, with what the audit needs.

    \b
    Examples:
      audit schema verify               as the scheduled operation does it
      audit schema verify --json | jq '.findings'

    Exit codes: 0 all is there, 1 something is missing or different, 2 it could not look.
    """
    from support.operations.source_schema import verify as compare

    connection = current_connection(ctx)
    found = attempt(lambda: compare(connection, dump.read_text() if dump else None))
    wrong = [finding for finding in found if finding.wrong]
    summarise(ctx, f"{len(wrong)} to do" + "".join(f"; {each.what} {each.state}" for each in wrong))
    if wants_json(as_json):
        print_json({"database": connection.source, "findings": found})
    else:
        show(connection.source, found)
    ctx.exit(int(bool(wrong)))


def show(database: str, found: Sequence[Finding]) -> None:
    """Prints the findings for people, those to be done first."""
    print_table(("state", "what", "detail"), [(each.state, each.what, each.detail) for each in found])
    wrong = sum(each.wrong for each in found)
    click.echo(f"{database}: {f'{wrong} to do' if wrong else 'all is there'}.")
