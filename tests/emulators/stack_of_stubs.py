"""The supervisor with real emulators, and a stub for the program and for the pipeline: supervision alone.

    python stack_of_stubs.py STATE

The pipeline records that it has begun, in a real metadata database, and has a child, as the real one has Prism.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract import schema
from local.emulators import launch as emulators
from local.emulators.launch import INSTANCE, PROJECT, BigQueryEmulator
from local.machine.state import State
from local.provision.engine import ScheduledQuery
from local.stack.supervisor import Options, Supervisor


@dataclass(frozen=True)
class Provisioned:
    outputs: dict[str, Any]
    resources: tuple[Any, ...] = ()
    job_parameters: dict[str, str] = field(default_factory=lambda: {"writeMode": "exactly-once"})
    scheduled: tuple[ScheduledQuery, ...] = (ScheduledQuery(name="merge", sql="SELECT 1", seconds=1),)


def provision(_: State, endpoint: str, __: BigQueryEmulator) -> Any:
    client = emulators.spanner_client(endpoint)
    instance = client.instance(INSTANCE, configuration_name=f"projects/{PROJECT}/instanceConfigs/emulator-config")
    instance.create().result(30)
    instance.database("audit-metadata", ddl_statements=schema.statements(schema.METADATA_DB)).create().result(30)
    return Provisioned(
        {
            **dict.fromkeys(("location", "bigQueryEndpoint", "spannerDatabase", "maskingKeys", "watchedTables"), ""),
            "deadLetterDirectory": "",
            "project": PROJECT,
            "spannerEndpoint": endpoint,
            "spannerInstance": INSTANCE,
            "metadataDatabase": "audit-metadata",
            "jobName": "audit-stream-job",
        }
    )


def pipeline(endpoint: str) -> None:
    import datetime

    from google.cloud import spanner

    database = emulators.spanner_client(endpoint).instance(INSTANCE).database("audit-metadata")
    now = datetime.datetime.now(datetime.UTC)
    row = ("audit-stream-job", 1, now, spanner.COMMIT_TIMESTAMP)
    with database.batch() as batch:
        batch.insert_or_update("jobs", ("JobName", "Generation", "ResumePosition", "UpdatedAt"), [row])
    print("begun", flush=True)
    subprocess.Popen(["sleep", "600"])
    time.sleep(600)


def main() -> None:
    if sys.argv[1] == "pipeline":
        return pipeline(sys.argv[2])
    logging.basicConfig(level=logging.INFO)
    supervisor = Supervisor(
        Options(state=Path(sys.argv[1])),
        provision=provision,
        command=lambda p: [sys.executable, __file__, "pipeline", p.outputs["spannerEndpoint"]],
        console=False,
    )
    signal.signal(signal.SIGTERM, supervisor.stop)
    sys.exit(supervisor.run())


if __name__ == "__main__":
    main()
