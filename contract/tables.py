"""The BigQuery tables: what infrastructure creates, the sink fills and the views read.

A changelog table has every column of its source table after masking, and the metadata columns. Names and types of the
`_metadata_spanner_*` columns are those of Google's template, so a query written for it runs here.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from contract import lookups, schema, spanner_types
from contract.watched import ACCESS_DATASET as _ACCESS_DATASET
from contract.watched import BACKUPS_DATASET as _BACKUPS_DATASET
from contract.watched import RESTORED_DATASET as _RESTORED_DATASET
from contract.watched import VIEWS_DATASET as _VIEWS_DATASET
from contract.watched import Meaning, Partition, WatchedTable, WatchedTables

Mode = Literal["NULLABLE", "REPEATED", "REQUIRED"]

# The views and table functions, and no table: who may read it sees nothing below them.
VIEWS_DATASET: Final = _VIEWS_DATASET
ACCESS_DATASET: Final = _ACCESS_DATASET
# Snapshots, and tables that are restored to be looked at; both without a table of the contract.
BACKUPS_DATASET: Final = _BACKUPS_DATASET
RESTORED_DATASET: Final = _RESTORED_DATASET

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
EXACT_VALUES: Final = "_metadata_spanner_exact_values"
IS_INCOMPLETE: Final = "_metadata_spanner_is_incomplete"
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

    `source` is the name under which a masked row has the value, for a column that comes from Spanner. `personal`: NULL
    for readers who are not among personalDataReaders.
    """

    name: str
    type: str
    mode: Mode = "NULLABLE"
    description: str = ""
    default: str | None = None
    source: str | None = None
    personal: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A BigQuery table and how it is laid out."""

    dataset: str
    name: str
    fields: tuple[Field, ...]
    partition_by: str | None = None
    partition: Partition = "DAY"
    # Where there are any, the table is partitioned by whole numbers from 0 to below this.
    buckets: int = 0
    cluster_by: tuple[str, ...] = ()
    description: str = ""

    @property
    def id(self) -> str:
        return f"{self.dataset}.{self.name}"


METADATA_FIELDS: Final = (
    Field(MOD_TYPE, "STRING", description="INSERT, UPDATE or DELETE; REPLAY of a payment that was read again"),
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
    Field(OLD_VALUES, "JSON", description="Masked values before the change; of a DELETE, the whole row", personal=True),
    Field(
        EXACT_VALUES,
        "JSON",
        description="Masked values of the row that their columns cannot hold exactly, as Spanner writes them; see "
        "docs/types.md",
        personal=True,
    ),
    Field(
        IS_INCOMPLETE,
        "BOOL",
        description="True where columns are NULL because the change did not carry them and its row was gone; else NULL",
    ),
    Field(CARD_TOKENS, "STRING", "REPEATED", description="Token of every card number found in the row"),
)

ENRICHMENT_FIELDS: Final = (
    Field(CUSTOMER_ID, "STRING", description="Customer, from the row or its metadata", personal=True),
    Field(ACTING_USER, "STRING", description="Who or which service acted", personal=True),
    Field(PAYMENT_STATE, "STRING", description="initiated, processed or failed; NULL for an unknown status"),
    Field(PAYMENT_STATE_AT, "TIMESTAMP", description="Time of the state"),
    Field(PREVIOUS_PAYMENT_STATE, "STRING", description="State before this change"),
    Field(PREVIOUS_PAYMENT_STATE_AT, "TIMESTAMP", description="Time of the state before this change"),
    Field(TRANSITION_EXPECTED, "BOOL", description="False where the transition is not in the table of them"),
)

TOKEN_SUFFIX: Final = "_token"  # noqa: S105

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


def is_token_name(table: WatchedTable, name: str) -> bool:
    """Whether masking would put the token of a card or token column of the table under this name."""
    folded = name.casefold()
    return folded.endswith(TOKEN_SUFFIX) and table.policy_of(folded.removesuffix(TOKEN_SUFFIX)) in ("card", "token")


def column_name(table: WatchedTable, name: str) -> str:
    """The BigQuery column of a source column: its own name, but for one that is ours or that BigQuery does not take.

    That one gets `source_` in front; so does a name that is such a one with `source_` in front already, so that two
    names stay two. It depends on the name alone: no other column, added later, changes it.
    """
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", name)[:_LONGEST_NAME]
    if cleaned != name:
        cleaned += f"_{zlib.crc32(name.encode()):08x}"
    return SOURCE_PREFIX + cleaned if _is_taken(table, cleaned) else cleaned


def _is_taken(table: WatchedTable, name: str) -> bool:
    folded = name.casefold()
    return (
        folded in _OURS
        or folded.startswith(_RESERVED_PREFIXES)
        or not (folded[:1].isalpha() or folded[:1] == "_")
        or is_token_name(table, folded)
        or (folded.startswith(SOURCE_PREFIX) and _is_taken(table, folded.removeprefix(SOURCE_PREFIX)))
    )


def masked_name(table: WatchedTable, name: str) -> str:
    """The name that a source column has in a masked row: its own, unless a token goes by it."""
    own = name
    while own.casefold().startswith(SOURCE_PREFIX):
        own = own[len(SOURCE_PREFIX) :]
    return column_name(table, name) if is_token_name(table, own) else name


def fields_of(table: WatchedTable, name: str, spanner_type: str) -> tuple[Field, ...]:
    """The BigQuery columns that carry a source column after masking: none for a dropped one, two for a card number.

    A Spanner type without a counterpart is carried as STRING, and its description says so.
    """
    policy, personal = table.policy_of(name), table.is_personal(name)
    if policy == "drop":
        return ()
    carried = column_name(table, name)
    token_name = name + TOKEN_SUFFIX
    token = Field(
        carried + TOKEN_SUFFIX,
        "STRING",
        description=f"Keyed token of {name}",
        source=token_name,
        personal=personal,
    )
    if policy == "token":
        return (token,)
    kind = spanner_types.carried_as(spanner_type)
    notes = [f"Spanner column {name}"] if carried != name else []
    if spanner_types.is_carried_as_text(spanner_type):
        notes.append(f"Spanner {spanner_types.base(spanner_type)}, carried as text")
    mode: Mode = "NULLABLE" if spanner_types.element(spanner_type) is None else "REPEATED"
    field = Field(carried, kind, mode, description="; ".join(notes), source=masked_name(table, name), personal=personal)
    return (field, token) if policy == "card" else (field,)


def source_fields(table: WatchedTable, columns: Iterable[tuple[str, str]]) -> tuple[tuple[Field, ...], ...]:
    """The fields of each source column (name, Spanner type) of a table, no two of one name in any case.

    Of names that differ in case alone the first keeps its own; the later ones get `source_` in front.
    """
    found = [fields_of(table, name, kind) for name, kind in columns]
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


def changelog_table(table: WatchedTable, columns: Mapping[str, str], place: tuple[str, str] | None = None) -> Table:
    """The changelog of a source table with `columns` (name → Spanner type), in its own place or another one."""
    dataset, name = place or (table.dataset, table.table)
    source = tuple(f for fields in source_fields(table, columns.items()) for f in fields)
    carried = {f.source: f.name for f in source}
    return Table(
        dataset=dataset,
        name=name,
        fields=source + METADATA_FIELDS + ENRICHMENT_FIELDS,
        partition_by=COMMIT_TIMESTAMP,
        partition=table.partition,
        cluster_by=tuple(carried[column] for column in table.cluster_by if column in carried),
        description="Append-only: one row per modification.",
    )


def changelogs(watched: WatchedTables) -> dict[str, Table]:
    """The changelog tables, by source table. Raises WatchedError where their columns are not known."""
    made = schema.tables(watched.source_changelog)
    return {t.name: changelog_table(t, {c.name: c.type for c in made[t.name].columns}) for t in watched.tables}


def named(watched: WatchedTable, meaning: Meaning) -> str | None:
    """The BigQuery column that carries the column with this meaning; None where the table has none."""
    column = watched.column(meaning)
    return None if column is None else column_name(watched, column)


def payment_state_table(watched: WatchedTables) -> Table:
    """The latest row of each payment up to `merged_until`. Same columns as the changelog, so both can be united."""
    changelog = changelogs(watched)[watched.payments.name]
    return Table(
        dataset=watched.payments.dataset,
        name="payment_state",
        fields=changelog.fields,
        cluster_by=(str(named(watched.payments, "payment")),),
        description="Latest change of each payment, merged from the changelog. A deleted payment keeps its DELETE.",
    )


def merge_progress(watched: WatchedTables) -> Table:
    """How far merge and fill have come; one row. Rewinding it is always safe: a change is merged or added once more."""
    return Table(
        dataset=watched.payments.dataset,
        name="payment_state_progress",
        fields=(
            Field("merged_until", "TIMESTAMP"),
            Field("merged_at", "TIMESTAMP"),
            Field("filled_until", "TIMESTAMP"),
            Field("filled_at", "TIMESTAMP"),
            Field("added_at", "TIMESTAMP"),
        ),
        description="payment_state has every change committed before merged_until, payment_lookup before filled_until.",
    )


def payment_lookup(watched: WatchedTables) -> Table:
    """On which days something happened to a payment, by the keys of `contract.lookups`. A row can be there twice."""
    return Table(
        dataset=watched.payments.dataset,
        name="payment_lookup",
        fields=(
            Field("bucket", "INT64", description="First bits of the key"),
            Field("lookup_key", "STRING", description="Key of the value: see contract/lookups.py"),
            Field("kind", "STRING", description="payment, customer, last_four or card: what the value is"),
            Field("puid", watched.payments.payment_type, description="Payment"),
            Field(CUSTOMER_ID, "STRING", description="Customer, where that is the value", personal=True),
            Field("day", "DATE", description="Day of commit"),
            Field("last_at", "TIMESTAMP", description="The last commit of the day"),
        ),
        partition_by="bucket",
        buckets=lookups.BUCKETS,
        cluster_by=("lookup_key",),
        description="On which days something happened to a payment, by its id, its customer or a card.",
    )


RESUME_POSITIONS: Final = "resume_positions"


def resume_positions(watched: WatchedTables) -> Table:
    """Appended by the running job: every change committed before `position` is in BigQuery or is a dead letter."""
    return Table(
        dataset=watched.payments.dataset,
        name=RESUME_POSITIONS,
        fields=(
            Field("job_name", "STRING"),
            Field("generation", "INT64"),
            Field("position", "TIMESTAMP"),
            Field("written_at", "TIMESTAMP"),
        ),
        partition_by="written_at",
        description="How far the pipeline has come.",
    )


def access_log(watched: WatchedTables) -> Table:
    """Appended by the console: who asked for what, when and why. It names payments and customers, never a card.

    In a separate dataset: who writes the changelogs may empty all that is beside them.
    """
    return Table(
        dataset=watched.access_dataset,
        name="access_log",
        fields=(
            Field("at", "TIMESTAMP"),
            Field("viewer", "STRING"),
            Field("roles", "STRING", "REPEATED"),
            Field("action", "STRING"),
            Field("subject", "JSON"),
            Field("reason", "STRING"),
            Field("request_id", "STRING"),
        ),
        partition_by="at",
        description="What people asked the console for.",
    )


def stuck_payments_seen(watched: WatchedTables) -> Table:
    """Appended by the probe at each look: the payments that are stuck; one row without a payment where none is.

    It holds what Spanner's status index has. At most 1,000 payments a look, and a look reads the partitions of an hour.
    """
    payments = watched.payments

    def personal(meaning: Meaning) -> bool:
        return payments.is_personal(payments.column(meaning) or "")

    return Table(
        dataset=payments.dataset,
        name="stuck_payments_seen",
        fields=(
            Field("seen_at", "TIMESTAMP"),
            Field("puid", payments.payment_type, personal=personal("payment")),
            Field("status", "STRING", personal=personal("status")),
            Field("status_since", "TIMESTAMP", description="When the payment changed last"),
            Field("limit_seconds", "INT64", description="How long a payment may stay in the status"),
        ),
        partition_by="seen_at",
        partition="HOUR",
        description="Which payments were stuck, look by look.",
    )


def audit_checks(watched: WatchedTables) -> Table:
    """Appended by validation: what each run compared and found. It names rows by their keys, and holds nothing else."""
    return Table(
        dataset=watched.payments.dataset,
        name="audit_checks",
        fields=(
            Field("run_id", "STRING"),
            Field("checked_at", "TIMESTAMP"),
            Field("read_timestamp", "TIMESTAMP", description="Both sides were compared as of then"),
            Field("mismatches", "INT64", description="Rows that are wrong, and not yet repaired"),
            Field("source_rows", "INT64", description="Rows and changes that it read in Spanner"),
            Field("warehouse_rows", "INT64", description="Rows that it read in BigQuery"),
            Field("warehouse_bytes", "INT64", description="Bytes that its queries read"),
            Field("cpu_seconds", "FLOAT64"),
            Field("checks", "JSON", description="Counts and checksums of both sides, one for each comparison"),
            Field("findings", "JSON", description="Rows that are wrong, by key and columns, and what was done"),
            Field("resolved", "JSON", description="Rows that an earlier run found, and that are right again"),
            Field("notes", "STRING", "REPEATED"),
        ),
        partition_by="checked_at",
        description="What validation compared, found and had repaired.",
    )


def all_tables(watched: WatchedTables) -> tuple[Table, ...]:
    """Every table that infrastructure creates."""
    return (
        *changelogs(watched).values(),
        payment_state_table(watched),
        merge_progress(watched),
        payment_lookup(watched),
        resume_positions(watched),
        access_log(watched),
        stuck_payments_seen(watched),
        audit_checks(watched),
    )
