"""`audit local …`: the whole service on this machine."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from contract.dialects import TYPED
from contract.options import LOG_LEVELS
from local.machine import installed
from local.machine.processes import Process, end_group, freeze_group
from local.machine.state import DEFAULT, FAILED, READY, State, alive
from support.cli.explained import Group

# Commands of other modules: looked up when they are called, so that `audit` starts fast.
_ELSEWHERE: Final = {"traffic": "local.traffic.command", "check": "local.check.command"}
_QUIET_SECONDS: Final = 30
_END_SECONDS: Final = 30


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            command: click.Command = getattr(importlib.import_module(_ELSEWHERE[cmd_name]), cmd_name)
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands)
def local() -> None:
    """The whole service on this machine: emulators, pipeline, traffic."""


_state = click.option(
    "--state",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT,
    help="Folder of the stack's state and logs.  [default: .audit]",
)


def _ports(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, what, port in (
        ("--console-port", "console", "8090, or any free"),
        ("--bigquery-storage-port", "BigQuery emulator's Storage API", "any free"),
        ("--bigquery-port", "BigQuery emulator's REST API", "any free"),
        ("--spanner-port", "Spanner emulator", "any free"),
    ):
        command = click.option(name, type=click.IntRange(1, 65535), help=f"Port of the {what}.  [default: {port}]")(
            command
        )
    return command


_log_level = click.option(
    "--log-level", type=click.Choice(LOG_LEVELS), help="Of the pipeline's log.  [default: the config's, INFO]"
)
_tables = click.option(
    "--tables",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="Description of the watched tables.  [default: the config's, tables.toml]",
)
_dialect = click.option(
    "--dialect",
    type=click.Choice(tuple(TYPED)),
    help="Of the payments' database, which is made with the changelog of it that the tables file names.  "
    "[default: the config's, googlesql]",
)
_attach = click.option(
    "--attach",
    metavar="PLACE",
    help="A database that others own, in an emulator of theirs: HOST:PORT/projects/P/instances/I/databases/D. With "
    "--tables, whose `ddl` describes it. Nothing of it is made or changed, and no traffic is written.",
)
_no_dead_letters = click.option(
    "--no-dead-letters", is_flag=True, help="Traffic without the changes that must become dead letters."
)


def _monitoring(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--design-tps",
            type=click.IntRange(1),
            help="Design load of the alerts, so that this machine can exceed it.  [default: the config's]",
        ),
        click.option(
            "--with-history", is_flag=True, help="With three healthy days behind it, filled in: for long windows."
        ),
        click.option("--monitoring", is_flag=True, help="Also the probe, and a Prometheus with the alerts."),
    ):
        command = option(command)
    return command


@local.command()
@click.option("--detach/--foreground", default=True, help="In the background (default), or until Ctrl-C.")
@click.option(
    "--tps", type=click.FloatRange(0, min_open=True), help="Payment traffic, commits a second.  [default: none]"
)
@click.option("--seed", type=int, help="Seed of the traffic.")
@_no_dead_letters
@_monitoring
@_log_level
@_tables
@_dialect
@_attach
@_ports
@_state
def up(folder: Path, detach: bool, **options: Any) -> None:
    """Start the stack. When it runs already, nothing happens."""
    if options["attach"] and options["tps"]:
        raise click.UsageError("--tps must be left out with --attach: the payments there are others'.")
    state = State(folder.resolve())
    if state.supervisor():
        if state.read().get("phase") != READY:
            _await_ready(state)
        click.echo("The local stack runs already. See `audit local status`.")
        return
    command = _supervisor(state, options)
    if not detach:
        os.chdir(installed.ROOT)
        os.execv(command[0], command)  # noqa: S606
    _start_in_background(state, command)
    _await_ready(state)
    click.echo("Ready. Look: `audit local status`. Make payments: `audit local traffic`. End: `audit local down`.")
    click.echo(_console(state))


@local.command()
@_state
def down(folder: Path) -> None:
    """End the stack and its data. Logs stay."""
    state = State(folder.resolve())
    running = state.supervisor()
    _end(state)
    click.echo("The local stack is down." if running else "The local stack was not running.")


@local.command()
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="Seconds of traffic; then check and end.")
@click.option("--tps", type=click.FloatRange(0, min_open=True), default=50, show_default=True, help="Commits a second.")
@click.option("--seed", type=int, help="Seed of the traffic.")
@_no_dead_letters
@_monitoring
@_log_level
@_tables
@_dialect
@_ports
@_state
def run(folder: Path, **options: Any) -> None:
    """Start everything, make payments, show what happens. With a duration: check it all at the end."""
    state = State(folder.resolve())
    if state.supervisor():
        raise click.ClickException("The local stack runs already in the background. Run `audit local down` first.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log = state.logs / "stack.log"
    code = 0
    with Process.start("local stack", _supervisor(state, options), log=log, cwd=installed.ROOT) as supervisor:
        try:
            _await_ready(state, supervisor)
            click.echo(_console(state))
            code = _follow(state, checked=options["duration"] is not None)
        except KeyboardInterrupt:
            click.echo("\nEnding …")
        finally:
            # A second Ctrl-C must not cut the ending short.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            supervisor.stop(grace=_END_SECONDS)
    if code == 0 or options["duration"] is None:
        _end(state)
    sys.exit(code)


def _console(state: State) -> str:
    return f"Console: {state.read()['processes']['console']['url']}"


def _follow(state: State, *, checked: bool) -> int:
    """Shows the stack until the traffic has ended and all of it has arrived. Then checks."""
    from local.stack.view import View

    view = View(state)
    view.show(_arrived(state, view.figures))
    stack = state.read()
    if stack["phase"] == FAILED:
        raise click.ClickException(stack["error"] or "The local stack failed.")
    if not checked:
        return 0
    audit = Path(sys.executable).with_name("audit")
    return subprocess.run([audit, "local", "check", f"--state={state.root}"], check=False).returncode


def _arrived(state: State, figures: Any) -> Callable[[], bool]:
    """Whether there is nothing more to wait for: the traffic ended, and everything arrived or nothing more does."""
    last = (0, time.monotonic())

    def done() -> bool:
        nonlocal last
        figures.update()
        if figures.arrived != last[0]:
            last = (figures.arrived, time.monotonic())
        stack = state.read()
        traffic = stack.get("processes", {}).get("traffic", {})
        if stack.get("phase") != READY or "exit_code" not in traffic:
            return stack.get("phase") == FAILED
        return figures.in_flight <= 0 or time.monotonic() - last[1] > _QUIET_SECONDS

    return done


@local.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_state
def status(folder: Path, as_json: bool) -> None:
    """What runs here: processes, ports, resources, how far the pipeline is. Exit code 1 when it is not up."""
    from local.stack.status import collect, show

    found = collect(State(folder.resolve()))
    if as_json:
        click.echo(json.dumps(found, indent=2, default=str))
    else:
        show(found)
    sys.exit(0 if found["phase"] == READY else 1)


@local.command()
@click.argument("name", default="stack")
@click.option("--follow", "-f", is_flag=True, help="Continue as the log grows.")
@click.option("--lines", "-n", default=40, show_default=True, help="How many of the last lines.")
@click.option("--about", default="", metavar="TEXT", help="Only lines with this in it, such as a PUID.")
@_state
def logs(folder: Path, name: str, follow: bool, lines: int, about: str) -> None:
    """Show a log: stack (what the supervisor did), pipeline, traffic, console, or an emulator's."""
    directory = State(folder.resolve()).logs
    log = directory / f"{name}.log"
    if not log.is_file():
        there = ", ".join(sorted(p.stem for p in directory.glob("*.log"))) or "none; run `audit local up` first"
        raise click.ClickException(f"There is no log {name!r}. Logs: {there}.")
    with log.open(errors="replace") as file:
        click.echo("".join(deque((line for line in file if about in line), lines)), nl=False)
        while follow:
            if line := file.readline():
                click.echo(line if about in line else "", nl=False)
            else:
                time.sleep(0.2)


