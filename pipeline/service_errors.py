"""What a failure of Google's services asks for: one classification, by code and by `StorageError`.

The same code means the same whether it ends a call, comes inside a response, or is an exception of a client library.
What waits, waits by time and says so; a row becomes a dead letter only where the failure is the row's.

Sources: google.rpc.Code; `AppendRowsResponse.error` and `StorageError.StorageErrorCode` in the reference of the
BigQuery Storage Write API (google.cloud.bigquery.storage.v1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final, NamedTuple

import grpc


class Action(Enum):
    """What to do about a failure."""

    WAIT = "wait"  # the service, its limits, permissions, a table or schema that is not there yet: the same again later
    NEW_STREAM = "new stream"  # the write stream takes no further rows, or holds something else at this offset
    THIS_ROW = "this row"  # the request can never be taken: find the row
    TOO_LARGE = "too large"  # the request is over a limit: send less at once


# google.rpc.Code
OK: Final = 0
_INVALID_ARGUMENT: Final = 3
_NOT_FOUND: Final = 5
_ALREADY_EXISTS: Final = 6
_RESOURCE_EXHAUSTED: Final = 8
_FAILED_PRECONDITION: Final = 9
_OUT_OF_RANGE: Final = 11

_BY_CODE: Final = {
    _INVALID_ARGUMENT: Action.THIS_ROW,
    _NOT_FOUND: Action.NEW_STREAM,
    _ALREADY_EXISTS: Action.NEW_STREAM,
    _FAILED_PRECONDITION: Action.NEW_STREAM,
    _OUT_OF_RANGE: Action.NEW_STREAM,
}

# google.cloud.bigquery.storage.v1.StorageError.StorageErrorCode
TABLE_NOT_FOUND: Final = 1
SCHEMA_MISMATCH_EXTRA_FIELDS: Final = 7
_BY_STORAGE_ERROR: Final = {
    TABLE_NOT_FOUND: Action.WAIT,
    2: Action.NEW_STREAM,  # STREAM_ALREADY_COMMITTED
    3: Action.NEW_STREAM,  # STREAM_NOT_FOUND
    4: Action.NEW_STREAM,  # INVALID_STREAM_TYPE
    5: Action.NEW_STREAM,  # INVALID_STREAM_STATE
    6: Action.NEW_STREAM,  # STREAM_FINALIZED
    SCHEMA_MISMATCH_EXTRA_FIELDS: Action.WAIT,
    8: Action.NEW_STREAM,  # OFFSET_ALREADY_EXISTS
    9: Action.NEW_STREAM,  # OFFSET_OUT_OF_RANGE
    10: Action.WAIT,  # CMEK_NOT_PROVIDED
    11: Action.WAIT,  # INVALID_CMEK_PROVIDED
    12: Action.WAIT,  # CMEK_ENCRYPTION_ERROR
    13: Action.WAIT,  # KMS_SERVICE_ERROR
    14: Action.WAIT,  # KMS_PERMISSION_DENIED
}
_STORAGE_ERROR: Final = "google.cloud.bigquery.storage.v1.StorageError"

# Where a status has no StorageError, its text decides between the meanings of INVALID_ARGUMENT and RESOURCE_EXHAUSTED.
# It is compared and never shown: it may quote a value.
_STREAM_TEXT: Final = re.compile(r"stream (is|was|has been) (already )?finalized|invalid stream name", re.IGNORECASE)
_UNKNOWN_FIELD_TEXT: Final = re.compile(
    r"no such field|unknown (field|column)|extra fields?\b|more fields than|fields? (is |are )?(un|not )known",
    re.IGNORECASE,
)
_SIZE_TEXT: Final = re.compile(
    r"message (is )?larger than max|request (size |is |was )?.*(too large|exceed)|exceeds .*(bytes|MB)\b",
    re.IGNORECASE,
)
# What is over a quota may name bytes as well: it is sent again as it is, later.
_QUOTA_TEXT: Final = re.compile(
    r"quota|throughput|throttl|insufficient_tokens|too many|\brate\b|[/_]append_bytes"
    r"|\bper (second|minute|hour|day)|/s\b",
    re.IGNORECASE,
)


class Failure(NamedTuple):
    """A failure as it arrived. `storage_error` is a StorageErrorCode, 0 where there is none."""

    code: int
    storage_error: int = 0
    text: str = ""

    @property
    def action(self) -> Action:
        """What it asks for. A code that is not known waits: a row is never lost to a new code."""
        if self.storage_error in _BY_STORAGE_ERROR:
            return _BY_STORAGE_ERROR[self.storage_error]
        if self.code == _INVALID_ARGUMENT and _STREAM_TEXT.search(self.text):
            return Action.NEW_STREAM
        if self.code == _RESOURCE_EXHAUSTED and _QUOTA_TEXT.search(self.text):
            return Action.WAIT
        if self.code in (_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED) and _SIZE_TEXT.search(self.text):
            return Action.TOO_LARGE
        if self.lacks_field:
            return Action.WAIT
        return of_code(self.code)

    @property
    def lacks_field(self) -> bool:
        """BigQuery's write path does not know a column that was sent."""
        return self.storage_error == SCHEMA_MISMATCH_EXTRA_FIELDS or (
            self.code == _INVALID_ARGUMENT and not self.storage_error and says_unknown_field(self.text)
        )

    @property
    def lacks_table(self) -> bool:
        return self.storage_error == TABLE_NOT_FOUND or (self.code == _NOT_FOUND and not self.storage_error)

    @property
    def name(self) -> str:
        """The code's name, such as `UNAVAILABLE`, or that of its StorageError."""
        if self.storage_error:
            from google.cloud.bigquery_storage_v1 import types

            name: str = types.StorageError.StorageErrorCode(self.storage_error).name
            return name
        return str(_NAMES.get(self.code, f"code {self.code}"))


_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


def says_unknown_field(text: str) -> bool:
    """Whether BigQuery's text says that it does not know a field."""
    return bool(_UNKNOWN_FIELD_TEXT.search(text))


def failure_of(error: Any) -> Failure:
    """Reads an exception (gRPC's or a client library's) or the google.rpc.Status of a response."""
    if isinstance(error, BaseException):
        code, details, text = code_of(error), _details_of(error), str(getattr(error, "message", "") or error)
    else:
        code, details, text = int(error.code), error.details, str(error.message)
    return Failure(code, _storage_error(details), text)


def classify(error: Any) -> Action:
    """What a failure asks for, however it arrives: an exception, or the google.rpc.Status of a response."""
    return failure_of(error).action


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


def _details_of(error: BaseException) -> Iterable[Any]:
    """The details that a call's end carries: of the exception itself, or of the status in its trailing metadata."""
    details: Any = getattr(error, "details", None)
    if isinstance(details, list | tuple) and details:
        return details
    call: Any = getattr(error, "response", None) or error
    try:
        from grpc_status import rpc_status  # type: ignore[import-untyped]

        status = rpc_status.from_call(call)
    except Exception:  # no call, or one without trailing metadata: then there are no details
        return ()
    return status.details if status is not None else ()


def _storage_error(details: Iterable[Any]) -> int:
    from google.cloud.bigquery_storage_v1 import types

    for detail in details:
        if isinstance(detail, types.StorageError):
            return int(detail.code)
        if str(getattr(detail, "type_url", "")).rpartition("/")[2] == _STORAGE_ERROR:
            return int(types.StorageError.deserialize(detail.value).code)
    return 0
