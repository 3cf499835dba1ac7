"""`audit payment`."""

from __future__ import annotations

import click

from support.cli.explained import Command
from support.cli.output import Form, NothingFound, complete_line, current_connection, formats, show
from support.cli.search import print_payments
from support.cli.timeline import print_transitions


@click.command(cls=Command)
@click.argument("puid")
@formats
@click.pass_context
def payment(ctx: click.Context, puid: str, form: Form) -> None:
    """Shows what a payment is now, and its transitions from status to status. CSV has the transitions.

    \b
    Examples:
      audit payment 7d0f2c9e-…
      audit payment 7d0f2c9e-… --json | jq '.payment.error'
      audit payment 7d0f2c9e-… --csv > transitions.csv

    `audit timeline` has every change, with old and new values. Exit code 1: there is no such payment.
    """
    from support.payment import story
    from support.warehouse import Warehouse

    found = story(Warehouse(current_connection(ctx)), puid)

    def table() -> None:
        if found.payment:
            print_payments([found.payment])
            print_transitions(found.transitions)
        click.echo(f"{'' if found.payment else 'No such payment. '}{complete_line(found.complete_until)}")

    show(form, found, found.transitions, table)
    if not found.payment:
        raise NothingFound
