"""The operations' times on one machine: each at its own, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from contract.operations import BACKUP, BACKUP_DRILL, DEAD_LETTERS, PIPELINE, SCHEDULED, SCHEMA, VALIDATION
from local.monitoring.operations import audit, schedule, step


class Machine:
    """A clock, and what ran. A run takes `takes` seconds of it."""

    def __init__(self, takes: float = 1) -> None:
        self.now, self.takes = 0.0, takes
        self.ran: list[Sequence[str]] = []

    def clock(self) -> float:
        return self.now

    def run(self, arguments: Sequence[str]) -> int:
        self.ran.append(arguments)
        self.now += self.takes
        return 1

    def until(self, end: float) -> Counter[str]:
        due = schedule(0)
        while self.now < end:
            wait = step(due, self.clock, Path("connection.json"), self.run)
            self.now += wait
        return Counter(arguments[1].removeprefix("--operation=") for arguments in self.ran)


def test_each_operation_runs_at_its_time_with_the_command_of_the_cloud() -> None:
    machine = Machine()
    ran = machine.until(3 * 3600)
    assert ran.keys() >= {each.name for each in SCHEDULED}
    assert 170 <= ran[VALIDATION.name] <= 180 and ran[PIPELINE.name] == 18
    assert ran[SCHEMA.name] == ran[DEAD_LETTERS.name] == ran[BACKUP.name] == ran[BACKUP_DRILL.name] == 3
    [first, *_] = [arguments for arguments in machine.ran if f"--operation={PIPELINE.name}" in arguments]
    assert first == ["--connection=connection.json", "--operation=pipeline", "pipeline", "ensure", "--wait=0"]


def test_a_backup_is_tried_after_it_was_made() -> None:
    machine = Machine()
    machine.until(600)
    names = [arguments[1].removeprefix("--operation=") for arguments in machine.ran]
    assert names.index(BACKUP.name) < names.index(BACKUP_DRILL.name)


def test_a_run_that_takes_longer_than_its_interval_is_not_made_up_for() -> None:
    machine = Machine(takes=300)
    ran = machine.until(3600)
    assert sum(ran.values()) == 12 and all(ran[each.name] for each in SCHEDULED)


def test_an_operation_that_cannot_run_gives_its_exit_code_and_ends_nothing(tmp_path: Path) -> None:
    assert audit([f"--connection={tmp_path / 'none.json'}", "--operation=schema", "schema", "verify"]) == 2
    assert audit(["--no-such-option"]) == 2
