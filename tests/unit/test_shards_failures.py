"""What BigQuery refuses: what waits, what is the row's fault, and that a good row beside a bad one does not wait."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.api_core import exceptions
from google.cloud.bigquery_storage_v1 import types
from google.rpc import status_pb2

from contract import tables
from contract.changes import Column, Reason
from pipeline import service_errors as failures
from pipeline.service_errors import Action
from pipeline.sink.append import rejected_letter
from pipeline.sink.changelogs import LAG_SECONDS, NotReady
from pipeline.sink.connection import REQUEST_BYTES
from pipeline.sink.dead_letters import decode, encode
from pipeline.sink.shards import Rejected
from tests.shipped import PAYMENTS
from tests.unit.sink_twin import COLUMNS, START, TABLE, TABLE_ID, Lag, Refusal, StorageCode, Twin, batch, change, column

WIDER = (*COLUMNS, Column("Colour", "STRING", False))
LAGS: tuple[Lag, ...] = ("in-band", "ends-call", "ends-call-without-details", "row-errors")


def refuse_for(twin: Twin, seconds: float, refusal: Callable[[], Exception]) -> None:
    until = twin.now + seconds

    def before(_: pa.Table) -> None:
        if twin.now < until:
            raise refusal()

    twin.before_append = before


def refuse_rows(twin: Twin, *bad: str, code: int = 3, ends: bool = True, storage: int = 0) -> None:
    def before(rows: pa.Table) -> None:
        if set(bad) & set(rows["PUID"].to_pylist()):
            raise Refusal(code, "invalid", storage, ends=ends)

    twin.before_append = before


# ---------------------------------------------------------------------- one classification


@pytest.mark.parametrize(
    ("code", "storage", "action"),
    [
        *((code, 0, Action.WAIT) for code in (1, 2, 4, 7, 8, 10, 12, 13, 14, 15, 16, 99)),
        (3, 0, Action.THIS_ROW),
        *((code, 0, Action.NEW_STREAM) for code in (5, 6, 9, 11)),
        (5, StorageCode.TABLE_NOT_FOUND, Action.WAIT),
        (3, StorageCode.SCHEMA_MISMATCH_EXTRA_FIELDS, Action.WAIT),
        *((9, code, Action.WAIT) for code in range(10, 15)),
        *((3, code, Action.NEW_STREAM) for code in (2, 3, 4, 5, 6, 8, 9)),
    ],
)
def test_a_failure_means_the_same_however_it_arrives(code: int, storage: int, action: Action) -> None:
    status = Refusal(code, "no", storage).status
    assert failures.classify(status) is action
    found = next((c for c in grpc.StatusCode if c.value[0] == code), None)
    if found is not None:
        assert failures.classify(Refusal(code, "no", storage).error()) is action
        assert failures.classify(Ended(status)) is action
        assert failures.classify(exceptions.from_grpc_error(Ended(status))) is action


class Ended(grpc.RpcError, grpc.Call):
    """The end of a call as gRPC raises it: its details are in the trailing metadata."""

    def __init__(self, status: status_pb2.Status) -> None:
        self._status = status

    def code(self) -> Any:
        return next(c for c in grpc.StatusCode if c.value[0] == self._status.code)

    def details(self) -> str:
        return str(self._status.message)

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self._status.SerializeToString()),)

    def initial_metadata(self) -> Any:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:
        return None

    def cancel(self) -> None:
        pass

    def add_callback(self, callback: Any) -> None:
        pass


def test_a_message_over_the_transports_limit_is_too_large_and_a_quota_is_waited_for() -> None:
    assert failures.classify(Refusal(8, "Received message larger than max (1 vs. 2)").status) is Action.TOO_LARGE
    assert failures.classify(Refusal(3, "AppendRows request too large: 3 limit 2").status) is Action.TOO_LARGE
    assert failures.classify(Refusal(8, "Quota exceeded for bytes a second").status) is Action.WAIT


# ---------------------------------------------------------------------- what waits


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("code", [1, 2, 4, 7, 8, 10, 13, 14, 16])
def test_a_service_that_fails_for_five_seconds_is_waited_out(code: int, ends: bool) -> None:
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    refuse_for(twin, 5, lambda: Refusal(code, ends=ends))
    _, outcome = shard.append(position, batch(change("p1"), change("p2")), COLUMNS)
    assert outcome.rejected == []
    assert set(twin.there()) == {"p0", "p1", "p2"}
    assert twin.counts["create_write_stream"] == 1
    assert twin.counts["look_up"] == 0


def test_pauses_grow_up_to_ten_seconds_and_the_log_says_what_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    twin = Twin()
    refuse_for(twin, 600, lambda: Refusal(13))
    with caplog.at_level(logging.WARNING):
        twin.shard().append(None, batch(change("p1")), COLUMNS)
    assert twin.slept[0] < 1
    assert 5 <= twin.slept[-1] <= 10
    assert len(twin.slept) < 100
    lines = [r.getMessage() for r in caplog.records]
    assert "waiting for BigQuery, which answers INTERNAL" in lines[0]
    assert 10 < len(lines) < 30


def test_a_lost_key_is_waited_for() -> None:
    twin = Twin()
    refuse_for(twin, 60, lambda: Refusal(9, "kms", StorageCode.KMS_SERVICE_ERROR))
    _, outcome = twin.shard().append(None, batch(change("p1")), COLUMNS)
    assert (outcome.appended, outcome.rejected, twin.counts["create_write_stream"]) == (1, [], 1)


def test_a_table_that_the_write_path_does_not_find_is_looked_for_again() -> None:
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    del twin.tables[TABLE_ID]
    gone = twin.now
    works = twin._append

    def append(stream: Any, arrow: pa.Table, offset: int) -> Any:
        if twin.now < gone + 20:
            raise Refusal(5, "table", StorageCode.TABLE_NOT_FOUND, ends=True)
        return works(stream, arrow, offset)

    twin._append = append  # type: ignore[method-assign]
    _, outcome = shard.append(position, batch(change("p1")), COLUMNS)
    assert set(twin.there()) == {"p1"}
    assert outcome.rejected == []
    assert twin.counts["create_table"] == 2
    assert twin.counts["create_write_stream"] < 12


# ---------------------------------------------------------------------- a column that the write path does not know yet


@pytest.mark.parametrize("lag_as", LAGS)
@pytest.mark.parametrize("number", [1, 8, 500])
def test_rows_with_a_new_column_wait_until_the_write_path_knows_it(
    number: int, lag_as: Lag, caplog: pytest.LogCaptureFixture
) -> None:
    twin = Twin(lag=20, lag_as=lag_as)
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    tables_read = twin.counts["get_table"]
    with caplog.at_level(logging.WARNING):
        _, outcome = shard.append(
            position, batch(*(change(f"c{i}", WIDER, Colour="red") for i in range(number))), WIDER
        )
    assert outcome.rejected == []
    assert len(twin.there()) == number + 1
    assert set(twin.there().values()) == {1}
    assert set(twin.values("Colour").values()) == {None, "red"}
    assert twin.counts["create_write_stream"] <= 3
    assert twin.counts["query"] <= 3
    assert twin.counts["get_table"] - tables_read <= 6
    assert "waiting for BigQuery's write path to learn of the columns Colour, added" in caplog.text


@pytest.mark.parametrize("lag_as", LAGS)
def test_rows_without_a_value_in_the_new_column_do_not_wait_for_it(lag_as: Lag) -> None:
    twin = Twin(lag=20, lag_as=lag_as)
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    arrived: dict[str, float] = {}
    began = twin.now
    append = twin._append

    def timed(stream: Any, arrow: pa.Table, offset: int) -> Any:
        response = append(stream, arrow, offset)
        arrived.update(dict.fromkeys(arrow["PUID"].to_pylist(), twin.now - began))
        return response

    twin._append = timed  # type: ignore[method-assign]
    rows = batch(change("p1", WIDER), change("red", WIDER, Colour="red"), change("p2", WIDER))
    _, outcome = shard.append(position, rows, WIDER)
    assert outcome.rejected == []
    assert arrived["p1"] == arrived["p2"] == 0
    assert arrived["red"] >= 20
    assert twin.values("Colour") == {"p0": None, "p1": None, "p2": None, "red": "red"}


def test_rows_whose_new_array_is_empty_do_not_wait_for_it() -> None:
    twin = Twin(lag=20)
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    wider = (*COLUMNS, Column("Tags", "ARRAY<STRING>", False))
    shard.append(position, batch(change("p1", wider), change("p2", wider, Tags=[])), wider)
    assert twin.slept == []


@pytest.mark.parametrize("lag_as", ["ends-call-without-details", "row-errors"])
def test_a_bad_row_among_those_that_wait_for_a_column_is_a_dead_letter_in_the_end(lag_as: Lag) -> None:
    twin = Twin(lag=20, lag_as=lag_as)
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    refuse_rows(twin, "bad", "worse")
    names = ["bad", "c1", "c2", "worse", "c3", "c4"]
    began = twin.now
    _, outcome = shard.append(position, batch(*(change(n, WIDER, Colour="red") for n in names)), WIDER)
    assert [r.row["PUID"] for r in outcome.rejected] == ["bad", "worse"]
    assert set(twin.there()) == {"p0", "c1", "c2", "c3", "c4"}
    assert twin.now - began < LAG_SECONDS / 2


def test_a_bad_row_alone_with_a_new_column_is_a_dead_letter_once_no_lag_explains_it() -> None:
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    refuse_rows(twin, "bad")
    began = twin.now
    _, outcome = shard.append(position, batch(change("bad", WIDER, Colour="red")), WIDER)
    assert [r.row["PUID"] for r in outcome.rejected] == ["bad"]
    assert LAG_SECONDS <= twin.now - began < 2 * LAG_SECONDS


@pytest.mark.parametrize("lag_as", LAGS)
def test_a_worker_that_comes_later_knows_that_the_column_is_new(lag_as: Lag) -> None:
    twin = Twin(lag=20, lag_as=lag_as)
    first = twin.shard()
    first.append(None, batch(change("p0")), COLUMNS)
    first._clients.changelogs.conform(TABLE, WIDER, [tables.Field("Colour", "STRING")])
    _, outcome = twin.shard("1").append(None, batch(change("red", WIDER, Colour="red")), WIDER)
    assert outcome.rejected == []
    assert set(twin.there()) == {"p0", "red"}


def test_a_column_that_another_worker_added_is_new_here_too() -> None:
    twin = Twin(lag=20, lag_as="ends-call-without-details")
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    twin.widen(TABLE_ID, column("Colour"))
    _, outcome = shard.append(position, batch(change("red", WIDER, Colour="red")), WIDER)
    assert (outcome.appended, outcome.rejected) == (1, [])


def test_a_column_that_a_person_dropped_is_added_again() -> None:
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0", WIDER, Colour="red")), WIDER)
    table = twin.tables[TABLE_ID]
    table.schema = [f for f in table.schema if f.name != "Colour"]
    del table.known_at["colour"]
    _, outcome = shard.append(position, batch(change("p1", WIDER, Colour="blue")), WIDER)
    assert (outcome.appended, outcome.rejected) == (1, [])


# ---------------------------------------------------------------------- the row's fault


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("bad", [["p250"], ["p0"], ["p499"], ["p3", "p4", "p100", "p400"]])
def test_a_refused_row_does_not_hold_up_the_others(bad: list[str], ends: bool) -> None:
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("q")), COLUMNS)
    refuse_rows(twin, *bad, ends=ends)
    requests = twin.counts["request"]
    _, outcome = shard.append(position, batch(*(change(f"p{i}") for i in range(500))), COLUMNS)
    assert [r.row["PUID"] for r in outcome.rejected] == bad
    assert {r.reason for r in outcome.rejected} == {Reason.REJECTED}
    assert len(twin.there()) == 501 - len(bad)
    assert set(twin.there().values()) == {1}
    assert twin.slept == []
    assert twin.counts["request"] - requests <= 3 + 20 * len(bad)
    assert twin.counts["create_write_stream"] == 2


def test_what_an_older_stream_refuses_is_not_blamed_on_the_rows() -> None:
    """BigQuery may say INVALID_ARGUMENT of a stream as well."""
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    assert position is not None
    append = twin._append

    def refuses_the_old(stream: Any, arrow: pa.Table, offset: int) -> Any:
        if stream.name == position.stream:
            raise Refusal(3, "invalid", ends=True)
        return append(stream, arrow, offset)

    twin._append = refuses_the_old  # type: ignore[method-assign]
    _, outcome = shard.append(position, batch(change("p1"), change("p2")), COLUMNS)
    assert (outcome.appended, outcome.rejected) == (2, [])


def test_rows_that_are_refused_by_name_are_rejected_alone() -> None:
    twin = Twin()

    def before(rows: pa.Table) -> None:
        found = [i for i, name in enumerate(rows["PUID"].to_pylist()) if name == "bad"]
        if found:
            refusal = Refusal(3, "rows")
            refusal.row_errors = [types.RowError(index=i, code=1, message="secret") for i in found]
            raise refusal

    twin.before_append = before
    _, outcome = twin.shard().append(None, batch(change("p1"), change("bad"), change("p2")), COLUMNS)
    assert [r.row["PUID"] for r in outcome.rejected] == ["bad"]
    assert "FIELDS_ERROR" in outcome.rejected[0].message
    assert "secret" not in outcome.rejected[0].message
    assert set(twin.there()) == {"p1", "p2"}
    assert twin.counts["create_write_stream"] == 1


# ---------------------------------------------------------------------- bytes


def test_a_row_that_no_request_holds_is_a_dead_letter_and_the_others_go_at_once() -> None:
    twin = Twin()
    rows = [change(f"p{i}", Metadata='"x"') for i in range(12)]
    rows[5].new["Metadata"] = '"' + "x" * 11_000_000 + '"'
    _, outcome = twin.shard().append(None, batch(*rows), COLUMNS)
    [rejected] = outcome.rejected
    assert (rejected.row["PUID"], rejected.reason) == ("p5", Reason.TOO_LARGE)
    assert "ignoreFields" in rejected.message
    assert len(twin.there()) == 11
    assert twin.slept == []
    assert twin.counts["append_rows"] == 1


def test_a_cell_of_ten_megabytes_goes_through() -> None:
    twin = Twin()
    big = [change(f"p{i}", Metadata="x" * 10_000_000) for i in range(3)]
    _, outcome = twin.shard().append(None, batch(*big, change("small")), COLUMNS)
    assert outcome.rejected == []
    assert len(twin.there()) == 4


def test_a_large_row_among_small_ones_is_cut_by_bytes_and_not_by_rows() -> None:
    twin = Twin()
    rows = [change(f"p{i}", Metadata="x" * (9_000_000 if i == 7 else 100)) for i in range(4000)]
    _, outcome = twin.shard().append(None, batch(*rows), COLUMNS)
    assert outcome.rejected == []
    assert outcome.appends <= 4
    assert len(twin.there()) == 4000


def test_requests_stay_under_the_limit_with_all_that_is_in_them() -> None:
    assert 10_000_000 + 100_000 < REQUEST_BYTES < 10 * 1024 * 1024


# ---------------------------------------------------------------------- widening


def test_a_widening_that_is_refused_four_times_goes_on_with_pauses() -> None:
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    refused = iter([exceptions.PreconditionFailed("etag")] * 4)

    def before() -> None:
        error = next(refused, None)
        if error is not None:
            raise error

    twin.before_update = before
    shard.append(position, batch(change("p1", WIDER, Colour="red")), WIDER)
    assert twin.values("Colour") == {"p0": None, "p1": "red"}
    assert len(twin.slept) >= 4
    assert twin.slept[3] > twin.slept[0]


@pytest.mark.parametrize("error", [exceptions.Forbidden("no"), exceptions.BadRequest("too many columns")])
def test_a_widening_that_is_refused_for_long_waits_and_says_so(
    error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pauses without their jitter: what is counted is how they grow.
    monkeypatch.setattr("random.uniform", lambda _, high: high)
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    began = twin.now

    def before() -> None:
        if twin.now < began + 300:
            raise error

    twin.before_update = before
    with caplog.at_level(logging.WARNING):
        _, outcome = shard.append(position, batch(change("p1", WIDER, Colour="red")), WIDER)
    assert (outcome.appended, outcome.rejected) == (1, [])
    assert "waiting for the columns Colour to be added to p.payment_audit.payment_audit_trail_bq" in caplog.text
    assert twin.counts["update_table"] < 100


def test_who_conforms_a_table_outside_an_append_is_told_when_it_cannot_be() -> None:
    twin = Twin()
    changelogs = twin.clients().changelogs
    changelogs.conform(TABLE, COLUMNS, [tables.Field("PUID", "STRING")])

    def before() -> None:
        raise exceptions.Conflict("another")

    twin.before_update = before
    with pytest.raises(NotReady, match="Colour"):
        changelogs.conform(TABLE, WIDER, [tables.Field("Colour", "STRING")])
    assert twin.now > START


@pytest.mark.parametrize(
    "text",
    [
        "Exceeds quota limit subject: ?metric=bigquerystorage.googleapis.com/write/append_bytes&limit=AppendBytes",
        "The request rate exceeds the limit",
        "Quota exceeded: request exceeds 3 GB/s",
        "Throughput exceeds 314572800 bytes per second",
        "Exceeds 'AppendRows throughput' quota (status: INSUFFICIENT_TOKENS), maximum 10 MB",
    ],
)
@pytest.mark.parametrize("ends", [True, False])
def test_a_row_over_a_quota_waits_and_is_no_dead_letter(text: str, ends: bool) -> None:
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    refuse_for(twin, 5, lambda: Refusal(8, text, ends=ends))
    _, outcome = shard.append(position, batch(change("p1"), change("p2")), COLUMNS)
    assert (outcome.rejected, len(twin.there()), twin.counts["create_write_stream"]) == ([], 3, 1)


def test_a_request_that_is_too_large_is_still_halved() -> None:
    for text in ("Received message larger than max (11 vs. 10)", "Message size exceeds 10485760 bytes"):
        assert failures.classify(Refusal(8, text).status) is Action.TOO_LARGE


@pytest.mark.parametrize("call", ["create_write_stream", "finalize_write_stream"])
def test_a_table_that_is_gone_is_made_again_where_bigquery_calls_it_forbidden(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google answers PERMISSION_DENIED for what does not exist: "(or it may not exist)"."""
    twin = Twin()
    shard = twin.shard()
    shard.append(None, batch(change("p0")), COLUMNS)
    twin.tables.clear()
    works = getattr(twin, call)

    def forbidden(**given: Any) -> Any:
        assert len(twin.slept) < 20
        if TABLE_ID not in twin.tables:
            raise exceptions.PermissionDenied("(or it may not exist)")
        return works(**given)

    monkeypatch.setattr(twin, call, forbidden)
    # The next bundle has lost its stream: state of an older job, say.
    _, outcome = shard.append(None, batch(change("p1")), COLUMNS)
    assert (outcome.rejected, twin.there()) == ([], Counter(["p1"]))


