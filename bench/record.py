"""Records change record responses of a real Spanner emulator, so that the pipeline can be measured without one.

The recording holds the simulator's card numbers. It is made on first use into bench/results, which git ignores.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc

from bench.results import RESULTS
from contract import schema
from contract.timestamps import after
from local.emulators import launch as emulators
from local.emulators.launch import INSTANCE, PROJECT
from local.traffic.command import TrafficSummary, run_traffic
from local.traffic.ledger import read_ledger
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.records import ChildPartitions

SEED: Final = 1
RECORDS: Final = 5_000
_LENGTH: Final = struct.Struct("<I")


def recording(*, records: int = RECORDS, seed: int = SEED) -> dict[str, list[bytes]]:
    """Change stream → its serialized PartialResultSets, `records` records or a few more. Recorded on first use."""
    folder = RESULTS / f"recording-{records}-seed-{seed}"
    if not folder.exists():
        print(f"Recording {records:,} change records from a Spanner emulator …", file=sys.stderr)
        _record(folder, records, seed)
    return {file.stem: list(_responses(file)) for file in sorted(folder.glob("*.responses"))}


def _record(folder: Path, records: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # Partitions that outlive the recording: splits and merges would only add responses without changes.
        emulator = emulators.launch_spanner(logs=Path(scratch), partition_seconds=3600)
        with emulator.process:
            emulators.await_spanner(emulator)
            database = create_database(emulator.endpoint)
            ledger = Path(scratch) / "ledger.jsonl"
            _make_traffic(emulator.endpoint, database, ledger, records, seed)
            entries = list(read_ledger(ledger))
            first, last = entries[0].commit_timestamp, entries[-1].commit_timestamp
            found = {name: _read(emulator.endpoint, database, name, first, last) for name in schema.change_streams()}
    part = folder.with_suffix(".part")
    part.mkdir(parents=True, exist_ok=True)
    for name, responses in found.items():
        (part / f"{name}.responses").write_bytes(b"".join(_LENGTH.pack(len(r)) + r for r in responses))
    part.rename(folder)


def create_database(endpoint: str) -> str:
    """An instance with the source's tables and change streams; returns the database's resource name."""
    client = emulators.spanner_client(endpoint)
    instance = client.instance(INSTANCE, configuration_name=f"projects/{PROJECT}/instanceConfigs/emulator-config")
    instance.create().result(30)
    database = instance.database("audit-db", ddl_statements=schema.statements())
    database.create().result(60)
    return str(database.name)


def _make_traffic(endpoint: str, database: str, ledger: Path, records: int, seed: int) -> None:
    enough = threading.Event()

    def look(so_far: TrafficSummary) -> None:
        if so_far.changes >= records:
            enough.set()

    run_traffic(
        endpoint=endpoint,
        database=database,
        tps=10_000,
        duration=None,
        seed=seed,
        ledger_path=ledger,
        on_progress=look,
        stop=enough,
    )


def _read(endpoint: str, database: str, name: str, first: str, last: str) -> list[bytes]:
    """The responses of every partition between two commits."""
    with grpc.insecure_channel(endpoint) as channel:
        kept = _Keeping(channel)
        query = ChangeStreamQuery(ChangeStream(name=name, database=database, endpoint=endpoint), kept)
        waiting, seen = query.roots(first), set()
        kept.responses.clear()
        while waiting:
            child = waiting.pop()
            if child.token in seen or child.start > last:
                continue
            seen.add(child.token)
            for record in query.run(max(first, child.start), token=child.token, end=after(last)):
                if isinstance(record, ChildPartitions):
                    waiting += record.children
    return kept.responses


class _Keeping:
    """A gRPC channel that keeps the responses of streaming calls as they came."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.responses: list[bytes] = []

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._channel.unary_unary(*args, **kwargs)

    def unary_stream(self, path: str, *, response_deserializer: Callable[[bytes], Any], **kwargs: Any) -> Any:
        def keep(data: bytes) -> Any:
            self.responses.append(data)
            return response_deserializer(data)

        return self._channel.unary_stream(path, response_deserializer=keep, **kwargs)


def _responses(file: Path) -> Iterator[bytes]:
    data = file.read_bytes()
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size + length
        yield data[at - length : at]


if __name__ == "__main__":
    for stream, kept in recording().items():
        print(f"{stream}: {len(kept):,} responses, {sum(map(len, kept)):,} bytes")
