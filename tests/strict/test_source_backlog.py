"""The backlog of the source as it reaches a runner: what the worker of Prism sends while it catches up."""

from __future__ import annotations

import threading
import time
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import FloatCoder, IterableCoder
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.worker import bundle_processor
from apache_beam.runners.worker.bundle_processor import BundleProcessor

from contract.timestamps import from_nanos
from local.machine import installed
from pipeline.source import unbounded
from pipeline.source.beam_source import ReadChanges
from pipeline.source.partition_threads import Reading
from pipeline.source.query import ChangeStream
from tests.strict.history import SECOND, RandomHistory, product_tables
from tests.strict.spanner import StrictSpanner
from tests.strict.test_source_strict import DATABASE, STREAM

# Bytes of about 10,000 changes in memory.
MOST = 12_000_000
REMAINING = "beam:metric:ptransform_progress:remaining:v1"
_FLOATS = IterableCoder(FloatCoder())


def test_a_runner_gets_the_backlog_while_the_source_catches_up_and_none_when_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = time.time_ns() - 120 * SECOND
    made = RandomHistory(1, partitions=4, rate=100, churn=0, created=begun, tables={STREAM: product_tables()[STREAM]})
    made.play(100)
    remaining: list[float] = []
    sizes: list[int] = []
    lock = threading.Lock()
    report = BundleProcessor.monitoring_infos

    def reported(self: Any) -> Any:
        infos = report(self)
        with lock:
            remaining.extend(
                amount for info in infos if info.urn == REMAINING for amount in _FLOATS.decode(info.payload)
            )
        return infos

    size_of = unbounded._Provider.restriction_size

    def sized(self: Any, element: Any, restriction: Any) -> int:
        size = size_of(self, element, restriction)
        with lock:
            sizes.append(size)
        return size

    monkeypatch.setattr(bundle_processor.BundleProcessor, "monitoring_infos", reported)
    monkeypatch.setattr(unbounded._Provider, "restriction_size", sized)
    with StrictSpanner(made) as spanner:
        stream = ChangeStream(name=STREAM, database=DATABASE, endpoint=spanner.endpoint)
        options = PipelineOptions(
            [
                *("--runner=PrismRunner", f"--prism_location={installed.prism()}", "--environment_type=LOOPBACK"),
                "--experiments=disable_prism_server_singleton,prism_disable_sdf_split",
            ],
            streaming=True,
        )
        pipeline = beam.Pipeline(options=options)
        _ = pipeline | ReadChanges(stream, from_nanos(begun + SECOND), Reading())
        result = pipeline.run()
        try:
            deadline = time.monotonic() + 240
            while not (
                max(remaining, default=0) > MOST / 2 and max(sizes) > MOST / 2 and sizes[-1] == 0 == remaining[-1]
            ):
                assert time.monotonic() < deadline, (sizes[-10:], remaining[-10:])
                time.sleep(0.1)
        finally:
            result.cancel()
    # Before anything was read, nothing was known; what came then is not far from what there was.
    assert sizes[0] == 1
    assert max(sizes) < 3 * MOST
    assert max(remaining) < 3 * MOST
