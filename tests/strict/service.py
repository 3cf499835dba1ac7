"""The job as it ships, on Prism, between the strict Spanner and the strict BigQuery: for soak, kill test and bench.

Three processes beside the job: the strict Spanner, which plays a live history and keeps its ledger; the strict
BigQuery; and Spanner's own emulator, which has the metadata database alone. A job that dies is started again, as the
local supervisor does.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from contract import schema, tables
from local.emulators import launch as emulators
from local.emulators.launch import INSTANCE, PROJECT
from local.machine import installed
from local.machine.processes import Process, group_members
from local.stack.supervisor import resume_position
from pipeline.sink.dead_letters import BOTH, DeadLetterQueue
from pipeline.transforms.keys import KEY_BYTES
from tests.shipped import WATCHED
from tests.strict.bigquery import StrictBigQueryProcess
from tests.strict.compare import Committed, Comparison, compare
from tests.strict.history import read_ledger

_DATABASE: Final = "audit-db"
_SOURCE: Final = f"projects/{PROJECT}/instances/{INSTANCE}/databases/{_DATABASE}"
_METADATA: Final = "audit-metadata"
JOB: Final = "audit-strict-job"
_ROOT: Final = installed.ROOT
_PAUSE_SECONDS: Final = 0.2
_BEGIN_SECONDS: Final = 120.0


class StrictSpannerProcess:
    """The strict Spanner as a process: `endpoint`, `created`, and its controls by `ask`."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        file = folder / "strict-spanner.json"
        command = [sys.executable, "-m", "tests.strict.spanner", f"--port-file={file}", *options]
        self.process = Process.start("strict-spanner", command, log=folder / "strict-spanner.log", cwd=_ROOT)
        # A long history is made before it serves.
        self.process.await_ready(file.exists, timeout=300)
        self._where = json.loads(file.read_text())
        self.endpoint: str = self._where["endpoint"]
        self.created: str = self._where["created"]

    def ask(self, control: str, **arguments: Any) -> Any:
        """What a control answers. Raises urllib.error.HTTPError where it cannot."""
        url = f"{self._where['control']}/{control}"
        request = urllib.request.Request(url, data=json.dumps(arguments).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())["ok"]


