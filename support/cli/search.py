"""`audit search`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from support.cli.explained import Command
from support.cli.output import (
    NothingFound,
    cell,
    complete_line,
    current_connection,
    json_option,
    print_json,
    print_table,
    wants_json,
)
from support.cli.types import When, card_tokens

if TYPE_CHECKING:
    from support.search import Found, Payment


@click.command(cls=Command)
@click.argument("puid", required=False)
@click.option("--customer", help="Customer id.")
@click.option("--card", is_flag=True, help="A card: prompts for its number, hidden, or reads it from standard input.")
@click.option("--last-four", metavar="DIGITS", help="Last four digits of the card that the payment has now.")
@click.option("--state", type=click.Choice(["initiated", "processed", "failed"]), help="Payment state.")
@click.option("--status", help="Status as the services write it, such as PENDING.")
@click.option("--since", type=When(), help="Last changed at or after: a UTC time, or so long ago (15m, 2h, 7d).")
@click.option("--until", type=When(), help="Last changed before.")
@click.option("--limit", type=int, default=50, show_default=True, help="Most payments to show.")
@json_option
@click.pass_context
def search(
    ctx: click.Context,
    puid: str | None,
    customer: str | None,
    card: bool,
    last_four: str | None,
    state: str | None,
    status: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Finds payments, the last changed first. All that is given must hold; with nothing given, the latest ones.

    \b
    Examples:
      audit search 7d0f2c9e-…
      audit search --customer C-1042 --since 7d
      audit search --state failed --since 15m --json | jq '.payments[].error'
      audit search --card                  asks for the number
      audit search --card < number.txt

    A card is searched by its keyed token; its number is never an argument, so it stays out of the shell's history.
    """
    from support import search as searching
    from support.warehouse import Warehouse

    connection = current_connection(ctx)
    tokens = card_tokens(connection.masking_keys) if card else ()
    wanted = searching.Search(
        puid=puid,
        customer_id=customer,
        card_tokens=tokens,
        last_four=last_four,
        state=state,
        status=status,
        since=since,
        until=until,
        limit=limit,
    )
    found = searching.search(Warehouse(connection), wanted)
    if wants_json(as_json):
        print_json(found)
    else:
        _print(found)
    if not found.payments:
        raise NothingFound


def _print(found: Found) -> None:
    if found.payments:
        print_table(
            ["payment", "customer", "amount", "state", "status", "changed", "card", "region", "error"],
            (_row(payment, datetime.now(UTC)) for payment in found.payments),
            # What a person with a customer on the line asks first stays the longest.
            optional=["state", "amount", "customer", "status", "changed", "error", "card", "region"],
        )
    number = len(found.payments)
    more = ", and there are more (--limit)" if found.more else ""
    click.echo(f"{number or 'No'} payment{'' if number == 1 else 's'}{more}. {complete_line(found.complete_until)}")


def _row(payment: Payment, now: datetime) -> list[Any]:
    since = payment.deleted_at or payment.status_since
    state = "deleted" if payment.deleted_at else payment.state
    amount = cell(payment.amount)
    return [
        payment.puid,
        payment.customer_id,
        f"{amount} {payment.currency}" if payment.currency else amount,
        f"{state or '·'} {_age(now - since)}" if since else state,
        payment.status,
        payment.changed_at,
        payment.card,
        payment.region,
        payment.error or "",
    ]


def _age(age: timedelta) -> str:
    """How long, in its largest whole unit: `45s`, `12m`, `3h`, `5d`, as --since takes it."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
