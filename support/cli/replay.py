"""`audit replay`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed
from datetime import datetime
from typing import TYPE_CHECKING

import click

from contract.errors import AuditError
from support.cli.explained import Command, Group
from support.cli.output import NothingFound, current_connection, json_option, print_json, print_table, wants_json
from support.cli.types import When

if TYPE_CHECKING:
    from support.connection import Connection
    from support.replay import Replay, Selection

in_this_process = click.option(
    "--here", "in_process", is_flag=True, help="Run it in this process, also where the stack has a job for it."
)


@click.group(cls=Group)
def replay() -> None:
    """Reads payments from Spanner again, and writes them to BigQuery as they are now, masked.

    It audits again; it runs no payment again. Who asked, why and for which payments is kept.
    """


@replay.command(cls=Command)
@click.argument("puids", nargs=-1, metavar="[PUID]...")
@click.option("--customer", help="All payments of a customer that the search finds.")
@click.option("--state", type=click.Choice(["initiated", "processed", "failed"]), help="Payments in a state.")
@click.option("--status", help="Payments in a status.")
@click.option("--since", type=When(), help="Last changed at or after: a UTC time, or so long ago (15m, 2h, 7d).")
@click.option("--until", type=When(), help="Last changed before.")
@click.option("--dead-letter", "letters", multiple=True, help="Fill a dead letter, and resolve it. As often as needed.")
@click.option("--reason", required=True, help="Why; it is kept with the replay.")
@click.option("--id", "replay_id", help="Id of the replay. With one that is known, that replay is run to its end.")
@click.option("--dry-run", is_flag=True, help="Name the payments, or how they are selected, and do nothing.")
@in_this_process
@json_option
@click.pass_context
def start(
    ctx: click.Context,
    puids: tuple[str, ...],
    customer: str | None,
    state: str | None,
    status: str | None,
    since: datetime | None,
    until: datetime | None,
    letters: tuple[str, ...],
    reason: str,
    replay_id: str | None,
    dry_run: bool,
    in_process: bool,
    as_json: bool,
) -> None:
    """Replays payments: those that are named, those that a search finds, or those of dead letters.

    Of a search that finds more than 1,000, those that Spanner has in the same state, status, time or of the customer.

    \b
    Examples:
      audit replay start 7d0f2c9e-… --reason "its last change is missing"
      audit replay start --state failed --since 2h --reason "INC-4711" --dry-run
      audit replay start --customer C-1042 --reason "INC-4711" --id INC-4711
      audit replay start --dead-letter ID --reason "its record has left the stream"
    """
    from support import replay as replays
    from support.search import Search
    from support.warehouse import Warehouse
    from support.who import who

    connection = current_connection(ctx)
    if letters and not puids:
        chosen = replays.of_dead_letters(connection, letters)
    elif puids:
        chosen = replays.Selection(payments=tuple(dict.fromkeys(puids)))
    elif customer or state or status or since or until:
        wanted = Search(customer_id=customer, state=state, status=status, since=since, until=until)
        chosen = replays.selected(Warehouse(connection), wanted)
    else:
        raise click.UsageError("name payments, or say which: --customer, --state, --status, --since.", ctx)
    if dry_run:
        _show_selection(chosen)
        return
    if not chosen.given:
        click.echo("No payment is found.", err=True)
        raise NothingFound
    submitted = replays.submit(
        connection, chosen, requested_by=who(connection), reason=reason, replay_id=replay_id, dead_letters=letters
    )
    _run(connection, submitted, in_process, as_json)


@replay.command("list", cls=Command)
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Lists the last replays, the newest first."""
    from support import replay as replays

    found = replays.latest(current_connection(ctx))
    if wants_json(as_json):
        print_json(found)
    elif found:
        print_table(
            ["replay", "by", "requested", "state", "done", "rows", "finished", "reason"],
            [
                [
                    *(x.id, x.requested_by, x.requested_at, replays.shown_state(x), _progress(x), x.replayed),
                    *(x.finished_at, x.reason),
                ]
                for x in found
            ],
            optional=["done", "rows", "finished", "requested", "by", "reason"],
        )
    else:
        click.echo("There is none.")
    if not found:
        raise NothingFound