class StrictService:
    """Runs in a `with`, its history once `play` is called.

    `rate`: transactions a second. `history`: more options of the strict Spanner; `bigquery`: of the strict BigQuery;
    `options`: launch options of the job.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rate: float = 50.0,
        seed: int = 1,
        history: Sequence[str] = (),
        bigquery: Mapping[str, Any] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.restarts = 0
        self.ledger = folder / "ledger.jsonl"
        self.arrivals = folder / "arrivals.jsonl"
        self.dead_letters = DeadLetterQueue(str(folder / "dead-letters"))
        self._history = [f"--seed={seed}", f"--rate={rate}", f"--ledger={self.ledger}", "--paused", *history]
        self._bigquery = {"project": PROJECT, "arrivals": self.arrivals, "contract_tables": True, **(bigquery or {})}
        self._options = options
        self._stack = ExitStack()
        self._ended = threading.Event()
        self._changing = threading.Lock()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            logs = self.folder / "logs"
            logs.mkdir(parents=True)
            self.emulator = emulators.launch_spanner(logs=logs)
            stack.enter_context(self.emulator.process)
            self.bigquery = stack.enter_context(StrictBigQueryProcess(logs, **self._bigquery))
            emulators.await_spanner(self.emulator)
            self._metadata = self._provision()
            self.spanner = StrictSpannerProcess(
                logs, [*self._history, f"--emulator={self.emulator.endpoint}", f"--database={_SOURCE}"]
            )
            stack.enter_context(self.spanner.process)
            (self.folder / "dead-letters").mkdir()
            self._command = self._job_command()
            self.job = self._launch()
            stack.callback(self._end_job)
            self._await_begun()
            self._stack = stack.pop_all()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._supervisor.join()
        self._stack.close()

    def play(self) -> None:
        """Lets the history begin."""
        self.spanner.ask("start")

    # ------------------------------------------------------------------ faults

    def kill_job(self) -> None:
        """Kills the job with its workers and its runner, as the loss of a machine would. Returns once another runs."""
        with self._changing:
            job = self.job
            os.killpg(job.pid, signal.SIGKILL)
        self._await_another(job)

    def kill_runner(self) -> None:
        """Kills Prism alone: the workers see their runner vanish. Returns once another one runs.

        A job whose runner dies while it starts begins another runner itself; any other ends.
        """
        while not (runners := self._runners()):
            # A job that has just begun has none yet.
            time.sleep(0.1)
        for process in runners:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        while not set(self._runners()) - set(runners) and not self._ended.wait(0.05):
            pass

    def _runners(self) -> list[psutil.Process]:
        return [process for process in group_members(self.job.pid) if process.name() == "prism"]

    def _await_another(self, job: Process) -> None:
        while self.job is job and not self._ended.wait(0.05):
            pass

    # ------------------------------------------------------------------ the end

    def finish(self, wait: float = 300.0, *, doubles: bool = True) -> Comparison:
        """Ends the history, gives what was committed `wait` seconds to arrive, and compares every change."""
        self.spanner.ask("stop")
        committed = [Committed.of(line) for line in read_ledger(self.ledger)]
        deadline = time.monotonic() + wait
        while self._arrived() < len(committed) and time.monotonic() < deadline:
            time.sleep(1)
        # What is appended once more comes a moment later.
        time.sleep(3)
        dead = [x.id for kind in BOTH for x in self.dead_letters.letters(kind)]
        rows = [row for table in tables.changelogs(WATCHED).values() for row in self.bigquery.rows(table.id)]
        return compare(committed, rows, dead, doubles=doubles)

    def commits(self) -> int:
        """How many transactions were committed."""
        return len({(line["commit_timestamp"], line["server_transaction_id"]) for line in read_ledger(self.ledger)})

    def pids(self) -> dict[str, int]:
        """Leaders of the process groups that run now."""
        return {
            "job": self.job.pid,
            "strict Spanner": self.spanner.process.pid,
            "strict BigQuery": self.bigquery.pid,
            "Spanner emulator (metadata)": self.emulator.process.pid,
        }

    def position(self) -> Any:
        """The resume position of the job, or None when it has not begun."""
        return resume_position(self._metadata, JOB)

    def log(self) -> str:
        """What the jobs have logged."""
        return (self.folder / "logs" / "job.log").read_text()

    def _arrived(self) -> int:
        rows = self.bigquery.counts()
        return sum(rows[table.id] for table in tables.changelogs(WATCHED).values()) + sum(
            self.dead_letters.counts().values()
        )

    # ------------------------------------------------------------------ the parts

    def _provision(self) -> Any:
        """Makes the metadata database."""
        client = emulators.spanner_client(self.emulator.endpoint)
        instance = client.instance(INSTANCE, configuration_name=f"projects/{PROJECT}/instanceConfigs/emulator-config")
        instance.create().result(30)
        database = instance.database(_METADATA, ddl_statements=schema.statements(schema.METADATA_DB))
        database.create().result(60)
        return database

    def _await_begun(self) -> None:
        """Returns once the job has taken over. Raises ProcessError with the end of its log when it does not."""
        self.job.await_ready(lambda: self.position() is not None, timeout=_BEGIN_SECONDS)

    def _job_command(self) -> list[str]:
        keys = self.folder / "keys.json"
        keys.write_text(json.dumps({"v1": base64.b64encode(bytes(range(KEY_BYTES))).decode()}))
        options = {
            "spannerProjectId": PROJECT,
            "spannerInstanceId": INSTANCE,
            "spannerDatabase": _DATABASE,
            "spannerMetadataInstanceId": INSTANCE,
            "spannerMetadataDatabase": _METADATA,
            "spannerChangeStreamNames": ",".join(schema.change_streams()),
            "spannerEndpoint": self.spanner.endpoint,
            "bigQueryProjectId": PROJECT,
            "bigQueryEndpoint": self.bigquery.rest,
            "bigQueryStorageEndpoint": self.bigquery.grpc,
            "maskingKeys": f"file:{keys}",
            "watchedTables": WATCHED.to_json(),
            "newColumns": "scan",
            "deadLetterQueueDirectory": self.dead_letters.directory,
            "startTimestamp": self.spanner.created,
        }
        return [
            sys.executable,
            "-m",
            "pipeline.jobs.stream",
            *(f"--{name}={value}" for name, value in options.items()),
            "--runner=PrismRunner",
            "--job_server_timeout=31536000",
            f"--prism_location={installed.prism()}",
            f"--job_name={JOB}",
            *self._options,
        ]

    def _launch(self) -> Process:
        log = self.folder / "logs" / "job.log"
        return Process.start("job", self._command, log=log, cwd=_ROOT, append=log.exists())

    def _supervise(self) -> None:
        while not self._ended.wait(_PAUSE_SECONDS):
            if self.job.alive:
                continue
            self.job.kill()
            self.restarts += 1
            with self._changing:
                self.job = self._launch()

    def _end_job(self) -> None:
        """The one that runs now."""
        self.job.kill()
