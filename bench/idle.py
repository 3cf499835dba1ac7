"""What the service costs while nothing happens: CPU of each process of a local stack without traffic.

    python -m bench.idle [--seconds 60] [--set windowMillis=200 …]

It has its own state folder. A core is one second of CPU a second; the emulators are not the product's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.live import local_stack
from bench.results import keep, machine
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
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", dest="chosen")
    parser.add_argument("--name", default="idle", help="Name of the result.  [idle]")
    options = parser.parse_args()
    result = measure(options.seconds, options.chosen)
    print(
        f"idle for {options.seconds:g} s; load {result['machine']['load'][0]} to {result['machine']['load_after'][0]}"
    )
    print(f"  cores: {result['cores']}")
    print(f"  pipeline and Prism: {result['cores_of_the_product']} of a core")
    print(f"Kept in {keep(options.name, result)}")


if __name__ == "__main__":
    main()
