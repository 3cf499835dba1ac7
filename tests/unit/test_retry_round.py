"""A round of retries: what one dead letter or one service does wrong, and what the others then get.

The queue, masking, encoding and the rewind's SQL are real; BigQuery's and Spanner's answers are scripted.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.api_core import exceptions

from contract import payments, queries, tables, timestamps
from contract.changes import REASONS, Change, Column, DeadLetter, Reason, StepError
from pipeline.failures import dead_letter
from pipeline.sink import retry
from pipeline.sink.changelogs import Destinations, NotReady
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.sink.generations import Fenced
from pipeline.sink.retry import Retrier, RetrySettings
from pipeline.sink.shards import Outcome, Rejected, SinkClients
from pipeline.source.query import ChangeStream
from pipeline.source.records import DataChange, Mod
from pipeline.transforms.filter import Ignored
from pipeline.transforms.settings import TransformSettings
from tests.erased import nobody
from tests.shipped import AUDIT_LOG_TABLE, PAYMENT_DATASET, PAYMENT_TABLE, PAYMENTS, WATCHED
from tests.strict.generations import InMemoryGenerations

STREAM = "PaymentAuditTrailChangeStream"
CARD = "4111111111111111"
PAYMENT, LOG = PAYMENT_TABLE, AUDIT_LOG_TABLE
COLUMNS = (Column("PUID", "STRING", True), Column("Action", "STRING", False), Column("Status", "STRING", False))


class RpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code)
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


@dataclass
class Services:
    """What is away, and what was asked. `lookup` and `rewind`: the errors of the next calls, by table."""

    lookup: dict[str, list[Exception]] = field(default_factory=dict)
    rewind: list[Exception] = field(default_factory=list)
    append: dict[str, Callable[[pa.Table], Outcome]] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)
    generations: InMemoryGenerations = field(default_factory=InMemoryGenerations)
    appended: list[str] = field(default_factory=list)
    rewinds: list[Any] = field(default_factory=list)
    reads: list[Any] = field(default_factory=list)
    read: Callable[[Any, Any], DataChange | None] = lambda query, at: None

    # BigQuery's client.
    def query(self, sql: str, job_config: Any = None) -> Any:
        if "payment_state_progress" in sql:
            if self.rewind:
                raise self.rewind.pop(0)
            assert sql == queries.rewind_script("p", WATCHED)
            self.rewinds.append({p.name: p.value for p in job_config.query_parameters})
            return SimpleNamespace(result=list)
        table = next(table.name for table in WATCHED.tables if table.id in sql)
        if self.lookup.get(table):
            raise self.lookup[table].pop(0)
        return SimpleNamespace(result=lambda: [(i,) for i in self.there])

    # The changelogs.
    def conform(self, table: str, columns: Any, fields: Any) -> dict[str, str]:
        return {}

    def forget(self, table: str) -> None:
        return None

    def shard(self, clients: SinkClients, table: str, name: str) -> Any:
        def append(_: Any, batch: pa.Table, columns: Any) -> tuple[None, Outcome]:
            outcome = self.append.get(table, lambda b: Outcome(appended=b.num_rows))(batch)
            refused = {rejected.row[tables.CHANGE_ID] for rejected in outcome.rejected}
            ids = [i for i in batch[tables.CHANGE_ID].to_pylist() if i not in refused]
            self.appended += ids
            self.there |= set(ids)
            return None, outcome

        return SimpleNamespace(append=append, close=lambda: None)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    services = Services()
    monkeypatch.setattr(retry, "Shard", services.shard)

    def read_again(query: Any, at: Any) -> DataChange | None:
        services.reads.append((query, at))
        return services.read(query, at)

    monkeypatch.setattr(retry, "read_again", read_again)
    return services


@pytest.fixture
def settings(services: Services, tmp_path: Path) -> RetrySettings:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"v1": base64.b64encode(b"k" * 32).decode()}))
    services.generations.take_over("run", "2026-11-23T10:00:00.000000000Z")
    connected = SinkClients(
        write=None,
        query=services,
        changelogs=services,  # type: ignore[arg-type]
        destinations=Destinations(project="p", watched=WATCHED, dataset=PAYMENT_DATASET),
        generations=None,
        generation=0,
    )
    return RetrySettings(
        directory=str(tmp_path / "dead-letters"),
        every_seconds=600,
        max_retries=3,
        transforms=TransformSettings(
            masking_keys=f"file:{keys}",
            new_columns="scan",
            payment_states=payments.PAYMENT_STATES,
            ignored=Ignored(),
            watched=WATCHED,
            erased=nobody,
        ),
        streams=(ChangeStream(name=STREAM, database="projects/p/instances/i/databases/d", endpoint="127.0.0.1:1"),),
        sink=SimpleNamespace(connect=lambda: connected, generations=lambda: services.generations),  # type: ignore[arg-type]
    )


@pytest.fixture
def queue(settings: RetrySettings) -> DeadLetterQueue:
    return DeadLetterQueue(settings.directory)


def change(second: int, table: str = PAYMENT) -> Change:
    return Change(
        stream=STREAM, table=table, mod_type="INSERT",
        commit_timestamp=f"2026-11-23T09:12:{second:02d}.000000000Z", server_transaction_id="tx",
        record_sequence="00000000", mod_index=0, is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1, number_of_partitions_in_transaction=1, columns=COLUMNS,
        keys={"PUID": f"p{second}"}, new={"Action": "TEST", "Status": "INITIATED"}, old={},
    )  # fmt: skip


def letter(second: int, reason: str = Reason.UNEXPECTED, table: str = PAYMENT, *, masked: bool = True) -> DeadLetter:
    made = change(second, table)
    return dead_letter(made.coordinates, "Mask", StepError(reason, "fix it"), made if masked else None, PAYMENTS)


def record(second: int, **new: str) -> DataChange:
    at = change(second)
    values = {"Action": "TEST", "Status": "INITIATED"} | new
    return DataChange(
        stream=STREAM, commit_timestamp=at.commit_timestamp, record_sequence=at.record_sequence,
        server_transaction_id="tx", is_last_record_in_transaction_in_partition=True, table=PAYMENT,
        columns=(*COLUMNS, *(Column(name, "STRING", False) for name in new if name not in ("Action", "Status"))),
        mods=(Mod(keys=json.dumps(at.keys), new_values=json.dumps(values), old_values="{}"),),
        mod_type="INSERT", value_capture_type="NEW_ROW_AND_OLD_VALUES", number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1, transaction_tag="", is_system_transaction=False,
    )  # fmt: skip


def test_what_the_job_may_still_append_is_not_tried_before_the_position_has_passed_it(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services
) -> None:
    services.generations = InMemoryGenerations()
    services.generations.take_over("run", change(5).commit_timestamp)
    queue.put([letter(4), letter(5), letter(6)])
    rounds(settings)
    assert open_letters(queue) == {"p5": ("retry", 0), "p6": ("retry", 0)}
    services.generations.advance(1, "2026-11-23T10:00:00.000000000Z")
    rounds(settings)
    assert open_letters(queue) == {}


def open_letters(queue: DeadLetterQueue) -> dict[str, tuple[str, int]]:
    return {str(x.payment): (kind, x.attempts) for kind in ("retry", "severe") for x in queue.letters(kind)}


def rounds(settings: RetrySettings, times: int = 1, **given: Any) -> None:
    retrier = Retrier(settings, pauses=(0.0, 0.0), **given)
    for _ in range(times):
        retrier.run()


# ---------------------------------------------------------------- one failure takes no neighbours along (B12)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.Forbidden("no"),
        exceptions.ServiceUnavailable("away"),
        exceptions.NotFound("the table"),
        exceptions.TooManyRequests("quota"),
        exceptions.RetryError("late", None),
        NotReady("the table is made"),
        ConnectionResetError(),
        TimeoutError(),
        Fenced("job", 1, 2),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_table_that_is_away_holds_up_no_other_table_and_is_no_attempt(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services, error: Exception, caplog: Any
) -> None:
    queue.put([letter(1), letter(2, table=LOG), letter(3)])
    services.lookup[PAYMENT] = [error] * 20
    with caplog.at_level(logging.INFO, logger="pipeline"):
        rounds(settings, settings.max_retries + 1)
    assert services.appended == [change(2).change_id]
    assert open_letters(queue) == {"p1": ("retry", 0), "p3": ("retry", 0)}
    waits = [r for r in caplog.records if "wait for" in r.message]
    assert len(waits) == settings.max_retries + 1
    assert f"2 wait for {PAYMENT} ({type(error).__name__})" in waits[0].message
    services.lookup.clear()
    rounds(settings)
    assert open_letters(queue) == {}


def test_a_table_that_keeps_an_append_waiting_is_left_until_the_next_round(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `Shard` waits: by its clients' sleep, for as long as BigQuery is away."""

    def shard(clients: SinkClients, table: str, name: str) -> Any:
        def append(_: Any, batch: pa.Table, columns: Any) -> Any:
            while table == PAYMENT:
                clients.sleep(1.0)
            return services.shard(clients, table, name).append(_, batch, columns)

        return SimpleNamespace(append=append, close=lambda: None)

    monkeypatch.setattr(retry, "Shard", shard)
    queue.put([letter(1), letter(2, table=LOG)])
    rounds(settings, patience=0.0)
    assert open_letters(queue) == {"p1": ("retry", 0)}


