"""The game days as data: what they name is there."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import MISSING, fields
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alerts.catalog import alerts
from alerts.thresholds import Thresholds, Watched
from components.config import stack_config
from contract import payments
from contract.changes import DeadLetter
from local.gameday import faults
from local.gameday.command import gameday
from local.gameday.day import Clock, GameDay, GameDayError, Result, stack
from local.gameday.faults import FAULTS, Commits, Fault
from local.gameday.runner import StackRunner
from local.machine.state import State
from local.monitoring.launch import Firing
from local.traffic.simulator import Mutation
from pipeline.sink.dead_letters import DeadLetterQueue
from support.cli.main import main
from support.connection import Connection
from tests.shipped import PAYMENT_TABLE, WATCHED

ROOT = Path(__file__).parents[2]
CATALOG = {alert.name: alert for alert in alerts(Thresholds(), Watched())}


@pytest.mark.parametrize("fault", FAULTS, ids=faults.names())
def test_every_alert_of_a_fault_can_fire_here_and_has_its_runbook(fault: Fault) -> None:
    for name in fault.fires | fault.may:
        assert not CATALOG[name].cloud_only
    assert fault.leads in fault.fires
    assert CATALOG[fault.leads].severity == "page" or not any(CATALOG[n].severity == "page" for n in fault.fires)
    assert (ROOT / fault.runbook).is_file()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_breaks_something_and_its_commands_are_there(fault: Fault) -> None:
    assert fault.inject or fault.commits or fault.stack or fault.slow or fault.breaks or fault.letter
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
    assert here - faults.expected() == {name for name, alert in CATALOG.items() if alert.no_game_day}


def test_the_table_of_the_game_days_has_every_fault_that_can_be_tried_and_its_page() -> None:
    index = (ROOT / "runbooks" / "README.md").read_text()
    listed = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| (\w+) \|", index, re.M)
    assert dict(listed) == {fault.name: fault.leads for fault in FAULTS}


def test_the_stuck_payment_s_status_has_its_limit_in_the_local_stack_only() -> None:
    limits = payments.parse_limits(stack_config("local")["stuckLimits"])
    assert limits[faults.STUCK_STATUS] == 60
    assert faults.STUCK_STATUS not in payments.PAYMENT_STATES | payments.STUCK_SECONDS


def test_the_changes_of_a_fault_are_payments_and_poison_is_known_to_be() -> None:
    for fault in FAULTS:
        made = [mutation for commit in (fault.commits() if fault.commits else ()) for mutation in commit]
        assert all(mutation.table == PAYMENT_TABLE for mutation in made)
        assert all(mutation.dead_letter for mutation in made) == (fault.name == "poison-records" or not made)
        for commit in fault.fix(made) if fault.fix else ():
            assert [mutation.puid for mutation in commit] <= [mutation.puid for mutation in made]


class PaperClock(Clock):
    """Each look is some seconds after the one before, and nobody waits."""

    def __init__(self, step: int) -> None:
        self._ticks = count(step=step)

    def monotonic(self) -> float:
        return next(self._ticks)

    def sleep(self, seconds: float) -> None:
        pass

    def wait(self, event: threading.Event, seconds: float) -> None:
        event.wait(0.001)


class PaperRunner:
    """A stack that is not there: what would be done to it is written down."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.parked: list[DeadLetter] = []

    def audit(self, *command: str) -> subprocess.CompletedProcess[str]:
        self.ran.append(" ".join(command))
        none = json.dumps({"committed": 3, "arrivals": {"missing": [], "doubled": []}})
        return subprocess.CompletedProcess(command, 0, none if "check" in command else "", "")

    def burst(self, tps: float, seconds: float) -> None:
        self.ran.append("burst")

    def kill(self, process: str) -> None:
        self.ran.append(f"kill {process}")

    def change_schema(self, statements: Sequence[str]) -> None:
        self.ran += [statement.partition(" ")[0] for statement in statements]

    def commit(self, commits: Commits, *, recorded: bool = True) -> list[Mutation]:
        made = [mutation for mutations in commits for mutation in mutations]
        self.ran.append(f"commit {len(made)}{'' if recorded else ' unrecorded'}")
        return made

    @property
    def connection(self) -> Connection:
        names = [field.name for field in fields(Connection) if field.default is MISSING]
        return Connection(**dict.fromkeys(names, "") | {"project": "p", "watched_tables": WATCHED.to_json()})

    def query(self, sql: str, **parameters: str) -> list[dict[str, Any]]:
        self.ran.append(sql.partition(" ")[0])
        return [{"id": "c1"}]

    def park(self, letter: DeadLetter) -> None:
        self.parked.append(letter)

    def alter_snapshot(self, backup_id: str) -> str:
        self.ran.append(f"alter {backup_id}")
        return "d.s"


