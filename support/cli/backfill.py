"""`audit backfill`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from contract.errors import AuditError
from support.cli.explained import Command, Group
from support.cli.output import Form, NothingFound, current_connection, formats, print_table, show
from support.cli.replay import in_this_process, progress_of

if TYPE_CHECKING:
    from support.backfill import Estimate
    from support.connection import Connection
    from support.replay import Replay


@click.group(cls=Group)
def backfill() -> None:
    """Writes the rows to BigQuery that are older than the change streams: as they are at one moment, masked.

    From that moment the stream continues. A row that came by the stream is left out. Who asked, and why, is kept.

    \b
    Examples:
      audit backfill start --dry-run
      audit backfill start --reason "the audit begins today"
      audit backfill list
    """


class BackfillIncomplete(AuditError):
    """It has ended, and not all of its rows are done."""

    def __init__(self, found: Replay) -> None:
        super().__init__(f"{found.id} has ended before all of its rows were done. Start another one for the rest.")


@backfill.command(cls=Command)
@click.option("--table", "tables", multiple=True, metavar="NAME", help="Only this table. As often as needed.")
@click.option("--reason", help="Why; it is kept with the backfill. Needed but for --dry-run.")
@click.option("--again", is_flag=True, help="Another one, where one of these tables is complete already.")
@click.option("--dry-run", is_flag=True, help="Count the rows, say what it would take, and do nothing.")
@in_this_process
@formats
@click.pass_context
def start(
    ctx: click.Context,
    tables: tuple[str, ...],
    reason: str | None,
    again: bool,
    dry_run: bool,
    in_process: bool,
    form: Form,
) -> None:
    """Backfills all watched tables, or some of them; one that is there and not finished is run to its end instead.

    \b
    Examples:
      audit backfill start --dry-run
      audit backfill start --reason "the audit begins today"
      audit backfill start --table audit_logs --reason "INC-4711"
      audit backfill start --again --reason "rows were deleted in BigQuery"

    A second one writes only what is still not there. Exit code 1: it could not be run to its end.
    """
    from support import backfill as backfills
    from support.who import who

    connection = current_connection(ctx)
    if dry_run:
        found = backfills.estimate(connection, tables)
        show(form, found, found.tables, lambda: _print_estimate(found))
        return
    if reason is None:
        raise click.UsageError("say why: --reason.", ctx)
    submitted, new = backfills.start(connection, tables, requested_by=who(connection), reason=reason, again=again)
    if not new:
        click.echo(
            f"{submitted.id} of these tables is there already, {submitted.state}: it is not a new one.", err=True
        )
    _run(connection, submitted, in_process, form)


@backfill.command("list", cls=Command)
@formats
@click.pass_context
def list_(ctx: click.Context, form: Form) -> None:
    """Lists the last backfills, the newest first."""
    from support import backfill as backfills

    found = backfills.latest(current_connection(ctx))
    show(form, found, found, lambda: _print_list(found))
    if not found:
        raise NothingFound


@backfill.command("show", cls=Command)
@click.argument("backfill_id", metavar="ID")
@formats
@click.pass_context
def show_one(ctx: click.Context, backfill_id: str, form: Form) -> None:
    """Shows a backfill: its tables, its moment, how far it is, and its problems."""
    from support import backfill as backfills

    found = backfills.find(current_connection(ctx), backfill_id)
    show(form, found, [found], lambda: _print(found))


@backfill.command(cls=Command)
@click.argument("backfill_id", metavar="ID")
@in_this_process
@formats
@click.pass_context
def resume(ctx: click.Context, backfill_id: str, in_process: bool, form: Form) -> None:
    """Runs a backfill to its end that waits, was killed or failed. One that has ended writes nothing again.

    \b
    Example:
      audit backfill resume backfill-1
    """
    from support import backfill as backfills

    connection = current_connection(ctx)
    _run(connection, backfills.find(connection, backfill_id), in_process, form)


def _run(connection: Connection, submitted: Replay, in_process: bool, form: Form) -> None:
    """Runs it, or has the stack's job run it and does not wait."""
    from support import replay as replays
    from support.replay_runs import runs

    if submitted.finished_at:
        found = submitted
    elif in_process or not connection.replay_job:
        found = replays.run(connection, submitted.id, progress_of(submitted))
    else:
        runs(connection).start(submitted.id)
        click.echo(f"It runs in the cloud. See how far it is: `audit backfill show {submitted.id}`.", err=True)
        found = replays.find(connection, submitted.id)
    show(form, found, [found], lambda: _print(found))
    if found.finished_at and not found.complete:
        raise BackfillIncomplete(found)


def _print_estimate(found: Estimate) -> None:
    print_table(
        ["table", "rows", "queries of BigQuery", "each at most"],
        [(x.table, f"{x.rows:,}", x.queries, _size(x.bytes_a_query_at_most)) for x in found.tables],
    )
    click.echo(f"{found.rows:,} rows, about {_time(found.cpu_seconds)} of one CPU; nothing was done.")
    for note in found.notes:
        click.echo(note)


def _print_list(found: list[Replay]) -> None:
    from support.replay import shown_state

    if not found:
        click.echo("There is none.")
        return
    print_table(
        ["backfill", "tables", "by", "requested", "state", "done", "written", "there", "finished", "reason"],
        [
            [
                *(x.id, ", ".join(x.tables), x.requested_by, x.requested_at, shown_state(x), _progress(x), x.replayed),
                *(x.there, x.finished_at, x.reason),
            ]
            for x in found
        ],
        optional=["there", "finished", "tables", "requested", "by", "reason"],
    )


def _print(found: Replay) -> None:
    written = f"{found.replayed:,} written, {found.there:,} were there" if found.finished_at else found.state
    moment = f" as of {found.read_at}" if found.read_at else ""
    click.echo(
        f"{found.id} of {', '.join(found.tables)}, by {found.requested_by}: {_progress(found)} rows done{moment}, "
        f"{written}; {_size(found.bytes_read)} of BigQuery read. Reason: {found.reason}"
    )
    for problem in found.problems:
        click.echo(f"  {problem}")


def _progress(found: Replay) -> str:
    return f"{found.done:,} of {'?' if found.total is None else f'{found.total:,}'}"


def _size(number: int) -> str:
    from contract.reading import shown

    return shown(number)


def _time(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"
