"""The resume position as the warehouse sees it: how complete the changelogs are, for readers and the state's merge."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import grpc
import pyarrow as pa
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError

from contract import tables, timestamps
from contract.logs import ErrorClass
from pipeline import logs
from pipeline.service_errors import failure_of
from pipeline.sink.connection import AppendConnection, NoAnswer

_LOG = logging.getLogger(__name__)
_TIMESTAMP = pa.timestamp("us", tz="UTC")
_SCHEMA = pa.schema(
    [("job_name", pa.string()), ("generation", pa.int64()), ("position", _TIMESTAMP), ("written_at", _TIMESTAMP)]
)

# Everything that a call to Google can end with.
_FAILURES = (GoogleAPIError, GoogleAuthError, grpc.RpcError, NoAnswer, OSError)


class PositionLog:
    """Appends positions to the table `resume_positions`."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._connection: AppendConnection | None = None

    def publish(self, position: str) -> None:
        """Appends one position. A failure is logged and left: the next position says more."""
        row = [
            [self._settings.job_name],
            [self._settings.generation],
            [timestamps.to_micros(position)],
            [datetime.now(UTC)],
        ]
        batch = pa.RecordBatch.from_arrays(
            [pa.array(v, t) for v, t in zip(row, _SCHEMA.types, strict=True)], schema=_SCHEMA
        )
        try:
            response = self._connect().append(batch, None, timeout=10)
        except _FAILURES as error:
            self._warn(type(error).__name__)
            self._close()
        else:
            if response.error.code:
                self._warn(failure_of(response.error).name)

    @staticmethod
    def _warn(failure: str) -> None:
        _LOG.warning(
            "Publishing the resume position: %s. The next one follows.",
            failure,
            extra=logs.fields(error_class=ErrorClass.POSITION),
        )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> AppendConnection:
        if self._connection is not None and self._connection.ended:
            self._close()
        if self._connection is None:
            from pipeline.clients import write_client

            project = self._settings.destinations.project
            table = tables.resume_positions(self._settings.destinations.watched)
            stream = f"projects/{project}/datasets/{table.dataset}/tables/{table.name}/streams/_default"
            self._connection = AppendConnection(
                write_client(self._settings.endpoints.bigquery_storage), stream, _SCHEMA
            )
        return self._connection