def test_a_stream_of_a_table_that_was_made_again_is_given_up_where_bigquery_calls_it_forbidden() -> None:
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    assert position is not None
    stream = twin.streams[position.stream]
    works = twin._append

    def append(on: Any, arrow: pa.Table, offset: int) -> Any:
        assert len(twin.slept) < 100
        if on is stream:
            raise Refusal(7, "(or it may not exist)", ends=True)
        return works(on, arrow, offset)

    twin._append = append  # type: ignore[assignment,method-assign]
    _, outcome = shard.append(position, batch(change("p1")), COLUMNS)
    assert (outcome.rejected, twin.there()) == ([], Counter(["p0", "p1"]))


def test_a_row_whose_column_is_not_known_yet_is_no_dead_letter_beside_a_bad_one() -> None:
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    told = iter([{0: "value out of range", 1: "no such field: Colour"}, {0: "no such field: Colour"}])

    def before(_: pa.Table) -> None:
        if errors := next(told, None):
            refusal = Refusal(3, "invalid")
            refusal.row_errors = [types.RowError(index=i, code=1, message=text) for i, text in errors.items()]
            raise refusal

    twin.before_append = before
    rows = batch(*(change(f"p{i}", WIDER, Colour="red") for i in range(1, 4)))
    _, outcome = shard.append(position, rows, WIDER)
    assert [r.row["PUID"] for r in outcome.rejected] == ["p1"]
    assert twin.there() == Counter(["p0", "p2", "p3"])


