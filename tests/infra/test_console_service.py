"""The console in the cloud: a service that the proxy alone may call, and the token service that it alone may call."""

from __future__ import annotations

import json
from typing import Any

import pulumi_gcp as gcp
import pytest

from bootstrap import roles
from components import naming
from graph.resources import CONSOLE_IMAGE, IMAGE, Graph, Node
from guardrails.rules import RULES, services_are_behind_a_proxy
from support import connection as connections
from support.console import cloud
from support.console.cloud import CloudSettings
from tests.infra.graphs import graph_of

AGENT, LEAD, VIEWER = "group:agents@example.com", "user:lead@example.com", "group:viewers@example.com"
STAFF = {"consoleAgents": [AGENT], "consoleLeads": [LEAD], "consoleViewers": [VIEWER]}


PERSONAL = {"readers": [VIEWER, LEAD], "personalDataReaders": [LEAD]}
# A stack whose every value of the console differs from the default.
OTHER = {"consoleIngress": "internal", "consoleMinInstances": 2, "accessLogDays": 90, "partitionExpirationDays": 60}


def container(graph: Graph, service: str) -> dict[str, Any]:
    [found] = graph.one("Service", service).inputs["template"]["containers"]
    return dict(found)


def environment(graph: Graph, service: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(graph, service)["envs"]}


@pytest.mark.parametrize(
    ("service", "account"), [("audit-console", "console-sa"), ("audit-card-tokens", "card-search-sa")]
)
def test_a_service_is_encrypted_private_and_small_and_runs_as_its_own_account(
    graph: Graph, service: str, account: str
) -> None:
    inputs = graph.one("Service", service).inputs
    template = inputs["template"]
    assert container(graph, service)["image"] == CONSOLE_IMAGE
    assert template["serviceAccount"] == f"{account}@{graph.outputs['project']}.iam.gserviceaccount.com"
    assert template["encryptionKey"].endswith("/cryptoKeys/run")
    assert template["vpcAccess"]["egress"] == "ALL_TRAFFIC"
    assert template["vpcAccess"]["networkInterfaces"][0]["subnetwork"].startswith("projects/")
    assert 1 <= template["scaling"]["maxInstanceCount"] <= 4
    assert not inputs.get("invokerIamDisabled")
    assert "secret" not in json.dumps([each["name"].lower() for each in container(graph, service)["envs"]])


def test_the_console_is_behind_the_proxy_and_its_token_service_on_the_stack_s_network() -> None:
    graph = graph_of("dev")
    console, tokens = (graph.one("Service", name).inputs for name in ("audit-console", "audit-card-tokens"))
    assert (console["iapEnabled"], console["ingress"]) == (True, "INGRESS_TRAFFIC_ALL")
    assert (tokens["iapEnabled"], tokens["ingress"]) == (False, "INGRESS_TRAFFIC_INTERNAL_ONLY")
    closed = graph_of("dev", OTHER).one("Service", "audit-console").inputs
    assert (closed["iapEnabled"], closed["ingress"]) == (True, "INGRESS_TRAFFIC_INTERNAL_ONLY")


def test_nobody_but_the_proxy_calls_the_console_and_nobody_but_the_console_the_token_service(graph: Graph) -> None:
    """The third service is the starter, which Cloud Scheduler alone calls."""
    grants = [node.inputs for node in graph.of("ServiceIamMember") if node.inputs["role"] != "roles/run.viewer"]
    calls = {(grant["name"], grant["role"], grant["member"]) for grant in grants}
    agent = "serviceAccount:service-123456789012@gcp-sa-iap.iam.gserviceaccount.com"
    console, scheduler = (
        f"serviceAccount:{name}@{graph.outputs['project']}.iam.gserviceaccount.com"
        for name in ("console-sa", "scheduler-sa")
    )
    assert calls == {
        ("audit-console", "roles/run.invoker", agent),
        ("audit-card-tokens", "roles/run.invoker", console),
        ("audit-starter", "roles/run.invoker", scheduler),
    }


def opened_by(graph: Graph) -> set[str]:
    grants = graph.of("WebCloudRunServiceIamMember")
    assert {(n.inputs["cloudRunServiceName"], n.inputs["role"]) for n in grants} <= {
        ("audit-console", "roles/iap.httpsResourceAccessor")
    }
    return {node.inputs["member"] for node in grants}


