"""The same dashboard for Grafana, on the Prometheus of the local stack. `python -m alerts.grafana` writes it."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import click

from alerts.dashboards import TITLE, Chart, rows
from alerts.thresholds import Thresholds, Watched

_COLUMNS: Final = 24
_HEIGHT: Final = {"number": 4, "lines": 8, "heat": 8}
_TYPES: Final = {"number": "stat", "lines": "timeseries", "heat": "heatmap"}
_UNITS: Final = {"share": "percentunit", "seconds": "s", "per second": "cps", "count": "short", "bytes": "bytes"}
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(numbers: Thresholds, watched: Watched) -> dict[str, Any]:
    """What can be measured on one machine, as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in rows(numbers, watched, local=True):
        panels.append({"type": "row", "title": row.title, "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1}})
        top += 1
        left, tallest = 0, 0
        for chart in row.charts:
            width = 8
            if left + width > _COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            height = _HEIGHT[chart.kind]
            panels.append({**_panel(chart), "gridPos": {"x": left, "y": top, "w": width, "h": height}})
            left, tallest = left + width, max(tallest, height)
        top += tallest
    numbered = [{"id": index, **panel} for index, panel in enumerate(panels, start=1)]
    source = {"name": "datasource", "type": "datasource", "query": "prometheus"}
    return {
        "title": TITLE,
        "uid": "payment-audit",
        "schemaVersion": 38,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "templating": {"list": [source]},
        "panels": numbered,
    }


def _panel(chart: Chart) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": _UNITS[chart.unit]}
    if chart.lines:
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        steps += [{"color": "red", "value": line.value} for line in sorted(chart.lines, key=lambda line: line.value)]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    return {
        "type": _TYPES[chart.kind],
        "title": chart.title,
        "description": ", ".join(f"{line.label} at {line.value:.6g}" for line in chart.lines),
        "datasource": _SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "expr": query.promql,
                "legendFormat": query.label,
                "format": "heatmap" if chart.kind == "heat" else "time_series",
                "datasource": _SOURCE,
            }
            for index, query in enumerate(chart.queries)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }


@click.command()
def main() -> None:
    """Write the dashboard's JSON, with the default numbers, to import into Grafana."""
    json.dump(dashboard(Thresholds(), Watched()), sys.stdout, indent=2)


if __name__ == "__main__":
    main()
