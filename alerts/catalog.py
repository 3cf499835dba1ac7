"""Every alert: what it watches, when it fires, how loud it is and what the person who is notified reads first.

One definition, three uses: `components/monitoring.py` sends the expressions to Cloud Monitoring, `rules` gives them to
Prometheus, and the dashboards draw the thresholds. A page is for what a person must do now; all else is a ticket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from alerts import metrics
from alerts.objectives import BurnWindow, burn_windows
from alerts.promql import delta, increase, rate, select, slow_share
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
    PAYMENTS_TERMINAL,
    QUERYABLE,
    SOURCE_COMMITTED,
    STUCK_PAYMENTS,
    UNCLASSIFIED_COLUMNS,
    VALIDATION_AGE,
    VALIDATION_MISMATCHES,
)
from contract.operations import BACKUP, BACKUP_DRILL, ERASURE, SCHEDULED, VALIDATION

Severity = Literal["page", "ticket"]
Team = Literal["platform", "payments", "security"]
MINUTE: Final = 60
HOUR: Final = 3600
_GIB: Final = 2**30
# Operations whose absence another alert says: AuditValidationSilent, AuditBackupTooOld, AuditErasureUnfinished.
_SEEN_OTHERWISE: Final = frozenset(each.name for each in (VALIDATION, BACKUP, BACKUP_DRILL, ERASURE))
_NO_DATAFLOW: Final = "there is no Dataflow on one machine"
# Extrapolation at a window's ends must not make an alert of exactly the design load.
_ABOVE_DESIGN: Final = 1.05
# Google's advice for the CPU that a failover leaves: https://cloud.google.com/spanner/docs/cpu-utilization
_CPU_REGIONAL: Final = 0.65
_CPU_MULTI_REGION: Final = 0.45


@dataclass(frozen=True, kw_only=True)
class Condition:
    """`value` is PromQL."""

    value: str
    comparison: Literal[">", ">=", "=="]
    threshold: float

    def __str__(self) -> str:
        return f"({self.value}) {self.comparison} {self.threshold:.12g}"


_ON_HISTORY: Final = "its window is days: fired on a history of days by tests/emulators/test_monitoring.py"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """`holds` and `every`: seconds that it must be true, and between two looks. `cloud_only`: why it cannot be here.

    `no_game_day`: why none can try it. Not `counts_traffic`: gauges of single things and counts of faults, where one is
    one however few payments there are. With `any_of` one condition is enough. `chart` names the dashboard's chart whose
    values it watches.
    """

    name: str
    severity: Severity
    title: str
    summary: str
    chart: str
    conditions: tuple[Condition, ...]
    any_of: bool = False
    holds: int = 0
    every: int = MINUTE
    team: Team = "platform"
    cloud_only: str = ""
    no_game_day: str = ""
    counts_traffic: bool = True

    @property
    def expression(self) -> str:
        """The one expression that is tested here and sent to Cloud Monitoring."""
        return ("\nor " if self.any_of else "\nand ").join(str(condition) for condition in self.conditions)

    @property
    def runbook(self) -> str:
        """File in `runbooks/`."""
        return f"{self.name}.md"


def alerts(numbers: Thresholds, watched: Watched) -> tuple[Alert, ...]:
    """Every alert, with a stack's numbers."""
    return (
        *_latency(numbers),
        *_throughput(numbers),
        *_payments(numbers),
        *_records(numbers, watched),
        *_correctness(),
        *_kept(numbers),
        *_backups(numbers),
        *_operations(numbers),
        *_services(numbers, watched),
        _cost(numbers, watched),
    )


def _latency(numbers: Thresholds) -> tuple[Alert, ...]:
    fast, slow, budget = burn_windows(numbers)
    return (
        _latency_burn("AuditLatencyFastBurn", fast, numbers, "Changes are late: a month's budget is gone in two days"),
        _latency_burn(
            "AuditLatencySlowBurn",
            slow,
            numbers,
            "Changes are late: a month's budget is gone in five days",
            no_game_day=_ON_HISTORY,
        ),
        _latency_burn(
            "AuditLatencyBudgetTicket",
            budget,
            numbers,
            "Changes are late more often than the SLO allows",
            no_game_day=_ON_HISTORY,
        ),
    )


