"""Erasures in the cloud: a job with an account that reads no payment, and who may have it run."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from components.config import ROOT
from contract import operations, schema
from graph.resources import Graph
from tests.infra.graphs import graph_of

ERASER = "group:privacy-office@example.com"


def _job(graph: Graph) -> dict[str, Any]:
    [node] = [node for node in graph.of("Job") if node.name == "audit-erasure" and "template" in node.inputs]
    return dict(node.inputs["template"]["template"])


def _granted(graph: Graph, member: str) -> set[tuple[str, str]]:
    return {
        (node.inputs["role"].removeprefix("roles/"), node.type.split(":")[1])
        for node in graph.nodes
        if node.inputs.get("member") == member
    }


def test_it_runs_what_is_not_finished_where_it_is(graph: Graph) -> None:
    job = _job(graph)
    assert job["serviceAccount"] == f"erasure-sa@{graph.outputs['project']}.iam.gserviceaccount.com"
    envs = {each["name"]: each["value"] for each in job["containers"][0]["envs"]}
    # The connection, and the name under which its runs are recorded.
    assert envs.keys() == {"AUDIT_CONNECTION_JSON", operations.IN_ENVIRONMENT}
    assert envs[operations.IN_ENVIRONMENT] == operations.ERASURE.name
    # It runs erasures itself: it knows of no job.
    assert "erasureJob" not in json.loads(envs["AUDIT_CONNECTION_JSON"])
    assert graph.outputs["erasureJob"].endswith("/jobs/audit-erasure")
    _, *arguments = job["containers"][0]["commands"]
    assert arguments[-3:] == ["erase", "resume", "--here"]
    said = subprocess.run(
        [sys.executable, *arguments, "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "[OPTIONS] [ID]" in said


def test_its_account_redacts_and_reads_no_payment(graph: Graph) -> None:
    member = f"serviceAccount:erasure-sa@{graph.outputs['project']}.iam.gserviceaccount.com"
    assert not [
        node
        for node in graph.nodes
        if node.inputs.get("member") == member and node.inputs.get("database") == "audit-db"
    ]
    granted = _granted(graph, member)
    assert ("bigquery.dataEditor", "bigquery/iamMember") in granted
    assert ("secretmanager.secretAccessor", "secretmanager/secretIamMember") in granted
    # Nobody else changes the log of who looked at what.
    changers = {
        node.inputs["member"]
        for node in graph.of("IamMember")
        if node.inputs.get("tableId") == "access_log" and node.inputs["role"] == "roles/bigquery.dataEditor"
    }
    assert changers == {member}


def test_who_has_a_customer_erased_records_it_starts_the_job_and_has_nothing_else() -> None:
    graph = graph_of("staging", {"erasers": [ERASER]})
    assert {role for role, _ in _granted(graph, ERASER)} == {
        "run.invoker", "run.viewer", "spanner.databaseRoleUser", "spanner.fineGrainedAccessUser",
    }  # fmt: skip
    role = graph.one("DatabaseIAMMember", f"audit-metadata-{ERASER}-erases-as-erasure_submitter")
    assert role.inputs["condition"]["title"] == schema.ERASER_ROLE and role.inputs["database"] == "audit-metadata"
    statements = graph.one("Database", "audit-metadata").inputs["ddls"]
    assert [each for each in statements if schema.ERASER_ROLE in each] == [
        "CREATE ROLE erasure_submitter",
        "GRANT SELECT, INSERT ON TABLE erasures TO ROLE erasure_submitter",
    ]
