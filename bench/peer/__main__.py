"""The product beside Beam's Java connector: latency, CPU, memory and idle cores, in turn, in one run.

    python -m bench.peer [--tps 5] [--duration 30] [--idle 30] [--rounds 3] [--order product]

    python -m bench.peer                             5 commits a second for 30 s, after 30 s without any
    python -m bench.peer --tps 50 --duration 60 --idle 0
    python -m bench.peer --duration 0 --idle 60      idle alone

Each gets a fresh Spanner emulator and the same traffic: the simulator's, with one seed and rate. First a few commits
until all of them have arrived, so that nobody is measured while it starts; one that ends before is started again, three
times at most, and the result says how often. The peer is `SpannerIO.readChangeStream` of
Beam for Java on Java's direct runner (`make bench-peer` builds it); it says nothing about Dataflow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.live import local_stack
from bench.peer import program
from bench.peer.figures import DIFFERS, SIDES, peer_latencies, product_latencies, table
from bench.record import create_database
from bench.results import keep, machine, percentiles
from bench.watch import ProcessWatch, Watch
from contract import schema
from contract.errors import AuditError
from contract.timestamps import now
from local.emulators import launch as emulators
from local.emulators.launch import INSTANCE
from local.machine.processes import Process
from local.machine.state import State
from local.traffic.command import TrafficSummary, run_traffic
from support import connection

_METADATA: Final = "peer-metadata"
_WARM_UP_SECONDS: Final = 12.0
_WARM_UP_TPS: Final = 5.0
# What has just arrived still has to be put away.
_SETTLE_SECONDS: Final = 5.0
_ARRIVE_SECONDS: Final = 180.0
# Beam's Java connector ends at times with an error before its first change.
_STARTS: Final = 3


class NotArrived(AuditError):
    """A reader does not read; the message has the end of its log."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One that reads change streams of a separate emulator. `parts` are the names of its processes in `watch`,
    `latencies` the milliseconds from commit to arrival of each change that has arrived, in the order of arrival."""

    process: Process
    endpoint: str
    database: str
    parts: Sequence[str]
    watch: Callable[[], ProcessWatch]
    latencies: Callable[[], list[float]]


@contextmanager
def peer(folder: Path) -> Iterator[Reader]:
    """Beam's Java connector. Raises NotInstalled, ProcessError."""
    out = folder / "arrived"
    emulator = emulators.launch_spanner(logs=folder)
    with emulator.process:
        emulators.await_spanner(emulator)
        database = create_database(emulator.endpoint)
        emulators.spanner_client(emulator.endpoint).instance(INSTANCE).database(_METADATA).create().result(60)
        # The streams are there a moment later than their statement was answered, by the emulator's clock.
        time.sleep(1)
        command = program.command(
            endpoint=emulator.endpoint,
            database=database,
            metadata=_METADATA,
            streams=",".join(schema.change_streams()),
            # What is committed while the program starts is read too, as by the product.
            start=now(),
            out=out,
        )
        with Process.start("peer", command, log=folder / "peer.log") as process:
            yield Reader(
                process=process,
                endpoint=emulator.endpoint,
                database=database,
                parts=["peer"],
                watch=lambda: ProcessWatch(lambda: {"peer": process.pid}),
                latencies=lambda: peer_latencies(out.read_text() if out.exists() else ""),
            )


@contextmanager
def product(folder: Path) -> Iterator[Reader]:
    """The local stack. Raises RuntimeError."""
    state = State(folder)
    with local_stack(state, []) as process:
        stack = connection.load(state.connection)
        instance = f"projects/{stack.project}/instances/{stack.spanner_instance}"
        yield Reader(
            process=process,
            endpoint=stack.spanner_endpoint,
            database=f"{instance}/databases/{stack.spanner_database}",
            parts=["pipeline", "prism"],
            watch=lambda: Watch(state),
            latencies=lambda: product_latencies(state.arrivals.read_text() if state.arrivals.exists() else ""),
        )


Run = Callable[[Path], AbstractContextManager[Reader]]
_RUN: Final[Mapping[str, Run]] = {"peer": peer, "product": product}


def started(run: Run, measured: Callable[[Reader], dict[str, Any]]) -> dict[str, Any]:
    """What was measured of a side, with the number of `starts` that it took. Raises NotArrived after the last one."""
    start = 0
    while True:
        start += 1
        try:
            with tempfile.TemporaryDirectory() as folder, run(Path(folder)) as reader:
                return measured(reader) | {"starts": start}
        except NotArrived as error:
            if start == _STARTS:
                raise
            print(f"{error}\nStarted again.", file=sys.stderr, flush=True)


