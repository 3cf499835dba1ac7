"""What the documents print: their commands, taken as far as each tool's own parser goes, and what a command answers.

Blocks marked `sh` and `console` run as printed, here and against a stack in the cloud; `cloud` blocks need one.
"""

from __future__ import annotations

import importlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml
from click.testing import CliRunner

from support.cli.main import main

ROOT = Path(__file__).parents[1]
TRACKED = tuple(
    subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
)
DOCUMENTS = tuple(name for name in TRACKED if name.endswith(".md"))
FENCE = re.compile(r"^([ ]*)```(\w*)\n(.*?)^\1```$", re.M | re.S)
# What runbooks/stack.sh sets, of a stack without a prefix that makes everything itself.
_NAMED = {
    "$VIEWS": "payment_views",
    "$CHANGELOG": "payment_audit.payment_audit_trail_bq",
    "$TABLES": "payment_audit",
    "$DATABASE": "audit-db",
    "$METADATA_DATABASE": "audit-metadata",
    "$JOB_NAME": "audit-stream-job",
}
# Names that stand for a value, as the reader has to fill it in.
_PLACEHOLDER = re.compile(r"<([^\s<>][^<>\n]*)>")


class Transcript(NamedTuple):
    """A command and what it prints; `…` stands for any text."""

    command: str
    expected: tuple[str, ...]

    def missing(self, output: str) -> list[str]:
        """The expected lines that the output does not have, in this order."""
        lines = iter([" ".join(line.split()) for line in output.splitlines()])
        wanted = [line for line in self.expected if line.strip() != "…"]
        return [line for line in wanted if not any(_shape(line).match(found) for found in lines)]


def _shape(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(" ".join(part.split())) for part in line.split("…")))


