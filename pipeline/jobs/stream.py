"""The streaming job: change streams → masked, enriched rows in BigQuery, exactly once.

python -m pipeline.jobs.stream --help
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import apache_beam as beam
from apache_beam.options.pipeline_options import DebugOptions, GoogleCloudOptions, PipelineOptions, StandardOptions

from contract import timestamps
from contract.errors import AuditError
from contract.logs import ErrorClass
from contract.options import NO_EXCEPTION_SAMPLING
from pipeline import bundles, logs
from pipeline.clients import spanner_channel
from pipeline.failures import Failures
from pipeline.jobs import checks
from pipeline.jobs.settings import SettingsError, StreamSettings, parse
from pipeline.sink.append import AppendRows
from pipeline.sink.config import SinkSettings
from pipeline.sink.dead_letter_writer import WriteDeadLetters
from pipeline.sink.encode import EncodeRows
from pipeline.sink.fencing import wait_out
from pipeline.sink.retry import RetryDeadLetters, RetrySettings
from pipeline.sink.track_position import TrackPositions
from pipeline.source.beam_source import ReadChanges
from pipeline.source.query import ChangeStreamQuery
from pipeline.steps import ToRows

# Run as a script its name would be __main__, which no level is set for.
_LOG = logging.getLogger("pipeline.jobs.stream")

# Prism splits any bundle that is slow, and hands the rest of it to another one at once: where both are of one key, the
# state that one of them writes is lost, and the rows that it gathered with it.
_NO_PRISM_SPLIT: Final = "prism_disable_sdf_split"
# Fewer for each reader are shared unevenly.
_PARTITIONS_OF_A_READER: Final = 10
_MOST_READERS: Final = 100


def build(
    pipeline: Any, settings: StreamSettings, sink: SinkSettings, start: str | Callable[[], str], readers: int
) -> None:
    """Puts the job together. `start` may be a function that travels: the worker that begins to read asks it."""
    failures = Failures()
    # A shard is appended to by one worker at a time: more readers than shards would wait for it.
    shards = max(int(settings["numStorageWriteApiStreams"]), readers)
    encode = EncodeRows(settings.watched, shards, int(settings["batchRows"]))
    # Nothing may come between the source and the step that a runner makes a separate stage of: a Flatten, a shuffle or
    # a side input would hand the runner records with card numbers in them.
    records = pipeline | "Read" >> ReadChanges(settings.streams, start, settings.reading, readers)
    to_rows = ToRows(settings.transforms, encode, settings.streams[0], settings.ignored_records)
    rows, positions, clock = records | to_rows.failures_to(failures)
    appended = rows | AppendRows(sink).failures_to(failures)
    written = failures.all() | "WriteDeadLetters" >> beam.ParDo(WriteDeadLetters(settings["deadLetterQueueDirectory"]))
    (positions, appended, written) | TrackPositions(sink, settings.stream_names)
    if settings["disableDlqRetries"] == "false":
        clock | "RetryDeadLetters" >> beam.ParDo(RetryDeadLetters(RetrySettings.of(settings, sink)))


def readers_of(settings: StreamSettings) -> int:
    """How many readers each change stream has: the setting, or by the partitions of the largest stream.

    A stream of the mode MUTABLE_KEY_RANGE is read by one reader, however many partitions it has.
    """
    if chosen := int(settings["changeStreamReaders"]):
        return chosen
    queries = [ChangeStreamQuery(each, spanner_channel(each.endpoint)) for each in settings.streams]
    now = timestamps.now()
    live = [
        len(wait_out(f"Counting the partitions of {query.stream}", partial(query.roots, now)))
        for query in queries
        if not query.mutable
    ]
    readers = max(1, min(_MOST_READERS, max(live, default=0) // _PARTITIONS_OF_A_READER))
    _LOG.info("Readers of each change stream: %d, for %d partitions.", readers, max(live, default=0))
    return readers


def beam_options(settings: StreamSettings, beam_args: list[str]) -> PipelineOptions:
    """Beam's options: what the command line left for it, and what all the workers of this job have.

    Raises SettingsError for an option that would have Dataflow keep the records that are read.
    """
    options = without_samples([*beam_args, *logs.worker_options(settings["logLevel"])], streaming=True)
    if "dataflow" not in (options.view_as(StandardOptions).runner or "").lower():
        # Beam's own runners may use Prism, under any name.
        options.view_as(DebugOptions).add_experiment(_NO_PRISM_SPLIT)
    return options


def without_samples(args: list[str], *, streaming: bool = False) -> PipelineOptions:
    """Beam's options with which Dataflow keeps no samples of elements. Raises SettingsError for those that would."""
    options = PipelineOptions(
        [*args, f"--experiments={NO_EXCEPTION_SAMPLING}"], streaming=streaming, save_main_session=False
    )
    features = [
        *(arg.partition("=")[0].lstrip("-") for arg in args if arg.startswith("-")),
        *(options.view_as(DebugOptions).experiments or []),
        *(options.view_as(GoogleCloudOptions).dataflow_service_options or []),
    ]
    if sampled := sorted({name for name in features if "sampling" in name.lower()} - {NO_EXCEPTION_SAMPLING}):
        raise SettingsError(
            f"Beam's options must not have {', '.join(sampled)}: Dataflow would keep samples of elements, card numbers "
            "included, in Cloud Storage. Leave it out."
        )
    return options


