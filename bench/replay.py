"""How fast a replay of many payments is, and that each of them is there once, also when its job is killed.

    python -m bench.replay [--payments 20000] [--kills 3]

It starts a local stack with traffic, writes payments of one customer into Spanner, and replays these twice: once as it
comes, for the figures, and once while its job is killed, each time in another shard.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from google.cloud import spanner

from bench.live import local_stack, start_traffic
from bench.results import keep, machine
from contract import tables
from local.machine.state import State
from pipeline import clients
from pipeline.replay.work import Replayer
from support import replay
from support.connection import Connection, load
from support.replay import Selection

CUSTOMER: Final = "C-BULK"
_COMMIT_ROWS: Final = 500


def fill(connection: Connection, number: int) -> None:
    """Writes failed payments of one customer, each with a card."""
    database = clients.spanner_database(
        connection.spanner_endpoint, connection.project, connection.spanner_instance, connection.spanner_database
    )
    columns = ("PUID", "CustomerId", "Action", "Timestamp", "Status", "CardNumber", "Metadata", "Amount", "UpdatedAt")
    rest = (CUSTOMER, "PAY", "2026-11-29T08:00:00Z", "DECLINED", "4111111111111111")
    metadata = json.dumps({"channel": "web", "note": "paid with 4111111111111111", "attempt": 1})
    for first in range(0, number, _COMMIT_ROWS):
        with database.batch() as batch:
            batch.insert(
                connection.watched.payments.name,
                columns,
                [
                    (f"bulk-{each:07d}", *rest, metadata, "12.50", spanner.COMMIT_TIMESTAMP)
                    for each in range(first, min(number, first + _COMMIT_ROWS))
                ],
            )


def run(state: State, replay_id: str, kills: int) -> tuple[float, float]:
    """Has the replay run to its end, its process killed as often. Seconds and CPU seconds of all the processes."""
    program = str(Path(sys.executable).with_name("audit"))
    audit = [program, f"--connection={state.connection}", "replay", "resume", replay_id]
    began, before = time.monotonic(), cpu_of_children()
    connection = load(state.connection)
    for _ in range(kills):
        done = replay.find(connection, replay_id).done
        process = subprocess.Popen(audit, stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and replay.find(connection, replay_id).done == done:
            time.sleep(0.1)
        # In the midst of the next shard, wherever that is.
        time.sleep(random.uniform(0, 1))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(audit, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began, cpu_of_children() - before


def shards_alone(connection: Connection) -> dict[str, Any]:
    """The shards one after the other in this process, without its start and without Beam."""
    replayer = Replayer(replay.settings_of(connection))
    shards = replayer.plan("bench-shards")
    replayer.run_shard("bench-shards", shards[0].number)
    before = time.process_time()
    for shard in shards[1:]:
        replayer.run_shard("bench-shards", shard.number)
    cpu, rows = time.process_time() - before, sum(shard.within.total for shard in shards[1:])
    return {"rows": rows, "cpu_seconds": round(cpu, 1), "rows_a_cpu_second": round(rows / cpu)}


def cpu_of_children() -> float:
    """CPU seconds of the processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def arrived(connection: Connection, replay_id: str) -> Counter[str]:
    """How often each payment of a replay is in the changelog."""
    table = connection.watched.payments
    sql = (
        f"SELECT PUID FROM `{connection.project}.{table.dataset}.{table.table}` "
        f"WHERE {tables.SERVER_TRANSACTION_ID} = 'replay-{replay_id}'"
    )
    client = clients.bigquery_client(connection.big_query_endpoint, connection.project)
    return Counter(row["PUID"] for row in client.query(sql).result(timeout=300))


def measure(state: State, payments: int, kills: int) -> dict[str, Any]:
    connection = load(state.connection)
    fill(connection, payments)
    found: dict[str, Any] = {}
    chosen = Selection(customer=CUSTOMER)
    for replay_id in ("bench", "bench-killed", "bench-shards"):
        replay.submit(connection, chosen, requested_by="bench", reason="a measurement", replay_id=replay_id)
    for replay_id, times in (("bench", 0), ("bench-killed", kills)):
        seconds, cpu = run(state, replay_id, times)
        rows = arrived(connection, replay_id)
        found[replay_id] = {
            "kills": times,
            "rows": len(rows),
            "doubled": sum(count > 1 for count in rows.values()),
            "missing": payments - len(rows),
            "seconds": round(seconds, 1),
        }
        # What a killed process has used is not known.
        if not times:
            found[replay_id] |= {"cpu_seconds": round(cpu, 1), "rows_a_cpu_second": round(len(rows) / cpu)}
    return found | {"bench-shards": shards_alone(connection)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--payments", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder))
        with local_stack(state, []):
            before = machine()
            with start_traffic(state, 2, 3600, 1):
                found = measure(state, given.payments, given.kills)
    for name, figures in found.items():
        print(name, figures)
    print(keep("replay", {"machine": before, "payments": given.payments, "replays": found}))


if __name__ == "__main__":
    main()
