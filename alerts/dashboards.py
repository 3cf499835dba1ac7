"""The dashboard as data: rows of charts, each with the thresholds of the alerts that watch it.

`cloud_monitoring` and `grafana` are two forms of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from alerts import metrics
from alerts.catalog import Alert, alerts, missing_share
from alerts.objectives import PERIOD_DAYS, objectives
from alerts.promql import increase, quantile, rate, select, slow_share
from alerts.thresholds import Thresholds, Watched
from contract.metrics import (
    BACKUP_AGE,
    BACKUP_DRILL_AGE,
    BACKUP_DRILL_FAILED,
    CARD_NUMBERS_FOUND,
    COMMIT_TO_QUERYABLE,
    DLQ_OLDEST,
    DLQ_OPEN,
    DLQ_WRITTEN,
    ERASURE_AGE,
    OLDEST_UNAUDITED,
    OPERATION_FAILED,
    OPERATION_MISSED,
    PAYMENTS_BY_STATE,
    PAYMENTS_TERMINAL,
    QUERYABLE,
    SOURCE_COMMITTED,
    STUCK_PAYMENTS,
    UNCLASSIFIED_COLUMNS,
    VALIDATION_AGE,
    VALIDATION_MISMATCHES,
)

TITLE: Final = "Payment audit"
Unit = Literal["share", "seconds", "per second", "count", "bytes"]


@dataclass(frozen=True, kw_only=True)
class Query:
    """`label` is what its line is called; `{{name}}` in it is the value of a label."""

    label: str
    promql: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A threshold, drawn across a chart."""

    label: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """`heat` draws the distribution of a metric, `number` the last value alone."""

    id: str
    title: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Literal["lines", "number", "heat"] = "lines"
    cloud_only: bool = False
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    title: str
    charts: tuple[Chart, ...]


def rows(numbers: Thresholds, watched: Watched, *, local: bool = False) -> tuple[Row, ...]:
    """The dashboard. With `local` it has only what can be measured on one machine."""
    drawn = alerts(numbers, watched)
    found = (
        _slo(numbers),
        _flow(numbers),
        _latency(numbers),
        _dataflow(watched),
        _spanner(watched),
        _big_query(),
        _dead_letters(),
        _payments(numbers),
        _correctness(),
        _console(watched),
    )
    return tuple(
        Row(title=row.title, charts=charts)
        for row in found
        if (charts := tuple(_with_lines(chart, drawn) for chart in row.charts if not (local and chart.cloud_only)))
    )


def _with_lines(chart: Chart, drawn: tuple[Alert, ...]) -> Chart:
    lines = tuple(
        Line(label=alert.name, value=condition.threshold)
        for alert in drawn
        for condition in alert.conditions[:1]
        if alert.chart == chart.id and not condition.value.startswith("absent_over_time")
    )
    return Chart(**{**vars(chart), "lines": lines})


def _chart(id: str, title: str, unit: Unit, *, cloud_only: bool = False, **queries: str) -> Chart:
    return _lines(id, title, unit, queries, cloud_only=cloud_only)


def _lines(id: str, title: str, unit: Unit, queries: Mapping[str, str], *, cloud_only: bool = False) -> Chart:
    """`queries` by the name of their line."""
    named = tuple(Query(label=label.replace("_", " "), promql=promql) for label, promql in queries.items())
    return Chart(id=id, title=title, unit=unit, queries=named, cloud_only=cloud_only)


def _by(id: str, title: str, unit: Unit, label: str, promql: str, *, cloud_only: bool = False) -> Chart:
    """One line for each value of a label."""
    query = Query(label=f"{{{{{label}}}}}", promql=promql)
    return Chart(id=id, title=title, unit=unit, queries=(query,), cloud_only=cloud_only)


def _number(id: str, title: str, promql: str) -> Chart:
    return Chart(id=id, title=title, unit="share", queries=(Query(label=title, promql=promql),), kind="number")


