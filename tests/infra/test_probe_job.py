"""The probe in the cloud: a job of the pipeline's image, started every minute by its own account."""

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


def _one(graph: Graph, kind: str) -> dict[str, Any]:
    [node] = [node for node in graph.nodes if (node.type, node.name) == (kind, "audit-probe")]
    return dict(node.inputs)


def _container(graph: Graph) -> dict[str, Any]:
    [container] = _one(graph, JOB)["template"]["template"]["containers"]
    return dict(container)


def test_it_runs_the_image_of_the_job_as_its_own_account(graph: Graph) -> None:
    template = _one(graph, JOB)["template"]["template"]
    assert template["containers"][0]["image"] == IMAGE
    assert template["serviceAccount"] == f"probe-sa@{graph.outputs['project']}.iam.gserviceaccount.com"
    assert template["maxRetries"] == 0
    assert template["vpcAccess"]["egress"] == "ALL_TRAFFIC"


def test_its_command_is_one_that_audit_has(graph: Graph) -> None:
    _, *arguments = _container(graph)["commands"]
    said = subprocess.run(
        [sys.executable, *arguments, "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "Write the series to Cloud Monitoring" in said
    assert arguments[-2:] == ["--once", "--write"]


def test_its_environment_is_a_connection_to_this_stack(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    [variable] = _container(graph)["envs"]
    monkeypatch.setenv(variable["name"], variable["value"])
    there = connections.load()
    assert there.project == graph.outputs["project"]
    assert there.region == graph.config["region"]
    assert json.loads(variable["value"]).items() <= graph.outputs.items()


def test_a_minute_starts_it_and_a_failed_start_is_not_repeated(graph: Graph) -> None:
    inputs = _one(graph, SCHEDULE)
    place = f"projects/{graph.outputs['project']}/locations/{graph.config['region']}"
    assert inputs["schedule"] == "* * * * *"
    assert inputs["retryConfig"] == {"retryCount": 0}
    target = inputs["httpTarget"]
    assert target["uri"] == f"https://run.googleapis.com/v2/{place}/jobs/audit-probe:run"
    assert target["oauthToken"]["serviceAccountEmail"].startswith("probe-sa@")


def test_a_subnetwork_of_a_shared_vpc_is_named_as_cloud_run_takes_it() -> None:
    shared = "https://www.googleapis.com/compute/v1/projects/host-project/regions/us-central1/subnetworks/s"
    for given, expected in (
        (shared, "projects/host-project/regions/us-central1/subnetworks/s"),
        ("regions/us-central1/subnetworks/s", "projects/{project}/regions/us-central1/subnetworks/s"),
    ):
        graph = graph_of("dev", {"subnetwork": given, "region": "us-central1", "cloudNat": "false"})
        access = _one(graph, JOB)["template"]["template"]["vpcAccess"]
        assert access["networkInterfaces"] == [{"subnetwork": expected.format(project=graph.outputs["project"])}]


def test_without_an_image_there_is_no_probe() -> None:
    graph = graph_of("dev", {"image": "", "pipelineOwner": "composer"})
    assert not [node for node in graph.nodes if node.type in (JOB, SCHEDULE) and node.name == "audit-probe"]
