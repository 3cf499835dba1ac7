"""Replay: payments are read from Spanner as they are, masked and enriched as the job does it, and written again.

The rows have the mod type REPLAY and the moment of the read. It audits again and runs no payment again. What it is for:
a payment whose last change never arrived, and a column that was held and is classified now. A replay has an id; run
again, killed half-way or run by two at once, its rows are there once: they wait in a pending write stream, and only the
first stream that is recorded for the replay is ever committed.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from contract import payments, timestamps
from contract.changes import Change, Column, Row, StepError
from contract.errors import AuditError
from contract.watched import WatchedTable
from pipeline.transforms.cards import find_cards
from support.connection import Connection
from support.search import payment_id
from support.source_rows import read, source_database

MOST: Final = 1_000
LEAST_REASON: Final = 5
_LONGEST_REASON: Final = 1_000
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_APPEND_SECONDS: Final = 60.0
_COLUMNS: Final = (
    "ReplayId", "RequestedBy", "Reason", "Payments", "RequestedAt", "ReadTimestamp", "WriteStream", "Replayed",
    "Problems", "FinishedAt",
)  # fmt: skip


class ReplayError(AuditError, ValueError):
    """The replay cannot be; the message gives the rule and the remedy."""

    exit_code = 2


class ReplayUnavailable(AuditError):
    """Spanner or BigQuery does not answer, or refuses; the message says the remedy. It can be tried again."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A replay and how far it is. `problems` name payments that were not written, with why and no data of theirs.

    `replayed` is the number of rows; None until it is finished. `read_at` is the moment that they show.
    """

    id: str
    requested_by: str
    reason: str
    payments: tuple[str, ...]
    requested_at: datetime
    read_at: datetime | None
    replayed: int | None
    problems: tuple[str, ...]
    finished_at: datetime | None
    write_stream: str | None = None


def submit(
    connection: Connection, ids: Iterable[str], *, requested_by: str, reason: str, replay_id: str | None = None
) -> Replay:
    """Records a replay. One with an id that is known is not recorded again: it is returned as it is.

    Raises ReplayError, also where the known one is of other payments; SearchError, ReplayUnavailable.
    """
    wanted, reason = tuple(dict.fromkeys(ids)), reason.strip()
    check(connection, wanted, reason)
    known = replay_id or uuid.uuid4().hex
    if not _ID.fullmatch(known):
        rule = "such as INC-4711: A-Z, a-z, 0-9, then also . - _, at most 63 characters"
        raise ReplayError(f"the id of a replay must be {rule}.")
    with _explained():
        found = _Store(connection).add(known, requested_by, reason, wanted)
    if set(found.payments) != set(wanted):
        raise ReplayError(
            f"the id of a replay must be a new one, or that of a replay of the same payments: {known} is of others. "
            "Choose another id, or run that one with `audit replay resume`."
        )
    return found


def check(connection: Connection, wanted: Sequence[str], reason: str) -> None:
    """Raises ReplayError, or SearchError for an id that no payment can have, where a replay cannot be."""
    if not 1 <= len(wanted) <= MOST:
        raise ReplayError(f"a replay must be of 1 to {MOST:,} payments, got {len(wanted):,}. Narrow the search.")
    if not LEAST_REASON <= len(reason) <= _LONGEST_REASON:
        raise ReplayError(
            f"a reason must have {LEAST_REASON} to {_LONGEST_REASON:,} characters: it is kept with the replay."
        )
    if find_cards(reason) or any(find_cards(each) for each in wanted):
        raise ReplayError("the payments and the reason of a replay must hold no card's number: they are kept.")
    for each in wanted:
        payment_id(connection.watched.payments, each)


def run(connection: Connection, replay_id: str) -> Replay:
    """Runs a replay to its end, or nothing of it where it has ended. Raises ReplayError for an unknown id.

    Also ReplayUnavailable: it can be run again then.
    """
    with _explained():
        store = _Store(connection)
        found = store.one(replay_id)
        if found.finished_at:
            return found
        if not found.read_at:
            rows = _rows(connection, found)
            stream = _pending(connection, rows) if rows.number else ""
            found = store.record(found.id, rows, stream)
        if found.write_stream:
            _commit(connection, found.write_stream)
        return store.finish(found.id)


def find(connection: Connection, replay_id: str) -> Replay:
    """A replay. Raises ReplayError, ReplayUnavailable."""
    with _explained():
        return _Store(connection).one(replay_id)


def latest(connection: Connection, limit: int = 50) -> list[Replay]:
    """The last replays, the newest first. Raises ReplayUnavailable."""
    with _explained():
        return _Store(connection).latest(limit)


@contextmanager
def _explained() -> Iterator[None]:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError) as error:
        raise ReplayUnavailable(
            f"Spanner or BigQuery does not answer, or refuses ({type(error).__name__}). See `audit local status`, and "
            "your roles: a replay reads audit-db, and writes the table `replays` and the changelog. Run it again then."
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Masked and enriched payments as they were in Spanner at `read_at`, as Arrow rows; None where there is none."""

    read_at: str
    columns: tuple[Column, ...]
    batch: Any
    problems: tuple[str, ...]

    @property
    def number(self) -> int:
        return 0 if self.batch is None else int(self.batch.num_rows)


