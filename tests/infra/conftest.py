"""The graphs of the three stacks, each made once, and dev under the real Pulumi CLI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graph.resources import Graph
from tests.infra.clone import MadeDev
from tests.infra.graphs import graph_of

STACKS = ("dev", "staging", "prod")


@pytest.fixture(params=STACKS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return graph_of(request.param)


@pytest.fixture
def prod() -> Graph:
    return graph_of("prod")


@pytest.fixture(scope="session")
def made_dev(tmp_path_factory: pytest.TempPathFactory) -> MadeDev:
    """dev as its first `up` leaves it, made once for all that run at a time."""
    base = tmp_path_factory.getbasetemp()
    # Each worker of xdist has a folder in that of the run.
    return MadeDev.at(Path(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-dev")
