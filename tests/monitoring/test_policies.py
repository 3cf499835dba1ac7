"""What Pulumi sends: read by Google's own client types, and the same expressions that promtool has tested."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import pytest
import yaml
from google.cloud import monitoring_v3
from google.cloud.monitoring_dashboard_v1 import Dashboard
from google.protobuf import json_format

from alerts import cloud_monitoring
from alerts.catalog import alerts
from alerts.dashboards import rows
from alerts.metrics import LOG_METRICS
from alerts.rules import rules
from alerts.thresholds import Thresholds, Watched, key
from components.config import ROOT, stack_config
from contract.metrics import PROBE_METRICS
from graph.resources import Graph, graph_of

STACKS = ("dev", "staging", "prod")
NATIVE = "AuditLatencyFastBurnNative"


@cache
def _graph(stack: str, **config: Any) -> Graph:
    return graph_of(stack, config)


def _of(stack: str, kind: str, **config: Any) -> dict[str, Mapping[str, Any]]:
    return {node.name: node.inputs for node in _graph(stack, **config).of(kind)}


@pytest.mark.parametrize("stack", STACKS)
def test_pulumi_sends_the_expressions_that_are_tested(stack: str) -> None:
    """The numbers of stacks differ; the function that makes the rules of them is the one whose rules promtool tests."""
    policies = _of(stack, "AlertPolicy")
    config = stack_config(stack)
    numbers = Thresholds(
        forecast_gib_per_day=config["forecastGibPerDay"],
        forecast_vcpus=config["forecastVcpus"],
        probe_minutes=config["probeMinutes"],
    )
    watched = Watched(multi_region=stack == "prod")
    tested = {rule["alert"]: rule for group in rules(numbers, watched)["groups"] for rule in group["rules"]}
    assert set(policies) == {*tested, NATIVE}
    for name, rule in tested.items():
        [condition] = policies[name]["conditions"]
        query = condition["conditionPrometheusQueryLanguage"]
        # In one line, and without a duration of zero: docs/first-contact.md.
        in_one_line = " ".join(line.strip() for line in rule["expr"].splitlines())
        assert (query["query"], query.get("duration", "0s")) == (in_one_line, rule["for"]), name
        assert policies[name]["userLabels"]["severity"] == rule["labels"]["severity"]


def test_a_changed_threshold_reaches_the_policy() -> None:
    policies = _of("dev", "AlertPolicy", unauditedSeconds=240)
    [condition] = policies["AuditPaymentsNotAudited"]["conditions"]
    assert condition["conditionPrometheusQueryLanguage"]["query"].endswith("> 240")


@pytest.mark.parametrize("stack", STACKS)
def test_google_s_types_read_every_policy(stack: str) -> None:
    for name, inputs in _of(stack, "AlertPolicy").items():
        policy = monitoring_v3.AlertPolicy.from_json(json.dumps(inputs), ignore_unknown_fields=False)
        assert policy.display_name == name
        assert policy.severity.name == {"page": "CRITICAL", "ticket": "WARNING"}[policy.user_labels["severity"]]
        assert len(policy.documentation.content) <= 8192
        assert len(policy.documentation.links) <= 3
        assert all(len(link.display_name) <= 63 for link in policy.documentation.links)
        assert len(policy.documentation.subject) <= 255
        assert f"runbooks/{name.removesuffix('Native')}.md" in policy.documentation.content
        for condition in policy.conditions:
            query = condition.condition_prometheus_query_language
            assert query.evaluation_interval.seconds % 30 == 0
            assert bool(query.query) == query.disable_metric_validation
            # Data that is missing is only judged over a duration.
            assert not condition.condition_threshold.evaluation_missing_data


def test_a_wrong_policy_is_refused_by_google_s_types() -> None:
    good = dict(_of("prod", "AlertPolicy")["AuditProbeSilent"])
    for wrong in (
        {"severity": "LOUD"},
        {"combiner": "BOTH"},
        {"runbook": "x"},
        {"alertStrategy": {"autoClose": "half an hour"}},
    ):
        with pytest.raises(json_format.ParseError):
            monitoring_v3.AlertPolicy.from_json(json.dumps({**good, **wrong}), ignore_unknown_fields=False)


@pytest.mark.parametrize("stack", STACKS)
def test_no_policy_is_made_before_its_metric(stack: str) -> None:
    needed = {metric.type.rpartition("/")[2] for metric in PROBE_METRICS} | {log.name for log in LOG_METRICS}
    for node in _graph(stack).of("AlertPolicy", "Slo"):
        awaited = {urn.rpartition("::")[2] for urn in node.options.dependencies}
        assert needed <= awaited, node.name


@pytest.mark.parametrize("stack", STACKS)
def test_every_metric_of_the_probe_has_a_descriptor_that_prod_protects(stack: str) -> None:
    descriptors = {inputs["type"]: inputs for inputs in _of(stack, "MetricDescriptor").values()}
    assert set(descriptors) == {metric.type for metric in PROBE_METRICS}
    for metric in PROBE_METRICS:
        inputs = descriptors[metric.type]
        assert (inputs["metricKind"], inputs["valueType"], inputs["unit"]) == (metric.kind, metric.value, metric.unit)
        assert [label["key"] for label in inputs.get("labels", [])] == [name for name, _ in metric.labels]
    protected = {node.options.protect for node in _graph(stack).of("MetricDescriptor")}
    assert protected == {stack_config(stack)["deletionProtection"]}


def test_the_service_has_two_objectives_and_a_ticket_of_their_budget() -> None:
    slos = _of("prod", "Slo")
    latency, throughput = slos["commit-to-queryable"], slos["throughput"]
    assert (latency["goal"], throughput["goal"]) == (0.99, 0.999)
    assert latency["requestBasedSli"]["distributionCut"]["range"] == {"max": 10}
    good = throughput["requestBasedSli"]["goodTotalRatio"]["goodServiceFilter"]
    assert good == 'metric.type="custom.googleapis.com/audit/queryable_count" resource.type="generic_task"'
    for inputs in slos.values():
        indicator = {"requestBased": inputs["requestBasedSli"]}
        body = {"displayName": inputs["displayName"], "goal": inputs["goal"], "serviceLevelIndicator": indicator}
        monitoring_v3.ServiceLevelObjective.from_json(json.dumps(body), ignore_unknown_fields=False)
    native = _of("prod", "AlertPolicy")[NATIVE]
    path = "projects/payment-audit-prod/services/payment-audit/serviceLevelObjectives/commit-to-queryable"
    assert native["combiner"] == "AND"
    assert [c["conditionThreshold"]["filter"] for c in native["conditions"]] == [
        f'select_slo_burn_rate("{path}", "3600s")',
        f'select_slo_burn_rate("{path}", "300s")',
    ]


def test_pages_reach_the_pager_and_tickets_the_mailbox() -> None:
    policies = _of("prod", "AlertPolicy")
    pager, payments = (f"projects/payment-audit-prod/notificationChannels/100000000000000000{n}" for n in (1, 2))
    mailbox = "projects/payment-audit-prod/notificationChannels/audit-team@example.com"
    assert policies["AuditProbeSilent"]["notificationChannels"] == [pager]
    assert policies["PaymentsStuckInState"]["notificationChannels"] == [payments]
    assert policies["AuditDlqGrowth"]["notificationChannels"] == [mailbox]
    assert policies[NATIVE]["notificationChannels"] == [mailbox]
    [channel] = _of("prod", "NotificationChannel").values()
    assert (channel["type"], channel["labels"]) == ("email", {"email_address": "audit-team@example.com"})


def test_a_policy_links_its_runbook() -> None:
    [link] = _of("prod", "AlertPolicy")["CardNumberFound"]["documentation"]["links"]
    assert link["url"] == "https://git.example.com/payments/audit/blob/main/runbooks/CardNumberFound.md"
    without = graph_of("dev", {"runbooksUrl": ""}).one("AlertPolicy", "CardNumberFound").inputs
    assert "links" not in without["documentation"]


def test_the_dashboard_is_in_the_form_that_the_api_answers_with() -> None:
    """A second preview compares what was sent with what the API answers: unset defaults, no zeros."""
    [sent] = _of("prod", "Dashboard").values()
    body = json.loads(sent["dashboardJson"])
    read = json_format.Parse(json.dumps(body), Dashboard.pb(Dashboard()), ignore_unknown_fields=False)
    assert json_format.MessageToDict(read) == body


def test_a_dashboard_with_a_zero_position_is_not_in_that_form() -> None:
    body = cloud_monitoring.dashboard(rows(Thresholds(), Watched()), alerts(Thresholds(), Watched()), "")
    body["mosaicLayout"]["tiles"][0]["xPos"] = 0
    read = json_format.Parse(json.dumps(body), Dashboard.pb(Dashboard()))
    assert json_format.MessageToDict(read) != body


def test_no_tile_lies_on_another_or_out_of_the_dashboard() -> None:
    body = cloud_monitoring.dashboard(rows(Thresholds(), Watched()), alerts(Thresholds(), Watched()), "")
    cells = [cell for tile in body["mosaicLayout"]["tiles"] for cell in _cells(tile)]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < body["mosaicLayout"]["columns"]


def _cells(tile: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    left, top = tile.get("xPos", 0), tile.get("yPos", 0)
    return ((x, y) for x in range(left, left + tile["width"]) for y in range(top, top + tile["height"]))


def test_the_dashboard_links_every_runbook() -> None:
    [sent] = _of("prod", "Dashboard").values()
    for alert in alerts(Thresholds(), Watched()):
        assert f"/runbooks/{alert.name}.md)" in sent["dashboardJson"]


def test_log_metrics_are_made_as_the_catalog_says() -> None:
    made = _of("prod", "Metric")
    for log in LOG_METRICS:
        assert made[log.name]["filter"] == log.filter.format(job="audit-stream-job")
        assert made[log.name]["metricDescriptor"]["metricKind"] == log.metric.kind


def test_every_threshold_is_a_config_key_with_its_default() -> None:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    for name, default in asdict(Thresholds()).items():
        assert float(declared[key(name)]["default"]) == default
