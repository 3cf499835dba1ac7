"""A backfill on a local stack with traffic: rows a CPU second, the stream's latency beside it, and each row once.

    python -m bench.backfill [--rows 100000] [--tps 10] [--kills 2]

Payments are written while the change stream does not watch their table, so they are older than it; then traffic begins.
The stream's latency is measured before the backfill, and while it runs. Its process is killed (SIGKILL) as often as
asked for, each time in another shard, run to its end, and started again by mistake. Then every row of Spanner is
compared with BigQuery.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.live import local_stack, start_traffic
from bench.replay import cpu_of_children, fill
from bench.results import keep, machine
from contract import tables
from local.check import compare
from local.check.command import queryable_at
from local.machine.state import State
from pipeline import clients
from pipeline.replay.work import Replayer
from support import replay
from support.connection import Connection, load
from support.validation.run import Validation
from support.warehouse import Warehouse

_BASELINE_SECONDS: Final = 60.0
_QUERY_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.5
_ID: Final = "backfill-1"


def older_than_the_stream(connection: Connection, number: int) -> None:
    """Writes payments that the change stream never had."""
    database = clients.spanner_database(
        connection.spanner_endpoint, connection.project, connection.spanner_instance, connection.spanner_database
    )
    stream, table = connection.watched.payments.change_stream, connection.watched.payments.name
    database.update_ddl([f"ALTER CHANGE STREAM {stream} DROP FOR ALL"]).result(60)
    fill(connection, number)
    database.update_ddl([f"ALTER CHANGE STREAM {stream} SET FOR {table}"]).result(60)


def run(state: State, kills: int) -> dict[str, Any]:
    """Has the backfill run to its end, its process killed as often."""
    connection = load(state.connection)
    command = [str(Path(sys.executable).with_name("audit")), f"--connection={state.connection}", "backfill"]
    started = [*command, "start", "--reason", "a measurement"]
    began, killed_at = time.monotonic(), []
    for _ in range(kills):
        done = _done(connection)
        process = subprocess.Popen(started, stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and _done(connection) == done:
            time.sleep(_POLL_SECONDS)
        # In the midst of the next shard, wherever that is.
        time.sleep(random.uniform(0, 1))
        _kill_group(process)
        killed_at.append(_done(connection))
    before = cpu_of_children()
    at = _done(connection)
    subprocess.run(started, stdout=subprocess.DEVNULL, check=True)
    cpu, seconds = cpu_of_children() - before, time.monotonic() - began
    # By mistake.
    again = subprocess.run(started, capture_output=True, check=True)
    found = replay.find(connection, _ID)
    return {
        "killed_at": killed_at,
        "seconds": round(seconds, 1),
        "rows_of_the_last_run": found.done - at,
        "cpu_seconds_of_the_last_run": round(cpu, 1),
        "started_again": json.loads(again.stdout)["id"],
        "complete": found.complete,
        "written": found.replayed,
        "there": found.there,
        "problems": len(found.problems),
    }


def _done(connection: Connection) -> int:
    try:
        return replay.find(connection, _ID).done
    except replay.ReplayError:
        return 0


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    import os
    import signal

    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def shards_alone(connection: Connection, rows: int) -> dict[str, Any]:
    """Shards of another backfill in this process, without its start and without Beam: what is there is left out."""
    clients.bigquery_client(connection.big_query_endpoint, connection.project).query(
        f"DELETE FROM `{connection.project}.{connection.watched.payments.id}` WHERE PUID >= 'bulk-{rows // 2:07d}'"
    ).result()
    from support import backfill

    started, _ = backfill.start(
        connection, (connection.watched.payments.name,), requested_by="bench", reason="a measurement", again=True
    )
    replayer = Replayer(replay.settings_of(connection))
    shards = replayer.plan(started.id)
    replayer.wait(started.id)
    replayer.run_shard(started.id, shards[0].number)
    before, first = time.process_time(), replay.find(connection, started.id)
    for shard in shards[1:]:
        replayer.run_shard(started.id, shard.number)
    cpu, found = time.process_time() - before, replay.find(connection, started.id)
    return {
        "rows": found.done - first.done,
        "there": found.there - first.there,
        "cpu_seconds": round(cpu, 1),
        "rows_a_cpu_second": round((found.done - first.done) / cpu),
    }


def compared(connection: Connection) -> dict[str, Any]:
    """Every key of Spanner against BigQuery, and how often the backfill wrote each payment."""
    table = connection.watched.payments
    sql = f"SELECT PUID FROM `{connection.project}.{table.id}` WHERE {tables.MOD_TYPE} = 'REPLAY'"
    times = Counter(row["PUID"] for row in Warehouse(connection, seconds=_QUERY_SECONDS).rows(sql))
    report = Validation(connection).run(everything=True)
    return {
        "payments_backfilled": len(times),
        "doubled": sum(count > 1 for count in times.values()),
        "spanner_rows": report.source_rows,
        "findings": dict(Counter(finding.kind for finding in report.findings)),
    }


def latency(connection: Connection, state: State, since: datetime, until: datetime) -> dict[str, Any]:
    """Of the stream's changes that were committed in this time: commit → a query sees the row."""
    warehouse, rows = Warehouse(connection, seconds=_QUERY_SECONDS), {}
    for table in connection.watched.tables:
        rows[table.name] = warehouse.rows(
            f"SELECT {tables.MOD_TYPE}, {tables.COMMIT_TIMESTAMP_NANOS}, {tables.BIG_QUERY_COMMIT_TIMESTAMP} "
            f"FROM `{connection.project}.{table.id}` WHERE {tables.COMMIT_TIMESTAMP} >= @since "
            f"AND {tables.COMMIT_TIMESTAMP} < @until",
            since=since,
            until=until,
        )
    found = compare.latency(rows, queryable_at(connection.watched, state.arrivals))
    return asdict(found) if found else {}


def measure(state: State, kills: int) -> dict[str, Any]:
    """All of it, on a stack with traffic."""
    connection = load(state.connection)
    times = [datetime.now(UTC)]
    time.sleep(_BASELINE_SECONDS)
    times.append(datetime.now(UTC))
    ran = run(state, kills)
    times.append(datetime.now(UTC))
    time.sleep(5)
    return {
        "backfill": ran,
        "compared": compared(connection),
        "stream_without_ms": latency(connection, state, *times[:2]),
        "stream_beside_it_ms": latency(connection, state, *times[1:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--tps", type=float, default=10)
    parser.add_argument("--kills", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder))
        with local_stack(state, []):
            older_than_the_stream(load(state.connection), given.rows)
            before = machine()
            with start_traffic(state, given.tps, 7200, 1):
                found = measure(state, given.kills)
            after = machine()
            time.sleep(5)
            connection = load(state.connection)
            found["shards_alone"] = shards_alone(connection, given.rows)
            found["compared_again"] = compared(connection)
    for name, figures in found.items():
        print(name, figures)
    print(keep("backfill", {"machine": before | {"load_after": after["load"]}, "asked": vars(given), **found}))


if __name__ == "__main__":
    main()
