"""The batch job: a replay's shards, each read from Spanner, masked, enriched and appended, exactly once.

python -m pipeline.jobs.batch --help

It runs on one machine or on Dataflow. A job that dies is started again, also beside another one of the same replay:
what is finished is not done again. The last shard to finish finishes the replay, so nobody has to wait for the job.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from contract.errors import AuditError
from contract.options import BATCH_OPTIONS
from pipeline import logs
from pipeline.jobs.settings import SettingsError, broken, parser_of
from pipeline.jobs.stream import without_samples
from pipeline.replay.settings import ReplaySettings
from pipeline.replay.work import Replayer

_LOG = logging.getLogger("pipeline.jobs.batch")
# In this process: Beam would start a separate program where it finds one.
_ONE_MACHINE: Final = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


class RunShard(beam.DoFn):
    """Runs a shard of a replay; gives its number once its rows are in BigQuery."""

    def __init__(self, settings: ReplaySettings, replay_id: str) -> None:
        self._settings = settings
        self._replay_id = replay_id

    def setup(self) -> None:
        self._replayer = Replayer(self._settings)

    def process(self, number: int) -> Iterator[int]:
        self._replayer.run_shard(self._replay_id, number)
        yield number


def build(pipeline: Any, settings: ReplaySettings, replay_id: str, shards: list[int]) -> None:
    """Puts the job together. Nothing of a row leaves a step: what travels is the shards' numbers."""
    (
        pipeline
        | "Shards" >> beam.Create(shards)
        # One worker would take them all otherwise: what follows is fused with what made them.
        | "Spread" >> beam.Reshuffle()
        | "RunShard" >> beam.ParDo(RunShard(settings, replay_id))
    )


def parse(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Reads the command line. Returns the options and what is left for Beam. Raises SettingsError."""
    parser = parser_of(
        BATCH_OPTIONS,
        prog="pipeline.jobs.batch",
        description="Runs a replay: reads payments from Spanner at one moment and appends them, masked, exactly once.",
        epilog="Options that are not listed go to Beam (--runner, --region, …).",
    )
    known, beam_args = parser.parse_known_args(argv)
    values: dict[str, str] = vars(known)
    if problems := broken(BATCH_OPTIONS, values):
        raise SettingsError("\n".join(problems))
    return values, beam_args


def launch(values: Mapping[str, str], options: PipelineOptions) -> str:
    """Runs what is left of the replay. Returns Beam's state of it; on Dataflow once it is launched."""
    settings, replay_id = ReplaySettings.of(values), values["replayId"]
    replayer = Replayer(settings)
    shards = [shard.number for shard in replayer.plan(replay_id)]
    if not shards:
        replayer.finish(replay_id)
        return "DONE"
    _LOG.info("Replay %s: %d shards to run.", replay_id, len(shards))
    pipeline = beam.Pipeline(options=options)
    build(pipeline, settings, replay_id, shards)
    result = pipeline.run()
    if "dataflow" in (options.view_as(StandardOptions).runner or "").lower():
        return "DONE"
    return str(result.wait_until_finish())


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 ended or launched, 1 it failed, 2 bad options."""
    try:
        values, beam_args = parse(sys.argv[1:] if argv is None else argv)
        logs.configure(values["logLevel"], sys.stderr)
        options = without_samples(
            [*_runner(beam_args), *_named(beam_args, values["replayId"]), *logs.worker_options(values["logLevel"])]
        )
    except AuditError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    try:
        state = launch(values, options)
    except Exception:
        _LOG.exception("The replay's job ended with an error. Run it again: nothing is written twice.")
        return 1
    return 0 if state == "DONE" else 1


def _runner(beam_args: list[str]) -> list[str]:
    chosen = any(arg.startswith("--runner") for arg in beam_args)
    return beam_args if chosen else [f"--runner={_ONE_MACHINE}", *beam_args]


def _named(beam_args: list[str], replay_id: str) -> list[str]:
    """A name by which Dataflow refuses a second job of the replay while one runs."""
    given = any(arg.startswith("--job_name") for arg in beam_args)
    name = re.sub(r"[^a-z0-9]+", "-", replay_id.lower()).strip("-")
    return [] if given else [f"--job_name=audit-replay-{name}"]


if __name__ == "__main__":
    sys.exit(main())
