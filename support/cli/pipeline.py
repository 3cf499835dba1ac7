"""`audit pipeline`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from support.cli.explained import Group
from support.cli.operated import attempt, summarise
from support.cli.output import current_connection, json_option, print_json, print_table, wants_json

if TYPE_CHECKING:
    from support.operations.ensure import Report
    from support.operations.status import Status


_wait = click.option(
    "--wait", type=click.FloatRange(0, 60), default=12, show_default=True, metavar="MINUTES", help="For the job to run."
)


@click.group(cls=Group)
def pipeline() -> None:
    """Keep the tables and the streaming job as they must be, and say what they are.

    \b
    Examples:
      audit pipeline ensure             check all, and launch the job where none runs
      audit pipeline status             state, position, lag, generation
      audit pipeline drain              end the job until `audit pipeline resume`
    """


@pipeline.command()
@_wait
@json_option
@click.pass_context
def ensure(ctx: click.Context, wait: float, as_json: bool) -> None:
    """Checks tables, views and job; makes a table that was never there, and launches the job where none runs.

    A table that was there and is gone is named and never made empty. The job is launched where pipelineOwner is
    composer or scheduler, at most five times in a row; with pulumi this says after --wait that none runs. A second
    run changes nothing.

    \b
    Examples:
      audit pipeline ensure             as the scheduled operation does it
      audit pipeline ensure --json | jq '.problems'

    Exit codes: 0 all is as it must be, 1 a person must see to something, 2 it could not look.
    """
    from support.operations.ensure import Ensure

    def work() -> Report:
        return Ensure(current_connection(ctx), progress=_progress, wait=timedelta(minutes=wait)).run()

    report = attempt(work)
    summarise(ctx, report.summary)
    _show_report(report, as_json)
    ctx.exit(0 if report.well else 1)


@pipeline.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Shows the job: its state, who launches it, how far it has read, its generation. Changes nothing.

    Exit codes: 0 exactly one job runs, starts or drains, 1 none or more do, 2 it could not look.
    """
    from support.operations.status import status_of

    found = attempt(lambda: status_of(current_connection(ctx)))
    _show_status(found, as_json)
    ctx.exit(0 if len(found.jobs) == 1 else 1)


@pipeline.command()
@click.pass_context
def drain(ctx: click.Context) -> None:
    """Drains the job: it stops reading and writes what it has. Nobody launches it until `audit pipeline resume`.

    Spanner keeps changes for its retention alone: resume before that.
    """
    from support.operations.status import drain as drained

    click.echo(attempt(lambda: drained(current_connection(ctx))))


@pipeline.command()
@_wait
@json_option
@click.pass_context
def resume(ctx: click.Context, wait: float, as_json: bool) -> None:
    """Launches the job again after a drain, or after launches that failed; it resumes where it stopped."""
    from support.operations.ensure import Ensure
    from support.operations.status import resume as resumed

    def work() -> Report:
        resumed(current_connection(ctx))
        return Ensure(current_connection(ctx), progress=_progress, wait=timedelta(minutes=wait)).run()

    report = attempt(work)
    _show_report(report, as_json)
    ctx.exit(0 if report.well else 1)


def _progress(text: str) -> None:
    click.echo(f"{text} …", err=True)


def _show_report(report: Report, as_json: bool) -> None:
    if wants_json(as_json):
        print_json(_as_json(report))
        return
    rows: list[tuple[Any, ...]] = [(x.name, x.state, x.detail) for x in (*report.tables, *report.views)]
    rows += [(f"job {report.job.name}", report.job.state, ", ".join(job.id for job in report.job.jobs))]
    print_table(["what", "state", "detail"], rows, optional=["detail"])
    for line in (*report.notes, *report.problems):
        click.echo(line)
    if report.problems:
        click.echo(f"{report.outcome}: {report.problems[-1]}", err=True)


def _as_json(report: Report) -> dict[str, Any]:
    content = asdict(report)
    content["tables"] = [_named("table", each) for each in content["tables"]]
    content["views"] = [_named("view", each) for each in content["views"]]
    content["job"]["jobs"] = [{key: job[key] for key in ("id", "state", "since")} for job in content["job"]["jobs"]]
    return content


def _named(kind: str, looked: dict[str, Any]) -> dict[str, Any]:
    return {kind: looked["name"], "state": looked["state"], "detail": looked["detail"]}


def _show_status(found: Status, as_json: bool) -> None:
    if wants_json(as_json):
        print_json(found)
        return
    rows = [
        ("job", found.name),
        ("launched by", found.owner),
        ("state", found.state),
        ("jobs", ", ".join(f"{job.id} ({job.state})" for job in found.jobs) or "none"),
        ("resume position", f"{found.position:%Y-%m-%d %H:%M:%S} UTC" if found.position else "·"),
        ("behind now", f"{found.lag_seconds:.0f} s" if found.lag_seconds is not None else "·"),
        ("generation", str(found.generation) if found.generation is not None else "·"),
        ("launches since it ran well", str(found.launches.attempts)),
        ("drained by", found.launches.drained_by or "nobody"),
    ]
    print_table(["what", "now"], rows)