def test_a_row_that_breaks_the_append_takes_no_other_row_along(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services
) -> None:
    def breaks(batch: pa.Table) -> Outcome:
        if "p2" in batch["PUID"].to_pylist():
            raise ValueError(CARD)
        return Outcome(appended=batch.num_rows)

    services.append[PAYMENT] = breaks
    queue.put([letter(second) for second in range(5)])
    rounds(settings)
    assert open_letters(queue) == {"p2": ("retry", 1)}
    assert CARD not in next(queue.letters()).message


def test_a_refused_row_is_an_attempt_and_the_rows_beside_it_are_resolved(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services
) -> None:
    def refuses(batch: pa.Table) -> Outcome:
        rows = [row for row in batch.to_pylist() if row["PUID"] == "p2"]
        return Outcome(rejected=[Rejected(row=row, message="refused") for row in rows])

    services.append[PAYMENT] = refuses
    queue.put([letter(second) for second in range(4)])
    first = {x.id: x.first_failed_at for x in queue.letters()}
    rounds(settings)
    [left] = queue.letters()
    assert (left.payment, left.attempts, left.reason) == ("p2", 1, Reason.REJECTED)
    assert left.first_failed_at == first[left.id]


def test_a_folder_that_cannot_be_read_does_not_end_the_job(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    queue.put([letter(1)])
    retrier = Retrier(settings)

    def away(*_: object) -> Any:
        raise exceptions.ServiceUnavailable("away")

    monkeypatch.setattr(retrier._queue._files, "list", away)
    retrier.run()
    assert "(ServiceUnavailable)" in caplog.text
    assert open_letters(queue) == {"p1": ("retry", 0)}


# ---------------------------------------------------------------- the rewind (B12, D5)


@pytest.mark.parametrize(
    "error", [exceptions.BadRequest("Could not serialize access to table"), exceptions.Forbidden("no")], ids=str
)
def test_a_rewind_that_fails_is_tried_again(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services, error: Exception
) -> None:
    queue.put([letter(1), letter(2)])
    services.rewind = [error, error]
    rounds(settings)
    [rewind] = services.rewinds
    assert rewind["commit_timestamp"] == timestamps.to_datetime(change(1).commit_timestamp)
    assert open_letters(queue) == {}


def test_a_payment_is_not_resolved_before_its_rewind(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services
) -> None:
    queue.put([letter(1), letter(2, table=LOG)])
    services.rewind = [exceptions.BadRequest("Could not serialize access to table")] * 3
    rounds(settings)
    assert (services.rewinds, open_letters(queue)) == ([], {"p1": ("retry", 0)})
    # Its row is there by now: the rewind is made up for.
    rounds(settings)
    assert len(services.rewinds) == 1
    assert (services.appended.count(change(1).change_id), open_letters(queue)) == (1, {})


def test_the_rewind_is_the_script_that_is_tested(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services
) -> None:
    # `Services.query` compares what it is sent with the file.
    queue.put([letter(2), letter(1)])
    rounds(settings)
    assert len(services.rewinds) == 1
    assert "UPDATE" not in Path(retry.__file__).read_text()


# ---------------------------------------------------------------- reading again (B11)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED],
    ids=lambda code: code.name,
)  # fmt: skip
def test_spanner_that_does_not_answer_is_no_attempt(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services, code: grpc.StatusCode, caplog: Any
) -> None:
    def away(query: Any, at: Any) -> None:
        raise RpcError(code)

    services.read = away
    queue.put([letter(1, masked=False), letter(2, masked=False), letter(3)])
    rounds(settings, settings.max_retries + 1)
    assert services.appended == [change(3).change_id]
    assert [(x.attempts, x.reason) for x in queue.letters("retry")] == [(0, Reason.UNEXPECTED)] * 2
    assert f"2 wait for {STREAM} (RpcError)" in caplog.text


