"""Who is on call sees the job and what it left behind, and no data; who may end the job starts none."""

from __future__ import annotations

import pytest

from bootstrap import roles
from bootstrap.steps import Stack, steps
from graph.resources import Graph, Node
from guardrails.rules import OWN_ROLES, RULES
from tests.infra.graphs import graph_of

PROD = Stack(name="prod", project="payment-audit-prod", region="us-east4", number="1")
ON_CALL, DRAINER = "group:on-call@example.com", "user:lead@example.com"


@pytest.fixture(scope="module")
def staffed() -> Graph:
    return graph_of("staging", {"onCall": [ON_CALL], "drainers": [DRAINER]})


def grants_to(graph: Graph, member: str) -> dict[str, Node]:
    return {node.inputs["role"]: node for node in graph.nodes if node.inputs.get("member") == member}


def test_on_call_reads_log_job_probe_metadata_dead_letters_and_dashboards_and_nothing_else(staffed: Graph) -> None:
    granted = grants_to(staffed, ON_CALL)
    assert granted["roles/run.invoker"].inputs["name"] == "audit-repair"
    assert {role: node.kind for role, node in granted.items()} == {
        "roles/logging.viewAccessor": "LogViewIamMember",
        "roles/logging.viewer": "IAMMember",
        "roles/dataflow.viewer": "IAMMember",
        "roles/monitoring.viewer": "IAMMember",
        "roles/cloudscheduler.viewer": "IAMMember",
        "roles/run.viewer": "ServiceIamMember",
        "roles/run.invoker": "JobIamMember",
        "roles/storage.objectViewer": "BucketIAMMember",
        "roles/spanner.databaseReader": "DatabaseIAMMember",
        # They submit replays: what these are good for is in tests/infra/test_replay_job.py.
        "roles/run.jobsExecutorWithOverrides": "JobIamMember",
        "roles/spanner.fineGrainedAccessUser": "DatabaseIAMMember",
        "roles/spanner.databaseRoleUser": "DatabaseIAMMember",
    }
    assert granted["roles/storage.objectViewer"].inputs["bucket"] == "payment-audit-staging-dead-letters"
    seen = [n for n in staffed.nodes if n.inputs.get("role") == "roles/run.viewer" and n.inputs["member"] == ON_CALL]
    assert {(node.kind, node.inputs["name"]) for node in seen} == {
        ("JobIamMember", "audit-probe"),
        ("JobIamMember", "audit-replay"),
        ("JobIamMember", "audit-validation"),
        ("JobIamMember", "audit-repair"),
        ("ServiceIamMember", "audit-console"),
    }
    assert granted["roles/spanner.databaseReader"].inputs["database"] == "audit-metadata"


def test_on_call_s_view_of_the_logs_has_the_job_s_and_not_who_read_data(staffed: Graph) -> None:
    view = staffed.one("LogView").inputs
    assert view["filter"] == 'resource.type = "dataflow_step"'
    assert view["bucket"].endswith("/buckets/audit-logs")
    held = [step.grant[1] for step in steps(PROD) if step.grant and "deployer-sa" in step.grant[0]]
    assert roles.LOG_VIEWS.of(PROD.project) in held
    seen = staffed.one("LogViewIamMember").inputs
    assert f"{seen['parent']}/locations/{seen['location']}/buckets/{seen['bucket']}" == view["bucket"]
    assert seen["name"] == view["name"] == "job"


def test_who_drains_has_one_role_of_our_own_with_which_no_job_can_be_started(staffed: Graph) -> None:
    [role] = grants_to(staffed, DRAINER)
    assert role == "projects/payment-audit-staging/roles/auditDrainer"
    assert set(roles.DRAIN.permissions) == {
        "dataflow.jobs.cancel",
        "dataflow.jobs.get",
        "dataflow.jobs.list",
        "dataflow.jobs.updateContents",
    }
    assert {roles.DRAIN.id} == OWN_ROLES.keys()


def test_the_program_makes_no_role_that_it_may_grant(graph: Graph) -> None:
    """Who could change one and grant it could do anything. Bootstrap makes them, and the deployer cannot."""
    assert graph.of("IAMCustomRole", "CustomRole") == []
    assert not [role for role in roles.DEPLOYER if role.endswith(("roleAdmin", "roleEditor"))]


def test_people_on_call_break_no_rule(staffed: Graph) -> None:
    assert [problem for rule in RULES for problem in rule(staffed)] == []


def test_nobody_is_on_call_unless_config_says_so() -> None:
    members = {str(node.inputs.get("member", "serviceAccount:")) for node in graph_of("dev").nodes}
    assert not [member for member in members if not member.startswith("serviceAccount:")]
