"""What no stack may ever break. Each rule is a plain function from a graph to the resources that break it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from graph import Graph, Node

Rule = Callable[[Graph], Iterator[str]]
# Roles that Google grants on a project alone.
_PROJECT_ROLES = {"roles/bigquery.jobUser", "roles/dataflow.worker"}


def no_primitive_role(graph: Graph) -> Iterator[str]:
    for node, role in _roles(graph):
        if role in {"roles/owner", "roles/editor", "roles/viewer"}:
            yield f"{node.id}: {role}"


def no_admin_role(graph: Graph) -> Iterator[str]:
    for node, role in _roles(graph):
        if re.search(r"admin", role, re.I):
            yield f"{node.id}: {role}"


def nobody_is_everybody(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        if re.search(r"allUsers|allAuthenticatedUsers", str(dict(node.inputs))):
            yield node.id


def grants_are_members(graph: Graph) -> Iterator[str]:
    """A binding or a policy takes away what others granted on the same resource."""
    for node in graph.nodes:
        if re.search(r"I(AM|am)(Binding|Policy|AuditConfig)$", node.type):
            yield node.id


def grants_are_on_one_resource(graph: Graph) -> Iterator[str]:
    for node, role in _roles(graph):
        if node.type.startswith(("gcp:projects", "gcp:folder", "gcp:organizations")) and role not in _PROJECT_ROLES:
            yield f"{node.id}: {role}"


def no_key_of_a_service_account(graph: Graph) -> Iterator[str]:
    yield from (node.id for node in graph.nodes if node.type == "gcp:serviceaccount/key:Key")


def buckets_are_private(graph: Graph) -> Iterator[str]:
    for node in graph.of("Bucket"):
        private = node.inputs.get("publicAccessPrevention") == "enforced"
        if not (private and node.inputs.get("uniformBucketLevelAccess") is True):
            yield node.id


def dead_letters_are_kept_a_week(graph: Graph) -> Iterator[str]:
    for node in graph.of("Bucket"):
        ages = [rule["condition"]["age"] for rule in node.inputs["lifecycleRules"] if "age" in rule["condition"]]
        if node.name == "dead-letters" and not (ages and min(ages) >= 7):
            yield node.id


def workers_have_no_public_address(graph: Graph) -> Iterator[str]:
    for node in graph.of("FlexTemplateJob"):
        if node.inputs.get("ipConfiguration") != "WORKER_IP_PRIVATE":
            yield node.id


def nothing_that_holds_data_can_be_deleted_in_prod(graph: Graph) -> Iterator[str]:
    if graph.stack != "prod":
        return
    for node in graph.nodes:
        if _holds_data(node) and not (node.options.protect and _deletion_refused(node.inputs)):
            yield node.id


def everything_uses_the_stack_s_provider(graph: Graph) -> Iterator[str]:
    """A default provider would take project and region from whoever runs Pulumi."""
    for node in graph.nodes:
        if node.type.startswith("gcp:") and "pulumi:providers:gcp::google" not in node.options.provider:
            yield node.id


def everything_is_in_a_component(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.type.startswith("gcp:") and "payment-audit:components:" not in node.options.parent:
            yield node.id


RULES: tuple[Rule, ...] = (
    no_primitive_role,
    no_admin_role,
    nobody_is_everybody,
    grants_are_members,
    grants_are_on_one_resource,
    no_key_of_a_service_account,
    buckets_are_private,
    dead_letters_are_kept_a_week,
    workers_have_no_public_address,
    nothing_that_holds_data_can_be_deleted_in_prod,
    everything_uses_the_stack_s_provider,
    everything_is_in_a_component,
)


def _roles(graph: Graph) -> Iterator[tuple[Node, str]]:
    yield from ((node, node.inputs["role"]) for node in graph.nodes if "role" in node.inputs)


def _holds_data(node: Node) -> bool:
    if node.type == "gcp:bigquery/table:Table":
        return "view" not in node.inputs
    scratch = node.name in {"temp", "staging"}
    return node.type.rpartition(":")[2] in {"Database", "Instance", "Dataset", "Secret", "Bucket"} and not scratch


def _deletion_refused(inputs: Any) -> bool:
    """By every switch that the resource has."""
    switches = {"deletionProtection": True, "enableDropProtection": True}
    switches |= {"forceDestroy": False, "deleteContentsOnDestroy": False}
    return all(inputs.get(switch, wanted) == wanted for switch, wanted in switches.items()) and any(
        switch in inputs for switch in switches
    )
