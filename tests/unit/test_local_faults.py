"""The game days as data: what they name is there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from alerts.catalog import alerts
from alerts.thresholds import Thresholds, Watched
from components.config import stack_config
from contract import payments, tables
from local.gameday import faults
from local.gameday.command import gameday
from local.gameday.day import Day, GameDayError, Result, stack
from local.gameday.faults import FAULTS, Fault
from local.machine.state import State
from local.monitoring.launch import Firing
from pipeline.sink.dead_letters import DeadLetterQueue
from support.cli.main import main

ROOT = Path(__file__).parents[2]
CATALOG = {alert.name: alert for alert in alerts(Thresholds(), Watched())}
# Alerts that can fire here and have no game day yet: their windows are hours or days, or they need validation.
WITHOUT = {
    "AuditLatencySlowBurn": "on a backfilled past: tests/emulators/test_monitoring.py",
    "AuditLatencyBudgetTicket": "on a backfilled past: tests/emulators/test_monitoring.py",
    "AuditValidationMismatch": "validation",
}


@pytest.mark.parametrize("fault", FAULTS, ids=faults.names())
def test_every_alert_of_a_fault_can_fire_here_and_has_its_runbook(fault: Fault) -> None:
    for name in fault.fires | fault.may:
        assert not CATALOG[name].cloud_only
    assert fault.leads in fault.fires
    assert CATALOG[fault.leads].severity == "page" or not any(CATALOG[n].severity == "page" for n in fault.fires)
    assert (ROOT / fault.runbook).is_file()


@pytest.mark.parametrize("fault", [f for f in FAULTS if not f.waits_for], ids=lambda fault: fault.name)
def test_every_fault_breaks_something_and_its_commands_are_there(fault: Fault) -> None:
    assert fault.inject or fault.commits or fault.stack or fault.slow or fault.schema or fault.letter
    for command in (*fault.inject, *fault.mitigate, ("local", "up", *fault.stack)):
        shown = CliRunner().invoke(main, [*command, "--help"])
        assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize("fault", FAULTS, ids=faults.names())
def test_the_mitigation_is_the_runbook_s_own(fault: Fault) -> None:
    page = (ROOT / fault.runbook).read_text()
    mitigate = page[page.index("## Mitigate") : page.index("## Verify")]
    for command in fault.mitigate:
        assert re.search(rf"(`|^ *)\./audit {re.escape(' '.join(command))}(`|$)", mitigate, re.M)


def test_every_alert_that_can_fire_here_has_its_game_day_or_says_why_not() -> None:
    here = {name for name, alert in CATALOG.items() if not alert.cloud_only}
    assert here - faults.expected() == WITHOUT.keys()


def test_the_table_of_the_game_days_has_every_fault_that_can_be_tried_and_its_page() -> None:
    index = (ROOT / "runbooks" / "README.md").read_text()
    listed = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| (\w+) \|", index, re.M)
    assert dict(listed) == {fault.name: fault.leads for fault in FAULTS if not fault.waits_for}
    gaps = (ROOT / "docs" / "known-gaps.md").read_text()
    assert all(f"`{fault.name}`" in gaps for fault in FAULTS if fault.waits_for)


def test_the_stuck_payment_s_status_has_its_limit_in_the_local_stack_only() -> None:
    limits = payments.parse_limits(stack_config("local")["stuckLimits"])
    assert limits[faults.STUCK_STATUS] == 60
    assert faults.STUCK_STATUS not in payments.PAYMENT_STATES | payments.STUCK_SECONDS


def test_the_changes_of_a_fault_are_payments_and_poison_is_known_to_be() -> None:
    for fault in FAULTS:
        made = [mutation for commit in (fault.commits() if fault.commits else ()) for mutation in commit]
        assert all(mutation.table == tables.PAYMENT_TABLE for mutation in made)
        assert all(mutation.dead_letter for mutation in made) == (fault.name == "poison-records" or not made)
        for commit in fault.mend(made) if fault.mend else ():
            assert [mutation.puid for mutation in commit] <= [mutation.puid for mutation in made]


def test_an_alert_that_has_nothing_to_do_with_the_fault_fails_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    def fires(*names: str) -> None:
        alerts = [Firing(name=name, severity="page", title="", since="", runbook="") for name in names]
        monkeypatch.setattr("local.gameday.day.firing", lambda _: alerts)

    said: list[str] = []
    day = Day(State(Path()), said.append)
    fault = faults.named("payment-stuck")
    result = Result(fault=fault.name, leads=fault.leads)
    fires(fault.leads)
    day._note(fault, result, 0)
    assert result.fired.keys() == {fault.leads}
    fires(fault.leads, "AuditRetentionClock")
    with pytest.raises(GameDayError, match="AuditRetentionClock fired, which has nothing to do with it"):
        day._note(fault, result, 0)


@pytest.mark.parametrize(
    ("looks", "leads"),
    [
        ([("AuditThroughputBurn",), ("AuditThroughputBurn", "AuditPaymentsNotAudited")], True),
        ([("AuditPaymentsNotAudited", "AuditThroughputBurn")], True),
        ([("AuditPaymentsNotAudited",), ("AuditThroughputBurn", "AuditPaymentsNotAudited")], False),
    ],
)
def test_the_alert_that_leads_is_the_first(
    monkeypatch: pytest.MonkeyPatch, looks: list[tuple[str, ...]], leads: bool
) -> None:
    fault = faults.named("pipeline-stopped")
    seen = iter(looks)
    # Each look is some seconds after the one before.
    clock = count(step=5)
    monkeypatch.setattr(
        "local.gameday.day.firing",
        lambda _: [Firing(name=name, severity="page", title="", since="", runbook="") for name in next(seen)],
    )
    monkeypatch.setattr("local.gameday.day.time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None))
    day, result = Day(State(Path()), lambda _: None), Result(fault=fault.name, leads=fault.leads)
    with nullcontext() if leads else pytest.raises(GameDayError, match="AuditPaymentsNotAudited fired before"):
        day._await_alerts(fault, result, 0)


class DayOnPaper(Day):
    """A day whose stack is not there: what it would run is written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, alerts: list[Firing]) -> None:
        super().__init__(State(Path()), lambda _: None)
        self.ran: list[str] = []
        clock = count(step=10)
        monkeypatch.setattr(
            "local.gameday.day.time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None)
        )
        monkeypatch.setattr("local.gameday.day.firing", lambda _: alerts if self.ran else [])
        monkeypatch.setattr("local.gameday.day.watched_since", lambda *_: True)

    def _audit(self, *command: str) -> subprocess.CompletedProcess[str]:
        self.ran.append(" ".join(command))
        return subprocess.CompletedProcess(command, 0, "", "")

    def _burst(self) -> None:
        self.ran.append("burst")

    def _kill_pipeline(self) -> None:
        self.ran.append("kill")

    def _change_schema(self, statements: Sequence[str]) -> None:
        self.ran += [statement.partition(" ")[0] for statement in statements]

    def _check(self) -> str:
        return "checked"


