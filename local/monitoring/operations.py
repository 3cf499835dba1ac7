"""The scheduled operations on one machine: the commands that Cloud Run's jobs run, at their times, one after the other.

    python -m local.monitoring.operations CONNECTION_FILE

Each run is recorded as in the cloud (`audit local status`, `audit health`). What a test or a person would wait for is
scaled: rows are compared each minute; the day's backup, whose snapshots are whole copies here, is made or continued and
tried each hour.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from contract.operations import BACKUP, BACKUP_DRILL, PIPELINE, SCHEDULED, VALIDATION, Operation
from support.operations.runs import interval_seconds

# In place of the cloud's interval.
_SCALED: Final = {VALIDATION.name: 60, BACKUP.name: 3600, BACKUP_DRILL.name: 3600}
# The others would wait meanwhile, and no deployment is to be waited for.
_AT_ONCE: Final = {PIPELINE.name: ("--wait=0",)}
# Behind the first backup: there is nothing to try before it.
_LATER: Final = {BACKUP_DRILL.name: 120}

# Runs `audit` with these arguments; gives its exit code.
Run = Callable[[Sequence[str]], int]


@dataclass
class Due:
    """An operation and when it is to run next, in seconds of a clock."""

    operation: Operation
    at: float

    @property
    def every(self) -> int:
        return every(self.operation)


def every(operation: Operation) -> int:
    """Seconds between two runs here."""
    return _SCALED.get(operation.name) or interval_seconds(operation.cron)


def schedule(now: float, operations: Sequence[Operation] = SCHEDULED) -> list[Due]:
    """Each of them, at once where that makes sense."""
    return [Due(operation=each, at=now + _LATER.get(each.name, 0)) for each in operations]


def step(due: list[Due], clock: Callable[[], float], connection: Path, run: Run) -> float:
    """Runs the one that is due first, if it is: seconds until the next one is."""
    first = min(due, key=lambda each: each.at)
    now = clock()
    if first.at <= now:
        name, command = first.operation.name, first.operation.command
        arguments = [f"--connection={connection}", f"--operation={name}", *command, *_AT_ONCE.get(name, ())]
        code = run(arguments)
        print(f"{datetime.now(UTC):%H:%M:%S} {name}: exit code {code}", flush=True)
        # One that took longer than its interval is due at once, and runs that were missed are not made up for.
        first.at = max(first.at + first.every, clock())
    return max(0.0, min(each.at for each in due) - clock())


def audit(arguments: Sequence[str]) -> int:
    """The command in this process: a new one would import for seconds."""
    from support.cli.main import main

    try:
        return main.main(list(arguments), prog_name="audit", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception as error:
        # The next run is still made; the error's text may quote a row.
        click.echo(f"{' '.join(arguments[2:])}: {type(error).__name__}", err=True)
        return 1


def run() -> None:
    """Runs them until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("connection", type=Path)
    connection = parser.parse_args().connection
    due = schedule(time.monotonic())
    while True:
        time.sleep(step(due, time.monotonic, connection, audit))


if __name__ == "__main__":
    run()
