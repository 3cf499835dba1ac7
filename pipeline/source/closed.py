"""Reads what a change stream had in time that has passed: no query waits, and none is left open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from contract import timestamps
from pipeline.source.partitions import PartitionSet
from pipeline.source.records import Child, ChildPartitions, DataChange, PartitionEnd, PartitionStart


def changes_before(query: Any, partitions: PartitionSet, end: str) -> Iterator[DataChange]:
    """The changes from the set's position to before `end`, a whole second that has passed. Moves the set to `end`.

    A partition is read as it was: no query waits. Raises grpc.RpcError; the set is then worth nothing.
    """
    last = timestamps.from_nanos(timestamps.to_nanos(end) - 1)
    # A query may leave out the record of children that start at its very end: ask a little further, and cut.
    further = timestamps.from_nanos(timestamps.to_nanos(end) + 1_000_000)
    if not partitions.discovered:
        partitions.begin(query.roots(partitions.start))
    while behind := {token: at for token, at in partitions.readable().items() if at < end}:
        for token, position in behind.items():
            ended, children = False, list[Child]()
            for record in query.run(position, token=token, end=further):
                if isinstance(record, ChildPartitions):
                    children += record.children
                elif isinstance(record, PartitionStart):
                    partitions.add(child for child in record.children if child.start <= end)
                elif isinstance(record, PartitionEnd):
                    ended = record.timestamp <= end
                inside = isinstance(record, DataChange) and record.commit_timestamp < end
                if inside and partitions.claim(token, record):
                    yield record
            if ended or any(child.start <= end for child in children):
                partitions.end(token, tuple(children))
            else:
                partitions.advance(token, last)
