"""`audit console`."""

from __future__ import annotations

import click

from support.cli.explained import Command
from support.cli.output import current_connection
from support.console.identity import ROLES, Role

_HOST = "127.0.0.1"


@click.command(cls=Command)
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="Port; 0: any free one.")
@click.option("--role", type=click.Choice(ROLES), default="lead", show_default=True, help="Role of whoever opens it.")
@click.option("--hide-personal", is_flag=True, help="As for a viewer who is not among personalDataReaders.")
@click.pass_context
def console(ctx: click.Context, port: int, role: Role, hide_personal: bool) -> None:
    """Serves the console on this machine: search, payments, stuck, failures, dead letters, objectives, runbooks.

    \b
    Examples:
      audit console
      audit console --port 8091 --role viewer --hide-personal
      audit --connection prod.json console

    It listens on the loopback address alone, and takes whoever reaches it for you: nobody signs in.
    """
    import getpass
    import socket

    import uvicorn

    from support.console.app import create
    from support.console.identity import Development, Viewer

    connection = current_connection(ctx)
    viewer = Viewer(email=f"{getpass.getuser()}@localhost", role=role, sees_personal=not hide_personal)
    app = create(connection, Development(known=viewer), hosts=frozenset({_HOST, "localhost"}))
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_HOST, port))
        except OSError as error:
            raise click.ClickException(
                f"port {port} cannot be opened: {error.strerror}. Choose another --port."
            ) from None
        click.echo(
            f"Console: http://{_HOST}:{listening.getsockname()[1]}  as {viewer.email}, {role}: nobody signs in here."
        )
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listening])