def _fires(severity: str) -> list[Firing]:
    return [Firing(name="UnclassifiedColumn", severity=severity, title="", since="", runbook="")]


def test_a_normal_hour_has_its_bursts_restarts_and_column_and_a_ticket_ends_it_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    day = DayOnPaper(monkeypatch, _fires("ticket"))
    result = day.normal(60)
    assert day.ran == ["burst", "kill", "ALTER", "burst", "kill", "burst"]
    assert (result.fired.keys(), result.check) == ({"UnclassifiedColumn"}, "checked")


def test_a_page_in_a_normal_hour_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    day = DayOnPaper(monkeypatch, _fires("page"))
    with pytest.raises(GameDayError, match="UnclassifiedColumn paged, and nothing was wrong"):
        day.normal(60)
    assert day.ran == ["burst"]


def test_a_letter_that_was_forgotten_is_discarded_by_its_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connection = SimpleNamespace(dead_letter_directory=str(tmp_path))
    monkeypatch.setattr("local.gameday.day.connections", SimpleNamespace(load=lambda _: connection))
    day = DayOnPaper(monkeypatch, [])
    fault = faults.named("letter-forgotten")
    assert fault.letter
    day._set_aside(fault.letter())
    [letter] = DeadLetterQueue(str(tmp_path)).letters("severe")
    day._do(fault.mitigate)
    assert day.ran == [f"dead-letters discard {letter.id}"]


def test_a_day_that_is_ended_while_its_stack_starts_takes_it_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []

    def run(command: Sequence[object], **_: object) -> None:
        ran.append(str(command[2]))
        if command[2] == "up":
            raise KeyboardInterrupt

    monkeypatch.setattr("local.gameday.day.subprocess.run", run)
    with pytest.raises(KeyboardInterrupt), stack(State(tmp_path), lambda _: None, ()):
        pass
    assert ran == ["up", "down"]


@pytest.mark.parametrize("name", ["pipeline-stopped", "column-added"])
def test_a_day_that_fails_leaves_no_fault_behind(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fault = faults.named(name)
    stray = Firing(name="AuditRetentionClock", severity="page", title="", since="", runbook="")
    day = DayOnPaper(monkeypatch, [stray])
    with pytest.raises(GameDayError, match="AuditRetentionClock fired"):
        day.run(fault)
    broken = [" ".join(command) for command in fault.inject] or ["ALTER"]
    mended = [" ".join(command) for command in fault.mitigate] or ["ALTER"]
    assert day.ran == broken + mended


def test_one_who_waits_long_is_told_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    day = DayOnPaper(monkeypatch, _fires("page"))
    day._say, day.ran = said.append, ["a fault"]
    # The clock of a day on paper advances by ten seconds per look.
    looks = iter(range(70))
    day._await(lambda: next(looks) == 69, 20, "the alert to resolve")
    assert said == [
        f"  waiting for the alert to resolve, at most {left} s more. Firing now: UnclassifiedColumn."
        for left in (890, 580)
    ]
    # And not longer than it may take.
    looks = iter(range(70))
    with pytest.raises(GameDayError, match="waited 2 minutes for the alert to resolve"):
        day._await(lambda: next(looks) == 69, 2, "the alert to resolve")
    assert (next(looks), len(said)) == (13, 2)


def test_a_slow_process_stands_still_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.gameday.day._FROZEN_SECONDS", 0.001)
    monkeypatch.setattr("local.gameday.day._THAWED_SECONDS", 0.001)
    day = DayOnPaper(monkeypatch, [])
    with day._slowed("bigquery-emulator"):
        while len(day.ran) < 4:
            pass
    assert day.ran[:4] == ["local freeze bigquery-emulator", "local thaw bigquery-emulator"] * 2
    # The runbook's mitigation is a thaw: there must be something to fix.
    assert day.ran[-1] == "local freeze bigquery-emulator"


def test_the_list_names_every_fault_and_what_waits(tmp_path: Path) -> None:
    shown = CliRunner().invoke(gameday, [], env={"COLUMNS": "200"})
    assert all(fault.name in shown.output for fault in FAULTS)
    refused = CliRunner().invoke(gameday, ["row-deleted", f"--state={tmp_path}"])
    assert refused.exit_code == 2
    assert "waits for validation" in refused.output
    mixed = CliRunner().invoke(gameday, ["payment-stuck", "load-above-design", f"--state={tmp_path}"])
    assert "Run them one by one" in mixed.output
