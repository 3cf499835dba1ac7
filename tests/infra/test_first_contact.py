"""What Google Cloud would refuse, or let in, at the first contact: docs/first-contact.md names each with its test."""

from __future__ import annotations

import pytest

from bootstrap import roles
from components import naming
from graph.resources import Graph, Node
from tests.infra.graphs import graph_of


def waits_for(graph: Graph, node: Node) -> set[str]:
    """The names of what is made before a resource, through others too."""
    nodes = {(each.type.rpartition(":")[2], each.name): each for each in graph.nodes}
    found: set[str] = set()
    left = list(node.options.dependencies)
    while left:
        *_, kind, name = left.pop().replace("::", ":").split(":")
        if name not in found:
            found.add(name)
            left += nodes[kind, name].options.dependencies if (kind, name) in nodes else []
    return found


def test_an_audit_config_waits_for_the_accounts_that_it_exempts() -> None:
    graph = graph_of("dev")
    exempting = [node for node in graph.of("IAMAuditConfig") if "application-sa" in str(node.inputs)]
    assert {node.inputs["service"] for node in exempting} == {"spanner.googleapis.com", "bigquery.googleapis.com"}
    for node in exempting:
        assert {"application-sa", "dataflow-sa"} <= waits_for(graph, node)


def test_the_perimeter_waits_for_the_account_of_the_application() -> None:
    graph = graph_of("prod", {"kubernetesServiceAccount": "payments/api", "kubernetesProject": "clusters"})
    assert "application-sa" in waits_for(graph, graph.one("ServicePerimeter"))


@pytest.mark.parametrize(
    ("kind", "name", "grants"),
    [
        ("DataTransferConfig", "merge-payment-state",
         {"merge-sa-deployer-sa", "query-merge", "payment_audit.payment_state-merge"}),
        ("DataTransferConfig", "fill-payment-lookup", {"merge-sa-deployer-sa", "payment_audit.payment_lookup-merge"}),
        ("FlexTemplateJob", "audit-stream-job", {"dataflow-sa-deployer-sa", "dataflow-worker"}),
        ("Job", "audit-probe", {"probe-sa-deployer-sa"}),
        ("Job", "audit-replay", {"validation-sa-deployer-sa"}),
        ("Job", "audit-validation", {"validation-sa-deployer-sa"}),
        ("Job", "audit-backup", {"backup-sa-deployer-sa"}),
        ("Job", "audit-erasure", {"erasure-sa-deployer-sa"}),
        ("Job", "audit-pipeline", {"launcher-sa-deployer-sa", "dataflow-launcher-looks"}),
        ("Job", "audit-dead-letters", {"dead-letters-sa-deployer-sa", "dead-letters-dead-letters-sa"}),
        ("Service", "audit-starter", {"starter-sa-deployer-sa", "audit-backup-starter-invoker"}),
        ("Service", "audit-console", {"console-sa-deployer-sa"}),
    ],
)  # fmt: skip
def test_what_runs_as_an_account_waits_for_the_grants_that_it_takes(kind: str, name: str, grants: set[str]) -> None:
    graph = graph_of("dev")
    [node] = [node for node in graph.of(kind) if node.name == name and "cloudscheduler" not in node.type]
    assert grants <= waits_for(graph, node)


def test_a_schedule_waits_for_the_account_that_it_calls_as_and_for_what_that_may_call() -> None:
    graph = graph_of("dev")
    for node in graph.nodes:
        if node.type == "gcp:cloudscheduler/job:Job":
            assert {"scheduler-sa-deployer-sa", "audit-starter-scheduler", "audit-starter"} <= waits_for(graph, node)


@pytest.mark.parametrize(("stack", "spec"), [("staging", "spec"), ("prod", "status")])
def test_the_image_of_another_stack_s_project_is_pulled_out_of_the_perimeter_and_nothing_else_is(
    stack: str, spec: str
) -> None:
    [egress] = graph_of(stack).one("ServicePerimeter").inputs[spec]["egressPolicies"]
    assert egress["egressTo"] == {
        "resources": ["projects/123456789012"],
        "operations": [
            {
                "serviceName": "artifactregistry.googleapis.com",
                "methodSelectors": [{"method": "artifactregistry.googleapis.com/DockerRead"}],
            }
        ],
    }
    own = f"us-central1-docker.pkg.dev/payment-audit-{stack}/audit-images/stream@sha256:{'7' * 64}"
    alone = graph_of(stack, {"image": own, "consoleImage": own}).one("ServicePerimeter").inputs[spec]
    assert not alone.get("egressPolicies")


def test_a_scheduled_script_has_no_key_and_its_tables_have(prod: Graph) -> None:
    for node in prod.of("DataTransferConfig"):
        assert "encryptionConfiguration" not in node.inputs


def test_the_key_of_data_in_the_eu_is_in_europe() -> None:
    graph = graph_of(
        "staging",
        {"region": "europe-west1", "warehouseLocation": "EU", "spannerInstanceConfig": "regional-europe-west1"},
    )
    assert {node.inputs["location"] for node in graph.of("KeyRing")} == {"europe-west1", "europe"}
    [key] = [node for node in graph.of("CryptoKey") if node.name == "bigquery"]
    assert "/locations/europe/" in str(key.inputs["keyRing"]) or "europe" in str(key.options.dependencies)


def test_no_dataset_is_read_by_the_project_s_viewers(prod: Graph) -> None:
    deployer = f"deployer-sa@{prod.config['project']}.iam.gserviceaccount.com"
    for node in prod.of("Dataset"):
        assert node.inputs["accesses"] == [{"role": "OWNER", "userByEmail": deployer}]


def test_an_account_that_nothing_runs_as_has_no_grant() -> None:
    def granted(graph: Graph) -> set[str]:
        members = [str(node.inputs.get("member", "")) for node in graph.nodes]
        return {member.partition(":")[2].partition("@")[0] for member in members if member.startswith("serviceAccount")}

    without = granted(graph_of("dev", {"image": "", "templatePath": "gs://x/t.json"}))
    assert not without & {"launcher-sa", "schema-sa", "dead-letters-sa", "retry-sa", "starter-sa", "scheduler-sa"}
    assert {"launcher-sa", "starter-sa"} <= granted(graph_of("dev"))
    assert "console-sa" not in granted(graph_of("dev", {"consoleImage": ""}))


def test_workers_have_no_bucket_of_the_project_but_those_of_their_grants(prod: Graph) -> None:
    for who in ("dataflow-sa", "validation-sa"):
        given = [node for node in prod.nodes if f"{who}@" in str(node.inputs.get("member", ""))]
        on_project = {str(node.inputs["role"]) for node in given if node.type == "gcp:projects/iAMMember:IAMMember"}
        assert not [role for role in on_project if "storage" in role or role == "roles/dataflow.worker"]
        assert naming.role(naming.WORKER, str(prod.config["project"])) in on_project
        looked_at = [
            node.inputs["bucket"] for node in given if node.inputs["role"] == "roles/storage.legacyBucketReader"
        ]
        assert sorted(looked_at) == [f"{prod.config['project']}-{bucket}" for bucket in ("staging", "temp")]
    assert not [permission for permission in roles.WORK.permissions if permission.startswith("storage.")]
