"""How a process runs its bundles, with Beam's own processor of one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline import bundles
from pipeline.jobs import stream
from pipeline.jobs.settings import parse
from tests.unit.test_stream_settings import given

# As Beam makes one: with its own arguments for the thread that samples.
PROCESSOR = """
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.bundle_processor import BundleProcessor

processor = BundleProcessor(set(), beam_fn_api_pb2.ProcessBundleDescriptor(id="x"), None, None)
print(processor.state_sampler.sampling_period_ms)
"""


def _sampling_millis(first: str) -> str:
    """In a fresh process."""
    return subprocess.run(
        [sys.executable, "-c", first + PROCESSOR], check=True, capture_output=True, text=True, timeout=120
    ).stdout.strip()


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("import pipeline.jobs.worker", id="a worker, by its plugin"),
        pytest.param("from pipeline import bundles; bundles.end_without_delay()", id="the process that launches"),
    ],
)
def test_a_bundle_waits_for_milliseconds_at_its_end(first: str) -> None:
    assert _sampling_millis(first) == "5"


def test_without_that_it_would_wait_for_longer() -> None:
    assert _sampling_millis("") == "200"


def test_the_job_does_so_before_it_makes_its_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def options(*_: object) -> None:
        assert done == ["bundles"]
        raise InterruptedError

    monkeypatch.setattr(bundles, "end_without_delay", lambda: done.append("bundles"))
    monkeypatch.setattr(stream, "beam_options", options)
    with pytest.raises(InterruptedError):
        stream.launch(*parse(given()))
