"""Monitoring on one machine: the probe and the scheduled operations in loops, a Prometheus that reads the probe and
evaluates the catalog's alerts, and an Alertmanager that knows their recipients and which are silenced.

The rules are those that go to Cloud Monitoring, with the local stack's numbers; what one machine cannot measure is left
out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import yaml

from alerts import alertmanager
from alerts.promql import select
from alerts.routing import Route
from alerts.rules import rules
from alerts.thresholds import Thresholds, Watched, key, ranges
from components.config import stack_config
from contract.metrics import OLDEST_UNAUDITED
from local.machine import installed
from local.machine.ports import LOOPBACK, free_port
from local.machine.state import State
from local.monitoring import history
from support import connection as connections
from support.promql import MonitoringError, Prometheus

PROBE: Final = "probe"
OPERATIONS: Final = "operations"
PROMETHEUS: Final = "prometheus"
ALERTMANAGER: Final = "alertmanager"
# How often the probe looks, as in the cloud, and how often Prometheus asks what it saw.
EVERY_SECONDS: Final = 60
_SCRAPE_SECONDS: Final = 5
# The longest window of an alert is three days, and the objectives' period is thirty.
_RETENTION_DAYS: Final = 40
# An alert's labels: two with the same are the same.
_Identity = frozenset[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """The commands of the processes and where they answer."""

    probe: list[str]
    probe_url: str
    operations: list[str]
    prometheus: list[str]
    prometheus_url: str
    alertmanager: list[str]
    alertmanager_url: str


@dataclass(frozen=True, kw_only=True)
class Firing:
    """An alert that fires now. `since` is when its condition was first seen.

    `tells` are the recipients; on one machine nobody is notified. None where Alertmanager has not heard of it yet.
    """

    name: str
    severity: str
    title: str
    since: str
    runbook: str
    notifies: tuple[str, ...] | None = None
    silenced: bool = False


def prepare(state: State, numbers: Mapping[str, float] | None = None) -> Monitoring:
    """Writes the config and the rules, and chooses free ports. `numbers` are thresholds that differ from the config's.

    Raises installed.NotInstalled.
    """
    program, manager = installed.prometheus(), installed.alertmanager()
    probe, server, alertmanager_port = free_port(), free_port(), free_port()
    state.prometheus.mkdir(parents=True, exist_ok=True)
    _write(state.prometheus / "rules.yml", rules(thresholds(numbers), Watched(), local=True))
    _write(state.prometheus / "prometheus.yml", _config(probe, alertmanager_port))
    _write(state.prometheus / "alertmanager.yml", alertmanager.config(_routes()))
    audit = Path(sys.executable).with_name("audit")
    return Monitoring(
        probe=[
            str(audit), f"--connection={state.connection}", "probe", f"--every={EVERY_SECONDS}", f"--listen={probe}",
        ],
        probe_url=f"http://{LOOPBACK}:{probe}",
        operations=[sys.executable, "-m", "local.monitoring.operations", str(state.connection)],
        prometheus=[
            str(program),
            f"--config.file={state.prometheus / 'prometheus.yml'}",
            f"--storage.tsdb.path={data(state)}",
            f"--storage.tsdb.retention.time={_RETENTION_DAYS}d",
            f"--web.listen-address={LOOPBACK}:{server}",
            # It finds its Alertmanager some seconds after it starts: what fired before is sent at the next evaluation.
            "--rules.alert.resend-delay=30s",
            "--log.level=warn",
        ],
        prometheus_url=f"http://{LOOPBACK}:{server}",
        alertmanager=[
            str(manager),
            f"--config.file={state.prometheus / 'alertmanager.yml'}",
            f"--storage.path={state.prometheus / 'alertmanager'}",
            f"--web.listen-address={LOOPBACK}:{alertmanager_port}",
            # It would look for others of its kind on every address.
            "--cluster.listen-address=",
            "--log.level=warn",
        ],
        alertmanager_url=f"http://{LOOPBACK}:{alertmanager_port}",
    )  # fmt: skip


def fill_history(state: State, tps: float) -> None:
    """Gives Prometheus a healthy past, before it is started."""
    happened = history.measurements(history.healthy(datetime.now(UTC), tps))
    history.write(happened, connections.load(state.connection), data(state))


def measured(url: str) -> bool:
    """Whether the probe has something to show."""
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310 - the local stack's own address
            return bool(answer.read())
    except OSError:
        return False


def watched_since(state: State, moment: datetime) -> bool:
    """Whether Prometheus has the probe's series, and has looked at every rule after `moment`."""
    prometheus = Prometheus(connections.load(state.connection))
    try:
        return prometheus.value(select(OLDEST_UNAUDITED)) is not None and prometheus.evaluated_since(moment)
    except MonitoringError:
        # It reads its past first, and answers nobody meanwhile.
        return False


def data(state: State) -> Path:
    """Where Prometheus keeps its blocks."""
    return state.prometheus / "data"


def thresholds(other: Mapping[str, float] | None = None) -> Thresholds:
    """The numbers of the stack `local`, as its config has them, but for `other`."""
    values = stack_config("local")
    return Thresholds(**{name: kind(values[key(name)]) for name, kind, _, _ in ranges()} | dict(other or {}))


def firing(state: State) -> list[Firing]:
    """The alerts that fire now, the pages first. None where nobody looks."""
    try:
        found = Prometheus(connections.load(state.connection)).alerts()
    except (MonitoringError, connections.ConnectionFileError):
        return []
    alertmanager_port = _notified(state)
    alerts = [
        Firing(
            name=alert["labels"]["alertname"],
            severity=alert["labels"]["severity"],
            title=alert["annotations"]["title"],
            since=alert["activeAt"],
            runbook=alert["annotations"]["runbook"],
            **alertmanager_port.get(_identity(alert["labels"]), {}),
        )
        for alert in found
        if alert["state"] == "firing"
    ]
    return sorted(alerts, key=lambda alert: (alert.severity, alert.since, alert.name))


def _notified(state: State) -> dict[_Identity, dict[str, Any]]:
    """What Alertmanager knows about the alerts that it has received. Nothing where it does not answer."""
    url = state.read().get("processes", {}).get(ALERTMANAGER, {}).get("url")
    if not url:
        return {}
    try:
        with urlopen(f"{url}/api/v2/alerts", timeout=5) as answer:  # noqa: S310 - the local stack's own address
            heard = json.load(answer)
    except (OSError, ValueError):
        return {}
    return {
        _identity(alert["labels"]): {
            "notifies": tuple(receiver["name"] for receiver in alert["receivers"]),
            "silenced": bool(alert["status"]["silencedBy"]),
        }
        for alert in heard
    }


def _identity(labels: Mapping[str, str]) -> _Identity:
    return frozenset(labels.items())


def _routes() -> list[Route]:
    """Who is notified, as the config of the stack `local` says it."""
    return [Route.parse(text) for text in stack_config("local").get("notifications", [])]


def _config(probe_port: int, alertmanager_port: int) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": f"{_SCRAPE_SECONDS}s", "evaluation_interval": f"{EVERY_SECONDS}s"},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{LOOPBACK}:{alertmanager_port}"]}]}]},
        # The series bring the label `job` of the monitored resource with them.
        "scrape_configs": [
            {"job_name": PROBE, "honor_labels": True, "static_configs": [{"targets": [f"{LOOPBACK}:{probe_port}"]}]}
        ],
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False, width=1000))
