"""The change stream as a Beam source: its start, its positions, its bundles, and how many readers it has."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from pipeline.source.partitions import PartitionSet
from pipeline.source.query import ChangeStream
from pipeline.source.read import ChangeStreamReader, ChangeStreamSource, PartitionSetMark
from pipeline.source.reading import Reading

START = "2026-11-23T09:00:00.000000000Z"
LATER = "2026-11-23T10:00:00.000000000Z"
STREAM = ChangeStream(name="S", database="projects/p/instances/i/databases/d", endpoint="127.0.0.1:1")


def resume_position() -> str:
    return LATER


def never() -> str:
    raise AssertionError("asked for a start although there is a checkpoint")


def reader(start: str | Callable[[], str], mark: PartitionSetMark | None = None) -> ChangeStreamReader:
    source = pickle.loads(pickle.dumps(ChangeStreamSource(STREAM, start, Reading())))
    made: ChangeStreamReader = source.create_reader(None, mark)
    return made


def test_a_start_may_be_a_text_or_be_asked_for_on_the_worker() -> None:
    assert PartitionSet.from_bytes(reader(START).get_checkpoint_mark().state).watermark() == START
    assert PartitionSet.from_bytes(reader(resume_position).get_checkpoint_mark().state).watermark() == LATER


def test_a_checkpoint_is_resumed_without_asking_for_a_start() -> None:
    mark = PartitionSetMark(PartitionSet(START).to_bytes())
    assert PartitionSet.from_bytes(reader(never, mark).get_checkpoint_mark().state).watermark() == START
