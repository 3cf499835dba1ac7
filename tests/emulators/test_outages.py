"""Spanner or BigQuery out of reach, or out of rights: the pipeline says so, waits, and loses and doubles nothing."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.cloud.spanner_v1.types import result_set, spanner

from contract import timestamps
from contract.dialects import GOOGLE_SQL
from pipeline.clients import Endpoints
from pipeline.sink.shards import Shard
from pipeline.source.beam_source import ChangeStreamReader
from pipeline.source.partition_threads import PartitionReaders, Reading
from pipeline.source.partitions import PartitionSet
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.records import DataChange
from tests.conftest import AuditDatabase, Warehouse
from tests.emulators import test_shards
from tests.emulators.test_shards import COLUMNS, batch, change, settings, there
from tests.emulators.test_source import STREAM, collect, insert
from tests.proxy import Proxy
from tests.unit.test_records import DATA, put, row

__all__ = ["settings"]


def test_changes_of_a_time_without_spanner_arrive_afterwards(audit_database: AuditDatabase) -> None:
    proxy = Proxy(audit_database.endpoint)
    stream = ChangeStream(name=STREAM, database=audit_database.database.name, endpoint=f"127.0.0.1:{proxy.port}")
    reader = ChangeStreamReader(stream, Reading(mode="windows"), PartitionSet(timestamps.now()))
    insert(audit_database, "before")
    found, _ = collect(reader, lambda f: "before" in f)
    proxy.cut()
    insert(audit_database, "during")
    time.sleep(3)
    proxy.restore()
    insert(audit_database, "after")
    # The same reader continues: its threads waited.
    while len(found) < 3:
        if reader.advance() and isinstance(current := reader.get_current(), DataChange):
            found.update(json.loads(mod.keys)["PUID"] for mod in current.mods)
        else:
            time.sleep(0.02)
    reader.close()
    assert found == Counter(["before", "during", "after"])


def test_rows_of_a_time_without_bigquery_are_appended_once(settings: Any, warehouse: Warehouse) -> None:
    storage, rest = Proxy(warehouse.grpc), Proxy(warehouse.rest.removeprefix("http://"))
    behind = replace(
        settings,
        endpoints=Endpoints(
            spanner=settings.endpoints.spanner,
            bigquery=f"http://127.0.0.1:{rest.port}",
            bigquery_storage=f"127.0.0.1:{storage.port}",
        ),
    )
    shard = Shard(behind.connect(), test_shards.TABLE, "0")
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    for proxy in (storage, rest):
        proxy.cut()
        threading.Timer(3, proxy.restore).start()
    shard.append(position, batch(change("p1"), change("p2")), COLUMNS)
    shard.close()
    assert there(warehouse) == Counter(["p0", "p1", "p2"])


class _Spanner(grpc.GenericRpcHandler):
    """Answers change stream queries with a list of statuses, then with one record.

    A stand-in: the emulator has no permissions to take away.
    """

    def __init__(self, *statuses: grpc.StatusCode) -> None:
        self._statuses = list(statuses)

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method.endswith("/CreateSession"):
            session = spanner.Session.pb()(name="s")
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: session.SerializeToString())
        if handler_call_details.method.endswith("/ExecuteSql"):
            dialect = result_set.ResultSet.pb()()
            dialect.rows.add().values.add(string_value=GOOGLE_SQL)
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: dialect.SerializeToString())
        return grpc.unary_stream_rpc_method_handler(self._query)

    def _query(self, request: bytes, context: Any) -> Iterator[bytes]:
        if "CHANGE_STREAM_OPTIONS" in spanner.ExecuteSqlRequest.pb().FromString(request).sql:
            return  # The partition mode is not set.
        if self._statuses:
            context.abort(self._statuses.pop(0), "no")
        response = result_set.PartialResultSet.pb()()
        put(response.values.add(), row(data=DATA))
        yield response.SerializeToString()


@pytest.mark.parametrize("status", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE])
def test_a_refused_query_is_asked_again_until_it_is_answered(
    status: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((_Spanner(status, status, status),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    stream = ChangeStream(name="S", database="d")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, caplog.at_level(logging.WARNING):
        readers = PartitionReaders(ChangeStreamQuery(stream, channel), Reading(mode="tail"))
        readers.read({"token": timestamps.now()})
        deadline = time.monotonic() + 30
        while (delivered := readers.next()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        readers.close()
    server.stop(None)
    assert delivered[1].table == "payment_audit_trail"  # type: ignore[union-attr]
    assert f"{status.name}, try 3. Nothing is lost" in caplog.text
