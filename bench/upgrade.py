"""An upgrade on one machine: the job of an earlier release, with traffic, and then this one's.

    python -m bench.upgrade --from COMMIT [--tps 20] [--seconds 60]

The earlier release provisions emulators and runs its job. It is drained, as `up` does it: asked to end, and waited for.
This release's program then runs onto the same emulators, and its job resumes. What was committed is compared with
BigQuery, and it is said how long nothing new could be queried.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.results import keep, machine
from components.config import ROOT
from local.check.command import run_check
from local.emulators import launch
from local.machine.processes import Process
from local.machine.state import State
from local.provision.engine import provision
from local.provision.place import LocalEndpoints
from local.stack.supervisor import STACK, pipeline_command, resume_position
from support.connection import load

_BEGIN_SECONDS: Final = 240.0
_ARRIVE_SECONDS: Final = 120.0
_AUDIT: Final = Path(sys.executable).with_name("audit")


@contextmanager
def release(commit: str) -> Iterator[Path]:
    """A checkout of a commit, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "release"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", place, commit], check=True)
        try:
            yield place
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", place], check=True)


def audit(place: Path, *arguments: str) -> None:
    """A command of a release: its modules come before those of this one."""
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run([_AUDIT, *arguments], env=environment, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"audit {' '.join(arguments)} of the earlier release failed:\n{done.stdout}{done.stderr}")


class Positions:
    """How far the audit is, looked at while the jobs change."""

    def __init__(self, outputs: dict[str, Any]) -> None:
        self._database, self._job = launch.metadata_database(outputs), outputs["jobName"]
        self._seen: list[tuple[float, datetime]] = []
        self._stopped = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._stopped.wait(0.1):
            position = resume_position(self._database, self._job)
            if position and (not self._seen or position > self._seen[-1][1]):
                self._seen.append((time.monotonic(), position))

    def await_after(self, moment: float) -> None:
        """Waits until the position has moved after a moment."""
        deadline = time.monotonic() + _BEGIN_SECONDS
        while not self._seen or self._seen[-1][0] <= moment:
            if time.monotonic() > deadline:
                raise SystemExit("The job did not resume. Its log says why.")
            time.sleep(0.1)

    def longest_pause(self) -> float:
        """Seconds between two moves of the position, the most of all."""
        self._stopped.set()
        moments = [moment for moment, _ in self._seen]
        return max((later - earlier for earlier, later in pairwise(moments)), default=0.0)


def upgrade(place: Path, state: State, tps: float, seconds: float) -> dict[str, Any]:
    """One upgrade. Ends everything that it started."""
    folder = f"--state={state.root}"
    audit(place, "local", "up", f"--tps={tps}", folder)
    try:
        outputs = json.loads(state.connection.read_text())
        positions = Positions(outputs)
        time.sleep(seconds)
        drained = time.monotonic()
        audit(place, "local", "stop", "pipeline", folder)
        began = time.monotonic()
        endpoints = LocalEndpoints(
            spanner=outputs["spannerEndpoint"],
            bigquery=outputs["bigQueryEndpoint"],
            bigquery_storage=outputs["bigQueryStorageEndpoint"],
        )
        changed: list[str] = []

        def note(resource: Any) -> None:
            if resource.outcome in ("created here", "updated"):
                changed.append(f"{resource.outcome}: {resource.type.rpartition(':')[2]} {resource.name}")

        made = provision(stack=STACK, state=state.root, endpoints=endpoints, on_resource=note)
        provisioned = time.monotonic()
        with Process.start("job of this release", pipeline_command(made), log=state.logs / "upgraded.log", cwd=ROOT):
            positions.await_after(provisioned)
            resumed = time.monotonic()
            time.sleep(seconds)
            audit(place, "local", "stop", "traffic", folder)
            found = run_check(load(state.connection), state.ledger, state.arrivals, wait=_ARRIVE_SECONDS)
        return {
            "committed": found.committed,
            "missing": len(found.arrivals.missing),
            "doubled": len(found.arrivals.doubled),
            "different": len(found.arrivals.different),
            "wrong_state": len(found.wrong_state),
            "unmasked": len(found.unmasked),
            "seconds": {
                "drain": round(began - drained, 1),
                "up": round(provisioned - began, 1),
                "start of the job": round(resumed - provisioned, 1),
                "longest pause of the position": round(positions.longest_pause(), 1),
            },
            "changed": changed,
        }
    finally:
        audit(place, "local", "down", folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", required=True, dest="commit", help="The earlier release.")
    parser.add_argument("--tps", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="Of traffic, before and after.")
    given = parser.parse_args()
    with release(given.commit) as place, tempfile.TemporaryDirectory() as folder:
        found = upgrade(place, State(Path(folder)), given.tps, given.seconds)
    result = {"from": given.commit, "tps": given.tps, "machine": machine(), **found}
    keep("upgrade", result)
    print(json.dumps(result, indent=2))
    return int(any(found[each] for each in ("missing", "doubled", "different", "wrong_state", "unmasked")))


if __name__ == "__main__":
    sys.exit(main())