def _latency_burn(name: str, window: BurnWindow, numbers: Thresholds, title: str, *, no_game_day: str = "") -> Alert:
    return Alert(
        name=name,
        no_game_day=no_game_day,
        severity=window.severity,
        title=title,
        summary=f"{window.share:.0%} of the latency budget of 30 days burns in {window.long}, and still does "
        f"over {window.short}.",
        chart="slow-share",
        conditions=(
            *_burning(
                lambda over: slow_share(COMMIT_TO_QUERYABLE, over), window, window.factor * (1 - numbers.latency_goal)
            ),
            Condition(
                value=increase(COMMIT_TO_QUERYABLE, window.long, "_count"),
                comparison=">=",
                threshold=numbers.burn_minimum_events,
            ),
        ),
        every=5 * MINUTE if window.long == "3d" else MINUTE,
    )


def _burning(share: Callable[[str], str], window: BurnWindow, threshold: float) -> tuple[Condition, Condition]:
    return (
        Condition(value=share(window.short), comparison=">", threshold=threshold),
        Condition(value=share(window.long), comparison=">", threshold=threshold),
    )


def missing_share(numbers: Thresholds, window: str) -> str:
    """Share of the committed changes that are not queryable; commits above the design load are not part of the SLO."""
    committed = increase(SOURCE_COMMITTED, window)
    return f"1 - {increase(QUERYABLE, window)} / clamp_max({committed}, {numbers.design_tps * _seconds(window)})"


def _seconds(window: str) -> int:
    return int(window[:-1]) * {"m": MINUTE, "h": HOUR, "d": 24 * HOUR}[window[-1]]


def _throughput(numbers: Thresholds) -> tuple[Alert, ...]:
    fast = burn_windows(numbers)[0]
    return (
        Alert(
            name="AuditThroughputBurn",
            severity="page",
            title="Changes are missing: the throughput budget burns fast",
            summary="Up to the design load, fewer of the committed changes became queryable than the SLO demands, in "
            f"the last hour and in the last {5 * numbers.probe_minutes} minutes.",
            chart="missing-share",
            conditions=(
                *_burning(lambda over: missing_share(numbers, over), fast, fast.factor * (1 - numbers.throughput_goal)),
                Condition(
                    value=increase(SOURCE_COMMITTED, fast.long),
                    comparison=">=",
                    threshold=numbers.burn_minimum_events,
                ),
            ),
        ),
        Alert(
            name="AuditThroughputDeficit",
            severity="page",
            title="The pipeline falls behind",
            summary="Fewer changes became queryable over ten minutes than were committed. The backlog grows.",
            chart="deficit",
            conditions=(
                Condition(
                    value=f"1 - {increase(QUERYABLE, '10m')} / {increase(SOURCE_COMMITTED, '10m')}",
                    comparison=">",
                    threshold=numbers.deficit_share,
                ),
                Condition(value=increase(SOURCE_COMMITTED, "10m"), comparison=">=", threshold=numbers.deficit_minimum),
            ),
            holds=5 * MINUTE,
        ),
        Alert(
            name="AuditThroughputStalled",
            severity="page",
            title="Nothing arrives in BigQuery",
            summary=f"Changes are committed and none of them became queryable for {5 * numbers.probe_minutes} minutes.",
            chart="throughput",
            conditions=(
                Condition(value=increase(QUERYABLE, numbers.shortest_window), comparison="==", threshold=0),
                Condition(value=increase(SOURCE_COMMITTED, numbers.shortest_window), comparison=">", threshold=0),
            ),
            holds=2 * numbers.probe_minutes * MINUTE,
        ),
        Alert(
            name="AuditLoadAboveDesign",
            severity="ticket",
            title="More changes than the service was built for",
            summary="Commits exceed the design load. The latency SLO holds up to it.",
            chart="throughput",
            conditions=(
                Condition(
                    value=rate(SOURCE_COMMITTED, "10m"), comparison=">", threshold=numbers.design_tps * _ABOVE_DESIGN
                ),
            ),
            holds=10 * MINUTE,
        ),
        Alert(
            name="AuditPaymentsNotAudited",
            counts_traffic=False,
            severity="page",
            title="A change does not reach BigQuery",
            summary=f"The oldest change that is neither queryable nor a dead letter was committed more than "
            f"{numbers.unaudited_seconds} s ago.",
            chart="oldest-unaudited",
            conditions=(
                Condition(
                    value=f"max({select(OLDEST_UNAUDITED)})", comparison=">", threshold=numbers.unaudited_seconds
                ),
            ),
            # Longer than one measurement is seen.
            holds=2 * numbers.probe_minutes * MINUTE,
        ),
    )


