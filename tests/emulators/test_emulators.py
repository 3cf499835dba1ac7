"""The emulators as the local stack starts them."""

from __future__ import annotations

import datetime
import json
import shutil
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from contract import schema, tables
from local.emulators import launch as emulators
from local.emulators.launch import EmulatorError
from local.machine import installed
from pipeline import clients
from tests.shipped import AUDIT_LOG_TABLE, WATCHED


@pytest.fixture
def taken_port() -> Any:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_fresh_audit_database_has_the_tables_and_streams_of_the_changelog(audit_database: Any) -> None:
    sql = "SELECT change_stream_name FROM information_schema.change_streams"
    with audit_database.database.snapshot() as snapshot:
        streams = {row[0] for row in snapshot.execute_sql(sql)}
    assert streams == set(schema.change_streams())


def test_a_fresh_warehouse_has_the_tables_of_the_contract(warehouse: Any) -> None:
    made = {
        f"{dataset.dataset_id}.{table.table_id}"
        for dataset in warehouse.client.list_datasets()
        for table in warehouse.client.list_tables(dataset.reference)
    }
    assert made == {table.id for table in tables.all_tables(WATCHED)}


def test_a_taken_port_of_the_spanner_emulator_is_an_error_that_names_the_option(taken_port: int, logs: Path) -> None:
    with pytest.raises(EmulatorError, match=rf"Port {taken_port} is taken .* give --spanner-port another port"):
        emulators.launch_spanner(logs=logs, port=taken_port)


def test_a_second_spanner_emulator_cannot_share_the_port_of_the_first(spanner_emulator: str, logs: Path) -> None:
    with pytest.raises(EmulatorError, match=r"is taken"):
        emulators.launch_spanner(logs=logs, port=int(spanner_emulator.rpartition(":")[2]))


@pytest.mark.parametrize(
    ("port", "option"), [("rest_port", "--bigquery-port"), ("grpc_port", "--bigquery-storage-port")]
)
def test_a_taken_port_of_the_bigquery_emulator_is_an_error_that_names_the_option(
    taken_port: int, logs: Path, tmp_path: Path, port: str, option: str
) -> None:
    ports: dict[str, Any] = {port: taken_port}
    with pytest.raises(EmulatorError, match=rf"Port {taken_port} is taken .* give {option} another port"):
        emulators.launch_bigquery(logs=logs, data=tmp_path, **ports)


def test_without_the_spanner_emulator_the_error_says_how_to_get_it(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(installed.NotInstalled, match=r"gcloud components install cloud-spanner-emulator"):
        emulators.launch_spanner(logs=logs)


def test_a_cloud_cli_without_the_emulator_is_the_same_error(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcloud = tmp_path / "sdk" / "bin" / "gcloud"
    gcloud.parent.mkdir(parents=True)
    gcloud.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(gcloud.parent))
    with pytest.raises(installed.NotInstalled, match=r"gcloud components install cloud-spanner-emulator"):
        emulators.launch_spanner(logs=logs)


def test_the_spanner_emulator_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "emulator_main"
    binary.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(shutil.which('sh') or '').parent}")
    assert installed.spanner_emulator() == binary


def test_without_the_set_up_the_error_says_to_run_it(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(installed.NotInstalled, match=r"BigQuery emulator is not installed .* `make setup`"):
        emulators.launch_bigquery(logs=logs, data=tmp_path)
    with pytest.raises(installed.NotInstalled, match=r"Prism, .* is not installed .* `make setup`"):
        installed.prism()


def test_a_frozen_spanner_emulator_answers_again_once_it_is_thawed(audit_database: Any, spanner_process: Any) -> None:
    def one(timeout: float) -> Any:
        with audit_database.database.snapshot() as snapshot:
            return list(snapshot.execute_sql("SELECT 1", timeout=timeout, retry=None))

    assert one(30) == [[1]]
    spanner_process.freeze()
    try:
        with pytest.raises(Exception, match=r"(?i)deadline"):
            one(0.5)
    finally:
        spanner_process.thaw()
    assert one(30) == [[1]]


def test_a_frozen_bigquery_emulator_answers_again_once_it_is_thawed(bigquery_emulator: Any) -> None:
    url = f"{bigquery_emulator.rest}/bigquery/v2/projects/{emulators.PROJECT}/datasets"
    bigquery_emulator.process.freeze()
    try:
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(url, timeout=0.5)
    finally:
        bigquery_emulator.process.thaw()
    with urllib.request.urlopen(url, timeout=30) as response:
        assert response.status == 200


def test_an_append_is_recorded_with_its_latency_once_it_can_be_queried(warehouse: Any, bigquery_emulator: Any) -> None:
    committed = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=5)
    table = tables.changelogs(WATCHED)[AUDIT_LOG_TABLE]
    stamp = committed + datetime.timedelta(seconds=1)
    row = {"PUID": "p-1", tables.COMMIT_TIMESTAMP: committed, tables.BIG_QUERY_COMMIT_TIMESTAMP: stamp}
    _append(warehouse, table.id, [row])
    [found] = warehouse.client.query(f"SELECT PUID FROM `{warehouse.project}.{table.id}`").result()
    assert found["PUID"] == "p-1"
    arrivals = bigquery_emulator.data.parent / "arrivals.jsonl"
    line = json.loads(arrivals.read_text().splitlines()[-1])
    assert (line["table"], line["rows"], line["stamp"]) == (table.id, 1, stamp.isoformat())
    [latency] = line["latencies_ms"]
    assert 5000 <= latency <= (time.time() - committed.timestamp()) * 1000
    assert "p-1" not in arrivals.read_text()


def _append(warehouse: Any, table: str, rows: list[dict[str, Any]]) -> None:
    """Appends Arrow rows to the table's default stream."""
    import pyarrow as pa
    from google.cloud.bigquery_storage_v1 import types

    dataset, name = table.split(".")
    batch = pa.RecordBatch.from_pylist(rows)
    request = types.AppendRowsRequest(
        write_stream=f"projects/{warehouse.project}/datasets/{dataset}/tables/{name}/streams/_default"
    )
    request.arrow_rows.writer_schema.serialized_schema = batch.schema.serialize().to_pybytes()
    request.arrow_rows.rows.serialized_record_batch = batch.serialize().to_pybytes()
    [response] = clients.write_client(warehouse.grpc).append_rows(iter([request]))
    assert not response.error.message
