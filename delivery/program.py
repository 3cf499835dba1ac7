"""Runs a command of delivery as a program."""

from __future__ import annotations

from collections.abc import Sequence

import click


def exit_code(command: click.Command, name: str, args: Sequence[str] | None, *expected: type[Exception]) -> int:
    """What the command returns, else 0; 1 for `expected` errors, reported without a trace.

    A usage error is 1 as well, and not click's 2: there 2 says that something changed.
    """
    try:
        return int(command.main(args, prog_name=f"python -m {name}", standalone_mode=False) or 0)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
    except click.Abort:
        click.echo("Aborted.", err=True)
    except expected as error:
        click.echo(str(error), err=True)
    return 1
