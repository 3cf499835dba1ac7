"""A game day: a real fault, the alert that fires, the runbook's own mitigation, and nothing lost in the end.

The stack is a real one with monitoring, traffic and a healthy past: as with one that has run for a while, a short
outage must not look like three bad days. A game day passes when every alert that must fire has fired and no
other, all of them are resolved after the mitigation, and `audit local check` finds nothing missing and nothing doubled.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from contract.changes import DeadLetter
from contract.errors import AuditError
from local.gameday.faults import LETTER, Command, Commits, Fault
from local.gameday.runner import Runner, StackRunner
from local.machine.state import State
from local.monitoring import launch
from local.monitoring.launch import Firing
from local.traffic.simulator import PAYMENT_TABLE, Mutation

# As in an hour of normal traffic: what the emulator costs grows with its stream.
TPS: Final = 4
_LOOK_SECONDS: Final = 3.0
# How often a waiting person is shown for what.
_SAY_SECONDS: Final = 300
_QUIET_MINUTES: Final = 15
_ARRIVE_SECONDS: Final = 120
_BURST_TPS: Final = 20
_BURST_SECONDS: Final = 30
# A slow process: what waits for it waits longer than the SLO's limit, and gets an answer in the end.
_FROZEN_SECONDS: Final = 20
_THAWED_SECONDS: Final = 8


class Alerts(Protocol):
    """The alerts of one stack."""

    def firing(self) -> list[Firing]:
        """Those that fire now."""

    def watched_since(self, moment: datetime) -> bool:
        """Whether every rule was evaluated after `moment`."""


class StackAlerts:
    """As the Prometheus of a state folder reports them."""

    def __init__(self, state: State) -> None:
        self._state = state

    def firing(self) -> list[Firing]:
        return launch.firing(self._state)

    def watched_since(self, moment: datetime) -> bool:
        return launch.watched_since(self._state, moment)


class Clock:
    """Time as it passes."""

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> None:
        """Sleeps until the event at most."""
        event.wait(seconds)


class GameDayError(AuditError):
    """The game day did not go as it must; the message says what was expected and what happened."""


@dataclass
class Result:
    """What was measured, in seconds: from the fault to each alert, and from the mitigation to the last one's end."""

    fault: str
    leads: str
    fired: dict[str, int] = field(default_factory=dict)
    resolved: int | None = None
    check: str = ""


