"""Brings a stack to what the program says, for people and for pipelines.

\b
    python -m delivery.deploy preflight -s dev       (what is missing, and who repairs it; reads only)
    python -m delivery.deploy preview -s dev
    python -m delivery.deploy up -s prod --json > report.json
    python -m delivery.deploy dry-run -s prod        (has the next launch tried, before the running job is drained)
    python -m delivery.deploy refresh -s prod        (drift; --accept takes it into the state)
    python -m delivery.deploy outputs -s dev > connection.json
    python -m delivery.deploy pause -s dev           (drains the job, stops what is scheduled; keeps the data)
    python -m delivery.deploy resume -s dev          (continues where it stopped; an `up` does too)
    python -m delivery.deploy destroy -s dev

Every preview and up runs the guardrails. A preview that replaces or deletes what holds data (databases, tables,
buckets, keys, secrets) is refused. Exit code: 0 nothing changes, 2 something does or did, 1 an error or a refusal;
of preflight, 0 all is good, 1 something is to be done, 2 something could not be looked at.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from pulumi import automation
from pulumi.automation import errors
from rich.console import Console

from components import naming
from components.config import stack_config
from components.settings.pause import SINCE, UNTIL
from contract.errors import AuditError
from delivery import changes, drain, launch_check, lock, stacks
from delivery.changes import Change, Run
from delivery.preflight import findings
from delivery.preflight.findings import Finding
from delivery.preflight.google import Google
from delivery.preflight.run import CHECKS, target_of
from delivery.preflight.run import preflight as run_preflight
from delivery.program import exit_code
from delivery.stacks import DeliveryError, Place
from graph.google import NOT_YET
from support.cli.explained import Group

ROOT: Final = Path(__file__).parent.parent
UNCHANGED, FAILED, CHANGED = 0, 1, 2
# Seconds before `up` is tried again.
_PAUSES: Final = (30.0, 60.0, 120.0)
# Of a table that goes to a file.
_WIDTH: Final = 140


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every command needs."""

    place: Place
    stack: str
    as_json: bool
    console: Console
    drain_minutes: float = drain.MINUTES

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