def _slo(numbers: Thresholds) -> Row:
    latency, throughput = objectives(numbers)
    period = f"{PERIOD_DAYS}d"
    late, missing = slow_share(COMMIT_TO_QUERYABLE, period), missing_share(numbers, period)
    return Row(
        title="SLOs",
        charts=(
            _number("in-time", f"{latency.title} ({period})", f"1 - ({late})"),
            _number("budget-latency", "Latency budget left", f"1 - ({late}) / {1 - latency.goal:.6g}"),
            _number("budget-throughput", "Throughput budget left", f"1 - ({missing}) / {1 - throughput.goal:.6g}"),
            _lines(
                "slow-share",
                "Share of changes that were late",
                "share",
                {over: slow_share(COMMIT_TO_QUERYABLE, over) for over in (numbers.shortest_window, "1h", "6h")},
            ),
            _lines(
                "missing-share",
                "Share of changes that were missing, up to the design load",
                "share",
                {over: missing_share(numbers, over) for over in (numbers.shortest_window, "1h")},
            ),
        ),
    )


def _flow(numbers: Thresholds) -> Row:
    return Row(
        title="Flow",
        charts=(
            _chart(
                "throughput",
                f"Changes a second (built for {numbers.design_tps})",
                "per second",
                committed=rate(SOURCE_COMMITTED, numbers.shortest_window),
                queryable=rate(QUERYABLE, numbers.shortest_window),
            ),
            _chart(
                "deficit",
                "Share of commits that did not become queryable, 10 m",
                "share",
                deficit=f"1 - {increase(QUERYABLE, '10m')} / {increase(SOURCE_COMMITTED, '10m')}",
            ),
        ),
    )


def _latency(numbers: Thresholds) -> Row:
    over = numbers.shortest_window
    quantiles = {f"p{round(100 * q)}": quantile(COMMIT_TO_QUERYABLE, q, over) for q in (0.5, 0.95, 0.99)}
    heat = increase(COMMIT_TO_QUERYABLE, f"{numbers.probe_minutes}m", "_bucket", by="le")
    return Row(
        title="Latency",
        charts=(
            _lines("latency", "From commit to queryable", "seconds", quantiles),
            Chart(
                id="latency-heat",
                title="From commit to queryable, all of them",
                unit="seconds",
                queries=(Query(label="{{le}}", promql=heat),),
                kind="heat",
            ),
            _chart("oldest-unaudited", "Oldest change not audited", "seconds", age=f"max({select(OLDEST_UNAUDITED)})"),
        ),
    )


def _dataflow(watched: Watched) -> Row:
    job = {"job_name": watched.job}
    backlog = f"max by (stage) ({select(metrics.JOB_BACKLOG, **job)})"
    errors = increase(metrics.JOB_TROUBLE.metric, "1h", by="error_class")
    return Row(
        title="Dataflow",
        charts=(
            _chart(
                "watermark",
                "Watermark age and system lag",
                "seconds",
                cloud_only=True,
                watermark=f"max({select(metrics.JOB_WATERMARK_AGE, **job)})",
                system_lag=f"max({select(metrics.JOB_SYSTEM_LAG, **job)})",
            ),
            _by("backlog", "Backlog by stage", "bytes", "stage", backlog, cloud_only=True),
            _chart("workers", "vCPUs", "count", cloud_only=True, vcpus=f"sum({select(metrics.JOB_VCPUS, **job)})"),
            _chart(
                "out-of-memory",
                "Out of memory, 10 m",
                "count",
                cloud_only=True,
                entries=increase(metrics.OUT_OF_MEMORY.metric, "10m"),
            ),
            _by("job-trouble", "Trouble in the log, 1 h, by class", "count", "error_class", errors, cloud_only=True),
        ),
    )


def _spanner(watched: Watched) -> Row:
    instance = {"instance_id": watched.instance}
    cpu = f"sum by (priority) ({select(metrics.SPANNER_CPU, **instance)})"
    commits = rate(metrics.SPANNER_REQUESTS, "5m", by="status", method="Commit", **instance)
    reads = {"is_change_stream": "true", **instance}
    return Row(
        title="Spanner",
        charts=(
            _by("spanner-cpu", "CPU by priority", "share", "priority", cpu, cloud_only=True),
            _by("commits", "Commits a second by result", "per second", "status", commits, cloud_only=True),
            _chart(
                "stream-reads",
                "Reads of the change streams",
                "seconds",
                cloud_only=True,
                p50=quantile(metrics.SPANNER_READS, 0.5, "5m", **reads),
                p99=quantile(metrics.SPANNER_READS, 0.99, "5m", **reads),
            ),
        ),
    )


