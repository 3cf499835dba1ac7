"""`audit report`: a command for each prebuilt query, made from its file."""

from __future__ import annotations

from typing import Any

import click

from contract import queries
from support.cli.explained import Command, Group
from support.cli.output import (
    NothingFound,
    complete_line,
    current_connection,
    print_csv,
    print_json,
    print_table,
    wants_json,
)
from support.cli.types import Length, When

# Parameter → how it is given; a query may have others, which get an option by their name.
_PARAMETERS: dict[str, click.Parameter] = {
    "puid": click.Argument(["puid"]),
    "customer_id": click.Argument(["customer_id"], metavar="CUSTOMER"),
    "since": click.Option(["--since"], type=When(), default="1d", show_default=True, help="Begin of the period."),
    "until": click.Option(["--until"], type=When(), default="0s", help="End of the period.  [default: now]"),
    "limit": click.Option(["--limit"], type=int, default=50, show_default=True, help="Most rows to show."),
    "period_seconds": click.Option(
        ["--period", "period_seconds"], type=Length(), default="1h", show_default=True, help="Length of a row's period."
    ),
    "older_than_seconds": click.Option(
        ["--older-than", "older_than_seconds"], type=Length(), default="1h", show_default=True,
        help="For at least so long.",
    ),
    "statuses": click.Option(
        ["--status", "statuses"], multiple=True, required=True, help="A status; may be given several times."
    ),
}  # fmt: skip


_OF_ONE = click.Option(["--since"], type=When(), help="Begin of the period.  [default: the payment's first day]")


class _Reports(Group):
    """A command for each file in `contract/sql/bigquery/queries/`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name.replace("_", "-") for name in queries.names()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        query = name.replace("-", "_")
        return _command(query) if query in queries.names() else None


def _command(name: str) -> click.Command:
    wanted = [argument.name for argument in queries.arguments(name)]
    csv = click.Option(["--csv", "as_csv"], is_flag=True, help="CSV with a header.")
    as_json = click.Option(["--json", "as_json"], is_flag=True, help="JSON also on a terminal.")
    # A payment's changes are shown from its first day on.
    parameters = [_OF_ONE if each == "since" and "puid" in wanted else _parameter(each) for each in wanted]

    @click.pass_context
    def run(ctx: click.Context, /, as_json: bool, as_csv: bool, **given: Any) -> None:
        _run(ctx, name, as_json, as_csv, given)

    return Command(name.replace("_", "-"), params=[*parameters, csv, as_json], callback=run, help=queries.about(name))


def _parameter(name: str) -> click.Parameter:
    return _PARAMETERS.get(name) or click.Option([f"--{name.replace('_', '-')}", name], required=True, help=name)


def _run(ctx: click.Context, name: str, as_json: bool, as_csv: bool, given: dict[str, Any]) -> None:
    from support import reports
    from support.warehouse import Warehouse

    connection = current_connection(ctx)
    asked = {key: value for key, value in given.items() if value is not None}
    found = reports.run(Warehouse(connection), name, **asked)
    if as_csv:
        print_csv(found.columns, (row.values() for row in found.rows))
    elif wants_json(as_json):
        print_json(found)
    else:
        if found.rows:
            print_table(found.columns, (list(row.values()) for row in found.rows), optional=found.columns[1:])
        more = ", and there are more (--limit)" if found.more else ""
        number = len(found.rows)
        click.echo(f"{number or 'No'} row{'' if number == 1 else 's'}{more}. {complete_line(found.complete_until)}")
    if found.warning:
        click.echo(found.warning, err=True)
    if not found.rows:
        raise NothingFound


@click.group(cls=_Reports)
def report() -> None:
    """Runs a prebuilt query: failures, stuck payments, summaries, transitions.

    \b
    Examples:
      audit report failures-by-reason --since 1h
      audit report summary-by-region --since 7d --csv > regions.csv
      audit report stuck-payments --status PENDING --older-than 2h
      audit report transitions-of-payment 7d0f2c9e-…

    Each is a table function in BigQuery too: SELECT * FROM payment_views.failures_by_reason(…).
    """