class PaperAlerts:
    """What fires, look by look; the last again and again. Nothing before something was done to the stack."""

    def __init__(self, *looks: list[Firing], after: PaperRunner | None = None) -> None:
        self._looks, self._after = list(looks), after

    def firing(self) -> list[Firing]:
        if self._after and not self._after.ran:
            return []
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]

    def watched_since(self, moment: datetime) -> bool:
        return True


def paper_day(alerts: list[Firing], said: list[str] | None = None) -> tuple[GameDay, PaperRunner]:
    runner = PaperRunner()
    say = (lambda _: None) if said is None else said.append
    return GameDay(say, runner=runner, alerts=PaperAlerts(alerts, after=runner), clock=PaperClock(10)), runner


def _pages(*names: str) -> list[Firing]:
    return [Firing(name=name, severity="page", title="", since="", runbook="") for name in names]


def test_an_alert_that_has_nothing_to_do_with_the_fault_fails_the_day() -> None:
    fault = faults.named("payment-stuck")
    looks = PaperAlerts(_pages(fault.leads), _pages(fault.leads, "AuditRetentionClock"))
    day = GameDay(lambda _: None, runner=PaperRunner(), alerts=looks)
    result = Result(fault=fault.name, leads=fault.leads)
    day._note(fault, result, 0)
    assert result.fired.keys() == {fault.leads}
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
def test_the_alert_that_leads_is_the_first(looks: list[tuple[str, ...]], leads: bool) -> None:
    fault = faults.named("pipeline-stopped")
    seen = PaperAlerts(*(_pages(*names) for names in looks))
    day = GameDay(lambda _: None, runner=PaperRunner(), alerts=seen, clock=PaperClock(5))
    result = Result(fault=fault.name, leads=fault.leads)
    with nullcontext() if leads else pytest.raises(GameDayError, match="AuditPaymentsNotAudited fired before"):
        day._await_alerts(fault, result, 0)


def _fires(severity: str) -> list[Firing]:
    return [Firing(name="UnclassifiedColumn", severity=severity, title="", since="", runbook="")]


def test_a_normal_hour_has_its_bursts_restarts_and_column_and_a_ticket_ends_it_not() -> None:
    day, runner = paper_day(_fires("ticket"))
    result = day.normal(60)
    assert runner.ran[:6] == ["burst", "kill pipeline", "ALTER", "burst", "kill pipeline", "burst"]
    assert [each.partition(" --")[0] for each in runner.ran[6:]] == ["local check"]
    assert (set(result.fired), result.check) == (
        {"UnclassifiedColumn"}, "3 changes committed, 0 missing, 0 doubled"
    )  # fmt: skip


def test_a_page_in_a_normal_hour_fails_it() -> None:
    day, runner = paper_day(_fires("page"))
    with pytest.raises(GameDayError, match="UnclassifiedColumn paged, and nothing was wrong"):
        day.normal(60)
    assert runner.ran == ["burst"]


