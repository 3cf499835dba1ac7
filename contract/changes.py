"""What travels between the parts: a change, and a dead letter.

Values keep Spanner's own JSON encoding (INT64, NUMERIC, TIMESTAMP and DATE as strings, BYTES as base64, a JSON column
as a JSON text) from the change stream to the sink, so no step in between can lose precision.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple, Self

# REPLAY is not of a change stream: a payment that was read from Spanner and written again.
ModType = Literal["INSERT", "UPDATE", "DELETE", "REPLAY"]
Row = dict[str, Any]

# Value capture types that leave out of an UPDATE the columns that it did not touch: they are read from the table.
PARTIAL_CAPTURE_TYPES: Final = ("NEW_VALUES", "OLD_AND_NEW_VALUES")
# Those that carry no old values: what a row was before a change is not known.
WITHOUT_OLD_VALUES: Final = ("NEW_VALUES", "NEW_ROW")
# What a change stream that does not say has, and the other one.
PARTITION_MODE: Final = "IMMUTABLE_KEY_RANGE"
MUTABLE: Final = "MUTABLE_KEY_RANGE"
PARTITION_MODES: Final = (PARTITION_MODE, MUTABLE)
CAPTURE_TYPES: Final = ("NEW_ROW_AND_OLD_VALUES", "NEW_ROW", "OLD_AND_NEW_VALUES", "NEW_VALUES")


class Column(NamedTuple):
    """A column as a change record announces it. `type` is a Spanner type: `STRING`, `NUMERIC`, `ARRAY<INT64>`, …"""

    name: str
    type: str
    is_primary_key: bool


class Coordinates(NamedTuple):
    """Where a change can be read again: enough to find it in its change stream, and no payment's data."""

    stream: str
    table: str
    commit_timestamp: str
    server_transaction_id: str
    record_sequence: str
    mod_index: int

    @property
    def change_id(self) -> str:
        """The unique, deterministic id of the change. Its text order is the commit order."""
        return change_id(self.commit_timestamp, self.server_transaction_id, self.record_sequence, self.mod_index)


@dataclass(slots=True)
class Change:
    """One modification of one row.

    `commit_timestamp` is RFC 3339 in UTC with exactly nine fractional digits. `new` is the row after the change and
    `old` the values before it, each as far as the stream's value capture type carries them; keys are in `keys` alone.
    """

    stream: str
    table: str
    mod_type: ModType
    commit_timestamp: str
    server_transaction_id: str
    record_sequence: str
    mod_index: int
    is_last_record_in_transaction_in_partition: bool
    number_of_records_in_transaction: int
    number_of_partitions_in_transaction: int
    columns: tuple[Column, ...]
    keys: Row
    new: Row
    old: Row
    value_capture_type: str = CAPTURE_TYPES[0]
    # The values that the stream left out could not be read: the row was gone.
    is_incomplete: bool = False
    # Filled by the steps after decode.
    card_tokens: list[str] = field(default_factory=list)
    enriched: Row = field(default_factory=dict)

    @property
    def coordinates(self) -> Coordinates:
        return Coordinates(
            self.stream,
            self.table,
            self.commit_timestamp,
            self.server_transaction_id,
            self.record_sequence,
            self.mod_index,
        )

    @property
    def change_id(self) -> str:
        return change_id(self.commit_timestamp, self.server_transaction_id, self.record_sequence, self.mod_index)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a dead letter."""
        return asdict(self) | {"columns": [list(column) for column in self.columns]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**(values | {"columns": tuple(Column(*c) for c in values["columns"])}))


def change_id(commit_timestamp: str, server_transaction_id: str, record_sequence: str, mod_index: int) -> str:
    """Commit timestamp, transaction, record sequence and mod index, padded so that text order is commit order."""
    return f"{commit_timestamp}/{server_transaction_id}/{record_sequence}/{mod_index:06d}"


# Of a replayed row, in the place of its transaction: the replay.
REPLAY_TRANSACTION: Final = "replay-"


# What the ids of backfills begin with, and of no other replay.
BACKFILL: Final = "backfill-"


def replay_of(change_id: str) -> str:
    """The replay that a replayed row's change id names."""
    return change_id.split("/")[1].removeprefix(REPLAY_TRANSACTION)


