"""The images of job and console by their digests: which one a stack gets, and which one has passed where.

\b
    python -m delivery.pin image -s staging --name NAME --tag built-staging-COMMIT
    python -m delivery.pin image -s staging --name NAME-console --tag built-staging-COMMIT --setting consoleImage
    python -m delivery.pin passed -s staging --name NAME --tag staging-COMMIT

A tag moves and a digest does not. `image` asks the registry for a tag's digest and writes `image: NAME@sha256:…` into
the stack's file of this checkout, which Pulumi then reads; with `--setting consoleImage` it is the console's. `passed`
gives the pinned digest its own tags, once the stack is seen to work with it: `staging-COMMIT`, which prod pins, and
`staging-current`. Nothing is built twice.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import click
import yaml

from contract.errors import AuditError
from delivery.program import exit_code
from support.cli.explained import Group

ROOT: Final = Path(__file__).parent.parent
SETTINGS: Final = ("image", "consoleImage")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class PinError(AuditError):
    """An image cannot be pinned; the message says the remedy."""


@click.group(cls=Group, help=__doc__)
def main() -> None:
    pass


_stack = click.option("-s", "--stack", required=True, help="dev, staging or prod.")
_name = click.option("--name", required=True, help="Image without a tag: REGION-docker.pkg.dev/…/IMAGE.")
_setting = click.option(
    "--setting", type=click.Choice(SETTINGS), default=SETTINGS[0], show_default=True, help="Setting that names it."
)
_folder = click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=ROOT, hidden=True)


@main.command()
@_stack
@_name
@_setting
@_folder
@click.option("--tag", required=True, help="Tag whose digest is pinned.")
@click.option("--if-there", is_flag=True, help="Without such a tag, leave the stack's file as it is.")
def image(stack: str, name: str, setting: str, folder: Path, tag: str, if_there: bool) -> None:
    """Writes the digest behind a tag into the stack's file."""
    digest = _digest_of(f"{name}:{tag}")
    if digest is None:
        if if_there:
            click.echo(f"{name}:{tag} is not there: {stack} keeps what its file says.")
            return
        raise PinError(
            f"{name}:{tag} is not in the registry, so there is nothing that {stack} may run. A tag STACK-COMMIT is "
            "given when that stack has passed its smoke test with this commit: let it pass there first."
        )
    _write(folder / f"Pulumi.{stack}.yaml", setting, f"{name}@{digest}")
    click.echo(f"{stack}: {name}@{digest}")


@main.command()
@_stack
@_name
@_setting
@_folder
@click.option("--tag", required=True, help="Tag that says where and with which commit it passed: STACK-COMMIT.")
def passed(stack: str, name: str, setting: str, folder: Path, tag: str) -> None:
    """Tags the digest that the stack runs."""
    pinned = _config(folder / f"Pulumi.{stack}.yaml").get(_key(setting), "")
    digest = _DIGEST.search(pinned)
    if digest is None or not pinned.startswith(f"{name}@"):
        raise PinError(f"{stack} must run {name} by digest, got {pinned!r}. Run `python -m delivery.pin image` first.")
    for given in (tag, f"{stack}-current"):
        _gcloud("artifacts", "docker", "tags", "add", pinned, f"{name}:{given}")
        click.echo(f"{pinned} is {given}")


def _digest_of(reference: str) -> str | None:
    """The digest behind a tag; None where the registry has no such tag. Raises PinError for any other failure."""
    asked = _gcloud(
        "artifacts", "docker", "images", "describe", reference, "--format=value(image_summary.digest)", check=False
    )
    if asked.returncode:
        if re.search(r"not found|NOT_FOUND", asked.stderr, re.I):
            return None
        raise PinError(f"asking for {reference} failed: {asked.stderr.strip()}")
    digest = asked.stdout.strip()
    if not _DIGEST.fullmatch(digest):
        raise PinError(f"the digest of {reference} must be sha256:…, got {digest!r}.")
    return digest


def _gcloud(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["gcloud", *args, "--quiet"], check=False, capture_output=True, text=True)
    if check and done.returncode:
        raise PinError(f"gcloud {' '.join(args[:4])} failed: {done.stderr.strip()}")
    return done


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise PinError(f"stack must be one that has a Pulumi.<stack>.yaml, got none at {file.name}.")
    return yaml.safe_load(file.read_text())["config"] or {}


def _key(setting: str) -> str:
    return f"payment-audit:{setting}"


def _write(file: Path, setting: str, image: str) -> None:
    content = {"config": {**_config(file), _key(setting): image}}
    whole = {**yaml.safe_load(file.read_text()), **content}
    file.write_text(yaml.safe_dump(whole, sort_keys=False))


def run(args: list[str] | None = None) -> int:
    """The program: its exit code, 0 or 1."""
    return exit_code(main, "delivery.pin", args)


if __name__ == "__main__":
    sys.exit(run())
