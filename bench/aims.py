"""The speed table: each aim, what was measured, and why it is missed where it is: python -m bench.aims

It reads what the other programs have kept in bench/results and writes docs/speed.md; `python -m bench` ends with it. An
aim without a result here keeps the row that the page has of it, with its machine and date; without such a row it is in
the table as not measured.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from bench.peer.figures import figures
from bench.results import kept
from delivery.assumptions import GIB, HOURS
from delivery.prices import Prices

PAGE: Final = Path(__file__).parents[1] / "docs" / "speed.md"
Result = Mapping[str, Any]
Verdict = Literal["met", "missed", "stated", "not measured"]

P99_MILLIS: Final = 1000
# Memory is flat if it grows by no more over the second half of a run.
_FLAT_MIB_A_MINUTE: Final = 1.0
# A generator of load that is late by a scheduler's tick is not late.
_MADE_SHARE: Final = 0.98
# Of a change record as Spanner sends it: the recording's.
_BYTES_A_CHANGE: Final = 2151
_REGION: Final = "us-central1"
_GIB_A_CPU: Final = 4
_HEAD: Final = """# Speed

Written by `python -m bench.aims`, with which `make bench` ends, from the results that it has kept. Latency is from the
commit in Spanner to the moment at which a query on BigQuery sees the row. A row stays until it is measured again: its
last column says when that was, and where. What each program runs, and earlier figures: [benchmarks](benchmarks.md).

| what | aim | measured | | reason | machine, load, date |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Figure:
    """What a result says of an aim. `met` None: there is nothing to meet, the figure itself is the aim. `short` says
    what a run lacks of the one that the aim is about: it can miss the aim, and not meet it."""

    text: str
    met: bool | None
    short: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.short and self.met is not False:
            return "not measured"
        return "stated" if self.met is None else "met" if self.met else "missed"


@dataclass(frozen=True, kw_only=True)
class Aim:
    """`run` is the module and the options that keep the result `name`; `because` the reason, where it is missed."""

    what: str
    aim: str
    name: str
    run: tuple[str, ...]
    figure: Callable[[Result], Figure]
    because: str = ""
    long: bool = False


def _pipeline(result: Result) -> Figure:
    rate = result["records_a_cpu_second"]
    return Figure(f"{rate:,}", rate >= 20_000)


def _unmasked(result: Result) -> Figure:
    rate = result["records_a_cpu_second_without_masking"]
    return Figure(f"{rate:,}", rate >= 40_000)


def _p99_under(millis: int) -> Callable[[Result], Figure]:
    def figure(result: Result) -> Figure:
        latency, made = result["latency_ms"], result["traffic"]["commits_a_second"]
        asked = result["asked"]["tps"]
        text = f"{_latency(latency)}{_rounds(result)}"
        short = "" if made >= asked * _MADE_SHARE else f"the traffic made {made:g} commits a second of {asked:g}"
        return Figure(text, latency["p99"] < millis and result["check"]["ok"], short)

    return figure


def _cpu(result: Result) -> Figure:
    spent = sum(result["cpu_seconds"].get(name, 0.0) for name in ("pipeline", "prism"))
    each = spent / result["traffic"]["changes"] * 1000
    return Figure(f"{each:.1f}", each <= 3.8)


def _idle(result: Result) -> Figure:
    cores = result["cores_of_the_product"]
    return Figure(f"{cores:.2f}{_rounds(result)}", cores <= 0.1)


def _strict(seconds: float, *, latency: bool) -> Callable[[Result], Figure]:
    """A run of this many seconds: all there, memory flat, and its latency too where it counts."""

    def figure(result: Result) -> Figure:
        asked, made, p99 = result["asked"], result["commits_a_second"], result["latency_ms"]["p99"]
        job = result["memory_mib"]["job"]
        growth = job["growth_mib_a_minute_second_half"]
        met = result["check"]["ok"] and growth <= _FLAT_MIB_A_MINUTE and (not latency or p99 < P99_MILLIS)
        short = [f"{asked['seconds']:g} s of {seconds:g}"] * (asked["seconds"] < seconds)
        if made < asked["rate"] * _MADE_SHARE:
            short.append(f"{made:g} commits a second of {asked['rate']:g}")
        text = f"{result['check']['text']}; {_latency(result['latency_ms'])}; {job['most']} MiB, {growth:+g} a minute"
        return Figure(text, met, ", ".join(short))

    return figure


