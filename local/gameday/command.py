"""`audit gameday`: the game days from a command line."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import click

from local.gameday import faults
from local.gameday.faults import Fault
from local.machine.state import DEFAULT, State
from support.cli.explained import Command


@click.command(cls=Command)
@click.argument("names", metavar="[FAULT]...", nargs=-1, type=click.Choice(faults.names()))
@click.option(
    "--normal",
    type=click.FloatRange(1),
    metavar="MINUTES",
    help="No fault: traffic with bursts, restarts and a new column. Fails if anybody is paged.",
)
@click.option("--json", "as_json", is_flag=True, help="What was measured, as JSON.")
@click.option(
    "--state",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT,
    help="Folder of the stack's state and logs.  [default: .audit]",
)
def gameday(names: tuple[str, ...], normal: float | None, as_json: bool, folder: Path) -> None:
    """Break something for real, see the right alert fire, do what its runbook says, and lose nothing.

    Without a fault: the list of them. Each takes 8 to 30 minutes, most of it waiting, as a pager does; poison-records
    over an hour, which is as far as one of its pages looks back. The stack is the local one that runs with
    --monitoring, or a new one with a little traffic.

    \b
    Examples:
      audit gameday                            lists the faults
      audit gameday pipeline-stopped
      audit gameday payment-stuck probe-stopped
      audit gameday --normal 60                an hour in which nobody may be paged
    """
    if names and normal:
        raise click.UsageError("--normal is a day without a fault.")
    if not names and not normal:
        _list()
        return
    chosen = [faults.named(name) for name in names]
    from local.gameday.day import on_stack, stack
    from local.gameday.runner import StackRunner

    state = State(folder.resolve())

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    # Asked to end, it takes its stack down as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with stack(state, say, _options(chosen), StackRunner(state)):
        days = [on_stack(state, say).normal(normal)] if normal else []
        results = days + [on_stack(state, say).run(fault) for fault in chosen]
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=2))
        return
    click.echo("")
    for result in results:
        times = ", ".join(f"{name} {seconds} s" for name, seconds in result.fired.items()) or "no alert"
        resolved = f"resolved in {result.resolved} s; " if result.resolved is not None else ""
        click.echo(f"{result.fault}: {times}; {resolved}{result.check}")


def _options(chosen: list[Fault]) -> tuple[str, ...]:
    """What the stack is started with. Raises UsageError for faults that need different ones."""
    if len({fault.stack for fault in chosen}) > 1:
        raise click.UsageError("these faults need stacks with different options. Run them one by one.")
    return chosen[0].stack if chosen else ()


def _list() -> None:
    from support.cli.output import print_table

    print_table(
        ["fault", "what it is", "leads", "also"],
        [
            (
                fault.name,
                fault.title,
                fault.leads,
                ", ".join(sorted(fault.fires - {fault.leads})) or "·",
            )
            for fault in faults.FAULTS
        ],
        optional=["also", "leads"],
    )
