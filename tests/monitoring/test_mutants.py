"""The scenarios notice what a slip of the hand would make of an alert: every mutant that matters dies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.monitoring.defaults import CATALOG
from tests.monitoring.mutants import Mutant, mutants
from tests.monitoring.promtool import Scenario, failed, mutant_files, run
from tests.monitoring.scenarios import SCENARIOS

# Mutants that are the same alert to its recipients: `alert: what was done`, and why.
EQUIVALENT = {
    r"\w+: condition \d: equality of an increase": "what is extrapolated over a window meets a number by chance only",
    r"\w+: condition \d: threshold x 0\.[18] of a count": "a count of things is whole: above 0 is at least 1",
    r"AuditThroughputStalled: condition \d: (max\(increase|sum\(rate) for .*": "it is zero, or it is not",
    r"WorkerOutOfMemory: condition 1: (max\(increase|sum\(rate) for .*": "it is zero, or it is not",
    r"CardNumberFound: condition 1: max by \( for sum by \(": "it is zero, or it is not",
    r"(AuditProbeSilent|DataflowJobDown): condition 1: equality": "absence is 1, or it is nothing",
}


def _equivalent(alert: str, mutant: Mutant) -> bool:
    return any(re.fullmatch(pattern, f"{alert}: {mutant.what}") for pattern in EQUIVALENT)


@pytest.mark.parametrize("name", tuple(CATALOG))
def test_every_mutant_is_noticed_by_a_scenario(name: str, tmp_path: Path) -> None:
    alert = CATALOG[name]
    left = {f"{name}_{index}": mutant for index, mutant in enumerate(mutants(alert))}
    for scenarios in _rounds(name):
        files = mutant_files(alert, {key: mutant.alert for key, mutant in left.items()}, scenarios)
        noticed = failed(run(tmp_path, files))
        left = {key: mutant for key, mutant in left.items() if key not in noticed}
    assert [mutant.what for mutant in left.values() if not _equivalent(name, mutant)] == []


def _rounds(name: str) -> list[list[Scenario]]:
    """Short scenarios first: what they have noticed need not go through the long ones."""
    mine = sorted((s for s in SCENARIOS if s.alert == name), key=lambda s: max(s.at))
    third = -(-len(mine) // 3)
    return [mine[start : start + third] for start in range(0, len(mine), third)]


def test_every_exception_is_one_of_a_mutant_that_is_made() -> None:
    made = [f"{name}: {mutant.what}" for name, alert in CATALOG.items() for mutant in mutants(alert)]
    for pattern in EQUIVALENT:
        assert any(re.fullmatch(pattern, what) for what in made), pattern
