"""`audit search`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from support.cli.explained import Command
from support.cli.output import (
    Form,
    NothingFound,
    age,
    cell,
    complete_line,
    counted,
    current_connection,
    formats,
    print_table,
    show,
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
@formats
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
    form: Form,
) -> None:
    """Finds payments, the last changed first. All that is given must hold; with nothing given, the latest ones.

    \b
    Examples:
      audit search 7d0f2c9e-…
      audit search --customer C-1042 --since 7d
      audit search --state failed --since 15m --json | jq '.payments[].error'
      audit search --customer C-1042 --csv > payments.csv
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
    show(form, found, found.payments, lambda: _print(found))
    if not found.payments:
        raise NothingFound


def print_payments(payments: Sequence[Payment]) -> None:
    """Payments as they are now."""
    print_table(
        ["payment", "customer", "amount", "state", "status", "changed", "card", "region", "error"],
        (_row(payment, datetime.now(UTC)) for payment in payments),
        # What a person with a customer on the line asks first stays the longest.
        optional=["state", "amount", "customer", "status", "changed", "error", "card", "region"],
    )


def _print(found: Found) -> None:
    if found.payments:
        print_payments(found.payments)
    more = ", and there are more (--limit)" if found.more else ""
    click.echo(f"{counted(len(found.payments), 'payment')}{more}. {complete_line(found.complete_until)}")


def _row(payment: Payment, now: datetime) -> list[Any]:
    since = payment.deleted_at or payment.status_since
    state = "deleted" if payment.deleted_at else payment.state
    amount = cell(payment.amount)
    return [
        payment.puid,
        payment.customer_id,
        f"{amount} {payment.currency}" if payment.currency else amount,
        f"{state or '·'} {age(now - since)}" if since else state,
        payment.status,
        payment.changed_at,
        payment.card,
        payment.region,
        payment.error or "",
    ]
