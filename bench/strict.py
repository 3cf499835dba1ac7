"""The job at the design load and beyond, between strict stand-ins of both services: no emulator's cost, on one machine.

    python -m bench.strict [--rate 500] [--duration 300] [--name strict-500]

The history is random, with splits, merges and moves. Every change is compared at the end. Latency is from the commit
timestamp to the moment at which BigQuery's stand-in has the row for a query. CPU and memory are by process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.results import keep, machine, percentiles
from bench.watch import ProcessWatch
from tests.strict.service import StrictService

# The first seconds are those of a job that has just begun: they count for completeness, not for latency.
_WARM_UP_SECONDS: Final = 10.0


def measure(rate: float, duration: float, seed: int, chosen: list[str]) -> dict[str, Any]:
    """One run."""
    options = [f"--{option}" for option in chosen]
    with (
        tempfile.TemporaryDirectory() as folder,
        StrictService(Path(folder) / "run", rate=rate, seed=seed, options=options) as service,
    ):
        before = machine()
        watch = ProcessWatch(service.pids)
        watch.start()
        began = time.time()
        service.play()
        time.sleep(duration)
        took = time.time() - began
        watch.stop()
        found = service.finish()
        cpu = watch.cpu_seconds()
        return {
            "machine": before | {"load_after": machine()["load"]},
            "asked": {"rate": rate, "seconds": duration, "seed": seed, "options": chosen},
            "commits_a_second": round(service.commits() / took, 1),
            "changes_a_second": round(found.committed / took, 1),
            "check": {"ok": found.ok, "text": str(found)},
            "latency_ms": percentiles(_latencies(service.arrivals, began + _WARM_UP_SECONDS)),
            "cores": {name: round(seconds / took, 2) for name, seconds in cpu.items()},
            "memory_mib": {name: watch.memory_mib(name) for name in ("job", "prism")},
            "restarts": service.restarts,
        }


def _latencies(arrivals: Path, after: float) -> list[float]:
    """Change by change, in milliseconds, of what was committed after a time."""
    found: list[float] = []
    for line in arrivals.read_text().splitlines():
        arrival = json.loads(line)
        arrived = arrival["time_ns"] / 1e9
        found += [each for each in arrival["latencies_ms"] if arrived - each / 1000 > after]
    return found


def show(result: dict[str, Any]) -> str:
    asked, latency, memory = result["asked"], result["latency_ms"], result["memory_mib"]
    lines = [
        f"{asked['rate']:g} commits a second asked for {asked['seconds']:g} s, {result['commits_a_second']} made, "
        f"{result['changes_a_second']} changes a second; load {result['machine']['load'][0]}",
        f"  {result['check']['text']}",
        "  commit → queryable: " + ", ".join(f"{name} {latency[name]:,} ms" for name in ("p50", "p95", "p99", "max")),
        f"  cores: {json.dumps(result['cores'])}",
        *(
            f"  {name}: at most {of['most']} MiB, {of['growth_mib_a_minute_second_half']:+} a minute at the end"
            for name, of in memory.items()
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500, help="Commits a second.  [500]")
    parser.add_argument("--duration", type=float, default=300, help="Seconds.  [300]")
    parser.add_argument("--seed", type=int, default=1, help="Seed of the history.  [1]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", dest="chosen", help="Launch option of the job."
    )
    parser.add_argument("--name", help="Name of the result.  [strict-<rate>]")
    given = parser.parse_args()
    result = measure(given.rate, given.duration, given.seed, given.chosen)
    print(show(result))
    print(f"Kept in {keep(given.name or f'strict-{given.rate:g}', result)}")
    sys.exit(0 if result["check"]["ok"] else 1)


if __name__ == "__main__":
    main()