def _payments(numbers: Thresholds) -> tuple[Alert, ...]:
    failed = [
        f"{increase(PAYMENTS_TERMINAL, over, outcome='failed')} / {increase(PAYMENTS_TERMINAL, over)}"
        for over in ("10m", "1h")
    ]
    return (
        Alert(
            name="PaymentsStuckInState",
            counts_traffic=False,
            severity="page",
            team="payments",
            title="Payments are stuck in {{state}}",
            summary="Payments are in one Status for longer than its limit. Audit works; the payments do not move.",
            chart="stuck",
            conditions=(Condition(value=f"max by (state) ({select(STUCK_PAYMENTS)})", comparison=">", threshold=0),),
            holds=5 * MINUTE,
        ),
        Alert(
            name="PaymentFailureRateHigh",
            severity="page",
            team="payments",
            title="Too many payments fail",
            summary="Of the payments that ended, too many failed, over the last hour and over the last ten minutes.",
            chart="payment-failures",
            conditions=(
                *(Condition(value=share, comparison=">", threshold=numbers.payment_failure_share) for share in failed),
                Condition(
                    value=increase(PAYMENTS_TERMINAL, "10m", outcome="failed"),
                    comparison=">=",
                    threshold=numbers.payment_failure_minimum,
                ),
            ),
        ),
    )


def _records(numbers: Thresholds, watched: Watched) -> tuple[Alert, ...]:
    clock = numbers.retention_share * watched.retention_hours * HOUR
    oldest = f"max({select(DLQ_OLDEST)})"
    return (
        Alert(
            name="AuditRecordFailureRateHigh",
            severity="page",
            title="Many changes become dead letters",
            summary="Too many of the changes of the last ten minutes could not be masked, enriched or written.",
            chart="dead-letter-share",
            conditions=(
                Condition(
                    value=f"{increase(DLQ_WRITTEN, '10m')} / {increase(SOURCE_COMMITTED, '10m')}",
                    comparison=">",
                    threshold=numbers.record_failure_share,
                ),
                Condition(
                    value=increase(DLQ_WRITTEN, "10m"), comparison=">=", threshold=numbers.record_failure_minimum
                ),
            ),
        ),
        Alert(
            name="AuditDlqGrowth",
            counts_traffic=False,
            severity="ticket",
            title="Dead letters pile up",
            summary="The number of open dead letters grew over a quarter of an hour.",
            chart="dead-letters",
            conditions=(
                Condition(value=delta(DLQ_OPEN, "15m"), comparison=">", threshold=0),
                Condition(value=f"sum({select(DLQ_OPEN)})", comparison=">=", threshold=numbers.dlq_open_minimum),
            ),
            holds=5 * MINUTE,
        ),
        Alert(
            name="AuditDlqUnresolved",
            counts_traffic=False,
            severity="ticket",
            title="A dead letter waits for a person",
            summary=f"The oldest open dead letter is older than {numbers.dlq_oldest_hours} h: retries did not help.",
            chart="dead-letter-age",
            conditions=(Condition(value=oldest, comparison=">", threshold=numbers.dlq_oldest_hours * HOUR),),
            holds=5 * MINUTE,
        ),
        Alert(
            name="AuditRetentionClock",
            counts_traffic=False,
            severity="page",
            title="Changes will be lost when Spanner forgets them",
            summary=f"A change that is not audited, or a dead letter, has used {numbers.retention_share:.0%} of the "
            f"{watched.retention_hours} h that Spanner keeps change records.",
            chart="oldest-unaudited",
            conditions=(
                Condition(value=f"max({select(OLDEST_UNAUDITED)})", comparison=">", threshold=clock),
                Condition(value=oldest, comparison=">", threshold=clock),
            ),
            any_of=True,
        ),
    )


def _correctness() -> tuple[Alert, ...]:
    return (
        Alert(
            name="AuditValidationMismatch",
            counts_traffic=False,
            severity="page",
            title="Spanner and BigQuery differ",
            summary="Validation found rows that are missing, extra or different, and they are not repaired.",
            chart="validation",
            conditions=(Condition(value=f"max({select(VALIDATION_MISMATCHES)})", comparison=">", threshold=0),),
        ),
        Alert(
            name="CardNumberFound",
            counts_traffic=False,
            severity="page",
            team="security",
            title="A full card number was found in a {{where}}",
            summary="A full card number is where none may be. It must be purged; nobody copies it into a ticket.",
            chart="card-numbers",
            conditions=(Condition(value=increase(CARD_NUMBERS_FOUND, "1h", by="where"), comparison=">", threshold=0),),
        ),
        Alert(
            name="UnclassifiedColumn",
            counts_traffic=False,
            severity="ticket",
            title="A new column waits to be classified",
            summary="Nobody has said whether a column may hold card data. In prod it stays NULL until then.",
            chart="unclassified",
            conditions=(Condition(value=f"max({select(UNCLASSIFIED_COLUMNS)})", comparison=">", threshold=0),),
            holds=5 * MINUTE,
        ),
        Alert(
            name="AuditProbeSilent",
            counts_traffic=False,
            severity="page",
            title="The probe is silent: every other audit alert is blind",
            summary="For ten minutes nothing was measured. Audit may work or not; nobody would be notified.",
            chart="oldest-unaudited",
            conditions=(
                Condition(value=f"absent_over_time({select(OLDEST_UNAUDITED)}[10m])", comparison="==", threshold=1),
            ),
        ),
    )


