"""Beam's local runner with the job's options: what a step gathers in keyed state is there when it is slow, too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from local.machine import installed
from pipeline.jobs.settings import parse
from pipeline.jobs.stream import beam_options
from tests.shipped import REQUIRED_OPTIONS

ELEMENTS = 6


class GatherSlowly(beam.DoFn):
    """As AppendRows does while BigQuery is slow: an element takes longer than Prism waits for progress."""

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


def test_a_slow_bundle_is_not_split_into_two_of_one_key(tmp_path: Path) -> None:
    given = dict(REQUIRED_OPTIONS)
    runner = [
        *("--runner=PrismRunner", f"--prism_location={installed.prism()}", "--environment_type=LOOPBACK"),
        # Else Prism stays for the next pipeline of this process, also one that a test launches to fail.
        "--experiments=disable_prism_server_singleton",
    ]
    settings, rest = parse([*(f"--{name}={value}" for name, value in given.items()), *runner])
    out = tmp_path / "gathered"
    with beam.Pipeline(options=beam_options(settings, rest)) as pipeline:
        elements = pipeline | beam.Create(range(ELEMENTS)) | beam.Map(lambda i: ("key", i))
        gathered = elements | beam.ParDo(GatherSlowly())
        _ = gathered | beam.Map(lambda found, path=str(out): Path(path).write_text(str(found)))
    assert out.read_text() == str(list(range(ELEMENTS)))
