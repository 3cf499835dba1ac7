"""The job as `python -m pipeline.jobs.stream` runs it, with all written down that its worker hands to the runner.

python tests/emulators/spied_job.py FOLDER OPTIONS…

`FOLDER/stages.jsonl` gets one line for each stage that the runner makes: its `steps`, those that are `fed` elements by
the runner, and the outputs that it is `given`. A step that the runner adds is called by its URN. `FOLDER/sent` gets
every message of the worker to the runner: elements, state, control.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from apache_beam.runners.worker import bundle_processor, channel_factory

from pipeline.jobs.stream import main


class Sent(grpc.StreamStreamClientInterceptor, grpc.UnaryUnaryClientInterceptor):
    """Writes down what is sent."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._lock = threading.Lock()

    def _note(self, message: Any) -> Any:
        with self._lock:
            self._file.write(message.SerializeToString())
            self._file.flush()
        return message

    def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, requests: Iterator[Any]) -> Any:
        return continuation(details, map(self._note, requests))

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(details, self._note(request))


def spy(folder: Path) -> None:
    sent = Sent(folder / "sent")
    open_channel = channel_factory.GRPCChannelFactory.insecure_channel
    channel_factory.GRPCChannelFactory.insecure_channel = staticmethod(
        lambda *args, **kwargs: grpc.intercept_channel(open_channel(*args, **kwargs), sent)
    )
    make = bundle_processor.BundleProcessor.__init__
    stages = (folder / "stages.jsonl").open("a")

    def made(self: Any, capabilities: Any, descriptor: Any, *args: Any, **kwargs: Any) -> None:
        stages.write(json.dumps(stage(descriptor)) + "\n")
        stages.flush()
        make(self, capabilities, descriptor, *args, **kwargs)

    bundle_processor.BundleProcessor.__init__ = made


def stage(descriptor: Any) -> dict[str, list[str]]:
    steps = [step for step in descriptor.transforms.values() if not step.spec.urn.startswith("beam:runner:")]
    ports = [step for step in descriptor.transforms.values() if step.spec.urn.startswith("beam:runner:")]
    to_runner = {collection for port in ports for collection in port.inputs.values()}
    from_runner = {collection for port in ports for collection in port.outputs.values()}
    return {
        "steps": [_name(step) for step in steps],
        "fed": [_name(step) for step in steps if from_runner & set(step.inputs.values())],
        "given": [
            f"{_name(step)}.{tag}"
            for step in steps
            for tag, collection in step.outputs.items()
            if collection in to_runner
        ],
    }


def _name(step: Any) -> str:
    name: str = step.unique_name if step.spec.urn == "beam:transform:pardo:v1" else step.spec.urn
    return name


if __name__ == "__main__":
    spy(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
