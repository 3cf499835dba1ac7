"""`audit completion`."""

from __future__ import annotations

import click

from support.cli.explained import Command

_SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Prints the script by which a shell completes commands and options.

    \b
    Examples:
      eval "$(./audit completion bash)"                              this shell
      ./audit completion zsh >> ~/.zshrc                             each new one
      ./audit completion fish > ~/.config/fish/completions/audit.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind
    click.echo(kind(ctx.find_root().command, {}, "audit", "_AUDIT_COMPLETE").source())
