"""A sink whose jobs take over from each other: its metadata database in memory, BigQuery as far as finalizing goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.sink import fencing
from pipeline.sink.config import SinkSettings
from pipeline.sink.fencing import TakenOver
from pipeline.sink.generations import GenerationStore
from tests.strict.generations import InMemoryGenerations, Ledger

JOB = "job"
START = "2026-11-23T09:00:00.000000000Z"
LATER = "2026-11-23T10:00:00.000000000Z"


@dataclass(frozen=True, kw_only=True)
class TwinSink(SinkSettings):
    """Sink settings whose generations are in a ledger, which copies share."""

    ledger: Ledger = field(default_factory=Ledger)

    def generations(self) -> GenerationStore:
        return InMemoryGenerations(self.job_name, self.ledger)


class Finalizing:
    """BigQuery's writing side, as far as finalizing goes: which streams, and what it answers each time."""

    def __init__(self) -> None:
        self.streams: list[str] = []
        self.fails: list[Exception] = []
        self.meanwhile: Callable[[], Any] = lambda: None

    def finalize_write_stream(self, name: str) -> None:
        self.streams.append(name)
        self.meanwhile()
        if self.fails:
            raise self.fails.pop()


def launched(sink: SinkSettings, start: str = START) -> SinkSettings:
    """What the workers of a launch get."""
    return replace(sink, run_id=sink.generations().new_run(), start=start)


def join(run: SinkSettings) -> TakenOver:
    """As another process of the run: nothing is remembered."""
    return fencing._join(run)


def recorded(sink: SinkSettings, stream: str, shard: str = "0") -> str:
    """A write stream that a worker of the settings' run opened."""
    table = "p.payment_audit.payment_audit_trail_bq"
    fence = sink.generations().record_stream(join(sink).generation, table, shard, stream, replaces=None)
    assert fence is not None
    return stream
