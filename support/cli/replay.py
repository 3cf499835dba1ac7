"""`audit replay`."""

from __future__ import annotations

import getpass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from support.cli.explained import Command, Group
from support.cli.output import NothingFound, current_connection, json_option, print_json, print_table, wants_json
from support.cli.types import When

if TYPE_CHECKING:
    from support.replay import Replay


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
@click.option("--reason", required=True, help="Why; it is kept with the replay.")
@click.option("--id", "replay_id", help="Id of the replay. With one that is known, that replay is run to its end.")
@click.option("--dry-run", is_flag=True, help="Name the payments, and do nothing.")
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
    reason: str,
    replay_id: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Replays payments: those that are named, or those that a search finds. At most 1,000.

    \b
    Examples:
      audit replay start 7d0f2c9e-… --reason "its last change is missing"
      audit replay start --state failed --since 2h --reason "INC-4711" --dry-run
      audit replay start --customer C-1042 --reason "INC-4711" --id INC-4711
    """
    from support import replay as replays
    from support.search import Search, search
    from support.warehouse import Warehouse

    connection = current_connection(ctx)
    wanted = list(puids)
    if not wanted:
        if not (customer or state or status or since or until):
            raise click.UsageError("name payments, or say which: --customer, --state, --status, --since.", ctx)
        asked = Search(customer_id=customer, state=state, status=status, since=since, until=until, limit=replays.MOST)
        found = search(Warehouse(connection), asked)
        if found.more:
            raise click.UsageError(f"the search finds more than {replays.MOST:,} payments. Narrow it by time.", ctx)
        wanted = [payment.puid for payment in found.payments if not payment.deleted_at]
    if dry_run:
        click.echo("\n".join(wanted))
        click.echo(f"{len(wanted)} payment{'' if len(wanted) == 1 else 's'}; nothing was done.", err=True)
        return
    if not wanted:
        click.echo("No payment is found.", err=True)
        raise NothingFound
    submitted = replays.submit(connection, wanted, requested_by=getpass.getuser(), reason=reason, replay_id=replay_id)
    click.echo(f"Replay {submitted.id} …", err=True)
    _show(replays.run(connection, submitted.id), as_json)


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
            ["replay", "by", "requested", "payments", "rows", "finished", "reason"],
            [
                [x.id, x.requested_by, x.requested_at, len(x.payments), x.replayed, x.finished_at, x.reason]
                for x in found
            ],
            optional=["rows", "payments", "finished", "requested", "by", "reason"],
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
    """Shows a replay, its payments and its problems."""
    from support import replay as replays

    _show(replays.find(current_connection(ctx), replay_id), as_json)


@replay.command(cls=Command)
@click.argument("replay_id", metavar="ID")
@json_option
@click.pass_context
def resume(ctx: click.Context, replay_id: str, as_json: bool) -> None:
    """Runs a replay to its end that was killed or failed. One that has ended writes nothing again."""
    from support import replay as replays

    _show(replays.run(current_connection(ctx), replay_id), as_json)


def _show(found: Replay, as_json: bool) -> None:
    if wants_json(as_json):
        print_json(found)
        return
    ended = f"{found.replayed} written, as they were at {found.read_at}" if found.finished_at else "not finished"
    click.echo(f"Replay {found.id} of {len(found.payments)}, by {found.requested_by}: {ended}. Reason: {found.reason}")
    for problem in found.problems:
        click.echo(f"  {problem}")
