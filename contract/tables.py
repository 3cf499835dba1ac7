"""The BigQuery tables: what infrastructure creates, the sink fills and the views read.

A changelog table has every column of its source table after masking, and the metadata columns. Names and types of the
`_metadata_spanner_*` columns are those of Google's template, so a query written for it runs here.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Literal

from contract import schema

Mode = Literal["NULLABLE", "REPEATED", "REQUIRED"]

PAYMENT_DATASET: Final = "payment_audit"
AUDIT_LOG_DATASET: Final = "audit_service_dataset"
# The views and table functions, and no table: who may read it sees nothing below them.
VIEWS_DATASET: Final = "payment_views"
PAYMENT_TABLE: Final = "payment_audit_trail"
AUDIT_LOG_TABLE: Final = "audit_logs"

MOD_TYPE: Final = "_metadata_spanner_mod_type"
TABLE_NAME: Final = "_metadata_spanner_table_name"
COMMIT_TIMESTAMP: Final = "_metadata_spanner_commit_timestamp"
COMMIT_TIMESTAMP_NANOS: Final = "_metadata_spanner_commit_timestamp_nanos"
SERVER_TRANSACTION_ID: Final = "_metadata_spanner_server_transaction_id"
RECORD_SEQUENCE: Final = "_metadata_spanner_record_sequence"
IS_LAST_RECORD: Final = "_metadata_spanner_is_last_record_in_transaction_in_partition"
NUMBER_OF_RECORDS: Final = "_metadata_spanner_number_of_records_in_transaction"
NUMBER_OF_PARTITIONS: Final = "_metadata_spanner_number_of_partitions_in_transaction"
BIG_QUERY_COMMIT_TIMESTAMP: Final = "_metadata_big_query_commit_timestamp"
CHANGE_ID: Final = "_metadata_change_id"
OLD_VALUES: Final = "_metadata_spanner_old_values"
CARD_TOKENS: Final = "_metadata_card_tokens"

CUSTOMER_ID: Final = "customer_id"
ACTING_USER: Final = "acting_user"
PAYMENT_STATE: Final = "payment_state"
PAYMENT_STATE_AT: Final = "payment_state_at"
PREVIOUS_PAYMENT_STATE: Final = "previous_payment_state"
PREVIOUS_PAYMENT_STATE_AT: Final = "previous_payment_state_at"
TRANSITION_EXPECTED: Final = "transition_expected"


@dataclass(frozen=True)
class Field:
    """A BigQuery column. `default` is a SQL expression that the server evaluates when a row brings no value.

    `source` is the name under which a masked row has the value, for a column that comes from Spanner.
    """

    name: str
    type: str
    mode: Mode = "NULLABLE"
    description: str = ""
    default: str | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A BigQuery table and how it is laid out."""

    dataset: str
    name: str
    fields: tuple[Field, ...]
    partition_by: str | None = None
    cluster_by: tuple[str, ...] = ()
    description: str = ""

    @property
    def id(self) -> str:
        return f"{self.dataset}.{self.name}"


METADATA_FIELDS: Final = (
    Field(MOD_TYPE, "STRING", description="INSERT, UPDATE or DELETE"),
    Field(TABLE_NAME, "STRING", description="Spanner table"),
    Field(COMMIT_TIMESTAMP, "TIMESTAMP", description="Spanner commit timestamp, to the microsecond"),
    Field(COMMIT_TIMESTAMP_NANOS, "INT64", description="The same, nanoseconds since 1970, exact"),
    Field(SERVER_TRANSACTION_ID, "STRING", description="Spanner transaction"),
    Field(RECORD_SEQUENCE, "STRING", description="Order of the record in its transaction and partition"),
    Field(IS_LAST_RECORD, "BOOL", description="Last record of the transaction in its partition"),
    Field(NUMBER_OF_RECORDS, "INT64", description="Records of the transaction, all partitions"),
    Field(NUMBER_OF_PARTITIONS, "INT64", description="Partitions that the transaction wrote to"),
    Field(
        BIG_QUERY_COMMIT_TIMESTAMP,
        "TIMESTAMP",
        description="When the row reached BigQuery",
        default="CURRENT_TIMESTAMP()",
    ),
    Field(CHANGE_ID, "STRING", description="Unique and deterministic; its text order is the commit order"),
    Field(OLD_VALUES, "JSON", description="Masked values before the change; of a DELETE, the whole row"),
    Field(CARD_TOKENS, "STRING", "REPEATED", description="Token of every card number found in the row"),
)

