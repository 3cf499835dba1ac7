"""docs/faults.md: every fault names existing tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text()
ROWS = re.findall(r"^\| ([ABCD]\d+) \|(.*)\|$", PAGE, re.M)
NAMED = sorted(set(re.findall(r"`(tests/\S+\.py)::(\w+)`", PAGE)))


def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("path,name", NAMED)
def test_a_test_that_the_page_of_faults_names_is_there(path: str, name: str) -> None:
    assert name in functions(path)


def test_every_fault_has_a_test() -> None:
    expected = [
        f"{group}{number}" for group, last in zip("ABCD", (6, 18, 12, 7), strict=True) for number in range(1, last + 1)
    ]
    assert [fault for fault, _ in ROWS] == expected
    assert all("::test_" in row for _, row in ROWS)
