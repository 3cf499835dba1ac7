"""Brings a stack to what the program says, for people and for pipelines.

\b
    python -m delivery.deploy preview -s dev
    python -m delivery.deploy up -s prod --json > report.json
    python -m delivery.deploy refresh -s prod        (drift; --accept takes it into the state)
    python -m delivery.deploy outputs -s dev > connection.json
    python -m delivery.deploy destroy -s dev

Every preview and up runs the guardrails. A preview that replaces or deletes what holds data (databases, tables,
buckets, keys, secrets) is refused. Exit code: 0 nothing changes, 2 something does or did, 1 an error or a refusal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from pulumi import automation
from pulumi.automation import errors
from rich.console import Console

from components import naming
from delivery import changes, stacks
from delivery.changes import Change, Run
from delivery.program import exit_code
from delivery.stacks import DeliveryError, Place
from support.cli.explained import Group

ROOT: Final = Path(__file__).parent.parent
UNCHANGED, FAILED, CHANGED = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every command needs."""

    place: Place
    stack: str
    as_json: bool
    console: Console

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has."""
    for option in (
        click.option("-s", "--stack", required=True, help="dev, staging or prod."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; progress goes to stderr."),
        click.option(
            "--backend", envvar="PULUMI_BACKEND_URL", default="", help="gs://BUCKET or file://FOLDER of the state."
        ),
        click.option(
            "--secrets-provider",
            envvar="PULUMI_SECRETS_PROVIDER",
            default="",
            help="gcpkms://KEY for a new stack; an old one keeps its own.",
        ),
        click.option(
            "--folder", type=click.Path(path_type=Path, exists=True, file_okay=False), default=ROOT, hidden=True
        ),
    ):
        command = option(command)
    return command


def without_job(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--without-job",
        is_flag=True,
        help="All but the streaming job, which is left as it is: neither made nor changed. No image is needed.",
    )(command)


def job_of(stack: str, as_json: bool, backend: str, secrets_provider: str, folder: Path) -> Job:
    place = Place(folder=folder.absolute(), backend=backend, secrets_provider=secrets_provider)
    return Job(place=place, stack=stack, as_json=as_json, console=Console(stderr=as_json))


@click.group(cls=Group, help=__doc__)
def main() -> None:
    pass


@main.command()
@common
@click.option("--refresh", is_flag=True, help="Look at Google Cloud first, so that drift is in the preview.")
@click.option(
    "--allow-loss", multiple=True, metavar="NAME", help="Let this store go, where the stack has no protection."
)
@without_job
def preview(refresh: bool, allow_loss: tuple[str, ...], without_job: bool, **where: Any) -> int:
    """What `up` would do."""
    job = job_of(**where)
    stack = stacks.open_stack(job.place, job.stack, make=True, without_job=without_job)
    run = _preview(job, stack, refresh, without_job)
    refused = _refusal(job, run, allow_loss)
    return _report(job, "preview", run, refused=refused)


@main.command()
@common
@click.option("--refresh", is_flag=True, help="Look at Google Cloud first, so that drift is fixed.")
@click.option(
    "--allow-loss", multiple=True, metavar="NAME", help="Let this store go, where the stack has no protection."
)
@without_job
def up(refresh: bool, allow_loss: tuple[str, ...], without_job: bool, **where: Any) -> int:
    """Previews, refuses what would lose data, and then makes the stack what the program says."""
    job = job_of(**where)
    stack = stacks.open_stack(job.place, job.stack, make=True, without_job=without_job)
    _recover(job, stack)
    planned = _preview(job, stack, refresh, without_job)
    if planned.errors or (refused := _refusal(job, planned, allow_loss)):
        return _report(job, "up", planned, refused=[] if planned.errors else refused)
    how = _how(job, refresh, without_job)
    run = _heard(job, lambda hear: stack.up(on_event=hear, **how))
    return _report(job, "up", _adopt(job, stack, how, run) if run.kept else run)


@main.command()
@common
@click.option("--accept", is_flag=True, help="Take what is there into the state; `up` then fixes it.")
def refresh(accept: bool, **where: Any) -> int:
    """What differs in Google Cloud from what Pulumi made there."""
    job = job_of(**where)
    stack = stacks.open_stack(job.place, job.stack, make=False)
    run = _heard(job, lambda hear: stack.refresh(on_event=hear, preview_only=not accept), drift=True)
    return _report(job, "refresh", run)


@main.command()
@common
@click.option("--show-secrets", is_flag=True, help="Secret outputs in plain text.")
def outputs(show_secrets: bool, **where: Any) -> int:
    """The stack's outputs, as JSON: the connection file of `audit`."""
    job = job_of(**where)
    stack = stacks.open_stack(job.place, job.stack, make=False)
    click.echo(json.dumps(_outputs(stack.outputs(), show_secrets=show_secrets), indent=2))
    return UNCHANGED


@main.command()
@common
@click.option("--confirm", default="", metavar="STACK", help="The stack's name, typed: needed where it is protected.")
def destroy(confirm: str, **where: Any) -> int:
    """Deletes everything of the stack. A protected stack's name must be typed."""
    job = job_of(**where)
    if stacks.protects(job.place, job.stack) and confirm != job.stack:
        if confirm or not sys.stdin.isatty():
            raise DeliveryError(
                f"destroy of {job.stack} must be confirmed with its name, got {confirm!r}. "
                f"Nothing was deleted. If it is really to go: --confirm {job.stack}."
            )
        click.prompt(f"This deletes {job.stack} and its data. Type its name", type=click.Choice([job.stack]), err=True)
    stack = stacks.open_stack(job.place, job.stack, make=False)
    # What is protected stops it: before anything is deleted, not half-way.
    run = _heard(job, lambda hear: stack.preview_destroy(on_event=hear))
    if not run.errors:
        run = _heard(job, lambda hear: stack.destroy(on_event=hear))
    kept = changes.retained(run.found())
    return _report(job, "destroy", run, retained=[] if run.errors else kept)


