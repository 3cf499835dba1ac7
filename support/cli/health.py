"""`audit health`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from support.cli.explained import Command
from support.cli.output import Form, age, cell, current_connection, formats, print_table, show
from support.cli.slo import percent

if TYPE_CHECKING:
    from support.health import Health
    from support.monitored import Speed

_COLUMNS = ("what", "now", "goal")


@click.command(cls=Command)
@formats
@click.pass_context
def health(ctx: click.Context, form: Form) -> None:
    """Shows whether the stack is healthy: how far it is complete, how fast it is, what waits and which alerts fire.

    \b
    Examples:
      audit health
      audit --connection prod.json health --json | jq '.alerts'
      until audit health; do sleep 30; done

    Latency, rate and alerts are the probe's, of the last ten minutes: the local stack measures them with
    `--monitoring`. Exit code 1: an alert fires, or something could not be looked at.
    """
    from support.health import health as look

    found = look(current_connection(ctx))
    rows = [dict(zip(_COLUMNS, row, strict=True)) for row in _rows(found)]
    show(form, found, rows, lambda: _print(found))
    ctx.exit(0 if found.healthy else 1)


def _print(found: Health) -> None:
    print_table(_COLUMNS, list(_rows(found)))
    if found.alerts:
        print_table(
            ["alert", "severity", "since", "what"],
            [(x.name, x.severity, x.since[:19].replace("T", " "), x.title) for x in found.alerts],
            optional=["what", "since"],
        )
    if found.operations:
        print_table(
            ["operation", "last run", "outcome", "what it said"],
            [(x.operation, f"{age(found.at - x.started_at)} ago", x.outcome or "runs", x.summary)
             for x in found.operations if x.started_at],
            optional=["what it said"],
        )  # fmt: skip
    for problem in found.problems:
        click.echo(problem)


def _rows(found: Health) -> Iterator[tuple[str, str, str]]:
    until = found.complete_until
    yield "complete up to", f"{cell(until)} UTC, {age(found.at - until)} ago" if until else "·", ""
    yield from _speed(found.speed) if found.speed else [("latency and rate", "·", "")]
    yield "stuck payments", cell(found.stuck), "0"
    letters = found.dead_letters
    yield "dead letters", "·" if letters is None else ", ".join(f"{n} {kind}" for kind, n in letters.items()), "0"
    yield "alerts that fire", "·" if found.alerts is None else str(len(found.alerts)), "0"


def _speed(speed: Speed) -> Iterator[tuple[str, str, str]]:
    p50, p99 = ("·" if x is None else f"{x:.1f} s" for x in (speed.p50_seconds, speed.p99_seconds))
    yield "commit to queryable, p50 and p99", f"{p50}, {p99}", f"{speed.goal_seconds:g} s"
    yield f"within {speed.goal_seconds:g} s", percent(speed.in_time), percent(speed.goal_in_time)
    rates = f"{speed.queryable_per_second:,.1f} of {speed.committed_per_second:,.1f} committed"
    yield "queryable a second", rates, f"all, up to {speed.design_per_second}"
