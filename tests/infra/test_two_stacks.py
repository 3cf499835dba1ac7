"""Two stacks in one project: by their prefixes they share no name, and one of them keeps what a project has once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pulumi
import pytest

from alerts.catalog import alerts
from alerts.thresholds import Thresholds, Watched
from components import config, naming
from components.settings import Settings, SettingsError
from contract.metrics import PROBE_METRICS, of_stack
from contract.watched import WatchedTables
from graph.google import import_id
from graph.resources import Graph
from guardrails import iam, rules
from tests.infra import provider_rules, sdk_schema
from tests.infra.asked_for import BESIDE, MORE
from tests.infra.graphs import graph_of

PEOPLE: Final = {
    "onCall": ["group:on-call@example.com"],
    "drainers": ["user:drainer@example.com"],
    "erasers": ["group:privacy@example.com"],
    "readers": ["group:support@example.com"],
    "personalDataReaders": ["group:support@example.com"],
    "cardSearchers": ["group:cards@example.com"],
}
EVERYTHING: Final = {**MORE, **PEOPLE, "metadataProcessingUnits": 0}
# What each kind is called by, where the provider imports it by a number of Google's.
_NUMBERED: Final = {
    "gcp:bigquery/dataTransferConfig:DataTransferConfig": "displayName",
    "gcp:cloudbuild/trigger:Trigger": "name",
    "gcp:datacatalog/taxonomy:Taxonomy": "displayName",
    "gcp:monitoring/dashboard:Dashboard": "dashboardJson",
    "gcp:storage/bucketObject:BucketObject": "bucket",
}


@pytest.fixture(scope="module")
def first() -> Graph:
    return graph_of("staging", EVERYTHING)


@pytest.fixture(scope="module")
def beside() -> Graph:
    return graph_of("staging", {**EVERYTHING, **BESIDE})


def names(graph: Graph) -> dict[str, str]:
    """Each resource's own name at Google, with its kind, and the resource."""
    found = {}
    for node in graph.nodes:
        name = import_id(str(graph.config["project"]), node.type, node.inputs)
        if name is None and node.type in _NUMBERED:
            name = str(node.inputs[_NUMBERED[node.type]])
        if name is not None and node.type not in rules.SHARED_IN_A_PROJECT:
            found[f"{node.type} {name}"] = node.id
    return found


def test_two_stacks_share_no_name(first: Graph, beside: Graph) -> None:
    assert len(names(beside)) > 120
    assert {name: names(first)[name] for name in names(first).keys() & names(beside).keys()} == {}


def _without_prefix(value: Any) -> Any:
    """Inputs, and the JSON in them, as those of a stack without one."""
    if isinstance(value, str) and value.startswith("{") and "${" not in value:
        value = json.loads(value)
    if isinstance(value, dict):
        return {key: _without_prefix(each) for key, each in value.items() if key != "prefix"}
    if isinstance(value, list | tuple):
        return [_without_prefix(each) for each in value]
    if isinstance(value, pulumi.Asset):
        return "a template, with the names"
    # A template is named by its content.
    plain = re.sub(r'eu[-_]1[-_]|, eu-1|"prefix":"eu-1",', "", value) if isinstance(value, str) else value
    return re.sub(r"audit-stream-job-[0-9a-f]{12}", "template", plain) if isinstance(plain, str) else plain


def test_a_prefix_adds_to_names_and_changes_nothing_else(first: Graph, beside: Graph) -> None:
    """Take it out again, and every resource of the stack is that of a stack without one."""

    there = {node.id: _without_prefix(dict(node.inputs)) for node in beside.nodes}
    known = {node.id: _without_prefix(dict(node.inputs)) for node in first.nodes}
    left_out = known.keys() - there.keys()
    # Google's private names lead to the addresses that a perimeter has.
    of_perimeter = {"ManagedZone", "RecordSet"}
    assert {id.split()[0].rpartition(":")[2] for id in left_out} == {*rules.ONCE_IN_A_PROJECT, *of_perimeter}
    # What is of the whole project: the sink of its audit logs, and the cost of its queries.
    whole = {"projectSink", "projectExclusion", "AuditCostAnomaly", "Dashboard"}
    differ = {id for id in there if there[id] != known[id] and not any(part in id for part in whole)}
    assert differ == set(), {id: (there[id], known[id]) for id in sorted(differ)[:1]}


