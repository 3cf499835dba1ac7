"""Runs `promtool test rules` on alerts and synthetic series."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alerts.catalog import Alert
from alerts.rules import rule
from contract.metrics import Metric
from local.machine.installed import promtool

Series = Mapping[str, Sequence[float | None]]
# What an alert's result carries at a time: the labels of each firing one.
Firing = tuple[dict[str, str], ...]


def series(metric: Metric, suffix: str = "", task_id: str = "a", **labels: str) -> str:
    """A series of the metric as its writer makes it: with labels that no alert asks for."""
    all_labels = {"monitored_resource": metric.resource, "task_id": task_id, **labels}
    inside = ",".join(f'{name}="{value}"' for name, value in all_labels.items())
    return f"{metric.promql}{suffix}{{{inside}}}"


def counter(*segments: tuple[int, float]) -> list[float | None]:
    """A running total from 0: `(steps, growth a step)`, one after the other."""
    values: list[float | None] = [0.0]
    total = 0.0
    for steps, growth in segments:
        for _ in range(steps):
            total += growth
            values.append(round(total, 6))
    return values


def gauge(*segments: tuple[int, float | None]) -> list[float | None]:
    """`(steps, value)`, one after the other; None is no sample."""
    return [value for steps, value in segments for _ in range(steps)]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What happens to an alert. `at` says at which step it fires, with which labels; `()` is silence."""

    alert: str
    title: str
    series: Series
    at: Mapping[int, Firing]
    # What the scenario is an example of: fires, quiet, boundary, recovers, no data, low traffic.
    shows: tuple[str, ...]
    step_minutes: int = 1
    multi_region: bool = False


def run(folder: Path, files: Iterable[Mapping[str, Any]]) -> str:
    """Runs the test files in one promtool; returns what it says of failures, empty if there is none."""
    names = []
    for index, file in enumerate(files):
        rules, tests = folder / f"{index}.rules.yml", folder / f"{index}.tests.yml"
        rules.write_text(_dump({"groups": [{"name": "g", "rules": file["rules"]}]}))
        tests.write_text(
            _dump({"rule_files": [str(rules)], "evaluation_interval": file["interval"], "tests": file["tests"]})
        )
        names.append(str(tests))
    command = [str(promtool()), "test", "rules", *names]
    # A fifth of its CPU is to collect memory that is not missed.
    environment = {**os.environ, "GOGC": "off", "GOMEMLIMIT": "500MiB"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "FAILED" in said, said
    return said if done.returncode else ""


def scenario_files(pairs: Iterable[tuple[Alert, Sequence[Scenario]]]) -> list[dict[str, Any]]:
    """One file for each alert and step: the rule, and a test group for each scenario."""
    files = []
    for alert, scenarios in pairs:
        for step in sorted({scenario.step_minutes for scenario in scenarios}):
            chosen = [scenario for scenario in scenarios if scenario.step_minutes == step]
            tests = [group(alert, [alert.name], scenario) for scenario in chosen]
            files.append({"rules": [rule(alert)], "tests": tests, "interval": f"{step}m"})
    return files


def mutant_files(alert: Alert, mutants: Mapping[str, Alert], scenarios: Sequence[Scenario]) -> list[dict[str, Any]]:
    """The same for mutants by name: each is expected to do what the alert does, so that a killed one fails."""
    rules = [
        {**rule(mutant), "alert": name, "annotations": rule(alert)["annotations"]} for name, mutant in mutants.items()
    ]
    files = []
    for step in sorted({scenario.step_minutes for scenario in scenarios}):
        chosen = [scenario for scenario in scenarios if scenario.step_minutes == step]
        tests = [group(alert, list(mutants), scenario) for scenario in chosen]
        files.append({"rules": rules, "tests": tests, "interval": f"{step}m"})
    return files


def group(alert: Alert, names: Sequence[str], scenario: Scenario) -> dict[str, Any]:
    """A test group that expects of every rule of these names what the scenario says of the alert."""
    return {
        "name": f"{scenario.alert}: {scenario.title}",
        "interval": f"{scenario.step_minutes}m",
        "input_series": [{"series": name, "values": _values(values)} for name, values in scenario.series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{step * scenario.step_minutes}m",
                "alertname": name,
                "exp_alerts": [_expected(alert, labels) for labels in firing],
            }
            for name in names
            for step, firing in scenario.at.items()
        ],
    }


def failed(said: str) -> set[str]:
    """The alerts that did other than expected."""
    return set(re.findall(r"alertname: ([\w]+), time:", said))


def first_fires(folder: Path, alert: Alert, values: Series, steps: int) -> int | None:
    """The first step at which the alert fires."""
    silent = Scenario(alert=alert.name, title="", series=values, at=dict.fromkeys(range(steps + 1), ()), shows=())
    times = re.findall(r"time: ([\dhms]+),", run(folder, scenario_files([(alert, [silent])])))
    return min((_minutes(time) for time in times), default=None)


def _minutes(duration: str) -> int:
    units = {"h": 60, "m": 1, "s": 0}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def _expected(alert: Alert, labels: dict[str, str]) -> dict[str, Any]:
    written = rule(alert)
    annotations = {name: _filled(text, labels) for name, text in written["annotations"].items()}
    return {"exp_labels": {**written["labels"], **labels}, "exp_annotations": annotations}


def _filled(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{ \$labels\.(\w+) }}", lambda match: labels.get(match[1], ""), template)


def _values(values: Sequence[float | None]) -> str:
    """In promtool's notation, equal neighbours drawn together."""
    parts: list[str] = []
    index = 0
    while index < len(values):
        end = index
        while end + 1 < len(values) and values[end + 1] == values[index]:
            end += 1
        value = values[index]
        text = "_" if value is None else f"{value:.15g}"
        parts.append(
            f"{text}x{end - index}" if end > index and value is not None else " ".join([text] * (end - index + 1))
        )
        index = end + 1
    return " ".join(parts)


def _dump(value: Any) -> str:
    return yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False, width=100_000)
