"""Every metric that an alert or a dashboard may name: those of the probe, of Google's services and of log entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from contract.logs import ERROR_CLASS
from contract.metrics import PROBE_METRICS, Kind, Metric, ValueType


def _google(
    type: str, resource: str, kind: Kind, value: ValueType, unit: str, description: str, **labels: str
) -> Metric:
    """As https://cloud.google.com/monitoring/api/metrics_gcp lists it."""
    return Metric(
        type=type,
        resource=resource,
        kind=kind,
        value=value,
        unit=unit,
        description=description,
        writer=f"{type.partition('.')[0]} service",
        labels=tuple(labels.items()),
    )


JOB_VCPUS: Final = _google(
    "dataflow.googleapis.com/job/current_num_vcpus", "dataflow_job", "GAUGE", "INT64", "1", "vCPUs that the job uses."
)
JOB_WATERMARK_AGE: Final = _google(
    "dataflow.googleapis.com/job/data_watermark_age",
    "dataflow_job",
    "GAUGE",
    "INT64",
    "s",
    "Age of the newest event that all of the pipeline has seen.",
)
JOB_SYSTEM_LAG: Final = _google(
    "dataflow.googleapis.com/job/system_lag",
    "dataflow_job",
    "GAUGE",
    "INT64",
    "s",
    "Longest time that an element is or waits to be processed.",
)
JOB_BACKLOG: Final = _google(
    "dataflow.googleapis.com/job/backlog_bytes",
    "dataflow_job",
    "GAUGE",
    "INT64",
    "By",
    "Unprocessed input of a stage.",
    stage="stage of the job",
)
SPANNER_CPU: Final = _google(
    "spanner.googleapis.com/instance/cpu/utilization_by_priority",
    "spanner_instance",
    "GAUGE",
    "DOUBLE",
    "10^2.%",
    "Share of the instance's CPU, by priority.",
    database="database",
    is_system="whether Spanner itself asked for it",
    priority="high, medium or low",
)
SPANNER_REQUESTS: Final = _google(
    "spanner.googleapis.com/api/api_request_count",
    "spanner_instance",
    "DELTA",
    "INT64",
    "1",
    "Requests to Spanner.",
    database="database",
    status="result of the request",
    method="Spanner's method, such as Commit",
)
SPANNER_READS: Final = _google(
    "spanner.googleapis.com/api/read_request_latencies_by_change_stream",
    "spanner_instance",
    "DELTA",
    "DISTRIBUTION",
    "s",
    "Latency of reads, of change streams and of others.",
    database="database",
    method="Spanner's method",
    is_change_stream="true or false",
)
API_REQUESTS: Final = _google(
    "serviceruntime.googleapis.com/api/request_count",
    "consumed_api",
    "DELTA",
    "INT64",
    "1",
    "Requests to Google's APIs; of a stream of appends, one when it ends.",
    response_code="HTTP code that stands for the result",
    response_code_class="2xx, 4xx or 5xx",
)
BYTES_BILLED: Final = _google(
    "bigquery.googleapis.com/query/scanned_bytes_billed",
    "global",
    "DELTA",
    "INT64",
    "By",
    "Bytes that queries bill. Google shows them up to six hours late.",
)
QUERY_TIMES: Final = _google(
    "bigquery.googleapis.com/query/execution_times",
    "bigquery_project",
    "GAUGE",
    "DISTRIBUTION",
    "s",
    "Run times of the queries that ended in the last minute.",
)
RUN_REQUESTS: Final = _google(
    "run.googleapis.com/request_count",
    "cloud_run_revision",
    "DELTA",
    "INT64",
    "1",
    "Requests that reached a service's instances; what was refused before, or found none, is not counted.",
    response_code="HTTP code of the answer",
    response_code_class="2xx, 3xx, 4xx or 5xx",
)


@dataclass(frozen=True, kw_only=True)
class LogMetric:
    """A counter of log entries. `filter` has a `{job}` where the name of the streaming job goes.

    `extractors` say where an entry has the value of each label.
    """

    name: str
    filter: str
    metric: Metric
    extractors: Mapping[str, str] = field(default_factory=dict)


def _log(name: str, description: str, filter: str, **labels: tuple[str, str]) -> LogMetric:
    """`labels`: what each is, and the expression that finds it in an entry."""
    metric = Metric(
        type=f"logging.googleapis.com/user/{name}",
        resource="dataflow_step",
        kind="DELTA",
        value="INT64",
        unit="1",
        description=description,
        writer="log-based metric in components/monitoring.py",
        labels=tuple((key, what) for key, (what, _) in labels.items()),
    )
    return LogMetric(
        name=name, filter=filter, metric=metric, extractors={key: where for key, (_, where) in labels.items()}
    )


_JOB: Final = 'resource.type="dataflow_step" AND resource.labels.job_name="{job}" AND '
# The texts are those of Google's page "Troubleshoot Dataflow out of memory errors".
OUT_OF_MEMORY: Final = _log(
    "worker_out_of_memory",
    "A worker, or a process on it, ran out of memory.",
    _JOB + '("out of memory" OR "OutOfMemory" OR "Shutting down JVM" OR "oom_reaper")',
)
# A line of the job's log is a text in its entry (pipeline/logs.py). A launch's goes through another log, as plain text.
_LINE: Final = f'\\"{ERROR_CLASS}\\":'
JOB_TROUBLE: Final = _log(
    "job_trouble",
    "Lines in which the job reports an error; of one with several classes, the most frequent counts.",
    _JOB + f'(jsonPayload.message:"{_LINE}" OR textPayload:"{_LINE}")',
    error_class=(
        "reason of a dead letter, what is not reachable, or the type of an exception",
        f'REGEXP_EXTRACT(jsonPayload.message, "{_LINE} \\"(\\w+)\\"")',
    ),
)
LOG_METRICS: Final = (OUT_OF_MEMORY, JOB_TROUBLE)

CATALOG: Final = (
    *PROBE_METRICS,
    JOB_VCPUS,
    JOB_WATERMARK_AGE,
    JOB_SYSTEM_LAG,
    JOB_BACKLOG,
    SPANNER_CPU,
    SPANNER_REQUESTS,
    SPANNER_READS,
    API_REQUESTS,
    BYTES_BILLED,
    QUERY_TIMES,
    RUN_REQUESTS,
    *(log.metric for log in LOG_METRICS),
)