ENRICHMENT_FIELDS: Final = (
    Field(CUSTOMER_ID, "STRING", description="Customer, from the row or its Metadata"),
    Field(ACTING_USER, "STRING", description="Who or which service acted"),
    Field(PAYMENT_STATE, "STRING", description="initiated, processed or failed; NULL for an unknown Status"),
    Field(PAYMENT_STATE_AT, "TIMESTAMP", description="Time of the state"),
    Field(PREVIOUS_PAYMENT_STATE, "STRING", description="State before this change"),
    Field(PREVIOUS_PAYMENT_STATE_AT, "TIMESTAMP", description="Time of the state before this change"),
    Field(TRANSITION_EXPECTED, "BOOL", description="False where the transition is not in the table of them"),
)

Policy = Literal["scan", "card", "token", "drop", "identifier"]

# What masking does to a column, by its name in any table. `scan` passes the value with every card number in it
# replaced; `identifier` is never rewritten: a card number in it is a dead letter. (What it was before is masked like
# any text: the change that corrects it must arrive.) Any other column is unclassified.
COLUMN_POLICIES: Final[dict[str, Policy]] = {
    "PUID": "identifier",
    "CustomerId": "identifier",
    "UserId": "scan",
    "Region": "scan",
    "Amount": "scan",
    "Currency": "scan",
    "PaymentMethod": "scan",
    "CardNumber": "card",
    "CardholderName": "token",
    "CardExpiry": "drop",
    "CVV": "drop",
    "TrackData": "drop",
    "PIN": "drop",
    "Action": "scan",
    "Timestamp": "scan",
    "Status": "scan",
    "ServiceName": "scan",
    "Metadata": "scan",
    "RetryCount": "scan",
    "ErrorDetails": "scan",
    "CreatedAt": "scan",
    "UpdatedAt": "scan",
}

# Columns that identify a person, in any table: identifiers, and the JSON that may hold them. Under
# `personalDataReaders` everybody else reads NULL there.
PERSONAL_COLUMNS: Final = frozenset(
    {"CustomerId", "UserId", "CardholderName_token", "Metadata", CUSTOMER_ID, ACTING_USER, OLD_VALUES}
)

TOKEN_SUFFIX: Final = "_token"  # noqa: S105

_TYPES: Final[Mapping[str, str]] = {
    "BOOL": "BOOL",
    "INT64": "INT64",
    "FLOAT32": "FLOAT64",
    "FLOAT64": "FLOAT64",
    "NUMERIC": "NUMERIC",
    "STRING": "STRING",
    "BYTES": "BYTES",
    "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP",
    "JSON": "JSON",
}


# A source column whose name is one of our columns, or one that BigQuery does not take, is carried with this in front of
# its name.
SOURCE_PREFIX: Final = "source_"
# The pipeline's names that no source column may have, compared without regard to case, as BigQuery does.
# `__stream` is in a row until it is appended.
_OURS: Final = frozenset({f.name.casefold() for f in (*METADATA_FIELDS, *ENRICHMENT_FIELDS)} | {"__stream"})
# `_metadata_` is ours, the others are BigQuery's (https://cloud.google.com/bigquery/docs/schemas#column_names).
_RESERVED_PREFIXES: Final = (
    "_metadata_",
    "_table_",
    "_file_",
    "_partition",
    "_row_timestamp",
    "__root__",
    "_colidentifier",
    "_change_sequence_number",
    "_change_type",
)
# BigQuery's limit, less what `_token`, a prefix or a type may add.
_LONGEST_NAME: Final = 300 - 40
_POLICIES: Final = {name.casefold(): policy for name, policy in COLUMN_POLICIES.items()}


def policy_of(name: str) -> Policy | None:
    """What masking does to a source column, by its name in any case; None for an unclassified one."""
    return _POLICIES.get(name.casefold())


def is_token_name(name: str) -> bool:
    """Whether masking would put the token of a card or token column under this name."""
    folded = name.casefold()
    return folded.endswith(TOKEN_SUFFIX) and policy_of(folded.removesuffix(TOKEN_SUFFIX)) in ("card", "token")


def column_name(name: str) -> str:
    """The BigQuery column of a source column: its own name, but for one that is ours or that BigQuery does not take.

    That one gets `source_` in front; so does a name that is such a one with `source_` in front already, so that two
    names stay two. It depends on the name alone: no other column, added later, changes it.
    """
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", name)[:_LONGEST_NAME]
    if cleaned != name:
        cleaned += f"_{zlib.crc32(name.encode()):08x}"
    return SOURCE_PREFIX + cleaned if _is_taken(cleaned) else cleaned


def _is_taken(name: str) -> bool:
    folded = name.casefold()
    return (
        folded in _OURS
        or folded.startswith(_RESERVED_PREFIXES)
        or not (folded[:1].isalpha() or folded[:1] == "_")
        or is_token_name(folded)
        or (folded.startswith(SOURCE_PREFIX) and _is_taken(folded.removeprefix(SOURCE_PREFIX)))
    )


