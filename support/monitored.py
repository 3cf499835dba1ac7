"""What monitoring says now, from the probe's series: how fast changes become queryable, against the goals, and which
alerts fire. No query of the warehouse, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from alerts.promql import quantile, rate, slow_share
from contract.metrics import COMMIT_TO_QUERYABLE, LATENCY_SECONDS, QUERYABLE, SOURCE_COMMITTED
from support.connection import Connection
from support.promql import Firing, MonitoringError, Prometheus
from support.slo import goals

WINDOW: Final = "10m"
_NO_SERIES: Final = f"The probe wrote no series for {WINDOW}: latency and rate are not known. See AuditProbeSilent."


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The last ten minutes: seconds from commit to queryable, and changes a second, each beside its goal.

    Latency is None where no change was committed. `in_time` is the share of changes within `goal_seconds`.
    """

    p50_seconds: float | None
    p99_seconds: float | None
    in_time: float | None
    goal_seconds: float
    goal_in_time: float
    committed_per_second: float
    queryable_per_second: float
    design_per_second: int


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """`why` says what is not known: `speed` without the probe's series, both where nobody measures."""

    speed: Speed | None = None
    alerts: tuple[Firing, ...] | None = None
    why: str = ""


def monitored(connection: Connection) -> Monitored:
    """What is known; it raises nothing."""
    try:
        prometheus = Prometheus(connection)
        speed = _speed(prometheus, connection)
        return Monitored(speed=speed, alerts=prometheus.firing(), why="" if speed else _NO_SERIES)
    except MonitoringError as error:
        return Monitored(why=str(error))


def _speed(prometheus: Prometheus, connection: Connection) -> Speed | None:
    committed = prometheus.value(rate(SOURCE_COMMITTED, WINDOW))
    queryable = prometheus.value(rate(QUERYABLE, WINDOW))
    if committed is None or queryable is None:
        return None
    numbers = goals(connection)
    late = prometheus.value(slow_share(COMMIT_TO_QUERYABLE, WINDOW))
    return Speed(
        p50_seconds=prometheus.value(quantile(COMMIT_TO_QUERYABLE, 0.5, WINDOW)),
        p99_seconds=prometheus.value(quantile(COMMIT_TO_QUERYABLE, 0.99, WINDOW)),
        in_time=None if late is None else 1 - late,
        goal_seconds=LATENCY_SECONDS,
        goal_in_time=numbers.latency_goal,
        committed_per_second=committed,
        queryable_per_second=queryable,
        design_per_second=numbers.design_tps,
    )
