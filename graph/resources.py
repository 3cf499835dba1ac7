"""The graph that a program registers with Pulumi: resources with their inputs and options, nothing made anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from components.config import stack_config
from graph.google import looked_up, server_made
from graph.program import Look, run_program

# Delivery gives a stack the images that it built; no stack's file has one.
IMAGE: Final = f"us-central1-docker.pkg.dev/images/audit-images/stream@sha256:{'5' * 64}"
CONSOLE_IMAGE: Final = f"us-central1-docker.pkg.dev/images/audit-images/stream-console@sha256:{'6' * 64}"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A resource. `inputs` as the provider gets them; `parent` and `provider` are URNs, empty where there is none.

    `options` is Pulumi's own registration; a policy pack does not have it.
    """

    type: str
    name: str
    inputs: Mapping[str, Any]
    parent: str = ""
    provider: str = ""
    protect: bool = False
    options: Any = None

    @property
    def id(self) -> str:
        return f"{self.type} {self.name}"

    @property
    def kind(self) -> str:
        """The type's last part: `Bucket`, `Database`."""
        return self.type.rpartition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Resources of a stack, and the config that they were made from."""

    stack: str
    nodes: tuple[Node, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    components: tuple[Any, ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)

    def of(self, *kinds: str) -> list[Node]:
        """The resources whose type ends so: `Bucket`, `Database`."""
        return [node for node in self.nodes if node.kind in kinds]

    def one(self, kind: str, name: str | None = None) -> Node:
        [node] = [node for node in self.of(kind) if name in (None, node.name)]
        return node


def graph_of(
    stack: str,
    config: Mapping[str, Any] | None = None,
    program: Callable[[], object] | None = None,
    look: Look = lambda function, inputs: looked_up(function),
    passed: Mapping[str, str] | None = None,
) -> Graph:
    """Runs the stack's program, or another one with its config. `look` answers what it looks up; `passed` is what
    delivery passes to the program for one run."""
    values = {**stack_config(stack), "image": IMAGE, "consoleImage": CONSOLE_IMAGE, **(config or {})}
    inputs: dict[tuple[str, str], Mapping[str, Any]] = {}
    registered: list[Any] = []

    def make(kind: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        inputs[kind, name] = given
        return server_made(values["project"], kind, name, given)

    outputs = run_program(stack, values, make, look=look, on_register=registered.append, program=program, passed=passed)
    nodes = tuple(
        Node(
            type=made.type,
            name=made.name,
            inputs=inputs[made.type, made.name],
            parent=made.parent,
            provider=made.provider,
            protect=made.protect,
            options=made,
        )
        for made in registered
        if made.custom
    )
    components = tuple(made for made in registered if not made.custom)
    return Graph(stack=stack, nodes=nodes, config=values, components=components, outputs=outputs)