def measure(reader: Reader, tps: float, duration: float, seed: int, idle: float) -> dict[str, Any]:
    """One reader: its cores while nothing happens, then the traffic."""
    with tempfile.TemporaryDirectory() as ledgers:
        rate = min(tps, _WARM_UP_TPS)
        begun = _traffic(reader, rate, _WARM_UP_SECONDS, seed + 1, Path(ledgers) / "warm-up.jsonl")
        if (arrived := _await(reader, begun.changes)) < begun.changes:
            end = "\n".join(reader.process.output().splitlines()[-10:])
            raise NotArrived(f"{arrived} of the first {begun.changes} changes arrived. The end of its log:\n{end}")
        time.sleep(_SETTLE_SECONDS)
        result: dict[str, Any] = {"idle_cores": _idle(reader, idle)} if idle else {}
        if duration:
            result |= _loaded(reader, tps, duration, seed, Path(ledgers) / "ledger.jsonl")
    return result


def _idle(reader: Reader, seconds: float) -> float:
    watch, began = reader.watch(), time.monotonic()
    watch.start()
    time.sleep(seconds)
    watch.stop()
    return round(_cpu(reader, watch) / (time.monotonic() - began), 3)


def _loaded(reader: Reader, tps: float, duration: float, seed: int, ledger: Path) -> dict[str, Any]:
    before = len(reader.latencies())
    watch = reader.watch()
    watch.start()
    made = _traffic(reader, tps, duration, seed, ledger)
    arrived = _await(reader, before + made.changes) - before
    watch.stop()
    spent = _cpu(reader, watch)
    return {
        "commits_a_second": round(made.rate, 1),
        "changes": made.changes,
        "arrived": arrived,
        "latency_ms": percentiles(reader.latencies()[before:]),
        "cpu_seconds": round(spent, 1),
        "cpu_seconds_per_1000": round(spent / max(arrived, 1) * 1000, 1),
        "memory_mib": sum(watch.memory_mib(part)["most"] for part in reader.parts),
    }


def _cpu(reader: Reader, watch: ProcessWatch) -> float:
    return sum(watch.cpu_seconds().get(part, 0.0) for part in reader.parts)


def _traffic(reader: Reader, tps: float, duration: float, seed: int, ledger: Path) -> TrafficSummary:
    return run_traffic(
        endpoint=reader.endpoint,
        database=reader.database,
        tps=tps,
        duration=duration,
        seed=seed,
        ledger_path=ledger,
        # A dead letter arrives elsewhere, and the peer has none.
        no_dead_letters=True,
        stop=threading.Event(),
    )


def _await(reader: Reader, count: int) -> int:
    """Waits until this many changes have arrived, or too long; returns how many have."""
    deadline = time.monotonic() + _ARRIVE_SECONDS
    while (arrived := len(reader.latencies())) < count and reader.process.alive and time.monotonic() < deadline:
        time.sleep(0.5)
    return arrived


def show(result: Mapping[str, Any]) -> str:
    asked, load = result["asked"], result["machine"]
    return "\n".join(
        [
            f"{asked['tps']:g} commits a second for {asked['seconds']:g} s, idle for {asked['idle']:g} s; "
            f"{' then '.join(asked['order'])}, median of {len(result['rounds'])}; "
            f"load {load['load'][0]} to {load['load_after'][0]}",
            "",
            table(result["rounds"]),
            "",
            DIFFERS,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tps", type=float, default=5, help="Commits a second.  [5]")
    parser.add_argument("--duration", type=float, default=30, help="Seconds of traffic; 0: none.  [30]")
    parser.add_argument("--idle", type=float, default=30, help="Seconds without traffic before it; 0: none.  [30]")
    parser.add_argument("--rounds", type=int, default=1, help="Of both; the median counts.  [1]")
    parser.add_argument("--order", choices=SIDES, default="peer", help="Which is first.  [peer]")
    parser.add_argument("--seed", type=int, default=1, help="Seed of the traffic.  [1]")
    parser.add_argument("--name", help="Name of the result.  [peer-<tps>]")
    given = parser.parse_args()
    order = sorted(SIDES, key=lambda side: side != given.order)
    before, rounds = machine(), []
    try:
        # Before the product has run for minutes.
        program.check()
        for number in range(given.rounds):
            found = {}
            for side in order:
                print(f"[{number + 1}/{given.rounds}] {side} …", file=sys.stderr, flush=True)
                found[side] = started(
                    _RUN[side], lambda reader: measure(reader, given.tps, given.duration, given.seed, given.idle)
                )
            rounds.append(found)
    except AuditError as error:
        sys.exit(str(error))
    result = {
        "machine": before | {"load_after": machine()["load"]},
        "asked": {"tps": given.tps, "seconds": given.duration, "idle": given.idle, "seed": given.seed, "order": order},
        "rounds": rounds,
    }
    print(show(result))
    print(f"\nKept in {keep(given.name or f'peer-{given.tps:g}', result)}")


if __name__ == "__main__":
    main()
