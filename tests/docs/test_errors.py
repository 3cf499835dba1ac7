"""The tree of errors: what people read has one base, what only steers the code is listed with its reason."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import contract.errors
from contract.errors import AuditError
from support.cli.explained import Command, Group

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "contract", "alerts", "components", "graph", "guardrails", "delivery", "bootstrap", "pipeline", "support", "probe",
    "local",
)  # fmt: skip
# Exceptions that nobody reads, and why they are no AuditErrors.
INTERNAL = {
    "contract.changes.StepError": "becomes a dead letter, whose reason has the remedy",
    "local.emulators.dataflow.Refused": "the stand-in's answer to a request, with its HTTP status",
    "local.traffic.commits.Unanswered": "the commit is looked up, and sent again if it is not there",
    "pipeline.sink.changelogs.NotReady": "the table's new column is waited for",
    "pipeline.sink.connection.NoAnswer": "the append is sent again",
    "pipeline.sink.connection.TooLarge": "the batch is split",
    "pipeline.sink.pending._Doubt": "the rows go to another pending stream",
    "pipeline.sink.pending._Halve": "the rows of a request are sent in two",
    "pipeline.sink.generations.Fenced": "a newer job has taken over: the runner gives this one's work up",
    "pipeline.sink.retry._Late": "the round ends, the next one goes on",
    "pipeline.sink.shards._Refused": "the rows become dead letters",
    "pipeline.transforms.mask._NotExpectedError": "the value is masked whole",
    "support.bigquery_rest.QueryRefusedError": "the warehouse says it as a WarehouseError",
    "support.cli.operated.Failed": "an AuditError that a command of an operation shows, with the exit code 2",
    "support.cli.output.NothingFound": "an exit code without a message",
}


def _exceptions() -> Iterator[tuple[str, ast.ClassDef]]:
    """Each class of the packages that is raised, by the names of its bases: no module is imported for it."""
    classes = {
        f"{'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')}.{node.name}": node
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    ours = {name.rpartition(".")[2] for name, node in classes.items() if _raised(node)}
    for name, node in classes.items():
        if _raised(node) or any(_text(base) in ours for base in node.bases):
            yield name, node


def _raised(node: ast.ClassDef) -> bool:
    return any(_text(base).endswith(("Error", "Exception", "Exit", "Warning")) for base in node.bases)


def _text(base: ast.expr) -> str:
    return ast.unparse(base).rpartition(".")[2]


def test_every_exception_is_read_by_people_or_listed_with_its_reason() -> None:
    outside = {name for name, node in _exceptions() if "AuditError" not in map(_text, node.bases)}
    assert outside - {"contract.errors.AuditError"} == set(INTERNAL)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    codes: dict[int, list[str]] = {}
    for name, node in _exceptions():
        if "AuditError" in map(_text, node.bases):
            [code] = [each.value.value for each in node.body if _sets_exit_code(each)] or [1]  # type: ignore[attr-defined]
            codes.setdefault(code, []).append(name)
    lines = ["    AuditError"]
    for code, names in sorted(codes.items()):
        lines.append(f"    ├── exit code {code}")
        lines += [f"    │   ├── {name}" for name in sorted(names)]
    tree = "\n".join(lines)
    assert tree in (contract.errors.__doc__ or ""), f"contract/errors.py must hold this tree:\n{tree}"


def _sets_exit_code(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and _text(statement.targets[0]) == "exit_code"


def test_every_command_shows_its_errors() -> None:
    """Each click command of the packages, whether `audit` reaches it or `python -m`; those of `alerts` raise none."""
    found = 0
    for package in PACKAGES:
        if package == "alerts":
            continue
        for path in sorted((ROOT / package).rglob("*.py")):
            if "click.command(" in path.read_text() or "click.group(" in path.read_text():
                module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                for value in vars(module).values():
                    if isinstance(value, click.Command):
                        found += 1
                        assert isinstance(value, Command | Group), f"{module.__name__}: pass cls=Command or Group"
    assert found > 10


class _Wrong(AuditError):
    exit_code = 2


@pytest.mark.parametrize(
    ("error", "code", "usage"),
    [(AuditError("the rule. The remedy."), 1, False), (_Wrong("the rule. The remedy."), 2, True)],
)
def test_an_error_is_shown_as_it_is_with_its_exit_code(error: AuditError, code: int, usage: bool) -> None:
    @click.group(cls=Group)
    def program() -> None:
        """A program."""

    @program.group()
    def inner() -> None:
        """A group."""

    @inner.command()
    def work() -> None:
        raise error

    ended = CliRunner().invoke(program, ["inner", "work"])
    assert ended.exit_code == code
    assert ended.stderr.endswith("Error: the rule. The remedy.\n") and "Traceback" not in ended.stderr
    assert ("Usage: program inner work" in ended.stderr) is usage
