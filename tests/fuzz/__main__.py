"""Counts what gets through: `python -m tests.fuzz --hidden 1000000 --harmless 1000000 --seed 1 --jobs 2`.

Exit code 1 where anything that was hidden can be read, something crashed, or too many harmless values were changed. A
failing input is named by its kind and seed; `--show hidden SEED` prints what a seed makes (test numbers only).
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.fuzz import harmless, hidden
from tests.fuzz.run import RUNNERS, Outcome

CHUNK = 5_000
MOST_SHOWN = 20


def _chunk(what: str, seed: int, first: int, count: int) -> Outcome:
    return RUNNERS[what](f"{seed}:{i}" for i in range(first, first + count))


def run(what: str, count: int, seed: int, jobs: int) -> Outcome:
    """`count` inputs in `jobs` processes."""
    outcome = Outcome()
    began = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [pool.submit(_chunk, what, seed, at, min(CHUNK, count - at)) for at in range(0, count, CHUNK)]
        for done in as_completed(waiting):
            outcome.add(done.result())
            if sys.stderr.isatty():
                rate = outcome.inputs / (time.monotonic() - began)
                print(f"\r{what}: {outcome.inputs:,} of {count:,}, {rate:,.0f} a second ", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return outcome


def most_changed(count: int) -> int:
    """How many of this many harmless values may be changed: more, in proportion, of a few."""
    expected = count * harmless.MOST_CHANGED_A_MILLION / 1e6
    return round(expected + 3 * expected**0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=100_000, help="Inputs that hide card data.  [100000]")
    parser.add_argument("--harmless", type=int, default=100_000, help="Values that are none.  [100000]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="Processes.  [1]")
    parser.add_argument("--show", nargs=2, metavar=("hidden|harmless", "SEED"), help="Print the input of a seed.")
    options = parser.parse_args()
    if options.show:
        what, seed = options.show
        print(hidden.case(seed) if what == "hidden" else harmless.value(seed))
        return 0
    failed = False
    if options.hidden:
        out = run("hidden", options.hidden, options.seed, options.jobs)
        print(
            f"{out.inputs:,} hidden: {out.numbers_out} numbers, {out.codes_out} codes, expiries, PINs or names "
            f"out, "
            f"{len(out.crashes)} crashes; {out.dead_letters:,} dead letters"
        )
        failed = bool(out.leaks or out.crashes)
        _tell(out)
    if options.harmless:
        out = run("harmless", options.harmless, options.seed, options.jobs)
        most = most_changed(out.inputs)
        print(
            f"{out.inputs:,} harmless: {len(out.changed)} changed (at most {most}), {out.dead_letters} dead letters, "
            f"{len(out.crashes)} crashes"
        )
        failed = failed or bool(out.crashes or out.dead_letters or len(out.changed) > most)
        _tell(out)
    return 1 if failed else 0


def _tell(out: Outcome) -> None:
    if kinds := out.by_kind():
        print("  by kind: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(60)))
        for kind, seed in (*out.crashes, *out.leaks, *out.changed)[:MOST_SHOWN]:
            print(f"  {kind}: seed {seed}")


if __name__ == "__main__":
    sys.exit(main())
