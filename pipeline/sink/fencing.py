"""Taking over from an older job of the same name: after it, nothing of the older job can reach BigQuery any more."""

from __future__ import annotations

import logging
from typing import NamedTuple

from google.api_core import exceptions

from pipeline import clients
from pipeline.sink.config import SinkSettings

_LOG = logging.getLogger(__name__)


class TakenOver(NamedTuple):
    """`position`: where to read from. `fenced_at`: older jobs' rows are no younger than this; None on a first start."""

    generation: int
    position: str
    fenced_at: str | None


def take_over(sink: SinkSettings, start: str) -> TakenOver:
    """Takes a new generation, finalizes what older ones could still append to, and returns where to go on.

    `start` counts where no older job left a position.
    """
    generations = sink.generations()
    taken = generations.take_over(start)
    if taken.streams:
        write = clients.write_client(sink.endpoints.bigquery_storage)
        for stream in taken.streams:
            try:
                write.finalize_write_stream(name=stream)
            except (exceptions.NotFound, exceptions.InvalidArgument, exceptions.FailedPrecondition) as error:
                _LOG.info("A write stream of an older job takes no more rows (%s).", type(error).__name__)
    fenced_at = generations.fence(taken.generation)
    return TakenOver(taken.generation, taken.position, fenced_at if taken.generation > 1 else None)
