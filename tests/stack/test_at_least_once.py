"""The whole service with `writeMode=at-least-once`: killed twice, it loses nothing, and doubles only what it says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import timestamps
from local.machine.processes import Process
from local.machine.state import READY, State
from tests.stack.commands import AUDIT

_RESUMES = re.compile(r"generation (\d+), reads from (\S+)\.")


def await_(condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited for: {what}"
        time.sleep(0.2)
    return found


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path / "state")
    command = [sys.executable, "-m", "bench.stack", "--state", str(made.root), "--set", "writeMode=at-least-once"]
    with Process.start("stack", command, log=tmp_path / "stack.log", cwd=Path.cwd()) as stack:
        await_(lambda: stack.alive and made.read().get("phase") == READY, "the stack", 600)
        yield made
        stack.stop(grace=20)


def resumed(state: State) -> list[tuple[int, str]]:
    """The generations so far, and where each reads from."""
    log = (state.logs / "pipeline.log").read_text()
    return [(int(number), position) for number, position in _RESUMES.findall(log)]


def kill(state: State, killed: int) -> str:
    """Kills the job, and returns when, once the next one has taken over."""
    os.killpg(state.pids()["pipeline"], signal.SIGKILL)
    at = timestamps.now()
    await_(lambda: len(resumed(state)) == killed + 1, "the next job")
    return at


def test_at_least_once_loses_nothing_and_doubles_only_what_was_committed_since_the_resume_position(
    state: State,
) -> None:
    traffic = subprocess.Popen(
        [AUDIT, "local", "traffic", "--state", state.root, "--tps=15", "--duration=30", "--seed=12"],
        stdout=subprocess.DEVNULL,
    )
    kills = []
    for killed in (1, 2):
        time.sleep(7)
        kills.append(kill(state, killed))
    assert traffic.wait(120) == 0
    done = subprocess.run(
        [AUDIT, "local", "check", "--state", state.root, "--wait", "60", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    arrivals = report["arrivals"]
    assert report["committed"] > 200
    assert arrivals["missing"] == arrivals["extra"] == arrivals["different"] == []
    assert report["unmasked"] == report["wrong_state"] == []

    generations = resumed(state)
    assert [number for number, _ in generations] == [1, 2, 3]
    # Each job began where the one before it had come to, not where it was launched.
    positions = [position for _, position in generations]
    assert positions == sorted(positions)
    assert all(position < kill for position, kill in zip(positions[1:], kills, strict=True))
    for _, _, committed, _ in arrivals["doubled"]:
        at = timestamps.normalise(committed)
        assert any(position <= at <= kill for position, kill in zip(positions[1:], kills, strict=True))
    log = (state.logs / "pipeline.log").read_text()
    assert "rows between its resume position and the kill can be in BigQuery twice" in log
    assert "TypeError" not in log and "Fenced" not in log
