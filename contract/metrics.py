"""Metric names, and the series that the audit probe writes.

Workers report Beam counters and distributions under one namespace. The probe compares the data itself, once a minute,
and is the only writer of its series: its counters are running totals from zero, so that an increase is never a reset.
Nothing else names a metric; a Google Cloud name maps to the one that PromQL, and the local Prometheus, know it by.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

NAMESPACE: Final = "audit"

CHANGES_READ: Final = "changes_read"
CHANGES_FILTERED: Final = "changes_filtered"
ROWS_APPENDED: Final = "rows_appended"
ROWS_ALREADY_THERE: Final = "rows_already_there"
DEAD_LETTERS: Final = "dead_letters"  # followed by "_<reason>"
UNKNOWN_STATUS: Final = "unknown_payment_status"
UNCLASSIFIED_VALUES: Final = "unclassified_values"
COMMIT_TO_READ_MILLIS: Final = "commit_to_read_millis"
COMMIT_TO_APPENDED_MILLIS: Final = "commit_to_appended_millis"
APPEND_MILLIS: Final = "append_millis"
BATCH_ROWS: Final = "batch_rows"

Kind = Literal["GAUGE", "DELTA", "CUMULATIVE"]
ValueType = Literal["INT64", "DOUBLE", "DISTRIBUTION"]
PROBE: Final = "probe/measure.py"
# The monitored resource that the probe writes to.
PROBE_RESOURCE: Final = "generic_task"
# The latency SLO: this share of changes (stack config) is queryable within this many seconds. It must be a bucket's
# boundary.
LATENCY_SECONDS: Final = 10
LATENCY_BUCKETS: Final = (0.5, 1, 2, 3, 5, 7.5, LATENCY_SECONDS, 15, 30, 60, 120, 300, 900, 3600)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A series as Cloud Monitoring defines it. `writer` is who reports it: one of our files, or a service.

    `labels` are those of the metric, name and description; labels of the monitored resource come beside them.
    """

    type: str
    resource: str
    kind: Kind
    value: ValueType
    unit: str
    description: str
    writer: str
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def promql(self) -> str:
        """Its name in PromQL; of a distribution the stem that `_bucket`, `_count` and `_sum` follow."""
        return prometheus_name(self.type)


def prometheus_name(metric_type: str) -> str:
    """Google's mapping: the first `/` becomes `:`, every other special character `_`."""
    service, _, name = metric_type.partition("/")
    return f"{re.sub(r'[^a-zA-Z0-9]', '_', service)}:{re.sub(r'[^a-zA-Z0-9]', '_', name)}"


# The stack's own metrics, as a type or as a name in PromQL: those of the probe, and those of log entries.
_OWN: Final = re.compile(r"(custom[._]googleapis[._]com[/:]audit|logging[._]googleapis[._]com[/:]user)([/_])")


def of_stack(prefix: str, text: str) -> str:
    """A metric's type or name, or an expression or a dashboard with some, in a stack with that prefix.

    Every stack of a project writes to the same project: the prefix in its metrics keeps them apart from another's.
    """
    if not prefix:
        return text
    name = prefix.replace("-", "_")
    return _OWN.sub(rf"\1\2{name}_", text)


def _probe(name: str, kind: Kind, value: ValueType, unit: str, description: str, **labels: str) -> Metric:
    return Metric(
        type=f"custom.googleapis.com/audit/{name}",
        resource=PROBE_RESOURCE,
        kind=kind,
        value=value,
        unit=unit,
        description=description,
        writer=PROBE,
        labels=tuple(labels.items()),
    )