def test_only_one_stack_writes_what_a_project_has_once(first: Graph, beside: Graph) -> None:
    assert {node.kind for node in first.of(*rules.ONCE_IN_A_PROJECT)} == set(rules.ONCE_IN_A_PROJECT)
    assert beside.of(*rules.ONCE_IN_A_PROJECT) == []
    [sink] = beside.of("ProjectSink")
    assert sink.inputs["filter"] == 'resource.type="dataflow_step" AND resource.labels.job_name="eu-1-audit-stream-job"'


def shared_grants(*graphs: Graph) -> set[tuple[str, str]]:
    """Role and member of each grant that both make on the same resource: whichever stack goes first takes it along."""

    def of(graph: Graph) -> Iterator[tuple[str, str, str]]:
        for node in graph.nodes:
            if "role" in node.inputs and "member" in node.inputs:
                where = {key: value for key, value in node.inputs.items() if key not in ("role", "member")}
                # The policy tag of each has another number at Google.
                tag = node.kind == "PolicyTagIamMember" and graph.config["prefix"]
                yield f"{node.kind} {where} {tag}", str(node.inputs["role"]), str(node.inputs["member"])

    one, other = (set(of(graph)) for graph in graphs)
    return {(role, member) for _, role, member in one & other}


def test_the_grants_that_two_stacks_share_are_those_of_people_on_the_project(first: Graph, beside: Graph) -> None:
    shared = shared_grants(first, beside)
    assert not [member for _, member in shared if re.search(r"-sa@", member)]
    agents = {(role, re.sub(r"\d+", "N", member)) for role, member in shared if member.startswith("serviceAccount:")}
    # Both pull from one repository.
    assert agents == {
        ("roles/artifactregistry.reader", "serviceAccount:service-N@serverless-robot-prod.iam.gserviceaccount.com")
    }


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_a_stack_beside_another_keeps_every_rule(beside: Graph, rule: rules.Rule) -> None:
    assert list(rule(beside)) == []


def test_its_grants_are_those_of_every_stack(first: Graph, beside: Graph) -> None:
    """By the names without the prefix, so that one table of reasons is for all of them."""
    own = {
        grant._replace(principal=grant.principal.replace("/eu-1-ci-pool/", "/ci-pool/")) for grant in iam.grants(beside)
    }
    assert own == set(iam.grants(first))


def test_no_prefix_makes_a_name_of_a_stack_without_one(first: Graph) -> None:
    """`backup` in front of `copies` would be the bucket `backup-copies`."""
    own = {name.replace("payment-audit-staging-", "") for name in names(first)}
    for name in own:
        kind, place, last = re.fullmatch(r"(\S+) (.*/)?(.*)", name, re.S).groups("")  # type: ignore[union-attr]
        parts = last.split("-")
        for prefix in ("-".join(parts[:n]) for n in range(1, len(parts))):
            if re.fullmatch(naming.PREFIX, prefix):
                assert f"{kind} {place}{last.removeprefix(f'{prefix}-')}" not in own, f"prefix {prefix}: {name}"


