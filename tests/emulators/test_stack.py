"""Supervision of the local stack: what dies, what is started again, what is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from local.machine.processes import Process, end_group, group_members
from local.machine.state import FAILED, READY, State
from local.stack.commands import local

STUBS = Path(__file__).with_name("stack_of_stubs.py")


def _await(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited for: {what}"
        time.sleep(0.05)


def _audit_local(*args: str) -> Result:
    return CliRunner().invoke(local, list(args))


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[tuple[State, Process]]:
    """A stack that is ready; whatever is left of it afterwards is ended."""
    state = State(folder / "state")
    supervisor = Process.start("stack", [sys.executable, STUBS, state.root], log=folder / "stack.log")
    try:
        supervisor.await_ready(lambda: state.read().get("phase") == READY, timeout=90)
        yield state, supervisor
    finally:
        supervisor.stop(grace=20)
        state.end_leftovers()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[State, Process]]:
    """One for the tests that leave it running: it costs as much as all that they do with it."""
    with _running(tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[tuple[State, Process]]:
    """One for a test that ends it."""
    with _running(tmp_path) as running:
        yield running


def _group(state: State, name: str) -> int:
    return state.pids()[name]


def _begun(state: State) -> int:
    """How many pipelines have begun."""
    return (state.logs / "pipeline.log").read_text().count("begun")


def test_a_killed_pipeline_is_started_again_without_its_old_children(shared: tuple[State, Process]) -> None:
    state, _ = shared
    old = _group(state, "pipeline")
    _await(lambda: len(group_members(old)) == 2, "the pipeline's child")
    begun, restarts = _begun(state), state.read()["restarts"]
    os.kill(old, signal.SIGKILL)
    _await(lambda: _group(state, "pipeline") != old, "a new pipeline")
    assert not group_members(old)
    assert state.read()["restarts"] == restarts + 1
    _await(lambda: _begun(state) == begun + 1, "the new pipeline's begin")


def test_a_pipeline_that_is_stopped_on_purpose_stays_so_until_it_is_started(shared: tuple[State, Process]) -> None:
    state, _ = shared
    at = f"--state={state.root}"
    old = _group(state, "pipeline")
    _await(lambda: len(group_members(old)) == 2, "the pipeline's child")
    begun, restarts = _begun(state), state.read()["restarts"]
    assert "is stopped" in _audit_local("stop", "pipeline", at).output
    assert not group_members(old)
    time.sleep(2)
    assert state.read()["processes"]["pipeline"]["pid"] is None
    assert state.read()["restarts"] == restarts
    assert _audit_local("start", "pipeline", at).output == "The pipeline runs.\n"
    refused = _audit_local("stop", "probe", at)
    assert refused.exit_code == 1
    assert "started without probe" in refused.output
    assert _group(state, "pipeline") != old
    _await(lambda: _begun(state) == begun + 1, "the new pipeline's begin")


def test_a_process_can_be_frozen_and_thawed(shared: tuple[State, Process]) -> None:
    state, _ = shared
    at = f"--state={state.root}"
    _await(lambda: len(group_members(_group(state, "pipeline"))) == 2, "the pipeline's child")
    members = group_members(_group(state, "pipeline"))
    assert "is frozen" in _audit_local("freeze", "pipeline", at).output
    assert {member.status() for member in members} == {psutil.STATUS_STOPPED}
    assert "continues" in _audit_local("thaw", "pipeline", at).output
    _await(lambda: psutil.STATUS_STOPPED not in {member.status() for member in members}, "all of it to continue")
    refused = _audit_local("freeze", "nobody", at)
    assert refused.exit_code == 1
    assert "Choose one of: bigquery-emulator, pipeline, spanner-emulator." in refused.output


def test_a_dead_emulator_ends_the_stack_with_the_way_out(stack: tuple[State, Process]) -> None:
    state, supervisor = stack
    groups = list(state.pids().values())
    os.kill(_group(state, "spanner-emulator"), signal.SIGKILL)
    assert supervisor.popen.wait(60) == 1
    told = state.read()
    assert told["phase"] == FAILED
    error = told["error"] or ""
    assert "spanner-emulator ended by itself" in error
    assert "audit local down" in error
    assert not any(group_members(group) for group in groups)
    shown = _audit_local("status", f"--state={state.root}")
    assert shown.exit_code == 1
    assert "spanner-emulator ended by itself" in shown.output.replace("\n", "")


def test_a_second_stack_with_the_same_state_is_refused(shared: tuple[State, Process]) -> None:
    state, supervisor = shared
    second = subprocess.run(
        [sys.executable, "-m", "local.stack.supervisor", "--state", state.root],
        check=False,
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert "runs already" in second.stderr
    assert supervisor.alive
    assert state.read()["phase"] == READY


def test_up_twice_is_harmless_status_tells_and_down_ends_all(stack: tuple[State, Process]) -> None:
    state, supervisor = stack
    at = f"--state={state.root}"
    groups = list(state.pids().values())
    assert "runs already" in _audit_local("up", at).output
    refused = _audit_local("run", at)
    assert refused.exit_code == 1
    assert "audit local down" in refused.output
    status = _audit_local("status", at)
    assert status.exit_code == 0
    assert "resume position" in status.output
    _await(lambda: "merge" in state.read().get("queries", {}), "a scheduled query")
    assert "seconds" in state.read()["queries"]["merge"]
    assert "is down" in _audit_local("down", at).output
    assert supervisor.popen.wait(30) == 0
    assert not any(group_members(group) for group in groups)
    assert {path.name for path in state.root.iterdir()} == {"logs", "supervisor.lock"}
    assert "was not running" in _audit_local("down", at).output


def test_a_killed_supervisor_leaves_nothing_running(stack: tuple[State, Process]) -> None:
    state, supervisor = stack
    groups = list(state.pids().values())
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.popen.wait()
    try:
        _await(lambda: not any(group_members(group) for group in groups), "the end of all processes")
    finally:
        for group in groups:
            end_group(group, grace=0)
    assert _audit_local("status", f"--state={state.root}").exit_code == 1


def test_a_taken_port_stops_the_start_and_names_the_option(tmp_path: Path, spanner_emulator: str) -> None:
    at = f"--state={tmp_path / 'state'}"
    port = spanner_emulator.rpartition(":")[2]
    failed = _audit_local("up", at, f"--spanner-port={port}")
    assert failed.exit_code == 1
    assert f"Port {port} is taken" in failed.output
    assert "--spanner-port" in failed.output


def test_a_log_is_searched_for_a_text_from_its_begin(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "pipeline.log").write_text("of p1\nof p2\nof p1 too\n" + 100 * "of p3\n")
    shown = _audit_local("logs", "pipeline", "--about", "p1", f"--state={tmp_path}")
    assert shown.output == "of p1\nof p1 too\n"


def test_a_log_that_is_not_there_is_an_error_that_lists_the_others(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "pipeline.log").write_text("one\ntwo\n")
    assert _audit_local("logs", "pipeline", "-n", "1", f"--state={tmp_path}").output == "two\n"
    missing = _audit_local("logs", "nope", f"--state={tmp_path}")
    assert missing.exit_code == 1
    assert "Logs: pipeline." in missing.output


def test_every_command_of_the_local_stack_has_help() -> None:
    with local.make_context("local", ["up"], resilient_parsing=True) as context:
        commands = {name: local.get_command(context, name) for name in local.list_commands(context)}
    others = {"stop", "start", "freeze", "thaw"}
    assert set(commands) == {"up", "down", "status", "run", "logs", "traffic", "check"} | others
    assert all(command and command.get_short_help_str() for command in commands.values())
