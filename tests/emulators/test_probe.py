"""The probe on real emulators: what Spanner's change streams committed, against rows that are there or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.cloud.spanner import COMMIT_TIMESTAMP, KeySet

from contract import metrics, payments, tables, timestamps
from contract.changes import Coordinates, DeadLetter, Reason
from local.emulators import launch as emulators
from local.emulators.launch import INSTANCE, PROJECT
from pipeline.sink.dead_letters import DeadLetterQueue
from probe.measure import Measurement, Pace, Probe
from probe.state import ProbeError
from support.connection import Connection
from support.stuck import Found, seek, stuck
from support.warehouse import Warehouse
from tests.emulators.changelog import CARD, Changelog, row
from tests.shipped import AUDIT_LOG_TABLE, PAYMENT_TABLE, PAYMENTS, WATCHED

SECOND = timedelta(seconds=1)
PACE = Pace(window=SECOND, settle=SECOND)
UNREACHABLE = "http://127.0.0.1:9"


class Stack:
    """One test's databases and warehouse, and what a pipeline would carry from one to the other."""

    def __init__(self, audit: Any, changelog: Changelog, rest: str, letters: Path) -> None:
        self.database, self.changelog = audit.database, changelog
        self.connection = Connection(
            watched_tables=WATCHED.to_json(),
            project=changelog.project, location="", big_query_endpoint=rest, spanner_endpoint=audit.endpoint,
            spanner_instance=audit.instance, spanner_database=audit.name, metadata_database=audit.metadata,
            masking_keys="", dead_letter_directory=str(letters), job_name="audit-stream-job",
        )  # fmt: skip
        self.queue = DeadLetterQueue(str(letters))
        self.probe = Probe(self.connection, PACE)

    def commit(self, write: Callable[[Any], Any]) -> datetime:
        with self.database.batch() as batch:
            write(batch)
        return timestamps.to_datetime(timestamps.normalise(batch.committed.rfc3339()))

    def payment(self, puid: str, status: str) -> datetime:
        columns = ["PUID", "Action", "Timestamp", "Status", "UpdatedAt"]
        values = [puid, "X", "2026-11-24T09:00:00Z", status, COMMIT_TIMESTAMP]
        return self.commit(lambda batch: batch.insert_or_update(PAYMENT_TABLE, columns, [values]))

    def carry(
        self,
        puid: str,
        committed: datetime,
        seconds: float = 0.5,
        mod: str = "INSERT",
        table: str = PAYMENT_TABLE,
    ) -> None:
        """The row of a change, which reaches BigQuery so long after its commit."""
        made = row(
            puid, mod, 0, "INITIATED", table=table,
            **{
                tables.COMMIT_TIMESTAMP: committed.isoformat(),
                tables.BIG_QUERY_COMMIT_TIMESTAMP: (committed + timedelta(seconds=seconds)).isoformat(),
            },
        )  # fmt: skip
        (self.changelog.payments if table == PAYMENT_TABLE else self.changelog.audit_logs)(made)

    def run(self, after: datetime | None = None, probe: Probe | None = None) -> Measurement:
        """A run once everything that was committed until `after` is in a closed window."""
        while after and datetime.now(UTC) < after + 3 * SECOND:
            time.sleep(0.1)
        return (probe or self.probe).run(datetime.now(UTC))

    def letter(self, committed: datetime) -> DeadLetter:
        at = Coordinates("S", PAYMENT_TABLE, timestamps.from_datetime(committed), "tx", "0", 0)
        now = timestamps.now()
        return DeadLetter(
            coordinates=at, step="Mask", reason=Reason.CARD_IN_KEY, message="m", attempts=0, first_failed_at=now,
            last_failed_at=now,
        )  # fmt: skip


@pytest.fixture
def stack(audit_database: Any, changelog: Changelog, bigquery_emulator: Any, tmp_path: Path) -> Stack:
    """It has been looked at once: counting has begun."""
    made = Stack(audit_database, changelog, bigquery_emulator.rest, tmp_path / "letters")
    made.run()
    return made


def counted(measurement: Measurement) -> dict[float, int]:
    bounds = (*metrics.LATENCY_BUCKETS, float("inf"))
    return {bound: n for bound, n in zip(bounds, measurement.totals.latency, strict=True) if n}


