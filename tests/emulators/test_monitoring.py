"""The local stack's Prometheus: a real one, on the catalog's rules, with a past that was filled in."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from click.testing import CliRunner

from alerts import alertmanager
from alerts.catalog import Severity, Team, alerts
from alerts.routing import Route, targets
from alerts.thresholds import Thresholds, Watched
from local.machine import installed
from local.machine.processes import Process
from local.machine.state import State, write_json
from local.monitoring import history as past
from local.monitoring import launch as monitoring
from local.stack.status import collect, show
from support.cli.main import main
from support.connection import load
from support.monitored import monitored
from support.promql import MonitoringError, Prometheus
from tests.shipped import WATCHED

CONNECTION = {
    "project": "audit-local", "location": "", "bigQueryEndpoint": "", "spannerEndpoint": "127.0.0.1:9",
    "spannerInstance": "i", "spannerDatabase": "d", "metadataDatabase": "m", "maskingKeys": "", "jobName": "j",
    "deadLetterDirectory": "", "watchedTables": WATCHED.to_json(),
}  # fmt: skip


@contextmanager
def prometheus(folder: Path, **of_the_past: Any) -> Iterator[State]:
    """A state folder whose Prometheus runs, and knows a past that ends now. It looks at its rules more often than one
    in use; windows and holds are those of the catalog."""
    state = State(folder)
    made = monitoring.prepare(state)
    rules = yaml.safe_load((state.prometheus / "rules.yml").read_text())
    often = {"groups": [{**group, "interval": "5s"} for group in rules["groups"]]}
    (state.prometheus / "rules.yml").write_text(yaml.safe_dump(often))
    state.connection.write_text(json.dumps({**CONNECTION, "prometheusEndpoint": made.prometheus_url}))
    happened = past.Past(end=datetime.now(UTC), **of_the_past)
    past.write(past.measurements(happened), load(state.connection), monitoring.data(state))
    write_json(state.stack, {"processes": {monitoring.ALERTMANAGER: {"url": made.alertmanager_url, "pid": None}}})
    with (
        ExitStack() as stack,
        Process.start("alertmanager", made.alertmanager, log=folder / "alertmanager.log") as manager,
    ):
        # An alert that it could not receive is sent again after a minute or two.
        manager.await_ready(lambda: monitoring.measured(f"{made.alertmanager_url}/-/ready"), timeout=30)
        process = stack.enter_context(Process.start("prometheus", made.prometheus, log=folder / "prometheus.log"))
        process.await_ready(lambda: _answers(state), timeout=30)
        yield state


def _answers(state: State) -> bool:
    try:
        Prometheus(load(state.connection)).value("vector(1)")
    except MonitoringError:
        return False
    return True


def await_(found: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"waited for: {what}"
        time.sleep(1)
    return answer


def slo(state: State) -> Any:
    done = CliRunner().invoke(main, ["--connection", str(state.connection), "slo", "--json"])
    assert done.exit_code == 0, done.output
    return {each["id"]: each for each in json.loads(done.output)}


def test_hours_of_lateness_fire_the_slow_burn_and_show_in_the_budget_and_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A tenth is late: more than six times the budget of one percent, and less than fourteen times.
    with prometheus(tmp_path, minutes=400, changes=100, late=0.1) as state:
        [latency, throughput] = [slo(state)[name] for name in ("commit-to-queryable", "throughput")]
        assert latency["attained"] == pytest.approx(0.9, abs=0.005)
        assert latency["budget_left"] == pytest.approx(-9, abs=0.5)
        burns = {burn["window"]: burn["rate"] for burn in latency["burns"]}
        assert burns["6h"] == pytest.approx(10, abs=0.5)
        assert throughput["attained"] == pytest.approx(1, abs=0.0005)

        def fires() -> Any:
            return [alert for alert in monitoring.firing(state) if alert.name == "AuditLatencySlowBurn"]

        [alert] = await_(fires, "AuditLatencySlowBurn")
        seen = monitored(load(state.connection))
        assert seen.speed and seen.alerts and not seen.why
        assert seen.speed.in_time == pytest.approx(0.9, abs=0.01)
        assert seen.speed.p50_seconds and seen.speed.p50_seconds < 10 < (seen.speed.p99_seconds or 0)
        assert seen.speed.queryable_per_second == pytest.approx(100 / 60, rel=0.05)
        assert ("page", "AuditLatencySlowBurn") in {(each.severity, each.name) for each in seen.alerts}
        assert CliRunner().invoke(main, ["--connection", str(state.connection), "health", "--csv"]).exit_code == 1
        assert (alert.severity, alert.runbook) == ("page", "runbooks/AuditLatencySlowBurn.md")
        names = {alert.name for alert in monitoring.firing(state)}
        assert "AuditLatencyFastBurn" not in names
        assert "AuditPaymentsNotAudited" not in names

        def told() -> Any:
            return next(alert.notifies for alert in fires())

        assert await_(told, "Alertmanager to receive it", seconds=200) == ("on-call@example.com",)
        _silence(state, "AuditLatencySlowBurn")
        await_(lambda: fires()[0].silenced, "the silence to show")
        show({**collect(state), "phase": "ready", "monitoring": True, "alerts": [asdict(alert) for alert in fires()]})
        assert "silenced" in capsys.readouterr().out


def test_three_days_a_little_late_are_a_ticket_and_no_page(tmp_path: Path) -> None:
    # Twice the budget of one percent: a month's would be gone in two weeks.
    with prometheus(tmp_path, minutes=3 * 24 * 60, changes=100, late=0.02) as state:
        [alert] = await_(lambda: monitoring.firing(state), "AuditLatencyBudgetTicket")
        assert (alert.name, alert.severity) == ("AuditLatencyBudgetTicket", "ticket")


def _silence(state: State, name: str) -> None:
    url = state.read()["processes"][monitoring.ALERTMANAGER]["url"]
    subprocess.run(
        [installed.amtool(), "silence", "add", f"--alertmanager.url={url}", "--duration=10m", "--comment=x",
         "--author=t", f"alertname={name}"],
        check=True, capture_output=True,
    )  # fmt: skip


def test_the_rules_and_the_config_are_what_prometheus_takes(tmp_path: Path) -> None:
    state = State(tmp_path)
    monitoring.prepare(state)
    config = state.prometheus / "prometheus.yml"
    checked = subprocess.run(
        [installed.promtool(), "check", "config", config], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    rules = (state.prometheus / "rules.yml").read_text()
    for alert in alerts(Thresholds(), Watched()):
        assert (f"alert: {alert.name}\n" in rules) == (not alert.cloud_only)


TEAMS = get_args(Team)
ROUTES = [
    Route.parse(text)
    for text in (
        "page=a@example.com", "page=projects/p/notificationChannels/1", "page/payments=pay@example.com",
        "page/payments=more@example.com", "ticket=t@example.com", "ticket/security=a@example.com",
    )
]  # fmt: skip


@pytest.mark.parametrize("severity", get_args(Severity))
@pytest.mark.parametrize("team", TEAMS)
def test_alertmanager_tells_those_whom_cloud_monitoring_tells(tmp_path: Path, severity: Severity, team: Team) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(alertmanager.config(ROUTES)))
    asked = [str(installed.amtool()), "config", "routes", "test", f"--config.file={file}", f"severity={severity}"]
    said = subprocess.run([*asked, f"team={team}"], check=True, capture_output=True, text=True).stdout.strip()
    alert = replace(next(iter(alerts(Thresholds(), Watched()))), severity=severity, team=team)
    assert tuple(said.split(",")) == targets(alert, ROUTES)


def test_a_prometheus_that_does_not_answer_yet_has_watched_nothing(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.connection.write_text(json.dumps({**CONNECTION, "prometheusEndpoint": "http://127.0.0.1:9"}))
    assert not monitoring.watched_since(state, datetime.now(UTC))


def test_without_routes_nobody_is_told(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(alertmanager.config([])))
    asked = [str(installed.amtool()), "config", "routes", "test", f"--config.file={file}", "severity=page"]
    asked.append("team=platform")
    assert subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip() == alertmanager.NOBODY


def test_the_numbers_are_those_of_the_local_stack() -> None:
    assert monitoring.thresholds().payment_failure_share == 0.5
    assert monitoring.thresholds({"design_tps": 2}).design_tps == 2


def test_a_stack_without_monitoring_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = State(tmp_path)
    state.connection.write_text(json.dumps(CONNECTION))
    assert monitoring.firing(state) == []
    done = CliRunner().invoke(main, ["--connection", str(state.connection), "slo"])
    assert done.exit_code == 1
    assert "audit local up --monitoring" in done.output
    show({**collect(state), "phase": "ready"})
    assert "nobody looks" in capsys.readouterr().out
