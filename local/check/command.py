"""`audit local check`: is every change that the traffic committed in BigQuery, once, masked, and is the state right?

Three accounts are compared row by row: the ledger (what was committed), Spanner (the current rows) and BigQuery. What
cannot be compared on the emulator is said in the report's notes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from contract import payments, queries, tables, timestamps
from contract.errors import AuditError
from contract.watched import WatchedTable, WatchedTables
from local.check import compare
from local.check.compare import Arrivals, Finding, Latency, Row, SourceTable
from local.machine.state import DEFAULT, State
from local.traffic.ledger import Entry, read_ledger
from pipeline.clients import spanner_database
from pipeline.source.table_rows import ALL, TableAt, Where
from support import connection as connections
from support.cli.explained import Command
from support.connection import Connection
from support.warehouse import Warehouse

_POLL_SECONDS: Final = 1.0
# Whole tables are read, on a machine that may be busy with the traffic.
_QUERY_SECONDS: Final = 180.0
_SHOWN: Final = 20
_EMULATOR_NOTES: Final = (
    "The time of the last change is not compared, and other times to the second: the Spanner emulator's change records "
    "give a commit timestamp column as 9999-12-31 and cut fractions of a second.",
)


class CheckError(AuditError):
    """There is nothing to check, or no way to; the message says the remedy."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What the check found. `wrong_state`: payments and audit logs whose newest row is not what Spanner holds."""

    committed: int
    arrivals: Arrivals
    unmasked: tuple[Finding, ...]
    wrong_state: tuple[Finding, ...]
    states: int
    latency: Latency | None
    notes: tuple[str, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        found = self.arrivals
        return (
            *found.missing, *found.doubled, *found.extra, *found.different, *self.unmasked, *self.wrong_state,
        )  # fmt: skip

    @property
    def ok(self) -> bool:
        return not self.findings


def run_check(connection: Connection, ledger: Path, arrivals: Path, *, wait: float = 0) -> CheckReport:
    """Compares everything committed so far. With `wait`, gives it that many seconds to arrive first.

    Raises CheckError, WarehouseError.
    """
    ends = time.monotonic() + wait
    # The emulator's clock runs a little ahead of the local one: what the ledger has by now counts, at any time.
    cutoff = max([datetime.now(UTC), *(timestamps.to_datetime(e.commit_timestamp) for e in read_ledger(ledger))])
    entries = [e for e in read_ledger(ledger) if e.commit_timestamp <= timestamps.from_datetime(cutoff)]
    if not entries:
        raise CheckError(f"{ledger} names no commit: there is nothing to check. Make some with `audit local traffic`.")
    warehouse = Warehouse(connection, seconds=_QUERY_SECONDS)
    watched = connection.watched
    _await(warehouse, connection, entries, ends)
    while True:
        rows = {table.name: _changelog(warehouse, table) for table in watched.tables}
        found = compare.compare_changes(watched, entries, _until(rows, cutoff), _dead_letters(connection))
        if not found.missing or time.monotonic() >= ends:
            break
        time.sleep(_POLL_SECONDS)
    return CheckReport(
        committed=len(entries),
        arrivals=found,
        unmasked=tuple(
            each for table, changes in rows.items() for each in compare.unmasked(watched.of(table), changes)
        ),
        wrong_state=tuple(_wrong_state(connection, warehouse, entries, rows, cutoff)),
        states=sum(len(compare.latest(watched.of(table), changes)) for table, changes in rows.items()),
        latency=compare.latency(rows, queryable_at(watched, arrivals)),
        notes=_EMULATOR_NOTES if connection.local else (),
    )


def _await(warehouse: Warehouse, connection: Connection, entries: Sequence[Entry], ends: float) -> None:
    """Returns once there is as much as was committed. Counting is cheap; what is there is looked at afterwards."""
    counts = " + ".join(
        f"(SELECT COUNT(*) FROM `{connection.project}.{table.id}` WHERE {tables.MOD_TYPE} != 'REPLAY')"
        for table in connection.watched.tables
    )
    while time.monotonic() < ends:
        [row] = warehouse.rows(f"SELECT {counts} AS arrived")
        if row["arrived"] + len(_dead_letters(connection)) >= len(entries):
            return
        time.sleep(_POLL_SECONDS)


def _changelog(warehouse: Warehouse, table: WatchedTable) -> Sequence[Row]:
    return warehouse.rows(f"SELECT * FROM `{warehouse.connection.project}.{table.id}`")


def _until(rows: Mapping[str, Sequence[Row]], cutoff: datetime) -> dict[str, list[Row]]:
    return {
        table: [row for row in changes if row[tables.COMMIT_TIMESTAMP] <= cutoff] for table, changes in rows.items()
    }


def _dead_letters(connection: Connection) -> list[tuple[str, str]]:
    from pipeline.sink.dead_letters import DeadLetterQueue

    every = DeadLetterQueue(connection.dead_letter_directory).every()
    return [(letter.coordinates.table, letter.coordinates.commit_timestamp) for _, letter in every]


def _wrong_state(
    connection: Connection,
    warehouse: Warehouse,
    entries: Sequence[Entry],
    rows: Mapping[str, Sequence[Row]],
    cutoff: datetime,
) -> list[Finding]:
    """Spanner at `cutoff` against the newest rows; and payment_current against the newest rows of the payments."""
    from pipeline.transforms.keys import MaskingKeys
    from pipeline.transforms.mask import Masker

    current = warehouse.rows(f"SELECT * FROM {warehouse.view(queries.PAYMENT_CURRENT)}")
    watched = connection.watched
    masker = Masker(MaskingKeys.load(connection.masking_keys), watched, new_columns="scan")
    findings: list[Finding] = []
    for name, changes in rows.items():
        table = watched.of(name)
        key = compare.key_of(table)
        # Changed after the check began, or waiting as a dead letter: what is there then need not be what was.
        unsure = frozenset(
            {str(row[key]) for row in changes if row[tables.COMMIT_TIMESTAMP] > cutoff}
            | {entry.puid for entry in entries if entry.dead_letter}
        )
        newest = compare.latest(table, changes)
        present = {puid: row for puid, row in newest.items() if row[tables.MOD_TYPE] != "DELETE"}
        source = _source(connection, table, cutoff)
        findings += compare.compare_state(source, present, masker, payments.PAYMENT_STATES, unsure)
        if table.kind == "payments":
            # What arrived between the two queries is not in `newest`; and `current` does not show what was deleted.
            later = f"SELECT `{key}` FROM `{connection.project}.{table.id}`"
            moved = {
                str(row[key])
                for row in warehouse.rows(f"{later} WHERE {tables.COMMIT_TIMESTAMP} > @cutoff", cutoff=cutoff)
            }
            findings += compare.compare_current(table, current, newest, unsure | moved)
    return findings


def _source(connection: Connection, table: WatchedTable, moment: datetime) -> SourceTable:
    """A strong read of a Spanner table as it was at `moment`, its values as they come."""
    database = spanner_database(
        connection.spanner_endpoint, connection.project, connection.spanner_instance, connection.spanner_database
    )
    found = TableAt(database, table.name, moment, Where())
    emulated = connection.local
    return SourceTable(
        table=table,
        columns=found.columns,
        rows=list(found.rows(ALL)),
        left_out=frozenset(filter(None, [table.column("changed")])) if emulated else frozenset(),
        whole_seconds=emulated,
    )


def queryable_at(watched: WatchedTables, arrivals: Path) -> dict[tuple[str, datetime], datetime]:
    """(source table, stamp) → when its append could be queried; the later one where two appends share a stamp."""
    sources = {table.id: table.name for table in watched.tables}
    found: dict[tuple[str, datetime], datetime] = {}
    if not arrivals.exists():
        return found
    for line in arrivals.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break  # half a line: it is being written
        arrival = json.loads(line)
        if arrival["table"] in sources and arrival["stamp"] is not None:
            key = (sources[arrival["table"]], _stamp(arrival["stamp"]))
            moment = datetime.fromisoformat(arrival["queryable_at"])
            found[key] = max(moment, found.get(key, moment))
    return found


def _stamp(value: Any) -> datetime:
    """A TIMESTAMP as the emulator records it: ISO text, or microseconds since 1970."""
    if str(value).isdigit():
        return timestamps.to_datetime(timestamps.from_micros(int(value)))
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def summary(report: CheckReport) -> str:
    """One line for people."""
    found = report.arrivals
    dead = f" + {found.dead:,} expected dead letters" if found.dead else ""
    line = (
        f"{report.committed:,} changes committed, {found.arrived:,} arrived{dead}, {len(found.missing):,} missing, "
        f"{len(found.doubled):,} doubled, {len(report.unmasked):,} unmasked"
    )
    if other := len(found.extra) + len(found.different):
        line += f", {other:,} not as committed"
    line += f", {len(report.wrong_state):,} of {report.states:,} states wrong"
    if report.latency:
        wait = report.latency
        line += f" · p50 {wait.p50:,} ms · p95 {wait.p95:,} ms · p99 {wait.p99:,} ms · max {wait.max:,} ms"
    return line


def _latency_note(wait: Latency | None) -> list[str]:
    if wait is None:
        return []
    if wait.measured == wait.changes:
        return ["Latency: from Spanner's commit to when BigQuery could answer with the row."]
    return [
        f"Latency of {wait.changes - wait.measured:,} of {wait.changes:,} changes ends at the row's own stamp, taken "
        "before the append: the emulator kept no record of when they could be queried."
    ]


@click.command(cls=Command)
@click.option("--wait", type=float, default=0, metavar="SECONDS", help="Give changes so long to arrive.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.option(
    "--state",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT,
    help="Folder of the stack's state and logs.  [default: .audit]",
)
def check(wait: float, as_json: bool, folder: Path) -> None:
    """Compare all that was committed with what arrived: nothing missing, doubled or unmasked, every state right.

    \b
    Examples:
      audit local check --wait 30
      audit local check --json | jq '.arrivals.missing'

    Exit code 1 when something is not as it must be; the rows are named by their PUID.
    """
    state = State(folder.resolve())
    report = _explained(lambda: run_check(connections.load(state.connection), state.ledger, state.arrivals, wait=wait))
    if as_json:
        findings = [finding._asdict() for finding in report.findings]
        click.echo(json.dumps(asdict(report) | {"ok": report.ok, "findings": findings}, indent=2))
    else:
        click.echo(summary(report))
        for finding in report.findings[:_SHOWN]:
            click.echo(f"  {finding.table} {finding.puid} {finding.commit_timestamp} {finding.what}")
        if len(report.findings) > _SHOWN:
            click.echo(f"  … and {len(report.findings) - _SHOWN:,} more: see `audit local check --json`.")
        for note in (*_latency_note(report.latency), *report.notes):
            click.echo(f"  {note}")
    raise SystemExit(0 if report.ok else 1)


def _explained(work: Callable[[], CheckReport]) -> CheckReport:
    from google.api_core.exceptions import GoogleAPICallError, RetryError

    try:
        return work()
    except (GoogleAPICallError, RetryError) as error:
        raise CheckError(
            f"Spanner does not answer ({type(error).__name__}). Look at `audit local status`, or start the stack "
            "with `make run`."
        ) from error
