"""docs/first-contact.md: rows in order, each with tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.docs.test_faults import ROOT, functions

PAGE, _, OPEN = (ROOT / "docs" / "first-contact.md").read_text().partition("## Still open")
ROWS = re.findall(r"^\| (\d+)(a?) \|(.*)\|$", PAGE, re.M)
NAMED = sorted(set(re.findall(r"`(tests/\S+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize("path,name", NAMED)
def test_a_test_that_the_page_names_is_there(path: str, name: str) -> None:
    assert name in functions(path)


def test_each_row_is_there_once_in_order_and_has_a_test() -> None:
    numbers = [(int(number), part) for number, part, _ in ROWS]
    assert numbers == sorted(set(numbers))
    assert all("::test_" in row for *_, row in ROWS)


def test_what_is_open_says_what_to_do_until_then() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", OPEN, re.M)
    assert [int(number) for number, *_ in rows] == sorted(int(number) for number, *_ in rows)
    assert all(until.strip() for *_, until in rows)