@replay.command(cls=Command)
@click.argument("replay_id", metavar="ID")
@json_option
@click.pass_context
def show(ctx: click.Context, replay_id: str, as_json: bool) -> None:
    """Shows a replay: its payments, how far it is, and its problems."""
    from support import replay as replays

    _show(replays.find(current_connection(ctx), replay_id), as_json)


class ReplaysLeft(AuditError):
    """Some replays were not run to their end; why was said for each."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{number} of the replays could not be run. See above; run it again then.")


@replay.command(cls=Command)
@click.argument("replay_id", metavar="[ID]", required=False)
@in_this_process
@json_option
@click.pass_context
def resume(ctx: click.Context, replay_id: str | None, in_process: bool, as_json: bool) -> None:
    """Runs a replay to its end that waits, was killed or failed; without an ID each such one.

    One that has ended writes nothing again.
    """
    from support import replay as replays

    connection = current_connection(ctx)
    failed = 0
    for found in [replays.find(connection, replay_id)] if replay_id else replays.unfinished(connection):
        try:
            _run(connection, found, in_process, as_json)
        except AuditError as error:
            if replay_id:
                raise
            # The others do not wait for one that cannot be run.
            click.echo(f"Replay {found.id}: {error}", err=True)
            failed += 1
    if failed:
        raise ReplaysLeft(failed)


def progress_of(submitted: Replay) -> Callable[[str], None]:
    """Says how far it is, each time that it is further."""
    said: list[str] = []

    def progress(text: str) -> None:
        if text not in said[-1:]:
            said.append(text)
            click.echo(f"{submitted.id}: {text} …", err=True)

    return progress


def _run(connection: Connection, submitted: Replay, in_process: bool, as_json: bool) -> None:
    """Runs it, or has the stack's job run it and does not wait."""
    from support import replay as replays
    from support.replay_runs import runs

    click.echo(f"Replay {submitted.id} …", err=True)
    if in_process or not connection.replay_job:
        found = replays.run(connection, submitted.id, progress_of(submitted))
    else:
        if not submitted.finished_at:
            runs(connection).start(submitted.id)
            click.echo(f"It runs in the cloud. See how far it is: `audit replay show {submitted.id}`.", err=True)
        found = replays.find(connection, submitted.id)
    _show(found, as_json)


def _show_selection(chosen: Selection) -> None:
    if chosen.payments:
        click.echo("\n".join(chosen.payments))
        number = f"{len(chosen.payments)} payment{'' if len(chosen.payments) == 1 else 's'}"
    else:
        click.echo(", ".join(f"{name}: {value}" for name, value in chosen.given.items()))
        number = "those that Spanner has then" if chosen.given else "0 payments"
    click.echo(f"{number}; nothing was done.", err=True)


def _show(found: Replay, as_json: bool) -> None:
    if wants_json(as_json):
        print_json(found)
        return
    ended = (
        f"{found.replayed} written, as they were at {found.read_at}"
        if found.finished_at
        else f"{found.state}, {_progress(found)} done"
    )
    which = str(len(found.payments)) if found.payments else str(changed(found.selection, payments=()).given)
    which = ", ".join(found.tables) or which
    click.echo(f"Replay {found.id} of {which}, by {found.requested_by}: {ended}. Reason: {found.reason}")
    for letter in found.dead_letters:
        click.echo(f"  for the dead letter {letter}")
    for problem in found.problems:
        click.echo(f"  {problem}")


def _progress(found: Replay) -> str:
    return f"{found.done:,} of {'?' if found.total is None else f'{found.total:,}'}"
