"""One AppendRows connection: a request out, its response back."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

_DEFAULT_VALUE = types.AppendRowsRequest.MissingValueInterpretation.DEFAULT_VALUE


class NoAnswer(Exception):
    """BigQuery did not answer in time. Whether the rows arrived is not known."""


class AppendConnection:
    """A connection to one write stream, for rows of one schema. Not for several threads."""

    def __init__(self, client: Any, stream: str, schema: pa.Schema) -> None:
        self.stream = stream
        self.schema = schema
        self._first = True
        self._client = client
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._receive, name="append-rows", daemon=True).start()

    def append(self, rows: pa.RecordBatch, offset: int | None, *, timeout: float) -> Any:
        """Sends rows, to land at `offset` (None on a default stream), and waits for the response.

        Raises NoAnswer after `timeout` seconds, and whatever error ended the connection.
        """
        request = types.AppendRowsRequest()
        if offset is not None:
            request.offset = offset
        request.arrow_rows.rows.serialized_record_batch = rows.serialize().to_pybytes()
        if self._first:
            request.write_stream = self.stream
            request.arrow_rows.writer_schema.serialized_schema = self.schema.serialize().to_pybytes()
            request.default_missing_value_interpretation = _DEFAULT_VALUE
            self._first = False
        self._requests.put(request)
        try:
            response = self._responses.get(timeout=timeout)
        except queue.Empty:
            raise NoAnswer(f"no answer to an append within {timeout:.0f} s") from None
        if isinstance(response, Exception):
            raise response
        return response

    def close(self) -> None:
        self._requests.put(None)

    def _receive(self) -> None:
        try:
            for response in self._client.append_rows(
                iter(self._requests.get, None),
                metadata=[("x-goog-request-params", f"write_stream={self.stream}")],
                retry=None,
                timeout=None,
            ):
                self._responses.put(response)
        except Exception as error:
            self._responses.put(error)
        else:
            self._responses.put(NoAnswer("the connection was closed"))