def test_a_session_that_ended_is_replaced_within_the_round(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services
) -> None:
    dead: list[Any] = []

    def read(query: Any, at: Any) -> DataChange:
        dead.append(query)
        if query is dead[0]:
            raise RpcError(grpc.StatusCode.NOT_FOUND)
        return record(1)

    services.read = read
    queue.put([letter(1, Reason.NOT_MASKABLE, masked=False)])
    rounds(settings)
    assert len({id(query) for query, _ in services.reads}) == 2
    assert open_letters(queue) == {}


# ---------------------------------------------------------------- whether trying again helps (D4)


@pytest.mark.parametrize("reason", [r for r, info in REASONS.items() if info.retry == "never"])
def test_what_fails_again_for_certain_is_not_tried_and_is_parked_with_its_remedy(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services, reason: str
) -> None:
    queue.put([letter(1, reason, masked=False), letter(2)])
    rounds(settings, settings.max_retries)
    assert services.reads == []
    [left] = queue.letters("severe")
    assert (left.reason, left.attempts, queue.counts()) == (reason, 0, {"retry": 0, "severe": 1})
    assert left.info.remedy


def test_a_card_number_in_a_key_that_a_person_releases_is_tried_once(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services
) -> None:
    services.read = lambda query, at: record(1, CustomerId=CARD)
    queue.put([letter(1, Reason.CARD_IN_KEY, masked=False)])
    rounds(settings)
    queue.release([x.id for x in queue.letters("severe")])
    rounds(settings, settings.max_retries)
    assert len(services.reads) == 1
    [left] = queue.letters("severe")
    assert (left.reason, left.attempts, left.change) == (Reason.CARD_IN_KEY, 1, None)
    # A newer pipeline accepts it.
    services.read = lambda query, at: record(1)
    queue.release([left.id])
    rounds(settings)
    assert open_letters(queue) == {}


