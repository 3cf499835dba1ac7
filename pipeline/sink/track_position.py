"""`TrackPosition`: the read positions → the resume position, once everything before it is out.

A position may be passed only behind both outputs: appended rows, and durable dead letters.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from contract import timestamps
from pipeline.sink.config import SinkSettings
from pipeline.sink.fencing import wait_out
from pipeline.sink.positions import PositionLog
from pipeline.source.records import ReadPosition


class _Reader(NamedTuple):
    """One of the readers of a stream."""

    stream: str
    reader: int
    readers: int


def slowest(positions: dict[_Reader, str], streams: Iterable[str]) -> str | None:
    """The position of the slowest reader; None while a reader has none yet.

    How many readers a stream has, their positions say: a source that could not be split has one.
    """
    known = Counter(each.stream for each in positions)
    expected = {each.stream: each.readers for each in positions}
    if any(known[stream] < expected.get(stream, 1) for stream in streams):
        return None
    return min(positions.values())


class TrackPosition(beam.DoFn):
    """Writes the resume position: the read position of the slowest reader, once everything before it is out.

    Its input are the read positions. A timer at a read position fires when the watermark behind appends and dead
    letters has passed it. The next one is set only then: a timer that moves on with each new position would never fire.
    """

    LATEST = ReadModifyWriteStateSpec("latest", PickleCoder())
    AWAITED = ReadModifyWriteStateSpec("awaited", PickleCoder())
    PASSED = TimerSpec("passed", TimeDomain.WATERMARK)

    def __init__(self, settings: SinkSettings, streams: tuple[str, ...], publish_seconds: float = 10.0) -> None:
        self._settings = settings
        self._streams = streams
        self._publish_seconds = publish_seconds

    def setup(self) -> None:
        self._settings = self._settings.joined()
        self._generations = self._settings.generations()
        self._log = PositionLog(self._settings)
        self._published = 0.0

    def process(
        self,
        element: tuple[bytes, ReadPosition],
        latest: Any = beam.DoFn.StateParam(LATEST),
        awaited: Any = beam.DoFn.StateParam(AWAITED),
        passed: Any = beam.DoFn.TimerParam(PASSED),
    ) -> None:
        read = element[1]
        positions: dict[_Reader, str] = latest.read() or {}
        reader = _Reader(read.stream, read.reader, read.readers)
        positions[reader] = max(read.position, positions.get(reader, ""))
        latest.write(positions)
        if awaited.read() is None and (position := slowest(positions, self._streams)) is not None:
            self._await(position, awaited, passed)

    @on_timer(PASSED)
    def advance(
        self,
        latest: Any = beam.DoFn.StateParam(LATEST),
        awaited: Any = beam.DoFn.StateParam(AWAITED),
        passed: Any = beam.DoFn.TimerParam(PASSED),
    ) -> None:
        position: str = awaited.read()
        self._write(position)
        reached = min(latest.read().values())
        if reached > position:
            self._await(reached, awaited, passed)
        else:
            awaited.clear()

    @staticmethod
    def _await(position: str, awaited: Any, passed: Any) -> None:
        awaited.write(position)
        # Runners cut timestamps to milliseconds: a change just before the position counts as of that millisecond.
        passed.set(Timestamp(micros=(timestamps.to_micros(position) // 1000 + 1) * 1000))

    def _write(self, position: str) -> None:
        generation = self._settings.generation
        wait_out("Writing the resume position", lambda: self._generations.advance(generation, position))
        if time.monotonic() - self._published >= self._publish_seconds:
            self._published = time.monotonic()
            self._log.publish(position)


class TrackPositions(beam.PTransform):
    """(read positions, what was appended, what was written as dead letters) → the resume position.

    The positions are keyed, all alike. Of the last two, which are empty, only the watermark matters: no position passes
    before what they stand for is out.
    """

    def __init__(self, settings: SinkSettings, streams: tuple[str, ...]) -> None:
        super().__init__()
        self._settings = settings
        self._streams = streams

    def expand(self, inputs: tuple[Any, Any, Any]) -> Any:
        positions, *others = inputs
        for other in others:
            other.element_type = positions.element_type
        behind = inputs | "BehindTheSink" >> beam.Flatten()
        return behind | "TrackPosition" >> beam.ParDo(TrackPosition(self._settings, self._streams))
