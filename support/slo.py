"""The stack's objectives: attained, budget left, and how fast the budget burns.

The expressions are those of the alerts, over the period and over their windows, so that this and a page never disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from alerts.catalog import missing_share
from alerts.objectives import PERIOD_DAYS, Objective, burn_windows, objectives
from alerts.promql import increase, slow_share
from alerts.thresholds import Thresholds
from support.connection import Connection
from support.promql import Prometheus


@dataclass(frozen=True, kw_only=True)
class Burn:
    """How many times faster than the goal allows the budget burns over a window; from `alert_at` on it is an alert."""

    window: str
    rate: float | None
    alert_at: float


@dataclass(frozen=True, kw_only=True)
class Standing:
    """An objective and its present state. Shares are of 1; None where nothing was measured. It can be overspent."""

    id: str
    title: str
    goal: float
    period_days: int
    events: int
    attained: float | None
    budget_left: float | None
    burns: tuple[Burn, ...]


def goals(connection: Connection) -> Thresholds:
    """The stack's numbers, as far as its outputs name them; the defaults otherwise."""
    known = {
        "latency_goal": (float, connection.latency_goal),
        "throughput_goal": (float, connection.throughput_goal),
        "design_tps": (int, connection.design_tps),
    }
    return Thresholds(**{name: kind(text) for name, (kind, text) in known.items() if text})


def standings(prometheus: Prometheus, numbers: Thresholds) -> list[Standing]:
    """Every objective. Raises MonitoringError."""
    return [_standing(prometheus, objective, numbers) for objective in objectives(numbers)]


def _standing(prometheus: Prometheus, objective: Objective, numbers: Thresholds) -> Standing:
    budget = 1 - objective.goal
    period = f"{PERIOD_DAYS}d"
    bad = _bad(prometheus, objective, numbers, period)
    events = prometheus.value(increase(objective.total, period, "_count" if objective.below else ""))
    return Standing(
        id=objective.id,
        title=objective.title,
        goal=objective.goal,
        period_days=PERIOD_DAYS,
        events=round(events or 0),
        attained=None if bad is None else 1 - bad,
        budget_left=None if bad is None else 1 - bad / budget,
        burns=tuple(
            Burn(window=window.long, rate=None if share is None else share / budget, alert_at=window.factor)
            for window in burn_windows(numbers)
            for share in [_bad(prometheus, objective, numbers, window.long)]
        ),
    )


def _bad(prometheus: Prometheus, objective: Objective, numbers: Thresholds, window: str) -> float | None:
    """Share of the events that missed the objective."""
    expression = slow_share(objective.total, window) if objective.below else missing_share(numbers, window)
    found = prometheus.value(expression)
    # More can become queryable in a window than was committed in it: a backlog that drains owes nothing.
    return None if found is None else min(1.0, max(0.0, found))
