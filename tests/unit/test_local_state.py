"""The state folder, and whether what it says still holds."""

from __future__ import annotations

import os
from pathlib import Path

from local.machine.processes import Process, group_members, started_at
from local.machine.state import READY, State, StatusFile, alive, read_json, write_json


def test_a_process_counts_as_alive_only_with_its_own_start_time() -> None:
    pid = os.getpid()
    assert alive({"pid": pid, "started_at": started_at(pid)}) == pid
    assert alive({"pid": pid, "started_at": 1.0}) is None
    assert alive({}) is None


def test_what_a_supervisor_says_in_its_status_file_is_read_by_others(tmp_path: Path) -> None:
    status = StatusFile(State(tmp_path))
    with status.step("emulators"):
        status.report_process("pipeline", {"pid": 1, "started_at": 2.0})
        status.report_process("pipeline", {"exit_code": 3})
    status.report(phase=READY)
    told = State(tmp_path).read()
    assert told["phase"] == READY
    assert told["processes"] == {"pipeline": {"pid": 1, "started_at": 2.0, "exit_code": 3}}
    assert [step["name"] for step in told["phases"]] == ["emulators"]
    assert State(tmp_path).supervisor() == os.getpid()


def test_what_a_killed_supervisor_left_running_is_ended(tmp_path: Path) -> None:
    state = State(tmp_path)
    with Process.start("left", ["sleep", "600"], log=tmp_path / "log") as left:
        record = {"pid": left.pid, "started_at": started_at(left.pid)}
        write_json(state.stack, {"processes": {"pipeline": record}})
        state.end_leftovers()
        assert not group_members(left.pid)


def test_a_stranger_with_a_recorded_process_id_is_left_alone(tmp_path: Path) -> None:
    state = State(tmp_path)
    with Process.start("stranger", ["sleep", "600"], log=tmp_path / "log") as stranger:
        write_json(state.stack, {"processes": {"pipeline": {"pid": stranger.pid, "started_at": 1.0}}})
        state.end_leftovers()
        assert stranger.alive


def test_clearing_keeps_the_logs_alone(tmp_path: Path) -> None:
    state = State(tmp_path)
    for file in (state.stack, state.ledger, state.bigquery / "main.db", state.logs / "pipeline.log"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    state.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_a_file_that_is_not_there_reads_as_nothing(tmp_path: Path) -> None:
    assert read_json(tmp_path / "stack.json") == {}
