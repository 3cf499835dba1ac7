"""The numbers of the alerts. Each is a key of a stack's config, under the same name in camelCase."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any


def _number(default: float, low: float, high: float, meaning: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Goals and limits, each with its default, its range and what it means in a stack's config. Shares are of 1."""

    latency_goal: float = _number(
        0.99, 0.5, 0.9999, "Share of changes that are queryable within 10 s of their commit, over 30 days."
    )
    throughput_goal: float = _number(
        0.999, 0.5, 0.9999, "Share of committed changes that are queryable, up to designTps, over 30 days."
    )
    fast_burn: float = _number(
        14.4, 1, 720, "Burn rate over 1 h and 5 m that pages, in times faster than the goal allows."
    )
    slow_burn: float = _number(6, 1, 120, "The same over 6 h and 30 m, a page.")
    budget_burn: float = _number(1, 0.1, 10, "The same over 3 d and 6 h, a ticket.")
    burn_minimum_events: int = _number(
        1000, 1, 1_000_000, "Changes in the long window below which no budget is said to burn."
    )
    design_tps: int = _number(
        500,
        1,
        100_000,
        "Changes a second that the service is built for. More of them is a ticket, and does not count against the SLO.",
    )
    deficit_share: float = _number(
        0.05, 0.001, 0.5, "Share of the commits of 10 m that may be missing before the pipeline is said to fall behind."
    )
    deficit_minimum: int = _number(600, 1, 1_000_000, "Commits in 10 m below which that is not judged.")
    unaudited_seconds: int = _number(
        120, 90, 3600, "Age of the oldest change not audited that is a page. The probe itself is up to 90 s behind."
    )
    probe_minutes: int = _number(
        1,
        1,
        3,
        "Minutes between two runs of the probe, each charged for a minute at least. With more, alerts on what it "
        "measures come later, over windows as many times longer. Must be 1 in prod.",
    )
    payment_failure_share: float = _number(
        0.05, 0.001, 0.9, "Share of ended payments that may fail, over 10 m and 1 h."
    )
    payment_failure_minimum: int = _number(20, 1, 100_000, "Failed payments in 10 m below which that is not judged.")
    record_failure_share: float = _number(
        0.01, 0.0001, 0.5, "Share of the changes of 10 m that may become dead letters."
    )
    record_failure_minimum: int = _number(10, 1, 100_000, "Dead letters in 10 m below which that is not judged.")
    dlq_open_minimum: int = _number(10, 1, 100_000, "Open dead letters below which their growth opens no ticket.")
    dlq_oldest_hours: int = _number(4, 1, 72, "Age of the oldest dead letter that is a ticket.")
    retention_share: float = _number(
        0.5, 0.1, 0.9, "Share of Spanner's retention of change records that a change may use up before it is a page."
    )
    validation_hours: int = _number(4, 2, 72, "Hours without a validation that are a ticket; one is each hour.")
    erasure_hours: int = _number(24, 1, 720, "Age of an erasure that is not finished that is a ticket.")
    backup_hours: int = _number(
        50, 2, 720, "Age of the newest good backup of BigQuery that is a ticket; one is made each day."
    )
    drill_days: int = _number(15, 1, 90, "Days since a backup was last tried that are a ticket; one is each week.")
    missed_runs: float = _number(
        3, 2, 48, "Intervals of its schedule without a run of an operation that did its work that are a ticket."
    )
    watermark_seconds: int = _number(300, 60, 3600, "Age of the job's watermark that is a ticket.")
    write_errors: int = _number(20, 1, 100_000, "Streams of appends that may end with one error code in 10 m.")
    console_errors: int = _number(10, 1, 100_000, "Server errors (5xx) that the console may answer in 10 m.")
    forecast_gib_per_day: int = _number(
        200, 1, 1_000_000, "GiB that all queries of the project are expected to bill in a day."
    )
    forecast_vcpus: int = _number(8, 1, 10_000, "vCPUs that the streaming job is expected to use.")
    cost_factor: float = _number(1.5, 1.1, 10, "How many times the forecast is a ticket.")

    @property
    def shortest_window(self) -> str:
        """The shortest window over what the probe measures: five of its runs. An increase needs two."""
        return f"{5 * self.probe_minutes}m"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What the stack's alerts look at. `retention_hours` is how long Spanner keeps change records.

    `project_wide`: it also watches what is of its whole project.
    """

    project_wide: bool = True
    job: str = "audit-stream-job"
    console: str = "audit-console"
    instance: str = "audit-instance"
    multi_region: bool = False
    retention_hours: int = 168


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A number that breaks a rule: the config key, the rule and the value."""

    key: str
    rule: str
    value: str


def key(name: str) -> str:
    """The config key of a field: `latency_goal` is `latencyGoal`."""
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def problems(numbers: Thresholds, watched: Watched) -> Iterator[Problem]:
    """What no range says: alerts that could never fire, or only after the data is gone."""
    for goal, factor in (
        ("latency_goal", "fast_burn"),
        ("latency_goal", "slow_burn"),
        ("latency_goal", "budget_burn"),
        ("throughput_goal", "fast_burn"),
    ):
        budget = 1 - getattr(numbers, goal)
        if getattr(numbers, factor) * budget >= 1:
            rule = f"less than {1 / budget:g}, or its alert can never fire: {key(goal)} leaves a budget of {budget:.4g}"
            yield Problem(key=key(factor), rule=rule, value=f"{getattr(numbers, factor):g}")
    if not numbers.fast_burn > numbers.slow_burn > numbers.budget_burn:
        rule = "more than slowBurn, and that more than budgetBurn: a page comes before a ticket"
        yield Problem(key="fastBurn", rule=rule, value=f"{numbers.fast_burn:g}")
    if numbers.dlq_oldest_hours >= numbers.retention_share * watched.retention_hours:
        rule = f"less than retentionShare of the {watched.retention_hours} hours that Spanner keeps change records"
        yield Problem(key="dlqOldestHours", rule=rule, value=str(numbers.dlq_oldest_hours))


def ranges() -> Iterator[tuple[str, type, float, float]]:
    """Field, type and range of every number, in the order of the config."""
    for number in fields(Thresholds):
        kind = int if isinstance(number.default, int) and number.type == "int" else float
        yield number.name, kind, number.metadata["low"], number.metadata["high"]
