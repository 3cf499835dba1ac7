"""A small run of the fuzz room: the same inputs each time, and others each day. `make fuzz` runs more."""

from __future__ import annotations

import datetime

import pytest

from tests.fuzz.__main__ import most_changed
from tests.fuzz.run import run_harmless, run_hidden

FIXED, DAILY = 2_000, 1_000
SEEDS = [f"1:{i}" for i in range(FIXED)] + [f"{datetime.date.today():%Y%m%d}:{i}" for i in range(DAILY)]


def test_nothing_that_is_hidden_in_a_change_can_be_read_in_what_comes_out() -> None:
    outcome = run_hidden(SEEDS)
    assert (outcome.inputs, outcome.leaks, outcome.crashes) == (FIXED + DAILY, [], [])
    assert outcome.dead_letters < FIXED // 10


def test_harmless_values_come_out_byte_for_byte_and_are_no_dead_letters() -> None:
    outcome = run_harmless(SEEDS)
    assert (outcome.inputs, outcome.dead_letters, outcome.crashes) == (FIXED + DAILY, 0, [])
    assert len(outcome.changed) <= most_changed(FIXED + DAILY)


@pytest.mark.parametrize("run", [run_hidden, run_harmless])
def test_a_seed_gives_the_same_input_every_time(run: object) -> None:
    from tests.fuzz import harmless, hidden

    make = hidden.case if run is run_hidden else harmless.value
    assert [make(f"1:{i}") for i in range(50)] == [make(f"1:{i}") for i in range(50)]
