"""A replay of many payments: shards of keys at one moment, as a Beam job, and each row once whatever happens to it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any

import pytest

from contract import tables
from pipeline.jobs import batch
from pipeline.replay import work
from pipeline.replay.settings import ReplaySettings
from pipeline.replay.store import ReplayStore
from pipeline.sink.pending import PendingWriter
from pipeline.source.table_rows import TableAt, Where
from support import replay
from support.connection import Connection
from support.replay import Selection
from tests.conftest import AuditDatabase
from tests.emulators.changelog import CARD, Changelog
from tests.emulators.payments import write, write_many
from tests.shipped import PAYMENT_TABLE, WATCHED

NUMBER = 23


class Killed(Exception):
    """In place of the end of the process."""


FAILED = Selection(state="failed")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "SHARD_ROWS", 5)


@pytest.fixture
def many(both_stores: Connection, audit_database: AuditDatabase) -> Connection:
    """23 failed payments, one whose id is a card, and others that are not selected."""
    write_many(audit_database, [f"p{number:02}" for number in range(NUMBER - 1)], "DECLINED")
    write(audit_database, CARD, "EXPIRED")
    write_many(audit_database, ["x1", "x2"], "CAPTURED")
    return both_stores


def submitted(connection: Connection, chosen: Selection = FAILED, replay_id: str = "BULK-1") -> None:
    replay.submit(connection, chosen, requested_by="ann", reason=WHY, replay_id=replay_id)


def job(connection: Connection, replay_id: str = "BULK-1") -> int:
    return batch.main([*arguments(connection), f"--replayId={replay_id}"])


def arguments(connection: Connection) -> list[str]:
    return [f"--{name}={value}" for name, value in replay._launch_options(connection).items()]


def replayed(changelog: Changelog) -> Counter[str]:
    table = f"{changelog.project}.{tables.changelogs(WATCHED)[PAYMENT_TABLE].id}"
    rows = changelog.query(f"SELECT PUID, {tables.CHANGE_ID} AS id FROM `{table}` WHERE {tables.MOD_TYPE} = 'REPLAY'")
    assert len({row["id"] for row in rows}) == len(rows)
    return Counter(row["PUID"] for row in rows)


WHY = "a column was held"
EVERY = Counter(f"p{number:02}" for number in range(NUMBER - 1))


def test_the_job_replays_what_spanner_has_in_shards_and_names_what_it_cannot(
    many: Connection, changelog: Changelog
) -> None:
    submitted(many)
    assert replay.find(many, "BULK-1").state == "waiting"
    assert job(many) == 0
    done = replay.find(many, "BULK-1")
    assert (done.total, done.done, done.replayed, done.state) == (NUMBER, NUMBER, NUMBER - 1, "finished")
    assert replayed(changelog) == EVERY
    assert done.problems[0].startswith("a payment with a card number as its id: ") and len(done.problems) == 1
    assert CARD not in repr(done)
    # Again, by mistake: nothing twice.
    assert job(many) == 0
    assert replayed(changelog) == EVERY
    assert replay.find(many, "BULK-1") == done


# Of the replay as a whole its first call is killed, of the shards that of the second.
STEPS: list[tuple[Any, str, int]] = [
    (ReplayStore, "plan", 1),
    (PendingWriter, "write", 2),
    (ReplayStore, "record", 2),
    (PendingWriter, "commit", 2),
    (ReplayStore, "finish_shard", 2),
    (work, "rewind_merge", 1),
    (ReplayStore, "finish", 1),
]


@pytest.mark.parametrize(("holder", "step", "call"), STEPS, ids=[step for _, step, _ in STEPS])
@pytest.mark.parametrize("after", [True, False])
def test_killed_between_any_two_steps_of_a_shard_it_is_finished_by_the_next_run(
    many: Connection,
    changelog: Changelog,
    monkeypatch: pytest.MonkeyPatch,
    holder: Any,
    step: str,
    call: int,
    after: bool,
) -> None:
    submitted(many)
    calls, real = count(1), getattr(holder, step)

    def once(*given: Any) -> Any:
        if next(calls) != call:
            return real(*given)
        if after:
            real(*given)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(holder, step, once)
        run_all(many)
    run_all(many)
    assert replayed(changelog) == EVERY
    assert replay.find(many, "BULK-1").replayed == NUMBER - 1


def run_all(connection: Connection) -> None:
    replayer = work.Replayer(ReplaySettings.of(replay._launch_options(connection)))
    for shard in replayer.plan("BULK-1"):
        replayer.run_shard("BULK-1", shard.number)
    replayer.finish("BULK-1")


def test_the_moment_and_the_shards_that_were_recorded_first_count(many: Connection) -> None:
    submitted(many)
    replayer = work.Replayer(ReplaySettings.of(replay._launch_options(many)))
    shards = replayer.plan("BULK-1")
    first = replay.find(many, "BULK-1")
    replayer.store.plan("BULK-1", "2026-01-01T00:00:00.000000000Z", [], [])
    replayer.store.begin("BULK-1", "2026-01-01T00:00:00.000000000Z")
    assert replay.find(many, "BULK-1") == first and replayer.plan("BULK-1") == shards


def test_two_jobs_of_one_replay_at_once_write_it_once(many: Connection, changelog: Changelog) -> None:
    submitted(many)
    threads = [threading.Thread(target=run_all, args=(many,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert replayed(changelog) == EVERY
    assert replay.find(many, "BULK-1").replayed == NUMBER - 1


def test_a_job_whose_process_is_killed_is_finished_by_the_next_while_payments_change(
    many: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    submitted(many)
    replayer = work.Replayer(ReplaySettings.of(replay._launch_options(many)))
    shards = replayer.plan("BULK-1")
    command = [sys.executable, "-m", "pipeline.jobs.batch", *arguments(many), "--replayId=BULK-1"]
    running = subprocess.Popen(command)
    while not any(shard.replayed is not None for shard in replayer.store.shards("BULK-1")):
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    # What changes meanwhile is not what the replay shows: it has its moment.
    write(audit_database, "p00", "CAPTURED")
    write(audit_database, "p99", "DECLINED")
    assert len(replayer.store.shards("BULK-1")) == len(shards)
    assert job(many) == 0
    assert replayed(changelog) == EVERY
    table = tables.changelogs(WATCHED)[PAYMENT_TABLE].id
    assert {row["Status"] for row in changelog.query(f"SELECT Status FROM `{changelog.project}.{table}`")} == {
        "DECLINED"
    }


def test_a_replay_of_several_shards_is_a_process_of_its_own_and_says_where_its_log_is(
    many: Connection, changelog: Changelog, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(many)
    assert replay.run(many, "BULK-1").replayed == NUMBER - 1
    assert replayed(changelog) == EVERY
    submitted(many, replay_id="BULK-2")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(replay.ReplayUnavailable, match="audit replay resume BULK-2"):
        replay.run(many, "BULK-2")
    assert replayed(changelog) == EVERY


def test_more_payments_than_the_stack_allows_are_none(many: Connection, changelog: Changelog) -> None:
    submitted(many)
    done = replay.run(replace(many, replay_most="22"), "BULK-1")
    assert (done.replayed, done.state) == (0, "finished")
    assert "at most 22 payments (replayMost), and 23 are selected" in done.problems[0]
    assert replayed(changelog) == Counter()


def test_it_selects_by_state_status_customer_and_time(
    both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase
) -> None:
    connection = replace(both_stores, replay_data_boost="true")
    write(audit_database, "a", "DECLINED", CustomerId="C1")
    write(audit_database, "b", "CAPTURED", CustomerId="C1")
    # The time of Spanner: the emulator's commits can be ahead of this machine's clock.
    moment = write(audit_database, "c", "EXPIRED", CustomerId="C2")
    for number, (chosen, expected) in enumerate(
        (
            (Selection(state="failed"), "ac"),
            (Selection(status="CAPTURED"), "b"),
            (Selection(customer="C1"), "ab"),
            (Selection(until=moment), "ab"),
            (Selection(since=moment), "c"),
            (Selection(customer="C1", state="failed"), "a"),
            (Selection(customer="nobody"), ""),
        )
    ):
        before = replayed(changelog)
        submitted(connection, chosen, f"B-{number}")
        assert replay.run(connection, f"B-{number}").replayed == len(expected)
        assert replayed(changelog) - before == Counter(expected), chosen


@pytest.fixture
def paired(audit_database: AuditDatabase) -> tuple[Any, datetime]:
    """A table whose key has two columns, one of them a whole number, and the time at which Spanner has its rows."""
    database = audit_database.database
    ddl = "CREATE TABLE paired (tenant STRING(9) NOT NULL, number INT64 NOT NULL, note STRING(9)) "
    database.update_ddl([ddl + "PRIMARY KEY (number DESC, tenant)"]).result(60)
    with database.batch() as made:
        made.insert("paired", ("tenant", "number", "note"), [(t, n, "x") for t in "ab" for n in range(7)])
    return database, made.committed


@pytest.mark.parametrize("data_boost", [True, False])
@pytest.mark.parametrize("most", [1, 3, 7, 14, 20])
def test_a_table_is_cut_by_all_of_its_key_into_ranges_that_have_every_row_once(
    paired: tuple[Any, datetime], most: int, data_boost: bool
) -> None:
    database, moment = paired
    table = TableAt(database, "paired", moment, Where(), data_boost=data_boost)
    ranges = list(table.cut(most))
    found = [[(row["tenant"], row["number"]) for row in table.rows(each)] for each in ranges]
    assert [len(rows) for rows in found] == [each.total for each in ranges]
    assert all(total <= most for total in map(len, found))
    assert sorted(key for rows in found for key in rows) == sorted((t, str(n)) for t in "ab" for n in range(7))
