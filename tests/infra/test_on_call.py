"""Who is on call looks, and reads views; who may end the job starts none; who retries dead letters does nothing else.

That these grants are what the runbooks need, and no more, is in test_runbook_access.py.
"""

from __future__ import annotations

import pytest

from bootstrap import roles
from bootstrap.steps import Stack, steps
from graph.resources import Graph
from guardrails.iam import grants
from guardrails.rules import OWN_ROLES, RULES
from tests.infra.graphs import graph_of

PROD = Stack(name="prod", project="payment-audit-prod", region="us-east4", number="1")
ON_CALL, DRAINER, OPERATOR = "group:on-call@example.com", "user:lead@example.com", "user:operator@example.com"


@pytest.fixture(scope="module")
def staffed() -> Graph:
    return graph_of("staging", {"onCall": [ON_CALL], "drainers": [DRAINER], "deadLetterOperators": [OPERATOR]})


def grants_to(graph: Graph, member: str) -> set[tuple[str, str]]:
    """(role, what it is on)."""
    return {(grant.role, grant.resource) for grant in grants(graph) if grant.principal == member}


def test_on_call_reads_views_log_job_probe_metadata_dead_letters_and_dashboards_and_nothing_else(
    staffed: Graph,
) -> None:
    assert grants_to(staffed, "on-call") == {
        ("bigquery.dataViewer", "dataset payment_views"),
        ("bigquery.jobUser", "project"),
        ("logging.viewAccessor", "log view job"),
        ("logging.viewer", "project"),
        ("monitoring.viewer", "project"),
        ("auditOnCall", "project"),
        ("run.viewer", "Cloud Run job audit-probe"),
        ("run.invoker", "Cloud Run job audit-probe"),
        ("storage.objectViewer", "bucket dead-letters"),
        ("storage.objectViewer", "bucket templates"),
        ("spanner.databaseReader", "Spanner database audit-metadata"),
        ("run.viewer", "Cloud Run service audit-console"),
        ("run.viewer", "Cloud Run job audit-validation"),
        ("run.viewer", "Cloud Run job audit-repair"),
        ("run.viewer", "Cloud Run job audit-erasure"),
        ("run.invoker", "Cloud Run job audit-repair"),
        ("run.viewer", "Cloud Run job audit-backup"),
        ("run.invoker", "Cloud Run job audit-backup"),
        ("run.viewer", "Cloud Run job audit-backup-drill"),
        ("run.invoker", "Cloud Run job audit-backup-drill"),
        # They have an operation run now, each by a command that is fixed, and see how its runs ended.
        *(
            (role, f"Cloud Run job {job}")
            for job in ("audit-pipeline", "audit-schema", "audit-dead-letters", "audit-dead-letters-retry")
            for role in ("run.invoker", "run.viewer")
        ),
        ("run.viewer", "Cloud Run service audit-starter"),
        # They submit replays: what these are good for is in tests/infra/test_replay_job.py.
        ("run.viewer", "Cloud Run job audit-replay"),
        ("run.invoker", "Cloud Run job audit-replay"),
        ("spanner.fineGrainedAccessUser", "Spanner database audit-metadata"),
        ("spanner.databaseRoleUser", "Spanner database audit-metadata, replay_submitter"),
    }


def test_on_call_s_role_of_our_own_reads_no_data_and_changes_nothing_of_the_stack() -> None:
    changing = {p for p in roles.ON_CALL.permissions if not p.endswith((".list", ".get", ".getDdl", ".listAll"))}
    assert changing == {"cloudscheduler.jobs.enable", "monitoring.snoozes.create"}


def test_operators_retry_and_discard_dead_letters_and_do_nothing_else(staffed: Graph) -> None:
    assert grants_to(staffed, "dead letter operators") == {
        ("storage.objectUser", "bucket dead-letters"),
        ("storage.objectViewer", "bucket templates"),
    }


def test_who_is_on_call_and_a_reader_has_each_grant_once() -> None:
    graph = graph_of("staging", {"onCall": [ON_CALL], "readers": [ON_CALL]})
    given = [(n.type, n.inputs["role"], str(n.inputs)) for n in graph.nodes if n.inputs.get("member") == ON_CALL]
    assert len(given) == len(set(given))


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
    assert grants_to(staffed, "drainers") == {("auditDrainer", "project")}
    assert set(roles.DRAIN.permissions) == {
        "dataflow.jobs.cancel",
        "dataflow.jobs.get",
        "dataflow.jobs.list",
        "dataflow.jobs.updateContents",
    }
    assert {roles.DRAIN.id, roles.WORK.id, roles.ON_CALL.id} == OWN_ROLES.keys()


def test_the_program_makes_no_role_that_it_may_grant(graph: Graph) -> None:
    """Who could change one and grant it could do anything. Bootstrap makes them, and the deployer cannot."""
    assert graph.of("IAMCustomRole", "CustomRole") == []
    assert not [role for role in roles.DEPLOYER if role.endswith(("roleAdmin", "roleEditor"))]


def test_people_on_call_break_no_rule(staffed: Graph) -> None:
    assert [problem for rule in RULES for problem in rule(staffed)] == []


def test_nobody_is_on_call_unless_config_says_so() -> None:
    members = {str(node.inputs.get("member", "serviceAccount:")) for node in graph_of("dev").nodes}
    assert not [member for member in members if not member.startswith("serviceAccount:")]
