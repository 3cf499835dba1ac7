"""`audit erase`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from contract.errors import AuditError
from support.cli.explained import Command, Group
from support.cli.output import NothingFound, current_connection, json_option, print_json, print_table, wants_json

if TYPE_CHECKING:
    from support.connection import Connection
    from support.erasure.store import Erasure

_in_this_process = click.option(
    "--here", "in_process", is_flag=True, help="Run it in this process, also where the stack has a job for it."
)


@click.group(cls=Group)
def erase() -> None:
    """Erases a customer: redacts what is personal in BigQuery and dead letters, and in all that comes later.

    Spanner itself is not touched. Payments stay, with amounts, states and times, and without whose they were.
    """


@erase.command(cls=Command)
@click.option("--customer", required=True, help="The customer's id. It is kept until the erasure is finished.")
@click.option("--reason", required=True, help="Why, without the customer's name or id; it is kept with the erasure.")
@click.option("--id", "erasure_id", help="Id of the erasure. With one that is known, that erasure is run to its end.")
@click.option("--dry-run", is_flag=True, help="Count what would be redacted, and do nothing.")
@_in_this_process
@json_option
@click.pass_context
def start(
    ctx: click.Context,
    customer: str,
    reason: str,
    erasure_id: str | None,
    dry_run: bool,
    in_process: bool,
    as_json: bool,
) -> None:
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
        found = work.count(connection, customer)
        if wants_json(as_json):
            print_json(found)
        else:
            click.echo(f"{found.payments:,} payments")
            for name, rows in found.rows.items():
                click.echo(f"  {name}: {rows:,} rows")
            click.echo(f"  {found.bytes_read:,} bytes of BigQuery were read to know it")
        click.echo("Nothing was done.", err=True)
        if not any((found.payments, *found.rows.values())):
            raise NothingFound
        return
    submitted = work.submit(connection, customer, requested_by=who(connection), reason=reason, erasure_id=erasure_id)
    _run(connection, submitted.id, in_process, as_json)


@erase.command("list", cls=Command)
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Lists the erasures, the newest first. No customer is named."""
    from support.erasure import work
    from support.erasure.store import public

    found = [public(each) for each in work.every(current_connection(ctx))]
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
    from support.erasure import work

    _show(work.find(current_connection(ctx), erasure_id), as_json)


class ErasuresLeft(AuditError):
    """Some erasures were not run to their end; why was said for each."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{number} of the erasures could not be run. See above; run it again then.")


@erase.command(cls=Command)
@click.argument("erasure_id", metavar="[ID]", required=False)
@_in_this_process
@json_option
@click.pass_context
def resume(ctx: click.Context, erasure_id: str | None, in_process: bool, as_json: bool) -> None:
    """Runs an erasure to its end that waits, was killed or failed; without an ID each such one."""
    from support.erasure import work

    connection = current_connection(ctx)
    unfinished = [each.id for each in work.every(connection) if not each.finished_at]
    failed = 0
    for each in [erasure_id] if erasure_id else unfinished:
        try:
            _run(connection, each, in_process, as_json)
        except AuditError as error:
            if erasure_id:
                raise
            # The others do not wait for one that cannot be run.
            click.echo(f"Erasure {each}: {error}", err=True)
            failed += 1
    if failed:
        raise ErasuresLeft(failed)


def _run(connection: Connection, erasure_id: str, in_process: bool, as_json: bool) -> None:
    """Runs it, or has the stack's job run it and does not wait."""
    from support.erasure import work

    click.echo(f"Erasure {erasure_id} …", err=True)
    if in_process or not connection.erasure_job:
        found = work.run(connection, erasure_id, lambda text: click.echo(f"{text} …", err=True))
    else:
        found = work.find(connection, erasure_id)
        if not found.finished_at:
            work.start(connection, erasure_id)
            click.echo(f"It runs in the cloud. See how far it is: `audit erase show {erasure_id}`.", err=True)
    _show(found, as_json)


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
    for name in ("lookup", "access_log", "dead_letters", "replays", "backups"):
        click.echo(f"  {name.replace('_', ' ')}: {report[name]:,}")
    click.echo(f"  {report['bytes_read']:,} bytes of BigQuery were read")
    for name, until in report["held"].items():
        click.echo(f"  {name} of BigQuery has it until {until}")
    click.echo("  Spanner is not touched: its row, versions, change records and backups are its owners'.")