def launch(settings: StreamSettings, beam_args: list[str]) -> str:
    """Runs the pipeline to its end, and returns Beam's state of it.

    An older job of the name continues until a worker of this one runs: only then it is taken over from.
    """
    # For a runner that runs its workers in this process. Others import the plugin of `pipeline.logs`.
    bundles.end_without_delay()
    bundles.leave_out_of_collections()
    start = timestamps.normalise(settings["startTimestamp"]) if settings["startTimestamp"] else timestamps.now()
    options = beam_options(settings, beam_args)
    sink = replace(settings.sink, run_id=settings.sink.generations().new_run(), start=start)
    if not sink.exactly_once:
        _LOG.warning(
            "at-least-once: when a job is killed, the rows between its resume position and the kill can be in BigQuery "
            "twice, and so can what it still sends after the next one has begun. Nothing is lost."
        )
    pipeline = beam.Pipeline(options=options)
    build(pipeline, settings, sink, sink.resume_position, readers_of(settings))
    result = pipeline.run()

    def cancel(*_: Any) -> None:
        _LOG.info("Ending on a signal. The next job resumes from the resume position.")
        result.cancel()
        sys.exit(0)

    signal.signal(signal.SIGTERM, cancel)
    signal.signal(signal.SIGINT, cancel)
    return str(result.wait_until_finish())


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 ended as asked, 1 a check failed or the pipeline did, 2 bad options."""
    try:
        settings, beam_args = parse(sys.argv[1:] if argv is None else argv)
        # Before Beam says anything: who logs first makes the handlers, and only ours mask.
        logs.configure(settings["logLevel"], sys.stderr)
        beam_options(settings, beam_args)
    except AuditError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if settings["dryRun"] == "true":
        findings = checks.run(settings)
        for finding in findings:
            result = "failed " if finding.problem else "warning" if finding.warning else "ok     "
            sys.stdout.write(f"{result}  {finding.problem or finding.warning or finding.checked}\n")
        return 1 if any(f.problem for f in findings) else 0
    try:
        checks.require(settings)
    except checks.CheckFailed as error:
        _LOG.error("The job cannot start:\n%s", error, extra=logs.fields(error_class=ErrorClass.REFUSED))
        return 1
    try:
        state = launch(settings, beam_args)
    except Exception:
        _LOG.exception("The job ended with an error.")
        return 1
    return 0 if state in ("DONE", "DRAINED", "CANCELLED", "UPDATED") else 1


if __name__ == "__main__":
    sys.exit(main())
