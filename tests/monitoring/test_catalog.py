"""The catalog is whole, and what Google's typed engine would refuse is refused here."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml

from alerts import grafana, promql, routing
from alerts.catalog import alerts
from alerts.dashboards import Row, rows
from alerts.metrics import CATALOG as METRICS
from alerts.metrics import LOG_METRICS, SPANNER_CPU
from alerts.objectives import PERIOD_DAYS, burn_windows, objectives
from alerts.rules import rules
from alerts.thresholds import Thresholds, Watched, problems
from components.config import ROOT
from contract import schema
from contract.metrics import (
    COMMIT_TO_QUERYABLE,
    DLQ_OPEN,
    LATENCY_BUCKETS,
    LATENCY_SECONDS,
    PROBE,
    PROBE_METRICS,
    SOURCE_COMMITTED,
    prometheus_name,
)
from tests.monitoring.defaults import CATALOG

DEFAULTS = Thresholds(), Watched()
BY_NAME = {metric.promql: metric for metric in METRICS}
_SELECTOR = re.compile(r"(?:(\w+)\()?((?:\w+_googleapis_com):\w+)\{([^}]*)\}(\[\w+\])?")
_COUNTERS = {"increase", "rate"}


def type_errors(expression: str) -> Iterator[str]:
    """What Cloud Monitoring refuses of an expression, and Prometheus does not."""
    for function, name, matchers, window in _SELECTOR.findall(expression):
        stem = re.sub(r"_(bucket|count|sum)$", "", name)
        metric = BY_NAME.get(name) or BY_NAME.get(stem)
        if metric is None:
            yield f"{name} is not in the catalog"
            continue
        if (metric.value == "DISTRIBUTION") != (name != metric.promql):
            yield f"{name} is not how a {metric.value} is selected"
        if function in _COUNTERS and metric.kind == "GAUGE":
            yield f"{function} of the GAUGE {name}"
        if function == "delta" and metric.kind != "GAUGE":
            yield f"delta of the {metric.kind} {name}"
        if metric.kind != "GAUGE" and function not in _COUNTERS:
            yield f"the {metric.kind} {name} without rate or increase"
        if f'monitored_resource="{metric.resource}"' not in matchers:
            yield f"{name} is not selected by its resource"
        if function in _COUNTERS | {"delta", "absent_over_time", "max_over_time"} and not window:
            yield f"{function} of {name} without a window"
    if "__name__" in expression:
        yield "a metric by regex"


def _queries(found: tuple[Row, ...]) -> list[str]:
    return [query.promql for row in found for chart in row.charts for query in chart.queries]


@pytest.mark.parametrize("name", tuple(CATALOG))
def test_an_expression_is_typed_and_names_metrics_of_the_catalog(name: str) -> None:
    assert list(type_errors(CATALOG[name].expression)) == []
    assert _SELECTOR.search(CATALOG[name].expression)


@pytest.mark.parametrize("query", _queries(rows(*DEFAULTS)))
def test_a_chart_is_typed_and_names_metrics_of_the_catalog(query: str) -> None:
    assert list(type_errors(query)) == []
    assert _SELECTOR.search(query)


@pytest.mark.parametrize(
    "wrong",
    [
        'sum(rate(custom_googleapis_com:audit_dlq_open{monitored_resource="generic_task"}[5m]))',
        'sum(delta(custom_googleapis_com:audit_queryable_count{monitored_resource="generic_task"}[5m]))',
        'max(custom_googleapis_com:audit_queryable_count{monitored_resource="generic_task"})',
        'max(custom_googleapis_com:audit_dlq_opened{monitored_resource="generic_task"})',
        'max(custom_googleapis_com:audit_dlq_open{task_id="a"})',
        'sum(increase(custom_googleapis_com:audit_queryable_count{monitored_resource="generic_task"}))',
        'sum(increase(custom_googleapis_com:audit_commit_to_queryable_seconds{monitored_resource="generic_task"}[5m]))',
        '{__name__=~"custom.*"}',
    ],
)
def test_an_expression_that_google_would_refuse_is_found(wrong: str) -> None:
    assert list(type_errors(wrong))


def test_an_untyped_expression_cannot_be_written() -> None:
    for write in (
        lambda: promql.rate(DLQ_OPEN, "5m"),
        lambda: promql.increase(SPANNER_CPU, "5m"),
        lambda: promql.delta(SOURCE_COMMITTED, "5m"),
        lambda: promql.select(COMMIT_TO_QUERYABLE),
        lambda: promql.select(DLQ_OPEN, "_count"),
    ):
        with pytest.raises(ValueError, match=r"needs a |a distribution is"):
            write()


def test_names_are_mapped_as_google_does() -> None:
    assert prometheus_name("custom.googleapis.com/audit/dlq_open") == "custom_googleapis_com:audit_dlq_open"
    assert (
        prometheus_name("spanner.googleapis.com/instance/cpu/utilization_by_priority")
        == "spanner_googleapis_com:instance_cpu_utilization_by_priority"
    )


def test_every_metric_is_used_and_has_a_writer() -> None:
    used = " ".join([*(alert.expression for alert in CATALOG.values()), *_queries(rows(*DEFAULTS))])
    for metric in METRICS:
        assert metric.promql in used, metric.type
        assert metric.description.endswith("."), metric.type
        ours = metric.type.startswith(("custom.", "logging."))
        assert (metric.writer in {PROBE, "log-based metric in components/monitoring.py"}) == ours
    assert {metric.writer for metric in PROBE_METRICS} == {PROBE}
    assert len({metric.promql for metric in METRICS}) == len(METRICS)


def test_the_probe_s_names_and_labels_are_those_that_have_a_history() -> None:
    """Renaming a metric, or taking a label away, loses what was measured: a new one is added beside it."""
    assert {metric.type.removeprefix("custom.googleapis.com/audit/"): metric.kind for metric in PROBE_METRICS} == {
        "commit_to_queryable_seconds": "CUMULATIVE",
        "source_committed_count": "CUMULATIVE",
        "queryable_count": "CUMULATIVE",
        "dlq_written_count": "CUMULATIVE",
        "payments_terminal_count": "CUMULATIVE",
        "payments_by_state_count": "CUMULATIVE",
        "dlq_open": "GAUGE",
        "dlq_oldest_seconds": "GAUGE",
        "oldest_unaudited_seconds": "GAUGE",
        "stuck_payments": "GAUGE",
        "validation_mismatches": "GAUGE",
        "validation_age_seconds": "GAUGE",
        "erasure_age_seconds": "GAUGE",
        "backup_age_seconds": "GAUGE",
        "backup_drill_age_seconds": "GAUGE",
        "backup_drill_failed": "GAUGE",
        "card_numbers_found_count": "CUMULATIVE",
        "unclassified_columns": "GAUGE",
        "operation_failed": "GAUGE",
        "operation_missed_runs": "GAUGE",
    }
    labels = {name for metric in PROBE_METRICS for name, _ in metric.labels}
    assert labels == {"operation", "outcome", "reason", "state", "where"}


def test_the_promise_is_a_bucket_s_boundary() -> None:
    assert LATENCY_SECONDS in LATENCY_BUCKETS
    assert list(LATENCY_BUCKETS) == sorted(LATENCY_BUCKETS)


def test_a_burn_factor_is_the_share_of_the_period_that_its_window_is() -> None:
    hours = {"1h": 1, "6h": 6, "3d": 72}
    for window in burn_windows(Thresholds()):
        assert window.share * PERIOD_DAYS * 24 / hours[window.long] == pytest.approx(window.factor)


@pytest.mark.parametrize("minutes", [1, 2, 3])
def test_every_window_over_what_the_probe_measures_holds_three_of_its_runs(minutes: int) -> None:
    """An increase takes two samples; one run may fail. What must hold does so for longer than one run is seen."""
    numbers = Thresholds(probe_minutes=minutes)
    seconds = {"m": 60, "h": 3600, "d": 86400}
    probed = {metric.promql for metric in PROBE_METRICS}
    windows = {
        alert.name: [int(number) * seconds[unit] for number, unit in re.findall(r"\[(\d+)([mhd])", alert.expression)]
        for alert in alerts(numbers, Watched())
        if any(metric in alert.expression for metric in probed)
    }
    assert [name for name, found in windows.items() if min(found, default=86400) < 3 * minutes * 60] == []
    [page] = [alert for alert in alerts(numbers, Watched()) if alert.name == "AuditPaymentsNotAudited"]
    assert page.holds > minutes * 60


def test_numbers_with_which_an_alert_could_never_fire_are_refused() -> None:
    numbers = Thresholds()
    assert list(problems(*DEFAULTS)) == []
    for changed, key in (
        (replace(numbers, latency_goal=0.9), "fastBurn"),
        (replace(numbers, latency_goal=0.8, fast_burn=4.9, slow_burn=4.8, budget_burn=5), "fastBurn"),
        (replace(numbers, throughput_goal=0.9), "fastBurn"),
        (replace(numbers, slow_burn=20), "fastBurn"),
        (replace(numbers, dlq_oldest_hours=72, retention_share=0.4), "dlqOldestHours"),
    ):
        found = [problem.key for problem in problems(changed, Watched())]
        assert key in found
    assert [p.key for p in problems(numbers, Watched(retention_hours=8))] == ["dlqOldestHours"]


def test_a_burn_factor_just_possible_is_accepted() -> None:
    """0.069 x 14.4 = 0.994: all must be late, but then it fires."""
    assert list(problems(replace(Thresholds(), latency_goal=0.931), Watched())) == []


def test_a_stack_s_numbers_are_in_its_expressions() -> None:
    numbers = replace(Thresholds(), unaudited_seconds=777, design_tps=50, forecast_vcpus=100)
    changed = {alert.name: alert for alert in alerts(numbers, Watched(job="other-job", multi_region=True))}
    assert changed["AuditPaymentsNotAudited"].expression.endswith("> 777")
    assert "15000)" in changed["AuditThroughputBurn"].expression
    assert changed["AuditLoadAboveDesign"].expression.endswith("> 52.5")
    assert "> 150" in changed["AuditCostAnomaly"].expression
    assert changed["SpannerHighPriorityCpu"].expression.endswith("> 0.45")
    assert 'job_name="other-job"' in changed["DataflowJobDown"].expression


def test_spanner_s_retention_is_that_of_the_change_streams() -> None:
    assert schema.change_retention_hours() == Watched().retention_hours == 168


def test_objectives_have_the_goals_of_the_stack() -> None:
    latency, throughput = objectives(replace(Thresholds(), latency_goal=0.95, throughput_goal=0.99))
    assert (latency.goal, latency.below, throughput.goal, throughput.below) == (0.95, LATENCY_SECONDS, 0.99, None)


@pytest.mark.parametrize("name", tuple(CATALOG))
def test_an_alert_says_what_a_person_needs(name: str) -> None:
    alert = CATALOG[name]
    assert re.fullmatch(r"([A-Z][a-z]+)+", name)
    assert alert.runbook == f"{name}.md"
    assert alert.summary.endswith(".")
    assert len(alert.title) <= 70
    grouped = set(re.findall(r"(?:max|sum) by \((\w+)\)", str(alert.conditions[0].value)))
    assert set(re.findall(r"{{(\w+)}}", alert.title)) <= grouped
    assert all(condition.comparison in {">", ">=", "=="} for condition in alert.conditions)


def test_what_cannot_be_measured_here_says_why() -> None:
    local = {metric.promql for metric in PROBE_METRICS}
    for alert in CATALOG.values():
        here = {re.sub(r"_(bucket|count)$", "", name) for _, name, _, _ in _SELECTOR.findall(alert.expression)}
        measured = all(any(m.startswith(name) for m in local) for name in here)
        assert bool(alert.cloud_only) != measured, alert.name


def test_the_local_rules_are_those_that_can_be_measured_here() -> None:
    here = [one["alert"] for group in rules(*DEFAULTS, local=True)["groups"] for one in group["rules"]]
    assert sorted(here) == sorted(name for name, alert in CATALOG.items() if not alert.cloud_only)
    assert here


def test_the_rules_are_written_as_yaml() -> None:
    written = subprocess.run([sys.executable, "-m", "alerts.rules"], cwd=ROOT, check=True, capture_output=True).stdout
    assert yaml.safe_load(written) == rules(*DEFAULTS)


def test_pages_and_tickets_find_who_is_told() -> None:
    routes = [
        routing.Route.parse(line)
        for line in ("page=a@example.com", "page/payments=projects/p/notificationChannels/7", "ticket=t@example.com")
    ]
    told = {name: routing.targets(alert, routes) for name, alert in CATALOG.items()}
    assert told["PaymentsStuckInState"] == ("projects/p/notificationChannels/7",)
    assert told["AuditProbeSilent"] == ("a@example.com",)
    assert told["AuditDlqGrowth"] == ("t@example.com",)
    assert routing.targets(CATALOG["AuditProbeSilent"], routes, "ticket") == ("t@example.com",)


@pytest.mark.parametrize(
    "line", ["page", "shout=a@example.com", "page/sales=a@example.com", "page=a", "page=projects/p"]
)
def test_a_route_that_leads_nowhere_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="notifications must be"):
        routing.Route.parse(line)


def test_the_dashboard_draws_the_threshold_of_every_alert_on_its_chart() -> None:
    charts = {chart.id: chart for row in rows(*DEFAULTS) for chart in row.charts}
    for alert in CATALOG.values():
        lines = {line.label: line.value for line in charts[alert.chart].lines}
        if alert.conditions[0].value.startswith("absent_over_time"):
            assert alert.name not in lines
        else:
            assert lines[alert.name] == alert.conditions[0].threshold
    ids = [chart.id for row in rows(*DEFAULTS) for chart in row.charts]
    assert len(ids) == len(set(ids))


def test_the_local_dashboard_has_only_what_is_measured_here() -> None:
    local = {metric.promql for metric in PROBE_METRICS}
    made = grafana.dashboard(*DEFAULTS)
    panels = [panel for panel in made["panels"] if panel["type"] != "row"]
    for panel in panels:
        for target in panel["targets"]:
            names = {name for _, name, _, _ in _SELECTOR.findall(target["expr"])}
            assert all(any(name.startswith(metric) for metric in local) for name in names)
    assert len(panels) == 26


def test_the_local_dashboard_s_panels_do_not_lie_on_each_other() -> None:
    def cells(panel: dict[str, dict[str, int]]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        return set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))

    made = grafana.dashboard(*DEFAULTS)["panels"]
    assert sum(len(cells(panel)) for panel in made) == len(set().union(*map(cells, made)))
    assert json.loads(json.dumps(made)) == made
    assert [panel["id"] for panel in made] == list(range(1, len(made) + 1))


def test_log_metrics_watch_the_job_alone() -> None:
    for log in LOG_METRICS:
        assert 'resource.labels.job_name="j"' in log.filter.format(job="j")
