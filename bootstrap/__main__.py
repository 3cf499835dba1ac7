"""python -m bootstrap: makes what a stack's first `pulumi up` needs, and leaves alone what is there already."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from typing import Final

import click

from bootstrap.steps import Stack, Step, steps
from components.config import stack_config
from components.settings.orchestration import COMPOSER
from contract.errors import AuditError
from graph.google import NOT_YET
from support.cli.explained import Command

_WAIT_SECONDS: Final = 600
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 20.0


class BootstrapError(AuditError):
    """gcloud refused a step."""


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-s", "--stack", "name", required=True, help="The stack; project and region are those of its file.")
@click.option("--operator", "operators", multiple=True, help="Who may run pulumi as deployer-sa: user:ops@example.com.")
@click.option("--promotes-to", "later", multiple=True, help="A stack that takes this one's images; bootstrap it first.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=_WAIT_SECONDS,
    show_default=True,
    help="Most seconds to wait for a change that Google has accepted to take effect.",
)
@click.option("--dry-run", is_flag=True, help="Print the commands that would be run, and run none.")
def main(name: str, operators: tuple[str, ...], later: tuple[str, ...], *, wait: float, dry_run: bool) -> None:
    """Make what must be there before a stack's first `pulumi up`: state, keys, image repository, accounts.

    Run it as an owner of the project, once. Run again, it makes only what is missing; it changes and deletes nothing.
    """
    config = stack_config(name)
    promotes_to = tuple(str(stack_config(stack)["project"]) for stack in later)
    stack = Stack(
        name=name,
        project=config["project"],
        region=config["region"],
        number="<project number>" if dry_run else _number(config["project"]),
        access_policy=config["accessPolicy"],
        operators=operators,
        promotes_to=promotes_to,
        composer=config["orchestration"] == COMPOSER and not config["composerEnvironment"],
    )
    for line in _print(stack) if dry_run else _run(stack, wait):
        click.echo(line)
    click.echo("\n".join(["", "Next:", *(f"  {command}" for command in _next(stack))]))


def _print(stack: Stack) -> Iterator[str]:
    for step in steps(stack):
        yield f"# {step.what}"
        yield shlex.join(["gcloud", *step.make])


def _run(stack: Stack, wait: float) -> Iterator[str]:
    made = 0
    for step in steps(stack):
        there = _there(step)
        if not there:
            yield from _make(step, wait)
            made += 1
        yield f"{'there' if there else 'made ':5}  {step.what}"
    yield f"{made} made." if made else "Everything was there."


def _make(step: Step, wait: float) -> Iterator[str]:
    """Makes it; where Google refuses what it will soon accept, says so and tries again, for `wait` seconds at most."""
    deadline, pause = time.monotonic() + wait, _FIRST_PAUSE
    while True:
        try:
            _gcloud(step.make)
        except BootstrapError as error:
            if not NOT_YET.search(str(error)) or time.monotonic() + pause > deadline:
                raise
            yield f"wait   {step.what}: Google has not carried an earlier change out yet. Again in {pause:.0f} s"
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return


def _there(step: Step) -> bool:
    looked = subprocess.run(["gcloud", *step.look], check=False, capture_output=True, text=True)
    if looked.returncode:
        return False
    if step.grant:
        return _granted(json.loads(looked.stdout or "{}"), *step.grant)
    return set(step.has) <= set(re.split(r"[\s;]+", looked.stdout))


def _granted(policy: dict[str, list[dict[str, object]]], member: str, role: str, condition: str) -> bool:
    for binding in policy.get("bindings", []):
        held: object = binding.get("condition") or {}
        expression = held.get("expression", "") if isinstance(held, dict) else ""
        members = binding.get("members")
        if binding.get("role") == role and expression == condition and isinstance(members, list) and member in members:
            return True
    return False


def _gcloud(arguments: tuple[str, ...]) -> str:
    done = subprocess.run(["gcloud", "--quiet", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise BootstrapError(
            f"gcloud refused: {shlex.join(['gcloud', *arguments])}\n{done.stderr.strip()}\n"
            "Fix what it says, and run bootstrap again: it continues where it stopped."
        )
    return done.stdout.strip()


def _number(project: str) -> str:
    return _gcloud(("projects", "describe", project, "--format=value(projectNumber)"))


def _next(stack: Stack) -> tuple[str, ...]:
    """As docs/deployment.md has them.

    Pulumi's gs:// backend and gcpkms:// read application default credentials, as its provider does, which alone reads
    GOOGLE_IMPERSONATE_SERVICE_ACCOUNT. Sources: pulumi.com/docs/iac/concepts/state-and-backends,
    cloud.google.com/docs/authentication/use-service-account-impersonation.
    """
    return (
        f"gcloud auth application-default login --impersonate-service-account={stack.deployer}",
        f"pulumi login {stack.state}",
        f".venv/bin/python -m delivery.deploy preflight -s {stack.name}",
        # The command that makes the stack's state says how its secrets are kept.
        f".venv/bin/python -m delivery.deploy preview -s {stack.name} --without-job --secrets-provider={stack.secrets}",
        f".venv/bin/python -m delivery.deploy up -s {stack.name} --without-job",
    )


if __name__ == "__main__":
    main()
