"""The starter: a service that starts this stack's Cloud Run jobs for Cloud Scheduler, which can call services alone.

    POST /<job>    starts it, where none of it is running

\b
Answers are JSON:
  200 {"job", "started": true}                       it was started
  200 {"job", "started": false, "running": NAME}     one is running: a schedule has what it was for
  404 {"error"}                                      no job of this stack that has a schedule
  502 {"error"}                                      Cloud Run refused, or did not answer

A run that is under way answers as a start does: Cloud Scheduler would repeat another answer, and report an error.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import click
from aiohttp import web

from contract.errors import AuditError
from support import cloud_run
from support.cli.explained import Command

IN_ENVIRONMENT: Final = "AUDIT_STARTER_JSON"


class StarterError(AuditError, ValueError):
    """The starter does not know its jobs; the message says the rule and the remedy."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """The jobs that it starts, and no other: the full name of each by the name in the request's path.

    `endpoint` is Cloud Run's address; empty is Google's.
    """

    jobs: Mapping[str, str]
    endpoint: str = ""

    @classmethod
    def load(cls) -> Jobs:
        """Of the environment. Raises StarterError."""
        try:
            given = json.loads(os.environ.get(IN_ENVIRONMENT, ""))
            return cls(jobs={str(name): str(job) for name, job in given["jobs"].items()}, endpoint="")
        except (ValueError, KeyError, TypeError, AttributeError):
            rule = '{"jobs": {name: full name}}'
            raise StarterError(
                f"{IN_ENVIRONMENT} must hold {rule}, and does not. components/starter.py sets it."
            ) from None

    def start(self, name: str) -> dict[str, str | bool]:
        """What a request answers. Raises CloudRunError."""
        if under_way := cloud_run.running(self.endpoint, self.jobs[name]):
            return {"job": name, "started": False, "running": under_way}
        cloud_run.start_job(self.endpoint, self.jobs[name])
        return {"job": name, "started": True}


def create(known: Jobs) -> web.Application:
    """The application. Who may call it is checked by Cloud Run, before."""

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def start(request: web.Request) -> web.Response:
        name = request.match_info["job"]
        if name not in known.jobs:
            there = ", ".join(sorted(known.jobs))
            return _error(404, f"the path must be a job with a schedule: {there}. Others are started in Cloud Run.")
        try:
            # Its client waits for an answer, and others are to be served meanwhile.
            done = await asyncio.to_thread(known.start, name)
        except cloud_run.CloudRunError as error:
            return _error(502, str(error))
        click.echo(json.dumps({"severity": "INFO", "message": "a start was requested", **done}))
        return web.json_response(done)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthy), web.post("/{job}", start)])
    return app


def _error(status: int, why: str) -> web.Response:
    click.echo(json.dumps({"severity": "ERROR", "message": why}), err=True)
    return web.json_response({"error": why}, status=status)


@click.command(cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8092, show_default=True, help="Port; 0: any free one.")
def serve(host: str, port: int) -> None:
    """Starts this stack's Cloud Run jobs for Cloud Scheduler."""
    web.run_app(create(Jobs.load()), host=host, port=port, access_log=None, print=None)


if __name__ == "__main__":
    serve(prog_name="support.starter")
