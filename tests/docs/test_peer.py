"""docs/peer.md: every behaviour that differs from Google's template names existing tests that show it."""

from __future__ import annotations

import re

import pytest

from tests.docs.test_faults import functions
from tests.documents import ROOT

PAGE = (ROOT / "docs" / "peer.md").read_text()
BEHAVIOURS, REPORTS = (part.partition("\n## ")[0] for part in PAGE.split("\n## ")[2:])
NAMED = sorted(set(re.findall(r"`(tests/\S+\.py)::(\w+)`", PAGE)))


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = re.findall(r"^\| (.*) \|$", section, re.M)
    return [line.split(" | ") for line in lines[1:]]


@pytest.mark.parametrize("path,name", NAMED)
def test_a_test_that_the_page_names_is_there(path: str, name: str) -> None:
    assert name in functions(path)


@pytest.mark.parametrize("row", [*rows(BEHAVIOURS), *rows(REPORTS)], ids=lambda row: row[0])
def test_every_behaviour_has_a_test(row: list[str]) -> None:
    *said, tests = row
    assert all(said) and len(said) in (2, 3)
    assert re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`(, `tests/[\w/]+\.py::test_\w+`)*", tests)


def test_the_readme_and_the_architecture_lead_to_the_page() -> None:
    for page in ("README.md", "ARCHITECTURE.md"):
        assert "docs/peer.md" in (ROOT / page).read_text()
