"""How long until the job writes its first row: after a start, and after it was killed.

    python -m bench.start [--rounds 3] [--rate 20]

Between strict stand-ins of both services. Timed from the moment at which the job's process is started, or killed with
its workers and its runner, to the first row that a query sees. A supervisor starts the killed job again after 0.2 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.results import keep, machine
from tests.strict.service import StrictService

# Long enough for the job to have a resume position in the middle of things.
_BETWEEN_SECONDS: Final = 8.0
_LONGEST_SECONDS: Final = 120.0


def measure(rounds: int, rate: float) -> dict[str, Any]:
    """Medians, and each."""
    before = machine()
    found = [_round(rate, seed) for seed in range(1, rounds + 1)]
    starts, resumes = [round(start, 1) for start, _ in found], [round(resume, 1) for _, resume in found]
    return {
        "machine": before | {"load_after": machine()["load"]},
        "asked": {"rounds": rounds, "rate": rate},
        "start_seconds": statistics.median(starts),
        "resume_seconds": statistics.median(resumes),
        "starts": starts,
        "resumes": resumes,
    }


def _round(rate: float, seed: int) -> tuple[float, float]:
    # Something is there to read from the beginning.
    with (
        tempfile.TemporaryDirectory() as folder,
        StrictService(Path(folder) / "run", rate=rate, seed=seed, history=["--with-history=5"]) as service,
    ):
        # Its keys are written just before the job is started; the kernel knows a process's start to a second only.
        started = (service.folder / "keys.json").stat().st_mtime
        start = _first_after(service.arrivals, started) - started
        service.play()
        time.sleep(_BETWEEN_SECONDS)
        killed = time.time()
        service.kill_job()
        # Another job has just been started: what arrives from now on comes from it.
        return start, _first_after(service.arrivals, time.time()) - killed


def _first_after(arrivals: Path, moment: float) -> float:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while time.monotonic() < deadline:
        for line in arrivals.read_text().split("\n")[:-1] if arrivals.exists() else ():
            arrived: float = json.loads(line)["time_ns"] / 1e9
            if arrived > moment:
                return arrived
        time.sleep(0.05)
    raise TimeoutError(f"No row arrived within {_LONGEST_SECONDS:g} s.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="Starts, each followed by a kill.  [3]")
    parser.add_argument("--rate", type=float, default=20, help="Commits a second.  [20]")
    options = parser.parse_args()
    result = measure(options.rounds, options.rate)
    print(f"start to the first row: {result['start_seconds']} s, median of {result['starts']}")
    print(f"kill to the next row: {result['resume_seconds']} s, median of {result['resumes']}")
    print(f"Kept in {keep('start', result)}")


if __name__ == "__main__":
    main()
