"""`audit slo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from support.cli.explained import Command
from support.cli.output import Form, NothingFound, current_connection, formats, print_table, show

if TYPE_CHECKING:
    from support.slo import Standing


@click.command(cls=Command)
@formats
@click.pass_context
def slo(ctx: click.Context, form: Form) -> None:
    """Show each objective: what was attained in 30 days, how much of the budget is left, how fast it burns.

    A budget that burns at 1 is used up just when the period ends.

    \b
    Examples:
      audit slo
      audit --connection prod.json slo --json

    The local stack needs `--monitoring`; in the cloud it takes roles/monitoring.viewer. Exit code 1: nothing measured.
    """
    from support import slo as objectives
    from support.promql import Prometheus

    connection = current_connection(ctx)
    found = objectives.standings(Prometheus(connection), objectives.goals(connection))
    show(form, found, found, lambda: _print(found))
    if all(x.attained is None for x in found):
        raise NothingFound


def _print(found: list[Standing]) -> None:
    windows = [burn.window for burn in found[0].burns]
    print_table(
        ["objective", "goal", "attained", "budget left", *(f"burn {w}" for w in windows), "changes"],
        [
            (
                x.title,
                percent(x.goal),
                percent(x.attained),
                percent(x.budget_left),
                *("·" if b.rate is None else f"{b.rate:.2f} of {b.alert_at:g}" for b in x.burns),
                f"{x.events:,}",
            )
            for x in found
        ],
        optional=["changes", *(f"burn {w}" for w in reversed(windows[1:]))],
    )


def percent(share: float | None) -> str:
    """A share of 1 as people write it."""
    return "·" if share is None else f"{share * 100:.4g} %"