def kind_of(replay_id: str) -> Literal["replay", "backfill"]:
    """What people call it."""
    return "backfill" if replay_id.startswith(BACKFILL) else "replay"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A change that failed, masked; or, where masking itself failed, only where to read it again (`change` is None).

    `reason` is one of `Reason`; `message` says the rule and the remedy, never a value. Times are RFC 3339 in UTC.
    """

    coordinates: Coordinates
    step: str
    reason: str
    message: str
    attempts: int
    first_failed_at: str
    last_failed_at: str
    change: dict[str, Any] | None = None
    # The masked id of the payment. None where the change could not be masked: nothing is kept but where to read it.
    payment: str | None = None
    # Set when a person hands it to the next retry, another one each time; empty again after the try.
    released: str = ""

    @property
    def id(self) -> str:
        """The change id and the table: a transaction that writes to two streams can give one change id in both."""
        return f"{self.coordinates.change_id}@{self.coordinates.table}"

    @property
    def info(self) -> ReasonInfo:
        """What helps. A reason that this version does not know is one of a newer version: it may pass by itself."""
        return REASONS.get(self.reason, _OF_A_NEWER_VERSION)


class Reason:
    """Why a change became a dead letter. The classes are few, so that they can be metric labels."""

    UNREADABLE = "unreadable_record"
    CARD_IN_KEY = "card_number_in_key"
    NOT_MASKABLE = "not_maskable"
    ENRICHMENT = "enrichment_failed"
    VALUE = "value_not_convertible"
    REJECTED = "rejected_by_bigquery"
    TOO_LARGE = "row_too_large"
    UNEXPECTED = "unexpected_error"
    GONE = "no_longer_readable"
    MISSING = "missing_in_bigquery"


@dataclass(frozen=True, kw_only=True)
class ReasonInfo:
    """What a reason means, what helps, and whether trying again does.

    `automatic`: it may pass by itself; tried `dlqMaxRetries` times. `after_fix`: tried once, since the fix may already
    run; then it is parked until a person has it tried again. `never`: the same record fails again; parked untried.
    """

    meaning: str
    remedy: str
    retry: Literal["automatic", "after_fix", "never"]


# The table of docs/operations.md is this one.
REASONS: Final[dict[str, ReasonInfo]] = {
    Reason.UNREADABLE: ReasonInfo(
        meaning="a change record's JSON is not an object",
        remedy="Spanner's record format changed: update the pipeline, then retry",
        retry="after_fix",
    ),
    Reason.CARD_IN_KEY: ReasonInfo(
        meaning="an `identifier` of tables.toml holds a card number",
        remedy="correct it in Spanner, then discard: see below. Retry only if a newer pipeline accepts it",
        retry="never",
    ),
    Reason.NOT_MASKABLE: ReasonInfo(
        meaning="a value is not what its type says, so it cannot be masked",
        remedy="a bug: report it, update, then retry",
        retry="after_fix",
    ),
    Reason.ENRICHMENT: ReasonInfo(
        meaning="the status is not text",
        remedy="fix the writer; retry once the pipeline can read it, or discard",
        retry="after_fix",
    ),
    Reason.VALUE: ReasonInfo(
        meaning="a value does not fit BigQuery's type",
        remedy="leave the column out with `ignoreFields`, then retry",
        retry="after_fix",
    ),
    Reason.REJECTED: ReasonInfo(
        meaning="BigQuery refused the row, with its own code",
        remedy="compare the row with the table's schema, fix one of them, then retry",
        retry="automatic",
    ),
    Reason.TOO_LARGE: ReasonInfo(
        meaning="the row is larger than a request to BigQuery may be",
        remedy="leave the column out with `ignoreFields` or shorten it, then retry",
        retry="after_fix",
    ),
    Reason.UNEXPECTED: ReasonInfo(
        meaning="a bug; the message says where",
        remedy="report it, update, then retry",
        retry="automatic",
    ),
    Reason.GONE: ReasonInfo(
        meaning="the dead letter had no change, and the stream no longer keeps its record, nor the database its row",
        remedy="`audit replay start --dead-letter ID` fills it from the payment's present state, and resolves it",
        retry="never",
    ),
    Reason.MISSING: ReasonInfo(
        meaning="validation did not find the change in BigQuery, and has it read again",
        remedy="none: the next try writes it. Who deleted the row is in the Data Access logs",
        retry="automatic",
    ),
}
_OF_A_NEWER_VERSION: Final = ReasonInfo(
    meaning="a reason of a newer version", remedy="look it up in that version's documentation", retry="automatic"
)


class StepError(Exception):
    """A change cannot continue. `message` gives the rule and the remedy; it must not contain a value of the change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