def test_a_release_outlives_a_service_that_is_away(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services
) -> None:
    def away(query: Any, at: Any) -> None:
        raise RpcError(grpc.StatusCode.UNAVAILABLE)

    services.read = away
    queue.put([letter(1, Reason.CARD_IN_KEY, masked=False)])
    queue.release([letter(1).id])
    rounds(settings, 2)
    services.read = lambda query, at: record(1)
    rounds(settings)
    assert open_letters(queue) == {}


def test_what_needs_a_fix_is_tried_once_and_what_may_pass_by_itself_as_often_as_the_option_says(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services
) -> None:
    for reason, info in REASONS.items():

        def fails(query: Any, at: Any, reason: str = reason) -> None:
            raise StepError(reason, "again")

        services.read = fails
        queue.put([letter(1, reason, masked=False)])
        rounds(settings, settings.max_retries + 1)
        [left] = queue.letters("severe")
        assert left.attempts == {"never": 0, "after_fix": 1, "automatic": settings.max_retries}[info.retry], reason
        queue.discard([left.id])


def test_a_round_takes_no_more_into_memory_than_a_file_holds(
    settings: RetrySettings, queue: DeadLetterQueue, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sink.dead_letters.MOST_BYTES", 3_000)
    monkeypatch.setattr("pipeline.sink.dead_letters._KEPT_BYTES", 3_000)
    queue.put([letter(second) for second in range(20)])
    sizes: list[int] = []
    services.append[PAYMENT] = lambda batch: sizes.append(batch.num_rows) or Outcome()  # type: ignore[func-returns-value]
    rounds(settings)
    assert sum(sizes) == 20
    assert max(sizes) < 6
    assert open_letters(queue) == {}


def test_a_retry_runs_beside_the_bundle(
    settings: RetrySettings, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that waits minutes for its service holds up no position; a second round waits for the first."""
    import threading

    ended, began = threading.Event(), []

    def run(self: Any) -> None:
        began.append(self)
        ended.wait(5)

    monkeypatch.setattr(Retrier, "run", run)
    step = retry.RetryDeadLetters(replace(settings, every_seconds=0.0))
    step.setup()
    state: list[float] = [0.0]
    last = SimpleNamespace(read=lambda: state[-1], write=state.append)
    for _ in range(3):
        step.process(("", None), last=last)
    assert len(began) == 1
    ended.set()
    assert step._round
    step._round.join()
    step.process(("", None), last=last)
    step._round.join()
    assert len(began) == 2
