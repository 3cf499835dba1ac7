"""Each account acts as its database role in the source, where the stack has them: the emulator has none to refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contract import schema
from probe.measure import Probe
from support.connection import Connection
from support.replay import settings_of
from support.validation.source import Source
from tests.shipped import WATCHED
from tests.unit.test_replay_runs import connection

THEIRS = "projects/bank-payments/instances/core/databases/ledger"


@pytest.fixture
def attached() -> Connection:
    return replace(
        connection(spanner_endpoint="127.0.0.1:1", watched_tables=WATCHED.to_json()),
        project="audit", spanner_project="bank-payments", spanner_instance="core", spanner_database="ledger",
        metadata_instance="audit-metadata-instance", metadata_database="audit-metadata", database_roles="true",
        design_tps="500", replay_data_boost="false", replay_most="1000",
    )  # fmt: skip


def seen(database: Any) -> tuple[str, str | None]:
    return database.name, database.database_role


def test_the_probe_reads_the_source_as_its_role_and_keeps_its_state_in_the_metadata(attached: Connection) -> None:
    probe = Probe(attached)
    assert seen(probe._source) == (THEIRS, schema.PROBE_ROLE)
    stream = probe._query("S")._stream
    assert (stream.database, stream.role, stream.priority) == (THEIRS, schema.PROBE_ROLE, "LOW")
    metadata = "projects/audit/instances/audit-metadata-instance/databases/audit-metadata"
    store: Any = probe._store
    assert seen(store._database) == (metadata, None)


def test_validation_and_replay_read_the_source_as_their_role(attached: Connection) -> None:
    source = Source(attached)
    assert seen(source._database) == (THEIRS, schema.VALIDATION_ROLE)
    stream = source._query("S")._stream
    assert (stream.database, stream.role) == (THEIRS, schema.VALIDATION_ROLE)
    replay = settings_of(attached)
    assert seen(replay.source()) == (THEIRS, schema.VALIDATION_ROLE)
    assert replay.sink.metadata.project == "audit"


def test_a_stack_without_roles_acts_as_none(attached: Connection) -> None:
    plain = replace(attached, database_roles="", spanner_project="")
    here = "projects/audit/instances/core/databases/ledger"
    assert seen(Probe(plain)._source) == (here, None)
    assert seen(settings_of(plain).source()) == (here, None)