def _kept(numbers: Thresholds) -> tuple[Alert, ...]:
    return (
        Alert(
            name="AuditValidationSilent",
            counts_traffic=False,
            severity="ticket",
            title="Spanner and BigQuery are not compared",
            summary=f"No validation ended for {numbers.validation_hours} hours; one is due each hour.",
            chart="validation-age",
            conditions=(
                Condition(
                    value=f"max({select(VALIDATION_AGE)})", comparison=">", threshold=numbers.validation_hours * HOUR
                ),
            ),
            no_game_day="it takes hours without a validation",
        ),
        Alert(
            name="AuditErasureUnfinished",
            counts_traffic=False,
            severity="ticket",
            title="An erasure is not finished",
            summary=f"A customer was to be erased {numbers.erasure_hours} hours ago, and rows may still have the data.",
            chart="erasure-age",
            conditions=(
                Condition(value=f"max({select(ERASURE_AGE)})", comparison=">", threshold=numbers.erasure_hours * HOUR),
            ),
            no_game_day="it takes a day with an erasure that waits",
        ),
    )


def _backups(numbers: Thresholds) -> tuple[Alert, ...]:
    return (
        Alert(
            name="AuditBackupTooOld",
            counts_traffic=False,
            severity="ticket",
            title="No backup of BigQuery is young enough, or none was tried lately",
            summary=(
                f"The newest good backup is older than {numbers.backup_hours} hours, or none was restored and compared "
                f"for {numbers.drill_days} days."
            ),
            chart="backups",
            any_of=True,
            conditions=(
                Condition(value=f"max({select(BACKUP_AGE)})", comparison=">", threshold=numbers.backup_hours * HOUR),
                Condition(
                    value=f"max({select(BACKUP_DRILL_AGE)})", comparison=">", threshold=numbers.drill_days * 24 * HOUR
                ),
            ),
            no_game_day="it takes two days without a backup",
        ),
        Alert(
            name="AuditBackupDrillFailed",
            counts_traffic=False,
            severity="ticket",
            title="A backup of BigQuery is not what was recorded",
            summary="The last drill restored a backup and found other rows in it than when it was made.",
            chart="backup-drill",
            conditions=(Condition(value=f"max({select(BACKUP_DRILL_FAILED)})", comparison=">", threshold=0),),
        ),
    )


def _operations(numbers: Thresholds) -> tuple[Alert, ...]:
    """Tickets: what pages is the late change itself, and not the operation that did not run."""
    others = "|".join(each.name for each in SCHEDULED if each.name not in _SEEN_OTHERWISE)
    missed = select(OPERATION_MISSED, operation=f"~{others}")
    return (
        Alert(
            name="AuditOperationFailed",
            counts_traffic=False,
            severity="ticket",
            title="The operation {{operation}} failed",
            summary="The last run of a scheduled operation could not do its work, or found what a person must see to.",
            chart="operations-failed",
            conditions=(
                Condition(value=f"max by (operation) ({select(OPERATION_FAILED)})", comparison=">", threshold=0),
            ),
            # Longer than one measurement is seen.
            holds=5 * MINUTE,
            no_game_day="what breaks a run breaks a local stack permanently: tests/emulators/test_operations.py",
        ),
        Alert(
            name="AuditOperationOverdue",
            counts_traffic=False,
            severity="ticket",
            title="The operation {{operation}} does not run",
            summary=f"A scheduled operation did not do its work for {numbers.missed_runs:g} of its intervals.",
            chart="operations-missed",
            conditions=(
                Condition(value=f"max by (operation) ({missed})", comparison=">", threshold=numbers.missed_runs),
            ),
            holds=5 * MINUTE,
            no_game_day="it takes hours without a run",
        ),
    )