COMMIT_TO_QUERYABLE: Final = _probe(
    "commit_to_queryable_seconds",
    "CUMULATIVE",
    "DISTRIBUTION",
    "s",
    "From commit in Spanner to a row that a query sees. A change that has not arrived counts as late at once.",
)
SOURCE_COMMITTED: Final = _probe(
    "source_committed_count", "CUMULATIVE", "INT64", "1", "Changes committed in Spanner, in closed minutes."
)
QUERYABLE: Final = _probe(
    "queryable_count", "CUMULATIVE", "INT64", "1", "Of the committed changes, those that a query of BigQuery sees."
)
DLQ_WRITTEN: Final = _probe("dlq_written_count", "CUMULATIVE", "INT64", "1", "Changes that became dead letters.")
PAYMENTS_TERMINAL: Final = _probe(
    "payments_terminal_count",
    "CUMULATIVE",
    "INT64",
    "1",
    "Payments that reached an end.",
    outcome="processed or failed",
)
PAYMENTS_BY_STATE: Final = _probe(
    "payments_by_state_count",
    "CUMULATIVE",
    "INT64",
    "1",
    "Payments that came to a state, from none or another one, in closed minutes.",
    state="initiated, processed or failed",
)
DLQ_OPEN: Final = _probe(
    "dlq_open",
    "GAUGE",
    "INT64",
    "1",
    "Dead letters that are neither resolved nor discarded. Every reason is written, those with none too.",
    reason="class of the reason (contract/changes.py)",
)
DLQ_OLDEST: Final = _probe("dlq_oldest_seconds", "GAUGE", "DOUBLE", "s", "Age of the oldest open dead letter, else 0.")
OLDEST_UNAUDITED: Final = _probe(
    "oldest_unaudited_seconds",
    "GAUGE",
    "DOUBLE",
    "s",
    "Age of the oldest change that is neither queryable nor a dead letter, else 0.",
)
STUCK_PAYMENTS: Final = _probe(
    "stuck_payments",
    "GAUGE",
    "INT64",
    "1",
    "Payments that are in a Status for longer than its limit.",
    state="Status, unmapped ones included",
)
VALIDATION_MISMATCHES: Final = _probe(
    "validation_mismatches",
    "GAUGE",
    "INT64",
    "1",
    "Rows that the last validation found missing, extra or different, and that are not repaired.",
)
VALIDATION_AGE: Final = _probe(
    "validation_age_seconds", "GAUGE", "DOUBLE", "s", "Since a validation ended; while none did, since the first probe."
)
ERASURE_AGE: Final = _probe(
    "erasure_age_seconds", "GAUGE", "DOUBLE", "s", "Age of the oldest erasure that is not finished; 0 where all are."
)
BACKUP_AGE: Final = _probe(
    "backup_age_seconds",
    "GAUGE",
    "DOUBLE",
    "s",
    "Age of the newest good backup of BigQuery; while there is none, of the probe's first run.",
)
BACKUP_DRILL_AGE: Final = _probe(
    "backup_drill_age_seconds", "GAUGE", "DOUBLE", "s", "Since a backup was last restored and compared; as above."
)
BACKUP_DRILL_FAILED: Final = _probe(
    "backup_drill_failed", "GAUGE", "INT64", "1", "1 where the last drill found another backup than was recorded."
)
CARD_NUMBERS_FOUND: Final = _probe(
    "card_numbers_found_count",
    "CUMULATIVE",
    "INT64",
    "1",
    "Full card numbers seen where none may be. From zero, so that the first one is an increase.",
    where="key (a dead letter says so) or column (of BigQuery)",
)
UNCLASSIFIED_COLUMNS: Final = _probe(
    "unclassified_columns", "GAUGE", "INT64", "1", "Columns of the watched tables that nobody has classified."
)
OPERATION_FAILED: Final = _probe(
    "operation_failed",
    "GAUGE",
    "INT64",
    "1",
    "1 where the last run of an operation failed, else 0. What a comparison finds does not count as one.",
    operation="name of the operation (contract/operations.py)",
)
OPERATION_MISSED: Final = _probe(
    "operation_missed_runs",
    "GAUGE",
    "DOUBLE",
    "1",
    "Time since a scheduled operation last did its work, in times its interval; while it never did, since the probe "
    "first expected it.",
    operation="name of the operation (contract/operations.py)",
)

PROBE_METRICS: Final = (
    COMMIT_TO_QUERYABLE,
    SOURCE_COMMITTED,
    QUERYABLE,
    DLQ_WRITTEN,
    PAYMENTS_TERMINAL,
    PAYMENTS_BY_STATE,
    DLQ_OPEN,
    DLQ_OLDEST,
    OLDEST_UNAUDITED,
    STUCK_PAYMENTS,
    VALIDATION_MISMATCHES,
    VALIDATION_AGE,
    ERASURE_AGE,
    BACKUP_AGE,
    BACKUP_DRILL_AGE,
    BACKUP_DRILL_FAILED,
    CARD_NUMBERS_FOUND,
    UNCLASSIFIED_COLUMNS,
    OPERATION_FAILED,
    OPERATION_MISSED,
)
