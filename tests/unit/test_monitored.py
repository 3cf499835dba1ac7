"""Latency, rate and alerts: as Cloud Monitoring answers, and what is said where nobody measures."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from support.connection import Connection
from support.monitored import monitored
from support.promql import Prometheus
from tests.shipped import WATCHED

CLOUD = Connection(
    **dict.fromkeys(
        (
            "location", "big_query_endpoint", "spanner_endpoint", "spanner_instance", "spanner_database",
            "metadata_database", "masking_keys", "dead_letter_directory", "job_name",
        ),
        "",
    ),
    project="p",
    watched_tables=WATCHED.to_json(),
    latency_goal="0.95",
)  # fmt: skip


def incident(name: str, service: str = "payment-audit", **labels: str) -> dict[str, Any]:
    severity = "page" if name == "DataflowJobDown" else "ticket"
    return {
        "name": "projects/p/alerts/1",
        "state": "OPEN",
        "openTime": "2026-11-29T10:00:00Z",
        "policy": {"displayName": name, "userLabels": {"service": service, "severity": severity}},
        "metric": {"labels": labels},
    }


# Part of an expression → its value.
VALUES = {"histogram_quantile(0.5,": "0.6", "histogram_quantile(0.99,": "3.5", "1 - (": "0.02", "sum(rate(": "4"}


def cloud(monkeypatch: pytest.MonkeyPatch, pages: dict[str, Any], values: dict[str, str]) -> list[str]:
    asked: list[str] = []

    def answer(_: Prometheus, url: str) -> Any:
        asked.append(url)
        parameters = parse_qs(urlsplit(url).query)
        if urlsplit(url).path == "/v3/projects/p/alerts":
            assert parameters["filter"] == ['state="OPEN"']
            return pages[parameters.get("pageToken", [""])[0]]
        assert url.startswith(
            "https://monitoring.googleapis.com/v1/projects/p/location/global/prometheus/api/v1/query?"
        )
        found = next((value for part, value in values.items() if parameters["query"][0].startswith(part)), None)
        return {"status": "success", "data": {"result": [{"value": [0, found]}] if found else []}}

    monkeypatch.setattr(Prometheus, "_from_google", answer)
    return asked


def test_the_cloud_s_open_incidents_are_the_alerts_that_fire_those_of_others_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = {
        "": {"alerts": [incident("PaymentsStuckInState", state="PENDING")], "nextPageToken": "2"},
        "2": {"alerts": [incident("DataflowJobDown"), incident("Disk", service="another"), incident("NewerThanThis")]},
    }
    cloud(monkeypatch, pages, VALUES)
    found = monitored(CLOUD)
    assert [(alert.name, alert.severity) for alert in found.alerts or ()] == [
        ("DataflowJobDown", "page"),
        ("NewerThanThis", "ticket"),
        ("PaymentsStuckInState", "ticket"),
    ]
    [_, unknown, stuck] = found.alerts or ()
    assert "PENDING" in stuck.title and "{{" not in stuck.title and unknown.title == ""


def test_alerts_of_another_stack_of_the_project_are_not_this_one_s(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = incident("DataflowJobDown")
    theirs["policy"]["userLabels"]["prefix"] = "eu-1"
    cloud(monkeypatch, {"": {"alerts": [theirs, incident("AuditDlqGrowth")]}}, VALUES)
    assert [alert.name for alert in monitored(CLOUD).alerts or ()] == ["AuditDlqGrowth"]
    asked = cloud(monkeypatch, {"": {"alerts": [theirs, incident("AuditDlqGrowth")]}}, VALUES)
    beside = monitored(replace(CLOUD, prefix="eu-1"))
    assert [alert.name for alert in beside.alerts or ()] == ["DataflowJobDown"]
    questions = [parse_qs(urlsplit(url).query).get("query", [""])[0] for url in asked]
    series = {name for text in questions for name in re.findall(r"custom_googleapis_com:\w+", text)}
    assert series and all(name.startswith("custom_googleapis_com:audit_eu_1_") for name in series)


def test_latency_and_rate_are_beside_their_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud(monkeypatch, {"": {}}, VALUES)
    found = monitored(CLOUD)
    assert (found.alerts, found.why) == ((), "")
    assert found.speed
    assert (found.speed.p50_seconds, found.speed.p99_seconds) == (0.6, 3.5)
    assert (found.speed.in_time, found.speed.goal_in_time, found.speed.goal_seconds) == (0.98, 0.95, 10)
    assert (found.speed.committed_per_second, found.speed.design_per_second) == (4, 500)


def test_what_is_not_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud(monkeypatch, {"": {"alerts": [incident("AuditProbeSilent")]}}, {})
    silent = monitored(CLOUD)
    assert silent.speed is None and "AuditProbeSilent" in silent.why and silent.alerts
    cloud(monkeypatch, {"": {"error": {"code": 403, "message": "no permission"}}}, VALUES)
    assert "no permission" in monitored(CLOUD).why
    assert "audit local up --monitoring" in monitored(replace(CLOUD, spanner_endpoint="127.0.0.1:9")).why
