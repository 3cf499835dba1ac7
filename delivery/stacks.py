"""A stack of this program under Pulumi's Automation API: the program runs in this process, the CLI does the rest."""

from __future__ import annotations

import contextlib
import logging
import runpy
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pulumi
import yaml
from pulumi import automation
from pulumi.automation import errors
from pulumi.runtime.config import set_config

from components.settings import WITHOUT_JOB
from components.settings.pause import PAUSED
from contract.errors import AuditError
from graph.google import TAKEN_OVER, import_id

PROJECT: Final = "payment-audit"
GUARDRAILS: Final = "guardrails"
# The key by which Pulumi marks a secret, an asset or a reference among plain values.
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"


class DeliveryError(AuditError):
    """A command cannot continue; the message says the rule and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the program and the stacks' files are, and where their state is kept.

    Empty `backend` and `secrets_provider`: what the CLI is logged in to, and what the stack's file says.
    """

    folder: Path
    backend: str = ""
    secrets_provider: str = ""


def open_stack(place: Place, name: str, *, make: bool, without_job: bool = False, paused: str = "") -> automation.Stack:
    """The stack of that name; `make` makes its state where there is none yet. Raises DeliveryError.

    `without_job` is for runs that leave the streaming job out: the program then needs no image. `paused` is for those
    that pause the stack: since when.
    """
    if not (place.folder / f"Pulumi.{name}.yaml").is_file():
        raise DeliveryError(f"stack must be one that has a Pulumi.<stack>.yaml, got {name!r}.")
    if not shutil.which("pulumi"):
        raise DeliveryError(
            "The Pulumi CLI is not on PATH. Install it (https://www.pulumi.com/docs/install), or build it with "
            "`make pulumi` and put the folder that it names on PATH."
        )
    environment = {
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_BACKEND_URL": place.backend,
        # A build's checkout does not say how the stack's secrets are kept; without this it would be asked a passphrase.
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
    }
    options = automation.LocalWorkspaceOptions(
        work_dir=str(place.folder),
        env_vars={key: value for key, value in environment.items() if value},
        secrets_provider=place.secrets_provider or None,
        pulumi_command=_cli(),
    )
    run = program(place.folder, without_job=without_job, paused=paused)
    opened = automation.create_or_select_stack if make else automation.select_stack
    try:
        return opened(name, project_name=PROJECT, program=run, opts=options)
    except errors.StackNotFoundError as error:
        raise DeliveryError(
            f"Stack {name} has not been made yet. `python -m delivery.deploy up -s {name}` does."
        ) from error
    except errors.CommandError as error:
        raise DeliveryError(reason(error, name)) from error


@cache
def _cli() -> automation.PulumiCommand:
    """The CLI on PATH, which says its version once."""
    return automation.PulumiCommand()


def program(folder: Path, *, without_job: bool = False, paused: str = "") -> Callable[[], Any]:
    """`__main__.py` as an inline program. What its config breaks is reported as it is, without a trace."""

    # Where the engine stops first, the program's next call fails in a thread of gRPC, with a trace without information.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)

    def run() -> None:
        if without_job:
            # For this run alone, so it is in no stack's file.
            set_config(WITHOUT_JOB, "true")
        if paused:
            set_config(PAUSED, paused)
        try:
            runpy.run_path(str(folder / "__main__.py"), run_name="__main__")
        except AuditError as error:
            raise pulumi.RunError(str(error)) from error

    return run


def protects(place: Place, name: str) -> bool:
    """Whether the stack refuses deletions: its deletionProtection, true where its file says nothing."""
    return str(_config(place, name).get(f"{PROJECT}:deletionProtection", True)).lower() != "false"


def project_of(place: Place, name: str) -> str:
    """The stack's Google Cloud project."""
    return str(_config(place, name)[f"{PROJECT}:project"])


def _config(place: Place, name: str) -> Mapping[str, Any]:
    return _content(place, name).get("config") or {}


def _content(place: Place, name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((place.folder / f"Pulumi.{name}.yaml").read_text()))


@contextlib.contextmanager
def adopting(place: Place, name: str) -> Iterator[str]:
    """The path of the stack's config with adoptRetained on. Its own file stays as it is."""
    content = _content(place, name)
    content["config"] = {**content["config"], f"{PROJECT}:adoptRetained": True}
    with tempfile.NamedTemporaryFile("w", prefix=f"Pulumi.{name}.", suffix=".yaml") as file:
        yaml.safe_dump(content, file)
        file.flush()
        yield file.name


def recover(stack: automation.Stack, project: str, report: Callable[[str, str], None]) -> dict[str, Any]:
    """Finds out what became of what a run was doing that was ended by force, and takes it into the state.

    Pulumi has only noted that it began. What Google Cloud knows by the name that we gave it goes into the state as if
    it had been made, and a refresh takes out again what is not there. `report` gets what was done to which resource.
    Returns the stack's outputs, without its secrets. Raises DeliveryError.
    """
    state = stack.export_stack()
    deployment: dict[str, Any] = dict(state.deployment or {})
    pending = deployment.pop("pending_operations", None) or []
    outputs = _outputs(deployment)
    if not pending:
        return outputs
    for operation in pending:
        made, what = operation["resource"], operation["type"]
        report(what, made["urn"].split("::", 3)[3])
        id = import_id(project, made["type"], made.get("inputs") or {})
        if what == "creating" and id and made["type"] not in TAKEN_OVER:
            deployment["resources"].append({**made, "id": id})
    state.deployment = deployment
    try:
        stack.import_stack(state)
        stack.refresh()
    except errors.CommandError as error:
        raise DeliveryError(reason(error, stack.name)) from error
    return outputs


def _outputs(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """The stack's outputs in its state, where a secret is an object that says so."""
    made = [each for each in deployment.get("resources") or [] if each["type"] == "pulumi:pulumi:Stack"]
    return {
        name: value
        for each in made
        for name, value in (each.get("outputs") or {}).items()
        if not (isinstance(value, dict) and _SIGNATURE in value)
    }


def reason(error: errors.CommandError, stack: str) -> str:
    """What the CLI said, without its colours and its frame; a lock that a dead run left, with the remedy."""
    text = str(error)
    if isinstance(error, errors.ConcurrentUpdateError):
        return (
            f"Another run holds the lock of {stack}, or one that was killed left it. If none is running, "
            f"`pulumi cancel --stack {stack}` takes the lock away; then run this again."
        )
    said = [line.strip() for line in text.splitlines() if line.strip().startswith(("error:", "stderr: error:"))]
    return "\n".join(line.removeprefix("stderr:").strip() for line in said) or text.strip()