class _Store:
    """The table `replays` of the metadata database."""

    def __init__(self, connection: Connection) -> None:
        from pipeline.clients import spanner_database

        instance = connection.metadata_instance or connection.spanner_instance
        self._database = spanner_database(
            connection.spanner_endpoint, connection.project, instance, connection.metadata_database
        )

    def add(self, replay_id: str, requested_by: str, reason: str, ids: Sequence[str]) -> Replay:
        from google.cloud import spanner

        def insert(transaction: Any) -> None:
            if list(transaction.read("replays", ("ReplayId",), spanner.KeySet(keys=[[replay_id]]))):
                return
            transaction.insert(
                "replays",
                ("ReplayId", "RequestedBy", "Reason", "Payments", "RequestedAt"),
                [(replay_id, requested_by[:256], reason, list(ids), spanner.COMMIT_TIMESTAMP)],
            )

        self._database.run_in_transaction(insert)
        return self.one(replay_id)

    def one(self, replay_id: str) -> Replay:
        from google.cloud import spanner

        with self._database.snapshot() as snapshot:
            rows = list(snapshot.read("replays", _COLUMNS, spanner.KeySet(keys=[[replay_id]])))
        if not rows:
            raise ReplayError("there is no replay with this id. `audit replay list` has the last ones.")
        return _replay(rows[0])

    def latest(self, limit: int) -> list[Replay]:
        with self._database.snapshot() as snapshot:
            sql = f"SELECT {', '.join(_COLUMNS)} FROM replays ORDER BY RequestedAt DESC LIMIT {int(limit)}"
            return [_replay(row) for row in snapshot.execute_sql(sql)]

    def record(self, replay_id: str, rows: _Rows, stream: str) -> Replay:
        """Makes a stream the replay's, unless another run's is."""
        from google.cloud import spanner

        def first(transaction: Any) -> None:
            [(recorded,)] = transaction.read("replays", ("ReadTimestamp",), spanner.KeySet(keys=[[replay_id]]))
            if recorded is None:
                values = (replay_id, rows.read_at, stream or None, rows.number, list(rows.problems))
                columns = ("ReplayId", "ReadTimestamp", "WriteStream", "Replayed", "Problems")
                transaction.update("replays", columns, [values])

        self._database.run_in_transaction(first)
        return self.one(replay_id)

    def finish(self, replay_id: str) -> Replay:
        from google.cloud import spanner

        with self._database.batch() as batch:
            batch.update("replays", ("ReplayId", "FinishedAt"), [(replay_id, spanner.COMMIT_TIMESTAMP)])
        return self.one(replay_id)


def _replay(row: Sequence[Any]) -> Replay:
    values = dict(zip(_COLUMNS, row, strict=True))
    finished = values["FinishedAt"]
    return Replay(
        id=values["ReplayId"],
        requested_by=values["RequestedBy"],
        reason=values["Reason"],
        payments=tuple(values["Payments"]),
        requested_at=values["RequestedAt"],
        read_at=values["ReadTimestamp"],
        replayed=values["Replayed"] if finished else None,
        problems=tuple(values["Problems"] or ()),
        finished_at=finished,
        write_stream=values["WriteStream"],
    )


# ---------------------------------------------------------------------- what is in Spanner


