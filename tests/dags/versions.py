"""An Airflow of one version as a process that runs DAGs, each by `dag.test()`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from local.machine import installed

RUNNER: Final = Path(__file__).with_name("runner.py")
VERSIONS: Final = ("3", "2")


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a DAG's run ended, each of its tasks, and what Airflow logged of it."""

    state: str
    tasks: Mapping[str, str]
    said: str


class Airflow:
    """Runs in a `with`. `dags`: a folder with the package `payment_audit`; `endpoint`: where Cloud Run answers.

    It starts at once and is awaited when it is first used: two of them start side by side.
    """

    def __init__(self, version: str, home: Path, dags: Path, endpoint: str) -> None:
        self.version = version
        self._python, self._dags, self._endpoint = installed.airflow_python(version), dags, endpoint
        home.mkdir(parents=True)
        shutil.copy(self._python.parents[1] / "empty" / "airflow.db", home)
        self._log = home / "airflow.log"
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": str(home),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(
                {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True}}
            ),
        }
        self._ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        read, write = os.pipe()
        os.set_inheritable(write, True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._python), str(RUNNER), str(self._dags), self._endpoint, str(write)],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[write],
                text=True,
            )
        os.close(write)
        self._answers = os.fdopen(read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()

    @property
    def ready(self) -> dict[str, Any]:
        """What Airflow reads of the folder: `errors` by file, and `dags` by their ids."""
        if not self._ready:
            self._ready = self._answer()
        return self._ready

    def run(self, dag: str, **params: Any) -> Run:
        """Runs a DAG as one that is triggered with these parameters."""
        assert self.ready["errors"] == {}
        before = self._log.stat().st_size
        assert self._process.stdin is not None
        print(json.dumps({"dag": dag, "params": params}), file=self._process.stdin, flush=True)
        answer = self._answer()
        with self._log.open("rb") as log:
            log.seek(before)
            return Run(state=answer["state"], tasks=answer["tasks"], said=log.read().decode(errors="replace"))

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        assert line, f"Airflow {self.version} has ended:\n{self._log.read_text(errors='replace')[-3000:]}"
        found: dict[str, Any] = json.loads(line)
        return found
