"""The graph that a program registers with Pulumi: resources with their inputs and options, nothing made anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from local.engine import run_program, stack_config
from local.provider import server_made


@dataclass(frozen=True, kw_only=True)
class Node:
    """A resource. `inputs` as the provider gets them; `options` is Pulumi's own registration."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    options: Any

    @property
    def id(self) -> str:
        return f"{self.type} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Graph:
    stack: str
    nodes: tuple[Node, ...]
    components: tuple[Any, ...]
    outputs: Mapping[str, Any]

    def of(self, *types: str) -> list[Node]:
        """The resources whose type ends so: `Bucket`, `Database`."""
        return [node for node in self.nodes if node.type.rpartition(":")[2] in types]

    def one(self, kind: str, name: str | None = None) -> Node:
        [node] = [node for node in self.of(kind) if name in (None, node.name)]
        return node


def graph_of(stack: str, config: Mapping[str, Any] | None = None, program: Callable[[], object] | None = None) -> Graph:
    """Runs the stack's program, or another one with its config."""
    values = {**stack_config(stack), **(config or {})}
    inputs: dict[tuple[str, str], Mapping[str, Any]] = {}
    registered: list[Any] = []

    def make(kind: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        inputs[kind, name] = given
        return server_made(values["project"], kind, name, given)

    outputs = run_program(stack, values, make, on_register=registered.append, program=program)
    nodes = tuple(
        Node(type=r.type, name=r.name, inputs=inputs[r.type, r.name], options=r) for r in registered if r.custom
    )
    return Graph(stack=stack, nodes=nodes, components=tuple(r for r in registered if not r.custom), outputs=outputs)
