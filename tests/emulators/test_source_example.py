"""The pipeline of pipeline/source/README.md, as its text has it, run as its reader runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from google.cloud import spanner

from contract import timestamps
from local.emulators.launch import INSTANCE
from local.machine import installed
from pipeline.source.beam_source import ReadChanges
from pipeline.source.partition_threads import Reading
from pipeline.source.query import ChangeStream
from pipeline.source.records import DataChange, ReadPosition
from tests.documents import ROOT

README = "pipeline/source/README.md"
EXAMPLE = "tests/examples/orders/count_statuses.py"


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / README).read_text(), re.M | re.S)
    return str(found)


def test_the_readme_shows_the_example_s_file() -> None:
    assert block("python") == (ROOT / EXAMPLE).read_text()


def test_a_stranger_s_pipeline_counts_each_order_once_on_the_runner(spanner_client: Any, spanner_emulator: str) -> None:
    statements = [statement for statement in block("ddl").split(";\n") if statement.strip()]
    database = spanner_client.instance(INSTANCE).database("orders", ddl_statements=statements)
    database.create().result(60)
    try:
        start = timestamps.now()
        for number in range(6):
            with database.batch() as batch:
                batch.insert("Orders", ["OrderId", "Status"], [[f"o{number}", "NEW"]])
        with database.batch() as batch:
            batch.update("Orders", ["OrderId", "Status"], [["o0", "PAID"], ["o1", "PAID"]])
            batch.delete("Orders", spanner.KeySet(keys=[["o5"]]))
        end = timestamps.normalise(batch.committed.rfc3339())
        done = subprocess.run(
            [
                *(sys.executable, EXAMPLE, f"--database={database.name}", f"--endpoint={spanner_emulator}"),
                *(f"--start={start}", f"--end={end}", "--runner=PrismRunner", "--environment_type=LOOPBACK"),
                *(f"--prism_location={installed.prism()}", "--experiments=prism_disable_sdf_split"),
            ],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        database.drop()
    assert done.returncode == 0, done.stderr[-3000:]
    found: Counter[str] = Counter()
    for text in done.stdout.splitlines():
        counted = json.loads(text)
        found[counted["status"]] += counted["orders"]
    assert found == {"NEW": 6, "PAID": 2}


def test_two_streams_of_two_databases_are_read_in_one_pipeline(
    spanner_client: Any, spanner_emulator: str, tmp_path: Path
) -> None:
    statements = [statement for statement in block("ddl").split(";\n") if statement.strip()]
    databases = [spanner_client.instance(INSTANCE).database(f"shop-{n}", ddl_statements=statements) for n in "ab"]
    for database in databases:
        database.create().result(60)
    try:
        start = timestamps.now()
        for number, database in enumerate(databases, 1):
            with database.batch() as batch:
                batch.insert("Orders", ["OrderId", "Status"], [[f"o{i}", "NEW"] for i in range(number)])
        reading = Reading(mode="windows", end=timestamps.normalise(batch.committed.rfc3339()))
        streams = [
            ChangeStream(name="OrdersStream", database=database.name, endpoint=spanner_emulator)
            for database in databases
        ]
        with beam.Pipeline(options=_prism()) as pipeline:
            _ = pipeline | ReadChanges(streams, start, reading) | beam.Map(_note, folder=str(tmp_path))
    finally:
        for database in databases:
            database.drop()
    found = Counter(line for file in tmp_path.iterdir() for line in file.read_text().splitlines())
    assert found == {"o0": 2, "o1": 1}


def _prism() -> PipelineOptions:
    return PipelineOptions(
        [
            *("--runner=PrismRunner", f"--prism_location={installed.prism()}", "--environment_type=LOOPBACK"),
            "--experiments=disable_prism_server_singleton,prism_disable_sdf_split",
        ],
        streaming=True,
    )


def _note(record: DataChange | ReadPosition, folder: str) -> None:
    if isinstance(record, DataChange):
        lines = [f"{json.loads(mod.keys)['OrderId']}\n" for mod in record.mods]
        (Path(folder) / uuid4().hex).write_text("".join(lines))
