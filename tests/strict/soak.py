"""Kills and cuts the job repeatedly while a random history runs, then compares every change with what arrived.

    python -m tests.strict.soak [--kills 20] [--duration 120] [--rate 50] [--seed 1] [--readers 1]
                                [--churn 5] [--mutable-key-range] [--at-least-once]

Each blow is drawn by the seed: the job with its workers, the runner alone, every connection to Spanner or to BigQuery,
Spanner's sessions, a BigQuery that is frozen, away, or that appends without an answer. The history splits, merges and
moves partitions; a column changes its type and a new one comes, which BigQuery's write path learns of late. Its last
line is

    12,345 committed, 12,345 arrived, 0 missing, 0 doubled, 0 different

and it exits 0 only if nothing is missing, doubled, different or a dead letter.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.strict.compare import Comparison
from tests.strict.service import StrictService

_FIRST_SECONDS: Final = 5.0
# How late BigQuery's write path learns of a new column.
_LAG_SECONDS: Final = 20.0


def blows(service: StrictService) -> dict[str, tuple[int, Callable[[random.Random], None]]]:
    """What can befall the service: name → (weight, how)."""
    spanner, bigquery = service.spanner, service.bigquery

    return {
        "job killed": (4, lambda _: service.kill_job()),
        "runner killed": (4, lambda _: service.kill_runner()),
        "Spanner's connections cut": (1, lambda _: spanner.ask("drop_connections")),
        "Spanner's sessions ended": (1, lambda _: spanner.ask("end_sessions")),
        "Spanner fails in the middle of rows": (
            1,
            lambda _: spanner.ask("fail", code="UNAVAILABLE", where="mid_row", seconds=1.0),
        ),
        "queries of Spanner end early": (1, lambda _: spanner.ask("end_early", count=3)),
        "BigQuery's connections cut": (1, lambda _: bigquery.cut()),
        "BigQuery frozen": (1, lambda chance: bigquery.freeze(seconds=chance.uniform(1, 4))),
        "BigQuery away": (1, lambda chance: bigquery.away(seconds=chance.uniform(1, 4))),
        "BigQuery appends without an answer": (1, lambda _: bigquery.lose_answers(times=2)),
        "BigQuery's streams are gone": (1, lambda _: bigquery.expire_streams()),
    }


def soak(
    folder: Path,
    *,
    kills: int,
    duration: float,
    rate: float,
    seed: int,
    readers: int = 1,
    churn: float = 5.0,
    mutable_key_range: bool = False,
    at_least_once: bool = False,
    say: Callable[[str], None] = print,
) -> Comparison:
    """Runs the service for `duration` seconds with `kills` blows spread over it, and compares."""
    chance = random.Random(seed)
    options = [f"--changeStreamReaders={readers}", *(["--writeMode=at-least-once"] if at_least_once else [])]
    half = duration / 2
    history = [
        f"--churn={churn}",
        *(["--mutable-key-range"] if mutable_key_range else []),
        f"--schema-change={half:.1f}:payment_audit_trail:RetryCount:STRING(MAX)",
        f"--schema-change={half:.1f}:payment_audit_trail:Channel:STRING(20)",
    ]
    lag = {"schema_lag": _LAG_SECONDS}
    with StrictService(folder, rate=rate, seed=seed, history=history, bigquery=lag, options=options) as service:
        service.play()
        began = time.monotonic()
        befell: Counter[str] = Counter()
        choices = blows(service)
        names, weights = list(choices), [weight for weight, _ in choices.values()]
        for number in range(1, kills + 1):
            due = began + _FIRST_SECONDS + (duration - _FIRST_SECONDS) * (number - chance.random()) / kills
            time.sleep(max(0.0, due - time.monotonic()))
            [name] = chance.choices(names, weights)
            say(f"[{number}/{kills}] {time.monotonic() - began:6.1f} s  {name}")
            choices[name][1](chance)
            befell[name] += 1
        time.sleep(max(0.0, began + duration - time.monotonic()))
        found = service.finish(doubles=not at_least_once)
        say("; ".join(f"{name} {count}" for name, count in befell.most_common()))
        say(f"{service.restarts} restarts of the job in {time.monotonic() - began:.0f} s")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="Blows.  [20]")
    parser.add_argument("--duration", type=float, default=120.0, help="Seconds of traffic.  [120]")
    parser.add_argument("--rate", type=float, default=50.0, help="Transactions a second.  [50]")
    parser.add_argument("--seed", type=int, default=1, help="Of the history and of the blows.  [1]")
    parser.add_argument("--readers", type=int, default=1, help="Of each change stream.  [1]")
    parser.add_argument("--churn", type=float, default=5.0, help="Seconds between splits, merges and moves.  [5]")
    parser.add_argument("--mutable-key-range", action="store_true", help="The streams' partition mode.")
    parser.add_argument("--at-least-once", action="store_true", help="Doubled rows are then no fault.")
    parser.add_argument("--keep", type=Path, help="Folder for logs, ledger and rows.  [a temporary one]")
    given = vars(parser.parse_args())
    keep = given.pop("keep")
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found = soak(folder, say=lambda line: print(line, flush=True), **given)
    for what in ("missing", "doubled", "different", "extra", "dead"):
        for change in getattr(found, what)[:10]:
            print(f"{what}: {change}")
    print(found)
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
