"""The graphs of the three stacks, each made once."""

from __future__ import annotations

from functools import cache

import pytest

from graph.resources import Graph, graph_of

STACKS = ("dev", "staging", "prod")


@cache
def _graph(stack: str) -> Graph:
    return graph_of(stack)


@pytest.fixture(params=STACKS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return _graph(request.param)


@pytest.fixture
def prod() -> Graph:
    return _graph("prod")
