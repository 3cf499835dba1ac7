"""What the job's log is found by: names that the pipeline writes, and log metrics and people look for."""

from __future__ import annotations

from typing import Final

# Fields of a line. An error class is a `Reason` (contract/changes.py), an `ErrorClass`, or an exception's type.
ERROR_CLASS: Final = "error_class"
CHANGE_ID: Final = "change_id"
PAYMENT: Final = "PUID"


class ErrorClass:
    """What holds the job up without a dead letter. Few as well: they are metric labels."""

    SOURCE: Final = "source_unavailable"
    SINK: Final = "sink_unavailable"
    POSITION: Final = "position_not_published"
    REFUSED: Final = "launch_refused"
