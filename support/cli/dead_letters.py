"""`audit dead-letters`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from support.cli.explained import Group
from support.cli.operated import attempt, summarise
from support.cli.output import (
    Form,
    NothingFound,
    counted,
    current_connection,
    formats,
    print_json,
    print_table,
    show,
)

if TYPE_CHECKING:
    from support.dead_letters import Letter, Waiting

# Nothing of the payment is kept before it is masked; the id has its table and commit time.
_UNMASKED = "not readable before it is masked"
# The last ones are left out first.
_OPTIONAL = ["payment", "remedy", "tried again", "table", "tries", "message", "last failure"]
_TRIED_AGAIN = {"automatic": "by itself", "after_fix": "after the fix", "never": "never"}


@click.group("dead-letters", cls=Group)
def dead_letters() -> None:
    """Lists, shows, retries or discards changes that could not be written.

    The running job retries those in `retry` by itself; those in `severe` are parked: they were tried often enough, or
    trying again does not help before the cause is gone.

    \b
    Examples:
      audit dead-letters list --severe
      audit dead-letters show ID
      audit dead-letters retry ID ID …
      audit dead-letters retry --all            once the cause is gone
      audit dead-letters report                 how many wait, by reason and age
      audit dead-letters discard ID
    """


@dead_letters.command("list")
@click.option("--severe", is_flag=True, help="Only those parked.")
@formats
@click.pass_context
def list_letters(ctx: click.Context, severe: bool, form: Form) -> None:
    """Lists dead letters in commit order."""
    from support import dead_letters as letters

    queue = letters.queue(current_connection(ctx))
    found = letters.all_letters(queue, ["severe"] if severe else ["retry", "severe"])
    listed = [{k: v for k, v in vars(letter).items() if k != "change"} for letter in found]
    show(form, listed, listed, lambda: _print(found))
    if unreadable := queue.unreadable():
        click.echo(
            f"{unreadable} lines are not dead letters and are kept as they are; look at {queue.directory}.", err=True
        )
    if not found:
        raise NothingFound


def _print(found: Sequence[Letter]) -> None:
    if found:
        print_table(
            ["id", "where", "payment", "reason", "remedy", "tried again", "table", "tries", "message", "last failure"],
            [
                (
                    *(x.id, x.kind, _UNMASKED if x.puid is None else x.puid, x.reason, x.remedy),
                    *(_TRIED_AGAIN[x.retry], x.table, x.attempts, x.message, x.last_failed_at),
                )
                for x in found
            ],
            optional=_OPTIONAL,
        )
    click.echo(f"{counted(len(found), 'dead letter')}.")


@dead_letters.command("show")
@click.argument("letter_id", metavar="ID")
@click.pass_context
def show_letter(ctx: click.Context, letter_id: str) -> None:
    """Shows a dead letter with its remedy and its masked change, as JSON."""
    from support import dead_letters as letters

    found = letters.find(letters.queue(current_connection(ctx)), letter_id)
    if found is None:
        click.echo("There is no such dead letter. See `audit dead-letters list`.", err=True)
        raise NothingFound
    print_json(found)


@dead_letters.command()
@formats
@click.pass_context
def report(ctx: click.Context, form: Form) -> None:
    """Counts dead letters by reason and age; the age is that of the change.

    Exit codes: 0 none is parked, 1 some are and a person must decide, 2 it could not look.
    """
    from support import dead_letters as letters

    found = attempt(lambda: letters.waiting(letters.queue(current_connection(ctx)), datetime.now(UTC)))
    summarise(ctx, found.summary)
    show(form, found, found.by, lambda: _print_waiting(found))
    ctx.exit(1 if found.severe else 0)


def _print_waiting(found: Waiting) -> None:
    if found.by:
        print_table(["where", "reason", "age", "number"], [(x.kind, x.reason, x.age, x.number) for x in found.by])
    click.echo(f"{found.summary}.")


@dead_letters.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that are parked.")
@click.pass_context
def retry(ctx: click.Context, ids: tuple[str, ...], every: bool) -> None:
    """Hands dead letters to the running job, which tries them with its next round as if for the first time."""
    from support import dead_letters as letters

    if bool(ids) == every:
        raise click.UsageError("name the dead letters to retry, or pass --all.")
    queue = letters.queue(current_connection(ctx))
    wanted = [letter.id for letter in letters.all_letters(queue, ["severe"])] if every else list(ids)
    if every and not wanted:
        # On request or as an operation: there is nothing to do, and nothing is wrong.
        click.echo("No dead letter is parked.")
        return
    handed = letters.retry(queue, wanted)
    summarise(ctx, f"{handed} handed to the next retry")
    _report(handed, len(set(wanted)), "handed to the next retry")


@dead_letters.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.confirmation_option(prompt="Their changes will never be in BigQuery. Discard?", help="Do not ask.")
@click.pass_context
def discard(ctx: click.Context, ids: tuple[str, ...]) -> None:
    """Gives dead letters up permanently."""
    from support import dead_letters as letters

    _report(letters.discard(letters.queue(current_connection(ctx)), ids), len(set(ids)), "discarded")


def _report(done: int, asked: int, what: str) -> None:
    rest = f"; {asked - done} not found" if done < asked else ""
    click.echo(f"{counted(done, 'dead letter')} {what}{rest}.")
    if not done:
        raise NothingFound
