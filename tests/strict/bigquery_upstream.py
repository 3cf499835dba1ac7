"""The emulator behind a strict BigQuery: takes what passed the strict checks."""

from __future__ import annotations

import json
import queue
import threading
import urllib.error
import urllib.request
from typing import Any

import grpc
import pyarrow as pa

from tests.strict.bigquery_store import Reference, RestError, Store, Table
from tests.strict.bigquery_write import (
    SERVICE,
    CreateWriteStreamRequest,
    FinalizeWriteStreamRequest,
    FinalizeWriteStreamResponse,
    Refusal,
    Request,
    Response,
    WriteStream,
)

_SECONDS = 60.0


class Upstream:
    """The emulator's REST URL and its Storage API's host:port. Its schemas are learned as REST shows them."""

    def __init__(self, rest: str, endpoint: str, store: Store) -> None:
        self._rest = rest
        self._store = store
        self._channel = grpc.insecure_channel(
            endpoint, options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        )
        self._appends: dict[str, _Append] = {}
        self._lock = threading.Lock()

    def _unary(self, name: str, request: Any, answer: Any) -> Any:
        call = self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=lambda r: r.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            return call(request, timeout=_SECONDS)
        except grpc.RpcError as error:
            raise Refusal(error.code().value[0], error.details()) from None

    def table(self, reference: Reference) -> Table | None:
        """A table that REST knows and we have not seen yet."""
        url = "{}/bigquery/v2/projects/{}/datasets/{}/tables/{}".format(self._rest, *reference)
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
                self.learn(json.load(answer), at_once=True)
        except urllib.error.HTTPError:
            return None
        return self._store.tables.get(reference)

    def learn(self, resource: dict[str, Any], *, at_once: bool = False) -> None:
        """A table as REST answered it. The write path learns of a change as late as the store's lags say."""
        shown = resource.get("tableReference")
        if not shown or "schema" not in resource:
            return
        reference = (shown["projectId"], shown["datasetId"], shown["tableId"])
        with self._store.lock:
            known = self._store.tables.get(reference)
            if known is not None:
                self._store.change_schema(known, _fields(resource))
                return
            if reference[:2] not in self._store.datasets:
                self._store.create_dataset(*reference[:2])
            made = self._store.create_table(reference, resource)
            if at_once:
                made.versions[0] = type(made.versions[0])(made.fields, self._store.clock())

    def forget(self, reference: Reference) -> None:
        try:
            self._store.drop_table(reference)
        except RestError:
            return

    def create(self, request: CreateWriteStreamRequest) -> Any:
        return self._unary("CreateWriteStream", request, WriteStream)

    def finalize(self, request: FinalizeWriteStreamRequest) -> Any:
        return self._unary("FinalizeWriteStream", request, FinalizeWriteStreamResponse)

    def append(self, stream: str, rows: pa.RecordBatch, offset: int | None) -> None:
        """Raises Refusal where the emulator refuses what passed the checks."""
        with self._lock:
            append = self._appends.get(stream)
            if append is None or append.schema != rows.schema:
                if append is not None:
                    append.close()
                append = self._appends[stream] = _Append(self._channel, stream, rows.schema)
        try:
            response = append.send(rows, offset)
        except Refusal:
            with self._lock:
                self._appends.pop(stream, None)
            raise
        if response.error.code:
            refusal = Refusal(response.error.code, response.error.message, ends=False)
            refusal.row_errors = {e.index: e.message for e in response.row_errors}
            raise refusal

    def close(self) -> None:
        for append in self._appends.values():
            append.close()
        self._channel.close()


def _fields(resource: dict[str, Any]) -> Any:
    from tests.strict.bigquery_store import normalised

    return normalised(resource["schema"].get("fields", []))


class _Append:
    """One AppendRows call to the emulator."""

    def __init__(self, channel: Any, stream: str, schema: pa.Schema) -> None:
        self.schema = schema
        self._stream = stream
        self._first = True
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = channel.stream_stream(
            f"/{SERVICE}/AppendRows",
            request_serializer=lambda r: r.SerializeToString(),
            response_deserializer=Response.FromString,
        )
        self._answers = call(iter(self._requests.get, None))
        self._lock = threading.Lock()

    def send(self, rows: pa.RecordBatch, offset: int | None) -> Any:
        with self._lock:
            request = Request(write_stream=self._stream)
            if offset is not None:
                request.offset.value = offset
            request.arrow_rows.rows.serialized_record_batch = rows.serialize().to_pybytes()
            if self._first:
                request.arrow_rows.writer_schema.serialized_schema = self.schema.serialize().to_pybytes()
                self._first = False
            self._requests.put(request)
            try:
                return next(self._answers)
            except grpc.RpcError as error:
                raise Refusal(error.code().value[0], error.details() or "the emulator ended the call") from None

    def close(self) -> None:
        self._requests.put(None)
