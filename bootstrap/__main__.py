"""python -m bootstrap: makes what a stack's first `pulumi up` needs, and leaves alone what is there already."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator

import click

from bootstrap.steps import Stack, Step, steps
from components.config import stack_config
from contract.errors import AuditError
from support.cli.explained import Command


class BootstrapError(AuditError):
    """gcloud refused a step."""


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-s", "--stack", "name", required=True, help="The stack; project and region are those of its file.")
@click.option("--operator", "operators", multiple=True, help="Who may run pulumi as deployer-sa: user:ops@example.com.")
@click.option("--promotes-to", "later", multiple=True, help="A stack that takes this one's images; bootstrap it first.")
@click.option("--dry-run", is_flag=True, help="Print the commands that would be run, and run none.")
def main(name: str, operators: tuple[str, ...], later: tuple[str, ...], *, dry_run: bool) -> None:
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
    )
    for line in _print(stack) if dry_run else _run(stack):
        click.echo(line)
    click.echo("\n".join(["", "Next:", *(f"  {command}" for command in _next(stack))]))


def _print(stack: Stack) -> Iterator[str]:
    for step in steps(stack):
        yield f"# {step.what}"
        yield shlex.join(["gcloud", *step.make])


def _run(stack: Stack) -> Iterator[str]:
    made = 0
    for step in steps(stack):
        there = _there(step)
        if not there:
            _gcloud(step.make)
            made += 1
        yield f"{'there' if there else 'made ':5}  {step.what}"
    yield f"{made} made." if made else "Everything was there."


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
    return (
        f"export GOOGLE_IMPERSONATE_SERVICE_ACCOUNT={stack.deployer}",
        f"pulumi login {stack.state}",
        f"pulumi stack init {stack.name} --secrets-provider={stack.secrets}",
        f"pulumi up --stack {stack.name}",
    )


if __name__ == "__main__":
    main()
