"""What must be right before a job starts: looked at once, at launch, and alone in a dry run. Writes nothing.

Each check says what it looked at; a failed one says the rule and the remedy. The first problem hides none of the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import grpc
from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.auth.exceptions import GoogleAuthError

from contract import timestamps
from contract.attached import CAPTURE_TYPE
from contract.changes import (
    CAPTURE_TYPES,
    PARTIAL_CAPTURE_TYPES,
    PARTITION_MODE,
    PARTITION_MODES,
    WITHOUT_OLD_VALUES,
)
from contract.dialects import schema_of
from contract.endpoints import on_this_machine
from contract.errors import AuditError
from contract.watched import WatchedTables, type_problem
from pipeline import clients
from pipeline.jobs import permissions
from pipeline.jobs.settings import StreamSettings
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.sink.generations import ADDED_TO_JOBS
from pipeline.source.dialect import dialect_of
from pipeline.source.query import ChangeStreamQuery
from pipeline.transforms.keys import MaskingKeys

# Spanner's, of a stream that does not say.
_DEFAULT_CAPTURE: Final = "OLD_AND_NEW_VALUES"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One check's result. `problem` is empty when the check passed; with a `warning` the job still starts."""

    checked: str
    problem: str = ""
    warning: str = ""


class CheckFailed(AuditError):
    """The job cannot start; the message lists every problem."""


def run(settings: StreamSettings) -> list[Finding]:
    """Runs every check."""
    findings: list[Finding] = []
    for check in (
        _masking_keys, _change_streams, _columns, _start, _metadata_database, _datasets, _dead_letter_directory,
        _may_append, _may_keep_dead_letters,
    ):  # fmt: skip
        findings += _guarded(check, settings)
    return findings


def require(settings: StreamSettings) -> None:
    """Raises CheckFailed when a check finds a problem."""
    findings = run(settings)
    for warning in (f.warning for f in findings if f.warning):
        _LOG.warning("%s", warning)
    problems = [f.problem for f in findings if f.problem]
    if problems:
        raise CheckFailed("\n".join(problems))


def _guarded(check: Callable[[StreamSettings], Iterator[Finding]], settings: StreamSettings) -> list[Finding]:
    name = (check.__name__).strip("_").replace("_", " ")
    try:
        return list(check(settings))
    except (GoogleAPICallError, grpc.RpcError) as error:
        code = getattr(error, "grpc_status_code", None) or (error.code() if callable(error.code) else error.code)
        return [
            Finding(
                name,
                f"{name}: the service answered {getattr(code, 'name', code)}. Check that it is reachable, that "
                "what the options name exists, and that the job's account has the roles of `components/identity.py`.",
            )
        ]
    except (ValueError, OSError, GoogleAuthError) as error:
        return [Finding(name, f"{name}: {error}")]


def _masking_keys(settings: StreamSettings) -> Iterator[Finding]:
    keys = MaskingKeys.load(settings["maskingKeys"])
    yield Finding(f"masking keys: {len(keys.keys)}, newest {keys.newest}")


def _database(settings: StreamSettings) -> Any:
    return clients.spanner_database(
        settings["spannerEndpoint"],
        settings["spannerProjectId"],
        settings["spannerInstanceId"],
        settings["spannerDatabase"],
        settings["spannerDatabaseRole"],
    )


