"""The documents say what is: their commands are there, their links lead somewhere, their folders exist.

A command that takes minutes, or needs the running stack or a cloud, is taken as far as its own parser goes: it must
know the subcommand and every option.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from contract.changes import Reason
from support.cli.main import main

ROOT = Path(__file__).parents[2]
TRACKED = tuple(
    subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
)
DOCUMENTS = tuple(name for name in TRACKED if name.endswith(".md"))
FOLDERS = sorted({str(folder) for name in TRACKED for folder in Path(name).parents if str(folder) != "."})
# Names that stand for a value, as the reader has to fill it in.
_PLACEHOLDER = re.compile(r"<([^<>\n]+)>")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def _commands(document: str) -> list[str]:
    """The commands in fenced `sh` and `console` blocks; of a `console` block, what follows a `$`."""
    found = []
    for language, block in _FENCE.findall((ROOT / document).read_text()):
        lines = block.replace("\\\n", "").splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        if language in ("sh", "console"):
            found += [line for line in lines if line.strip() and not line.startswith("#")]
    return found


COMMANDS = sorted({command for document in ("README.md", "CONTRIBUTING.md") for command in _commands(document)})


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def _make(*args: str) -> None:
    done = _run("make", "--dry-run", *args)
    assert done.returncode == 0, done.stderr
    for setting in (arg for arg in args if "=" in arg):
        assert setting.partition("=")[2] in done.stdout, f"make does not hand on {setting}"


def _audit(*args: str) -> None:
    """`--help` last: the parser has read all the options before it, and refuses the unknown."""
    shown = CliRunner().invoke(main, [*args, "--help"])
    assert shown.exit_code == 0, shown.output


def _pulumi(*args: str) -> None:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    stack = args[2] if args[:2] == ("stack", "init") else args[args.index("--stack") + 1]
    assert (ROOT / f"Pulumi.{stack}.yaml").is_file(), stack
    for key in (arg for arg in args if arg.startswith(f"{project['name']}:")):
        assert key.partition(":")[2] in project["config"], f"{key} is not declared in Pulumi.yaml"


def _script(*args: str) -> None:
    assert args[0] in TRACKED, f"{args[0]} is not in the repository"


def _installed(*args: str) -> None:
    """Programs that a person has: what they do is not ours to test."""


_KINDS = {
    "make": _make,
    "./audit": _audit,
    "pulumi": _pulumi,
    ".venv/bin/python": _script,
    "gcloud": _installed,
    "uv": _installed,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_documents_is_there(command: str) -> None:
    words = shlex.split(_PLACEHOLDER.sub(r"\1", command).partition(" > ")[0], comments=True)
    assert words[0] in _KINDS, f"{words[0]}: say in this test how to look at such a command"
    _KINDS[words[0]](*words[1:])


def test_the_audit_command_runs_as_it_is_written() -> None:
    done = _run("./audit", "--help")
    assert done.returncode == 0
    assert "search" in done.stdout


def test_a_command_that_is_not_there_is_found_out() -> None:
    for words in (("search", "--colour", "red"), ("serch",), ("dead-letters", "lst"), ("local", "check", "--quick")):
        with pytest.raises(AssertionError):
            _audit(*words)
    for words in (("runn",), ("run", "DURATON=60")):
        with pytest.raises(AssertionError):
            _make(*words)
    with pytest.raises(AssertionError):
        _pulumi("config", "set", "--stack", "dev", "payment-audit:proyect", "x")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_and_picture_is_there(document: str) -> None:
    text = _FENCE.sub("", (ROOT / document).read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
        link = next(filter(None, target))
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), f"{document}: {link}"
        assert not anchor or anchor in _anchors(file), f"{document}: {link}"


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_folder_that_is_named_is_there(document: str) -> None:
    for name in re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*|\w[\w-]*\.(?:py|sh|sql|yaml|toml|lock|md))`", _prose(document)):
        known = (ROOT / name).exists() or any(tracked.endswith(f"/{name}") for tracked in TRACKED)
        assert known or name in _NOT_OURS, f"{document}: {name}"


# Folders of a dead-letter directory, and roles of Google Cloud.
_NOT_OURS = {"retry/", "severe/", "connection.json"}


def _prose(document: str) -> str:
    return re.sub(r"roles/[\w.]+", "", _FENCE.sub("", (ROOT / document).read_text()))


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if not folder.startswith("tests/infra/")])
def test_the_map_of_the_architecture_has_every_folder(folder: str) -> None:
    assert f"`{folder}/`" in (ROOT / "ARCHITECTURE.md").read_text()


def test_every_decision_says_its_context_its_reason_and_its_cost() -> None:
    decisions = (ROOT / "ARCHITECTURE.md").read_text().partition("\n## Decisions\n")[2].partition("\n## ")[0]
    for decision in decisions.split("\n### ")[1:]:
        parts = re.findall(r"^- \*\*(\w+)\.\*\*", decision, re.M)
        assert parts == ["Context", "Decision", "Why", "Cost"], decision.partition("\n")[0]


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    reasons = [value for name, value in vars(Reason).items() if name.isupper()]
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == reasons


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"(?<![\w.$}~-])/(?:home|root|Users|work|tmp|opt|mnt)/\w", id="a path of a machine"),
        pytest.param(
            r"(?i)https?://[^\s\"'<>]*(?:pypi|pythonhosted|npmjs|goproxy|proxy\.golang|artifactory|nexus|registry|mirror)"
            r"|--(?:extra-)?index-url|\bGOPROXY=",
            id="a package registry",
        ),
    ],
)
def test_no_file_names(pattern: str) -> None:
    for name in TRACKED:
        file = ROOT / name
        if not file.is_file() or b"\0" in (content := file.read_bytes()):
            continue
        found = re.search(pattern, content.decode())
        assert not found, f"{name}: {found[0] if found else ''}"