# ---------------------------------------------------------------------- single processes

_HELD: Final = ("pipeline", "probe", "prometheus", "traffic")
_name = click.argument("name", metavar="PROCESS")


@local.command()
@click.argument("name", type=click.Choice(_HELD))
@_state
def stop(folder: Path, name: str) -> None:
    """End one process and leave it so: pipeline, probe, Prometheus or traffic."""
    state = _known(folder, name)
    state.hold(name)
    # The supervisor says so when all of its children have ended too.
    _until(lambda: state.read()["processes"][name]["pid"] is None, f"the {name} to end")
    click.echo(f"The {name} is stopped. Start it again: `audit local start {name}`.")


@local.command()
@click.argument("name", type=click.Choice(_HELD))
@_state
def start(folder: Path, name: str) -> None:
    """Start a process again that was stopped. One that runs continues."""
    state = _known(folder, name)
    state.release(name)
    _until(lambda: _alive(state, name), f"the {name} to start")
    click.echo(f"The {name} runs.")


@local.command()
@_name
@_state
def freeze(folder: Path, name: str) -> None:
    """Freeze a process, as a server that does not answer. `thaw` lets it continue."""
    freeze_group(_process(folder, name))
    click.echo(f"The {name} is frozen. Let it continue: `audit local thaw {name}`.")


