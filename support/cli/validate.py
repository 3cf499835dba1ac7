"""`audit validate`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from contract.errors import AuditError
from support.cli.explained import Command
from support.cli.operated import summarise
from support.cli.output import current_connection, json_option, print_json, print_table, wants_json
from support.cli.types import When

if TYPE_CHECKING:
    from support.validation.findings import Report
    from support.validation.run import Validation

_SHOWN: Final = 20
# How long a person waits for another run's end.
_WAIT_SECONDS: Final = 120
_POLL_SECONDS: Final = 2


@click.command(cls=Command)
@click.option("--since", type=When(), help="The changes from then on (a UTC time, or 2h, 7d), not since the last run.")
@click.option("--all", "everything", is_flag=True, help="All keys of every table, in parts.")
@click.option("--repair", is_flag=True, help="Have lost changes read again, and wrong states replayed.")
@click.option("--every", type=click.FloatRange(1), metavar="SECONDS", help="Seconds between two runs, until Ctrl-C.")
@json_option
@click.pass_context
def validate(
    ctx: click.Context, since: datetime | None, everything: bool, repair: bool, every: float | None, as_json: bool
) -> None:
    """Compare what Spanner held at a moment with what BigQuery says of it: every value of every row, masked.

    Without an option: the changes since the last run, the rows that they touched and, once a day, the next part of
    all keys. Rows are named by their keys, never by a value. It reads Spanner's payments: the account of validation
    may, people may not.

    \b
    Examples:
      audit validate                    as the scheduled job does it
      audit validate --since 2h         the changes of two hours once more
      audit validate --all              every row there is
      audit validate --repair           and have repaired what is wrong

    Exit code 1 where a row is wrong, and nothing was done about it.
    """
    from support.validation.run import Validation

    if since and everything:
        raise click.UsageError("--since and --all exclude each other.")
    if every and (since or everything):
        raise click.UsageError("--every goes with neither --since nor --all.")
    validation = Validation(current_connection(ctx))
    if every:
        _loop(validation, every, repair=repair)
    report = _run(validation, since=since, everything=everything, repair=repair)
    _show(report, as_json)
    # Keys of rows stay in the answer and in `audit_checks`: an operation's record has counts alone.
    rows = f"{sum(check.source_rows for check in report.checks):,} rows of Spanner compared"
    summarise(ctx, f"{rows}, {len(report.findings)} findings, {len(report.open)} open")
    raise SystemExit(1 if report.unhandled else 0)


def _run(validation: Validation, *, since: datetime | None, everything: bool, repair: bool) -> Report:
    from support.validation.state import Busy

    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return validation.run(since=since, everything=everything, repair=repair, progress=_progress)
        except Busy:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _progress(text: str) -> None:
    click.echo(f"{text} …", err=True)


def _loop(validation: Validation, every: float, *, repair: bool) -> None:
    while True:
        began = time.monotonic()
        try:
            report = validation.run(repair=repair)
        except Exception as error:
            # The next run continues where this one began. Only an AuditError is sure to quote no row.
            why = str(error) if isinstance(error, AuditError) else type(error).__name__
            click.echo(f"{datetime.now(UTC):%H:%M:%S} nothing compared: {why}", err=True)
        else:
            click.echo(_line(report))
        time.sleep(max(0.0, every - (time.monotonic() - began)))


def _line(report: Report) -> str:
    line = (
        f"{report.at:%H:%M:%S} as of {report.until:%Y-%m-%d %H:%M:%S}: {report.source_rows:,} rows of Spanner, "
        f"{report.warehouse_rows:,} of BigQuery ({report.warehouse_bytes:,} bytes), {report.cpu_seconds:.1f} CPU s, "
        f"{len(report.findings)} findings, {len(report.open)} open"
    )
    return "\n  ".join([line, *report.notes])


def _show(report: Report, as_json: bool) -> None:
    if wants_json(as_json):
        print_json(report.to_dict())
        return
    rows = [
        (c.table, c.scope, c.source_rows, c.warehouse_rows, c.missing, c.extra, c.different, c.doubled)
        for c in report.checks
    ]
    print_table(["table", "compared", "Spanner", "BigQuery", "missing", "extra", "different", "doubled"], rows)
    for finding in report.findings[:_SHOWN]:
        what = f"{finding.kind} in {', '.join(finding.columns)}" if finding.columns else finding.kind
        of = f" change {finding.change_id}" if finding.change_id else ""
        click.echo(f"  {finding.table} {finding.key}{of}: {what}{f'; {finding.outcome}' if finding.outcome else ''}")
    if len(report.findings) > _SHOWN:
        click.echo(f"  … and {len(report.findings) - _SHOWN:,} more: see `audit validate --json`.")
    if report.resolved:
        click.echo(f"{len(report.resolved):,} that an earlier run found are right again.")
    click.echo(_line(report))
