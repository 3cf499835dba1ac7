"""The graphs of the three stacks, each made once."""

from __future__ import annotations

import pytest
from graphs import graph_of

from graph.resources import Graph

STACKS = ("dev", "staging", "prod")


@pytest.fixture(params=STACKS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return graph_of(request.param)


@pytest.fixture
def prod() -> Graph:
    return graph_of("prod")
