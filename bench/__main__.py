"""All the measurements, one after the other: python -m bench [--quick]

The pipeline alone, several readers of one stream, how long a search and a page of the console take, what the service
costs idle, then at 50 and 100 commits a second and with 500 asked for, then ten minutes for memory. About 29 minutes;
on a quiet machine, or the figures are those of other programs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Final

_RUNS: Final = (
    ("pipeline_only",),
    ("readers",),
    ("validation",),
    ("search",),
    ("console",),
    ("replay",),
    ("backfill",),
    ("idle",),
    ("live", "--tps=50", "--duration=120"),
    ("live", "--tps=100", "--duration=120"),
    ("live", "--tps=500", "--duration=60"),
    ("live", "--tps=10", "--duration=600", "--name=memory"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Without the ten minutes for memory.")
    runs = _RUNS[:-1] if parser.parse_args().quick else _RUNS
    failed = []
    for number, (module, *options) in enumerate(runs, 1):
        print(f"[{number}/{len(runs)}] python -m bench.{module} {' '.join(options)}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{module}", *options], check=False).returncode:
            failed.append(module)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
