"""What a failure of Google's services asks for: one classification, by code and by `StorageError`.

The same code means the same whether it ends a call, comes inside a response, or is an exception of a client library.
What waits, waits by time and says so; a row becomes a dead letter only where the failure is the row's.

Sources: google.rpc.Code; `AppendRowsResponse.error` and `StorageError.StorageErrorCode` in the reference of the BigQuery
Storage Write API (google.cloud.bigquery.storage.v1).
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import grpc


class Action(Enum):
    """What to do about a failure."""

    WAIT = "wait"  # the service, its limits, permissions, a table or schema that is not there yet: the same again later
    NEW_STREAM = "new stream"  # the write stream takes no more, or holds something else at this offset
    THIS_ROW = "this row"  # the request can never be taken: find the row
    TOO_LARGE = "too large"  # the request is over a limit: send less at once


# google.rpc.Code
OK: Final = 0
_INVALID_ARGUMENT: Final = 3
_NOT_FOUND: Final = 5
_ALREADY_EXISTS: Final = 6
_FAILED_PRECONDITION: Final = 9
_OUT_OF_RANGE: Final = 11

_BY_CODE: Final = {
    _INVALID_ARGUMENT: Action.THIS_ROW,
    _NOT_FOUND: Action.NEW_STREAM,
    _ALREADY_EXISTS: Action.NEW_STREAM,
    _FAILED_PRECONDITION: Action.NEW_STREAM,
    _OUT_OF_RANGE: Action.NEW_STREAM,
}


def of_code(code: int) -> Action:
    """What a status code alone asks for. A code that is not known waits: a row is never lost to a new code."""
    return _BY_CODE.get(code, Action.WAIT)


def code_of(error: BaseException) -> int:
    """The google.rpc.Code of an exception of gRPC or of Google's client libraries; UNKNOWN (2) for any other."""
    status: Any = getattr(error, "grpc_status_code", None)
    if status is None and isinstance(error, grpc.RpcError):
        status = error.code()
    if isinstance(status, grpc.StatusCode):
        return int(status.value[0])
    return 2