# ---------------------------------------------------------------------- a run of Pulumi


def _preview(job: Job, stack: automation.Stack, refresh: bool, without_job: bool) -> Run:
    how = _how(job, refresh, without_job)
    return _heard(job, lambda hear: stack.preview(on_event=hear, **how))


def _how(job: Job, refresh: bool, without_job: bool) -> dict[str, Any]:
    """What a preview and the up after it share."""
    return {
        "refresh": refresh or None,
        "policy_packs": [str(job.place.folder / stacks.GUARDRAILS)],
        # Left out, not taken away: a running job stays as it is.
        "exclude": [f"**::{naming.STREAM_JOB}"] if without_job else None,
    }


def _heard(job: Job, start: Callable[[Callable[[Any], None]], Any], *, drift: bool = False) -> Run:
    """Runs Pulumi, and reports what it does meanwhile."""
    run = Run(drift=drift)
    with job.console.status(f"{job.stack} …") as status:

        def hear(event: Any) -> None:
            change = run.hear(event)
            if change and job.console.is_terminal:
                status.update(f"{job.stack}: {len(run.changes)} · {change.op} {change.kind} {change.name}")

        try:
            run.result = start(hear)
        except errors.CommandError as error:
            if not run.errors:
                run.errors.append(stacks.reason(error, job.stack))
    return run


def _adopt(job: Job, stack: automation.Stack, how: dict[str, Any], stopped: Run) -> Run:
    """Continues where names were taken by what Google kept of a stack that was destroyed: takes it into the state."""
    job.say(f"Google kept {', '.join(stopped.kept)} of a stack that was destroyed: taking it over.")
    with stacks.adopting(job.place, job.stack) as config_file:
        run = _heard(job, lambda hear: stack.up(on_event=hear, config_file=config_file, **how))
    run.changes = stopped.changes | run.changes
    return run


def _refusal(job: Job, run: Run, allowed: tuple[str, ...]) -> list[Change]:
    """The stores that would lose their data. In a stack without protection a person may let named ones go."""
    free = set(allowed) if not stacks.protects(job.place, job.stack) else set()
    return [change for change in run.found() if change.loses_data and change.name not in free]


def _recover(job: Job, stack: automation.Stack) -> None:
    """A run that was ended by force may have made what its state does not have: making it again would be a 409."""

    def report(what: str, name: str) -> None:
        job.say(f"The last run was ended by force while {what} {name}: checking whether it was done.")

    stacks.recover(stack, stacks.project_of(job.place, job.stack), report)


def _outputs(there: automation.OutputMap, *, show_secrets: bool = False) -> dict[str, Any]:
    return {
        name: "[secret]" if output.secret and not show_secrets else output.value
        for name, output in sorted(there.items())
    }


# ---------------------------------------------------------------------- the report


def _report(
    job: Job,
    command: str,
    run: Run,
    *,
    refused: list[Change] | None = None,
    retained: list[Change] | None = None,
) -> int:
    """Reports what was or would be done, and gives the exit code."""
    found = run.found()
    code = FAILED if run.errors or refused else CHANGED if found else UNCHANGED
    result = "failed" if run.errors else "refused" if refused else "changed" if found else "unchanged"
    if job.as_json:
        report = {
            "stack": job.stack,
            "command": command,
            "result": result,
            "counts": changes.counts(found),
            "changes": [change.as_json() for change in found],
            "refused": [change.name for change in refused or []],
            "retained": [change.name for change in retained or []],
            "errors": run.errors,
            **({"outputs": _outputs(run.result.outputs)} if isinstance(run.result, automation.UpResult) else {}),
        }
        click.echo(json.dumps(report, indent=2))
        return code
    job.say(f"{job.stack}, {command}: {result}")
    for line in [*changes.summary(found), *run.errors]:
        job.say(f"  {line}")
    if refused and not run.errors:
        job.say(_refused_text(job, refused))
    if retained:
        job.say(_retained_text(retained))
    return code


def _refused_text(job: Job, refused: list[Change]) -> str:
    names = ", ".join(f"{change.kind} {change.name}" for change in refused)
    way = (
        "Undo the change that causes it. What must really go is taken out of protection by hand first."
        if stacks.protects(job.place, job.stack)
        else "Undo the change that causes it, or let them go: " + " ".join(f"--allow-loss {c.name}" for c in refused)
    )
    return f"Refused: the data in {names} would be lost. {way}"


def _retained_text(retained: list[Change]) -> str:
    names = ", ".join(f"{change.kind} {change.name}" for change in retained)
    return (
        f"Google keeps {names}. The next `up` of this program takes them over. A bare `pulumi up` would fail with 409, "
        "already exists: it needs payment-audit:adoptRetained set to true in the stack's file, for that once."
    )


def run(args: list[str] | None = None) -> int:
    """The program: its exit code."""
    return exit_code(main, "delivery.deploy", args)


if __name__ == "__main__":
    sys.exit(run())
