"""How many orders came to which status in each second: a change stream in a pipeline without an audit.

python tests/examples/orders/count_statuses.py --database=projects/P/instances/I/databases/D --runner=DataflowRunner …
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows

from contract import timestamps
from pipeline.source.beam_source import ReadChanges
from pipeline.source.partition_threads import Reading
from pipeline.source.query import ChangeStream
from pipeline.source.records import DataChange, ReadPosition


def is_change(record: DataChange | ReadPosition) -> bool:
    """Between the changes there is a position for each second that was read."""
    return isinstance(record, DataChange)


def statuses(change: DataChange) -> Iterator[str]:
    """The status of each order that the record inserted or updated."""
    for mod in change.mods:
        row = json.loads(mod.new_values or "{}")
        if "Status" in row:
            yield row["Status"]


def line(count: tuple[str, int], window: beam.transforms.window.IntervalWindow = beam.DoFn.WindowParam) -> str:
    return json.dumps({"second": window.start.to_rfc3339(), "status": count[0], "orders": count[1]})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", required=True, help="projects/P/instances/I/databases/D")
    parser.add_argument("--stream", default="OrdersStream")
    parser.add_argument("--endpoint", default="", help="host:port of an emulator; empty: Google Cloud")
    parser.add_argument("--start", help="commit timestamp to begin at, RFC 3339 UTC; default: now")
    parser.add_argument("--end", help="last commit timestamp to read; default: never ends")
    given, beam_args = parser.parse_known_args()

    stream = ChangeStream(name=given.stream, database=given.database, endpoint=given.endpoint)
    start = timestamps.normalise(given.start) if given.start else timestamps.now()
    reading = Reading(
        # Google Cloud pushes changes into one long query per partition; the emulator is polled.
        mode="windows" if given.endpoint else "tail",
        end=timestamps.normalise(given.end) if given.end else None,
    )

    with beam.Pipeline(options=PipelineOptions(beam_args, streaming=True)) as pipeline:
        _ = (
            pipeline
            | ReadChanges(stream, start, reading)
            | "Changes" >> beam.Filter(is_change)
            | "NoDeletes" >> beam.Filter(lambda change: change.mod_type != "DELETE")
            | "Statuses" >> beam.FlatMap(statuses)
            | "Seconds" >> beam.WindowInto(FixedWindows(1))
            | "Count" >> beam.combiners.Count.PerElement()
            | "Lines" >> beam.Map(line)
            | "Print" >> beam.Map(lambda text: print(text, flush=True))
        )


if __name__ == "__main__":
    main()