def test_a_transaction_id_with_a_slash_makes_a_dead_letter_as_any_other() -> None:
    one = change("p1")
    one.server_transaction_id = "a/b=="
    letter = rejected_letter(Rejected(row=batch(one).to_pylist()[0], message="m"), PAYMENTS)
    assert letter.coordinates == one.coordinates


@pytest.mark.parametrize("kind", ["BYTES", "FLOAT64", "JSON", "ARRAY<STRING>"])
def test_a_new_table_is_clustered_by_what_bigquery_can_cluster_by(kind: str) -> None:
    made: list[Any] = []
    twin = Twin()
    create = twin.create_table
    twin.create_table = lambda table, exists_ok: made.append(table) or create(table, exists_ok)  # type: ignore
    columns = (Column("Key", "STRING", True), Column("PUID", kind, False))
    twin.clients().changelogs.conform("things", columns, ())
    assert made[0].clustering_fields == ["Key"]


@pytest.mark.parametrize("lag_as", ["in-band", "ends-call"])
def test_a_bad_row_with_a_new_column_holds_nothing_up_once_bigquery_knows_the_column(lag_as: Lag) -> None:
    twin = Twin(lag=20, lag_as=lag_as)
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)

    def before(_: pa.Table) -> None:
        # BigQuery looks at the columns first.
        if twin.tables[TABLE_ID].known_at.get("colour", float("inf")) <= twin.now:
            raise Refusal(3, "invalid", ends=lag_as != "in-band")

    twin.before_append = before
    _, outcome = shard.append(position, batch(*(change(f"c{i}", WIDER, Colour="red") for i in range(4))), WIDER)
    assert len(outcome.rejected) == 4
    assert sum(twin.slept) < 60


