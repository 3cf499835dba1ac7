"""Metric names. Workers report Beam counters and distributions under one namespace; nothing else names a metric."""

from __future__ import annotations

from typing import Final

NAMESPACE: Final = "audit"

CHANGES_READ: Final = "changes_read"
CHANGES_FILTERED: Final = "changes_filtered"
ROWS_APPENDED: Final = "rows_appended"
ROWS_ALREADY_THERE: Final = "rows_already_there"
DEAD_LETTERS: Final = "dead_letters"  # followed by "_<reason>"
UNKNOWN_STATUS: Final = "unknown_payment_status"
UNCLASSIFIED_VALUES: Final = "unclassified_values"
COMMIT_TO_READ_MILLIS: Final = "commit_to_read_millis"
COMMIT_TO_APPENDED_MILLIS: Final = "commit_to_appended_millis"
APPEND_MILLIS: Final = "append_millis"
BATCH_ROWS: Final = "batch_rows"
