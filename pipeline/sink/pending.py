"""Rows in a pending write stream: nobody sees them until it is committed, and then all of them.

That makes a retry simple: after any doubt the stream is given up, never to be committed, and the rows go to another
one. Only what is certainly the fault of a row is settled within a stream: the row is left out, and named.
Source: cloud.google.com/bigquery/docs/write-api-batch.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud.bigquery_storage_v1 import types

from contract.changes import Column
from contract.endpoints import on_this_machine
from pipeline import clients
from pipeline.service_errors import OK, Action, failure_of, says_unknown_field
from pipeline.sink import rows as encoding
from pipeline.sink.changelogs import LAG_SECONDS, Changelogs, NotReady
from pipeline.sink.config import SinkSettings
from pipeline.sink.connection import AppendConnection, NoAnswer, TooLarge

_LOG = logging.getLogger(__name__)
_ANSWER_SECONDS: Final = 60.0
_PAUSES: Final = (0.5, 20.0)
# In one request; the emulator takes 4 MiB, and an append costs it the same for one row as for these.
_ROWS: Final = 500

_FAILURES = (exceptions.GoogleAPIError, GoogleAuthError, NoAnswer, NotReady, OSError)


class _Doubt(Exception):
    """What became of an append is not known, or the stream takes no more: the rows go to another stream."""


class _Halve(Exception):
    """Some row of a request is at fault, or all of them are too much, and which one is not known."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A finalized stream and how many rows are in it; empty where BigQuery takes none of them.

    `refused`: index of a row in the batch → why BigQuery refuses it, by its own code.
    """

    stream: str
    rows: int
    refused: dict[int, str]


class PendingWriter:
    """Writes batches to pending streams, and commits these. Not for several threads.

    `patience`: seconds that BigQuery may be away or not know a new column; then it raises NotReady.
    """

    def __init__(
        self,
        settings: SinkSettings,
        *,
        patience: float = LAG_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._destinations = settings.destinations
        self._client = clients.write_client(settings.endpoints.bigquery_storage)
        self._changelogs = Changelogs(settings.bigquery(), settings.destinations)
        self._stamped = on_this_machine(settings.endpoints.bigquery_storage)
        self._patience = patience
        self._clock = clock
        self._sleep = sleep

    def write(self, table: str, batch: pa.RecordBatch, columns: tuple[Column, ...]) -> Pending:
        """Appends the rows of a source table to a new stream, and finalizes it. Raises NotReady."""
        began, tries = self._clock(), 0
        while True:
            try:
                return self._fill(table, batch, columns)
            except (_Doubt, *_FAILURES) as error:
                self._changelogs.forget(table)
                pause = min(_PAUSES[1], _PAUSES[0] * 2 ** min(tries, 10))
                tries += 1
                if self._clock() + pause - began > self._patience:
                    raise NotReady(f"BigQuery takes no rows of {table} ({_why(error)})") from error
                _LOG.warning("A pending stream of %s is given up (%s): its rows go to another.", table, _why(error))
                self._sleep(pause)

    def commit(self, stream: str) -> None:
        """Makes the rows of a stream visible; once, however often it is called. Raises NotReady."""
        parent = stream.partition("/streams/")[0]
        answer = self._client.batch_commit_write_streams(request={"parent": parent, "write_streams": [stream]})
        refused = [each for each in answer.stream_errors if each.code != _ALREADY_COMMITTED]
        # The emulator has another code for a stream that is committed.
        if refused and not self._client.get_write_stream(name=stream).commit_time:
            raise NotReady(f"BigQuery does not commit a stream of {parent.rpartition('/')[2]}")

    def _fill(self, table: str, batch: pa.RecordBatch, columns: tuple[Column, ...]) -> Pending:
        dataset, name = self._destinations.of(table)
        fields = encoding.fields(columns, self._destinations.watched.of(table))
        known = self._changelogs.conform(table, columns, fields)
        names = {n: known.get(n, n) for n in batch.schema.names if n != encoding.STREAM}
        stamp = time.time_ns() // 1000 if self._stamped else None
        sent = encoding.for_append(pa.Table.from_batches([batch]), names, stamp)
        made = self._client.create_write_stream(
            parent=f"projects/{self._destinations.project}/datasets/{dataset}/tables/{name}",
            write_stream=types.WriteStream(type_=types.WriteStream.Type.PENDING),
        )
        with closing(_Stream(self._client, made.name, sent)) as stream:
            refused = stream.append_all()
        landed = sent.num_rows - len(refused)
        counted = self._client.finalize_write_stream(name=made.name).row_count
        if counted != landed:
            raise _Doubt(f"it has {counted} rows in place of {landed}")
        return Pending(stream=made.name if landed else "", rows=landed, refused=refused)


class _Stream:
    """The appends to one pending stream."""

    def __init__(self, client: Any, name: str, rows: pa.RecordBatch) -> None:
        self._client = client
        self._name = name
        self._rows = rows
        self._offset = 0
        self._connection: AppendConnection | None = None

    def append_all(self) -> dict[int, str]:
        """Appends all rows but those that BigQuery refuses. Gives these: index → why. Raises _Doubt."""
        refused: dict[int, str] = {}
        pieces = deque(_pieces(self._rows.num_rows))
        while pieces:
            piece = pieces.popleft()
            try:
                bad = self._send(piece)
            except _Halve:
                middle = len(piece) // 2
                pieces.extendleft((piece[middle:], piece[:middle]))
                continue
            refused |= bad
            if bad and (others := [index for index in piece if index not in bad]):
                pieces.appendleft(others)
        return refused

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _send(self, piece: list[int]) -> dict[int, str]:
        """What of the piece is refused; nothing: all of it landed. A refused request leaves nothing behind."""
        try:
            response = self._append(piece)
        except TooLarge:
            return _judged(piece, Action.TOO_LARGE, "")
        except _FAILURES as error:
            failure = failure_of(error)
            self.close()
            self._connection = None
            return _judged(piece, failure.action, failure.name)
        if response.row_errors:
            if any(says_unknown_field(error.message) for error in response.row_errors):
                raise _Doubt("it does not know a column yet")
            return {piece[error.index]: _CODES(error.code).name for error in response.row_errors}
        failure = failure_of(response.error)
        if failure.code != OK:
            return _judged(piece, failure.action, failure.name)
        self._offset += len(piece)
        return {}

    def _append(self, piece: list[int]) -> Any:
        if self._connection is None or self._connection.ended:
            self._connection = AppendConnection(self._client, self._name, self._rows.schema)
        rows = self._rows.take(pa.array(piece, pa.int64()))
        return self._connection.append(rows, self._offset, timeout=_ANSWER_SECONDS)


_CODES: Final = types.RowError.RowErrorCode
_ALREADY_COMMITTED: Final = types.StorageError.StorageErrorCode.STREAM_ALREADY_COMMITTED


def _judged(piece: list[int], action: Action, name: str) -> dict[int, str]:
    if action not in (Action.THIS_ROW, Action.TOO_LARGE):
        raise _Doubt(name)
    if len(piece) > 1:
        raise _Halve
    return {piece[0]: name if action is Action.THIS_ROW else "larger than one request may be"}


def _pieces(rows: int) -> Iterator[list[int]]:
    for start in range(0, rows, _ROWS):
        yield list(range(start, min(rows, start + _ROWS)))


def _why(error: BaseException) -> str:
    return str(error) if isinstance(error, _Doubt | NotReady | NoAnswer) else type(error).__name__
