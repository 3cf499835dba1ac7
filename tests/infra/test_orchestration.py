"""Who starts the operations: Cloud Scheduler and Cloud Composer start the same jobs, and nothing else of the stack."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.composer import storage_condition
from contract import operations
from graph import resources
from graph.resources import Graph
from guardrails.rules import RULES
from tests.infra.graphs import graph_of
from tests.infra.test_provider import _all
from tests.infra.test_settings import refusal

OWN = {"orchestration": "composer", "pipelineOwner": "composer", "composerWebRanges": ["203.0.113.0/24"]}
THERE = {
    "orchestration": "composer",
    "composerEnvironment": "projects/team-airflow/locations/us-central1/environments/team",
    "composerBucket": "team-airflow-bucket",
    "composerAccount": "airflow@team-airflow.iam.gserviceaccount.com",
}
FORMS: dict[str, dict[str, Any]] = {"own": OWN, "there": THERE}
JOB, SCHEDULE = "gcp:cloudrunv2/job:Job", "gcp:cloudscheduler/job:Job"


def of(kind: str, graph: Graph) -> dict[str, Any]:
    return {node.name: node.inputs for node in graph.nodes if node.type == kind}


def file(graph: Graph) -> dict[str, Any]:
    # The SDK takes what is in any object for a secret.
    return dict(json.loads(graph.one("BucketObject", "operations").inputs["content"]["value"]))


@pytest.fixture(scope="module", params=["dev", "staging", "prod"])
def composer(request: pytest.FixtureRequest) -> Graph:
    return graph_of(request.param, OWN)


def test_both_forms_start_the_same_jobs_as_the_same_accounts(composer: Graph) -> None:
    def what_runs(graph: Graph) -> dict[str, Any]:
        found = {}
        for name, inputs in of(JOB, graph).items():
            task = inputs["template"]["template"]
            [container] = task["containers"]
            found[name] = (container["image"], container["commands"], task["serviceAccount"], task["timeout"])
        return found

    other = graph_of(composer.stack)
    assert what_runs(composer) == what_runs(other)
    by_scheduler = {name for name in of(SCHEDULE, other) if name != "audit-probe"}
    by_composer = {each["job"] for each in file(composer)["operations"].values() if each["cron"]}
    assert by_scheduler == by_composer == {each.job for each in operations.SCHEDULED}


def test_cloud_scheduler_starts_the_probe_alone_where_composer_starts_the_operations(composer: Graph) -> None:
    assert of(SCHEDULE, composer).keys() == {"audit-probe"}
    given = [n.inputs["name"] for n in composer.of("JobIamMember") if "starter-sa@" in str(n.inputs["member"])]
    assert set(given) == {"audit-probe"}


@pytest.mark.parametrize(("form", "who"), [("own", "composer-sa@"), ("there", "airflow@team-airflow")])
def test_composer_s_account_starts_the_operations_and_awaits_them_and_may_do_nothing_else(form: str, who: str) -> None:
    graph = graph_of("prod", FORMS[form])
    given = [node for node in graph.nodes if who in str(node.inputs.get("member", ""))]
    jobs = {(str(n.inputs["name"]), str(n.inputs["role"])) for n in given if n.kind == "JobIamMember"}
    assert jobs == {(each.job, f"roles/run.{role}") for each in operations.OPERATIONS for role in ("invoker", "viewer")}
    others = {(node.kind, node.inputs["role"]) for node in given if node.kind != "JobIamMember"}
    assert others == ({("IAMMember", "roles/composer.worker")} if form == "own" else set())


def test_of_storage_the_environment_has_its_own_bucket_alone() -> None:
    graph = graph_of("prod", OWN)
    [worker] = [node.inputs for node in graph.of("IAMMember") if node.inputs["role"] == "roles/composer.worker"]
    assert worker["condition"]["expression"] == storage_condition(f"{graph.config['project']}-composer")
    assert 'resource.type != "storage.googleapis.com/Object"' in worker["condition"]["expression"]


def test_the_environment_is_private_encrypted_and_its_page_is_not_open_to_everybody(composer: Graph) -> None:
    environment = composer.one("Environment").inputs
    config = environment["config"]
    assert config["enablePrivateEnvironment"] is True and config["enablePrivateBuildsOnly"] is True
    assert config["encryptionConfig"]["kmsKeyName"].endswith("/cryptoKeys/composer")
    assert config["nodeConfig"]["serviceAccount"].startswith("composer-sa@")
    assert config["softwareConfig"]["imageVersion"].startswith("composer-3-")
    assert "pypiPackages" not in config["softwareConfig"]
    assert [each["value"] for each in config["webServerNetworkAccessControl"]["allowedIpRanges"]] == ["203.0.113.0/24"]
    assert config["maintenanceWindow"] and config["workloadsConfig"]["triggerer"]["count"] == 1
    bucket = composer.one("Bucket", "composer").inputs
    assert environment["storageConfig"]["bucket"] == bucket["name"] == f"{composer.config['project']}-composer"
    assert bucket["location"] == environment["region"] == composer.config["region"]
    assert "retentionPolicy" not in bucket


def test_the_file_of_the_dags_says_what_the_contract_does(composer: Graph) -> None:
    written = file(composer)
    made = composer.one("BucketObject", "operations").inputs
    assert (made["bucket"], made["name"]) == (
        f"{composer.config['project']}-composer",
        "dags/payment_audit/payment_audit.json",
    )
    assert (written["project"], written["region"]) == (composer.config["project"], composer.config["region"])
    assert written["operations"].keys() == {each.name for each in operations.OPERATIONS}
    assert written["operations"]["backup"]["command"] == ["backup", "create"]
    assert written["templatePath"] == composer.outputs["templatePath"]
    assert "payment_audit.payment_audit_trail_bq" in written["tables"]
    assert not written["paused"]


@pytest.mark.parametrize("owner", ["composer", "scheduler"])
def test_what_is_launched_by_others_is_what_pulumi_launches(owner: str) -> None:
    config = OWN if owner == "composer" else {"pipelineOwner": owner}
    graph, by_pulumi = graph_of("prod", config), graph_of("prod").one("FlexTemplateJob").inputs
    assert not graph.of("FlexTemplateJob")
    launch = json.loads(graph.outputs[operations.LAUNCH])["launchParameter"]
    assert launch["jobName"] == by_pulumi["name"]
    assert launch["containerSpecGcsPath"] == by_pulumi["containerSpecGcsPath"]
    assert launch["parameters"] == by_pulumi["parameters"]
    environment = launch["environment"]
    same = {
        "serviceAccountEmail": "serviceAccountEmail",
        "enableStreamingEngine": "enableStreamingEngine",
        "additionalExperiments": "additionalExperiments",
        "additionalPipelineOptions": "additionalPipelineOptions",
        "ipConfiguration": "ipConfiguration",
        "subnetwork": "subnetwork",
        "kmsKeyName": "kmsKeyName",
        "labels": "additionalUserLabels",
    }
    assert {ours: by_pulumi.get(ours) for ours in same} == {ours: environment[theirs] for ours, theirs in same.items()}
    [container] = of(JOB, graph)["audit-pipeline"]["template"]["template"]["containers"]
    given = {each["name"]: each["value"] for each in container["envs"]}
    assert json.loads(given["AUDIT_CONNECTION_JSON"])[operations.LAUNCH] == graph.outputs[operations.LAUNCH]


def test_where_pulumi_owns_the_job_nobody_else_is_given_what_to_launch(graph: Graph) -> None:
    assert graph.outputs[operations.LAUNCH] == ""
    launcher = [node for node in graph.nodes if "launcher-sa@" in str(node.inputs.get("member", ""))]
    assert "roles/dataflow.developer" not in {node.inputs["role"] for node in launcher}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_breaks_no_guardrail_and_the_provider_takes_it(form: str) -> None:
    for stack in ("dev", "prod"):
        graph = graph_of(stack, FORMS[form])
        assert [broken for rule in RULES for broken in rule(graph)] == []
        assert _all(graph) == []


def test_a_pause_empties_the_schedules_of_the_dags() -> None:
    from components.settings.pause import PAUSED

    graph = resources.graph_of("dev", OWN, passed={PAUSED: "2026-11-30T09:00:00+00:00"})
    written = file(graph)
    assert written["paused"] and not [each for each in written["operations"].values() if each["cron"]]
    assert of(SCHEDULE, graph)["audit-probe"]["paused"]


def test_an_environment_of_others_is_let_into_the_perimeter_to_start_jobs_and_is_not_made() -> None:
    graph = graph_of("prod", THERE)
    assert not graph.of("Environment") and "composer" not in {node.name for node in graph.of("Bucket", "CryptoKey")}
    assert graph.one("BucketObject", "operations").inputs["bucket"] == "team-airflow-bucket"
    rules = {rule["title"]: rule for rule in graph.one("ServicePerimeter").inputs["status"]["ingressPolicies"]}
    let_in = rules["Cloud Composer, from its project"]
    assert let_in["ingressFrom"]["identities"] == ["serviceAccount:airflow@team-airflow.iam.gserviceaccount.com"]
    services = {each["serviceName"] for each in let_in["ingressTo"]["operations"]}
    assert services == {"run.googleapis.com", "logging.googleapis.com"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"orchestration": "cron"}, "orchestration must be scheduler or composer"),
        ({"pipelineOwner": "composer"}, "pipelineOwner must be pulumi, or scheduler as orchestration is"),
        ({**OWN, "pipelineOwner": "scheduler"}, "pipelineOwner must be pulumi, or composer as orchestration is"),
        ({**OWN, "composerWebRanges": []}, "composerWebRanges must be the addresses"),
        ({**OWN, "composerWebRanges": ["0.0.0.0/0"]}, "composerWebRanges must be ranges of /8"),
        ({**OWN, "composerBucket": "a-bucket"}, "composerBucket must be unset without composerEnvironment"),
        ({**THERE, "composerAccount": ""}, "composerAccount must be set together with composerEnvironment"),
        ({**THERE, "orchestration": "scheduler"}, "orchestration must be composer where composerEnvironment is set"),
        ({**OWN, "composerImage": "composer-2.9.0-airflow-2.9.3"}, "composerImage must be of Composer 3"),
        ({"pipelineOwner": "scheduler", "image": "", "templatePath": "gs://b/t.json"}, "image must be the job's image"),
    ],
)
def test_what_does_not_go_together_is_refused(config: dict[str, Any], said: str) -> None:
    problems = refusal(**config)
    assert [problem for problem in problems if problem.startswith(said)], problems
