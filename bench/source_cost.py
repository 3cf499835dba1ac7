"""What the source costs the database that it reads: queries that are open, calls and responses a second.

    python -m bench.source_cost [--seconds 10]

Counted by the strict stand-in of Spanner, in a separate process, by partitions, heartbeat and way of reading. It says
nothing of Spanner's CPU: a stand-in has none of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from bench.results import keep, machine
from pipeline.source.beam_source import ChangeStreamReader
from pipeline.source.partition_threads import Reading
from pipeline.source.partitions import PartitionSet
from pipeline.source.query import ChangeStream
from tests.strict.service import StrictSpannerProcess

_STREAM: Final = "PaymentAuditTrailChangeStream"
_DATABASE: Final = "projects/p/instances/i/databases/d"


@dataclass(frozen=True, kw_only=True)
class Case:
    """`rate` is in transactions a second, `churn` the seconds between splits, merges and moves; 0: none."""

    partitions: int
    mode: Literal["tail", "windows"] = "tail"
    heartbeat_millis: int = 1000
    window_millis: int = 200
    rate: float = 0.0
    churn: float = 0.0

    def __str__(self) -> str:
        every = f"heartbeat {self.heartbeat_millis} ms" if self.mode == "tail" else f"window {self.window_millis} ms"
        traffic = f"{self.rate:g} commits/s" if self.rate else "idle"
        churn = f", a split or merge each {self.churn:g} s" if self.churn else ""
        return f"{self.mode}, {self.partitions} partitions, {every}, {traffic}{churn}"


CASES: Final = (
    Case(partitions=1),
    Case(partitions=10),
    Case(partitions=100),
    Case(partitions=1000),
    Case(partitions=10, heartbeat_millis=10_000),
    Case(partitions=100, heartbeat_millis=10_000),
    Case(partitions=1000, heartbeat_millis=10_000),
    Case(partitions=10, rate=50),
    Case(partitions=100, rate=50),
    Case(partitions=10, rate=50, churn=2),
    Case(partitions=10, mode="windows"),
    Case(partitions=10, mode="windows", window_millis=1000),
)


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Reads for that long once every partition is read, and returns what Spanner's side counted, a second."""
    options = [f"--partitions={case.partitions}", f"--churn={case.churn}", f"--rate={case.rate or 1}", "--paused"]
    with tempfile.TemporaryDirectory() as folder:
        spanner = StrictSpannerProcess(Path(folder), options)
        with spanner.process:
            stream = ChangeStream(
                name=_STREAM,
                database=_DATABASE,
                endpoint=spanner.endpoint,
                heartbeat_millis=case.heartbeat_millis,
            )
            reading = Reading(mode=case.mode, window_millis=case.window_millis)
            reader = ChangeStreamReader(stream, reading, PartitionSet(spanner.created))
            _read(reader, until=lambda: len(spanner.ask("counts")["queries_by_partition"]) > case.partitions)
            if case.rate:
                spanner.ask("start", rate=case.rate)
            spanner.ask("reset_counts")
            began = time.monotonic()
            _read(reader, until=lambda: time.monotonic() - began >= seconds)
            took = time.monotonic() - began
            counts = spanner.ask("counts")
            reader.close()
    calls = counts["calls"]
    return {
        "case": str(case),
        "open_queries": counts["max_open_queries"],
        "connections": counts["connections"],
        "queries_a_second": round(calls.get("ExecuteStreamingSql", 0) / took, 2),
        "other_calls": sum(n for name, n in calls.items() if name != "ExecuteStreamingSql"),
        "responses_a_second": round(counts["responses"] / took, 1),
        "heartbeats_a_second": round(counts["heartbeats"] / took, 1),
    }


def _read(reader: ChangeStreamReader, until: Any) -> None:
    """Asks as a runner does."""
    while not until():
        ends = time.monotonic() + 0.5
        while time.monotonic() < ends:
            reader.advance()
        reader.get_checkpoint_mark()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="Seconds to count in each case.  [10]")
    seconds = parser.parse_args().seconds
    result: dict[str, Any] = {"machine": machine(), "seconds": seconds, "cases": []}
    for case in CASES:
        found = measure(case, seconds)
        result["cases"].append(found)
        print("  ".join(f"{name} {value}" for name, value in found.items()), flush=True)
    result["machine"]["load_after"] = machine()["load"]
    print(f"Kept in {keep('source-cost', result)}")


if __name__ == "__main__":
    main()