def test_a_letter_that_was_forgotten_is_discarded_by_its_id() -> None:
    day, runner = paper_day([])
    fault = faults.named("letter-forgotten")
    assert fault.letter
    day._park(fault.letter())
    [letter] = runner.parked
    day._do(fault.mitigate)
    assert runner.ran == [f"dead-letters discard {letter.id}"]


def test_a_letter_is_parked_in_the_stack_s_own_queue(tmp_path: Path) -> None:
    state = State(tmp_path)
    names = [field.name for field in fields(Connection) if field.default is MISSING]
    keys = ["".join(part.title() if i else part for i, part in enumerate(name.split("_"))) for name in names]
    letters = str(tmp_path / "letters")
    state.connection.write_text(json.dumps(dict.fromkeys(keys, "") | {"deadLetterDirectory": letters}))
    fault = faults.named("letter-forgotten")
    assert fault.letter
    letter = fault.letter()
    StackRunner(state).park(letter)
    assert list(DeadLetterQueue(letters).letters("severe")) == [letter]


def test_a_day_that_is_ended_while_its_stack_starts_takes_it_down(tmp_path: Path) -> None:
    class Ended(PaperRunner):
        def audit(self, *command: str) -> subprocess.CompletedProcess[str]:
            done = super().audit(*command)
            if command[1] == "up":
                raise KeyboardInterrupt
            return done

    runner = Ended()
    with pytest.raises(KeyboardInterrupt), stack(State(tmp_path), lambda _: None, (), runner):
        pass
    assert [each.split()[1] for each in runner.ran] == ["up", "down"]


@pytest.mark.parametrize("name", ["pipeline-stopped", "column-added"])
def test_a_day_that_fails_leaves_no_fault_behind(name: str) -> None:
    fault = faults.named(name)
    day, runner = paper_day(_pages("AuditRetentionClock"))
    with pytest.raises(GameDayError, match="AuditRetentionClock fired"):
        day.run(fault)
    broken = [" ".join(command) for command in fault.inject] or ["ALTER"]
    mended = [" ".join(command) for command in fault.mitigate] or ["ALTER"]
    assert runner.ran == broken + mended


def test_what_is_done_behind_the_warehouse_s_back_is_taken_back_where_no_command_does_it() -> None:
    ran = {}
    for name in ("row-deleted", "row-missing", "card-in-column"):
        fault, runner = faults.named(name), PaperRunner()
        assert fault.breaks
        fault.breaks(runner)
        if fault.mends:
            fault.mends(runner)
        ran[name] = runner.ran
    assert ran == {
        "row-deleted": ["SELECT", "DELETE"],
        "row-missing": ["ALTER", "commit 1 unrecorded", "ALTER", "local start traffic"],
        "card-in-column": ["SELECT", "UPDATE", "UPDATE"],
    }


def test_one_who_waits_long_is_told_for_what() -> None:
    said: list[str] = []
    day, runner = paper_day(_fires("page"), said)
    runner.ran = ["a fault"]
    # The clock of a day on paper goes on by ten seconds a look.
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


def test_a_slow_process_stands_still_in_the_end() -> None:
    day, runner = paper_day([])
    with day._slowed("bigquery-emulator"):
        while len(runner.ran) < 4:
            pass
    assert runner.ran[:4] == ["local freeze bigquery-emulator", "local thaw bigquery-emulator"] * 2
    # The runbook's mitigation is a thaw: there must be something to fix.
    assert runner.ran[-1] == "local freeze bigquery-emulator"


def test_the_list_names_every_fault(tmp_path: Path) -> None:
    shown = CliRunner().invoke(gameday, [], env={"COLUMNS": "200"})
    assert all(fault.name in shown.output for fault in FAULTS)
    mixed = CliRunner().invoke(gameday, ["payment-stuck", "load-above-design", f"--state={tmp_path}"])
    assert "Run them one by one" in mixed.output
