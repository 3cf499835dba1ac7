"""How long a person waits for `audit search` and `audit timeline`, and what of it is imports.

    python -m bench.search [--rounds 7] [--connection FILE]

Without `--connection` it starts a local stack and gives it some payments first. Each round does everything once, so
that what else runs on the machine meets all of it alike: compare the lines with each other, and CPU with CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.live import local_stack
from bench.results import keep, machine
from local.machine.state import State

_AUDIT: Final = str(Path(sys.executable).with_name("audit"))
# What the command imports, and the client library that it goes without.
_IMPORTS: Final = {
    "python": "pass",
    "imports of audit search": "import requests, support.cli.main, support.cli.search, support.search",
    "import google.cloud.bigquery": "import google.cloud.bigquery",
}


def measure(connection: Path, rounds: int) -> dict[str, Any]:
    """What each takes, as medians over the rounds: wall and CPU of this side in milliseconds."""
    audit = [_AUDIT, "--connection", str(connection)]
    found = json.loads(subprocess.run([*audit, "search", "--limit=1"], capture_output=True, check=True).stdout)
    puid = found["payments"][0]["puid"]
    commands = {name: [sys.executable, "-c", code] for name, code in _IMPORTS.items()} | {
        "audit search": [*audit, "search"],
        "audit search PUID": [*audit, "search", puid],
        "audit timeline PUID": [*audit, "timeline", puid],
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            taken[name].append(_run(command))
    return {name: _medians(times) for name, times in taken.items()}


def _medians(times: list[tuple[float, float]]) -> dict[str, int]:
    walls, cpus = zip(*times, strict=True)
    return {"wall_ms": round(statistics.median(walls)), "cpu_ms": round(statistics.median(cpus))}


def _run(command: list[str]) -> tuple[float, float]:
    """Wall and CPU milliseconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall * 1000, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


@contextlib.contextmanager
def _stack(given: Path | None) -> Iterator[Path]:
    """The connection file of a stack with payments."""
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder))
        with local_stack(state, []):
            traffic = [_AUDIT, "local", "traffic", f"--state={state.root}", "--tps=20", "--duration=30", "--seed=7"]
            subprocess.run(traffic, capture_output=True, check=True)
            time.sleep(3)  # the last changes are still on their way
            yield state.connection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connection", type=Path, help="A stack that runs, with payments.")
    given = parser.parse_args()
    with _stack(given.connection) as connection:
        before = machine()
        found = measure(connection, given.rounds)
    for name, figures in found.items():
        print(f"{name:32} {figures['wall_ms']:6,} ms, CPU {figures['cpu_ms']:5,} ms")
    result = {"machine": before | {"load_after": machine()["load"]}, "rounds": given.rounds, "taken": found}
    print(keep("search", result))


if __name__ == "__main__":
    main()