def _change_streams(settings: StreamSettings) -> Iterator[Finding]:
    """INFORMATION_SCHEMA shows a database role only the streams that it may read, with their options."""
    role = settings["spannerDatabaseRole"]
    database = _database(settings)
    dialect = dialect_of(database)
    with database.snapshot() as snapshot:
        rows = snapshot.execute_sql(
            "SELECT s.CHANGE_STREAM_NAME, o.OPTION_NAME, o.OPTION_VALUE FROM INFORMATION_SCHEMA.CHANGE_STREAMS AS s "
            "LEFT JOIN INFORMATION_SCHEMA.CHANGE_STREAM_OPTIONS AS o ON o.CHANGE_STREAM_NAME = s.CHANGE_STREAM_NAME"
        )
        seen: dict[str, dict[str, str]] = {}
        for name, option, value in rows:
            seen.setdefault(name, {})[option] = value
    with database.snapshot() as snapshot:
        query = dialect.query(
            "SELECT s.CHANGE_STREAM_NAME, s.`all`, t.TABLE_SCHEMA, t.TABLE_NAME "
            "FROM INFORMATION_SCHEMA.CHANGE_STREAMS AS s LEFT JOIN INFORMATION_SCHEMA.CHANGE_STREAM_TABLES AS t "
            "ON t.CHANGE_STREAM_NAME = s.CHANGE_STREAM_NAME"
        )
        rows = snapshot.execute_sql(**query)
        watched: dict[str, set[str] | None] = {}
        for name, everything, schema, table in rows:
            tables_of = watched.setdefault(name, None if everything in (True, "YES") else set())
            if tables_of is not None and table:
                tables_of.add(dialect.table(schema, table))
    for name in settings.stream_names:
        yield change_stream(settings["spannerDatabase"], name, role, seen)
    if role:
        # A role sees the tables that it may read.
        with database.snapshot() as snapshot:
            seen_tables = snapshot.execute_sql(
                "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM INFORMATION_SCHEMA.COLUMNS"
            )
            readable = {dialect.table(schema, table) for schema, table in seen_tables}
        captured = {name: seen[name].get("value_capture_type") or _DEFAULT_CAPTURE for name in seen}
        yield from unreadable(settings.watched, captured, role, readable)
    yield from unwatched(settings.watched, {name: watched[name] for name in settings.stream_names if name in watched})
    yield from watched_twice({name: watched[name] for name in settings.stream_names if name in watched})


def change_stream(database: str, name: str, role: str, seen: Mapping[str, Mapping[str, str]]) -> Finding:
    """`seen`: the streams that are seen, with their options as `CHANGE_STREAM_OPTIONS` has them."""
    if name not in seen:
        names = ", ".join(sorted(seen)) or "none"
        if role:
            return Finding(
                name,
                f"change stream {name} must be seen by the database role {role} in {database}, which sees {names}. "
                f"The role needs SELECT on {name} and EXECUTE on its read function: run the schema's changelog with "
                "its context cloud.",
            )
        return Finding(
            name,
            f"change stream {name} must exist in {database}, which has {names}. "
            "Name another one in tables.toml, or run the schema's changelog.",
        )
    # Spanner's defaults, for an option that is not set.
    capture = seen[name].get("value_capture_type") or _DEFAULT_CAPTURE
    mode = seen[name].get("partition_mode") or PARTITION_MODE
    if mode not in PARTITION_MODES:
        return Finding(
            name,
            f"change stream {name} must have partition_mode {' or '.join(PARTITION_MODES)}, has '{mode}', whose "
            "records this job cannot read. A stream's mode cannot be altered: add a changeset that creates a second "
            f"stream for the same tables with OPTIONS (partition_mode = '{PARTITION_MODE}', value_capture_type = "
            f"'{CAPTURE_TYPE}'), and name it in tables.toml.",
        )
    if capture not in CAPTURE_TYPES:
        return Finding(
            name,
            f"change stream {name} must capture one of {', '.join(CAPTURE_TYPES)}, has {capture}. Add a changeset: "
            f"ALTER CHANGE STREAM {name} SET OPTIONS (value_capture_type = '{CAPTURE_TYPE}').",
        )
    found = Finding(f"change stream {name}: {capture}, {mode}")
    lacking = _left_out(capture)
    return replace(found, warning=f"change stream {name} captures {capture}: {lacking}") if lacking else found


def _left_out(capture: str) -> str:
    """What a stream of a value capture type does not say, and what is done about it; empty for one that says all."""
    said = []
    if capture in WITHOUT_OLD_VALUES:
        said.append(
            "a change does not say what was before it, so the previous state of a payment, and whether a transition is "
            "expected, are NULL, and a DELETE has its key alone"
        )
    if capture in PARTIAL_CAPTURE_TYPES:
        said.append("each UPDATE costs a read of its row at the commit timestamp")
    return f"{'; '.join(said)}. {CAPTURE_TYPE} has none of that." if said else ""


