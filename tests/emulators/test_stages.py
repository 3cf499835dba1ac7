"""No unmasked record crosses a stage of the runner: what Prism makes of the job, and what its worker sends to it."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from contract import tables, timestamps
from local.machine import installed
from local.machine.processes import Process
from tests.conftest import AuditDatabase, Warehouse
from tests.shipped import WATCHED

CARD = "4111111111111111"
STREAMS = ("PaymentAuditTrailChangeStream", "AuditLogChangeStream")
READ = "beam:transform:sdf_process_sized_element_and_restrictions:v1"
STEP = "ToRows/ParDo(ToRows)/ParDo(ToRows)"


def commit(database: AuditDatabase) -> None:
    """A card number in a column, in an identifier (which makes a dead letter) and in JSON, in both streams."""
    when = "2026-11-23T09:00:00Z"
    with database.database.batch() as batch:
        batch.insert(
            "payment_audit_trail",
            ["PUID", "Action", "Timestamp", "CardNumber", "CustomerId"],
            [["p1", "TEST", when, CARD, "c1"], ["p2", "TEST", when, CARD, CARD]],
        )
        batch.insert(
            "audit_logs", ["PUID", "Action", "Timestamp", "Metadata"], [["p1", "TEST", when, json.dumps({"pan": CARD})]]
        )


def run(database: AuditDatabase, warehouse: Warehouse, folder: Path) -> None:
    """Runs the job on Prism, spied on, until what was committed is in BigQuery or a dead letter."""
    start = timestamps.now()
    commit(database)
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"v1": base64.b64encode(b"k" * 32).decode()}))
    letters = folder / "dead-letters"
    letters.mkdir()
    options = {
        "spannerProjectId": database.project,
        "spannerInstanceId": database.instance,
        "spannerDatabase": database.name,
        "spannerMetadataInstanceId": database.instance,
        "spannerMetadataDatabase": database.metadata,
        "spannerChangeStreamNames": ",".join(STREAMS),
        "spannerEndpoint": database.endpoint,
        "startTimestamp": start,
        "readMode": "windows",
        "maskingKeys": f"file:{keys}",
        "watchedTables": WATCHED.to_json(),
        "bigQueryProjectId": warehouse.project,
        "bigQueryEndpoint": warehouse.rest,
        "bigQueryStorageEndpoint": warehouse.grpc,
        "deadLetterQueueDirectory": str(letters),
        "runner": "PrismRunner",
        "prism_location": str(installed.prism()),
        "job_name": "stages",
    }
    spied = Path(__file__).with_name("spied_job.py")
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, str(spied), str(folder), *arguments]
    with Process.start("spied job", command, log=folder / "job.log", cwd=Path.cwd()) as job:
        deadline = time.monotonic() + 300
        while there(warehouse) < 2 or not any(path.is_file() for path in letters.rglob("*")):
            assert job.alive and time.monotonic() < deadline, (folder / "job.log").read_text()[-3000:]
            time.sleep(0.5)
        job.stop(grace=20)


def there(warehouse: Warehouse) -> int:
    ids = [table.id for table in tables.changelogs(WATCHED).values()]
    counts = " + ".join(f"(SELECT COUNT(*) FROM `{warehouse.project}.{each}`)" for each in ids)
    [row] = warehouse.client.query(f"SELECT {counts}").result()
    return int(row[0])


def test_no_unmasked_record_is_handed_to_prism(
    audit_database: AuditDatabase, warehouse: Warehouse, tmp_path: Path
) -> None:
    run(audit_database, warehouse, tmp_path)
    sent = (tmp_path / "sent").read_bytes()
    # It has everything: a table's masked rows on their way to the append, and a dead letter.
    assert b"audit_logs|0" in sent and b"payment_audit_trail|0" in sent and b"411111******1111" in sent
    assert b"card_number_in_key" in sent
    assert CARD.encode() not in sent

    stages = [json.loads(line) for line in (tmp_path / "stages.jsonl").read_text().splitlines()]
    [ours] = unique(stage for stage in stages if STEP in stage["steps"])
    assert READ in ours["steps"]
    # In come restrictions of the source, out go what is masked, positions, and dead letters of masked changes.
    assert ours["fed"] == [READ]
    assert set(ours["given"]) == {f"{STEP}.{output}" for output in ("None", "positions", "clock", "dead_letters")}


def unique(stages: Iterable[dict[str, list[str]]]) -> list[dict[str, list[str]]]:
    """A stage is made again for each thread that runs it."""
    kept = {json.dumps({key: sorted(value) for key, value in stage.items()}) for stage in stages}
    return [json.loads(stage) for stage in kept]
