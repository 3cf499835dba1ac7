"""The graphs of the three stacks, and the stacks as the real Pulumi CLI makes them, each made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from graph.resources import Graph
from tests.infra.clone import Clone, Made
from tests.infra.graphs import graph_of

STACKS = ("dev", "staging", "prod")


@pytest.fixture(params=STACKS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return graph_of(request.param)


@pytest.fixture
def prod() -> Graph:
    return graph_of("prod")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """A stack as its documented order leaves it, made once for all that run at a time."""
    base = tmp_path_factory.getbasetemp()
    # Each worker of xdist has a folder in that of the run.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return lambda stack: Made.at(base / f"made-{stack}", stack)


@pytest.fixture
def dev(made: Callable[[str], Made], tmp_path: Path) -> Clone:
    """A copy of dev."""
    return made("dev").copy(tmp_path)
