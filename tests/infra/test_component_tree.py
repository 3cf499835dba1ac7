"""The component tree of ARCHITECTURE.md is that of the program."""

from __future__ import annotations

import re

from components.config import ROOT
from tests.infra.graphs import graph_of

TREE = re.findall(r"^[├└]── (\w+) +(\w+) +(\S.*)$", (ROOT / "ARCHITECTURE.md").read_text(), re.M)


def test_the_tree_has_every_component_and_no_other() -> None:
    made = {(made.name, made.type.rpartition(":")[2]) for made in graph_of("prod").components}
    assert {(name, role) for name, role, _ in TREE} == {(n, r) for n, r in made if r != "Stack"}


def test_the_tree_is_in_the_order_of_the_program() -> None:
    program = (ROOT / "__main__.py").read_text()
    made = re.findall(r"= \w+\(\s*\"(\w+)\"", program)
    assert [name for name, *_ in TREE] == made
