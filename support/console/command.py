"""`audit console`."""

from __future__ import annotations

import ipaddress
import socket

import click

from support.cli.explained import Command
from support.cli.output import current_connection
from support.console.card_tokens import CardTokens
from support.console.cloud import IN_ENVIRONMENT, CloudSettings
from support.console.identity import ROLES, Development, Identity, Role, Viewer

_HOST = "127.0.0.1"


@click.command(cls=Command)
@click.option("--host", default=_HOST, show_default=True, help="Address to listen on; another only behind the proxy.")
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="Port; 0: any free one.")
@click.option("--role", type=click.Choice(ROLES), default="lead", show_default=True, help="Role of whoever opens it.")
@click.option("--hide-personal", is_flag=True, help="As for a viewer who is not among personalDataReaders.")
@click.pass_context
def console(ctx: click.Context, host: str, port: int, role: Role, hide_personal: bool) -> None:
    """Serves the console on this machine: search, payments, stuck, failures, dead letters, objectives, runbooks.

    \b
    Examples:
      audit console
      audit console --port 8091 --role viewer --hide-personal
      audit --connection prod.json console

    It listens on the loopback address alone, and takes whoever reaches it for you: nobody signs in. In Google Cloud
    the container's AUDIT_CONSOLE_JSON says who may, and Identity-Aware Proxy who it is.
    """
    import getpass

    import uvicorn

    from support.console.app import create

    connection, cloud = current_connection(ctx), CloudSettings.load()
    identity: Identity
    if cloud:
        identity, hosts, who = cloud.identity(), frozenset[str](), "behind Identity-Aware Proxy"
    else:
        _refuse_others(host)
        viewer = Viewer(email=f"{getpass.getuser()}@localhost", role=role, sees_personal=not hide_personal)
        identity, hosts = Development(known=viewer), frozenset({host, "localhost"})
        who = f"as {viewer.email}, {role}: nobody signs in here."
    tokens = CardTokens(url=cloud.card_tokens).of if cloud and cloud.card_tokens else None
    app = create(connection, identity, hosts=hosts, tokens=tokens)
    with listening(host, port) as opened:
        click.echo(f"Console: http://{host}:{opened.getsockname()[1]}  {who}")
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[opened])


def _refuse_others(host: str) -> None:
    """Raises BadParameter for an address that other machines reach, where nobody signs in."""
    try:
        loopback = host == "localhost" or ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise click.BadParameter(
            f"{host} must be a loopback address, such as {_HOST}: whoever reaches the console is taken for you. "
            f"Others are let in by the stack's own console, behind Identity-Aware Proxy ({IN_ENVIRONMENT}).",
            param_hint="--host",
        )


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ClickException where the port is taken."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        # Whoever reads the address may open it at once.
        opened.listen()
    except OSError as error:
        opened.close()
        raise click.ClickException(f"port {port} cannot be opened: {error.strerror}. Choose another --port.") from None
    return opened