def _big_query() -> Row:
    errors = increase(
        metrics.API_REQUESTS,
        "10m",
        by="response_code",
        service="bigquerystorage.googleapis.com",
        method="~.*BigQueryWrite.AppendRows",
        response_code_class="~4xx|5xx",
    )
    slow = f"histogram_quantile(0.95, sum by (le) ({select(metrics.QUERY_TIMES, '_bucket')}))"
    return Row(
        title="BigQuery",
        charts=(
            _by("write-errors", "Refused appends by code, 10 m", "count", "response_code", errors, cloud_only=True),
            _chart("query-times", "Run time of queries", "seconds", cloud_only=True, p95=slow),
            _chart(
                "bytes-billed",
                "Bytes billed in a day",
                "bytes",
                cloud_only=True,
                billed=increase(metrics.BYTES_BILLED, "1d"),
            ),
        ),
    )


def _dead_letters() -> Row:
    return Row(
        title="Dead letters",
        charts=(
            _by("dead-letters", "Open, by reason", "count", "reason", f"sum by (reason) ({select(DLQ_OPEN)})"),
            _chart("dead-letter-age", "Age of the oldest", "seconds", age=f"max({select(DLQ_OLDEST)})"),
            _chart(
                "dead-letter-share",
                "Share of changes that became one, 10 m",
                "share",
                share=f"{increase(DLQ_WRITTEN, '10m')} / {increase(SOURCE_COMMITTED, '10m')}",
            ),
        ),
    )


def _payments(numbers: Thresholds) -> Row:
    over = numbers.shortest_window
    failed = increase(PAYMENTS_TERMINAL, "10m", outcome="failed")
    came = increase(PAYMENTS_BY_STATE, over, by="state")
    ended = rate(PAYMENTS_TERMINAL, over, by="outcome")
    stuck = f"max by (state) ({select(STUCK_PAYMENTS)})"
    return Row(
        title="Payments",
        charts=(
            _by("states", f"Payments by the state that they came to, {over[:-1]} m", "count", "state", came),
            _by("stuck", "Stuck, by Status", "count", "state", stuck),
            _by("ended", "Ended, a second, by outcome", "per second", "outcome", ended),
            _chart(
                "payment-failures",
                "Share of ended payments that failed, 10 m",
                "share",
                failed=f"{failed} / {increase(PAYMENTS_TERMINAL, '10m')}",
            ),
        ),
    )


def _console(watched: Watched) -> Row:
    answers = increase(metrics.RUN_REQUESTS, "10m", by="response_code_class", service_name=watched.console)
    errors = increase(metrics.RUN_REQUESTS, "10m", service_name=watched.console, response_code_class="5xx")
    return Row(
        title="Console",
        charts=(
            _by("console-answers", "Answers, 10 m, by code", "count", "response_code_class", answers, cloud_only=True),
            _chart("console-errors", "Server errors, 10 m", "count", cloud_only=True, errors=errors),
        ),
    )


def _correctness() -> Row:
    found = increase(CARD_NUMBERS_FOUND, "1h", by="where")
    return Row(
        title="Correctness",
        charts=(
            _chart("validation", "Rows that differ", "count", rows=f"max({select(VALIDATION_MISMATCHES)})"),
            _chart("validation-age", "Since a validation", "seconds", age=f"max({select(VALIDATION_AGE)})"),
            _chart("erasure-age", "Oldest erasure not finished", "seconds", age=f"max({select(ERASURE_AGE)})"),
            _by("card-numbers", "Full card numbers found, 1 h", "count", "where", found),
            _chart(
                "backups",
                "Age of backup and drill",
                "seconds",
                backup=f"max({select(BACKUP_AGE)})",
                drill=f"max({select(BACKUP_DRILL_AGE)})",
            ),
            _chart("backup-drill", "Backup drill failed", "count", failed=f"max({select(BACKUP_DRILL_FAILED)})"),
            _by(
                "operations-failed",
                "Operations whose last run failed",
                "count",
                "operation",
                f"max by (operation) ({select(OPERATION_FAILED)})",
            ),
            _by(
                "operations-missed",
                "Intervals since an operation did its work",
                "count",
                "operation",
                f"max by (operation) ({select(OPERATION_MISSED)})",
            ),
            _chart("unclassified", "Unclassified columns", "count", columns=f"max({select(UNCLASSIFIED_COLUMNS)})"),
        ),
    )