def blocks(markdown: str, *languages: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks in these languages: the language and the text."""
    for _, language, text in FENCE.findall(markdown):
        if language in languages:
            yield language, textwrap.dedent(text)


def commands(document: str, *languages: str) -> list[str]:
    """The commands in a document's blocks of these languages; of a `console` block, what follows a `$`."""
    return commands_in((ROOT / document).read_text(), *languages)


def commands_in(markdown: str, *languages: str) -> list[str]:
    found: list[str] = []
    for language, text in blocks(markdown, *languages):
        if language == "console":
            found += [transcript.command for transcript in _transcripts(text)]
        else:
            found += _joined(text.splitlines())
    return found


def transcripts(document: str) -> list[Transcript]:
    """The commands of `console` blocks with what they print."""
    return [found for _, text in blocks((ROOT / document).read_text(), "console") for found in _transcripts(text)]


def queries(document: str) -> list[tuple[str, str]]:
    """The SQL that only reads: where it goes, `bigquery` or a Spanner database, and the text.

    Without what no emulator has: INFORMATION_SCHEMA of jobs, SPANNER_SYS, a restored table, an older version.
    """
    found = []
    for command in commands(document, "cloud"):
        named = re.sub(r"\$[A-Z_]+", lambda name: _NAMED.get(name[0], name[0]), command)
        [program, *args], *_ = words(named)
        where, sql = "bigquery", args[-1]
        if program == "gcloud" and "execute-sql" in args and not any("read-timestamp" in arg for arg in args):
            where = args[args.index("execute-sql") + 1]
            [sql] = [arg.removeprefix("--sql=") for arg in args if arg.startswith("--sql=")]
        if sql.startswith("SELECT") and not re.search(r"INFORMATION_SCHEMA|SPANNER_SYS|_restored", sql):
            found.append((where, sql))
    return found


def _transcripts(text: str) -> Iterator[Transcript]:
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, *expected = part.splitlines()
        yield Transcript(command, tuple(expected))


def _joined(lines: Sequence[str]) -> list[str]:
    """One command an entry, also where quotes or a backslash carry it over several lines."""
    found, open_command = [], ""
    for line in lines:
        if not open_command and (not line.strip() or line.startswith("#")):
            continue
        open_command += line
        if open_command.endswith("\\"):
            open_command = open_command[:-1]
        elif _closed(open_command):
            found.append(open_command)
            open_command = ""
        else:
            open_command += "\n"
    assert not open_command, f"a quote stays open: {open_command}"
    return found


def _closed(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


def words(command: str) -> list[list[str]]:
    """The words of each program in a pipeline, placeholders filled in, without what goes into a file.

    None of a line that only sets a variable of the reader's shell.
    """
    if re.fullmatch(r"[A-Z_]+=\S+", command.strip()):
        return []
    filled = _PLACEHOLDER.sub(lambda match: re.sub(r"\s", "_", match[1]), command)
    pipeline: list[list[str]] = [[]]
    for word in shlex.split(filled, comments=True):
        if word == "|":
            pipeline.append([])
        else:
            pipeline[-1].append(word)
    return [part[: part.index(">")] if ">" in part else part for part in pipeline]


def look(command: str) -> None:
    """AssertionError where a program of the command would not take it."""
    for program, *args in words(command):
        assert program in PROGRAMS, f"{program}: say in tests/documents.py how to look at such a command"
        PROGRAMS[program](*args)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def on_a_terminal(command: str, **environment: str) -> str:
    """What a person sees who types the command at the repository's top."""
    ours, theirs = os.openpty()
    shell = subprocess.Popen(
        ["bash", "-c", command],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "200"} | environment,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass  # so a terminal says that its last program has ended
    os.close(ours)
    shell.wait()
    return shown.decode()


def make(*args: str) -> None:
    done = run("make", "--dry-run", *args)
    assert done.returncode == 0, done.stderr
    for setting in (arg for arg in args if "=" in arg):
        assert setting.partition("=")[2] in done.stdout, f"make does not pass on {setting}"


def audit(*args: str) -> None:
    """`--help` last: the parser has read all the options before it, and refuses the unknown."""
    shown = CliRunner().invoke(main, [*args, "--help"])
    assert shown.exit_code == 0, shown.output


def pulumi(*args: str) -> None:
    if args[0] == "login":
        assert re.fullmatch(r"gs://\S+", args[1]), args
        return
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    stack = args[2] if args[:2] == ("stack", "init") else args[args.index("--stack") + 1]
    assert (ROOT / f"Pulumi.{stack}.yaml").is_file(), stack
    assert {arg for arg in args if arg.startswith("--")} <= {"--stack", "--refresh", "--json"}, args
    for key in (arg for arg in args if arg.startswith(f"{project['name']}:")):
        assert key.partition(":")[2] in project["config"], f"{key} is not declared in Pulumi.yaml"


def gcloud(*args: str) -> None:
    """The groups, commands, flags and choices that the installed Google Cloud CLI has."""
    flags: dict[str, Any] = {}
    node: dict[str, Any] = _gcloud_tree()
    left = list(args)
    while True:
        flags |= node["flags"]
        if not left or left[0] not in node.get("commands", {}):
            break
        node = node["commands"][left.pop(0)]
    assert not node.get("commands"), f"gcloud {' '.join(args)}: {', '.join(sorted(node['commands']))}?"
    for name, _, value in (arg.partition("=") for arg in left if arg.startswith("--")):
        assert name in flags, f"gcloud {' '.join(args)} has no {name}: {', '.join(sorted(flags))}"
        known = flags[name]
        assert (known == "bool") != bool(value), f"{name}: is there a value or not? {known}"
        assert not isinstance(known, list) or value in known, f"{name} must be one of {known}"


@cache
def _gcloud_tree() -> dict[str, Any]:
    """What gcloud completes commands from: all of them, as they are installed."""
    program = shutil.which("gcloud")
    assert program, "gcloud is not installed"
    source = (Path(program).resolve().parents[1] / "data" / "cli" / "gcloud_completions.py").read_text()
    found: dict[str, Any] = {}
    exec(compile(source, "gcloud_completions.py", "exec"), found)
    tree: dict[str, Any] = found["STATIC_COMPLETION_CLI_TREE"]
    return tree


def bq(command: str, *args: str) -> None:
    known = _bq_flags(command)
    for name in (arg.partition("=")[0].removeprefix("--") for arg in args if arg.startswith("--")):
        assert name in known, f"bq {command} has no --{name}"


@cache
def _bq_flags(command: str) -> frozenset[str]:
    shown = run("bq", "help", command).stdout
    assert re.search(rf"^{command} ", shown, re.M), f"bq has no {command}"
    return frozenset(re.findall(r"--(?:\[no\])?(\w+)", shown))


def script(*args: str) -> None:
    """A file of the repository, after `.venv/bin/python` or a dot."""
    assert args[0] in TRACKED, f"{args[0]} is not in the repository"


def python(*args: str) -> None:
    """One of our scripts, or a module with a command line: its own parser has to take it."""
    if args[0] != "-m":
        script(*args)
        return
    name = args[1] if f"{args[1].replace('.', '/')}.py" in TRACKED else f"{args[1]}.__main__"
    script(f"{name.replace('.', '/')}.py")
    main = importlib.import_module(name).main
    if not isinstance(main, click.Command):
        # The contract has the standard library only, and so argparse.
        run(sys.executable, "-m", args[1], *args[2:], "--help")
        return
    shown = CliRunner().invoke(main, [*args[2:], "--help"])
    assert shown.exit_code == 0, shown.output


def stack_script(*args: str) -> None:
    script(*args)
    assert (ROOT / f"Pulumi.{args[1]}.yaml").is_file(), args[1]


def docker(*args: str) -> None:
    for file in (after for flag, after in itertools.pairwise(args) if flag == "--file"):
        script(file)


def installed(*args: str) -> None:
    """Programs that a person has: what they do is not ours to test."""


# How a command of each program is looked at.
PROGRAMS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("uv", "date", "grep", "head", "jq", "memray", "sort", "tail", "uniq"), installed),
    "make": make,
    "./audit": audit,
    "pulumi": pulumi,
    ".venv/bin/python": python,
    ".": stack_script,
    "gcloud": gcloud,
    "bq": bq,
    "docker": docker,
}
