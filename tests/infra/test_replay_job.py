"""Replays in the cloud: a job of the pipeline's image with its own account, and who may start it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from components.config import ROOT
from contract import schema
from graph.resources import IMAGE, Graph, Node
from pipeline.jobs.batch import parse
from support import connection as connections
from support import replay
from tests.infra.graphs import graph_of
from tests.infra.test_on_call import ON_CALL

JOB = "projects/{project}/locations/{region}/jobs/audit-replay"
CONSOLE = "serviceAccount:console-sa@payment-audit-staging.iam.gserviceaccount.com"


def _job(graph: Graph) -> dict[str, Any]:
    [node] = [node for node in graph.of("Job") if node.name == "audit-replay"]
    return dict(node.inputs["template"]["template"])


def _connection(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> connections.Connection:
    [variable] = _job(graph)["containers"][0]["envs"]
    monkeypatch.setenv(variable["name"], variable["value"])
    return connections.load()


def test_it_runs_the_image_of_the_job_as_the_account_that_reads_spanner(graph: Graph) -> None:
    job = _job(graph)
    assert job["containers"][0]["image"] == IMAGE
    assert job["serviceAccount"] == f"validation-sa@{graph.outputs['project']}.iam.gserviceaccount.com"
    assert job["vpcAccess"]["egress"] == "ALL_TRAFFIC"


def test_its_command_runs_what_is_not_finished_without_an_argument(graph: Graph) -> None:
    _, *arguments = _job(graph)["containers"][0]["commands"]
    assert arguments[-2:] == ["resume", "--here"]
    said = subprocess.run(
        [sys.executable, *arguments, "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "[OPTIONS] [ID]" in said


def test_it_runs_replays_itself_and_everybody_else_has_it_run_them(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = _connection(graph, monkeypatch)
    assert there.replay_job == ""
    expected = JOB.format(project=graph.outputs["project"], region=graph.config["region"])
    assert graph.outputs["replayJob"] == expected
    known = {key: value for key, value in graph.outputs.items() if key != "replayBeamArgs"}
    assert (
        json.loads(_job(graph)["containers"][0]["envs"][0]["value"]).items()
        - {("replayBeamArgs", there.replay_beam_args)}
        <= known.items()
    )


def test_a_replay_of_many_payments_is_a_dataflow_job_as_the_same_account(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions, WorkerOptions

    there = _connection(graph, monkeypatch)
    given = {**replay._launch_options(there), "replayId": "INC-1"}
    values, beam_args = parse(
        [*(f"--{name}={value}" for name, value in given.items()), *there.replay_beam_args.split()]
    )
    assert values["spannerDatabase"] == "audit-db"
    options = PipelineOptions(beam_args)
    assert options.view_as(StandardOptions).runner == "DataflowRunner"
    cloud, workers = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    assert cloud.service_account_email == _job(graph)["serviceAccount"]
    assert cloud.temp_location == f"gs://{graph.outputs['project']}-temp/temp"
    assert workers.sdk_container_image == IMAGE and workers.use_public_ips is False
    # Nothing was misspelt: Beam would leave it without a word.
    assert set(options.get_all_options(drop_default=True)) >= {"sdk_location", "subnetwork", "max_num_workers"}


def test_who_starts_it_adds_a_replay_and_reads_no_payment() -> None:
    graph = graph_of("staging", {"onCall": [ON_CALL], "drainers": ["user:lead@example.com"]})
    for member in (CONSOLE, ON_CALL):
        granted = {node.inputs["role"]: node for node in graph.nodes if node.inputs.get("member") == member}
        started = [
            n for n in graph.of("JobIamMember") if n.inputs["member"] == member and n.inputs["name"] == "audit-replay"
        ]
        assert {n.inputs["role"] for n in started} <= {"roles/run.invoker", "roles/run.viewer"}
        assert "roles/run.invoker" in {n.inputs["role"] for n in started}
        assert granted["roles/spanner.databaseRoleUser"].inputs["database"] == "audit-metadata"
        assert granted["roles/spanner.databaseRoleUser"].inputs["condition"]["title"] == schema.SUBMITTER_ROLE
        assert not {node.inputs.get("database") for node in granted.values()} & {"audit-db"}
        assert "roles/secretmanager.secretAccessor" not in granted
    statements = graph.one("Database", "audit-metadata").inputs["ddls"]
    assert [each for each in statements if schema.SUBMITTER_ROLE in each] == [
        "CREATE ROLE replay_submitter",
        "GRANT SELECT, INSERT ON TABLE replays TO ROLE replay_submitter",
        "GRANT SELECT ON TABLE replay_shards TO ROLE replay_submitter",
        "GRANT SELECT ON TABLE backups TO ROLE replay_submitter",
        "GRANT SELECT(ErasureId, RequestedBy, Reason, RequestedAt, Report, FinishedAt) ON TABLE erasures TO ROLE "
        "replay_submitter",
        # What `audit health` and the console say of the scheduled operations: no row of it is about a payment.
        "GRANT SELECT ON TABLE operations TO ROLE replay_submitter",
    ]


def _topics(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.type.startswith("gcp:pubsub/")]


def test_a_topic_is_made_encrypted_where_config_names_one_and_its_account_publishes_there() -> None:
    graph = graph_of("dev", {"replayTopic": "replays"})
    topic, publisher = graph.one("Topic").inputs, graph.one("TopicIAMMember").inputs
    assert topic["messageStoragePolicy"] == {"allowedPersistenceRegions": [graph.config["region"]]}
    assert topic["kmsKeyName"].endswith("/cryptoKeys/pubsub")
    assert (publisher["topic"], publisher["role"]) == ("replays", "roles/pubsub.publisher")
    assert publisher["member"].startswith("serviceAccount:validation-sa@")
    assert graph.outputs["replayTopic"] == f"projects/{graph.outputs['project']}/topics/replays"


def test_a_topic_that_is_there_gets_the_publisher_alone_and_another_project_s_nothing() -> None:
    project = graph_of("dev").outputs["project"]
    own = graph_of("dev", {"replayTopic": f"projects/{project}/topics/theirs"})
    assert [node.kind for node in _topics(own)] == ["TopicIAMMember"]
    assert not [node for node in own.of("CryptoKey") if node.name == "pubsub"]
    assert _topics(graph_of("dev", {"replayTopic": "projects/payments/topics/theirs"})) == []
    assert _topics(graph_of("dev")) == []


def test_data_boost_is_a_role_more() -> None:
    graph = graph_of("dev", {"replayDataBoost": "true"})
    [granted] = [node for node in graph.of("DatabaseIAMMember") if node.name == "audit-db-validation"]
    assert granted.inputs["role"] == "roles/spanner.databaseReaderWithDataBoost"


def test_without_an_image_there_is_no_job_and_replays_run_where_they_are_requested() -> None:
    graph = graph_of("dev", {"image": "", "templatePath": "gs://x/t.json"})
    assert not [node for node in graph.of("Job") if node.name == "audit-replay"]
    assert graph.outputs["replayJob"] == ""