def unreadable(
    described: WatchedTables, capture_types: Mapping[str, str], role: str, readable: Collection[str]
) -> Iterator[Finding]:
    """Described tables whose rows must be read, and that the role does not see. `capture_types` by change stream."""
    for table in described.tables:
        if capture_types.get(table.change_stream) in PARTIAL_CAPTURE_TYPES and table.name not in readable:
            schema = schema_of(table.name)
            usage = f"GRANT USAGE ON SCHEMA {schema} TO ROLE {role} and " if schema else ""
            yield Finding(
                table.name,
                f"{table.name} must be read by the database role {role}: its change stream captures "
                f"{capture_types[table.change_stream]}, and what that leaves out is read from the table. Its owners "
                f"run {usage}GRANT SELECT ON TABLE {table.name} TO ROLE {role}, or have the stream capture "
                f"{CAPTURE_TYPE}.",
            )


def unwatched(described: WatchedTables, watched: Mapping[str, Collection[str] | None]) -> Iterator[Finding]:
    """Described tables that their change stream, read by this job, does not watch. `watched` as for `watched_twice`."""
    for table in described.tables:
        tables_of = watched.get(table.change_stream)
        if tables_of is not None and table.name not in tables_of:
            yield Finding(
                table.name,
                f"{table.name} must be watched by {table.change_stream}, which watches "
                f"{', '.join(sorted(tables_of)) or 'no table'}. Name its change stream in tables.toml, or add a "
                f"changeset: ALTER CHANGE STREAM {table.change_stream} SET FOR the tables that it must watch.",
            )


def _columns(settings: StreamSettings) -> Iterator[Finding]:
    """A database role sees no columns but those of tables that it may read: where it sees none, none is compared."""
    database = _database(settings)
    dialect = dialect_of(database)
    with database.snapshot() as snapshot:
        columns = dialect.columns(table.name for table in settings.watched.tables)
        found = dialect.by_table(snapshot.execute_sql(columns))
    unfit = list(unfit_columns(settings.watched, found))
    if not any(f.problem for f in unfit) or settings.sink.generations().position() is None:
        yield from unfit
    else:
        # A job that has run already is not kept from running again by a column that somebody changed since: its changes
        # are still read, and nothing reads them while it waits.
        yield from (replace(f, problem="", warning=f.problem) for f in unfit)


