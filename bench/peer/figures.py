"""What came of both, side by side. Pure: no process, no emulator."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from contract.timestamps import normalise, to_nanos

Side = Mapping[str, Any]
SIDES: Final = ("peer", "product")
DIFFERS: Final = (
    "The peer appends each change to a file as it is, at least once. The product masks it, enriches it, and writes it "
    "to BigQuery's emulator exactly once; its row has arrived when a query sees it. CPU and memory are those of the "
    "Java process, and of pipeline and Prism; the emulators' are left out on both sides."
)
ROWS: Final[Sequence[tuple[str, str, Callable[[Side], Any]]]] = (
    ("commits a second, made", ",.1f", lambda side: side["commits_a_second"]),
    ("changes committed", ",.0f", lambda side: side["changes"]),
    ("changes arrived", ",.0f", lambda side: side["arrived"]),
    ("commit → arrived, p50, ms", ",.0f", lambda side: side["latency_ms"]["p50"]),
    ("commit → arrived, p95, ms", ",.0f", lambda side: side["latency_ms"]["p95"]),
    ("commit → arrived, p99, ms", ",.0f", lambda side: side["latency_ms"]["p99"]),
    ("CPU seconds per 1,000 changes", ",.1f", lambda side: side["cpu_seconds_per_1000"]),
    ("memory at most, MiB", ",.0f", lambda side: side["memory_mib"]),
    ("idle, cores", ".2f", lambda side: side["idle_cores"]),
    ("starts until it read", ".0f", lambda side: side["starts"]),
)


def figures(rounds: Sequence[Mapping[str, Side]]) -> list[tuple[str, str, str]]:
    """Name, peer's, product's: the median of each figure over the rounds; what was not measured is left out."""
    found = []
    for name, form, figure in ROWS:
        with contextlib.suppress(KeyError):
            both = [format(statistics.median(figure(each[side]) for each in rounds), form) for side in SIDES]
            found.append((name, both[0], both[1]))
    return found


def table(rounds: Sequence[Mapping[str, Side]]) -> str:
    """Both side by side."""
    lines = [f"| {name} | {peer} | {product} |" for name, peer, product in figures(rounds)]
    return "\n".join(["| | peer | product |", "|---|---|---|", *lines])


def peer_latencies(text: str) -> list[float]:
    """Of each change once: the peer's lines can repeat. The last one may be half written."""
    found: dict[str, float] = {}
    for line in text.split("\n")[:-1]:
        committed, arrived, change, _ = line.split("\t", 3)
        took = to_nanos(normalise(arrived)) - to_nanos(normalise(committed))
        found.setdefault(change, took / 1e6)
    return list(found.values())


def product_latencies(text: str) -> list[float]:
    """Of each row, as the BigQuery emulator noted it."""
    return [float(each) for line in text.split("\n")[:-1] for each in json.loads(line)["latencies_ms"]]
