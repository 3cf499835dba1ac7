"""What Argo CD acts as in Google Cloud: one account that writes one folder of one bucket."""

from __future__ import annotations

import pytest

from graph.resources import Graph
from guardrails.rules import RULES
from tests.dags.names import ACCOUNT, FOLDER, NAMESPACE
from tests.infra.graphs import graph_of
from tests.infra.test_orchestration import FORMS, OWN
from tests.infra.test_provider import _all

ARGO_CD = {"argoCdCluster": "projects/clusters/locations/global/memberships/tools"}


@pytest.fixture(scope="module", params=FORMS)
def synced(request: pytest.FixtureRequest) -> Graph:
    return graph_of("prod", {**FORMS[request.param], **ARGO_CD})


def test_the_account_writes_the_folder_of_the_dags_alone(synced: Graph) -> None:
    given = [node for node in synced.nodes if f"{ACCOUNT}@" in str(node.inputs.get("member", ""))]
    [bucket] = given
    assert (bucket.kind, bucket.inputs["role"]) == ("BucketIAMMember", "roles/storage.objectUser")
    name = bucket.inputs["bucket"]
    assert name in ("payment-audit-prod-composer", "team-airflow-bucket")
    expression = bucket.inputs["condition"]["expression"]
    assert expression.endswith(f'resource.name.startsWith("projects/_/buckets/{name}/objects/{FOLDER}")')


def test_the_pods_of_the_stack_s_namespace_act_as_it_and_nobody_else(synced: Graph) -> None:
    [cluster] = [node for node in synced.nodes if node.name == f"{ACCOUNT}-kubernetes"]
    assert cluster.inputs["role"] == "roles/iam.workloadIdentityUser"
    assert cluster.inputs["member"] == f"serviceAccount:clusters.svc.id.goog[{NAMESPACE.format(stack='prod')}/dag-sync]"


def test_with_argo_cd_no_guardrail_breaks_and_the_provider_takes_it(synced: Graph) -> None:
    assert [broken for rule in RULES for broken in rule(synced)] == []
    assert _all(synced) == []


@pytest.mark.parametrize("config", [{}, OWN, ARGO_CD])
def test_without_composer_and_a_cluster_there_is_no_such_account(config: dict[str, object]) -> None:
    assert [node.name for node in graph_of("prod", config).nodes if ACCOUNT in node.name] == []
