"""Graphs of the stacks, each made once in a test process: one is a second of CPU, and no test changes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from graph import resources
from graph.resources import Graph


def graph_of(stack: str, config: Mapping[str, Any] | None = None, program: Callable[[], object] | None = None) -> Graph:
    """As `graph.resources.graph_of`, which runs another program each time."""
    if program:
        return resources.graph_of(stack, config, program)
    return _graph(stack, json.dumps(config or {}, sort_keys=True))


@cache
def _graph(stack: str, config: str) -> Graph:
    return resources.graph_of(stack, json.loads(config))
