"""The streaming job as a process where Dataflow would run it: what a launch's parameters say, on Prism.

dataflow = Dataflow(Processes(folder))
with serving(dataflow) as url: …                 (local/emulators/dataflow.py)
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.machine import installed
from local.machine.processes import Process


@dataclass
class Processes:
    """A runner of jobs that are processes of this machine; their logs are in `folder`."""

    folder: Path
    running: dict[str, Process] = field(default_factory=dict)

    def start(self, job_id: str, name: str, parameters: Mapping[str, str]) -> None:
        options = [f"--{option}={value}" for option, value in parameters.items()]
        prism = ["--runner=PrismRunner", f"--prism_location={installed.prism()}", f"--job_name={name}"]
        command = [sys.executable, "-m", "pipeline.jobs.stream", *options, *prism]
        self.running[job_id] = Process.start(job_id, command, log=self.folder / f"{job_id}.log", cwd=installed.ROOT)

    def state(self, job_id: str) -> str:
        return "RUNNING" if self.running[job_id].alive else "FAILED"

    def stop(self, job_id: str, *, drain: bool) -> None:
        self.running[job_id].stop(grace=4)

    def kill(self, job_id: str) -> None:
        """As a machine that dies: no time for anything."""
        process = self.running[job_id]
        os.killpg(process.pid, signal.SIGKILL)
        process.popen.wait(30)

    def end(self) -> None:
        for process in self.running.values():
            process.stop(grace=4)