@local.command()
@_name
@_state
def thaw(folder: Path, name: str) -> None:
    """Let a frozen process continue. One that is not frozen does not mind."""
    os.killpg(_process(folder, name), signal.SIGCONT)
    click.echo(f"The {name} continues.")


def _running(folder: Path) -> State:
    state = State(folder.resolve())
    if not state.supervisor():
        raise click.ClickException("The local stack does not run. Start it with `audit local up`.")
    return state


def _known(folder: Path, name: str) -> State:
    """A stack that has such a process, running or not."""
    state = _running(folder)
    if name not in state.read().get("processes", {}):
        raise click.ClickException(
            f"This stack was started without {name}. See the options of `audit local up --help`."
        )
    return state


def _alive(state: State, name: str) -> int | None:
    return alive(state.read().get("processes", {}).get(name) or {})


def _process(folder: Path, name: str) -> int:
    state = _running(folder)
    if pid := _alive(state, name):
        return pid
    there = ", ".join(sorted(n for n in state.read().get("processes", {}) if _alive(state, n)))
    raise click.ClickException(f"No {name!r} runs here. Choose one of: {there}.")


def _until(done: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise click.ClickException(f"Waited {_END_SECONDS} s for {what}. `audit local logs stack` says more.")
        time.sleep(0.1)


# ---------------------------------------------------------------------- the supervisor, seen from outside


def _supervisor(state: State, options: dict[str, Any]) -> list[str]:
    command = [sys.executable, "-m", "local.stack.supervisor", f"--state={state.root}"]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            command += [option] * value
        elif value is not None:
            command.append(f"{option}={value}")
    return command


def _start_in_background(state: State, command: list[str]) -> None:
    state.logs.mkdir(parents=True, exist_ok=True)
    with (state.logs / "stack.log").open("wb") as log:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=installed.ROOT, start_new_session=True
        )
    while not state.supervisor() and started.poll() is None:
        time.sleep(0.05)
    if not state.supervisor() and state.read().get("supervisor", {}).get("pid") != started.pid:
        raise click.ClickException(f"The local stack did not start. See {state.logs / 'stack.log'}.")


def _await_ready(state: State, supervisor: Process | None = None) -> None:
    """Prints the phases of the start as they end. Raises ClickException when the start fails."""
    shown = 0
    while True:
        stack = state.read()
        ours = supervisor is None or stack.get("supervisor", {}).get("pid") == supervisor.pid
        if ours:
            for phase in stack.get("phases", [])[shown:]:
                shown += 1
                click.echo(f"  {phase['name']:<12} {phase['seconds']:>5.1f} s")
            if stack.get("phase") == READY:
                click.echo(f"  ready after  {stack['ready_seconds']:>5.1f} s")
                return
            if stack.get("phase") == FAILED:
                raise click.ClickException(stack["error"] or "The local stack failed.")
        gone = not supervisor.alive if supervisor else not alive(stack.get("supervisor") or {})
        if gone and state.read().get("phase") not in {READY, FAILED}:
            raise click.ClickException(f"The local stack ended while it started. See {state.logs / 'stack.log'}.")
        time.sleep(0.1)


def _end(state: State) -> None:
    """Ends the supervisor, which ends the rest; what is left of either; and the data of emulators that are gone."""
    if running := state.supervisor():
        os.kill(running, signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while state.supervisor() and time.monotonic() < deadline:
            time.sleep(0.05)
        if state.supervisor():
            end_group(running, grace=0)
    state.end_leftovers()
    state.clear()
