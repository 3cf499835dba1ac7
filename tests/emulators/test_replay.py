"""Replay: payments are read from Spanner again, and are in BigQuery once, whatever happens on the way."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from contract import tables
from contract.changes import Coordinates, DeadLetter, Reason, StepError
from pipeline.failures import dead_letter
from pipeline.replay.records import Written
from pipeline.replay.store import ReplayStore
from pipeline.sink.dead_letters import DeadLetterQueue
from support import replay, reports
from support.cli.main import main
from support.connection import Connection
from support.overview import overview
from support.replay import Replay, ReplayError, Selection
from support.search import Search, search
from support.timeline import timeline
from support.warehouse import Warehouse
from tests.conftest import AuditDatabase
from tests.emulators.changelog import CARD, Changelog, row
from tests.emulators.payments import write
from tests.letters import letter as letter_of
from tests.shipped import PAYMENT_TABLE, WATCHED
from tests.strict.bigquery import StrictBigQuery
from tests.strict.google_apis import PubSub, serving

WHY = "its last change never arrived"


def submitted(connection: Connection, *puids: str, replay_id: str = "INC-1") -> Replay:
    return replay.submit(connection, Selection(payments=puids), requested_by="ann", reason=WHY, replay_id=replay_id)


def replayed(changelog: Changelog) -> list[str]:
    table = f"{changelog.project}.{tables.changelogs(WATCHED)[PAYMENT_TABLE].id}"
    sql = f"SELECT PUID FROM `{table}` WHERE {tables.MOD_TYPE} = 'REPLAY' ORDER BY {tables.CHANGE_ID}"
    return [found["PUID"] for found in changelog.query(sql)]


def test_a_payment_that_never_arrived_is_there_masked_and_with_its_state(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    write(audit_database, "lost", "CAPTURED", Amount="10.50")
    submitted(both_stores, "lost")
    done = replay.run(both_stores, "INC-1")
    assert (done.replayed, done.problems, done.requested_by, done.reason) == (1, (), "ann", WHY)
    warehouse = Warehouse(both_stores)
    [payment] = search(warehouse, Search(puid="lost")).payments
    assert (payment.state, payment.status, payment.customer_id) == ("processed", "CAPTURED", "C7")
    assert payment.card == "411111******1111"
    assert str(payment.amount) == "10.5"
    story = timeline(warehouse, "lost")
    [event] = story.events
    assert (event.mod_type, event.replay, story.transitions) == ("REPLAY", "INC-1", ())
    [event] = replay.with_reasons(both_stores, story).events
    assert (event.replayed_by, event.replay_reason) == ("ann", WHY)
    # A reader who may not read that sees the rest.
    [event] = replay.with_reasons(replace(both_stores, metadata_database="not-there"), story).events
    assert (event.replay, event.replayed_by) == ("INC-1", None)
    everything = changelog.query(f"SELECT * FROM `{changelog.project}.{tables.changelogs(WATCHED)[PAYMENT_TABLE].id}`")
    assert CARD not in repr(everything)


def test_a_replayed_payment_is_in_no_count_of_what_changed(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    changelog.payments(row("p", "INSERT", 1, "INITIATED"))
    for puid in ("p", "lost"):
        write(audit_database, puid, "CAPTURED")
    submitted(both_stores, "p", "lost")
    replay.run(both_stores, "INC-1")
    warehouse, since = Warehouse(both_stores), datetime.now(UTC) - timedelta(days=1)
    for name in ("summary_by_region", "summary_by_customer", "summary_by_method"):
        found = reports.run(warehouse, name, since=since)
        assert [(each["payments"], each["initiated"], each["processed"]) for each in found.rows] == [(1, 1, 0)], name
    assert overview(warehouse).states == {"initiated": 1, "processed": 0, "failed": 0, "unknown": 0}
    assert [each["began"] for each in reports.run(warehouse, "summary_by_period", since=since).rows] == [1]
    # What the payment is now takes it.
    assert changelog.current() == {"p": "CAPTURED", "lost": "CAPTURED"}


def test_a_replay_shows_the_moment_of_its_read_whatever_arrives_later(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    write(audit_database, "p", "CAPTURED")
    submitted(both_stores, "p")
    replay.run(both_stores, "INC-1")
    # An older change that comes late, as out of the dead letters.
    changelog.payments(row("p", "UPDATE", 1, "PENDING", {"Status": "INITIATED"}))
    [payment] = search(Warehouse(both_stores), Search(puid="p")).payments
    assert payment.status == "CAPTURED"
    # And a newer one.
    changelog.payments(row("p", "UPDATE", 10_000, "REFUNDED", {"Status": "CAPTURED"}))
    [payment] = search(Warehouse(both_stores), Search(puid="p")).payments
    assert payment.status == "REFUNDED"


def test_a_replay_that_is_requested_or_run_again_writes_nothing_twice(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    for puid in ("b", "a"):
        write(audit_database, puid, "CAPTURED")
    submitted(both_stores, "a", "b")
    first = replay.run(both_stores, "INC-1")
    assert submitted(both_stores, "b", "a").payments == ("a", "b")
    with pytest.raises(ReplayError, match="INC-1 is of others"):
        submitted(both_stores, "a", "b", "c")
    assert replay.run(both_stores, "INC-1") == first
    assert replayed(changelog) == ["a", "b"]
    # Another one is another one: both are on record.
    submitted(both_stores, "a", replay_id="INC-2")
    replay.run(both_stores, "INC-2")
    assert replayed(changelog) == ["a", "b", "a"]
    assert [each.id for each in replay.latest(both_stores)] == ["INC-2", "INC-1"]


class Killed(Exception):
    """In place of the end of the process."""


def killed(*_: Any) -> None:
    raise Killed


STEPS = [
    "pipeline.replay.store.ReplayStore.plan",
    "pipeline.replay.store.ReplayStore.record",
    "pipeline.sink.pending.PendingWriter.commit",
    "pipeline.replay.store.ReplayStore.finish_shard",
    "pipeline.replay.work.rewind_merge",
    "pipeline.replay.store.ReplayStore.finish",
]


@pytest.mark.parametrize("at", STEPS)
def test_a_replay_that_is_killed_half_way_is_finished_by_the_next_run(
    both_stores: Connection,
    changelog: Changelog,
    audit_database: AuditDatabase,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    write(audit_database, "p", "CAPTURED")
    submitted(both_stores, "p")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(at, killed)
        replay.run(both_stores, "INC-1")
    found = replay.find(both_stores, "INC-1")
    assert (found.finished_at, found.state) == (None, "waiting" if at == STEPS[0] else "running")
    if at not in STEPS[:2]:
        # Its rows wait in the stream that is recorded: nothing is read or appended again.
        monkeypatch.setattr("pipeline.replay.work.PendingWriter.write", killed)
    assert replay.run(both_stores, "INC-1").replayed == 1
    assert replayed(changelog) == ["p"]


def test_two_who_run_one_replay_at_once_write_it_once(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(audit_database, "p", "CAPTURED")
    submitted(both_stores, "p")
    both, record = threading.Barrier(2, timeout=60), ReplayStore.record
    streams: list[str] = []
    recorded: list[str | None] = []

    def together(store: Any, replay_id: str, number: int, made: Written) -> Any:
        streams.append(made.stream)
        both.wait()
        found = record(store, replay_id, number, made)
        recorded.append(found.write_stream)
        return found

    monkeypatch.setattr(ReplayStore, "record", together)
    done: list[Replay] = []
    threads = [threading.Thread(target=lambda: done.append(replay.run(both_stores, "INC-1"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(set(streams)) == 2 and len(set(recorded)) == 1 and len(done) == 2
    assert replayed(changelog) == ["p"]


def test_a_replay_takes_the_merge_of_the_state_back_to_its_moment(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    changelog.merge()
    changelog.position(7_200)
    changelog.merge()
    write(audit_database, "p", "CAPTURED")
    submitted(both_stores, "p")
    done = replay.run(both_stores, "INC-1")
    [row] = changelog.query("SELECT merged_until FROM payment_audit.payment_state_progress")
    assert row["merged_until"] == done.read_at
    assert changelog.current() == {"p": "CAPTURED"}


def test_one_row_that_bigquery_refuses_is_a_problem_and_the_others_are_written(
    both_stores: Connection, audit_database: AuditDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The emulator inserts the good rows of a refused request; BigQuery does not, nor does this one.
    monkeypatch.setattr("pipeline.replay.work.rewind_merge", lambda *_: None)
    for puid in ("a", "b", "c"):
        write(audit_database, puid, "CAPTURED")
    with StrictBigQuery(both_stores.project) as strict:
        strict.create_tables()
        strict.refuse_rows({"column": "PUID", "values": ["b"]})
        connection = replace(both_stores, big_query_endpoint=strict.rest, big_query_storage_endpoint=strict.grpc)
        submitted(connection, "a", "b", "c")
        done = replay.run(connection, "INC-1")
        rows = strict.rows(tables.changelogs(WATCHED)[PAYMENT_TABLE].id)
    assert sorted(row["PUID"] for row in rows) == ["a", "c"]
    assert (done.replayed, done.problems) == (2, ("b: BigQuery refuses the row: FIELDS_ERROR.",))
    assert CARD not in repr(done)


def test_what_cannot_be_replayed_is_named_without_its_data_and_holds_nothing_up(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    write(audit_database, "good", "CAPTURED")
    write(audit_database, "bad", "CAPTURED", CustomerId=CARD)
    submitted(both_stores, "good", "bad", "nobody")
    done = replay.run(both_stores, "INC-1")
    assert replayed(changelog) == ["good"]
    assert (done.replayed, len(done.problems)) == (1, 2)
    assert done.problems[0].startswith("bad: ") and "1 of the payments are not in Spanner" in done.problems[1]
    assert CARD not in repr(done)
    submitted(both_stores, "nobody", replay_id="INC-2")
    assert replay.run(both_stores, "INC-2").replayed == 0


def test_a_column_that_was_held_and_is_classified_now_is_filled(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    audit_database.database.update_ddl([f"ALTER TABLE {PAYMENT_TABLE} ADD COLUMN Channel STRING(20)"]).result(60)
    write(audit_database, "p", "CAPTURED", Channel="web")
    submitted(both_stores, "p")
    replay.run(both_stores, "INC-1")
    described = replace(WATCHED.payments, columns={**WATCHED.payments.columns, "Channel": _scanned()})
    classified = replace(WATCHED, tables=(described, *WATCHED.events))
    submitted(both_stores, "p", replay_id="INC-2")
    replay.run(replace(both_stores, watched_tables=classified.to_json()), "INC-2")
    table = f"{changelog.project}.{tables.changelogs(WATCHED)[PAYMENT_TABLE].id}"
    found = changelog.query(f"SELECT Channel FROM `{table}` ORDER BY {tables.CHANGE_ID}")
    assert [each["Channel"] for each in found] == [None, "web"]
    changelog.query(f"ALTER TABLE `{table}` DROP COLUMN Channel")


def _scanned() -> Any:
    return replace(WATCHED.payments.columns["ErrorDetails"], means=None, policy="scan")


def test_a_replay_that_cannot_be_is_refused(both_stores: Connection) -> None:
    for puids, reason, rule in (
        ((), WHY, "1 to 1,000 payments"),
        (tuple(map(str, range(1001))), WHY, "got 1,001"),
        (("p",), " no ", "5 to 1,000 characters"),
        (("p",), "x" * 1001, "5 to 1,000 characters"),
        (("p",), f"the card {CARD}", "no card's number"),
        ((CARD,), WHY, "no card's number"),
    ):
        with pytest.raises(ReplayError, match=rule):
            replay.submit(both_stores, Selection(payments=puids), requested_by="ann", reason=reason)
    with pytest.raises(ReplayError, match="such as INC-4711"):
        replay.submit(both_stores, Selection(payments=("p",)), requested_by="ann", reason=WHY, replay_id="a/b")
    with pytest.raises(ReplayError, match="no replay with this id"):
        replay.run(both_stores, "nobody")


def test_without_an_id_each_replay_that_is_not_finished_is_run(
    both_stores: Connection, connection_file: Path, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    for puid in ("one", "two"):
        write(audit_database, puid, "DECLINED")
        replay.submit(both_stores, Selection(payments=(puid,)), requested_by="me", reason=WHY, replay_id=f"left-{puid}")
    for _ in range(2):
        CliRunner().invoke(main, ["--connection", str(connection_file), "replay", "resume", "--here"])
    assert all(replay.find(both_stores, f"left-{puid}").replayed == 1 for puid in ("one", "two"))
    assert sorted(replayed(changelog)) == ["one", "two"]


def test_the_commands_replay_what_is_named_or_found(
    both_stores: Connection, connection_file: Path, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    def audit(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["--connection", str(connection_file), "replay", *arguments])

    write(audit_database, "p", "DECLINED")
    changelog.payments(row("p", "INSERT", 1, "DECLINED", customer_id="C7"))
    tried = audit("start", "--state", "failed", "--reason", WHY, "--dry-run")
    assert (tried.exit_code, tried.stdout) == (0, "p\n"), tried.output
    assert replayed(changelog) == []
    done = audit("start", "--state", "failed", "--reason", WHY, "--id", "INC-9")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["replayed"] == 1
    assert audit("resume", "INC-9").exit_code == 0
    assert replayed(changelog) == ["p"]
    assert json.loads(audit("show", "INC-9").stdout)["payments"] == ["p"]
    assert [each["id"] for each in json.loads(audit("list").stdout)] == ["INC-9"]
    assert audit("start", "--reason", WHY).exit_code == 2
    assert audit("start", "--customer", "nobody", "--reason", WHY).exit_code == 1


def parked(connection: Connection, *letters: DeadLetter) -> DeadLetterQueue:
    queue = DeadLetterQueue(connection.dead_letter_directory)
    queue.put(letters)
    queue.park(letters)
    return queue


def gone(table: str, commit_timestamp: str) -> DeadLetter:
    """One that says only where its change was, in a change stream that keeps it no longer."""
    at = Coordinates("S", table, commit_timestamp, "tx", "00000000", 0)
    return dead_letter(at, "Mask", StepError(Reason.GONE, "replay it"))


def test_a_dead_letter_whose_record_is_gone_is_filled_from_the_present_state_and_resolved_on_record(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase, connection_file: Path
) -> None:
    committed = write(audit_database, "lost", "CAPTURED")
    write(audit_database, "other", "CAPTURED")
    letter = gone(PAYMENT_TABLE, committed)
    queue = parked(both_stores, letter)
    arguments = ["--connection", str(connection_file), "replay", "start", "--dead-letter", letter.id]
    done = CliRunner().invoke(main, [*arguments, "--reason", WHY, "--id", "INC-1", "--json"])
    assert done.exit_code == 0, done.output
    assert replayed(changelog) == ["lost"]
    assert queue.counts() == {"retry": 0, "severe": 0}
    found = replay.find(both_stores, "INC-1")
    assert (found.dead_letters, found.replayed, found.problems) == ((letter.id,), 1, ())


def test_a_dead_letter_that_names_its_payment_is_filled_by_that(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    write(audit_database, "p1", "CAPTURED")
    queue = parked(both_stores, letter_of(1, "p1"))
    chosen = replay.of_dead_letters(both_stores, [letter_of(1, "p1").id])
    assert chosen == Selection(payments=("p1",))
    replay.submit(both_stores, chosen, requested_by="ann", reason=WHY, replay_id="I", dead_letters=[letter_of(1).id])
    replay.run(both_stores, "I")
    assert replayed(changelog) == ["p1"] and queue.counts()["severe"] == 0


def test_a_dead_letter_stays_where_nothing_can_fill_it(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    committed = write(audit_database, "p", "INITIATED")
    # Its later change has arrived as usual: which payment it was cannot be told by the time any more.
    write(audit_database, "p", "CAPTURED")
    letter = gone(PAYMENT_TABLE, committed)
    queue = parked(both_stores, letter)
    chosen = replay.of_dead_letters(both_stores, [letter.id])
    replay.submit(both_stores, chosen, requested_by="ann", reason=WHY, replay_id="I", dead_letters=[letter.id])
    done = replay.run(both_stores, "I")
    assert done.replayed == 0 and "the dead letters stay" in done.problems[0]
    assert queue.counts()["severe"] == 1
    for ids, rule in ((["nobody"], "must be there"), ([parked_event(both_stores).id], "is of another table")):
        with pytest.raises(ReplayError, match=rule):
            replay.of_dead_letters(both_stores, ids)
    # Whoever knows the payment names it.
    named = Selection(payments=("p",))
    replay.submit(both_stores, named, requested_by="ann", reason=WHY, replay_id="J", dead_letters=[letter.id])
    assert replay.run(both_stores, "J").replayed == 1
    assert queue.find(letter.id) is None


def parked_event(connection: Connection) -> DeadLetter:
    letter = gone("audit_logs", "2026-11-23T09:12:00.000000000Z")
    parked(connection, letter)
    return letter


def test_replayed_payments_are_handed_over_before_their_stream_is_recorded_and_again_after_a_crash(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(audit_database, "p", "DECLINED")
    write(audit_database, "bad", "CAPTURED", CustomerId=CARD)
    pubsub = PubSub(topics=frozenset({"projects/p/topics/t"}))
    with serving(pubsub) as address:
        connection = replace(both_stores, replay_topic="projects/p/topics/t", pub_sub_endpoint=address)
        submitted(connection, "p", "bad")
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(ReplayStore, "record", killed)
            replay.run(connection, "INC-1")
        assert replay.run(connection, "INC-1").replayed == 1
        replay.run(connection, "INC-1")
    assert replayed(changelog) == ["p"]
    told = [message["attributes"] for message in pubsub.messages]
    assert told == [{"puid": "p", "table": PAYMENT_TABLE, "state": "failed", "replayId": "INC-1", "reason": WHY}] * 2