class GameDay:
    """One game day on a stack that runs."""

    def __init__(
        self, say: Callable[[str], None], *, runner: Runner, alerts: Alerts, clock: Clock | None = None
    ) -> None:
        self._say = say
        self._runner, self._alerts, self._clock = runner, alerts, clock or Clock()
        self._made: list[Mutation] = []
        self._letter = ""

    def run(self, fault: Fault) -> Result:
        """Injects, waits, mitigates, waits, checks. Raises GameDayError."""
        result = Result(fault=fault.name, leads=fault.leads)
        self._say(f"\n{fault.name}: {fault.title}")
        self._await(self._quiet(), _QUIET_MINUTES, "no alert to fire before the fault")
        began = self._clock.monotonic()
        try:
            self._do(fault.inject)
            if fault.breaks:
                self._say(f"  {fault.breaks(self._runner)}")
            if fault.commits:
                self._commit(fault.commits())
            if fault.letter:
                self._park(fault.letter())
            with self._slowed(fault.slow):
                self._await_alerts(fault, result, began)
        except BaseException:
            # The stack can be somebody's own: a day that fails, or is ended, leaves no fault in it.
            self._say("  the day ends here; now to fix what it broke")
            with suppress(GameDayError):
                self._fix(fault)
            raise
        self._say(f"open {fault.runbook}")
        mitigated = self._clock.monotonic()
        self._fix(fault)
        self._await(lambda: self._over(fault, result, began), fault.resolves, "every alert to resolve")
        result.resolved = round(self._clock.monotonic() - mitigated)
        self._say(f"  {result.resolved:>5} s after the mitigation: all resolved")
        result.check = self._check()
        return result

    def normal(self, minutes: float) -> Result:
        """Traffic as on any day: bursts, a pipeline that dies, a new column. Raises GameDayError for a page."""
        result = Result(fault="normal", leads="")
        self._say(f"\n{minutes:g} minutes of normal traffic")
        self._await(self._quiet(), _QUIET_MINUTES, "no alert to fire before it")
        began = self._clock.monotonic()
        # When, as a share of the time, and what.
        ahead: list[tuple[float, Callable[[], object]]] = [
            (0.10, self._burst),
            (0.25, self._kill_pipeline),
            (0.40, lambda: self._add_column("NormalDay")),
            (0.50, self._burst),
            (0.65, self._kill_pipeline),
            (0.80, self._burst),
        ]
        while (passed := self._clock.monotonic() - began) < 60 * minutes:
            if ahead and passed >= 60 * minutes * ahead[0][0]:
                ahead.pop(0)[1]()
            for alert in self._alerts.firing():
                if alert.name not in result.fired:
                    result.fired[alert.name] = round(passed)
                    self._say(f"  {passed:>5.0f} s  {alert.severity:<6} {alert.name}: {alert.title}")
                if alert.severity == "page":
                    raise GameDayError(f"{alert.name} paged, and nothing was wrong.")
            self._clock.sleep(_LOOK_SECONDS)
        result.check = self._check()
        return result

    def _fix(self, fault: Fault) -> None:
        """Does what the runbook says, and what the payments' service does."""
        self._do(fault.mitigate)
        if fault.mends:
            self._say(f"  {fault.mends(self._runner)}")
        if fault.fix:
            # A copy: what is committed joins the list.
            self._commit(fault.fix(list(self._made)))

    def _burst(self) -> None:
        self._say(f"  a burst: {_BURST_TPS} a second more, for {_BURST_SECONDS} s")
        self._runner.burst(_BURST_TPS, _BURST_SECONDS)

    def _add_column(self, name: str) -> None:
        self._say(f"  a service adds the column {name}")
        self._runner.change_schema([f"ALTER TABLE {PAYMENT_TABLE} ADD COLUMN {name} STRING(20)"])

    def _kill_pipeline(self) -> None:
        self._say("  the pipeline is killed: its stack starts it again")
        self._runner.kill("pipeline")

    def _quiet(self) -> Callable[[], bool]:
        """Whether every rule was looked at from now on, and none fires."""
        now = datetime.now(UTC)
        return lambda: self._alerts.watched_since(now) and not self._alerts.firing()

    def _await_alerts(self, fault: Fault, result: Result, began: float) -> None:
        def said() -> bool:
            self._note(fault, result, began)
            return fault.fires <= result.fired.keys()

        def missing() -> str:
            return f"{', '.join(sorted(fault.fires - result.fired.keys()))} to fire"

        self._await(said, fault.minutes, missing)
        first = min(result.fired, key=lambda name: (result.fired[name], name != fault.leads))
        if first != fault.leads:
            raise GameDayError(f"{fault.name}: {first} fired before {fault.leads}, which should lead.")

    def _note(self, fault: Fault, result: Result, began: float) -> None:
        """Notes what fires for the first time. Raises GameDayError for an alert that has no business here."""
        seconds = round(self._clock.monotonic() - began)
        for alert in self._alerts.firing():
            if alert.name in result.fired:
                continue
            self._say(f"  {seconds:>5} s  {alert.severity:<6} {alert.name}: {alert.title}  → {alert.runbook}")
            if alert.name not in fault.fires | fault.may:
                raise GameDayError(f"{fault.name}: {alert.name} fired, which has nothing to do with it.")
            result.fired[alert.name] = seconds

    def _over(self, fault: Fault, result: Result, began: float) -> bool:
        self._note(fault, result, began)
        return not self._alerts.firing()

    def _await(self, done: Callable[[], bool], minutes: float, what: str | Callable[[], str]) -> None:
        began = said = self._clock.monotonic()
        while not done():
            now = self._clock.monotonic()
            left = began + 60 * minutes - now
            if left < 0 or now > said + _SAY_SECONDS:
                awaited = what if isinstance(what, str) else what()
                there = ", ".join(alert.name for alert in self._alerts.firing()) or "none"
                if left < 0:
                    raise GameDayError(f"waited {minutes} minutes for {awaited}. Firing now: {there}.")
                said = now
                self._say(f"  waiting for {awaited}, at most {left:.0f} s more. Firing now: {there}.")
            self._clock.sleep(_LOOK_SECONDS)

    def _do(self, commands: Iterable[Command]) -> None:
        for printed in commands:
            command = [self._letter if word == LETTER else word for word in printed]
            self._say(f"$ ./audit {' '.join(command)}")
            done = self._runner.audit(*command)
            self._say(f"  {(done.stdout or done.stderr).strip()}")
            if done.returncode:
                raise GameDayError(f"`audit {' '.join(command)}` ended with exit code {done.returncode}.")

    @contextmanager
    def _slowed(self, process: str) -> Iterator[None]:
        """Meanwhile the process, if any, is frozen most of the time, and in the end: the runbook thaws it."""
        if not process:
            yield
            return
        over = threading.Event()

        def stutter() -> None:
            while not over.is_set():
                self._runner.audit("local", "freeze", process)
                self._clock.wait(over, _FROZEN_SECONDS)
                self._runner.audit("local", "thaw", process)
                self._clock.wait(over, _THAWED_SECONDS)
            self._runner.audit("local", "freeze", process)

        self._say(f"  {process} is frozen for {_FROZEN_SECONDS} of every {_FROZEN_SECONDS + _THAWED_SECONDS} s")
        thread = threading.Thread(target=stutter, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _park(self, letter: DeadLetter) -> None:
        self._runner.park(letter)
        self._letter = letter.id
        self._say(f"  dead letter {letter.id}")

    def _commit(self, commits: Commits) -> None:
        made = self._runner.commit(commits)
        self._made += made
        self._say(f"  {len(made)} change{'s' * (len(made) != 1)} committed to Spanner")

    def _check(self) -> str:
        done = self._runner.audit("local", "check", f"--wait={_ARRIVE_SECONDS}", "--json")
        self._say(f"$ ./audit local check --wait {_ARRIVE_SECONDS}")
        if done.returncode not in (0, 1) or not done.stdout:
            raise GameDayError(f"`audit local check` did not answer: {done.stderr.strip()}")
        report = json.loads(done.stdout)
        missing, doubled = len(report["arrivals"]["missing"]), len(report["arrivals"]["doubled"])
        line = f"{report['committed']} changes committed, {missing} missing, {doubled} doubled"
        self._say(f"  {line}")
        if missing or doubled:
            raise GameDayError(f"after the game day: {line}.")
        return line


@contextmanager
def stack(state: State, say: Callable[[str], None], options: tuple[str, ...], runner: Runner) -> Iterator[None]:
    """A stack with monitoring and traffic: the one that runs, or one for the game day alone."""
    if state.supervisor():
        if options or "prometheus" not in state.read().get("processes", {}):
            what = " ".join(("--monitoring", *options))
            raise GameDayError(f"the local stack was started without {what}. Run `audit local down` first.")
        yield
        return
    command = ["local", "up", "--monitoring", "--with-history", "--no-dead-letters", f"--tps={TPS}", *options]
    say(f"$ ./audit {' '.join(command)}")
    # What is ended while it starts is taken down as well.
    try:
        done = runner.audit(*command)
        if done.returncode:
            raise GameDayError(f"the local stack did not start: {done.stdout}{done.stderr}")
        yield
    finally:
        runner.audit("local", "down")


def on_stack(state: State, say: Callable[[str], None]) -> GameDay:
    """A game day on the stack of a state folder."""
    return GameDay(say, runner=StackRunner(state), alerts=StackAlerts(state))
