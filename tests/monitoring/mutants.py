"""Small wrongs in the catalog, one at a time: what a slip of the hand would make of an alert."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from alerts.catalog import Alert, Condition

_FLIPPED: dict[str, Any] = {">": "<", ">=": "<", "==": "!="}
_FUNCTIONS = (
    ("sum(increase", "max(increase"),
    ("sum(increase", "sum(rate"),
    ("sum(delta", "max(delta"),
    ("sum(delta", "sum(idelta"),
    ("sum(rate", "sum(increase"),
    ("sum(rate", "sum(irate"),
    ("sum by (", "max by ("),
    ("max by (", "min by ("),
    (" by (state)", ""),
    (" by (where)", ""),
    (" by (location)", ""),
    (" by (response_code)", ""),
    ("max(custom", "min(custom"),
    ("max(max_over_time", "min(max_over_time"),
    ("max_over_time(data", "min_over_time(data"),
    ("avg_over_time", "max_over_time"),
    ("avg_over_time", "min_over_time"),
    ("sum(data", "max(data"),
    ("sum(custom", "max(custom"),
    ("absent_over_time", "present_over_time"),
    ("clamp_max", "clamp_min"),
    (" or vector(0)", ""),
    ("1 - ", ""),
)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`what` was done to the alert."""

    what: str
    alert: Alert


def mutants(alert: Alert) -> Iterator[Mutant]:
    """Every mutant of the alert; no two have the same expression and time."""
    seen = {(alert.expression, alert.holds)}
    for what, changed in _changes(alert):
        if (changed.expression, changed.holds) not in seen:
            seen.add((changed.expression, changed.holds))
            yield Mutant(what=what, alert=changed)


def _changes(alert: Alert) -> Iterator[tuple[str, Alert]]:
    yield "always true", replace(alert, conditions=(Condition(value="vector(1)", comparison="==", threshold=1),))
    yield "never true", replace(alert, conditions=(Condition(value="vector(0)", comparison="==", threshold=1),))
    yield "holds longer", replace(alert, holds=2 * alert.holds or 300)
    if alert.holds:
        yield "holds at once", replace(alert, holds=0)
    if len(alert.conditions) > 1:
        yield "and for or", replace(alert, any_of=not alert.any_of)
    for index, condition in enumerate(alert.conditions):
        for what, changed in _condition(condition):
            conditions = (*alert.conditions[:index], *changed, *alert.conditions[index + 1 :])
            if conditions:
                yield f"condition {index + 1}: {what}", replace(alert, conditions=conditions)


def _condition(condition: Condition) -> Iterator[tuple[str, tuple[Condition, ...]]]:
    yield "dropped", ()
    yield "flipped", (replace(condition, comparison=_FLIPPED[condition.comparison]),)
    other: dict[str, Any] = {">": ">=", ">=": ">", "==": ">="}
    extrapolated = bool(condition.threshold) and re.search(r"increase|rate|avg_over", condition.value)
    yield (
        f"equality{' of an increase' if extrapolated else ''}",
        (replace(condition, comparison=other[condition.comparison]),),
    )
    for factor in (10, 0.1, 1.25, 0.8):
        changed = condition.threshold * factor if condition.threshold else factor
        count = "" if condition.threshold else " of a count"
        yield f"threshold x {factor:g}{count}", (replace(condition, threshold=changed),)
    for window in sorted(set(re.findall(r"\[(\w+)[]:]", condition.value))):
        for factor in (3, 1 / 3):
            text = re.sub(rf"\[{window}([]:])", rf"[{_seconds(window) * factor:.0f}s\1", condition.value)
            yield f"window {window} x {factor:.2g}", (replace(condition, value=text),)
    for matcher in sorted(set(re.findall(r',(\w+=~?"[^"]*")', condition.value))):
        yield f"without {matcher}", (replace(condition, value=condition.value.replace("," + matcher, "")),)
    for before, after in _FUNCTIONS:
        if before in condition.value:
            yield (
                f"{after or 'nothing'} for {before}",
                (replace(condition, value=condition.value.replace(before, after, 1)),),
            )


def _seconds(window: str) -> int:
    return int(window[:-1]) * {"m": 60, "h": 3600, "d": 86_400}[window[-1]]