def _rows(connection: Connection, replay: Replay) -> _Rows:
    """The payments of a replay, masked and enriched. One that fails there is a problem, and no row."""
    from pipeline.sink import rows
    from pipeline.transforms.enrich import enrich
    from pipeline.transforms.filter import Ignored, keep

    table = connection.watched.payments
    database = source_database(connection)
    with database.snapshot() as snapshot:
        [(now,)] = snapshot.execute_sql("SELECT CURRENT_TIMESTAMP()")
    found, read_at = read(database, table, now, replay.payments), timestamps.from_datetime(now)
    masker, ignored = _masker(connection), Ignored.parse(connection.ignore_fields, connection.ignore_tables)
    known = connection.payment_states
    states = payments.parse_states(known) if known else payments.PAYMENT_STATES
    changes, problems = [], []
    for number, row in enumerate(found.rows):
        change = _change(table, found.columns, row, replay.id, read_at, number)
        try:
            masker.mask(change)
            enrich(change, table, states)
        except StepError as error:
            problems.append(_problem(row, table, error))
            continue
        if keep(change, ignored):
            changes.append(change)
    batch, unfit = rows.encode(changes, table) if changes else (None, [])
    problems += [_problem(change.keys, table, error) for change, error in unfit]
    if missing := len(replay.payments) - len(found.rows):
        problems.append(f"{missing} of the payments are not in Spanner: they were deleted, or never there.")
    return _Rows(read_at=read_at, columns=found.columns, batch=batch, problems=tuple(problems))


def _problem(row: Row, table: WatchedTable, error: StepError) -> str:
    # The id is one that somebody typed, and a message has no value.
    return f"{row.get(table.column('payment') or '')}: {error}"


def _masker(connection: Connection) -> Any:
    from pipeline.transforms.keys import MaskingKeys
    from pipeline.transforms.mask import Masker

    policy: Any = connection.new_columns or "hold"
    return Masker(MaskingKeys.load(connection.masking_keys), connection.watched, new_columns=policy)


def _change(
    table: WatchedTable, columns: tuple[Column, ...], row: Row, replay_id: str, read_at: str, number: int
) -> Change:
    keys = {column.name: row[column.name] for column in columns if column.is_primary_key}
    return Change(
        stream=table.change_stream,
        table=table.name,
        mod_type="REPLAY",
        commit_timestamp=read_at,
        server_transaction_id=f"replay-{replay_id}",
        record_sequence="00000000",
        mod_index=number,
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=columns,
        keys=keys,
        new={name: value for name, value in row.items() if name not in keys},
        old={},
    )


# ---------------------------------------------------------------------- BigQuery


def _pending(connection: Connection, found: _Rows) -> str:
    """Appends the rows to a new pending write stream, and finalizes it. Nobody sees them until it is committed."""
    import pyarrow as pa
    from google.cloud.bigquery_storage_v1 import types

    from pipeline import clients
    from pipeline.sink import rows
    from pipeline.sink.changelogs import Changelogs, Destinations, NotReady
    from pipeline.sink.connection import AppendConnection, NoAnswer, TooLarge

    table = connection.watched.payments
    destinations = Destinations(project=connection.project, watched=connection.watched, dataset=table.dataset)
    client = clients.write_client(connection.big_query_storage_endpoint)
    changelogs = Changelogs(clients.bigquery_client(connection.big_query_endpoint, connection.project), destinations)
    try:
        names = changelogs.conform(table.name, found.columns, rows.fields(found.columns, table))
    except NotReady as error:
        raise ReplayUnavailable(f"the changelog is not ready: {error}. Run the replay again then.") from None
    names = {name: names.get(name, name) for name in found.batch.schema.names if name != rows.STREAM}
    stamp = time.time_ns() // 1000 if connection.big_query_storage_endpoint else None
    sent = rows.for_append(pa.Table.from_batches([found.batch]), names, stamp)
    parent = f"projects/{connection.project}/datasets/{table.dataset}/tables/{table.table}"
    stream = client.create_write_stream(
        parent=parent, write_stream=types.WriteStream(type_=types.WriteStream.Type.PENDING)
    )
    appending = AppendConnection(client, stream.name, sent.schema)
    try:
        response = appending.append(sent, 0, timeout=_APPEND_SECONDS)
    except TooLarge:
        raise ReplayError(
            "the payments of a replay must fit into one request of 10 MB. Replay fewer at once."
        ) from None
    except NoAnswer as error:
        raise ReplayUnavailable(f"BigQuery does not answer: {error}. Run the replay again.") from None
    finally:
        appending.close()
    if response.error.code or response.row_errors:
        raise ReplayError("BigQuery refuses a row of the replay. The job's log has the reason for changes like it.")
    client.finalize_write_stream(name=stream.name)
    return str(stream.name)


def _commit(connection: Connection, stream: str) -> None:
    """Makes the rows of a stream visible; once, however often it is called."""
    from pipeline import clients

    client = clients.write_client(connection.big_query_storage_endpoint)
    parent = stream.partition("/streams/")[0]
    answer = client.batch_commit_write_streams(request={"parent": parent, "write_streams": [stream]})
    if answer.stream_errors and not client.get_write_stream(name=stream).commit_time:
        raise ReplayError(
            "BigQuery does not commit the rows of the replay. Request another one; this one wrote nothing."
        )
