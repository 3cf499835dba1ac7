"""Checks that a stack works, after a deploy. It writes nothing: an audit store gets no payments that nobody made.

\b
    python -m delivery.smoke --connection connection.json --wait 900
    python -m delivery.smoke --json

The job runs (in Google Cloud; on one machine its position says so), its position follows the clock, every view is one
that BigQuery accepts: a dry run, which reads nothing. And no scheduled operation failed when it last ran, by a DAG or
by Cloud Scheduler. Exit code: 0 all of it, 1 not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from contract import queries
from contract.operations import SCHEDULED, Operation
from delivery.program import exit_code
from support.cli.explained import Command
from support.cli.output import print_json, print_table
from support.connection import Connection, load
from support.warehouse import Warehouse, WarehouseError

if TYPE_CHECKING:
    from support.operations.runs import LastRun

_PAUSE: Final = 5.0
_ANSWER_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked. `ok` is None where it cannot be seen from here."""

    name: str
    ok: bool | None
    found: str


@click.command(cls=Command, help=__doc__)
@click.option("--connection", type=click.Path(dir_okay=False, path_type=Path), help="File with the stack's outputs.")
@click.option("--region", help="Region of the job; without it the one of the connection.")
@click.option("--max-lag", type=click.FloatRange(0), default=60, show_default=True, help="Most seconds behind now.")
@click.option(
    "--wait", type=click.FloatRange(0), default=0, show_default=True, help="Seconds to wait until all checks pass."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def main(connection: Path | None, region: str | None, max_lag: float, wait: float, as_json: bool) -> int:
    there = load(connection)
    checks = _awaited(lambda: list(look(there, region or there.region, max_lag)), wait)
    well = all(check.ok is not False for check in checks)
    if as_json:
        print_json({"ok": well, "checks": checks})
    else:
        marks = {True: "ok", False: "FAILED", None: "not seen from here"}
        print_table(["check", "", "found"], [(c.name, marks[c.ok], c.found) for c in checks])
    return 0 if well else 1


def look(connection: Connection, region: str, max_lag: float) -> Iterator[Check]:
    """Every check once."""
    warehouse = Warehouse(connection, seconds=_ANSWER_SECONDS)
    yield _job(connection, region)
    yield _position(warehouse, max_lag)
    for name in queries.views():
        yield _accepted(f"view {name}", warehouse, f"SELECT * FROM {warehouse.view(name)}")
    yield from _operations(connection)


def _awaited(checks: Callable[[], list[Check]], seconds: float) -> list[Check]:
    """The checks, once all pass or the time is over: a new job needs minutes before it reads."""
    deadline = time.monotonic() + seconds
    while True:
        found = checks()
        if all(check.ok is not False for check in found) or time.monotonic() + _PAUSE > deadline:
            return found
        time.sleep(_PAUSE)


def _job(connection: Connection, region: str) -> Check:
    name = f"job {connection.job_name}"
    if connection.big_query_endpoint:
        return Check(name=name, ok=None, found="no Dataflow behind this connection; see the position")
    states = _states(connection, region)
    running = states.count("JOB_STATE_RUNNING")
    return Check(name=name, ok=running == 1, found=", ".join(states) or f"no active job in {region}")


def _states(connection: Connection, region: str) -> list[str]:
    """The states of the active jobs of that name: two would fence each other."""
    from google.cloud import dataflow_v1beta3 as dataflow

    request = dataflow.ListJobsRequest(
        project_id=connection.project, location=region, filter=dataflow.ListJobsRequest.Filter.ACTIVE
    )
    jobs = dataflow.JobsV1Beta3Client().list_jobs(request=request, timeout=_ANSWER_SECONDS)
    return [job.current_state.name for job in jobs if job.name == connection.job_name]


def _position(warehouse: Warehouse, max_lag: float) -> Check:
    try:
        position = warehouse.complete_until()
    except WarehouseError as error:
        return Check(name="position", ok=False, found=str(error))
    if position is None:
        return Check(name="position", ok=False, found="no job has written one for a week")
    lag = (datetime.now(UTC) - position).total_seconds()
    found = f"complete until {position.isoformat(timespec='seconds')}, {lag:.0f} s behind now (at most {max_lag:.0f})"
    return Check(name="position", ok=lag <= max_lag, found=found)


def _operations(connection: Connection) -> Iterator[Check]:
    """The last run of each operation, as it recorded it itself."""
    from google.api_core.exceptions import GoogleAPIError

    from support.operations.runs import Runs

    if not connection.metadata_database:
        yield Check(name="operations", ok=None, found="no metadata database behind this connection")
        return
    try:
        runs = {run.operation: run for run in Runs(connection).last()}
    except GoogleAPIError as error:
        yield Check(name="operations", ok=None, found=f"their records cannot be read ({type(error).__name__})")
        return
    for operation in SCHEDULED:
        yield _last_run(operation, runs.get(operation.name))


def _last_run(operation: Operation, run: LastRun | None) -> Check:
    name = f"operation {operation.name}"
    if run is None or run.started_at is None:
        return Check(name=name, ok=None, found="has not run yet")
    if run.failures:
        found = f"failed since {run.started_at.isoformat(timespec='seconds')}: {run.summary}. Run {operation.job} again"
        return Check(name=name, ok=False, found=found)
    return Check(name=name, ok=True, found=f"{run.outcome or 'runs'}, {run.started_at.isoformat(timespec='seconds')}")


def _accepted(name: str, warehouse: Warehouse, sql: str) -> Check:
    try:
        read = warehouse.dry_run(sql)
    except WarehouseError as error:
        return Check(name=name, ok=False, found=str(error))
    return Check(name=name, ok=True, found=f"reads {read:,} bytes")


def run(args: list[str] | None = None) -> int:
    """The program: its exit code, 0 or 1."""
    try:
        return exit_code(main, "delivery.smoke", args)
    except Exception as error:  # A missing permission or a dead network is an answer too, not a trace.
        click.echo(f"{type(error).__name__}: {error}", err=True)
    return 1


if __name__ == "__main__":
    sys.exit(run())
