"""Taking over from an older job of the same name: after it, nothing of the older job can reach BigQuery any more.

It happens when a job runs, not when it is launched: what can fail before, fails with the older job still running.
Every process of a run joins before it reads or appends. The first one takes the generation, any of them finalizes and
sets the fence, all of them get the same answer; one that dies in between has the rest repeated by the next.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import grpc
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError

from contract.logs import ErrorClass
from pipeline import clients, logs
from pipeline import service_errors as failures
from pipeline.service_errors import Action
from pipeline.sink.generations import GenerationStore

if TYPE_CHECKING:
    from pipeline.sink.config import SinkSettings

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_PAUSE_SECONDS = (0.2, 30.0)
# OSError: connections, timeouts, and what `requests` raises.
_SERVICE_ERRORS = (exceptions.GoogleAPIError, GoogleAuthError, grpc.RpcError, OSError)


class TakenOver(NamedTuple):
    """`position`: where to read from. `fenced_at`: older jobs' rows are no younger than this; None on a first start."""

    generation: int
    position: str
    fenced_at: str | None


def take_over(sink: SinkSettings, start: str) -> TakenOver:
    """Takes over as a new run, as the first worker of a launched job does. `start`: as of `join`."""
    return join(replace(sink, run_id=sink.generations().new_run(), start=start))


# What this process has joined. A run has one generation and one fence: they are never asked for again.
_joined: dict[Any, TakenOver] = {}
_joining = threading.Lock()


def join(sink: SinkSettings) -> TakenOver:
    """The generation of the settings' run, taken over if no worker did before, with its fence set.

    `start` of the settings counts where no older job left a position. Waits for services that do not answer. Raises
    Fenced when a later run has taken over.
    """
    key = (sink.endpoints, sink.metadata, sink.job_name, sink.run_id)
    with _joining:
        if key not in _joined:
            _joined[key] = wait_out("Taking over", lambda: _join(sink))
        return _joined[key]


def _join(sink: SinkSettings) -> TakenOver:
    generations = sink.generations()
    run = generations.take_over(sink.run_id, sink.start)
    if run.taken:
        # Once a run, by whoever took over, and before anything else can end this process.
        _LOG.info("Job %s, generation %d, reads from %s.", sink.job_name, run.generation, run.position)
    fenced_at = run.fenced_at or _fence(sink, generations, run.generation)
    return TakenOver(run.generation, run.position, fenced_at if run.generation > 1 else None)


def _fence(sink: SinkSettings, generations: GenerationStore, generation: int) -> str:
    """Finalizes what older jobs could still append to, and only then sets the fence. To repeat it is harmless."""
    streams = generations.older_streams(generation)
    if streams:
        write = clients.write_client(sink.endpoints.bigquery_storage)
        for stream in streams:
            _finalize(write, stream)
    return generations.fence(generation)


def _finalize(write: Any, stream: str) -> None:
    try:
        write.finalize_write_stream(name=stream)
    except exceptions.GoogleAPICallError as error:
        if failures.of_code(failures.code_of(error)) is Action.WAIT:
            raise
        _LOG.info("A write stream of an older job takes no further rows (%s).", type(error).__name__)


def wait_out(what: str, work: Callable[[], _T], sleep: Callable[[float], None] = time.sleep) -> _T:
    """What `work` returns, once the services that it needs answer. It is repeated whole; other failures are raised."""
    tries = 0
    while True:
        try:
            return work()
        except _SERVICE_ERRORS as error:
            if failures.of_code(failures.code_of(error)) is not Action.WAIT:
                raise
            tries += 1
            if tries in (2, 5) or tries % 20 == 0:
                _LOG.warning(
                    "%s: %s, try %d. Nothing is lost; it is tried again until the service answers.",
                    what,
                    type(error).__name__,
                    tries,
                    extra=logs.fields(error_class=ErrorClass.POSITION, tries=tries),
                )
        first, most = _PAUSE_SECONDS
        sleep(min(most, first * 2 ** min(tries, 16)) * random.uniform(0.5, 1.0))  # noqa: S311
