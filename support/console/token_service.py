"""The token service: a card's number becomes its tokens, one for each version of the masking key.

It alone reads the key, so that the console need not. It logs nothing, and no answer repeats what it was sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import click
from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from contract.errors import AuditError
from support import connection as connections
from support.cli.explained import Command
from support.console import asked

_LONGEST: Final = 64
_RULE: Final = 'the body must be {"card": a card\'s number}.'


def create(tokens: Callable[[str], tuple[str, ...]]) -> FastAPI:
    """The application. Who may call it is checked by Cloud Run, before."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(AuditError, _failed)

    @app.get("/healthz")
    def healthy() -> Response:
        return Response("ok\n")

    @app.post("/tokens")
    def tokens_of(card: Annotated[str, Body(embed=True, max_length=_LONGEST)]) -> Response:
        # Of nothing but cards: it must not become a service that masks anything.
        if not asked.is_card(card):
            return JSONResponse({"error": _RULE}, status_code=400)
        return JSONResponse({"tokens": tokens(card)})

    return app


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": _RULE}, status_code=400)


def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=503)


@click.command(cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8091, show_default=True, help="Port; 0: any free one.")
def serve(host: str, port: int) -> None:
    """Serves tokens of cards for the console."""
    import uvicorn

    from support.console.command import listening

    connection = connections.load()
    with listening(host, port) as opened:
        click.echo(f"Tokens: http://{host}:{opened.getsockname()[1]}")
        app = create(lambda card: asked.tokens(connection, card))
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[opened])


if __name__ == "__main__":
    serve(prog_name="support.console.token_service")
