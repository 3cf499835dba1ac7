"""`audit failures` and `audit summary`: prebuilt queries, each with its file in `contract/sql/bigquery/queries/`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from contract import queries
from support.cli.explained import Command
from support.cli.output import (
    Form,
    NothingFound,
    complete_line,
    counted,
    current_connection,
    formats,
    print_table,
    show,
)
from support.cli.types import Length, When

if TYPE_CHECKING:
    from support.reports import Report

_FAILURES, _SUMMARY = "failures_by_", "summary_by_"


def _by(prefix: str) -> click.Choice[str]:
    return click.Choice([name.removeprefix(prefix) for name in queries.names() if name.startswith(prefix)])


_SINCE = click.option(
    "--since", type=When(), help="Begin of the period: a UTC time, or so long ago (15m, 2h, 7d).  [default: 1d]"
)
_UNTIL = click.option("--until", type=When(), help="End of the period.  [default: now]")
_LIMIT = click.option("--limit", type=int, help="Most rows to show, where each is listed.  [default: 50]")


@click.command(cls=Command)
@click.option("--by", type=_by(_FAILURES), help="Count them, the most frequent first.")
@_SINCE
@_UNTIL
@_LIMIT
@formats
@click.pass_context
def failures(ctx: click.Context, /, by: str | None, form: Form, **given: datetime | int | None) -> None:
    """Lists the payments that failed in a period, or counts them by reason or service.

    \b
    Examples:
      audit failures --since 1h
      audit failures --by reason --since 1h
      audit failures --by service --since 2026-11-23 --until 2026-11-24 --csv > failures.csv
    """
    _run(ctx, f"{_FAILURES}{by}" if by else "failures", form, given)


@click.command(cls=Command)
@click.option("--by", type=_by(_SUMMARY), required=True, help="What a row is of.")
@_SINCE
@_UNTIL
@click.option("--period", "period_seconds", type=Length(), help="Length of a row's period.  [default: 1h]")
@_LIMIT
@formats
@click.pass_context
def summary(ctx: click.Context, /, by: str, form: Form, **given: datetime | int | None) -> None:
    """Summarises payments by period, customer, region or method: how many in which state, and their amounts.

    \b
    Examples:
      audit summary --by region --since 7d
      audit summary --by period --period 5m --since 1h
      audit summary --by customer --limit 10 --csv > customers.csv
    """
    _run(ctx, f"{_SUMMARY}{by}", form, given)


def _run(ctx: click.Context, name: str, form: Form, given: dict[str, Any]) -> None:
    from support import reports
    from support.warehouse import Warehouse

    chosen = {name: value for name, value in given.items() if value is not None}
    found = reports.run(Warehouse(current_connection(ctx)), name, **chosen)
    show(form, found, found.rows, lambda: _print(found))
    if found.warning:
        click.echo(found.warning, err=True)
    if not found.rows:
        raise NothingFound


def _print(found: Report) -> None:
    if found.rows:
        print_table(found.columns, (list(row.values()) for row in found.rows), optional=found.columns[1:])
    more = ", and there are more (--limit)" if found.more else ""
    click.echo(f"{counted(len(found.rows), 'row')}{more}. {complete_line(found.complete_until)}")
