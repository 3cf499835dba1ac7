"""Beam's local runner with the job's options: keyed state where a step is slow, or writes it at a bundle's end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from local.machine import installed
from pipeline.jobs.settings import parse
from pipeline.jobs.stream import beam_options
from tests.shipped import REQUIRED_OPTIONS

ELEMENTS = 6


class GatherSlowly(beam.DoFn):
    """As a step does whose service is slow: an element takes longer than Prism waits for progress."""

    GATHERED = BagStateSpec("gathered", PickleCoder())
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def process(
        self,
        element: tuple[str, int],
        gathered: Any = beam.DoFn.StateParam(GATHERED),
        end: Any = beam.DoFn.TimerParam(END),
    ) -> None:
        gathered.add(element[1])
        end.set(Timestamp(1))
        time.sleep(0.5)

    @on_timer(END)
    def all(self, gathered: Any = beam.DoFn.StateParam(GATHERED)) -> Iterator[list[int]]:
        yield sorted(gathered.read())


def _run(transform: Any, elements: int, out: Path) -> str:
    """What the last step puts out of elements of one key, on the runner of the job with the job's options."""
    given = dict(REQUIRED_OPTIONS)
    runner = [
        *("--runner=PrismRunner", f"--prism_location={installed.prism()}", "--environment_type=LOOPBACK"),
        # Else Prism stays for the next pipeline of this process, also one that a test launches to fail.
        "--experiments=disable_prism_server_singleton",
    ]
    settings, rest = parse([*(f"--{name}={value}" for name, value in given.items()), *runner])
    with beam.Pipeline(options=beam_options(settings, rest)) as pipeline:
        keyed = pipeline | beam.Create(range(elements)) | beam.Map(lambda i: ("key", i))
        _ = keyed | beam.ParDo(transform) | beam.Map(lambda found, path=str(out): Path(path).write_text(str(found)))
    return out.read_text()


def test_a_slow_bundle_is_not_split_into_two_of_one_key(tmp_path: Path) -> None:
    assert _run(GatherSlowly(), ELEMENTS, tmp_path / "gathered") == str(list(range(ELEMENTS)))


class KeepAtTheEnd(beam.DoFn):
    """As AppendRows does: a cell is written when the bundle ends, and read in the next one."""

    KEPT = ReadModifyWriteStateSpec("kept", PickleCoder())
    NEXT = TimerSpec("next", TimeDomain.WATERMARK)

    def start_bundle(self) -> None:
        self._cell: Any = None

    def process(
        self,
        element: tuple[str, int],
        kept: Any = beam.DoFn.StateParam(KEPT),
        later: Any = beam.DoFn.TimerParam(NEXT),
    ) -> None:
        self._cell = kept
        later.set(Timestamp(1))

    def finish_bundle(self) -> None:
        if self._cell is not None:
            self._cell.write("written at the end")

    @on_timer(NEXT)
    def read(self, kept: Any = beam.DoFn.StateParam(KEPT)) -> Iterator[str]:
        yield str(kept.read())


def test_state_that_is_written_at_the_end_of_a_bundle_is_there_in_the_next(tmp_path: Path) -> None:
    assert _run(KeepAtTheEnd(), 1, tmp_path / "kept") == "written at the end"