def unfit_columns(described: WatchedTables, found: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Described columns that a table lacks, or whose type cannot mean what is said. `found`: columns and types."""
    for table in described.tables:
        columns = found.get(table.name)
        if columns is None:
            continue
        for name, column in table.columns.items():
            if name not in columns:
                problem = f"exist, as tables.toml describes it: {table.name} has {', '.join(sorted(columns))}"
            elif rule := type_problem(column, columns[name]):
                problem = f"{rule}, is {columns[name]}"
            else:
                continue
            yield Finding(
                f"{table.name}.{name}",
                f"{table.name}.{name} must {problem}. Run the schema's changelog, or correct the line in tables.toml.",
            )
        yield Finding(f"columns of {table.name}")


def watched_twice(watched: Mapping[str, Collection[str] | None]) -> Iterator[Finding]:
    """`watched`: the tables of each of the job's change streams; None for the whole database."""
    for one, other in combinations(sorted(watched), 2):
        tables_of, others = watched[one], watched[other]
        if tables_of is None or others is None:
            both = sorted(tables_of or others or ["every table"])
        else:
            both = sorted(set(tables_of) & set(others))
        if both:
            yield Finding(
                f"{one}, {other}",
                f"a table must be watched by one change stream of the job, {', '.join(both)} by {one} and {other}: its "
                "changes would be read twice, and ids of changes are unique in one stream only. Leave one of the two "
                f"out of spannerChangeStreamNames, or add a changeset: ALTER CHANGE STREAM {other} SET FOR the tables "
                "that it alone should watch.",
            )


def _start(settings: StreamSettings) -> Iterator[Finding]:
    """Asks for the partitions at the start: Spanner refuses a time before the stream or past its retention.

    Where the replicas to read from are chosen, also without a start: an instance of one region refuses them.
    """
    start = settings["startTimestamp"] or (timestamps.now() if settings["directedReads"] else "")
    if not start:
        return
    if timestamps.normalise(start) > timestamps.now():
        yield Finding("start", f"startTimestamp must not be in the future, got {start}.")
        return
    for stream in settings.streams:
        try:
            ChangeStreamQuery(stream, clients.spanner_channel(stream.endpoint)).roots(timestamps.normalise(start))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                yield Finding(
                    "start",
                    f"startTimestamp must lie after the creation of {stream.name} and inside its retention period, "
                    f"got {start}. Give a later one, or none to resume from the resume position.",
                )
                continue
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT and stream.directed_reads:
                yield Finding(
                    "directed reads",
                    f"directedReads must name replicas of an instance that has several regions, got "
                    f"{stream.directed_reads}, with which Spanner refuses to read {stream.name}. Leave it empty there.",
                )
                continue
            raise
        yield Finding(f"start timestamp {start} is readable in {stream.name}")


def _metadata_database(settings: StreamSettings) -> Iterator[Finding]:
    """Looks also whether the job may write there: it would find out only after the older job was drained."""
    at = settings.sink.metadata
    database = clients.spanner_database(settings["spannerEndpoint"], at.project, at.instance, at.database)
    with database.snapshot() as snapshot:
        rows = list(snapshot.execute_sql("SELECT TABLE_NAME, COLUMN_NAME FROM INFORMATION_SCHEMA.COLUMNS"))
    if absent := {"jobs", "write_streams", "erased"} - {table for table, _ in rows}:
        yield Finding(
            "metadata database",
            f"metadata database {at.database} must have the tables {', '.join(sorted(absent))}. Run `pulumi up`.",
        )
    elif absent := set(ADDED_TO_JOBS) - {column for table, column in rows if table == "jobs"}:
        yield Finding(
            "metadata database",
            f"the table jobs of {at.database} must have the columns {', '.join(sorted(absent))}. Run `pulumi up`.",
        )
    else:
        database.run_in_transaction(
            lambda transaction: transaction.execute_update("UPDATE jobs SET Generation = Generation WHERE FALSE")
        )
        yield Finding(f"metadata database {at.database}")


def _datasets(settings: StreamSettings) -> Iterator[Finding]:
    client = settings.sink.bigquery()
    names = {table.dataset for table in settings.watched.tables} | {settings.sink.destinations.dataset}
    for name in sorted(names):
        try:
            client.get_dataset(f"{settings['bigQueryProjectId']}.{name}")
        except NotFound:
            yield Finding(name, f"dataset {name} must exist in {settings['bigQueryProjectId']}. Run `pulumi up`.")
        else:
            yield Finding(f"dataset {name}")


def _dead_letter_directory(settings: StreamSettings) -> Iterator[Finding]:
    directory = settings["deadLetterQueueDirectory"]
    if not DeadLetterQueue(directory).exists():
        yield Finding("dead letters", f"deadLetterQueueDirectory must exist, {directory} does not. Run `pulumi up`.")
    else:
        yield Finding(f"dead letters: {directory}")


def _may_append(settings: StreamSettings) -> Iterator[Finding]:
    """A table that is not there yet is made by the job: there is nothing to ask about."""
    if on_this_machine(settings["bigQueryEndpoint"]):
        yield Finding("write permissions in BigQuery: an emulator knows none")
        return
    client, destinations = settings.sink.bigquery(), settings.sink.destinations
    for name in sorted(destinations.id(table.name) for table in settings.watched.tables):
        try:
            absent = permissions.lacking_on_table(client, name)
        except NotFound:
            continue
        yield _lacking(name, absent, "roles/bigquery.dataEditor on its dataset")


def _may_keep_dead_letters(settings: StreamSettings) -> Iterator[Finding]:
    directory = settings["deadLetterQueueDirectory"]
    if not directory.startswith("gs://"):
        return
    bucket = directory.removeprefix("gs://").partition("/")[0]
    session = clients.authorized_session("", "https://www.googleapis.com/auth/devstorage.read_write")
    yield _lacking(directory, permissions.lacking_on_bucket(session, bucket), "roles/storage.objectUser on the bucket")


def _lacking(where: str, absent: Collection[str], role: str) -> Finding:
    if not absent:
        return Finding(f"write permissions on {where}")
    return Finding(where, f"the job's account must hold {', '.join(absent)} on {where}: {role}. Run `pulumi up`.")
