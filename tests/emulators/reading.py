"""What a change stream gives, read as the job reads it."""

from __future__ import annotations

from pipeline.source.beam_source import ChangeStreamReader
from pipeline.source.partition_threads import Reading
from pipeline.source.partitions import PartitionSet
from pipeline.source.query import ChangeStream
from pipeline.source.records import DataChange


def read(stream: ChangeStream, since: str, many: int) -> list[DataChange]:
    """The first records, by the source's own reader."""
    reader = ChangeStreamReader(stream, Reading(mode="windows"), PartitionSet(since))
    found: list[DataChange] = []
    available = reader.start()
    while len(found) < many:
        if available and isinstance(current := reader.get_current(), DataChange):
            found.append(current)
        available = reader.advance()
    reader.close()
    return found
