"""The catalog of mutations: what `make mutations` applies and runs is there."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.mutations.catalog import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]


def _tests_of(file: str) -> set[str]:
    body = ast.parse((ROOT / file).read_text()).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_changes_its_file_into_another_that_can_be_read(mutation: Mutation) -> None:
    sound = (ROOT / mutation.file).read_text()
    broken = mutation.apply(sound)
    assert broken != sound
    if not mutation.file.endswith(".py"):
        # What it is for reads it, in the test that must notice: BigQuery's emulator, a shell, kustomize.
        return
    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(sound))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_names_tests_that_are_there(mutation: Mutation) -> None:
    assert mutation.tests
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in _tests_of(file), test


def test_each_mutation_has_a_name_of_its_own_and_is_another_change() -> None:
    assert [name for name, count in Counter(m.name for m in MUTATIONS).items() if count > 1] == []
    assert [m for m, count in Counter((m.file, m.before, m.after) for m in MUTATIONS).items() if count > 1] == []
