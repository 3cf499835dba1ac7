"""All the measurements, one after the other, then the speed table in docs/speed.md: python -m bench [--quick]

First those that the table has no row for: validation, a search, the console, a replay, a backfill, the service at 100
commits a second and with 500 requested, and ten minutes for memory. Then each run that an aim needs (bench/aims.py).
About two and a half hours; on a quiet machine, or the figures are those of other programs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Final

from bench.aims import AIMS
from bench.peer import program

Run = tuple[str, ...]
_MEMORY: Final[Run] = ("live", "--tps=10", "--duration=600", "--name=memory")
_OTHERS: Final[tuple[Run, ...]] = (
    ("validation",),
    ("search",),
    ("console",),
    ("replay",),
    ("backfill",),
    ("live", "--tps=100", "--duration=120"),
    ("live", "--tps=500", "--duration=60"),
    _MEMORY,
)
_LONG: Final = {_MEMORY, *(aim.run for aim in AIMS if aim.long)}


def runs(*, quick: bool, peer: bool) -> list[Run]:
    """Each once. `quick` leaves out those of ten minutes and more; without `peer`, which Java must build, its own."""
    every = dict.fromkeys([*_OTHERS, *(aim.run for aim in AIMS)])
    return [run for run in every if not (quick and run in _LONG) and (peer or run[0] != "peer")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Without the runs of ten minutes and more.")
    built = program.built()
    chosen = [*runs(quick=parser.parse_args().quick, peer=built), ("aims",)]
    if not built:
        print("Without python -m bench.peer, which `make bench-peer` builds.", flush=True)
    failed = []
    for number, (module, *options) in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] python -m bench.{module} {' '.join(options)}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{module}", *options], check=False).returncode:
            failed.append(module)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