def _services(numbers: Thresholds, watched: Watched) -> tuple[Alert, ...]:
    cpu = select(metrics.SPANNER_CPU, instance_id=watched.instance, priority="high")
    watermark = select(metrics.JOB_WATERMARK_AGE, job_name=watched.job)
    vcpus = select(metrics.JOB_VCPUS, job_name=watched.job)
    appends = increase(
        metrics.API_REQUESTS,
        "10m",
        by="response_code",
        service="bigquerystorage.googleapis.com",
        method="~.*BigQueryWrite.AppendRows",
        response_code_class="~4xx|5xx",
    )
    refused = increase(metrics.RUN_REQUESTS, "10m", service_name=watched.console, response_code_class="5xx")
    return (
        Alert(
            name="DataflowJobDown",
            counts_traffic=False,
            severity="page",
            title="The streaming job does not run",
            summary=f"{watched.job} has had no worker for a quarter of an hour.",
            chart="workers",
            conditions=(Condition(value=f"absent_over_time({vcpus}[15m])", comparison="==", threshold=1),),
            cloud_only=_NO_DATAFLOW,
        ),
        Alert(
            name="DataflowWatermarkStalled",
            counts_traffic=False,
            severity="ticket",
            title="The streaming job's watermark is stalled",
            summary="Some change holds the job's watermark back. A page follows if changes are late.",
            chart="watermark",
            conditions=(
                Condition(
                    value=f"max(max_over_time({watermark}[5m]))", comparison=">", threshold=numbers.watermark_seconds
                ),
            ),
            holds=5 * MINUTE,
            cloud_only=_NO_DATAFLOW,
        ),
        Alert(
            name="SpannerHighPriorityCpu",
            counts_traffic=False,
            severity="ticket",
            title="Spanner has too little CPU left for a failover",
            summary="High-priority CPU is above what Google advises. Commits and the pipeline's reads get slower.",
            chart="spanner-cpu",
            conditions=(
                Condition(
                    value=f"max(sum by (location) ({cpu}))",
                    comparison=">",
                    threshold=_CPU_MULTI_REGION if watched.multi_region else _CPU_REGIONAL,
                ),
            ),
            holds=10 * MINUTE,
            cloud_only="the emulator has no CPU metric",
        ),
        Alert(
            name="WorkerOutOfMemory",
            counts_traffic=False,
            severity="ticket",
            title="A worker ran out of memory",
            summary="A worker, or a process on it, ran out of memory and was ended. Its work is done again elsewhere.",
            chart="out-of-memory",
            conditions=(Condition(value=increase(metrics.OUT_OF_MEMORY.metric, "10m"), comparison=">", threshold=0),),
            holds=5 * MINUTE,
            cloud_only=_NO_DATAFLOW,
        ),
        Alert(
            name="BigQueryWriteErrors",
            severity="ticket",
            title="BigQuery refuses appends with {{response_code}}",
            summary="Streams of appends ended with errors. They are opened again; rows are late, not lost.",
            chart="write-errors",
            conditions=(Condition(value=appends, comparison=">", threshold=numbers.write_errors),),
            holds=5 * MINUTE,
            cloud_only="the emulator reports no requests",
        ),
        Alert(
            name="AuditConsoleErrors",
            severity="ticket",
            title="The support console answers with errors",
            summary="People who look at payments get an error page: BigQuery, a grant, or the console itself.",
            chart="console-errors",
            conditions=(Condition(value=refused, comparison=">", threshold=numbers.console_errors),),
            holds=5 * MINUTE,
            cloud_only="Cloud Run counts the requests",
        ),
    )


def _cost(numbers: Thresholds, watched: Watched) -> Alert:
    vcpus = f"sum({select(metrics.JOB_VCPUS, job_name=watched.job)})"
    used = Condition(
        value=f"avg_over_time({vcpus}[6h:5m])", comparison=">", threshold=numbers.cost_factor * numbers.forecast_vcpus
    )
    # Of all queries of the project: one stack of it is enough.
    billed = Condition(
        value=increase(metrics.BYTES_BILLED, "1d"),
        comparison=">",
        threshold=numbers.cost_factor * numbers.forecast_gib_per_day * _GIB,
    )
    return Alert(
        name="AuditCostAnomaly",
        severity="ticket",
        title="The service costs more than forecast",
        summary=f"Queries billed, over a day, or workers used, over six hours, more than {numbers.cost_factor:g} times "
        "what the stack's config forecasts.",
        chart="bytes-billed",
        conditions=(billed, used) if watched.project_wide else (used,),
        any_of=True,
        every=5 * MINUTE,
        cloud_only="nothing is billed on one machine",
    )