def test_a_change_that_is_missing_is_late_at_once_and_gets_its_true_latency_when_it_arrives(stack: Stack) -> None:
    made = stack.payment("p1", "INITIATED")
    stack.carry("p1", made)
    moved = stack.payment("p1", "CAPTURED")
    deleted = stack.commit(lambda batch: batch.delete(PAYMENT_TABLE, KeySet(keys=[["p1"]])))
    stack.carry("p1", deleted, 12, "DELETE")
    logged = stack.commit(
        lambda batch: batch.insert(
            AUDIT_LOG_TABLE, ["PUID", "Action", "Timestamp"], [["p1", "X", "2026-11-24T09:00:00Z"]]
        )
    )
    stack.carry("p1", logged, 2.5, table=AUDIT_LOG_TABLE)
    first = stack.run(after=logged)
    assert (first.totals.committed, first.totals.queryable, first.waiting) == (4, 3, 1)
    assert counted(first) == {0.5: 1, 3: 1, 15: 1, float("inf"): 1}
    assert first.totals.outcomes == {"initiated": 1, "processed": 1}
    assert 2 < first.oldest_unaudited_seconds < 60
    stack.carry("p1", moved, 40, "UPDATE")
    second = stack.run()
    assert (second.totals.committed, second.totals.queryable, second.waiting) == (4, 4, 0)
    assert counted(second) == {0.5: 1, 3: 1, 15: 1, 60: 1}
    assert second.oldest_unaudited_seconds == 0
    assert second.started_at == first.started_at


def test_a_run_that_was_skipped_is_caught_up_by_any_probe(stack: Stack) -> None:
    for number in range(4):
        committed = stack.payment(f"p{number}", "INITIATED")
        stack.carry(f"p{number}", committed)
        time.sleep(0.7)
    found = stack.run(after=committed, probe=Probe(stack.connection, PACE))
    assert (found.totals.committed, found.totals.queryable) == (4, 4)
    [span] = found.windows
    assert span.end - span.start >= 3 * SECOND
    assert stack.run(probe=Probe(stack.connection, PACE)).totals.committed == 4


def test_a_replay_is_no_arrival(stack: Stack) -> None:
    committed = stack.payment("p1", "INITIATED")
    stack.carry("p1", committed, mod="REPLAY")
    found = stack.run(after=committed)
    assert (found.totals.committed, found.totals.queryable, found.waiting) == (1, 0, 1)


def test_a_warehouse_that_does_not_answer_has_nothing_and_is_caught_up(stack: Stack) -> None:
    committed = stack.payment("p1", "INITIATED")
    stack.carry("p1", committed, 1.5)
    cut_off = Probe(replace(stack.connection, big_query_endpoint=UNREACHABLE), PACE)
    blind = stack.run(after=committed, probe=cut_off)
    assert (blind.totals.committed, blind.totals.queryable, counted(blind)) == (1, 0, {float("inf"): 1})
    assert "does not answer" in blind.notes[0]
    # Neither does it give up what waits while it cannot look.
    assert stack.run(probe=cut_off).waiting == 1
    assert counted(stack.run()) == {2: 1}


def test_a_source_that_does_not_answer_is_an_error_and_nothing_is_counted(stack: Stack, spanner_process: Any) -> None:
    committed = stack.payment("p1", "INITIATED")
    stack.carry("p1", committed)
    lost = Probe(replace(stack.connection, spanner_database="not-there"), PACE)
    with pytest.raises(ProbeError, match="Spanner does not answer a change stream query: NOT_FOUND"):
        stack.run(after=committed, probe=lost)
    assert stack.run().totals.committed == 1


def test_dead_letters_are_counted_by_reason_and_are_not_unaudited(stack: Stack) -> None:
    committed = stack.payment("p1", "INITIATED")
    stack.queue.put([stack.letter(committed)])
    found = stack.run(after=committed)
    assert found.dead_letters[Reason.CARD_IN_KEY] == 1
    assert found.dead_letters[Reason.REJECTED] == 0
    assert (found.totals.dead_letters, found.totals.cards_in_keys) == (1, 1)
    assert (found.waiting, found.oldest_unaudited_seconds) == (1, 0)
    assert found.oldest_dead_letter_seconds > 2
    assert stack.run().totals.dead_letters == 1
    stack.queue.discard([stack.letter(committed).id])
    done = stack.run()
    assert (done.waiting, done.oldest_dead_letter_seconds, done.totals.dead_letters) == (0, 0, 1)


