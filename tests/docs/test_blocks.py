"""Every fenced block says of what kind it is, and is what it says: KINDS has what is looked at for each kind."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import orjson
import pytest
import yaml

from contract import schema
from tests import documents
from tests.documents import DOCUMENTS, ROOT


class Block(NamedTuple):
    """A fenced block. `before` is the last line of text above it."""

    document: str
    line: int
    kind: str
    text: str
    before: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def _blocks(document: str, markdown: str) -> list[Block]:
    found: list[Block] = []
    begin, indent, kind, before = 0, "", "", ""
    content: list[str] = []
    for number, line in enumerate(markdown.splitlines(), 1):
        fence = re.fullmatch(r"( *)```(.*)", line)
        if not begin and fence:
            begin, indent, kind, content = number, fence[1], fence[2].strip(), []
        elif begin and line == f"{indent}```":
            text = "".join(f"{part.removeprefix(indent)}\n" for part in content)
            found.append(Block(document, begin, kind, text, before))
            begin = 0
        elif begin:
            content.append(line)
        elif line.strip():
            before = line.strip()
    assert not begin, f"{document}:{begin}: the block has no end"
    return found


def _shell(block: Block) -> None:
    """bash can parse it, and every program in it is one whose commands are looked at."""
    commands = documents.commands_in(f"```sh\n{block.text}```\n", "sh")
    assert commands, "no command"
    _parse(commands)


def _transcript(block: Block) -> None:
    assert block.text.startswith("$ "), "the first line is a command, after `$ `"
    _parse(documents.commands_in(f"```console\n{block.text}```\n", "console"))


def _parse(commands: list[str]) -> None:
    filled = re.sub(r"<([^\s<>][^<>\n]*)>", "x", "\n".join(commands))
    parsed = subprocess.run(["bash", "-n"], input=filled, check=False, capture_output=True, text=True)
    assert parsed.returncode == 0, parsed.stderr
    for command in commands:
        for program, *_ in documents.words(command):
            assert program in documents.PROGRAMS, f"{program}: say in tests/documents.py how to look at such a command"


def _changeset(block: Block) -> None:
    """One more file of the source's changelog: the parser that Pulumi and the tables use takes it."""
    with TemporaryDirectory() as folder:
        shutil.copytree(schema.AUDIT_DB.parent, folder, dirs_exist_ok=True)
        changelog = Path(folder) / schema.AUDIT_DB.name
        (Path(folder) / "zzz.sql").write_text(f"--liquibase formatted sql\n\n{block.text}")
        with changelog.open("a") as listed:
            listed.write("  - include: {file: zzz.sql, relativeToChangelogFile: true}\n")
        assert schema.tables(changelog) != schema.tables(), "it changes no table"


def _statements(block: Block) -> None:
    """A schema of another database than the audit's: a test of its document has Spanner's emulator take it."""
    for statement in filter(str.strip, block.text.split(";\n")):
        assert re.match(r"\s*(CREATE|ALTER) (TABLE|CHANGE STREAM) \w+", statement), statement


def _explained(block: Block) -> None:
    """What a program prints, or a drawing: the text above it says which."""
    assert not block.before.startswith(("#", "|")), "say above the block what it is"


def _parsed(parse: Callable[[str], object], block: Block) -> None:
    parse(block.text)


KINDS: dict[str, Callable[[Block], object]] = {
    "sh": _shell,
    "cloud": _shell,
    "console": _transcript,
    "python": partial(_parsed, ast.parse),
    "sql": _changeset,
    "ddl": _statements,
    "toml": partial(_parsed, tomllib.loads),
    "yaml": partial(_parsed, yaml.safe_load),
    "json": partial(_parsed, orjson.loads),
    "text": _explained,
}


def _look(block: Block) -> None:
    assert block.kind in KINDS, f"{block.place}: the kind must be one of {', '.join(KINDS)}, got {block.kind!r}"
    KINDS[block.kind](block)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_is_of_its_kind(document: str) -> None:
    for block in _blocks(document, (ROOT / document).read_text()):
        try:
            _look(block)
        except (AssertionError, ValueError, SyntaxError, yaml.YAMLError) as error:
            raise AssertionError(f"{block.place}: {error}") from error


@pytest.mark.parametrize(
    "markdown",
    [
        "What it prints:\n\n```\nplain\n```\n",
        "Code:\n\n```bash\nls\n```\n",
        "Run:\n\n```sh\nmake 'lint\n```\n",
        "Run:\n\n```sh\nfrobnicate\n```\n",
        "Run:\n\n```sh\n# nothing\n```\n",
        "Run:\n\n```cloud\ngcloud projects list ; ; true\n```\n",
        "It answers:\n\n```console\nmake\n```\n",
        "Code:\n\n```python\ndef f(:\n```\n",
        "A column:\n\n```sql\n--changeset audit:x\nALTER TABLE nothing ADD COLUMN A STRING(32);\n```\n",
        "Tables:\n\n```ddl\nINSERT INTO T VALUES (1);\n```\n",
        "Config:\n\n```toml\na = \n```\n",
        "Config:\n\n```yaml\na: [\n```\n",
        "Config:\n\n```json\n{\n```\n",
        "# A heading\n\n```text\nplain\n```\n",
        "Open:\n\n```text\nplain\n",
    ],
)
def test_a_block_that_is_not_what_it_says_is_found_out(markdown: str) -> None:
    with pytest.raises((AssertionError, ValueError, SyntaxError, yaml.YAMLError)):
        for block in _blocks("x.md", markdown):
            _look(block)
