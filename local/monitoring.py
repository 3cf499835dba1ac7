"""Monitoring on one machine: the probe in a loop, and a Prometheus that reads it and evaluates the catalog's alerts.

The rules are those that go to Cloud Monitoring, with the local stack's numbers; what one machine cannot measure is left
out.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import yaml

from alerts.promql import select
from alerts.rules import rules
from alerts.thresholds import Thresholds, Watched, key, ranges
from components.config import stack_config
from contract.metrics import OLDEST_UNAUDITED
from local import installed, past
from local.state import State
from support import connection as connections
from support.promql import MonitoringError, Prometheus

PROBE: Final = "probe"
PROMETHEUS: Final = "prometheus"
# How often the probe looks, as in the cloud, and how often Prometheus asks what it saw.
EVERY_SECONDS: Final = 60
_SCRAPE_SECONDS: Final = 5
# The longest window of an alert is three days, and the objectives' period is thirty.
_RETENTION_DAYS: Final = 40
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """The commands of both processes and where they answer."""

    probe: list[str]
    probe_url: str
    prometheus: list[str]
    prometheus_url: str


@dataclass(frozen=True, kw_only=True)
class Firing:
    """An alert that fires now. `since` is when its condition was first seen."""

    name: str
    severity: str
    title: str
    since: str
    runbook: str


def prepare(state: State, numbers: Mapping[str, float] | None = None) -> Monitoring:
    """Writes the config and the rules, and chooses free ports. `numbers` are thresholds that differ from the config's.

    Raises installed.NotInstalled.
    """
    program = installed.prometheus()
    probe, server = _free_port(), _free_port()
    state.prometheus.mkdir(parents=True, exist_ok=True)
    _write(state.prometheus / "rules.yml", rules(thresholds(numbers), Watched(), local=True))
    _write(state.prometheus / "prometheus.yml", _config(probe))
    audit = Path(sys.executable).with_name("audit")
    return Monitoring(
        probe=[
            str(audit), f"--connection={state.connection}", "probe", f"--every={EVERY_SECONDS}", f"--listen={probe}",
        ],
        probe_url=f"http://{_HOST}:{probe}",
        prometheus=[
            str(program),
            f"--config.file={state.prometheus / 'prometheus.yml'}",
            f"--storage.tsdb.path={data(state)}",
            f"--storage.tsdb.retention.time={_RETENTION_DAYS}d",
            f"--web.listen-address={_HOST}:{server}",
            "--log.level=warn",
        ],
        prometheus_url=f"http://{_HOST}:{server}",
    )  # fmt: skip


def fill_past(state: State, tps: float) -> None:
    """Gives Prometheus a healthy past, before it is started."""
    happened = past.measurements(past.healthy(datetime.now(UTC), tps))
    past.write(happened, connections.load(state.connection), data(state))


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
    return prometheus.value(select(OLDEST_UNAUDITED)) is not None and prometheus.evaluated_since(moment)


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
    alerts = [
        Firing(
            name=alert["labels"]["alertname"],
            severity=alert["labels"]["severity"],
            title=alert["annotations"]["title"],
            since=alert["activeAt"],
            runbook=alert["annotations"]["runbook"],
        )
        for alert in found
        if alert["state"] == "firing"
    ]
    return sorted(alerts, key=lambda alert: (alert.severity, alert.since, alert.name))


def _config(probe_port: int) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": f"{_SCRAPE_SECONDS}s", "evaluation_interval": f"{EVERY_SECONDS}s"},
        "rule_files": ["rules.yml"],
        # The series bring the label `job` of the monitored resource with them.
        "scrape_configs": [
            {"job_name": PROBE, "honor_labels": True, "static_configs": [{"targets": [f"{_HOST}:{probe_port}"]}]}
        ],
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False, width=1000))


def _free_port() -> int:
    with socket.socket() as server:
        server.bind((_HOST, 0))
        return int(server.getsockname()[1])
