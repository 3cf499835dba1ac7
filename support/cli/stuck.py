"""`audit stuck`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from support.cli.explained import Command
from support.cli.output import Form, NothingFound, age, counted, current_connection, formats, print_table, show

if TYPE_CHECKING:
    from support.stuck import Look


@click.command(cls=Command)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Most payments to show.")
@formats
@click.pass_context
def stuck(ctx: click.Context, limit: int, form: Form) -> None:
    """Finds payments that have not changed for longer than their status allows, as the probe last saw them in Spanner.

    \b
    Examples:
      audit stuck
      audit stuck --csv > stuck.csv
      audit stuck --json | jq -r '.payments[].puid'

    The stack's `stuckLimits` say how long a status may last; `audit search --status PENDING --until 2h` asks for any
    other time. Exit code 1: nothing is stuck.
    """
    from support.stuck import stuck as look
    from support.warehouse import Warehouse

    found = look(Warehouse(current_connection(ctx)), limit=limit)
    show(form, found, found.payments, lambda: _print(found, limit))
    if found.warning:
        click.echo(found.warning, err=True)
    if not found.payments:
        raise NothingFound


def _print(found: Look, limit: int) -> None:
    if found.payments:
        print_table(
            ["payment", "status", "since", "for", "limit"],
            [
                (x.puid, x.status, x.since, *(age(timedelta(seconds=n)) for n in (x.seconds, x.limit_seconds)))
                for x in found.payments
            ],
            optional=["status", "for", "limit", "since"],
        )
    more = ", the first ones" if len(found.payments) == limit else ""
    click.echo(f"{counted(len(found.payments), 'stuck payment')}{more}.")
