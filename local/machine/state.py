"""The state folder of the local stack: what is in it, and how it is written.

`stack.json` is what the supervisor says of itself; everybody else only reads it. Writes are atomic, so a
reader sees the old file or the new one.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack, cast

from local.machine import installed
from local.machine.processes import end_group, group_members, started_at

log = logging.getLogger(__name__)

DEFAULT: Final = installed.ROOT / ".audit"

STARTING: Final = "starting"
READY: Final = "ready"
FAILED: Final = "failed"
STOPPING: Final = "stopping"
STOPPED: Final = "stopped"


class ProcessRecord(TypedDict, total=False):
    """A process of the stack. `pid` None: it is stopped on request. The addresses are those that it has."""

    pid: int | None
    started_at: float | None
    log: str
    exit_code: int | None
    endpoint: str
    rest: str
    storage: str
    url: str


class StepRecord(TypedDict):
    """A part of the start that is done."""

    name: str
    seconds: float


class ResourceRecord(TypedDict):
    """A resource of the program, and what became of it here."""

    type: str
    name: str
    outcome: str


class QueryRecord(TypedDict, total=False):
    """The last run of a scheduled query: how long it took, or why it failed."""

    at: str
    seconds: float
    error: str


class StackRecord(TypedDict, total=False):
    """What stack.json has; nothing of it where no stack was ever started."""

    supervisor: ProcessRecord
    phase: str
    phases: list[StepRecord]
    processes: dict[str, ProcessRecord]
    resources: list[ResourceRecord]
    job_parameters: dict[str, str]
    restarts: int
    ready_seconds: float
    queries: dict[str, QueryRecord]
    error: str | None


@dataclass(frozen=True)
class State:
    """A state folder."""

    root: Path

    @property
    def stack(self) -> Path:
        return self.root / "stack.json"

    @property
    def connection(self) -> Path:
        """The outputs of the stack, as `pulumi stack output --json` prints them."""
        return self.root / "connection.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def bigquery(self) -> Path:
        return self.root / "bigquery"

    @property
    def dead_letters(self) -> Path:
        return self.root / "dead-letters"

    @property
    def ledger(self) -> Path:
        """What the traffic committed."""
        return self.root / "ledger.jsonl"

    @property
    def arrivals(self) -> Path:
        """What the BigQuery emulator made visible (local/emulators/bigquery_launcher.py)."""
        return self.root / "arrivals.jsonl"

    @property
    def prometheus(self) -> Path:
        """Config, rules and data of the local Prometheus."""
        return self.root / "prometheus"

    def hold(self, name: str) -> None:
        """Asks the supervisor to end a process and to leave it so."""
        self._held.mkdir(parents=True, exist_ok=True)
        (self._held / name).touch()

    def release(self, name: str) -> None:
        """Takes `hold` back."""
        (self._held / name).unlink(missing_ok=True)

    def held(self) -> frozenset[str]:
        """The processes that are to stay ended."""
        return frozenset(path.name for path in self._held.iterdir()) if self._held.is_dir() else frozenset()

    @property
    def _held(self) -> Path:
        return self.root / "held"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.root / "supervisor.lock"

    def read(self) -> StackRecord:
        """stack.json, or {} when there is none."""
        return cast(StackRecord, read_json(self.stack))

    def pids(self) -> dict[str, int]:
        """The process id of each process that was started and is not stopped on request."""
        return {name: pid for name, record in self.read().get("processes", {}).items() if (pid := record.get("pid"))}

    def supervisor(self) -> int | None:
        """The process id of the living supervisor, or None."""
        return alive(self.read().get("supervisor") or {})

    def end_leftovers(self) -> None:
        """Ends what an earlier supervisor started and did not end."""
        processes = self.read().get("processes", {})
        for name, pid in self.pids().items():
            # A group can outlive its leader; its id is not given to another process as long as it has a member.
            if alive(processes[name]) or (started_at(pid) is None and group_members(pid)):
                end_group(pid, grace=0)

    def clear(self, *, logs: bool = False) -> None:
        """Removes what belongs to emulators that are gone. Logs stay for reading, unless asked."""
        for path in self.root.iterdir() if self.root.exists() else ():
            if path == self.lock or (path == self.logs and not logs):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


class StatusFile:
    """What a supervisor reports about itself in stack.json. Every change is written at once, from any thread."""

    def __init__(self, state: State) -> None:
        self._path = state.stack
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._reported: StackRecord = {
            "supervisor": {"pid": os.getpid(), "started_at": started_at(os.getpid())},
            "phase": STARTING,
            "phases": [],
            "processes": {},
            "resources": [],
            "restarts": 0,
        }

    @property
    def seconds(self) -> float:
        """Since the supervisor was started."""
        return round(time.monotonic() - self._began, 1)

    def report(self, **changes: Unpack[StackRecord]) -> None:
        with self._lock:
            self._reported |= changes
            write_json(self._path, self._reported)

    def report_process(self, name: str, record: ProcessRecord) -> None:
        with self._lock:
            processes = self._reported["processes"]
            known: ProcessRecord = processes.get(name, {})
            self._reported["processes"] = {**processes, name: {**known, **record}}
            write_json(self._path, self._reported)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A part of the start, reported with its seconds when it is done."""
        began = time.monotonic()
        yield
        seconds = round(time.monotonic() - began, 1)
        log.info("%s: %.1f s", name, seconds)
        self.report(phases=[*self._reported["phases"], {"name": name, "seconds": seconds}])


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def alive(record: ProcessRecord) -> int | None:
    """The pid in a record {"pid", "started_at"} if that very process still runs."""
    pid = record.get("pid")
    return int(pid) if pid and started_at(pid) == record["started_at"] else None


def read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces `path` by `value`, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=2, default=str) + "\n")
    part.replace(path)
