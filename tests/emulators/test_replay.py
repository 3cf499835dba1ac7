"""Replay: payments are read from Spanner again, and are in BigQuery once, whatever happens on the way."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from contract import tables
from support import replay
from support.cli.main import main
from support.connection import Connection
from support.replay import Replay, ReplayError
from support.search import Search, search
from support.timeline import timeline
from support.warehouse import Warehouse
from tests.conftest import AuditDatabase
from tests.emulators.changelog import CARD, Changelog, row
from tests.emulators.payments import write
from tests.shipped import PAYMENT_TABLE, WATCHED

WHY = "its last change never arrived"


def submitted(connection: Connection, *puids: str, replay_id: str = "INC-1") -> Replay:
    return replay.submit(connection, puids, requested_by="ann", reason=WHY, replay_id=replay_id)


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
    assert (event.mod_type, story.transitions) == ("REPLAY", ())
    assert event.change_id.split("/")[1] == "replay-INC-1"
    everything = changelog.query(f"SELECT * FROM `{changelog.project}.{tables.changelogs(WATCHED)[PAYMENT_TABLE].id}`")
    assert CARD not in repr(everything)


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


@pytest.mark.parametrize("at", ["_Store.record", "_commit", "_Store.finish"])
def test_a_replay_that_is_killed_half_way_is_finished_by_the_next_run(
    both_stores: Connection,
    changelog: Changelog,
    audit_database: AuditDatabase,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    write(audit_database, "p", "CAPTURED")
    submitted(both_stores, "p")

    class Killed(Exception):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(f"support.replay.{at}", killed)
        replay.run(both_stores, "INC-1")
    assert replay.find(both_stores, "INC-1").finished_at is None
    if at != "_Store.record":
        # Its rows wait in the stream that is recorded: nothing is read or appended again.
        monkeypatch.setattr("support.replay._pending", killed)
    assert replay.run(both_stores, "INC-1").replayed == 1
    assert replayed(changelog) == ["p"]


def test_two_who_run_one_replay_at_once_write_it_once(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(audit_database, "p", "CAPTURED")
    submitted(both_stores, "p")
    both, record = threading.Barrier(2, timeout=60), replay._Store.record
    streams: list[str] = []

    def together(store: Any, replay_id: str, rows: Any, stream: str) -> Replay:
        streams.append(stream)
        both.wait()
        return record(store, replay_id, rows, stream)

    monkeypatch.setattr(replay._Store, "record", together)
    done: list[Replay] = []
    threads = [threading.Thread(target=lambda: done.append(replay.run(both_stores, "INC-1"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(set(streams)) == 2 and len({each.write_stream for each in done}) == 1
    assert replayed(changelog) == ["p"]


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
        (tuple(map(str, range(1001))), WHY, "1 to 1,000 payments"),
        (("p",), " no ", "5 to 1,000 characters"),
        (("p",), "x" * 1001, "5 to 1,000 characters"),
        (("p",), f"the card {CARD}", "no card's number"),
        ((CARD,), WHY, "no card's number"),
    ):
        with pytest.raises(ReplayError, match=rule):
            replay.submit(both_stores, puids, requested_by="ann", reason=reason)
    with pytest.raises(ReplayError, match="such as INC-4711"):
        replay.submit(both_stores, ("p",), requested_by="ann", reason=WHY, replay_id="a/b")
    with pytest.raises(ReplayError, match="no replay with this id"):
        replay.run(both_stores, "nobody")


def test_what_one_request_cannot_carry_is_refused_with_the_way_out(
    both_stores: Connection, audit_database: AuditDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(audit_database, "p", "CAPTURED")
    submitted(both_stores, "p")
    monkeypatch.setattr("pipeline.sink.connection.REQUEST_BYTES", 100)
    with pytest.raises(ReplayError, match="Replay fewer at once"):
        replay.run(both_stores, "INC-1")


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
