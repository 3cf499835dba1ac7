"""The stacks' files, read without Pulumi: what a stack's config says before anything runs."""

from pathlib import Path
from typing import Any, Final

import yaml

from contract.errors import AuditError

ROOT: Final = Path(__file__).parent.parent
# A run of the program reads these files eight times, and libyaml takes a tenth of the time that PyYAML alone takes.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StackFileError(AuditError, ValueError):
    """A stack's file cannot be used; the message says the rule and the remedy."""


def stack_config(stack: str) -> dict[str, Any]:
    """A stack's values by key: the defaults of Pulumi.yaml, and the stack's own file over them. StackFileError."""
    project = _content(ROOT / "Pulumi.yaml")
    declared = project["config"]
    values = {key: value["default"] for key, value in declared.items() if "default" in value}
    file = ROOT / f"Pulumi.{stack}.yaml"
    if not file.is_file():
        known = ", ".join(stacks())
        raise StackFileError(f"a stack must have its file, got {stack!r} without {file.name}. There are {known}.")
    for key, value in (_content(file).get("config") or {}).items():
        name = key.removeprefix(f"{project['name']}:")
        if name not in declared:
            raise StackFileError(
                f"{file.name}: {key} is not declared in Pulumi.yaml. Declare it there, or fix its name."
            )
        values[name] = value
    return values


def _content(file: Path) -> dict[str, Any]:
    return dict(yaml.load(file.read_text(), Loader=_LOADER))  # noqa: S506 - both are safe


def stacks() -> tuple[str, ...]:
    """The stacks that have a file, `local` among them."""
    return tuple(sorted(file.name.split(".")[1] for file in ROOT.glob("Pulumi.*.yaml")))


def beside(project: str, stack: str) -> dict[str, dict[str, Any]]:
    """The config of each other stack whose file says that it is in this Google Cloud project."""
    others = {other: stack_config(other) for other in stacks() if other != stack}
    return {other: values for other, values in others.items() if values.get("project") == project}
