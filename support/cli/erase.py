"""`audit erase`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from support.cli.explained import Command, Group
from support.cli.output import NothingFound, current_connection, json_option, print_json, print_table, wants_json

if TYPE_CHECKING:
    from support.connection import Connection
    from support.erasure.store import Erasure


@click.group(cls=Group)
def erase() -> None:
    """Erases a customer: redacts what is personal in BigQuery and dead letters, and whatever comes later.

    Spanner itself is not touched. Payments stay, with amounts, states and times, and without whose they were.
    """


@erase.command(cls=Command)
@click.option("--customer", required=True, help="The customer's id. It is kept until the erasure is finished.")
@click.option("--reason", required=True, help="Why, without the customer's name or id; it is kept with the erasure.")
@click.option("--id", "erasure_id", help="Id of the erasure. With one that is known, that erasure is run to its end.")
@click.option("--dry-run", is_flag=True, help="Count what would be redacted, and do nothing.")
@json_option
@click.pass_context
def start(ctx: click.Context, customer: str, reason: str, erasure_id: str | None, dry_run: bool, as_json: bool) -> None:
    """Erases a customer. It waits for what the job has read already, so it takes a minute at the least.

    \b
    Examples:
      audit erase start --customer C-1042 --reason "request DSR-4711" --dry-run
      audit erase start --customer C-1042 --reason "request DSR-4711" --id DSR-4711
    """
    from support.erasure import work
    from support.who import who

    connection = current_connection(ctx)
    if dry_run:
        found = work.Erasing(connection).find(customer)
        if wants_json(as_json):
            print_json(found)
        else:
            click.echo(f"{found.payments:,} payments")
            for name, rows in found.rows.items():
                click.echo(f"  {name}: {rows:,} rows")
        click.echo("Nothing was done.", err=True)
        if not any((found.payments, *found.rows.values())):
            raise NothingFound
        return
    submitted = work.submit(connection, customer, requested_by=who(connection), reason=reason, erasure_id=erasure_id)
    _run(connection, submitted.id, as_json)


@erase.command("list", cls=Command)
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Lists the erasures, the newest first. No customer is named."""
    from support.erasure.store import Erasures, public

    found = [public(each) for each in Erasures(current_connection(ctx)).every()]
    if wants_json(as_json):
        print_json(found)
    elif found:
        print_table(
            ["erasure", "by", "requested", "state", "payments", "finished", "reason"],
            [
                [x["id"], x["requested_by"], x["requested_at"], x["state"], x["report"].get("payments"),
                 x["finished_at"], x["reason"]]
                for x in found
            ],
            optional=["finished", "payments", "requested", "by", "reason"],
        )  # fmt: skip
    else:
        click.echo("There is none.")
    if not found:
        raise NothingFound


@erase.command(cls=Command)
@click.argument("erasure_id", metavar="ID")
@json_option
@click.pass_context
def show(ctx: click.Context, erasure_id: str, as_json: bool) -> None:
    """Shows what an erasure redacted, and what still has the customer's data, until when."""
    from support.erasure.store import Erasures

    _show(Erasures(current_connection(ctx)).one(erasure_id), as_json)


@erase.command(cls=Command)
@click.argument("erasure_id", metavar="[ID]", required=False)
@json_option
@click.pass_context
def resume(ctx: click.Context, erasure_id: str | None, as_json: bool) -> None:
    """Runs an erasure to its end that waits, was killed or failed; without an ID each such one."""
    from support.erasure.store import Erasures

    connection = current_connection(ctx)
    unfinished = [each.id for each in Erasures(connection).every() if not each.finished_at]
    for each in [erasure_id] if erasure_id else unfinished:
        _run(connection, each, as_json)


def _run(connection: Connection, erasure_id: str, as_json: bool) -> None:
    from support.erasure.work import Erasing

    click.echo(f"Erasure {erasure_id} …", err=True)
    done = Erasing(connection, lambda text: click.echo(f"{text} …", err=True)).run(erasure_id)
    _show(done, as_json)


def _show(found: Erasure, as_json: bool) -> None:
    from support.erasure.store import public

    if wants_json(as_json):
        print_json(public(found))
        return
    click.echo(f"Erasure {found.id}, by {found.requested_by}: {found.state}. Reason: {found.reason}")
    if not found.finished_at:
        return
    report = found.report
    click.echo(f"  {report['payments']:,} payments")
    for name, rows in report["rows"].items():
        click.echo(f"  {name}: {rows:,} rows redacted")
    for name in ("lookup", "access_log", "dead_letters", "replays"):
        click.echo(f"  {name.replace('_', ' ')}: {report[name]:,}")
    for name, until in report["held"].items():
        click.echo(f"  {name} of BigQuery has it until {until}")
    click.echo("  Spanner is not touched: its row, versions, change records and backups are its owners'.")
