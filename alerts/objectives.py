"""Service level objectives, and the windows in which their budgets burn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from alerts.thresholds import Thresholds
from contract.metrics import COMMIT_TO_QUERYABLE, LATENCY_SECONDS, QUERYABLE, SOURCE_COMMITTED, Metric

PERIOD_DAYS: Final = 30


@dataclass(frozen=True, kw_only=True)
class Objective:
    """`good` of `total` reach the goal over PERIOD_DAYS. With `below`, both are one distribution, cut there."""

    id: str
    title: str
    goal: float
    good: Metric
    total: Metric
    below: float | None = None


@dataclass(frozen=True, kw_only=True)
class BurnWindow:
    """An alert when `share` of the period's budget burns within `long`, and still does over `short`.

    From the SRE workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts", table 5-8.
    """

    severity: Literal["page", "ticket"]
    share: float
    long: str
    short: str
    factor: float


def objectives(numbers: Thresholds) -> tuple[Objective, Objective]:
    """Latency and throughput."""
    return (
        Objective(
            id="commit-to-queryable",
            title=f"Changes queryable within {LATENCY_SECONDS} s of their commit",
            goal=numbers.latency_goal,
            good=COMMIT_TO_QUERYABLE,
            total=COMMIT_TO_QUERYABLE,
            below=LATENCY_SECONDS,
        ),
        Objective(
            id="throughput",
            title=f"Committed changes that are queryable, up to {numbers.design_tps} a second",
            goal=numbers.throughput_goal,
            good=QUERYABLE,
            total=SOURCE_COMMITTED,
        ),
    )


def burn_windows(numbers: Thresholds) -> tuple[BurnWindow, BurnWindow, BurnWindow]:
    """Fast, slow and budget. The defaults of the factors are `share` times the period over `long`."""
    return (
        BurnWindow(severity="page", share=0.02, long="1h", short=numbers.shortest_window, factor=numbers.fast_burn),
        BurnWindow(severity="page", share=0.05, long="6h", short="30m", factor=numbers.slow_burn),
        BurnWindow(severity="ticket", share=0.1, long="3d", short="6h", factor=numbers.budget_burn),
    )
