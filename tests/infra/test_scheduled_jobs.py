"""Probe, validation and backups in the cloud: jobs of the pipeline's image, each started by its own account."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from components.config import ROOT
from graph.resources import IMAGE, Graph
from support import connection as connections
from tests.infra.graphs import graph_of

JOB, SCHEDULE = "gcp:cloudrunv2/job:Job", "gcp:cloudscheduler/job:Job"
ACCOUNTS = {
    "audit-probe": "probe-sa",
    "audit-validation": "validation-sa",
    "audit-repair": "validation-sa",
    "audit-backup": "backup-sa",
    "audit-backup-drill": "backup-sa",
}
COMMANDS = {
    "audit-probe": (["probe", "--once", "--write"], "Write the series to Cloud Monitoring"),
    "audit-validation": (["validate"], "Compare what Spanner held at a moment"),
    "audit-repair": (["validate", "--repair"], "Have lost changes read again"),
    "audit-backup": (["backup", "create"], "Makes the day's backup"),
    "audit-backup-drill": (["backup", "drill"], "restores it into a scratch dataset"),
}
STARTED = {
    "audit-probe": "* * * * *",
    "audit-validation": "7 * * * *",
    "audit-backup": "40 2 * * *",
    "audit-backup-drill": "40 5 * * 0",
}


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
    assert template["maxRetries"] == (1 if name == "audit-backup" else 0)
    assert template["vpcAccess"]["egress"] == "ALL_TRAFFIC"


@pytest.mark.parametrize("name", ACCOUNTS)
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
        [variable] = _container(graph, name)["envs"]
        monkeypatch.setenv(variable["name"], variable["value"])
        there = connections.load()
        assert there.project == graph.outputs["project"]
        assert there.region == graph.config["region"]
        assert json.loads(variable["value"]).items() <= graph.outputs.items()


@pytest.mark.parametrize("name", STARTED)
def test_its_schedule_starts_it_and_a_failed_start_is_not_repeated(graph: Graph, name: str) -> None:
    inputs = _one(graph, SCHEDULE, name)
    place = f"projects/{graph.outputs['project']}/locations/{graph.config['region']}"
    assert inputs["schedule"] == STARTED[name]
    assert inputs["retryConfig"] == {"retryCount": 0}
    target = inputs["httpTarget"]
    assert target["uri"] == f"https://run.googleapis.com/v2/{place}/jobs/{name}:run"
    assert target["oauthToken"]["serviceAccountEmail"].startswith(f"{ACCOUNTS[name]}@")


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
    graph = graph_of("dev", {"image": "", "pipelineOwner": "composer"})
    assert not [node for node in graph.nodes if node.type in (JOB, SCHEDULE)]
