"""The dashboard in Cloud Monitoring's JSON, in the form that its API answers with.

The API leaves out zeros, empty texts and defaults. What is sent otherwise shows as a difference in every preview.
"""

from __future__ import annotations

from typing import Any, Final

from alerts.catalog import Alert
from alerts.dashboards import TITLE, Chart, Query, Row
from contract.metrics import COMMIT_TO_QUERYABLE

_COLUMNS: Final = 48
_HEADER: Final = 4
_HEIGHT: Final = {"number": 8, "lines": 16, "heat": 16}
_UNITS: Final = {"share": "10^2.%", "seconds": "s", "per second": "1/s", "count": "1", "bytes": "By"}


def dashboard(rows: tuple[Row, ...], alerts: tuple[Alert, ...], runbooks: str, title: str = TITLE) -> dict[str, Any]:
    """`runbooks` is the URL under which the runbooks are read; empty leaves out their links."""
    tiles: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        top = _place(tiles, top, [_header(row)], _HEADER)
        numbers = [chart for chart in row.charts if chart.kind == "number"]
        others = [chart for chart in row.charts if chart.kind != "number"]
        for charts in filter(None, (numbers, others)):
            top = _place(tiles, top, [_widget(chart) for chart in charts], _HEIGHT[charts[0].kind])
    top = _place(tiles, top, [{"title": "Open incidents", "incidentList": {}}, _runbooks(alerts, runbooks)], 32)
    return {"displayName": title, "mosaicLayout": {"columns": _COLUMNS, "tiles": tiles}}


def _place(tiles: list[dict[str, Any]], top: int, widgets: list[dict[str, Any]], height: int) -> int:
    """Puts widgets beside each other, and says where the next ones go."""
    width = _COLUMNS // len(widgets)
    for index, widget in enumerate(widgets):
        tile = {"xPos": index * width, "yPos": top, "width": width, "height": height, "widget": widget}
        tiles.append({key: value for key, value in tile.items() if value})
    return top + height


def _header(row: Row) -> dict[str, Any]:
    return {"title": row.title, "sectionHeader": {"dividerBelow": True}}


def _widget(chart: Chart) -> dict[str, Any]:
    if chart.kind == "number":
        return {"title": chart.title, "scorecard": {"timeSeriesQuery": _query(chart, chart.queries[0])}}
    if chart.kind == "heat":
        return {"title": chart.title, "xyChart": {"dataSets": [_heat()], **_axis()}}
    sets = [
        {
            "plotType": "LINE",
            "targetAxis": "Y1",
            "timeSeriesQuery": _query(chart, query),
            # A line that is named by its labels gets that name by default.
            **({} if "{{" in query.label else {"legendTemplate": query.label}),
        }
        for query in chart.queries
    ]
    found: dict[str, Any] = {"dataSets": sets, **_axis()}
    if chart.lines:
        found["thresholds"] = [_line(line.label, line.value) for line in chart.lines]
    return {"title": chart.title, "xyChart": found}


def _query(chart: Chart, query: Query) -> dict[str, Any]:
    return {"prometheusQuery": query.promql, "unitOverride": _UNITS[chart.unit]}


def _axis() -> dict[str, Any]:
    return {"yAxis": {"scale": "LINEAR"}, "chartOptions": {"mode": "COLOR"}}


def _line(label: str, value: float) -> dict[str, Any]:
    line: dict[str, Any] = {"label": label, "targetAxis": "Y1"}
    return {**line, "value": value} if value else line


def _heat() -> dict[str, Any]:
    """PromQL gives no distributions back, so the heat map has a filter."""
    metric = COMMIT_TO_QUERYABLE
    return {
        "plotType": "HEATMAP",
        "targetAxis": "Y1",
        "timeSeriesQuery": {
            "timeSeriesFilter": {
                "filter": f'metric.type="{metric.type}" resource.type="{metric.resource}"',
                "aggregation": {
                    "alignmentPeriod": "60s",
                    "perSeriesAligner": "ALIGN_DELTA",
                    "crossSeriesReducer": "REDUCE_SUM",
                },
            },
            "unitOverride": metric.unit,
        },
    }


def _runbooks(alerts: tuple[Alert, ...], base: str) -> dict[str, Any]:
    lines = [
        f"- [{alert.name}]({base}/{alert.runbook}) {alert.severity}" if base else f"- {alert.name} {alert.severity}"
        for alert in alerts
    ]
    return {"title": "Runbooks", "text": {"content": "\n".join(lines), "format": "MARKDOWN"}}