def _google(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--google-endpoint", default="", hidden=True, help="Where tests answer for Google.")(command)


def drain_minutes(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--drain-minutes",
        type=click.FloatRange(min=0, min_open=True),
        default=drain.MINUTES,
        show_default=True,
        help="A job that drains for longer is cancelled.",
    )(command)


def job_of(
    stack: str,
    as_json: bool,
    backend: str,
    secrets_provider: str,
    folder: Path,
    drain_minutes: float = drain.MINUTES,
) -> Job:
    place = Place(folder=folder.absolute(), backend=backend, secrets_provider=secrets_provider)
    console = Console(stderr=as_json)
    return Job(place=place, stack=stack, as_json=as_json, console=console, drain_minutes=drain_minutes)


@click.group(cls=Group, help=__doc__)
def main() -> None:
    pass


@main.command()
@common
@_google
def preflight(google_endpoint: str, **where: Any) -> int:
    """What is missing before `up` can work, why, and who repairs it how. Reads only."""
    job = job_of(**where)
    google = Google(endpoint=google_endpoint)
    found = _looked_at(job, google)
    if job.as_json:
        click.echo(json.dumps(findings.as_json(job.stack, google.account, found), indent=2))
    else:
        console = job.console if job.console.is_terminal else Console(width=_WIDTH)
        console.print(findings.table(found))
        job.say(f"{job.stack}: {findings.counted(found)}")
    return findings.result(found)


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
@click.option("--no-preflight", is_flag=True, help="Do not look first whether something is missing.")
@_google
@without_job
@drain_minutes
def up(
    refresh: bool,
    allow_loss: tuple[str, ...],
    no_preflight: bool,
    google_endpoint: str,
    without_job: bool,
    **where: Any,
) -> int:
    """Looks what is missing, previews, refuses what would lose data, and makes the stack what the program says."""
    job = job_of(**where)
    if not no_preflight and (blockers := _blockers(job, Google(endpoint=google_endpoint))):
        return _report(job, "up", Run(errors=[_line(finding) for finding in blockers]))
    stack = stacks.open_stack(job.place, job.stack, make=True, without_job=without_job)
    return _brought_up(job, stack, "up", refresh, without_job, allow_loss)


@main.command("dry-run")
@common
@_google
def dry_run(google_endpoint: str, **where: Any) -> int:
    """Has the next launch tried as the job's account: settings, schema, permissions to read and write.

    After `up --without-job`, which brings the trial to the new image and options, and before the `up` that drains the
    running job. Nothing is written. Exit code: 0 the job can start, 1 it cannot.
    """
    job = job_of(**where)
    config = stack_config(job.stack)
    with job.console.status(f"{job.stack}: trying the launch …"):
        names = naming.Names(project=config["project"], prefix=config.get("prefix") or "")
        result = launch_check.tried(Google(endpoint=google_endpoint), names, config["region"])
    if job.as_json:
        click.echo(json.dumps({"stack": job.stack, "good": result.good, "execution": result.execution}, indent=2))
    elif result.good:
        job.say(f"{job.stack}, dry-run: the job can start ({result.execution.rpartition('/')[2]})")
    else:
        job.say(
            f"{job.stack}, dry-run: the job would not start. The running one was left as it is. What was found:\n"
            f"  {result.log}"
        )
    return UNCHANGED if result.good else FAILED


@main.command()
@common
@drain_minutes
def pause(**where: Any) -> int:
    """Drains the job and stops what is scheduled, until `resume` or the next `up`. The data is kept; prod is refused.

    Spanner keeps changes for its retention alone: the pause must end before, and says when that is.
    """
    job = job_of(**where)
    if job.stack == "prod":
        raise DeliveryError("pause must be of another stack than prod, whose changes must be audited, got 'prod'.")
    there = stacks.open_stack(job.place, job.stack, make=False).outputs()
    # A pause that is there already is not longer for being requested again.
    since = str(there[SINCE].value) if SINCE in there else datetime.now(UTC).isoformat(timespec="seconds")
    stack = stacks.open_stack(job.place, job.stack, make=False, paused=since)
    code = _brought_up(job, stack, "pause", refresh=False, without_job=False, allow_loss=())
    if code in (UNCHANGED, CHANGED) and (owner := stack_config(job.stack)["pipelineOwner"]) != "pulumi":
        job.say(
            f"pipelineOwner of {job.stack} is {owner}: no job is launched in the pause, and the one that runs is to be "
            "drained: ./audit pipeline drain"
        )
    after = stack.outputs()
    if code != FAILED and UNTIL in after:
        job.say(
            f"{job.stack} is paused since {since}. Spanner keeps the changes from then on until {after[UNTIL].value}: "
            f"`python -m delivery.deploy resume -s {job.stack}` before that. Each `up` resumes too."
        )
    return code


@main.command()
@common
@drain_minutes
def resume(**where: Any) -> int:
    """Ends a pause: the job resumes where it was drained."""
    job = job_of(**where)
    stack = stacks.open_stack(job.place, job.stack, make=False)
    there = stack.outputs()
    if UNTIL not in there:
        job.say(f"{job.stack} is not paused.")
        return UNCHANGED
    if datetime.fromisoformat(str(there[UNTIL].value)) <= datetime.now(UTC):
        raise DeliveryError(
            f"resume must come before {there[UNTIL].value}, when Spanner forgot the first change of the pause. "
            f"Changes from {there[SINCE].value} on can no longer be read from the change streams: "
            "runbooks/AuditRetentionClock.md says what is left, `audit backfill` reads the rows as they are. Then `up`."
        )
    return _brought_up(job, stack, "resume", refresh=False, without_job=False, allow_loss=())


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
@drain_minutes
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


# ---------------------------------------------------------------------- before a run


def _looked_at(job: Job, google: Google) -> list[Finding]:
    """Every finding of preflight; on a terminal with what it waits for."""
    left = list(CHECKS)
    with job.console.status(f"{job.stack}: reading the program …") as status:

        def ended(check: str) -> None:
            left.remove(check)
            status.update(f"{job.stack}: looking at {', '.join(left) or 'nothing more'} …")

        return run_preflight(target_of(job.stack, google), ended)


def _blockers(job: Job, google: Google) -> list[Finding]:
    """What makes `up` fail. What else was found is said, and keeps nobody back."""
    try:
        found = _looked_at(job, google)
    except AuditError:
        # A config that the program refuses: the preview reports it, with all else that is wrong.
        return []
    if findings.result(found) != findings.GOOD:
        job.say(f"{job.stack}, preflight: {findings.counted(found)}. `preflight -s {job.stack}` shows which.")
    return findings.blockers(found)


def _line(finding: Finding) -> str:
    return f"{finding.check}: {finding.what}: {finding.why}. {finding.who}: {finding.repair}. Or --no-preflight."


# ---------------------------------------------------------------------- a run of Pulumi


def _brought_up(
    job: Job, stack: automation.Stack, command: str, refresh: bool, without_job: bool, allow_loss: tuple[str, ...]
) -> int:
    """Previews, refuses what would lose data, and makes the stack what its program says. The exit code."""
    outputs = _recover(job, stack)
    planned = _preview(job, stack, refresh, without_job)
    if planned.errors or (refused := _refusal(job, planned, allow_loss)):
        return _report(job, command, planned, refused=[] if planned.errors else refused)
    how = _how(job, refresh, without_job)
    with lock.held(outputs, job.say):
        run = _up(job, stack, how)
        run = _adopt(job, stack, how, run) if run.kept else run
    return _report(job, command, run)


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
    project = stacks.project_of(job.place, job.stack)
    limit = drain.DrainLimit(project=project, minutes=job.drain_minutes, say=job.say, cancel=drain.cancel)
    with job.console.status(f"{job.stack} …") as status:

        def hear(event: Any) -> None:
            limit.hear(event)
            change = run.hear(event)
            if change and job.console.is_terminal:
                status.update(f"{job.stack}: {len(run.changes)} · {change.op} {change.kind} {change.name}")

        try:
            run.result = start(hear)
        except errors.CommandError as error:
            if not run.errors:
                run.errors.append(stacks.reason(error, job.stack))
        finally:
            limit.over()
    return run


def _up(job: Job, stack: automation.Stack, how: dict[str, Any]) -> Run:
    """Runs it, and again where Google refuses only what needs a change that it has not carried out yet."""
    before: dict[str, Change] = {}
    for pause in (*_PAUSES, None):
        # Of the summary at its end nothing is read, so no secret of the config is decrypted for it.
        run = _heard(job, lambda hear: stack.up(on_event=hear, show_secrets=False, **how))
        run.changes = before = before | run.changes
        causes = [error for error in run.errors if error != "update failed"]
        if pause is None or not causes or not all(NOT_YET.search(error) for error in causes):
            break
        job.say(f"{job.stack}: Google has not carried an earlier change out yet. Again in {pause:.0f} s.")
        time.sleep(pause)
    return run


def _adopt(job: Job, stack: automation.Stack, how: dict[str, Any], stopped: Run) -> Run:
    """Continues where names were taken by what Google kept of a stack that was destroyed: takes it into the state."""
    job.say(f"Google kept {', '.join(stopped.kept)} of a stack that was destroyed: taking it over.")
    with stacks.adopting(job.place, job.stack) as config_file:
        run = _heard(job, lambda hear: stack.up(on_event=hear, show_secrets=False, config_file=config_file, **how))
    run.changes = stopped.changes | run.changes
    return run


def _refusal(job: Job, run: Run, allowed: tuple[str, ...]) -> list[Change]:
    """The stores that would lose their data. In a stack without protection a person may let named ones go."""
    free = set(allowed) if not stacks.protects(job.place, job.stack) else set()
    return [change for change in run.found() if change.loses_data and change.name not in free]


def _recover(job: Job, stack: automation.Stack) -> dict[str, Any]:
    """A run that was ended by force may have made what its state does not have: making it again would be a 409.

    Returns the stack's outputs.
    """

    def report(what: str, name: str) -> None:
        job.say(f"The last run was ended by force while {what} {name}: checking whether it was done.")

    return stacks.recover(stack, stacks.project_of(job.place, job.stack), report)


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
