"""`audit timeline`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from support.cli.explained import Command
from support.cli.output import Form, NothingFound, complete_line, current_connection, formats, print_table, show

if TYPE_CHECKING:
    from support.timeline import Event, Timeline, Transition

# It says only when the change was committed, as the first column does.
_NOISE = frozenset({"UpdatedAt"})


@click.command(cls=Command)
@click.argument("puid")
@formats
@click.pass_context
def timeline(ctx: click.Context, puid: str, form: Form) -> None:
    """Shows everything that happened to a payment: each change with old and new values, and its transitions.

    \b
    Examples:
      audit timeline 7d0f2c9e-…
      audit timeline 7d0f2c9e-… --json | jq '.events[-1]'
    """
    from support import timeline as timelines
    from support.warehouse import Warehouse

    connection = current_connection(ctx)
    found = timelines.timeline(Warehouse(connection), puid)
    if any(event.replay for event in found.events):
        from support.replay import with_reasons

        found = with_reasons(connection, found)
    show(form, found, found.events, lambda: _print(found))
    if not found.events:
        raise NothingFound


def _print(found: Timeline) -> None:
    if found.events:
        print_table(
            ["committed", "change", "table", "status", "service", "what"],
            (_event(event) for event in found.events),
            optional=["status", "table", "service"],
            title=f"Payment {found.puid}{' (deleted)' if found.deleted else ''}",
        )
        print_transitions(found.transitions)
    else:
        click.echo(f"No change of a payment {found.puid}.")
    click.echo(complete_line(found.complete_until))


def _event(event: Event) -> list[Any]:
    by = f"{event.replay_kind} {event.replay} by {event.replayed_by}: {event.replay_reason}"
    what = [by] if event.replayed_by else []
    for difference in event.differences:
        if difference.column in _NOISE:
            continue
        if event.mod_type == "UPDATE":
            what.append(f"{difference.column}: {difference.old or '·'} → {difference.new or '·'}")
        else:
            what.append(f"{difference.column}: {difference.new if event.mod_type == 'INSERT' else difference.old}")
    time = event.committed_at.replace("T", " ")[:23]
    return [time, event.mod_type, event.table, event.status, event.service or "", "\n".join(what)]


def print_transitions(transitions: Sequence[Transition]) -> None:
    """How a payment went from status to status."""
    print_table(
        ["at", "from", "to", "state", "after", "expected"],
        (_transition(transition) for transition in transitions),
        title="Transitions",
    )


def _transition(transition: Transition) -> list[Any]:
    after = "" if transition.seconds is None else f"{transition.seconds:,.1f} s"
    expected = {True: "", False: "unexpected", None: "unknown"}[transition.expected]
    return [transition.at, transition.from_status, transition.to_status, transition.to_state, after, expected]