def _breaking(result: Result) -> Figure:
    if result["broke"] is None:
        short = "" if max(result["asked"]["rates"]) >= 5000 else "no rate broke, and 5,000 was not tried"
        return Figure(f"{result['held']:g} a second hold", None, short)
    return Figure(f"{result['held']:g} a second hold, {result['broke']:g} do not: {result['why']}", None)


def _readers(result: Result) -> Figure:
    rates, linear = result["records_a_cpu_second_of_one_reader"], result["arithmetic_against_linear"]
    text = ", ".join(f"{n}: {rates[n]:,} ({linear[n]:.2f} of linear)" for n in rates)
    met = min(rates.values()) >= 5000 and min(linear.values()) >= 0.9
    return Figure(text, met, "" if result["partitions"] >= 20_000 else f"{result['partitions']:,} partitions of 20,000")


def _bill(result: Result) -> Figure:
    """Arithmetic: a core for each reader, at the rate of one of the most readers that were measured."""
    rates = result["records_a_cpu_second_of_one_reader"]
    rate = rates[max(rates, key=int)]
    return Figure("; ".join(bill(changes, rate) for changes in (100_000, 1_000_000)), None)


def bill(changes: int, rate: float) -> str:
    """What this many changes a second take on Dataflow at `rate` changes a core and second, and cost a month."""
    prices = Prices.load()
    cores = math.ceil(changes / rate)
    core = prices.of("dataflow-vcpu", _REGION).dollars + _GIB_A_CPU * prices.of("dataflow-memory", _REGION).dollars
    # Read once, and once more across the one shuffle.
    gib = 2 * changes * HOURS * 3600 * _BYTES_A_CHANGE / GIB
    engine = gib * prices.of("dataflow-streaming-engine", _REGION).dollars
    return f"{changes:,} a second: {cores:,} cores, ${cores * core * HOURS:,.0f}, and Streaming Engine ${engine:,.0f}"


def _backlog(result: Result) -> Figure:
    rate, changes = result["changes_a_second"], result["changes"]
    short = "" if changes >= 990_000 else f"{changes:,} changes of 1,000,000"
    return Figure(f"{rate:,} a second; {result['check']['text']}", rate >= 10_000 and result["check"]["ok"], short)


def _checkpoint(result: Result) -> Figure:
    return Figure(", ".join(f"{int(n):,}: {size:,} bytes" for n, size in result["bytes"].items()), None)


def _start(result: Result) -> Figure:
    start, resume = result["start_seconds"], result["resume_seconds"]
    return Figure(f"{start:g} s, {resume:g} s, median of {len(result['starts'])}", max(start, resume) < 5)


def _peer(result: Result) -> Figure:
    """The median of each figure over the rounds."""
    found = figures(result["rounds"])
    return Figure("; ".join(f"{name}: {peer} and {product}" for name, peer, product in found), None)


