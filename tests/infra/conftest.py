"""The graphs of the three stacks, each made once."""

from __future__ import annotations

import pytest

from graph.resources import Graph
from tests.infra.graphs import graph_of

STACKS = ("dev", "staging", "prod")


@pytest.fixture(params=STACKS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return graph_of(request.param)


@pytest.fixture
def prod() -> Graph:
    return graph_of("prod")