def test_a_refused_row_with_arrays_of_any_type_can_be_written_as_a_dead_letter() -> None:
    values: dict[str, Any] = {
        "BYTES": ["AAE="],
        "NUMERIC": ["1.5"],
        "DATE": ["2026-11-23"],
        "TIMESTAMP": ["0001-01-01T00:00:00Z"],
        "FLOAT64": ["NaN"],
        "JSON": ["{}"],
    }
    columns = (*COLUMNS, *(Column(f"X{kind}", f"ARRAY<{kind}>", False) for kind in values))
    one = change("p1", columns, at=START, **{f"X{kind}": value for kind, value in values.items()})
    letter = rejected_letter(Rejected(row=batch(one).to_pylist()[0], message="m"), PAYMENTS)
    assert decode(encode(letter)).coordinates == one.coordinates


def test_rows_are_rejected_only_against_the_table_as_it_is_now() -> None:
    """Between two requests somebody creates a column with another type: what no longer fits goes into one beside."""
    twin = Twin()
    large = "x" * 6_000_000
    requests: list[str] = []

    def before(rows: pa.Table) -> None:
        [puid] = rows["PUID"].to_pylist()
        requests.append(puid)
        table = twin.tables[TABLE_ID]
        if puid == "p2" and requests.count("p2") == 1:
            table.schema = [column("Status", "INT64") if f.name == "Status" else f for f in table.schema]
        if puid == "p2" and "Status" in rows.column_names:
            raise Refusal(3, "invalid", ends=True)

    twin.before_append = before
    changes = [change("p1", Metadata=large), change("p2", Metadata=large)]
    _, outcome = twin.shard().append(None, batch(*changes), COLUMNS)
    assert (outcome.rejected, twin.there(), requests) == ([], Counter({"p1": 1, "p2": 1}), ["p1", "p2", "p2"])
    assert twin.values("Status_string")["p2"] == "INITIATED"
