"""A process that we start, watch and end, together with every child it has.

Each runs in its own session, so one signal reaches all of its process group, and Ctrl-C reaches only us. When the
starting process dies without a signal to handle (SIGKILL), a guard ends what it left behind: emulators, pipeline,
Prism.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import psutil

from contract.errors import AuditError

# Reads "+ GROUP" and "- GROUP" lines; at the end of its input, which is the end of the process that holds the pipe, it
# kills the groups that are left. A shell, because it starts in a millisecond and works wherever `kill` does.
_GUARD: Final = """
groups=" "
while read -r sign group; do
  case $sign in
    +) groups="$groups$group " ;;
    -) groups="${groups%% $group *} ${groups#* $group }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"""
_TAIL_LINES: Final = 8


class ProcessError(AuditError):
    """A process did not start, or ended by itself. The message says which, why, and where its log is."""


class _Guard:
    """Gives the guard the list of our process groups. It is started with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: IO[bytes] | None = None
        self._owner = 0

    def add(self, group: int) -> None:
        self._note(f"+ {group}\n")

    def remove(self, group: int) -> None:
        self._note(f"- {group}\n")

    def _note(self, line: str) -> None:
        with self._lock:
            if self._pipe is None or self._owner != os.getpid():
                process = subprocess.Popen(["sh", "-c", _GUARD], stdin=subprocess.PIPE, start_new_session=True)
                self._pipe, self._owner = process.stdin, os.getpid()
            assert self._pipe
            with contextlib.suppress(BrokenPipeError):
                self._pipe.write(line.encode())
                self._pipe.flush()


_guard = _Guard()


@dataclass(kw_only=True)
class Process:
    """A running process with its log. Make one with `Process.start`; `stop` it, or use it in a `with`."""

    name: str
    log: Path
    popen: subprocess.Popen[bytes] = field(repr=False)
    log_start: int = 0

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        append: bool = False,
    ) -> Process:
        """Starts `command` with its output in `log`. `env` is added to ours. Raises ProcessError when it cannot run."""
        # An image may set it: then each start compiles Beam and Google's clients, 17 seconds to the first row, not 4.
        ours = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab" if append else "wb") as out:
            start = out.tell()
            try:
                popen = subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=ours | dict(env or {}),
                    cwd=cwd,
                    start_new_session=True,
                )
            except OSError as error:
                raise ProcessError(f"{name} cannot be started: {error.strerror}: {command[0]}.") from error
        _guard.add(popen.pid)
        return cls(name=name, log=log, popen=popen, log_start=start)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id, and the id of its process group."""
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        """What it has written since it was started."""
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def await_ready(self, ready: Callable[[], bool], *, timeout: float) -> None:
        """Waits until `ready()`. Raises ProcessError, with the end of its log, when it ends or takes longer."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.alive:
                raise ProcessError(self._failure(f"ended with exit code {self.popen.returncode} before it was ready"))
            if time.monotonic() > deadline:
                raise ProcessError(self._failure(f"was not ready within {timeout:.0f} s"))
            time.sleep(0.02)

    def _failure(self, what: str) -> str:
        tail = [line for line in self.output().splitlines() if line.strip()][-_TAIL_LINES:]
        return "\n".join([f"{self.name} {what}. Its log is {self.log}; the end of it:", *(f"  {t}" for t in tail)])

    def freeze(self) -> None:
        """Freezes the whole group: what a server that does not answer looks like."""
        freeze_group(self.pid)

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Ends it and its children at once, as a crash of the machine would."""
        self.stop(grace=0)

    def stop(self, *, grace: float = 5) -> None:
        """Asks it to end, waits up to `grace` seconds, then kills what is left of its group."""
        end_group(self.pid, grace=grace, reap=self.popen)
        _guard.remove(self.pid)


def freeze_group(group: int) -> None:
    """Freezes every process of a group, and waits until none of them moves.

    The signal alone only asks: on a busy machine a server still answers for a moment.
    """
    os.killpg(group, signal.SIGSTOP)
    while not all(map(_stands, group_members(group))):
        time.sleep(0.01)


def _stands(process: psutil.Process) -> bool:
    """Stopped; or in the kernel, from where it cannot come back: a shell that waits for a child that is stopped before
    its exec."""
    try:
        return process.status() in {psutil.STATUS_STOPPED, psutil.STATUS_DISK_SLEEP}
    except psutil.NoSuchProcess:
        return True


def end_group(group: int, *, grace: float = 5, reap: subprocess.Popen[bytes] | None = None) -> None:
    """Ends a process group: SIGTERM to its leader, `grace` seconds for both, SIGKILL. A group that is gone is fine.

    The leader is asked alone, since it has an order in which to end its children: a pipeline whose Prism goes first
    takes it for a failure.
    """
    if grace:
        with contextlib.suppress(ProcessLookupError):
            os.kill(group, signal.SIGTERM)
        _signal(group, signal.SIGCONT)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and _runs(group, reap):
            time.sleep(0.02)
    _signal(group, signal.SIGKILL)
    if reap:
        reap.wait()
    while group_members(group):
        time.sleep(0.01)


def _runs(leader: int, reap: subprocess.Popen[bytes] | None) -> bool:
    return reap.poll() is None if reap else started_at(leader) is not None


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def group_members(group: int) -> list[psutil.Process]:
    """The living processes of a group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def started_at(pid: int) -> float | None:
    """When process `pid` was started, or None when there is none. With the pid it identifies a process for all time."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