_MASKING: Final = (
    "masking is a third to a half of the path: it looks at every value of every row, twice at what holds a card"
)
_EMULATORS: Final = (
    "both emulators share the two cores, Spanner's scans all records for each query, an append to BigQuery's costs 65 "
    "to 96 ms of CPU"
)
_IDLE: Final = (
    "four fifths of it is the job, which asks Spanner's emulator about each partition five times a second, and "
    "reports its progress ten times a second"
)
_BUNDLES: Final = (
    "two thirds of it is the job's, a third Prism's, and both by bundles more than by changes: fewer of them cost less "
    "(`batchMillis`)"
)
AIMS: Final = (
    Aim(
        what="pipeline alone, records a CPU second, with masking",
        aim="20,000",
        name="pipeline_only",
        run=("pipeline_only",),
        figure=_pipeline,
        because=_MASKING,
    ),
    Aim(
        what="… without the stage that masks",
        aim="40,000",
        name="pipeline_only",
        run=("pipeline_only",),
        figure=_unmasked,
        because="what is left is reading protocol buffers and encoding Arrow rows, both in Python, record by record",
    ),
    Aim(
        what="end to end on the emulators at 50/s, masking included",
        aim="p99 < 1 s",
        name="live-50",
        run=("live", "--tps=50", "--duration=120", "--rounds=3"),
        figure=_p99_under(1000),
        because=_EMULATORS,
    ),
    Aim(
        what="… at 5/s",
        aim="p99 < 600 ms",
        name="live-5",
        run=("live", "--tps=5", "--duration=60", "--rounds=3"),
        figure=_p99_under(600),
        because=_EMULATORS,
    ),
    Aim(
        what="CPU seconds per 1,000 changes at 50/s, pipeline and Prism",
        aim="≤ 3.8, a twentieth of the peer's 76",
        name="live-50",
        run=("live", "--tps=50", "--duration=120", "--rounds=3"),
        figure=_cpu,
        because=_BUNDLES,
    ),
    Aim(
        what="idle, cores of pipeline and Prism",
        aim="≤ 0.1",
        name="idle",
        run=("idle", "--rounds=3"),
        figure=_idle,
        because=_IDLE,
    ),
    Aim(
        what="beside Beam's Java connector, 5 commits a second: peer and product",
        aim="stated",
        name="peer-5",
        run=("peer", "--rounds=3"),
        figure=_peer,
    ),
    Aim(
        what="500 commits/s between strict services, two cores, ten minutes",
        aim="0 missing, p99 < 1 s, memory flat (≤ 1 MiB a minute)",
        name="strict-500",
        run=("strict", "--rate=500", "--duration=600"),
        figure=_strict(600, latency=True),
        because="of these, what the figures show; over 30 minutes memory is flat",
        long=True,
    ),
    Aim(
        what="5,000 commits/s, and the breaking point on two cores",
        aim="said, with what breaks",
        name="breaking",
        run=("breaking",),
        figure=_breaking,
    ),
    Aim(
        what="records a CPU second of one of 1, 2, 4, 8 readers over 20,000 partitions",
        aim="≥ 5,000 each, linear within 10 %",
        name="readers",
        run=("readers",),
        figure=_readers,
        because="one reader carries no more than the pipeline alone; other programs change each of these short rounds",
    ),
    Aim(
        what="100,000 and 1,000,000 changes/s on Dataflow a month: arithmetic, the pipeline's own CPU alone",
        aim="written down with its bill",
        name="readers",
        run=("readers",),
        figure=_bill,
    ),
    Aim(
        what="backlog of 1,000,000 changes between strict services, two cores",
        aim="≥ 10,000/s",
        name="backlog",
        run=("backlog",),
        figure=_backlog,
        because="on one machine the job is one process of Python, which computes on one core at a time and has all of "
        "it; Dataflow has a process for each",
    ),
    Aim(
        what="memory of the job over 30 minutes at 500/s",
        aim="flat (≤ 1 MiB a minute)",
        name="strict-memory",
        run=("strict", "--rate=500", "--duration=1800", "--name=strict-memory"),
        figure=_strict(1800, latency=False),
        because="not examined: the result has the samples",
        long=True,
    ),
    Aim(
        what="checkpoint of a stream at 1, 100, 10,000 partitions",
        aim="stated",
        name="checkpoint",
        run=("checkpoint",),
        figure=_checkpoint,
    ),
    Aim(
        what="start to the first row, kill to the next row",
        aim="< 5 s",
        name="start",
        run=("start",),
        figure=_start,
        because="a start imports Beam and Google's clients, checks its settings and starts Prism",
    ),
)


def table(results: Callable[[str], Result | None] = kept, before: str = "") -> str:
    """A row for each aim. `results` gives a result by its name; `before` is the page as it was."""
    earlier = {tuple(row[:2]): row for row in map(_cells, before.splitlines())}
    rows = (_row(aim, results(aim.name)) or earlier.get((aim.what, aim.aim)) or _not_measured(aim) for aim in AIMS)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def _not_measured(aim: Aim) -> list[str]:
    return [aim.what, aim.aim, "–", "not measured", f"`python -m bench.{' '.join(aim.run)}`", ""]


def _row(aim: Aim, result: Result | None) -> list[str] | None:
    if result is None:
        return None
    figure = aim.figure(result)
    verdict = figure.verdict
    reason = aim.because if verdict == "missed" else ""
    shown = "**missed**" if verdict == "missed" else verdict
    return [aim.what, aim.aim, figure.text, shown, "; ".join(filter(None, [figure.short, reason])), _machine(result)]


def _machine(result: Result) -> str:
    on = result["machine"]
    load = " to ".join(f"{each[0]:g}" for each in (on["load"], on.get("load_after")) if each)
    return f"{on['cores']} cores, {on['memory_gib']:.0f} GiB, {on['cpu']}; load {load}; {on['at'][:10]}"


def _latency(latency: Mapping[str, int]) -> str:
    return f"p50/p95/p99 {latency['p50']:,}/{latency['p95']:,}/{latency['p99']:,} ms"


def _rounds(result: Result) -> str:
    """What is written behind a figure that is the median of some."""
    rounds = result.get("rounds", ())
    return f", median of {len(rounds)}" if len(rounds) > 1 else ", one run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    rows = table(before=PAGE.read_text())
    PAGE.write_text(_HEAD + rows)
    print(rows)
    print(f"Written to docs/{PAGE.name}")


if __name__ == "__main__":
    main()
