"""The provider plugin with emulators behind it: what the engine asks for is really made, and really taken away."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from contract import schema
from local.emulators import launch as emulators
from local.emulators.launch import BigQueryEmulator
from pipeline import clients
from tests.infra import plugin

PROJECT = f"audit-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def provider(spanner_emulator: str, bigquery_emulator: BigQueryEmulator, tmp_path: Path) -> Iterator[Any]:
    """The plugin, and the engine's side of the connection."""
    server, port = plugin.serve(tmp_path / "cloud.json", spanner_emulator, bigquery_emulator.rest)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        stub.Configure(provider_pb2.ConfigureRequest(args=_struct({"project": PROJECT})))
        yield stub
    server.stop(None).wait()


def _struct(values: dict[str, Any]) -> Any:
    return json_format.Parse(json.dumps(values), struct_pb2.Struct())


def _urn(kind: str, name: str) -> str:
    return f"urn:pulumi:dev::payment-audit::payment-audit:components:X${kind}::{name}"


def test_what_has_an_emulator_is_made_there_changed_and_taken_away(
    provider: Any, spanner_emulator: str, bigquery_emulator: BigQueryEmulator
) -> None:
    instance = {"name": "audit-instance", "displayName": "d", "config": "emulator-config", "processingUnits": 100}
    first, *later = schema.statements()
    database = {"name": "audit-db", "instance": "audit-instance", "ddls": [first]}
    made = {}
    for kind, name, inputs in (
        ("gcp:spanner/instance:Instance", "audit-instance", instance),
        ("gcp:spanner/database:Database", "audit-db", database),
        ("gcp:bigquery/dataset:Dataset", "d", {"datasetId": "d", "location": "US"}),
    ):
        request = provider_pb2.CreateRequest(urn=_urn(kind, name), properties=_struct(inputs))
        made[kind, name] = provider.Create(request).id
    client = emulators.spanner_client(spanner_emulator, PROJECT)
    there = client.instance("audit-instance").database("audit-db")
    there.reload()
    assert len(there.ddl_statements) == 1
    assert clients.bigquery_client(bigquery_emulator.rest, PROJECT).get_dataset("d").location == "US"

    kind, name = "gcp:spanner/database:Database", "audit-db"
    grown = {**database, "ddls": [first, *later]}
    update = provider_pb2.UpdateRequest(
        id=made[kind, name], urn=_urn(kind, name), old_inputs=_struct(database), news=_struct(grown)
    )
    provider.Update(update)
    there.reload()
    assert len(there.ddl_statements) == len(grown["ddls"])

    read = provider.Read(provider_pb2.ReadRequest(id=made[kind, name], urn=_urn(kind, name)))
    assert json_format.MessageToDict(read.inputs) == grown
    for (kind, name), id in reversed(made.items()):
        provider.Delete(provider_pb2.DeleteRequest(id=id, urn=_urn(kind, name)))
        assert provider.Read(provider_pb2.ReadRequest(id=id, urn=_urn(kind, name))).id == ""
    assert not client.instance("audit-instance").exists()


def test_a_changed_statement_of_a_database_replaces_it_and_a_later_one_does_not(provider: Any) -> None:
    def difference(old: list[str], new: list[str]) -> Any:
        urn = _urn("gcp:spanner/database:Database", "audit-db")
        was = _struct({"ddls": old})
        return provider.Diff(provider_pb2.DiffRequest(urn=urn, olds=was, old_inputs=was, news=_struct({"ddls": new})))

    assert list(difference(["a"], ["a", "b"]).replaces) == []
    assert list(difference(["a"], ["a", "b"]).diffs) == ["ddls"]
    assert list(difference(["a", "b"], ["x", "b"]).replaces) == ["ddls"]
    assert list(difference(["a"], ["a"]).diffs) == []


def test_what_is_there_is_not_made_again(provider: Any) -> None:
    request = provider_pb2.CreateRequest(
        urn=_urn("gcp:bigquery/dataset:Dataset", "twice"), properties=_struct({"datasetId": "twice", "location": "US"})
    )
    provider.Create(request)
    with pytest.raises(grpc.RpcError, match=r"Error 409: gcp:bigquery/dataset:Dataset .* already exists"):
        provider.Create(request)


def test_the_program_is_told_of_a_table_as_it_is(provider: Any, bigquery_emulator: BigQueryEmulator) -> None:
    """With the columns that the job has added since; and an absent one is the error that Google's provider gives."""

    def columns() -> list[str]:
        asked = _struct({"project": PROJECT, "datasetId": "looked", "tableId": "at"})
        answer = provider.Invoke(provider_pb2.InvokeRequest(tok="gcp:bigquery/getTable:getTable", args=asked))
        return [column["name"] for column in json.loads(dict(getattr(answer, "return"))["schema"])]

    with pytest.raises(grpc.RpcError, match=rf"Error 404: Not found: Table {PROJECT}:looked\.at"):
        columns()
    schema_text = json.dumps([{"name": "PUID", "type": "STRING", "mode": "REQUIRED"}])
    for kind, name, inputs in (
        ("gcp:bigquery/dataset:Dataset", "looked", {"datasetId": "looked", "location": "US"}),
        ("gcp:bigquery/table:Table", "at", {"datasetId": "looked", "tableId": "at", "schema": schema_text}),
    ):
        provider.Create(provider_pb2.CreateRequest(urn=_urn(kind, name), properties=_struct(inputs)))
    assert columns() == ["PUID"]
    client = clients.bigquery_client(bigquery_emulator.rest, PROJECT)
    client.query(f"ALTER TABLE `{PROJECT}.looked.at` ADD COLUMN ByTheJob STRING").result(timeout=60)
    assert columns() == ["PUID", "ByTheJob"]
