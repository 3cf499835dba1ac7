"""The batch job: the shards of a replay or backfill, each read from Spanner, masked, enriched and appended once.

python -m pipeline.jobs.batch --help

It runs on one machine or on Dataflow. A job that dies is started again, also beside another one of the same replay:
what is finished is not done again. The last shard to finish finishes the replay, so nobody has to wait for the job.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from contract.changes import kind_of
from contract.errors import AuditError
from contract.options import BATCH_OPTIONS
from pipeline import logs
from pipeline.jobs.settings import SettingsError, broken, parser_of
from pipeline.jobs.stream import without_samples
from pipeline.replay.records import Shard
from pipeline.replay.settings import ReplaySettings
from pipeline.replay.work import SHARDS_AT_ONCE, Replayer

_LOG = logging.getLogger("pipeline.jobs.batch")
# In this process: Beam would start a separate program where it finds one.
_ONE_MACHINE: Final = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


class RunShards(beam.DoFn):
    """Runs shards of a replay; gives the number of each once its rows are in BigQuery."""

    def __init__(self, settings: ReplaySettings, replay_id: str) -> None:
        self._settings = settings
        self._replay_id = replay_id

    def setup(self) -> None:
        self._replayer = Replayer(self._settings)

    def process(self, numbers: list[int]) -> Iterator[int]:
        for number in numbers:
            self._replayer.run_shard(self._replay_id, number)
            yield number


def build(pipeline: Any, settings: ReplaySettings, replay_id: str, shards: list[list[int]]) -> None:
    """Puts the job together. Nothing of a row leaves a step: what travels is the shards' numbers."""
    (
        pipeline
        | "Shards" >> beam.Create(shards)
        # One worker would take them all otherwise: what follows is fused with what made them.
        | "Spread" >> beam.Reshuffle()
        | "RunShards" >> beam.ParDo(RunShards(settings, replay_id))
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
    shards = replayer.plan(replay_id)
    if not shards:
        replayer.finish(replay_id)
        return "DONE"
    replayer.wait(replay_id, lambda text: _LOG.info("%s: %s.", replay_id, text))
    _LOG.info("%s: %d shards to run.", replay_id, len(shards))
    pipeline = beam.Pipeline(options=options)
    build(pipeline, settings, replay_id, grouped(shards, SHARDS_AT_ONCE if kind_of(replay_id) == "backfill" else 1))
    result = pipeline.run()
    if "dataflow" in (options.view_as(StandardOptions).runner or "").lower():
        return "DONE"
    return str(result.wait_until_finish())


def grouped(shards: Sequence[Shard], most: int) -> list[list[int]]:
    """The numbers of the shards that one worker runs: neighbours in one table, at most `most`."""
    return [
        [shard.number for shard in of[first : first + most]]
        for of in (list(shards) for _, shards in groupby(shards, key=lambda shard: shard.table))
        for first in range(0, len(of), most)
    ]


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
    return [] if given else [f"--job_name=audit-{name if kind_of(replay_id) == 'backfill' else f'replay-{name}'}"]


if __name__ == "__main__":
    sys.exit(main())
