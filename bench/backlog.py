"""How fast the job takes in a backlog, between strict stand-ins of both services.

    python -m bench.backlog [--changes 50000]

    python -m bench.backlog --changes 1000000        the aim's own: minutes, and several GiB

All the changes are there before the job starts. The rate is that between the first and the last append, on the cores
that the stand-ins share. Every change is compared at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.results import keep, machine
from bench.watch import ProcessWatch
from contract import tables
from tests.shipped import WATCHED
from tests.strict.service import StrictService

_RATE: Final = 1000.0
_CHANGES_A_COMMIT: Final = 1.94
_LONGEST_SECONDS: Final = 3600.0


def measure(changes: int, seed: int, chosen: list[str]) -> dict[str, Any]:
    """One run over about this many changes."""
    history = f"--with-history={changes / (_RATE * _CHANGES_A_COMMIT)}"
    options = [f"--{option}" for option in chosen]
    before = machine()
    with (
        tempfile.TemporaryDirectory() as folder,
        StrictService(Path(folder) / "run", rate=_RATE, seed=seed, history=[history], options=options) as service,
    ):
        watch = ProcessWatch(service.pids)
        watch.start()
        found = service.finish(_LONGEST_SECONDS)
        watch.stop()
        rate = changes_a_second(map(json.loads, service.arrivals.open()))
    return {
        "machine": before | {"load_after": machine()["load"]},
        "asked": {"changes": changes, "seed": seed, "options": chosen},
        "changes": found.committed,
        "changes_a_second": round(rate),
        "check": {"ok": found.ok, "text": str(found)},
        "cpu_seconds": watch.cpu_seconds(),
        "memory_mib": {name: watch.memory_mib(name)["most"] for name in ("job", "prism")},
    }


def changes_a_second(arrivals: Iterable[Mapping[str, Any]]) -> float:
    """Of the changes alone: the resume position is written for as long as the job runs."""
    changelogs = {table.id for table in tables.changelogs(WATCHED).values()}
    appends = [(line["time_ns"] / 1e9, line["rows"]) for line in arrivals if line["table"] in changelogs]
    # What the first append has was read before it.
    rows = sum(n for _, n in appends[1:])
    return float(rows / (appends[-1][0] - appends[0][0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=50_000, help="That wait for the job, about.  [50000]")
    parser.add_argument("--seed", type=int, default=1, help="Seed of the history.  [1]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", dest="chosen", help="Launch option of the job."
    )
    given = parser.parse_args()
    result = measure(given.changes, given.seed, given.chosen)
    print(f"{result['changes']:,} changes: {result['changes_a_second']:,} a second; {result['check']['text']}")
    print(f"  CPU seconds: {json.dumps(result['cpu_seconds'])}, MiB at most: {json.dumps(result['memory_mib'])}")
    print(f"Kept in {keep('backlog', result)}")
    sys.exit(0 if result["check"]["ok"] else 1)


if __name__ == "__main__":
    main()
