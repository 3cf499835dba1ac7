"""Supervised processes: real ones, and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.machine.processes import Process, ProcessError, end_group, group_members, started_at

# A process with a child, as the pipeline has Prism.
FAMILY = ["sh", "-c", "sleep 600 & echo up; sleep 601"]


def _family(log: Path) -> Process:
    process = Process.start("family", FAMILY, log=log)
    process.await_ready(lambda: "up" in process.output(), timeout=10)
    return process


def _gone(group: int) -> bool:
    deadline = time.monotonic() + 10
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not group_members(group)


def test_its_output_is_in_its_log(tmp_path: Path) -> None:
    with Process.start("echo", ["sh", "-c", "echo out; echo err >&2"], log=tmp_path / "logs" / "echo.log") as process:
        process.popen.wait()
    assert process.output() == "out\nerr\n"


def test_a_python_that_it_starts_keeps_what_it_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("OURS", "ours")
    code = "import os, sys; print(sys.dont_write_bytecode, os.environ['OURS'], os.environ['MORE'])"
    with Process.start("python", [sys.executable, "-c", code], log=tmp_path / "log", env={"MORE": "more"}) as process:
        process.popen.wait()
    assert process.output() == "False ours more\n"


def test_a_restart_adds_to_the_log_and_reads_only_its_own_output(tmp_path: Path) -> None:
    for word in ("first", "second"):
        with Process.start("echo", ["echo", word], log=tmp_path / "log", append=True) as process:
            process.popen.wait()
    assert process.output() == "second\n"
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


def test_stopping_ends_its_children_too(tmp_path: Path) -> None:
    process = _family(tmp_path / "log")
    assert len(group_members(process.pid)) == 3
    process.stop()
    assert not group_members(process.pid)


def test_killing_a_dead_process_ends_the_children_that_it_left(tmp_path: Path) -> None:
    process = _family(tmp_path / "log")
    os.kill(process.pid, signal.SIGKILL)
    process.popen.wait()
    assert not process.alive
    assert group_members(process.pid)
    process.kill()
    assert not group_members(process.pid)


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    process = Process.start(
        "deaf", ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"], log=tmp_path / "log"
    )
    process.await_ready(lambda: "up" in process.output(), timeout=10)
    process.stop(grace=0.3)
    assert process.popen.returncode == -signal.SIGKILL


@pytest.mark.parametrize("frozen", [False, True])
def test_a_process_with_grace_ends_in_its_own_way_even_when_it_was_frozen(tmp_path: Path, frozen: bool) -> None:
    program = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    process = Process.start("polite", ["sh", "-c", program], log=tmp_path / "log")
    process.await_ready(lambda: "up" in process.output(), timeout=10)
    if frozen:
        process.freeze()
    process.stop()
    assert process.popen.returncode == 3
    assert "bye" in process.output()


@pytest.mark.timeout(60)
def test_a_shell_that_is_frozen_while_it_starts_a_child_is_not_waited_for(tmp_path: Path) -> None:
    # It waits in the kernel until its child has begun another program, and the child is stopped.
    with Process.start("busy", ["sh", "-c", "while :; do /bin/true; done"], log=tmp_path / "log") as process:
        for each in range(200):
            time.sleep(each * 0.00002)
            process.freeze()
            process.thaw()


def test_a_killed_parent_leaves_nothing_behind(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from local.machine.processes import Process
kept = Process.start("kept", {FAMILY!r}, log=Path({str(tmp_path / "kept")!r}))
ended = Process.start("ended", {FAMILY!r}, log=Path({str(tmp_path / "ended")!r}))
ended.stop()
print(kept.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    group = int(parent.stdout.readline())
    assert group_members(group)
    parent.kill()
    parent.wait()
    try:
        assert _gone(group)
    finally:
        end_group(group, grace=0)


def test_waiting_for_a_process_that_ends_says_how_it_ended_and_shows_its_log(tmp_path: Path) -> None:
    with (
        Process.start("server", ["sh", "-c", "echo no such disk; exit 4"], log=tmp_path / "log") as process,
        pytest.raises(ProcessError) as error,
    ):
        process.await_ready(lambda: False, timeout=10)
    assert "server ended with exit code 4 before it was ready" in str(error.value)
    assert "no such disk" in str(error.value)
    assert str(tmp_path / "log") in str(error.value)


def test_waiting_for_a_process_that_hangs_ends(tmp_path: Path) -> None:
    with (
        Process.start("server", ["sleep", "600"], log=tmp_path / "log") as process,
        pytest.raises(ProcessError) as error,
    ):
        process.await_ready(lambda: False, timeout=0.1)
    assert "server was not ready within" in str(error.value)


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"server cannot be started: No such file or directory: /nowhere/server"):
        Process.start("server", ["/nowhere/server"], log=tmp_path / "log")


def test_a_process_that_is_gone_has_no_start_time(tmp_path: Path) -> None:
    with Process.start("sleep", ["sleep", "600"], log=tmp_path / "log") as process:
        assert started_at(process.pid)
    assert started_at(process.pid) is None
