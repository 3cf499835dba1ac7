"""`WriteDeadLetters`: dead letters → their folder or bucket."""

from __future__ import annotations

import logging
from collections import Counter

import apache_beam as beam
from apache_beam.metrics import Metrics

from contract import metrics
from contract.changes import DeadLetter
from pipeline import logs
from pipeline.failures import error_fields
from pipeline.sink.dead_letters import DeadLetterQueue

_LOG = logging.getLogger(__name__)


class WriteDeadLetters(beam.DoFn):
    """Makes dead letters durable before the bundle ends, so that the position behind them can be trusted."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def setup(self) -> None:
        self._queue = DeadLetterQueue(self._directory)

    def start_bundle(self) -> None:
        self._letters: list[DeadLetter] = []

    def process(self, letter: DeadLetter) -> None:
        self._letters.append(letter)

    def finish_bundle(self) -> None:
        if not self._letters:
            return
        self._queue.put(self._letters)
        reasons = Counter(letter.reason for letter in self._letters)
        for reason, count in reasons.items():
            Metrics.counter(metrics.NAMESPACE, f"{metrics.DEAD_LETTERS}_{reason}").inc(count)
        first = self._letters[0]
        _LOG.warning(
            "%d dead letters written to %s, the first of step %s: %s",
            len(self._letters),
            self._directory,
            first.step,
            first.message,
            extra=logs.fields(**error_fields(self._letters), reasons=reasons),
        )
