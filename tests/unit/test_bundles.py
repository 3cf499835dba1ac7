"""How a process runs its bundles, with Beam's own processor of one."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The job begins to launch, and is refused before it makes a pipeline.
LAUNCH = """
from pipeline.jobs import stream
from pipeline.jobs.settings import SettingsError, parse
from tests.unit.test_stream_settings import given

try:
    stream.launch(*parse([*given(), "--experiments=enable_data_sampling"]))
except SettingsError:
    pass
"""
# As Beam makes one: with its own arguments for the thread that samples.
PROCESSOR = """
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.bundle_processor import BundleProcessor

processor = BundleProcessor(set(), beam_fn_api_pb2.ProcessBundleDescriptor(id="x"), None, None)
print(processor.state_sampler.sampling_period_ms)
"""
COLLECTED = """
import gc

print(len(gc.get_objects()) / (len(gc.get_objects()) + gc.get_freeze_count()))
"""
PROCESSES = pytest.mark.parametrize(
    "first",
    [
        pytest.param("import pipeline.jobs.worker", id="a worker, by its plugin"),
        pytest.param(LAUNCH, id="the process that launches"),
    ],
)


def _said(program: str) -> float:
    """By a fresh process."""
    return float(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120).stdout
    )


@PROCESSES
def test_a_bundle_waits_for_milliseconds_at_its_end(first: str) -> None:
    assert _said(first + PROCESSOR) == 5


def test_without_that_it_would_wait_for_longer() -> None:
    assert _said(PROCESSOR) == 200


@PROCESSES
def test_a_garbage_collection_does_not_look_at_what_was_loaded_before_the_job(first: str) -> None:
    assert _said(first + COLLECTED) < 0.1
