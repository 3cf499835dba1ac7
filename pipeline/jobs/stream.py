"""The streaming job: change streams → masked, enriched rows in BigQuery, exactly once.

python -m pipeline.jobs.stream --help
"""

from __future__ import annotations

import logging
import signal
import sys
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from contract import timestamps
from contract.logs import Trouble
from pipeline import logs
from pipeline.jobs import checks
from pipeline.jobs.settings import SettingsError, StreamSettings, parse
from pipeline.sink.config import SinkSettings
from pipeline.sink.fencing import take_over
from pipeline.sink.retry import RetryDeadLetters, RetrySettings
from pipeline.sink.write import WriteChanges
from pipeline.source.read import ReadChanges
from pipeline.steps import DEAD, POSITIONS, Decode, EncodedRows, EncodeRows, Enrich, Filter, Mask, WriteDeadLetters

# Run as a script its name would be __main__, which no level is set for.
_LOG = logging.getLogger("pipeline.jobs.stream")


def build(pipeline: Any, settings: StreamSettings, sink: SinkSettings, start: str) -> None:
    """Puts the job together."""
    records = (
        tuple(
            pipeline | f"Read {stream.name}" >> ReadChanges(stream, start, settings.reading)
            for stream in settings.streams
        )
        | beam.Flatten()
    )

    decoded = records | "Decode" >> beam.ParDo(Decode()).with_outputs(DEAD, POSITIONS, main="changes")
    masked = decoded["changes"] | "Mask" >> beam.ParDo(
        Mask(settings["maskingKeys"], settings.new_columns)
    ).with_outputs(DEAD, main="changes")
    enriched = masked["changes"] | "Enrich" >> beam.ParDo(Enrich(settings.payment_states)).with_outputs(
        DEAD, main="changes"
    )
    encoded = (
        enriched["changes"]
        | "Filter" >> beam.ParDo(Filter(settings.ignored))
        | "EncodeRows"
        >> beam.ParDo(EncodeRows(int(settings["numStorageWriteApiStreams"]), int(settings["batchRows"]))).with_outputs(
            DEAD, main="rows"
        )
    )
    dead_letters = (decoded[DEAD], masked[DEAD], enriched[DEAD], encoded[DEAD]) | "DeadLetters" >> beam.Flatten()

    {
        "rows": encoded["rows"] | "Keyed" >> beam.Map(_same).with_output_types(tuple[str, EncodedRows]),
        "dead_letters": dead_letters,
        "positions": decoded[POSITIONS],
    } | "WriteChanges" >> WriteChanges(
        sink,
        batch_millis=int(settings["batchMillis"]),
        streams=settings.stream_names,
        dead_letters="WriteDeadLetters" >> beam.ParDo(WriteDeadLetters(settings["deadLetterQueueDirectory"])),
    )
    if settings["disableDlqRetries"] == "false":
        decoded[POSITIONS] | "RetryDeadLetters" >> RetryDeadLetters(RetrySettings.of(settings, sink))


def beam_options(settings: StreamSettings, beam_args: list[str]) -> PipelineOptions:
    """Beam's options: what the command line left for it, and what all the workers of this job have."""
    args = [*beam_args, *logs.worker_options(settings["logLevel"])]
    return PipelineOptions(args, streaming=True, save_main_session=False)


def _same(element: Any) -> Any:
    return element


def launch(settings: StreamSettings, beam_args: list[str]) -> str:
    """Takes over from an older job, runs the pipeline to its end, and returns Beam's state of it."""
    sink = settings.sink
    start = timestamps.normalise(settings["startTimestamp"]) if settings["startTimestamp"] else timestamps.now()
    if sink.exactly_once:
        taken = take_over(sink, start)
        sink = replace(sink, generation=taken.generation, fenced_at=taken.fenced_at)
        start = taken.position
    else:
        _LOG.warning("at-least-once: nothing fences an older job, and a killed one leaves duplicates.")
    _LOG.info("Job %s, generation %d, reads from %s.", sink.job_name, sink.generation, start)

    pipeline = beam.Pipeline(options=beam_options(settings, beam_args))
    build(pipeline, settings, sink, start)
    result = pipeline.run()

    def cancel(*_: Any) -> None:
        _LOG.info("Ending on a signal. The next job goes on from the resume position.")
        result.cancel()
        sys.exit(0)

    signal.signal(signal.SIGTERM, cancel)
    signal.signal(signal.SIGINT, cancel)
    return str(result.wait_until_finish())


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 ended as asked, 1 a check failed or the pipeline did, 2 bad options."""
    try:
        settings, beam_args = parse(sys.argv[1:] if argv is None else argv)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logs.configure(settings["logLevel"], sys.stderr)
    # A line for each type hint that it cannot convert, which is not an error.
    logging.getLogger("apache_beam.typehints.native_type_compatibility").setLevel(logging.WARNING)
    if settings["dryRun"] == "true":
        findings = checks.run(settings)
        for finding in findings:
            sys.stdout.write(f"{'failed' if finding.problem else 'ok    '}  {finding.problem or finding.checked}\n")
        return 1 if any(f.problem for f in findings) else 0
    try:
        checks.require(settings)
    except checks.CheckFailed as error:
        _LOG.error("The job cannot start:\n%s", error, extra=logs.fields(error_class=Trouble.REFUSED))
        return 1
    try:
        state = launch(settings, beam_args)
    except Exception:
        _LOG.exception("The job ended with an error.")
        return 1
    return 0 if state in ("DONE", "DRAINED", "CANCELLED", "UPDATED") else 1


if __name__ == "__main__":
    sys.exit(main())
