"""What we named goes before its replacement comes. With the real CLI: test_pulumi.py replaces datasets."""

from __future__ import annotations

import pulumi_gcp as gcp

from components.replacement import BESIDE
from graph.google import import_id
from graph.resources import Graph, Node
from tests.infra.asked_for import MORE
from tests.infra.graphs import graph_of


def clashing(graph: Graph) -> list[str]:
    """Resources whose replacement would be made while they still have its name."""
    return [node.id for node in graph.nodes if _named(graph, node) and not node.options.deleteBeforeReplace]


def _named(graph: Graph, node: Node) -> bool:
    """Whether the program gives it the name that Google knows it by: `name`, or a table's `tableId`."""
    if not node.type.startswith("gcp:") or {"role", "member"} <= node.inputs.keys() or node.type in BESIDE:
        return False
    own = {"name", f"{node.kind[0].lower()}{node.kind[1:]}Id"}
    return bool(own & node.inputs.keys()) or import_id(graph.config["project"], node.type, node.inputs) is not None


def test_what_has_a_name_goes_before_its_replacement_comes(graph: Graph) -> None:
    assert clashing(graph) == []


def test_what_config_can_add_does_so_too() -> None:
    graph = graph_of("dev", MORE)
    assert len(graph.nodes) > len(graph_of("dev").nodes)
    assert clashing(graph) == []


def test_a_resource_that_would_meet_its_own_name_is_found() -> None:
    def program() -> None:
        gcp.bigquery.Dataset("bad", dataset_id="d", location="US")
        gcp.storage.Bucket("worse", name="b", location="US")
        gcp.projects.IAMMember("good", project="p", role="roles/x", member="user:a@b.c")

    assert clashing(graph_of("dev", program=program)) == [
        "gcp:bigquery/dataset:Dataset bad",
        "gcp:storage/bucket:Bucket worse",
    ]


def test_nobody_loses_access_while_a_grant_is_replaced(graph: Graph) -> None:
    grants = [node for node in graph.nodes if {"role", "member"} <= node.inputs.keys()]
    assert grants
    assert [node.id for node in grants if node.options.deleteBeforeReplace] == []


def test_what_stands_beside_its_replacement_has_no_name_or_another_one() -> None:
    before, after = (graph_of("dev", {**MORE, "image": f"l-docker.pkg.dev/p/r/n@sha256:{d * 64}"}) for d in "01")
    # One of such a kind may say otherwise: connection.json keeps its name.
    beside = [node for node in before.nodes if node.type in BESIDE and not node.options.deleteBeforeReplace]
    assert {node.type for node in beside} == set(BESIDE), "a kind that no stack makes: take it out of BESIDE"
    for node in beside:
        name = node.inputs.get("name")
        assert name is None or name != after.one(node.kind, node.name).inputs["name"], node.id
