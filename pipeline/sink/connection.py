"""One AppendRows connection: a request out, its response back."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any, Final

import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

_DEFAULT_VALUE = types.AppendRowsRequest.MissingValueInterpretation.DEFAULT_VALUE
# BigQuery takes 10 MB a request, with everything in it: https://cloud.google.com/bigquery/quotas#write-api-limits.
# A little is left for what the transport adds.
REQUEST_BYTES: Final = 10 * 1024 * 1024 - 16 * 1024


_CLOSE_SECONDS: Final = 1.0


class NoAnswer(Exception):
    """BigQuery did not answer in time. Whether the rows arrived is not known."""


class TooLarge(Exception):
    """The rows make a request that is larger than BigQuery takes. Nothing was sent."""


class AppendConnection:
    """A connection to one write stream, for rows of one schema. Not for several threads.

    Once the call has ended, for any reason, nothing can be sent on it any more: `ended` says so.
    """

    def __init__(self, client: Any, stream: str, schema: pa.Schema) -> None:
        self.stream = stream
        self.schema = schema
        self.ended = False
        self._first = True
        self._awaiting = False
        self._client = client
        self._call: Any = None
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._receiver = threading.Thread(target=self._receive, name="append-rows", daemon=True)
        self._receiver.start()

    def append(self, rows: pa.RecordBatch, offset: int | None, *, timeout: float) -> Any:
        """Sends rows, to land at `offset` (None on a default stream), and waits for the response.

        Raises TooLarge before it sends, NoAnswer after `timeout` seconds, and the error that ended the connection.
        """
        request = types.AppendRowsRequest()
        if offset is not None:
            request.offset = offset
        request.arrow_rows.rows.serialized_record_batch = rows.serialize().to_pybytes()
        if self._first:
            request.write_stream = self.stream
            request.arrow_rows.writer_schema.serialized_schema = self.schema.serialize().to_pybytes()
            request.default_missing_value_interpretation = _DEFAULT_VALUE
        if types.AppendRowsRequest.pb(request).ByteSize() > REQUEST_BYTES:
            raise TooLarge
        self._first = False
        self._awaiting = True
        self._requests.put(request)
        try:
            response = self._responses.get(timeout=timeout)
        except queue.Empty:
            raise NoAnswer(f"no answer to an append within {timeout:.0f} s") from None
        self._awaiting = False
        if isinstance(response, Exception):
            raise response
        return response

    def close(self) -> None:
        """Ends the call, so that another one may follow: BigQuery takes one a stream."""
        self.ended = True
        self._requests.put(None)
        if not self._awaiting:
            self._receiver.join(_CLOSE_SECONDS)
        elif self._call is not None:
            with contextlib.suppress(Exception):
                self._call.cancel()

    def _receive(self) -> None:
        try:
            self._call = self._client.append_rows(
                iter(self._requests.get, None),
                metadata=[("x-goog-request-params", f"write_stream={self.stream}")],
                retry=None,
                timeout=None,
            )
            for response in self._call:
                self._responses.put(response)
        except Exception as error:
            self.ended = True
            self._responses.put(error)
        else:
            self.ended = True
            self._responses.put(NoAnswer("the connection was closed"))
