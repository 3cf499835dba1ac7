"""The probe and the operations in the cloud: jobs of the pipeline's image, started through one service."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from components.config import ROOT
from contract import operations
from graph.resources import IMAGE, Graph
from support import connection as connections
from tests.infra.graphs import graph_of

JOB, SCHEDULE = "gcp:cloudrunv2/job:Job", "gcp:cloudscheduler/job:Job"
SERVICE = "gcp:cloudrunv2/service:Service"
ACCOUNTS = {
    "audit-probe": "probe-sa",
    "audit-validation": "validation-sa",
    "audit-repair": "validation-sa",
    "audit-backup": "backup-sa",
    "audit-backup-drill": "backup-sa",
    "audit-erasure": "erasure-sa",
    "audit-pipeline": "launcher-sa",
    "audit-schema": "schema-sa",
    "audit-dead-letters": "dead-letters-sa",
    "audit-dead-letters-retry": "retry-sa",
}
COMMANDS = {
    "audit-probe": (["probe", "--once", "--write"], "Write the series to Cloud Monitoring"),
    "audit-validation": (["validate"], "Compare what Spanner held at a moment"),
    "audit-repair": (["validate", "--repair"], "Have lost changes read again"),
    "audit-backup": (["backup", "create"], "Makes the day's backup"),
    "audit-backup-drill": (["backup", "drill"], "restores it into a scratch dataset"),
}
STARTED = {each.job: each for each in operations.SCHEDULED}
STARTER = "https://audit-starter-123456789012.{region}.run.app"


def _one(graph: Graph, kind: str, name: str) -> dict[str, Any]:
    [node] = [node for node in graph.nodes if node.type == kind and node.name == name]
    return dict(node.inputs)


def _container(graph: Graph, name: str) -> dict[str, Any]:
    [container] = _one(graph, JOB, name)["template"]["template"]["containers"]
    return dict(container)


@pytest.mark.parametrize("name", ACCOUNTS)
def test_it_runs_the_image_of_the_job_as_its_own_account(graph: Graph, name: str) -> None:
    template = _one(graph, JOB, name)["template"]["template"]
    assert template["containers"][0]["image"] == IMAGE
    assert template["serviceAccount"] == f"{ACCOUNTS[name]}@{graph.outputs['project']}.iam.gserviceaccount.com"
    assert template["maxRetries"] == (1 if name in ("audit-backup", "audit-erasure") else 0)
    assert template["vpcAccess"]["egress"] == "ALL_TRAFFIC"


@pytest.mark.parametrize("name", COMMANDS)
def test_its_command_is_one_that_audit_has(name: str) -> None:
    _, *command = _container(graph_of("prod"), name)["commands"]
    arguments, said = COMMANDS[name]
    assert command == ["-m", "support.cli.main", *arguments]
    help_text = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert said in help_text


def test_its_environment_is_a_connection_to_this_stack(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ACCOUNTS:
        given = {each["name"]: each["value"] for each in _container(graph, name)["envs"]}
        monkeypatch.setenv(connections.IN_ENVIRONMENT, given[connections.IN_ENVIRONMENT])
        there = connections.load()
        assert there.project == graph.outputs["project"]
        assert there.region == graph.config["region"]
        assert json.loads(given[connections.IN_ENVIRONMENT]).items() <= graph.outputs.items()


@pytest.mark.parametrize("operation", operations.OPERATIONS, ids=lambda each: each.name)
def test_an_operation_is_one_job_with_the_contract_s_command_and_limits(operation: operations.Operation) -> None:
    graph = graph_of("prod")
    task = _one(graph, JOB, operation.job)["template"]["template"]
    [container] = task["containers"]
    assert container["commands"] == ["python", "-m", "support.cli.main", *operation.command]
    assert (task["timeout"], task["maxRetries"]) == (f"{operation.seconds}s", operation.retries)
    named = {each["name"]: each["value"] for each in container["envs"]}
    assert named[operations.IN_ENVIRONMENT] == operation.name


@pytest.mark.parametrize("name", STARTED)
def test_its_schedule_calls_the_starter_as_the_scheduler(graph: Graph, name: str) -> None:
    inputs = _one(graph, SCHEDULE, name)
    starter = STARTER.format(region=graph.config["region"])
    assert inputs["schedule"] == operations.cron_of(STARTED[name], "pulumi") and inputs["timeZone"] == "Etc/UTC"
    target = inputs["httpTarget"]
    assert (target["httpMethod"], target["uri"]) == ("POST", f"{starter}/{name}")
    account = f"scheduler-sa@{graph.outputs['project']}.iam.gserviceaccount.com"
    assert target["oidcToken"] == {"serviceAccountEmail": account, "audience": starter}
    assert "oauthToken" not in target


def test_the_pipeline_is_kept_every_ten_minutes_by_who_launches_and_looked_at_hourly_by_who_does_not() -> None:
    assert _one(graph_of("dev"), SCHEDULE, "audit-pipeline")["schedule"] == "52 * * * *"
    owned = graph_of("dev", {"pipelineOwner": "scheduler"})
    assert _one(owned, SCHEDULE, "audit-pipeline")["schedule"] == "*/10 * * * *"


def test_a_start_that_fails_is_tried_again_where_the_next_is_far(graph: Graph) -> None:
    tried = {name: _one(graph, SCHEDULE, name)["retryConfig"]["retryCount"] for name in STARTED}
    assert {name for name, count in tried.items() if count} == {"audit-backup", "audit-backup-drill", "audit-erasure"}


def test_no_entry_of_cloud_scheduler_names_a_job_s_own_address(graph: Graph) -> None:
    """Inside an enforced perimeter such a target is refused."""
    targets = [node.inputs["httpTarget"]["uri"] for node in graph.nodes if node.type == SCHEDULE]
    assert len(targets) == 1 + len(operations.SCHEDULED)
    assert not [uri for uri in targets if "googleapis.com" in uri or ":run" in uri]


def test_the_starter_is_called_from_inside_alone_and_by_the_scheduler_alone(graph: Graph) -> None:
    service = _one(graph, SERVICE, "audit-starter")
    assert service["ingress"] == "INGRESS_TRAFFIC_INTERNAL_ONLY"
    template = service["template"]
    assert template["vpcAccess"]["egress"] == "ALL_TRAFFIC"
    assert template["serviceAccount"].startswith("starter-sa@")
    assert template["containers"][0]["image"] == IMAGE
    callers = [node.inputs for node in graph.of("ServiceIamMember") if node.inputs["name"] == "audit-starter"]
    assert {(str(each["role"]), str(each["member"]).partition("@")[0]) for each in callers} == {
        ("roles/run.invoker", "serviceAccount:scheduler-sa"),
        *(("roles/run.viewer", str(person).partition("@")[0]) for person in graph.config["onCall"]),
    }


def test_the_starter_may_start_what_has_a_schedule_and_nothing_else(graph: Graph) -> None:
    given = [node for node in graph.nodes if "starter-sa@" in str(node.inputs.get("member", ""))]
    started = {(str(node.inputs["name"]), str(node.inputs["role"])) for node in given}
    assert {node.kind for node in given} == {"JobIamMember"}
    assert started == {
        (job, f"roles/run.{role}") for job in (*STARTED, "audit-probe") for role in ("invoker", "viewer")
    }


def test_no_account_starts_itself(graph: Graph) -> None:
    runs_as = {
        node.inputs["name"]: node.inputs["template"]["template"]["serviceAccount"]
        for node in graph.nodes
        if node.type == JOB
    }
    grants = [node.inputs for node in graph.of("JobIamMember")]
    assert not [each for each in grants if str(each["member"]).endswith(str(runs_as[each["name"]]))]


@pytest.mark.parametrize(("minutes", "cron"), [(1, "* * * * *"), (3, "*/3 * * * *")])
def test_the_probe_runs_every_minute_or_as_seldom_as_config_says(minutes: int, cron: str) -> None:
    graph = graph_of("dev", {"probeMinutes": minutes})
    probe = _one(graph, SCHEDULE, "audit-probe")
    assert probe["schedule"] == cron
    assert probe["httpTarget"]["uri"].endswith(".run.app/audit-probe")
    assert probe["retryConfig"] == {"retryCount": 0}


def test_nobody_who_may_start_a_repair_chooses_what_it_runs() -> None:
    """No role with overrides, which take another environment: another BigQuery would get the account's token."""
    graph = graph_of("prod")
    assert not [node for node in graph.nodes if node.type == SCHEDULE and node.name == "audit-repair"]
    on_call = graph.config["onCall"]
    started = [
        n
        for n in graph.of("JobIamMember")
        if n.inputs["member"] in on_call
        and n.inputs["name"] in ("audit-repair", "audit-validation")
        and "viewer" not in n.inputs["role"]
    ]
    assert {(node.inputs["name"], node.inputs["role"]) for node in started} == {("audit-repair", "roles/run.invoker")}


def test_a_subnetwork_of_a_shared_vpc_is_named_as_cloud_run_takes_it() -> None:
    shared = "https://www.googleapis.com/compute/v1/projects/host-project/regions/us-central1/subnetworks/s"
    for given, expected in (
        (shared, "projects/host-project/regions/us-central1/subnetworks/s"),
        ("regions/us-central1/subnetworks/s", "projects/{project}/regions/us-central1/subnetworks/s"),
    ):
        graph = graph_of("dev", {"subnetwork": given, "region": "us-central1", "cloudNat": "false"})
        access = _one(graph, JOB, "audit-probe")["template"]["template"]["vpcAccess"]
        assert access["networkInterfaces"] == [{"subnetwork": expected.format(project=graph.outputs["project"])}]


def test_without_an_image_there_is_none() -> None:
    graph = graph_of("dev", {"image": "", "templatePath": "gs://x/t.json"})
    assert not [node for node in graph.nodes if node.type in (JOB, SCHEDULE) or node.name == "audit-starter"]