def masked_name(name: str) -> str:
    """The name that a source column has in a masked row: its own, unless a token goes by it."""
    own = name
    while own.casefold().startswith(SOURCE_PREFIX):
        own = own[len(SOURCE_PREFIX) :]
    return column_name(name) if is_token_name(own) else name


def fields_of(name: str, spanner_type: str) -> tuple[Field, ...]:
    """The BigQuery columns that carry a source column after masking: none for a dropped one, two for a card number.

    A Spanner type without a counterpart is carried as STRING, and its description says so.
    """
    policy = policy_of(name)
    if policy == "drop":
        return ()
    carried = column_name(name)
    token_name = name + TOKEN_SUFFIX
    token = Field(carried + TOKEN_SUFFIX, "STRING", description=f"Keyed token of {name}", source=token_name)
    if policy == "token":
        return (token,)
    array = re.fullmatch(r"ARRAY<(.*)>", spanner_type)
    base = (array[1] if array else spanner_type).split("(")[0]
    kind = _TYPES.get(base, "STRING")
    notes = [f"Spanner column {name}"] if carried != name else []
    notes += [] if base in _TYPES else [f"Spanner {base}, carried as text"]
    mode: Mode = "REPEATED" if array else "NULLABLE"
    field = Field(carried, kind, mode, description="; ".join(notes), source=masked_name(name))
    return (field, token) if policy == "card" else (field,)


def source_fields(columns: Iterable[tuple[str, str]]) -> tuple[tuple[Field, ...], ...]:
    """The fields of each source column (name, Spanner type) of a table, no two of one name in any case.

    Of names that differ in case alone the first keeps its own; the later ones get `source_` in front.
    """
    found = [fields_of(name, kind) for name, kind in columns]
    taken: set[str] = set()
    later = []
    for index, fields in enumerate(found):
        names = {f.name.casefold() for f in fields}
        if names & taken:
            later.append(index)
        taken |= names
    for index in later:
        fields = found[index]
        while taken & {f.name.casefold() for f in fields}:
            fields = tuple(replace(f, name=SOURCE_PREFIX + f.name) for f in fields)
        taken |= {f.name.casefold() for f in fields}
        found[index] = fields
    return tuple(found)


def changelog_table(dataset: str, name: str, columns: Mapping[str, str]) -> Table:
    """The changelog of a source table with `columns` (name → Spanner type)."""
    source = tuple(f for fields in source_fields(columns.items()) for f in fields)
    return Table(
        dataset=dataset,
        name=name,
        fields=source + METADATA_FIELDS + ENRICHMENT_FIELDS,
        partition_by=COMMIT_TIMESTAMP,
        cluster_by=("PUID",) if "PUID" in columns else (),
        description="Append-only: one row per modification.",
    )


# Source table → where its changelog lives. Any other table goes to `<table>_changelog` in the payment dataset.
CHANGELOGS: Final = {
    PAYMENT_TABLE: (PAYMENT_DATASET, "payment_audit_trail_bq"),
    AUDIT_LOG_TABLE: (AUDIT_LOG_DATASET, "audit_logs"),
}


@cache
def changelogs() -> dict[str, Table]:
    """The changelog tables of the tables in the Liquibase changelog, by source table."""
    return {
        source: changelog_table(*CHANGELOGS[source], {c.name: c.type for c in table.columns})
        for source, table in schema.tables().items()
        if source in CHANGELOGS
    }


def payment_state_table() -> Table:
    """The latest row of each payment up to `merged_until`. Same columns as the changelog, so both can be united."""
    changelog = changelogs()[PAYMENT_TABLE]
    return Table(
        dataset=PAYMENT_DATASET,
        name="payment_state",
        fields=changelog.fields,
        cluster_by=("PUID",),
        description="Latest change of each payment, merged from the changelog. A deleted payment keeps its DELETE.",
    )


# How far the merge has come; one row. Rewinding it is always safe: the merge takes the newest change of each payment.
MERGE_PROGRESS: Final = Table(
    dataset=PAYMENT_DATASET,
    name="payment_state_progress",
    fields=(Field("merged_until", "TIMESTAMP"), Field("merged_at", "TIMESTAMP")),
    description="payment_state holds every change committed before merged_until.",
)

# Appended by the running job: every change committed before `position` is in BigQuery or is a durable dead letter.
RESUME_POSITIONS: Final = Table(
    dataset=PAYMENT_DATASET,
    name="resume_positions",
    fields=(
        Field("job_name", "STRING"),
        Field("generation", "INT64"),
        Field("position", "TIMESTAMP"),
        Field("written_at", "TIMESTAMP"),
    ),
    partition_by="written_at",
    description="How far the pipeline has come.",
)


def all_tables() -> tuple[Table, ...]:
    """Every table that infrastructure creates."""
    return (*changelogs().values(), payment_state_table(), MERGE_PROGRESS, RESUME_POSITIONS)
