"""The index lists the alerts as the catalog does, and the pages say the numbers that it has."""

from __future__ import annotations

import re

import pytest

from alerts.catalog import alerts
from alerts.thresholds import Thresholds, Watched
from tests.documents import ROOT

NUMBERS = Thresholds()
ALERTS = alerts(NUMBERS, Watched())
FOLDER = ROOT / "runbooks"


def percent(share: float) -> str:
    return f"{100 * share:.4g} %"


# The default numbers that a page says in words.
SAID = {
    "AuditLatencyFastBurn": (
        percent(NUMBERS.fast_burn * (1 - NUMBERS.latency_goal)),
        f"{NUMBERS.fast_burn:g} times the budget of {percent(1 - NUMBERS.latency_goal)}",
        f"at least {NUMBERS.burn_minimum_events:,} changes",
    ),
    "AuditLatencySlowBurn": (
        percent(NUMBERS.slow_burn * (1 - NUMBERS.latency_goal)),
        f"{NUMBERS.slow_burn:g} times the budget of {percent(1 - NUMBERS.latency_goal)}",
    ),
    "AuditLatencyBudgetTicket": (percent(NUMBERS.budget_burn * (1 - NUMBERS.latency_goal)),),
    "AuditThroughputBurn": (
        percent(NUMBERS.fast_burn * (1 - NUMBERS.throughput_goal)),
        f"{NUMBERS.fast_burn:g} times the budget of {percent(1 - NUMBERS.throughput_goal)}",
        f"({NUMBERS.design_tps} a second)",
    ),
    "AuditThroughputDeficit": (percent(1 - NUMBERS.deficit_share), f"at least {NUMBERS.deficit_minimum} commits"),
    "AuditLoadAboveDesign": (f"{NUMBERS.design_tps * 1.05:g} changes a second", f"load is {NUMBERS.design_tps}"),
    "AuditPaymentsNotAudited": (f"more than {NUMBERS.unaudited_seconds} s ago",),
    "PaymentFailureRateHigh": (
        percent(NUMBERS.payment_failure_share),
        f"at least {NUMBERS.payment_failure_minimum} failures",
    ),
    "AuditRecordFailureRateHigh": (
        percent(NUMBERS.record_failure_share),
        f"(at least {NUMBERS.record_failure_minimum})",
    ),
    "AuditDlqUnresolved": (f"older than {NUMBERS.dlq_oldest_hours} hours",),
    "AuditRetentionClock": (f"{Watched().retention_hours // 24} days",),
    "DataflowWatermarkStalled": (f"more than {NUMBERS.watermark_seconds} s old",),
    "BigQueryWriteErrors": (f"More than {NUMBERS.write_errors} append streams",),
    "AuditConsoleErrors": (f"More than {NUMBERS.console_errors} answers",),
    "AuditCostAnomaly": (f"{NUMBERS.cost_factor:g} times",),
}


def test_the_index_lists_the_alerts_as_the_catalog_does() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\((\w+\.md)\) \| (\w+) \| (\w+) \| ([\w ]+) \|$", _index(), re.M)
    assert {name for name, *_ in listed} == {a.name for a in ALERTS}
    assert listed == [
        (a.name, a.runbook, a.severity, a.team, "cloud only" if a.cloud_only else "here and in the cloud")
        for a in ALERTS
    ]


def test_every_alert_of_a_game_day_is_one_that_can_fire_here() -> None:
    days = _index().partition("\n## Game days\n")[2]
    leading = re.findall(r"^\| `[\w-]+` \| [^|]+ \| (\w+) \|", days, re.M)
    assert leading
    assert set(leading) <= {alert.name for alert in ALERTS if not alert.cloud_only}


@pytest.mark.parametrize("name", SAID)
def test_a_page_says_the_numbers_that_the_catalog_has(name: str) -> None:
    means = (FOLDER / f"{name}.md").read_text().partition("## What it means")[2].partition("\n## ")[0]
    for said in SAID[name]:
        assert said in " ".join(means.split())


def _index() -> str:
    return (FOLDER / "README.md").read_text()
