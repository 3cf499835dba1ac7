"""What the commands of the operations share: their exit codes, and the record of a run.

A run is recorded round the whole command, so that one which fails before its work is recorded too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from contract.errors import AuditError

T = TypeVar("T")

COULD_NOT_LOOK: Final = 2
_SUMMARY: Final = "summary"


class Failed(click.ClickException):
    """It could not look, or was called wrongly: exit code 2, without the usage."""

    exit_code = COULD_NOT_LOOK


def attempt(work: Callable[[], T]) -> T:
    """What the work gives; an AuditError of it is shown as it is, with exit code 2: a 1 is what a command found."""
    try:
        return work()
    except AuditError as error:
        raise Failed(str(error)) from error


def summarise(ctx: click.Context, text: str) -> None:
    """What is recorded of this run, where it is an operation's: counts, and names of tables and jobs."""
    root = ctx.find_root()
    root.obj = {**(root.obj or {}), _SUMMARY: text}


def summary(root: click.Context) -> str:
    """What a command said of its run."""
    found: Any = (root.obj or {}).get(_SUMMARY, "")
    return str(found)


def recorded(root: click.Context, operation: str, work: Callable[[], T]) -> T:
    """The work, recorded as a run of an operation: when it began, how it ended, what it said."""
    from support import connection as connections
    from support.operations.runs import Recorder
    from support.who import who

    def warn(text: str) -> None:
        click.echo(text, err=True)

    record = attempt(lambda: Recorder(connections.load(root.params.get("connection")), operation, who, warn))
    record.begin()
    code, said = 1, ""
    try:
        answer = work()
        code = 0
        return answer
    except click.exceptions.Exit as error:
        code = error.exit_code
        raise
    except click.ClickException as error:
        code, said = error.exit_code, error.message
        raise
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    except BaseException as error:
        # Its text may quote a row.
        code, said = COULD_NOT_LOOK, type(error).__name__
        raise
    finally:
        record.end(code, summary(root) or said)
