"""The job in one process: its own source, steps and sink, with this module in the place of the runner.

What a runner does and may do: bundles with their checkpoint, kept or lost as one; elements that wait before the
shuffle's other side until a bundle takes all of a key; keyed state that is lost with a bundle that failed after its
append; a job that ends, drained or killed, and the next one with another number of readers.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal

from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.timestamp import MAX_TIMESTAMP

from contract import tables
from contract.payments import PAYMENT_STATES
from pipeline import clients
from pipeline.clients import Endpoints
from pipeline.sink import fencing
from pipeline.sink.append import AppendRows
from pipeline.sink.changelogs import Changelogs, Destinations
from pipeline.sink.encode import EncodedRows, EncodeRows
from pipeline.sink.shards import SinkClients
from pipeline.sink.track_position import _Reader, slowest
from pipeline.source.beam_source import ChangeStreamSource, PartitionSetMark
from pipeline.source.completion import Completer, Rows
from pipeline.source.partition_threads import Reading
from pipeline.source.query import ChangeStream
from pipeline.source.records import ReadPosition
from pipeline.steps import CLOCK, POSITIONS, ToRows
from pipeline.transforms.filter import Ignored, IgnoredRecords
from pipeline.transforms.settings import TransformSettings
from tests.erased import nobody
from tests.strict.bigquery import StrictBigQuery
from tests.strict.drawn import DATASET, DESCRIBED, IGNORED_TAG, KEY, Drawn, first_columns
from tests.strict.generations import InMemoryGenerations, Ledger
from tests.unit.test_append_rows import Cell

PROJECT: Final = "audit-tests"


def masking_keys(folder: Path) -> str:
    """A file of masking keys, as the option names it."""
    path = folder / "keys.json"
    path.write_text(json.dumps({"v1": base64.b64encode(KEY).decode()}))
    return f"file:{path}"


class Steps:
    """Everything between the source and the shuffle: records → encoded rows, keyed by table and shard."""

    def __init__(self, keys: str, rows: Rows, shards: int) -> None:
        settings = TransformSettings(
            masking_keys=keys,
            new_columns="scan",
            payment_states=PAYMENT_STATES,
            ignored=Ignored(),
            watched=DESCRIBED,
            erased=nobody,
        )
        self._step = ToRows(settings, EncodeRows(DESCRIBED, shards, 500), None, IgnoredRecords.parse(tags=IGNORED_TAG))
        self._step.setup()
        self._step._completer = Completer(rows)

    def bundle(self, records: Iterable[Any]) -> tuple[list[tuple[str, EncodedRows]], list[ReadPosition]]:
        """What leaves of one bundle. A dead letter is an error: no drawn change is one."""
        encoded: list[tuple[str, EncodedRows]] = []
        positions: list[ReadPosition] = []
        self._step.start_bundle()
        outputs = [output for record in records for output in self._step.process(record)]
        for output in (*outputs, *self._step.finish_bundle()):
            if not isinstance(output, TaggedOutput):
                encoded.append(output.value)
            elif output.tag == POSITIONS:
                positions.append(output.value[1])
            else:
                assert output.tag == CLOCK, f"a dead letter: {output.value}"
        return encoded, positions


@dataclass(frozen=True)
class Faults:
    """What goes wrong, in the order of its turns; after the last one nothing does.

    `bundles`: most records of a bundle, and whether it is kept, lost with its worker, given up after its checkpoint
    was taken while the worker lives on, or kept and followed by another reader.
    `appends`: whether an append works, its state is lost, its answer is lost, or it waits for more rows.
    `ends`: after how many bundles the job ends, whether it is killed or drained, and the next one's readers.
    """

    bundles: Sequence[tuple[int, Literal["kept", "lost", "given up", "handed over"]]] = ()
    appends: Sequence[Literal["works", "state lost", "answer lost", "waits"]] = ()
    ends: Sequence[tuple[int, Literal["killed", "drained"], int]] = ()


class _Clock:
    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Warehouse:
    """A strict BigQuery with the changelogs of a drawn history, as infrastructure makes them."""

    def __init__(self) -> None:
        self.clock = _Clock()
        self.bq = StrictBigQuery(PROJECT, clock=self.clock.time).start()
        self.write = clients.write_client(self.bq.grpc)
        self.query = clients.bigquery_client(self.bq.rest, PROJECT)

    def empty(self, drawn: Drawn, dialect: str) -> None:
        """Drops what is there and makes the tables of a history."""
        self.bq.clear_faults()
        self.bq.create_dataset(DATASET)
        self.bq.store.drop_dataset(PROJECT, DATASET, contents=True)
        for name in drawn.columns:
            made = tables.changelog_table(DESCRIBED.of(name), first_columns(drawn, name, dialect))
            self.bq.create_table(
                made.id,
                [
                    {"name": f.name, "type": f.type, "mode": f.mode}
                    | ({"defaultValueExpression": f.default} if f.default else {})
                    for f in made.fields
                ],
            )

    def rows(self, drawn: Drawn) -> Iterator[dict[str, Any]]:
        for name in drawn.columns:
            yield from self.bq.rows(DESCRIBED.of(name).id)

    def stop(self) -> None:
        self.bq.stop()


class _Settings:
    """In the place of SinkSettings, whose metadata database is in memory here."""

    def __init__(self, connected: SinkClients) -> None:
        self._clients = connected

    def connect(self) -> SinkClients:
        return self._clients


class _Shuffle:
    """What waits for one key, and its state."""

    def __init__(self) -> None:
        self.waiting: list[EncodedRows] = []
        self.cell = Cell()


@dataclass
class _Part:
    """A part of the source, its checkpoint, the reader that is asked, and all that were made."""

    source: Any
    mark: PartitionSetMark | None = None
    reader: Any = None
    made: list[Any] = field(default_factory=list)
    done: bool = False


class Job:
    """Jobs of one name, one after the other, from the stream's beginning to its end."""

    def __init__(
        self, stream: ChangeStream, reading: Reading, steps: Callable[[int], Steps], warehouse: Warehouse
    ) -> None:
        """`steps` makes them for a number of shards."""
        self._stream, self._reading, self._make_steps, self._warehouse = stream, reading, steps, warehouse
        self._generations = InMemoryGenerations(ledger=Ledger(lambda: int(warehouse.clock.now * 1e9)))
        self._sinks: list[AppendRows] = []

    def run(self, start: str, readers: int, faults: Faults) -> None:
        self._bundles, self._appends = iter(faults.bundles), iter(faults.appends)
        for after, how, following in [*faults.ends, (-1, "", 0)]:
            if self._one(start, readers, after, how):
                return
            readers = following

    def _one(self, start: str, readers: int, ends_after: int, how: str) -> bool:
        """One job, until everything is read, or it ends after some bundles. Whether everything is read and appended."""
        generation, position, fenced_at = self._take_over(start)
        source = ChangeStreamSource(self._stream, lambda: position, self._reading, readers)
        parts = [_Part(each) for each in source.split(20)]
        # As many as readers, as in the job: the next job's rows are in other shards.
        self._steps = self._make_steps(readers)
        self._shuffles: dict[str, _Shuffle] = defaultdict(_Shuffle)
        self._sinks = [self._sink(generation, fenced_at), self._sink(generation, fenced_at)]
        positions: dict[_Reader, str] = {}
        try:
            while left := [part for part in parts if not part.done]:
                for part in left:
                    if ends_after == 0:
                        if how == "drained":
                            self._append(generation, positions, finally_=True)
                        return False
                    ends_after -= 1
                    self._bundle(part, positions)
                self._append(generation, positions, finally_=all(part.done for part in parts))
            return True
        finally:
            for reader in [reader for part in parts for reader in part.made]:
                reader.close()
            for sink in self._sinks:
                sink.teardown()

    def _bundle(self, part: _Part, positions: dict[_Reader, str]) -> None:
        """One bundle of a part of the source: what leaves it and its checkpoint are kept as one, or neither is."""
        most, fate = next(self._bundles, (500, "kept"))
        reader = part.reader
        if reader is None:
            reader = part.reader = part.source.create_reader(None, part.mark)
            part.made.append(reader)
        elements, read = self._steps.bundle(_records(reader, most))
        if fate == "lost":
            reader.close()
        else:
            mark = PartitionSetMark(reader.get_checkpoint_mark().state)
        if fate != "kept":
            part.reader = None
        if fate in ("lost", "given up"):
            return
        part.mark = mark
        part.done = reader.get_watermark() == MAX_TIMESTAMP
        for key, encoded in elements:
            self._shuffles[key].waiting.append(encoded)
        for each in read:
            positions[_Reader(each.stream, each.reader, each.readers)] = each.position

    def _take_over(self, start: str) -> tuple[int, str, str | None]:
        self._warehouse.clock.now += 1
        run = self._generations.take_over(self._generations.new_run(), start)
        at: Any = SimpleNamespace(endpoints=Endpoints(bigquery_storage=self._warehouse.bq.grpc))
        fenced_at = fencing._fence(at, self._generations, run.generation)
        return run.generation, run.position, fenced_at if run.generation > 1 else None

    def _sink(self, generation: int, fenced_at: str | None) -> AppendRows:
        house = self._warehouse
        destinations = Destinations(project=PROJECT, watched=DESCRIBED, dataset=DATASET)
        connected = SinkClients(
            write=house.write,
            query=house.query,
            changelogs=Changelogs(house.query, destinations, clock=house.clock.time, sleep=house.clock.sleep),
            destinations=destinations,
            generations=self._generations,
            generation=generation,
            fenced_at=fenced_at,
            clock=house.clock.time,
            sleep=house.clock.sleep,
        )
        sink = AppendRows(_Settings(connected))  # type: ignore[arg-type]
        sink.setup()
        return sink

    def _append(self, generation: int, positions: dict[_Reader, str], *, finally_: bool) -> None:
        """A bundle of each key that has elements; then the resume position, if nothing waits before it."""
        for key, shuffle in sorted(self._shuffles.items()):
            if not shuffle.waiting:
                continue
            fate = next(self._appends, "works")
            if fate == "waits" and not finally_:
                continue
            self._warehouse.clock.now += 0.5
            if fate == "answer lost":
                self._warehouse.bq.lose_answers()
            if fate == "state lost":
                # The bundle failed after its append: another worker tries it, from the state before.
                before = shuffle.cell.read()
                self._sink_bundle(key, shuffle)
                shuffle.cell.write(before)
                self._sinks.reverse()
                if not finally_:
                    # With what comes until then.
                    continue
            self._sink_bundle(key, shuffle)
            shuffle.waiting.clear()
        if not any(shuffle.waiting for shuffle in self._shuffles.values()):
            position = slowest(positions, (self._stream.name,)) if positions else None
            if position is not None:
                self._generations.advance(generation, position)

    def _sink_bundle(self, key: str, shuffle: _Shuffle) -> None:
        sink = self._sinks[0]
        sink.start_bundle()
        letters = [each for rows in shuffle.waiting for each in sink.process((key, rows), shuffle.cell)]
        letters += sink.finish_bundle()
        assert not letters, f"BigQuery refused rows: {letters}"


def _records(reader: Any, most: int) -> Iterator[Any]:
    """What a runner takes of a reader: records until there is none for now."""
    for _ in range(most):
        if not reader.advance():
            return
        yield reader.get_current()
