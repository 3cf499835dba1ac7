"""BigQuery and the metadata database as a shard sees them, in memory and on a clock of the test's own.

It does what the documentation says where the emulator is kinder: an error inside a response and as the end of the call,
with or without a `StorageError`; a write path that learns of a column later than REST; 10 MB a request. Every call is
counted, so that storms show.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Literal

import grpc
import pyarrow as pa
from google.api_core import exceptions
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import types
from google.rpc import status_pb2

from contract import tables, timestamps
from contract.changes import Change, Column
from pipeline.sink import rows
from pipeline.sink.changelogs import Changelogs, Destinations
from pipeline.sink.shards import Shard, SinkClients
from tests.shipped import PAYMENT_DATASET, WATCHED

TABLE = "payment_audit_trail"
TABLE_ID = "p.payment_audit.payment_audit_trail_bq"
COLUMNS = (Column("PUID", "STRING", True), Column("Status", "STRING", False), Column("Metadata", "JSON", False))
START = 1_800_000_000.0
StorageCode = types.StorageError.StorageErrorCode
Lag = Literal["in-band", "ends-call", "ends-call-without-details", "row-errors"]
_NUMBERS = itertools.count()


def change(puid: str, columns: tuple[Column, ...] = COLUMNS, *, at: float = START, **new: Any) -> Change:
    """An INSERT that was committed at `at`, in seconds since 1970."""
    return Change(
        stream="S",
        table=TABLE,
        mod_type="INSERT",
        commit_timestamp=timestamps.from_nanos(int(at * 1_000_000) * 1000),
        server_transaction_id=f"{next(_NUMBERS)}",
        record_sequence="00000000",
        mod_index=0,
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=columns,
        keys={"PUID": puid},
        new={"Status": "INITIATED"} | new,
        old={},
    )


def batch(*changes: Change) -> pa.Table:
    encoded, failed = rows.encode(changes, WATCHED.of(changes[0].table))
    assert not failed and encoded is not None
    return pa.Table.from_batches([encoded])


class Refusal(Exception):
    """What the write path answers: inside the response, or (`ends`) as the end of the call."""

    def __init__(self, code: int, text: str = "no", storage: int = 0, *, ends: bool = False) -> None:
        super().__init__(text)
        self.ends = ends
        self.status = status_pb2.Status(code=code, message=text)
        self.row_errors: list[Any] = []
        if storage:
            self.status.details.add().Pack(types.StorageError.pb(types.StorageError(code=storage, entity="e")))

    def error(self) -> Exception:
        """As the client library raises it when it ends the call."""
        code = next(c for c in grpc.StatusCode if c.value[0] == self.status.code)
        return exceptions.from_grpc_status(code, self.status.message, details=list(self.status.details))

    def response(self) -> Any:
        return types.AppendRowsResponse(error=self.status, row_errors=self.row_errors)


@dataclass
class _Stream:
    name: str
    count: int = 0
    finalized: bool = False


@dataclass
class _Table:
    schema: list[Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    # When the write path knows a column, by casefolded name.
    known_at: dict[str, float] = field(default_factory=dict)


class Twin:
    """`lag`: seconds until the write path knows a new column; `lag_as`: how it says that it does not."""

    def __init__(self, *, lag: float = 0.0, lag_as: Lag = "in-band") -> None:
        self.now = START + 3600
        self.lag, self.lag_as = lag, lag_as
        self.tables: dict[str, _Table] = {}
        self.streams: dict[str, _Stream] = {}
        self.recorded: dict[tuple[str, str], str] = {}
        self.counts: Counter[str] = Counter()
        self.looked_up: list[int] = []
        self.slept: list[float] = []
        # Called before an append, a widening, a query: raises what it answers.
        self.before_append: Callable[[pa.Table], None] = lambda _rows: None
        self.before_update: Callable[[], None] = lambda: None
        self.before_query: Callable[[], None] = lambda: None

    # ------------------------------------------------------------------ the worker's side

    def shard(self, number: str = "0", *, fenced_at: str | None = None, table: str = TABLE) -> Shard:
        return Shard(self.clients(fenced_at=fenced_at), table, number)

    def clients(self, *, fenced_at: str | None = None) -> SinkClients:
        destinations = Destinations(project="p", watched=WATCHED, dataset=PAYMENT_DATASET)
        return SinkClients(
            write=self,
            query=self,
            changelogs=Changelogs(self, destinations, clock=self.time, sleep=self.sleep),
            destinations=destinations,
            generations=self,  # type: ignore[arg-type]
            generation=1,
            fenced_at=fenced_at,
            clock=self.time,
            sleep=self.sleep,
        )

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def timestamp(self) -> str:
        return timestamps.from_nanos(int(self.now * 1_000_000) * 1000)

    def there(self, table_id: str = TABLE_ID) -> Counter[str]:
        return Counter(row["PUID"] for row in self.tables[table_id].rows)

    def values(self, column: str, table_id: str = TABLE_ID) -> dict[str, Any]:
        return {row["PUID"]: row.get(column) for row in self.tables[table_id].rows}

    # ------------------------------------------------------------------ generations

    def stream(self, table_id: str, shard: str) -> str | None:
        return self.recorded.get((table_id, shard))

    def record_stream(
        self, generation: int, table_id: str, shard: str, stream: str, *, replaces: str | None
    ) -> str | None:
        if self.recorded.get((table_id, shard)) != replaces:
            return None
        self.recorded[table_id, shard] = stream
        return self.timestamp()

    # ------------------------------------------------------------------ REST

    def get_table(self, table_id: str) -> Any:
        self.counts["get_table"] += 1
        if table_id not in self.tables:
            raise exceptions.NotFound("no such table")
        return SimpleNamespace(id=table_id, schema=copy.copy(self.tables[table_id].schema))

    def create_table(self, table: Any, exists_ok: bool) -> Any:
        assert exists_ok
        self.counts["create_table"] += 1
        made = self.tables[f"{table.project}.{table.dataset_id}.{table.table_id}"] = _Table(list(table.schema))
        made.known_at = dict.fromkeys((f.name.casefold() for f in made.schema), 0.0)
        return table

    def update_table(self, table: Any, fields: list[str]) -> None:
        self.counts["update_table"] += 1
        self.before_update()
        names = [f.name.casefold() for f in table.schema]
        if len(set(names)) != len(names):
            raise exceptions.BadRequest("duplicate column")
        self.widen(table.id, *table.schema)

    def widen(self, table_id: str, *fields: Any) -> None:
        """Adds the columns that the table lacks: REST shows them at once."""
        table = self.tables[table_id]
        for each in fields:
            if each.name.casefold() not in table.known_at:
                table.schema.append(each)
                table.known_at[each.name.casefold()] = self.now + self.lag

    def query(self, sql: str, job_config: Any) -> Any:
        self.counts["query"] += 1
        self.before_query()
        assert job_config.use_query_cache is False
        given: dict[str, Any] = {
            p.name: getattr(p, "values", None) or getattr(p, "value", None) for p in job_config.query_parameters
        }
        found = self.tables[sql.split("`")[1]].rows
        times = [row[tables.COMMIT_TIMESTAMP] for row in found]
        if "MAX(" in sql:
            self.counts["newest"] += 1
            return _Job([(max((t for t in times if t >= given["oldest"]), default=None),)])
        self.counts["look_up"] += 1
        self.looked_up.append(len(given["ids"]))
        ids = set(given["ids"])
        first, last = given["first"], given["last"]
        return _Job(
            [
                (row[tables.CHANGE_ID],)
                for row, at in zip(found, times, strict=True)
                if first <= at <= last and row[tables.CHANGE_ID] in ids
            ]
        )

    # ------------------------------------------------------------------ the Storage Write API

    def create_write_stream(self, *, parent: str, write_stream: Any) -> Any:
        self.counts["create_write_stream"] += 1
        name = f"{parent}/streams/s{len(self.streams)}"
        self.streams[name] = _Stream(name)
        return SimpleNamespace(name=name)

    def finalize_write_stream(self, *, name: str) -> None:
        self.counts["finalize_write_stream"] += 1
        self.streams[name].finalized = True

    def append_rows(self, requests: Iterator[Any], **_: Any) -> Iterator[Any]:
        self.counts["append_rows"] += 1
        schema = stream = None
        for request in requests:
            self.counts["request"] += 1
            if request.write_stream:
                stream = request.write_stream
                schema = pa.ipc.read_schema(pa.py_buffer(request.arrow_rows.writer_schema.serialized_schema))
            arrow = pa.ipc.read_record_batch(pa.py_buffer(request.arrow_rows.rows.serialized_record_batch), schema)
            try:
                if types.AppendRowsRequest.pb(request).ByteSize() > 10 * 1024 * 1024:
                    raise Refusal(3, "AppendRows request too large", ends=True)
                yield self._append(self.streams[str(stream)], pa.Table.from_batches([arrow]), int(request.offset))
            except Refusal as refusal:
                if refusal.ends:
                    raise refusal.error() from None
                yield refusal.response()

    def _append(self, stream: _Stream, arrow: pa.Table, offset: int) -> Any:
        table = self.tables[".".join(stream.name.split("/")[1:6:2])]
        self.before_append(arrow)
        if stream.finalized:
            raise Refusal(9, "finalized", StorageCode.STREAM_FINALIZED)
        if offset != stream.count:
            raise Refusal(6, "offset", StorageCode.OFFSET_ALREADY_EXISTS)
        self._check_schema(table, arrow)
        table.rows += arrow.to_pylist()
        stream.count += arrow.num_rows
        return types.AppendRowsResponse(append_result=types.AppendRowsResponse.AppendResult(offset=offset))

    def _check_schema(self, table: _Table, arrow: pa.Table) -> None:
        folded = [name.casefold() for name in arrow.column_names]
        if len(set(folded)) != len(folded):
            raise Refusal(3, "two columns of one name", ends=True)
        if all(table.known_at.get(name, float("inf")) <= self.now for name in folded):
            return
        if self.lag_as == "in-band":
            raise Refusal(3, "schema", StorageCode.SCHEMA_MISMATCH_EXTRA_FIELDS)
        if self.lag_as == "ends-call":
            raise Refusal(3, "schema", StorageCode.SCHEMA_MISMATCH_EXTRA_FIELDS, ends=True)
        refusal = Refusal(3, "invalid", ends=self.lag_as != "row-errors")
        if self.lag_as == "row-errors":
            refusal.row_errors = [types.RowError(index=i, code=1, message="bad") for i in range(arrow.num_rows)]
        raise refusal


class _Job:
    def __init__(self, found: list[Any]) -> None:
        self._found = found

    def result(self) -> list[Any]:
        return self._found


def column(name: str, kind: str = "STRING", mode: str = "NULLABLE") -> Any:
    return bigquery.SchemaField(name, kind, mode)


def moment(at: float) -> datetime:
    return timestamps.to_datetime(timestamps.from_nanos(int(at * 1_000_000) * 1000))
