"""The `audit` command. It starts fast: a command's module is imported when it is called, libraries by its work."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

from support.cli.explained import Group

# Command → where it is and its line in the help, which costs no import.
COMMANDS = {
    "search": ("support.cli.search:search", "Find payments by id, customer, card, state, status or time."),
    "payment": ("support.cli.payment:payment", "Show what a payment is now, and its transitions."),
    "timeline": ("support.cli.timeline:timeline", "Show everything that happened to a payment."),
    "stuck": ("support.cli.stuck:stuck", "Find payments that are in a status for too long."),
    "failures": ("support.cli.reports:failures", "List payments that failed, or count them by reason or service."),
    "summary": ("support.cli.reports:summary", "Summarise payments by period, customer, region or method."),
    "health": ("support.cli.health:health", "Show whether the stack is healthy; exit code 1 while an alert fires."),
    "backfill": ("support.cli.backfill:backfill", "Write rows that are older than the change streams."),
    "replay": ("support.cli.replay:replay", "Read payments from Spanner again, and write them as they are now."),
    "validate": ("support.cli.validate:validate", "Compare Spanner with BigQuery row by row, and repair what differs."),
    "erase": ("support.cli.erase:erase", "Redact what is personal of a customer, and keep it from coming back."),
    "backup": ("support.cli.backup:backup", "Back the warehouse up, restore it, and try that it can be restored."),
    "dead-letters": (
        "support.cli.dead_letters:dead_letters",
        "List, show, retry or discard what could not be written.",
    ),
    "pipeline": ("support.cli.pipeline:pipeline", "Keep tables and job as they must be; drain and resume the job."),
    "schema": ("support.cli.schema:schema", "Compare the source database with the schema that it must have."),
    "slo": ("support.cli.slo:slo", "Show objectives, what was attained, the budget left and how fast it burns."),
    "probe": ("probe.command:probe", "Measure how late the audit is, and what is missing."),
    "completion": ("support.cli.completion:completion", "Print the script by which a shell completes commands."),
}
EXTRA_COMMANDS = "audit.commands"


class _Commands(Group):
    """The commands of support, and those that other parts add through the entry points `audit.commands`.

    A run that is an operation's is recorded, whichever command it is.
    """

    def invoke(self, ctx: click.Context) -> Any:
        operation = ctx.params.get("operation")
        if not operation:
            return super().invoke(ctx)
        from support.cli.operated import recorded

        return recorded(ctx, operation, lambda: super(_Commands, self).invoke(ctx))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *_extra()})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            module, _, attribute = COMMANDS[name][0].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        if extra := _extra().get(name):
            loaded: click.Command = extra.load()
            return loaded
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in COMMANDS:
                rows.append((name, COMMANDS[name][1]))
            elif command := _loaded(_extra()[name]):
                rows.append((name, command.get_short_help_str(limit=80)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _extra() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=EXTRA_COMMANDS)}


def _loaded(entry: EntryPoint) -> click.Command | None:
    """None where the libraries of that part are not installed: the help leaves it out."""
    try:
        command: click.Command = entry.load()
    except ImportError:
        return None
    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--connection",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="AUDIT_CONNECTION",
    show_envvar=True,
    help="Stack to talk to: a file with the stack's outputs.  [default: .audit/connection.json, the local stack]",
)
@click.option(
    "--operation",
    envvar="AUDIT_OPERATION",
    hidden=True,
    help="The operation (contract/operations.py) that this run is of: it is recorded.",
)
@click.pass_context
def main(ctx: click.Context, connection: Path | None, operation: str | None) -> None:
    """Finds and follows payments in the audit warehouse. Card data in it is masked.

    \b
    Examples:
      audit search 7d0f…                          a payment by its id
      audit search --customer C-1042 --state failed
      audit search --card                         prompts for the number, hidden
      audit payment 7d0f…                         what it is now, and its transitions
      audit timeline 7d0f…                        everything that happened to it
      audit failures --by reason --since 1h       why payments fail
      audit stuck                                 what is in a status for too long
      audit health                                whether the stack is healthy
      audit dead-letters list                     what could not be written, and why
      pulumi stack output --json > prod.json; audit --connection prod.json search …

    Output is a table on a terminal and JSON elsewhere; --csv where it has rows.
    Exit codes: 0 found, 1 nothing found or no answer, 2 wrong usage.
    """
    ctx.obj = {**(ctx.obj or {}), "connection": connection}


if __name__ == "__main__":
    main()
