"""`audit stuck`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from support.cli.explained import Command
from support.cli.output import Form, NothingFound, age, counted, current_connection, formats, print_table, show

if TYPE_CHECKING:
    from support.overview import Stuck


@click.command(cls=Command)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Most payments to show.")
@formats
@click.pass_context
def stuck(ctx: click.Context, limit: int, form: Form) -> None:
    """Finds payments that have not changed for longer than their status allows, the longest first.

    \b
    Examples:
      audit stuck
      audit stuck --csv > stuck.csv
      audit stuck --json | jq -r '.[].puid'

    The stack's `stuckLimits` say how long a status may last; `audit search --status PENDING --until 2h` asks for any
    other time. Exit code 1: nothing is stuck.
    """
    from support import overview
    from support.warehouse import Warehouse

    found = overview.stuck(Warehouse(current_connection(ctx)), limit=limit)
    show(form, found, found, lambda: _print(found, limit))
    if not found:
        raise NothingFound


def _print(found: tuple[Stuck, ...], limit: int) -> None:
    if found:
        print_table(
            ["payment", "customer", "state", "status", "for", "limit", "service", "error"],
            map(_row, found),
            optional=["status", "customer", "state", "limit", "service", "error"],
        )
    more = ", the first ones" if len(found) == limit else ""
    click.echo(f"{counted(len(found), 'stuck payment')}{more}.")


def _row(x: Stuck) -> list[Any]:
    lengths = [age(timedelta(seconds=seconds)) for seconds in (x.seconds, x.limit_seconds)]
    return [x.puid, x.customer_id, x.state, x.status, *lengths, x.service, x.error]
