"""The pipeline's process as a job of Dataflow's, where `audit pipeline` looks for it on one machine.

The supervisor starts a pipeline that ended again, so a launch gives back one that was stopped; a drain stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from local.machine.state import State


@dataclass(frozen=True, kw_only=True)
class PipelineJob:
    """`pid` is that of the pipeline's process, None while there is none. `process` is its name in the stack."""

    state_folder: State
    process: str
    pid: Callable[[], int | None]

    @staticmethod
    def job_id(pid: int) -> str:
        return f"process-{pid}"

    def start(self, job_id: str, name: str, parameters: Mapping[str, str]) -> None:
        self.state_folder.release(self.process)

    def state(self, job_id: str) -> str:
        pid = self.pid()
        return "RUNNING" if pid is not None and self.job_id(pid) == job_id else "FAILED"

    def stop(self, job_id: str, *, drain: bool) -> None:
        self.state_folder.hold(self.process)