def test_payments_are_stuck_by_status_and_unmapped_ones_by_the_default(stack: Stack) -> None:
    for puid, status in (("p1", "PENDING"), ("p2", "PENDING"), ("p3", "ON_HOLD"), ("p4", "SETTLED"), ("p5", "???")):
        stack.payment(puid, status)
    time.sleep(1.2)
    limits = {"INITIATED": 10, "PENDING": 3600, payments.ANY: 7200}
    ends = payments.ends(payments.PAYMENT_STATES, limits)

    def found(hours: float, ends: frozenset[str] = ends) -> Found:
        return seek(stack.database, PAYMENTS, limits, ends, datetime.now(UTC) + timedelta(hours=hours))

    assert (found(0.5).counts, found(0.5).payments) == ({"INITIATED": 0, "PENDING": 0}, ())
    assert found(1.5).counts == {"INITIATED": 0, "PENDING": 2}
    assert found(2.5).counts == {"INITIATED": 0, "PENDING": 2, "ON_HOLD": 1, "???": 1}
    assert found(3, frozenset()).counts["SETTLED"] == 1
    # The longest stuck of each Status, then the second.
    assert [(each.puid, each.status, each.limit_seconds) for each in found(2.5).payments] == [
        ("p1", "PENDING", 3600), ("p3", "ON_HOLD", 7200), ("p5", "???", 7200), ("p2", "PENDING", 3600),
    ]  # fmt: skip
    assert 9000 <= found(2.5).payments[0].seconds < 9060


def test_what_is_stuck_is_kept_by_its_id_and_only_what_masking_lets_through(stack: Stack) -> None:
    look = Warehouse(stack.connection)
    first = stack.run()
    assert (first.notes, stuck(look).payments, stuck(look).at) == ((), (), first.at)
    for puid, status in (("p1", "HELD"), (CARD, "HELD"), ("p2", f"HELD {CARD}")):
        stack.payment(puid, status)
    time.sleep(1.2)
    later = replace(stack.connection, stuck_limits="*=1")
    measured = stack.run(probe=Probe(later, PACE))
    hidden = "HELD 411111******1111"
    # A payment without a place in the warehouse is counted, and no more: it is a dead letter there.
    assert {status: n for status, n in measured.stuck.items() if n} == {"HELD": 2, hidden: 1}
    assert stuck(look).at == measured.at
    assert {(each.puid, each.status, each.limit_seconds) for each in stuck(look).payments} == {
        ("p1", "HELD", 1), ("p2", hidden, 1),
    }  # fmt: skip
    cut_off = Probe(replace(later, big_query_endpoint=UNREACHABLE), PACE)
    blind = stack.run(probe=cut_off)
    assert sum(blind.stuck.values()) == 3
    assert "Nobody can see which payments are stuck: BigQuery" in " ".join(blind.notes)
    assert stuck(look).at == measured.at


def test_a_column_that_nobody_classified_is_counted_from_its_first_change_on(stack: Stack) -> None:
    assert stack.run(after=stack.payment("p1", "INITIATED")).unclassified_columns == 0
    stack.database.update_ddl([f"ALTER TABLE {PAYMENT_TABLE} ADD COLUMN Channel STRING(20)"]).result(60)
    assert stack.run(after=stack.payment("p1", "PROCESSED")).unclassified_columns == 1
    # It is known from then on, without another change; until somebody drops it.
    assert stack.run().unclassified_columns == 1
    stack.database.update_ddl([f"ALTER TABLE {PAYMENT_TABLE} DROP COLUMN Channel"]).result(60)
    assert stack.run(after=stack.payment("p2", "INITIATED")).unclassified_columns == 0


@pytest.fixture
def restless(tmp_path: Path) -> Iterator[str]:
    """A separate emulator whose partitions live one or two seconds."""
    emulator = emulators.launch_spanner(logs=tmp_path, partition_seconds=1)
    with emulator.process:
        emulators.await_spanner(emulator)
        yield emulator.endpoint


def test_every_change_is_counted_once_while_partitions_split_and_merge(
    restless: str, changelog: Changelog, bigquery_emulator: Any, tmp_path: Path
) -> None:
    from types import SimpleNamespace

    from contract import schema

    client = emulators.spanner_client(restless)
    instance = client.instance(INSTANCE, configuration_name=f"projects/{PROJECT}/instanceConfigs/emulator-config")
    instance.create().result(30)
    databases = [
        instance.database(name, ddl_statements=schema.statements(changes))
        for name, changes in (("audit-db", schema.AUDIT_DB), ("audit-metadata", schema.METADATA_DB))
    ]
    for database in databases:
        database.create().result(30)
    audit = SimpleNamespace(
        database=databases[0], metadata_database=databases[1], endpoint=restless, instance=INSTANCE, name="audit-db",
        metadata="audit-metadata",
    )  # fmt: skip
    stack = Stack(audit, changelog, bigquery_emulator.rest, tmp_path / "letters")
    stack.run()
    for number in range(60):
        committed = stack.payment(f"p{number}", "INITIATED")
        time.sleep(0.15)
        if number % 15 == 0:
            stack.run()
    assert stack.run(after=committed).totals.committed == 60
