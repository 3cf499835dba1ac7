"""The one handler of errors: a command of these classes shows an AuditError as it is, without a trace."""

from __future__ import annotations

from typing import Any

import click

from contract.errors import AuditError


class Command(click.Command):
    """A command whose AuditErrors are shown: exit code 1, or 2 and the command's usage for a wrong request."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AuditError as error:
            if error.exit_code == click.UsageError.exit_code:
                raise click.UsageError(str(error), ctx) from error
            raise click.ClickException(str(error)) from error


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type
