"""Prints the kinds of our stacks of which the stand-in for Google's provider knows the SDK's types alone.

python -m tests.infra.unknown
"""

from __future__ import annotations

from guardrails.iam import STACKS
from tests.infra import given_back, provider_rules
from tests.infra.asked_for import MORE
from tests.infra.graphs import graph_of


def kinds() -> list[str]:
    """Every kind of Google's that a stack makes, or that config can add."""
    graphs = [*map(graph_of, STACKS), graph_of("dev", MORE)]
    return sorted({node.type for graph in graphs for node in graph.nodes if node.type.startswith("gcp:")})


def unknown() -> list[str]:
    """Those without a rule and without a form in which they come back. A grant has its rules by its inputs."""
    ruled = {f"gcp:{rule.kind}" for rule in provider_rules.RULES}
    read = {*given_back.SETS, *given_back.DEFAULTS, given_back.TABLE}
    return [kind for kind in kinds() if kind not in ruled | read and not kind.lower().endswith("member")]


def main() -> None:
    print("\n".join(unknown()))


if __name__ == "__main__":
    main()
