"""The rules hold for every stack, and each is seen to fail for a program that breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pulumi
import pulumi_gcp as gcp
import pytest
from graph import Graph, graph_of
from rules import (
    RULES,
    Rule,
    buckets_are_private,
    dead_letters_are_kept_a_week,
    everything_is_in_a_component,
    everything_uses_the_stack_s_provider,
    grants_are_members,
    grants_are_on_one_resource,
    no_admin_role,
    no_key_of_a_service_account,
    no_primitive_role,
    nobody_is_everybody,
    nothing_that_holds_data_can_be_deleted_in_prod,
    workers_have_no_public_address,
)

PROTECTED = pulumi.ResourceOptions(protect=True)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_stack_keeps_the_rule(graph: Graph, rule: Rule) -> None:
    assert list(rule(graph)) == []


def _project_role(role: str, member: str = "group:a@example.com") -> Callable[[], object]:
    return lambda: gcp.projects.IAMMember("bad", project="p", role=role, member=member)


def _bucket(
    name: str = "bad", *, days: int = 30, access: str = "enforced", uniform: bool = True
) -> Callable[[], object]:
    return lambda: gcp.storage.Bucket(
        name,
        location="us-central1",
        name=name,
        public_access_prevention=access,
        uniform_bucket_level_access=uniform,
        lifecycle_rules=[{"action": {"type": "Delete"}, "condition": {"age": days}}],
        force_destroy=True,
    )


def _job() -> object:
    return gcp.dataflow.FlexTemplateJob("bad", container_spec_gcs_path="gs://b/t.json")


def _table(*, protection: bool, options: pulumi.ResourceOptions | None = None) -> Callable[[], object]:
    return lambda: gcp.bigquery.Table(
        "bad", dataset_id="d", table_id="t", schema="[]", deletion_protection=protection, opts=options
    )


BREAKING = [
    (no_primitive_role, _project_role("roles/editor")),
    (no_admin_role, _project_role("roles/storage.objectAdmin")),
    (no_admin_role, _project_role("roles/spanner.databaseAdmin")),
    (nobody_is_everybody, _project_role("roles/bigquery.jobUser", "allAuthenticatedUsers")),
    (
        nobody_is_everybody,
        lambda: gcp.bigquery.DatasetAccess("bad", dataset_id="d", role="READER", special_group="allAuthenticatedUsers"),
    ),
    (grants_are_members, lambda: gcp.projects.IAMBinding("bad", project="p", role="roles/x", members=["user:a@b"])),
    (grants_are_members, lambda: gcp.bigquery.DatasetIamPolicy("bad", dataset_id="d", policy_data="{}")),
    (grants_are_on_one_resource, _project_role("roles/bigquery.dataEditor")),
    (no_key_of_a_service_account, lambda: gcp.serviceaccount.Key("bad", service_account_id="a")),
    (buckets_are_private, _bucket(access="inherited")),
    (buckets_are_private, _bucket(uniform=False)),
    (dead_letters_are_kept_a_week, _bucket("dead-letters", days=6)),
    (workers_have_no_public_address, _job),
    (nothing_that_holds_data_can_be_deleted_in_prod, _table(protection=True)),
    (nothing_that_holds_data_can_be_deleted_in_prod, _table(protection=False, options=PROTECTED)),
    (nothing_that_holds_data_can_be_deleted_in_prod, _bucket()),
    (everything_uses_the_stack_s_provider, _job),
    (everything_is_in_a_component, _job),
]


@pytest.mark.parametrize(("rule", "program"), BREAKING, ids=lambda value: getattr(value, "__name__", ""))
def test_the_rule_names_the_resource_that_breaks_it(rule: Rule, program: Callable[[], object]) -> None:
    [broken] = rule(graph_of("prod", program=program))
    assert broken.split()[1].rstrip(":") in {"bad", "dead-letters"}


def test_every_rule_has_been_seen_to_fail() -> None:
    assert {rule for rule, _ in BREAKING} == set(RULES)
