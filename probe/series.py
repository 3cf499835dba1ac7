"""A measurement of the probe as series: one list, written to Cloud Monitoring or shown to Prometheus.

Both name the same series: Google's name for Cloud Monitoring, the name that its PromQL knows it by for Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from contract import metrics, payments
from contract.metrics import LATENCY_BUCKETS, Metric, of_stack
from probe.measure import Measurement
from support.connection import Connection

# Cloud Monitoring takes at most this many series in one request.
_AT_ONCE: Final = 200
_NAMESPACE: Final = "payment-audit"


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """`counts` has one for each of LATENCY_BUCKETS, and a last one for what is above them."""

    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One series' value."""

    metric: Metric
    value: float | int | Distribution
    labels: tuple[tuple[str, str], ...] = ()


def samples(measurement: Measurement) -> Iterator[Sample]:
    """Every series that the probe writes. Counters are there from zero, so that the first event is an increase."""
    totals = measurement.totals
    yield Sample(
        metric=metrics.COMMIT_TO_QUERYABLE,
        value=Distribution(counts=tuple(totals.latency), sum=totals.latency_seconds),
    )
    yield Sample(metric=metrics.SOURCE_COMMITTED, value=totals.committed)
    yield Sample(metric=metrics.QUERYABLE, value=totals.queryable)
    yield Sample(metric=metrics.DLQ_WRITTEN, value=totals.dead_letters)
    for outcome in (payments.PROCESSED, payments.FAILED):
        number = totals.outcomes.get(outcome, 0)
        yield Sample(metric=metrics.PAYMENTS_TERMINAL, value=number, labels=(("outcome", outcome),))
    for state in payments.STATES:
        yield Sample(metric=metrics.PAYMENTS_BY_STATE, value=totals.outcomes.get(state, 0), labels=(("state", state),))
    for reason, number in measurement.dead_letters.items():
        yield Sample(metric=metrics.DLQ_OPEN, value=number, labels=(("reason", reason),))
    yield Sample(metric=metrics.DLQ_OLDEST, value=measurement.oldest_dead_letter_seconds)
    yield Sample(metric=metrics.OLDEST_UNAUDITED, value=measurement.oldest_unaudited_seconds)
    for status, number in measurement.stuck.items():
        yield Sample(metric=metrics.STUCK_PAYMENTS, value=number, labels=(("state", status),))
    yield Sample(metric=metrics.CARD_NUMBERS_FOUND, value=totals.cards_in_keys, labels=(("where", "key"),))
    in_columns = measurement.cards_in_columns
    yield Sample(metric=metrics.CARD_NUMBERS_FOUND, value=in_columns, labels=(("where", "column"),))
    yield Sample(metric=metrics.VALIDATION_MISMATCHES, value=measurement.mismatches)
    yield Sample(metric=metrics.VALIDATION_AGE, value=measurement.validation_age_seconds)
    yield Sample(metric=metrics.ERASURE_AGE, value=measurement.erasure_age_seconds)
    yield Sample(metric=metrics.BACKUP_AGE, value=measurement.backup_age_seconds)
    yield Sample(metric=metrics.BACKUP_DRILL_AGE, value=measurement.backup_drill_age_seconds)
    yield Sample(metric=metrics.BACKUP_DRILL_FAILED, value=int(measurement.backup_drill_failed))
    yield Sample(metric=metrics.UNCLASSIFIED_COLUMNS, value=measurement.unclassified_columns)
    for operation, failed in measurement.operations_failed.items():
        yield Sample(metric=metrics.OPERATION_FAILED, value=int(failed), labels=(("operation", operation),))
    for operation, intervals in measurement.operations_missed.items():
        yield Sample(metric=metrics.OPERATION_MISSED, value=intervals, labels=(("operation", operation),))


def resource_labels(connection: Connection) -> dict[str, str]:
    """The labels of the monitored resource `generic_task` that is the probe."""
    return {
        "project_id": connection.project,
        "location": connection.region or "global",
        "namespace": _NAMESPACE,
        "job": connection.job_name,
        "task_id": "probe",
    }


def time_series(measurement: Measurement, connection: Connection) -> list[Any]:
    """The series as Cloud Monitoring's client takes them."""
    from google.cloud import monitoring_v3

    made = []
    for sample in samples(measurement):
        interval: dict[str, Any] = {"end_time": measurement.at}
        if sample.metric.kind == "CUMULATIVE":
            # One start time for all of a counter's points: it is what makes them one running total.
            interval["start_time"] = measurement.started_at
        made.append(
            monitoring_v3.TimeSeries(
                metric={"type": of_stack(connection.prefix, sample.metric.type), "labels": dict(sample.labels)},
                resource={"type": sample.metric.resource, "labels": resource_labels(connection)},
                metric_kind=sample.metric.kind,
                value_type=sample.metric.value,
                points=[{"interval": interval, "value": _typed(sample)}],
            )
        )
    return made


def _typed(sample: Sample) -> dict[str, Any]:
    value = sample.value
    if isinstance(value, Distribution):
        return {
            "distribution_value": {
                "count": value.count,
                "mean": value.sum / value.count if value.count else 0.0,
                "bucket_options": {"explicit_buckets": {"bounds": list(LATENCY_BUCKETS)}},
                "bucket_counts": list(value.counts),
            }
        }
    return {"int64_value": int(value)} if sample.metric.value == "INT64" else {"double_value": float(value)}


def write(measurement: Measurement, connection: Connection, client: Any = None) -> int:
    """Writes the series to Cloud Monitoring; says how many. A counter's first point has no length, and is left out."""
    from google.cloud import monitoring_v3

    if measurement.at <= measurement.started_at:
        return 0
    series = time_series(measurement, connection)
    client = client or monitoring_v3.MetricServiceClient()
    for first in range(0, len(series), _AT_ONCE):
        client.create_time_series(name=f"projects/{connection.project}", time_series=series[first : first + _AT_ONCE])
    return len(series)


def exposition(measurement: Measurement, connection: Connection) -> bytes:
    """The series in Prometheus' text format, under the names that Google's PromQL knows."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import Metric as Family

    families: dict[str, Any] = {}
    for sample in samples(measurement):
        name, value = sample.metric.promql, sample.value
        labels = {"monitored_resource": sample.metric.resource, **resource_labels(connection), **dict(sample.labels)}
        # `unknown`, since the client adds _total to the name of a counter, and Google does not.
        kind = "histogram" if isinstance(value, Distribution) else "unknown"
        family = families.setdefault(name, Family(name, sample.metric.description, kind))
        if isinstance(value, Distribution):
            for bound, number in zip((*LATENCY_BUCKETS, "+Inf"), accumulate(value.counts), strict=True):
                family.add_sample(f"{name}_bucket", {**labels, "le": str(bound)}, number)
            family.add_sample(f"{name}_count", labels, value.count)
            family.add_sample(f"{name}_sum", labels, value.sum)
        else:
            family.add_sample(name, labels, value)

    class Collector:
        def collect(self) -> Iterator[Any]:
            yield from families.values()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    return generate_latest(registry)
