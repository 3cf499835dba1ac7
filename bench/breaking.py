"""At what rate the job no longer keeps up on this machine, and what breaks: between strict stand-ins of both services.

    python -m bench.breaking [--rates 250,500,1000,2000,5000] [--duration 30]

One run for each rate, until one breaks. A rate holds if all of it arrives, as often as it was requested, with a p99
under one second.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any, Final

from bench import strict
from bench.aims import P99_MILLIS
from bench.results import keep, machine

_MADE_SHARE: Final = 0.9
# A machine is full before every core has been counted to the last tick.
_FULL_SHARE: Final = 0.9


def breaks(run: Mapping[str, Any], cores: int) -> str:
    """What broke in a run of bench.strict; empty if it held."""
    asked, made = run["asked"]["rate"], run["commits_a_second"]
    wrong = []
    if not run["check"]["ok"]:
        wrong.append("not every change arrived once within five minutes")
    if made < asked * _MADE_SHARE:
        wrong.append(f"the stand-in of Spanner makes {made:,.0f} commits a second")
    if (p99 := run["latency_ms"].get("p99", float("inf"))) >= P99_MILLIS:
        wrong.append(f"p99 is {p99:,} ms")
    if not wrong:
        return ""
    used = run["cores"]
    busy = ", ".join(f"{name} {share:.2f}" for name, share in list(used.items())[:3])
    full = f"the {cores} cores are full" if sum(used.values()) >= cores * _FULL_SHARE else "cores are left"
    return f"{'; '.join(wrong)}; {full}: {busy}"


def measure(rates: list[float], duration: float) -> dict[str, Any]:
    """The last rate that held, and the first that did not."""
    before, runs = machine(), []
    held, broke, why = 0.0, None, ""
    for rate in rates:
        run = strict.measure(rate, duration, seed=1, chosen=[])
        print(strict.show(run), flush=True)
        runs.append({name: run[name] for name in ("asked", "commits_a_second", "latency_ms", "cores", "check")})
        if why := breaks(run, os.cpu_count() or 1):
            broke = rate
            break
        held = rate
    return {
        "machine": before | {"load_after": machine()["load"]},
        "asked": {"rates": rates, "seconds": duration},
        "held": held,
        "broke": broke,
        "why": why,
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="250,500,1000,2000,5000", help="Rising.  [250,500,1000,2000,5000]")
    parser.add_argument("--duration", type=float, default=30, help="Seconds of each, of which ten are warm-up.  [30]")
    given = parser.parse_args()
    result = measure([float(rate) for rate in given.rates.split(",")], given.duration)
    broke = f"{result['broke']:g} breaks: {result['why']}" if result["broke"] else "none broke"
    print(f"{result['held']:g} commits a second hold; {broke}")
    print(f"Kept in {keep('breaking', result)}")


if __name__ == "__main__":
    main()
