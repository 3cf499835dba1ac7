"""What the service costs while nothing happens: CPU of each process of a local stack without traffic.

    python -m bench.idle [--seconds 60] [--rounds 3] [--set windowMillis=200 …]

It has its own state folder. A core is one second of CPU a second; the emulators are not the product's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.live import local_stack
from bench.results import keep, machine, middle
from bench.watch import Watch
from local.machine.state import State

# A stack that has just begun still meets its tables and streams for the first time.
_SETTLE_SECONDS: Final = 20.0


def measure(seconds: float, chosen: list[str]) -> dict[str, Any]:
    """One run. Cores by process."""
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder))
        with local_stack(state, chosen):
            time.sleep(_SETTLE_SECONDS)
            before, began = machine(), time.monotonic()
            watch = Watch(state)
            watch.start()
            time.sleep(seconds)
            watch.stop()
            took = time.monotonic() - began
            cores = {name: round(spent / took, 3) for name, spent in watch.cpu_seconds().items()}
            return {
                "machine": before | {"load_after": machine()["load"]},
                "asked": {"seconds": seconds, "options": chosen},
                "cores": cores,
                "cores_of_the_product": round(cores.get("pipeline", 0.0) + cores.get("prism", 0.0), 3),
                "restarts": state.read()["restarts"],
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="Seconds to watch.  [60]")
    parser.add_argument("--rounds", type=int, default=1, help="Runs; the median counts.  [1]")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", dest="chosen")
    parser.add_argument("--name", default="idle", help="Name of the result.  [idle]")
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        found = measure(options.seconds, options.chosen)
        rounds.append(found)
        loads = found["machine"]
        print(f"idle for {options.seconds:g} s; load {loads['load'][0]} to {loads['load_after'][0]}")
        print(f"  cores: {found['cores']}")
        print(f"  pipeline and Prism: {found['cores_of_the_product']} of a core", flush=True)
    result = middle(rounds, lambda each: float(each["cores_of_the_product"]))
    print(f"Kept in {keep(options.name, result)}")


if __name__ == "__main__":
    main()
