"""The pipeline without I/O and without Beam: responses of a change stream → encoded append requests.

    python -m bench.pipeline_only [--rounds N] [--profile]

It runs the product's own functions in the order of the job, in batches as large as an append, and times each stage in
CPU seconds of this process. BigQuery is a stand-in that takes the request's bytes and says yes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

from google.cloud.bigquery_storage_v1 import types

from bench.record import recording
from bench.results import keep, machine
from bench.sampling import profiled
from contract import payments, tables
from contract.changes import Change, StepError
from contract.watched import WatchedTables
from pipeline.sink import rows
from pipeline.sink.changelogs import Changelogs, Destinations, schema_field
from pipeline.sink.shards import Shard, SinkClients, StreamPosition
from pipeline.source import wire
from pipeline.source.records import DataChange, RecordReader
from pipeline.transforms import decode
from pipeline.transforms.enrich import enrich
from pipeline.transforms.filter import Ignored
from pipeline.transforms.filter import keep as is_kept
from pipeline.transforms.keys import KEY_BYTES, MaskingKeys
from pipeline.transforms.mask import Masker

BATCH: Final = 500
STAGES: Final = ("read", "decode", "mask", "enrich", "filter", "encode", "append")


@dataclass
class Round:
    """CPU seconds by stage, and what came out."""

    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    records: int = 0
    rows: int = 0
    dead_letters: int = 0
    appends: int = 0
    request_bytes: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.cpu[name] += time.process_time() - began


WATCHED: Final = WatchedTables.load()


class Chain:
    """The steps of the job with their settings, as a worker holds them: made once, used for every record."""

    def __init__(self) -> None:
        self._masker = Masker(MaskingKeys({"v1": bytes(range(KEY_BYTES))}), WATCHED, new_columns="hold")
        self._states = payments.PAYMENT_STATES
        self._ignored = Ignored.parse()
        self._readers: dict[str, RecordReader] = {}
        self._bigquery = BigQueryStandIn()
        self._shards: dict[str, Shard] = {}
        self._positions: dict[str, StreamPosition | None] = {}

    def run(self, responses: dict[str, list[bytes]]) -> Round:
        """Takes all the responses through the chain once."""
        result = Round()
        for stream, kept in responses.items():
            reader = self._readers.setdefault(stream, RecordReader(stream))
            records = reader.records(map(wire.Response.FromString, kept))
            while batch := self._read(records, result):
                self._carry(batch, result)
        result.request_bytes = self._bigquery.take_bytes()
        return result

    def _read(self, records: Iterator[Any], result: Round) -> list[DataChange]:
        batch: list[DataChange] = []
        with result.stage("read"):
            for record in records:
                if isinstance(record, DataChange):
                    batch.append(record)
                    if len(batch) == BATCH:
                        break
        result.records += sum(len(record.mods) for record in batch)
        return batch

    def _carry(self, records: list[DataChange], result: Round) -> None:
        with result.stage("decode"):
            changes = [decode.decode(record, i) for record in records for i in range(len(record.mods))]
        with result.stage("mask"):
            changes = self._each(changes, self._masker.mask, result)
        with result.stage("enrich"):
            changes = self._each(changes, lambda change: enrich(change, WATCHED.of(change.table), self._states), result)
        with result.stage("filter"):
            changes = [change for change in changes if is_kept(change, self._ignored)]
        with result.stage("encode"):
            encoded, failed = self._encode(changes)
        result.dead_letters += failed
        with result.stage("append"):
            for group, data in encoded:
                self._append(group, data, result)

    @staticmethod
    def _each(changes: list[Change], step: Callable[[Change], Any], result: Round) -> list[Change]:
        done = []
        for change in changes:
            try:
                step(change)
            except StepError:
                result.dead_letters += 1
            else:
                done.append(change)
        return done

    @staticmethod
    def _encode(changes: list[Change]) -> tuple[list[tuple[Change, bytes]], int]:
        """What EncodeRows does with a bundle: (a change that stands for the batch's table and columns, its rows)."""
        groups: dict[Any, list[Change]] = defaultdict(list)
        for change in changes:
            groups[change.table, change.columns].append(change)
        encoded, failed = [], 0
        for group in groups.values():
            batch, faults = rows.encode(group, WATCHED.of(group[0].table))
            failed += len(faults)
            if batch is not None:
                encoded.append((group[0], rows.to_bytes(batch)))
        return encoded, failed

    def _append(self, of: Change, data: bytes, result: Round) -> None:
        """What AppendRows does with a gathered batch, up to the bytes of the request."""
        shard = self._shards.get(of.table)
        if shard is None:
            shard = self._shards[of.table] = Shard(self._bigquery.clients(), of.table, "0")
        batch = rows.merge([data])
        position, outcome = shard.append(self._positions.get(of.table), batch, of.columns)
        self._positions[of.table] = position
        result.rows += outcome.appended
        result.appends += outcome.appends


class BigQueryStandIn:
    """Answers as BigQuery does when nothing fails, from memory."""

    def __init__(self) -> None:
        self._bytes = 0
        self._tables = {table.id: table for table in tables.changelogs(WATCHED).values()}

    def clients(self) -> SinkClients:
        destinations = Destinations(project="p", watched=WATCHED, dataset=WATCHED.payments.dataset)
        return SinkClients(
            write=self,
            query=None,
            changelogs=Changelogs(self, destinations),
            destinations=destinations,
            generations=self,  # type: ignore[arg-type]
            generation=1,
        )

    def take_bytes(self) -> int:
        taken, self._bytes = self._bytes, 0
        return taken

    def get_table(self, table_id: str) -> Any:
        table = self._tables[table_id.removeprefix("p.")]
        return SimpleNamespace(schema=[schema_field(f) for f in table.fields])

    def stream(self, *_: Any) -> None:
        """No stream is recorded: the shard opens its first."""

    def record_stream(self, *_: Any, **__: Any) -> str:
        return "2026-01-01T00:00:00.000000000Z"

    def create_write_stream(self, *, parent: str, **_: Any) -> Any:
        return SimpleNamespace(name=f"{parent}/streams/s1")

    def append_rows(self, requests: Iterator[Any], **_: Any) -> Iterator[Any]:
        for request in requests:
            self._bytes += len(types.AppendRowsRequest.serialize(request))
            yield types.AppendRowsResponse()


def measure(rounds: int) -> dict[str, Any]:
    """Median CPU of `rounds` rounds over the recording, after one to warm up."""
    responses = recording()
    chain = Chain()
    chain.run(responses)
    done = [chain.run(responses) for _ in range(rounds)]
    first = done[0]
    per_record = {name: statistics.median(r.cpu[name] / r.records for r in done) * 1e6 for name in STAGES}
    whole = [sum(r.cpu.values()) / r.records * 1e6 for r in done]
    unmasked = [each - r.cpu["mask"] / r.records * 1e6 for each, r in zip(whole, done, strict=True)]
    return {
        "machine": machine(),
        "records": first.records,
        "rows": first.rows,
        "dead_letters": first.dead_letters,
        "appends": first.appends,
        "request_bytes_a_row": round(first.request_bytes / first.rows),
        "response_bytes_a_record": round(sum(len(r) for kept in responses.values() for r in kept) / first.records),
        "rounds": rounds,
        "micros_a_record": {name: round(value, 1) for name, value in per_record.items()},
        "micros_a_record_whole": {"median": round(statistics.median(whole), 1), "best": round(min(whole), 1)},
        "records_a_cpu_second": round(1e6 / statistics.median(whole)),
        "records_a_cpu_second_without_masking": round(1e6 / statistics.median(unmasked)),
    }


def show(result: dict[str, Any]) -> str:
    lines = [
        f"{result['records']:,} change records → {result['rows']:,} rows in {result['appends']} appends, "
        f"{result['dead_letters']} dead letters; CPU, median of {result['rounds']} rounds",
        *(f"  {name:<8} {micros:>7.1f} µs a record" for name, micros in result["micros_a_record"].items()),
        f"  {'whole':<8} {result['micros_a_record_whole']['median']:>7.1f} µs a record "
        f"(best {result['micros_a_record_whole']['best']:.1f})",
        f"  {result['records_a_cpu_second']:,} records a CPU second, "
        f"{result['records_a_cpu_second_without_masking']:,} without the stage that masks",
    ]
    return "\n".join(lines)


def profile(rounds: int) -> str:
    """Where the CPU time goes, function by function."""
    responses = recording()
    chain = Chain()
    chain.run(responses)
    with profiled() as found:
        for _ in range(rounds):
            chain.run(responses)
    return found.table()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="Rounds over the recording.  [7]")
    parser.add_argument("--profile", action="store_true", help="Show the functions that cost most.")
    options = parser.parse_args()
    if options.profile:
        print(profile(options.rounds))
        return
    result = measure(options.rounds)
    print(show(result))
    print(f"Kept in {keep('pipeline_only', result)}")


if __name__ == "__main__":
    main()