# https://cloud.google.com/iam/docs/service-accounts-create#creating, …/storage/docs/buckets#naming,
# …/spanner/docs/reference/rest/v1/projects.instances (the provider: 30), …/kms/docs/resource-hierarchy,
# …/secret-manager/docs/reference/rest, …/run/docs (49), …/dataflow/docs/reference/rest (JobName),
# …/bigquery/docs/datasets#dataset-naming, …/compute/docs/naming-resources, …/vpc-service-controls (title).
_LIMITS: Final = {
    "gcp:serviceaccount/account:Account": ("accountId", r"[a-z]([a-z0-9-]{4,28}[a-z0-9])"),
    "gcp:storage/bucket:Bucket": ("name", r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]"),
    "gcp:spanner/instance:Instance": ("name", r"[a-z][a-z0-9-]{4,28}[a-z0-9]"),
    "gcp:spanner/database:Database": ("name", r"[a-z][a-z0-9_-]{0,28}[a-z0-9]"),
    "gcp:spanner/backupSchedule:BackupSchedule": ("name", r"[a-z][a-z0-9_-]{0,58}[a-z0-9]"),
    "gcp:kms/keyRing:KeyRing": ("name", r"[a-zA-Z0-9_-]{1,63}"),
    "gcp:secretmanager/secret:Secret": ("secretId", r"[a-zA-Z0-9_-]{1,255}"),
    "gcp:cloudrunv2/job:Job": ("name", r"[a-z][a-z0-9-]{0,47}[a-z0-9]"),
    "gcp:cloudrunv2/service:Service": ("name", r"[a-z][a-z0-9-]{0,47}[a-z0-9]"),
    "gcp:cloudscheduler/job:Job": ("name", r"[a-zA-Z0-9_-]{1,500}"),
    "gcp:dataflow/flexTemplateJob:FlexTemplateJob": ("name", r"[a-z]([-a-z0-9]{0,1022}[a-z0-9])?"),
    "gcp:bigquery/dataset:Dataset": ("datasetId", r"[A-Za-z0-9_]{1,1024}"),
    "gcp:bigquerydatapolicy/dataPolicy:DataPolicy": ("dataPolicyId", r"[A-Za-z0-9_]{1,1024}"),
    "gcp:compute/network:Network": ("name", r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:compute/subnetwork:Subnetwork": ("name", r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:compute/firewall:Firewall": ("name", r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:compute/router:Router": ("name", r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:compute/routerNat:RouterNat": ("name", r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:dns/managedZone:ManagedZone": ("name", r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"),
    "gcp:iam/workloadIdentityPool:WorkloadIdentityPool": ("workloadIdentityPoolId", r"(?!gcp-)[a-z0-9-]{4,32}"),
    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider": (
        "workloadIdentityPoolProviderId",
        r"(?!gcp-)[a-z0-9-]{4,32}",
    ),
    "gcp:logging/projectBucketConfig:ProjectBucketConfig": ("bucketId", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"),
    "gcp:logging/projectSink:ProjectSink": ("name", r"[A-Za-z0-9_.-]{1,100}"),
    "gcp:logging/projectExclusion:ProjectExclusion": ("name", r"[A-Za-z][A-Za-z0-9_.-]{0,99}"),
    "gcp:logging/logView:LogView": ("name", r"[A-Za-z0-9_-]{1,100}"),
    "gcp:logging/metric:Metric": ("name", r"[A-Za-z0-9_.,+!*',()%/-]{1,100}"),
    "gcp:monitoring/customService:CustomService": ("serviceId", r"[a-z0-9-]{1,63}"),
    "gcp:monitoring/metricDescriptor:MetricDescriptor": ("type", r"custom\.googleapis\.com/[a-zA-Z0-9_/]{1,100}"),
    "gcp:monitoring/slo:Slo": ("sloId", r"[a-z0-9-]{1,63}"),
    "gcp:pubsub/topic:Topic": ("name", r"[A-Za-z][A-Za-z0-9._~%+-]{2,254}"),
    "gcp:cloudbuild/trigger:Trigger": ("name", r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?"),
    "gcp:cloudbuild/workerPool:WorkerPool": ("name", r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?"),
}
LONGEST: Final = "a" * naming.LONGEST_PREFIX


def test_every_name_keeps_google_s_limit_behind_the_longest_prefix() -> None:
    """In the project with the longest name."""
    project = {"project": "p" * 30}
    graph = graph_of("staging", {**EVERYTHING, **BESIDE, **project, "prefix": LONGEST})
    seen = set()
    for node in graph.nodes:
        if node.type in _LIMITS:
            key, rule = _LIMITS[node.type]
            assert re.fullmatch(rule, str(node.inputs[key])), f"{node.id}: {node.inputs[key]}"
            seen.add(node.type)
        elif node.type not in rules.SHARED_IN_A_PROJECT:
            within = re.search(r"IAMMember$|IamMember$|:(Table|Routine|RecordSet|CryptoKey|DatasetAccess)$", node.type)
            assert within or import_id("p", node.type, node.inputs) is None, f"{node.type}: how long may its name be?"
    assert seen == set(_LIMITS) - {"gcp:dns/managedZone:ManagedZone"}


def test_the_provider_takes_a_stack_with_a_prefix(beside: Graph) -> None:
    """By the SDK's own types and what is known of the provider's rules."""
    refused = {
        node.id: [
            *map(str, sdk_schema.broken(node.type, node.inputs)),
            *map(str, provider_rules.broken(node.type, node.inputs)),
        ]
        for node in beside.nodes
        if node.type.startswith("gcp:")
    }
    assert {id: why for id, why in refused.items() if why} == {}


@pytest.mark.parametrize("prefix", ["Eu", "1eu", "eu-", "eu--1", "eu_1", f"{LONGEST}a", "-eu"])
def test_a_prefix_that_no_name_can_have_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="prefix must be empty, or up to 12 of a-z"):
        graph_of("dev", {"prefix": prefix})


def test_an_instance_for_metadata_takes_a_shorter_prefix() -> None:
    with pytest.raises(SettingsError, match="prefix must be at most 6 characters where the stack makes an instance"):
        graph_of("dev", {"prefix": "payouts", "metadataProcessingUnits": 100})
    node = graph_of("dev", {"prefix": "cards", "metadataProcessingUnits": 100}).one(
        "Instance", naming.METADATA_INSTANCE
    )
    assert node.inputs["name"] == "cards-audit-metadata-instance"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("accessPolicy", "1"), ("budgetDollars", 100), ("auditLogExemptions", ["dataflow-sa"])],
)
def test_what_is_of_the_whole_project_is_refused_in_a_stack_that_does_not_keep_it(setting: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"{setting} must be .* where projectWide is false"):
        graph_of("dev", {**BESIDE, "billingAccount": "012345-6789AB-CDEF01", setting: value})


def parsed(values: dict[str, Any]) -> Settings:
    own = {**config.stack_config("dev"), **values}
    return Settings.parse("dev", lambda key: _text(own.get(key)), without_job=True)


def _beside(values: dict[str, Any], **other: Any) -> None:
    parsed(values).beside({"other": {**config.stack_config("dev"), **other}})


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def test_stacks_of_one_project_have_prefixes_that_differ_and_one_keeps_what_is_the_project_s() -> None:
    with pytest.raises(SettingsError, match="prefix must be another one than that of other"):
        _beside({})
    with pytest.raises(SettingsError, match="projectWide must be true in one stack of a project"):
        _beside({}, prefix="eu")
    _beside({}, prefix="eu", projectWide=False)


def test_a_stack_s_series_and_alerts_are_not_another_s(first: Graph, beside: Graph) -> None:
    own = r"(?:custom|logging)_googleapis_com:(?:audit|user)_(\w+)"
    metrics = [set(re.findall(own, str([node.inputs for node in g.of("AlertPolicy")]))) for g in (first, beside)]
    assert metrics[0] and not metrics[0] & metrics[1]
    assert {name.removeprefix("eu_1_") for name in metrics[1]} == metrics[0]
    made = {str(node.inputs["type"]) for node in beside.of("MetricDescriptor")}
    assert made == {of_stack("eu-1", metric.type) for metric in PROBE_METRICS}
    # Google's own series are chosen by the stack's resources.
    for name in ("job_name", "instance_id", "service_name"):
        chosen = [
            set(re.findall(rf'{name}=\\*"([^"\\]+)', str([dict(n.inputs) for n in g.of("AlertPolicy")])))
            for g in (first, beside)
        ]
        assert chosen[0] and chosen[1] == {f"eu-1-{value}" for value in chosen[0]}
    labels = [{node.inputs["userLabels"].get("prefix") for node in g.of("AlertPolicy")} for g in (first, beside)]
    assert labels == [{None}, {"eu-1"}]


def test_the_launch_that_is_tried_is_that_of_the_stack_s_job(beside: Graph) -> None:
    [job] = [node for node in beside.of("Job") if node.inputs["name"] == "eu-1-audit-launch-check"]
    assert "--job_name=eu-1-audit-stream-job" in str(job.inputs["template"])


def test_the_cost_of_a_project_s_queries_is_watched_by_one_stack() -> None:
    expressions = [
        {alert.name: alert.expression for alert in alerts(Thresholds(), Watched(project_wide=whole))}
        for whole in (True, False)
    ]
    assert {name for name in expressions[0] if expressions[0][name] != expressions[1][name]} == {"AuditCostAnomaly"}
    assert "scanned_bytes_billed" not in expressions[1]["AuditCostAnomaly"]


def test_datasets_of_a_stack_reach_who_reads_the_description() -> None:
    watched = WatchedTables.load().with_prefix("eu-1")
    read = WatchedTables.from_json(watched.to_json())
    assert (read.prefix, read.views_dataset, read.payments.dataset) == (
        "eu-1",
        "eu_1_payment_views",
        "eu_1_payment_audit",
    )
    assert WatchedTables.load().with_prefix("").to_json() == WatchedTables.load().to_json()