def test_whom_config_names_may_open_it_and_readers_where_it_names_no_viewers() -> None:
    assert opened_by(graph_of("dev", STAFF)) == {AGENT, LEAD, VIEWER}
    readers = {"readers": ["group:r@example.com", AGENT], "consoleAgents": [AGENT], "consoleLeads": [LEAD]}
    assert opened_by(graph_of("dev", readers)) == {"group:r@example.com", AGENT, LEAD}
    assert opened_by(graph_of("dev")) == set()


def test_its_container_knows_its_stack_its_audience_and_who_may_what(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of("staging", {**STAFF, **PERSONAL})
    for name, value in environment(graph, "audit-console").items():
        monkeypatch.setenv(name, value)
    known = connections.load()
    assert known.project == graph.outputs["project"]
    given = CloudSettings.load()
    place = f"/projects/123456789012/locations/{graph.config['region']}/services/audit-console"
    assert given == CloudSettings(
        audience=place,
        card_tokens=f"https://audit-card-tokens-123456789012.{graph.config['region']}.run.app",
        agents=(AGENT,),
        leads=(LEAD,),
        personal_data_readers=(LEAD,),
    )
    assert set(environment(graph, "audit-console")) == {connections.IN_ENVIRONMENT, cloud.IN_ENVIRONMENT}
    assert set(environment(graph, "audit-card-tokens")) == {connections.IN_ENVIRONMENT}
    assert graph.outputs["consoleUrl"] == f"https://audit-console-123456789012.{graph.config['region']}.run.app"


@pytest.mark.parametrize("service", ["audit-console", "audit-card-tokens"])
def test_a_command_is_one_that_its_image_has(graph: Graph, service: str) -> None:
    """Read by the command's own parser: the options that Cloud Run passes are options."""
    from support.console.command import console
    from support.console.token_service import serve

    python, minus, module, *options = container(graph, service)["commands"]
    command = {"support.console": console, "support.console.token_service": serve}[module]
    given = command.make_context(module, list(options)).params
    assert (python, minus, given["host"]) == ("python", "-m", "0.0.0.0")
    assert given["port"] == container(graph, service)["ports"]["containerPort"]


def test_instances_that_wait_are_config() -> None:
    def least(config: dict[str, Any]) -> float:
        scaling = graph_of("dev", config).one("Service", "audit-console").inputs["template"]["scaling"]
        return float(scaling["minInstanceCount"])

    assert (least({}), least(OTHER)) == (0, 2)


def granted(graph: Graph, account: str) -> set[tuple[str, str]]:
    member = f"serviceAccount:{account}@{graph.outputs['project']}.iam.gserviceaccount.com"
    there = [node for node in graph.nodes if node.inputs.get("member") == member]
    return {(node.kind, node.inputs["role"].removeprefix("roles/")) for node in there}


def test_the_console_s_account_reads_views_submits_work_and_appends_to_its_log() -> None:
    graph = graph_of("dev")
    assert granted(graph, "console-sa") == {
        ("DatasetIamMember", "bigquery.dataViewer"),
        ("IAMMember", "bigquery.jobUser"),
        ("IAMMember", "monitoring.viewer"),
        ("IamMember", "projects/payment-audit-dev/roles/auditAccessLogger"),
        ("DatabaseIAMMember", "spanner.fineGrainedAccessUser"),
        ("DatabaseIAMMember", "spanner.databaseRoleUser"),
        ("JobIamMember", "run.invoker"),
        ("BucketIAMMember", "storage.objectUser"),
        ("ServiceIamMember", "run.invoker"),
    }
    assert graph.one("DatasetIamMember", "payment_views-console").inputs["datasetId"] == "payment_views"
    assert graph.one("DatabaseIAMMember", "audit-metadata-console").inputs["database"] == "audit-metadata"
    role = graph.one("DatabaseIAMMember", "audit-metadata-console-as-replay_submitter").inputs["condition"]["title"]
    assert role == "replay_submitter"
    log = graph.one("IamMember", "payment_access.access_log-console").inputs
    assert (log["datasetId"], log["tableId"]) == ("payment_access", "access_log")
    assert set(roles.LOG_ACCESS.permissions) == {"bigquery.tables.get", "bigquery.tables.updateData"}


def test_it_reads_personal_columns_only_where_some_viewer_may() -> None:
    tag = ("PolicyTagIamMember", "datacatalog.categoryFineGrainedReader")
    assert tag in granted(graph_of("staging", {**STAFF, **PERSONAL}), "console-sa")
    assert tag not in granted(graph_of("dev"), "console-sa")


def test_without_an_image_there_is_no_console_and_its_account_has_nothing() -> None:
    graph = graph_of("dev", {"consoleImage": "", **STAFF, **PERSONAL})
    assert not [node.id for node in graph.nodes if node.type.startswith("gcp:iap/")]
    services = [node.inputs["name"] for node in graph.nodes if node.type.startswith("gcp:cloudrunv2/service")]
    assert set(services) == {"audit-starter"}, "the jobs are started without a console too"
    assert granted(graph, "console-sa") == set()
    assert graph.outputs["consoleUrl"] == ""


def test_cloud_run_pulls_from_each_repository_once() -> None:
    """Two grants of the same would both end with the first of them."""

    def pulls(**config: Any) -> set[tuple[str, str]]:
        found = [
            (node.name, node.inputs["repository"])
            for node in graph_of("dev", config).of("RepositoryIamMember")
            if "serverless-robot" in node.inputs["member"]
        ]
        assert len(found) == len(set(found))
        return set(found)

    assert pulls() == {("image-run", "audit-images")}
    elsewhere = CONSOLE_IMAGE.replace("audit-images", "console-images")
    assert pulls(consoleImage=elsewhere) == {
        ("image-run", "audit-images"),
        ("image-run-console-images", "console-images"),
    }
    assert pulls(image="", templatePath="gs://x/t.json") == {("image-run-audit-images", "audit-images")}
    assert IMAGE.split("/")[2] == "audit-images"


def test_who_writes_the_changelogs_has_no_part_in_the_access_log(graph: Graph) -> None:
    held = {
        (node.inputs["member"].partition("@")[0], node.inputs["role"].rpartition("/")[2])
        for node in graph.nodes
        if node.inputs.get("datasetId") == "payment_access" and "member" in node.inputs
    }
    # Backups read it. An erasure takes a customer out of it, and has a backup made anew.
    assert held == {
        ("serviceAccount:console-sa", naming.ACCESS_LOGGER),
        ("serviceAccount:backup-sa", "bigquery.dataViewer"),
        ("serviceAccount:erasure-sa", "bigquery.dataViewer"),
        ("serviceAccount:erasure-sa", "bigquery.dataEditor"),
    }
    assert "payment_access" not in {node.inputs["datasetId"] for node in graph.of("DatasetAccess")}


def test_the_access_log_is_kept_as_long_as_config_says() -> None:
    def days(config: dict[str, Any]) -> float:
        partitioning = graph_of("dev", config).one("Table", "payment_access.access_log").inputs["timePartitioning"]
        return float(partitioning["expirationMs"]) / 86_400_000

    assert (days({}), days(OTHER)) == (400, 90)


@pytest.mark.parametrize(
    ("service", "broken"),
    [
        ({}, True),
        ({"ingress": "INGRESS_TRAFFIC_ALL"}, True),
        ({"ingress": "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"}, True),
        ({"ingress": "INGRESS_TRAFFIC_ALL", "iap_enabled": True}, False),
        ({"ingress": "INGRESS_TRAFFIC_INTERNAL_ONLY"}, False),
        ({"ingress": "INGRESS_TRAFFIC_INTERNAL_ONLY", "invoker_iam_disabled": True}, True),
        ({"iap_enabled": True, "invoker_iam_disabled": True}, True),
    ],
)
def test_a_service_that_others_reach_without_the_proxy_breaks_a_rule(service: dict[str, Any], broken: bool) -> None:
    def program() -> None:
        gcp.cloudrunv2.Service("s", location="us-central1", template={}, **service)

    found = list(services_are_behind_a_proxy(graph_of("dev", program=program)))
    assert found == (["gcp:cloudrunv2/service:Service s"] if broken else [])


def test_a_service_open_to_everybody_breaks_a_rule() -> None:
    def program() -> None:
        for who in ("allUsers", "allAuthenticatedUsers"):
            gcp.cloudrunv2.ServiceIamMember(f"call-{who}", name="s", role="roles/run.invoker", member=who)
            gcp.iap.WebCloudRunServiceIamMember(
                f"open-{who}", cloud_run_service_name="s", role="roles/iap.httpsResourceAccessor", member=who
            )

    graph = graph_of("dev", program=program)
    broken = {found for rule in RULES if rule.__name__ == "nobody_is_everybody" for found in rule(graph)}
    assert broken == {node.id for node in graph.nodes if isinstance(node, Node) and "all" in node.name}
    assert len(broken) == 4
