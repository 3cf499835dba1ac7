"""Every alert on synthetic series, by Prometheus's own `promtool`: it fires, and it stays quiet when it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.metrics import OLDEST_UNAUDITED
from tests.monitoring.defaults import CATALOG
from tests.monitoring.promtool import Scenario, first_fires, run, scenario_files, series
from tests.monitoring.scenarios import FULL, SCENARIOS, flow, latency

NAMES = tuple(CATALOG)
SHOWN = ("fires", "quiet", "boundary", "recovers", "no data", "low traffic")


def _of(name: str) -> list[Scenario]:
    return [scenario for scenario in SCENARIOS if scenario.alert == name]


def test_every_alert_does_in_every_scenario_what_is_expected(tmp_path: Path) -> None:
    """One promtool for all: it names the scenario, the time, and what fired."""
    assert run(tmp_path, scenario_files((alert, _of(alert.name)) for alert in CATALOG.values())) == ""


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_scenario_of_every_kind(name: str) -> None:
    shown = {kind for scenario in _of(name) for kind in scenario.shows}
    assert shown | (set() if CATALOG[name].counts_traffic else {"low traffic"}) == set(SHOWN)


def test_a_scenario_that_goes_otherwise_is_told(tmp_path: Path) -> None:
    alert = CATALOG["AuditPaymentsNotAudited"]
    wrong = Scenario(
        alert=alert.name, title="late", series={series(OLDEST_UNAUDITED): [200.0] * 10}, at={9: ()}, shows=()
    )
    assert "AuditPaymentsNotAudited: late" in run(tmp_path, scenario_files([(alert, [wrong])]))


# What monitoring guarantees in words: minutes from the fault until the alert, on series of 500 a second.
# A total outage that only counted what arrived would never fire; a change that is missing counts as late.
TIMES = (
    ("AuditLatencyFastBurn", "all are late", latency((60, FULL, 0), (60, FULL, 1)), 60, 9),
    ("AuditLatencyFastBurn", "half are late", latency((60, FULL, 0), (60, FULL, 0.5)), 60, 18),
    ("AuditLatencyFastBurn", "a fifth is late", latency((60, FULL, 0), (60, FULL, 0.2)), 60, 44),
    ("AuditLatencySlowBurn", "all are late", latency((360, FULL, 0), (60, FULL, 1)), 360, 22),
    ("AuditThroughputBurn", "nothing arrives", flow((60, FULL, FULL), (20, FULL, 0)), 60, 1),
    ("AuditThroughputStalled", "nothing arrives", flow((30, FULL, FULL), (20, FULL, 0)), 30, 7),
    ("AuditThroughputDeficit", "nothing arrives", flow((30, FULL, FULL), (20, FULL, 0)), 30, 6),
    ("AuditThroughputDeficit", "a tenth is missing", flow((30, FULL, FULL), (20, FULL, 0.9 * FULL)), 30, 10),
    (
        "AuditPaymentsNotAudited",
        "nothing arrives",
        {series(OLDEST_UNAUDITED): [4.0] * 31 + [60.0 * minute for minute in range(1, 20)]},
        30,
        5,
    ),
)


@pytest.mark.parametrize(("name", "fault", "values", "since", "minutes"), TIMES, ids=lambda value: str(value)[:24])
def test_an_alert_fires_so_many_minutes_after_its_fault(
    tmp_path: Path, name: str, fault: str, values: dict[str, list[float | None]], since: int, minutes: int
) -> None:
    steps = max(len(one) for one in values.values()) - 1
    assert first_fires(tmp_path, CATALOG[name], values, steps) == since + minutes, fault
