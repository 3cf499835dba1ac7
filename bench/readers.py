"""Several readers of one change stream, each measured alone: python -m bench.readers [--partitions 20000] [--rounds 3]

A reader takes its share of the partitions and carries recorded changes through the whole chain, as `pipeline_only`
does, with Beam's calls for each record and a checkpoint for each bundle. Queries are answered from memory. Measured is
the CPU of one reader after the other; what all of them together carry, a core each, is arithmetic.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from itertools import cycle, islice
from typing import Any, Final

from bench.pipeline_only import BATCH, Chain, Round
from bench.record import recording
from bench.results import keep, machine
from contract.timestamps import from_nanos, to_nanos
from pipeline.source import wire
from pipeline.source.beam_source import _MAX_RECORDS_PER_BUNDLE, ChangeStreamReader
from pipeline.source.partition_threads import Item, Reading
from pipeline.source.partitions import PartitionSet, Share
from pipeline.source.query import ChangeStream
from pipeline.source.records import Child, DataChange, RecordReader

READERS: Final = (1, 2, 4, 8)
_RECORDS: Final = 10_000
_START: Final = "2026-11-23T09:00:00.000000000Z"
_STREAM: Final = ChangeStream(name="S", database="projects/p/instances/i/databases/d", endpoint="127.0.0.1:1")


class _Query:
    """A change stream's first partitions."""

    mutable = False

    def __init__(self, partitions: int) -> None:
        self._roots = [Child(f"{i:0160x}", _START, ()) for i in range(partitions)]

    def roots(self, start: str) -> list[Child]:
        return self._roots


class _Held:
    """In the place of the partitions' threads: what they have read."""

    closed = False
    in_turn = 1

    def __init__(self) -> None:
        self.items: deque[tuple[str, Item]] = deque()

    def __contains__(self, token: str) -> bool:
        return True

    def read(self, partitions: dict[str, str]) -> None:
        """Nobody asks: the items are there."""

    def next(self, wait: float = 0.0, *, gathers: bool = False) -> tuple[str, Item] | None:
        return self.items.popleft() if self.items else None

    def rest(self, *, has_put_out: bool) -> None:
        """No other reader is in its process."""


def worker(share: Share, partitions: int, responses: dict[str, list[bytes]]) -> float:
    """Records a CPU second of one reader with its share of the partitions."""
    chain, result = Chain(), Round()
    reader = ChangeStreamReader(_STREAM, Reading(), PartitionSet(_START, share=share))
    held = _Held()
    reader._query, reader._readers = _Query(partitions), held  # type: ignore[assignment]
    reader._stands_at = None
    reader._discover()
    tokens = list(reader._partitions.readable())
    began = time.process_time()
    parsed = [
        record
        for stream, kept in responses.items()
        for record in RecordReader(stream).records(map(wire.Response.FromString, kept))
        if isinstance(record, DataChange)
    ]
    parsing = (time.process_time() - began) / len(parsed)
    at = to_nanos(_START)
    for i, record in enumerate(islice(cycle(parsed), _RECORDS)):
        moved = record._replace(commit_timestamp=from_nanos(at + i * 1_000_000))
        held.items.append((tokens[i % len(tokens)], moved))
    batch: list[DataChange] = []
    carried = since = 0
    began = time.process_time()
    while reader.advance():
        current = reader.get_current()
        reader.get_current_timestamp()
        reader.get_watermark()
        if isinstance(current, DataChange):
            batch.append(current)
        carried += 1
        since += 1
        if len(batch) == BATCH:
            chain._carry(batch, result)
            batch = []
        if since == _MAX_RECORDS_PER_BUNDLE:
            reader.get_checkpoint_mark()
            reader._stands_at = None
            since = 0
    chain._carry(batch, result)
    return _RECORDS / (time.process_time() - began + parsing * _RECORDS)


def measure(partitions: int, rounds: int) -> dict[str, Any]:
    """For each number of readers the median, over readers and rounds, of the records a CPU second of one.

    In each round all numbers have their turn: what else the machine does changes within seconds, and is nobody's alone.
    """
    responses = recording()
    worker(Share(0, 1), partitions, responses)
    found: dict[int, list[float]] = {readers: [] for readers in READERS}
    for _ in range(rounds):
        for readers, of in found.items():
            of += [worker(Share(i, readers), partitions, responses) for i in range(readers)]
    rates = {readers: statistics.median(each) for readers, each in found.items()}
    return {
        "machine": machine(),
        "partitions": partitions,
        "rounds": rounds,
        "records_a_cpu_second_of_one_reader": {n: round(rate) for n, rate in rates.items()},
        "arithmetic_of_all_readers": {n: round(n * rate) for n, rate in rates.items()},
        "arithmetic_against_linear": {n: round(rate / rates[1], 2) for n, rate in rates.items()},
    }


def show(result: dict[str, Any]) -> str:
    rates, sums = result["records_a_cpu_second_of_one_reader"], result["arithmetic_of_all_readers"]
    return "\n".join(
        [
            f"{result['partitions']:,} partitions, each reader measured alone, medians",
            *(
                f"  {n} readers: {rates[n]:>7,} records a CPU second each (measured), {sums[n]:>8,} in all "
                f"(arithmetic, a core each), {result['arithmetic_against_linear'][n]:.2f} of linear"
                for n in rates
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=20_000, help="Of the stream, live at once.  [20000]")
    parser.add_argument("--rounds", type=int, default=3, help="Of each reader.  [3]")
    options = parser.parse_args()
    result = measure(options.partitions, options.rounds)
    print(show(result))
    print(f"Kept in {keep('readers', result)}")


if __name__ == "__main__":
    main()
