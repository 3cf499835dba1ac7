"""Backfill on real emulators: rows older than the stream are there once, whatever is killed, doubled or late."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from contract import tables
from pipeline.replay import work
from pipeline.replay.settings import ReplaySettings
from pipeline.replay.store import ReplayStore
from pipeline.sink.changelogs import NotReady
from pipeline.sink.pending import PendingWriter
from support import backfill, replay
from support.cli.main import main
from support.connection import Connection
from support.replay import Replay, ReplayError, Selection
from support.search import Search, search
from support.timeline import timeline
from support.warehouse import Warehouse
from tests.conftest import AuditDatabase
from tests.emulators.audited import JOB, Audited
from tests.emulators.changelog import CARD, Changelog
from tests.emulators.payments import write_many
from tests.shipped import AUDIT_LOG_TABLE, PAYMENT_TABLE, WATCHED

WHY = "the audit begins"
OLD = 12


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "SHARD_ROWS", 5)


def names(number: int, prefix: str = "old") -> list[str]:
    return [f"{prefix}{each:05}" for each in range(number)]


@pytest.fixture
def audited(both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase) -> Audited:
    Path(both_stores.dead_letter_directory).mkdir()
    return Audited(replace(both_stores, job_name=JOB, new_columns="scan"), audit_database, changelog)


def stream_begins(audited: Audited) -> None:
    """What was committed before is older than the stream."""
    with audited.database.database.snapshot() as snapshot:
        [(now,)] = snapshot.execute_sql("SELECT CURRENT_TIMESTAMP()")
    audited.began = datetime.fromisoformat(now.isoformat()).replace(microsecond=0) + timedelta(seconds=1)
    time.sleep(max(0.0, (audited.began - datetime.now(UTC)).total_seconds()) + 0.05)


@pytest.fixture
def rows(audited: Audited) -> Audited:
    """12 payments and 3 rows of the audit log."""
    write_many(audited.database, names(OLD), "CAPTURED")
    for puid in names(3):
        audited.audit_log(puid)
    return audited


@pytest.fixture
def old(rows: Audited) -> Audited:
    """They are from before the stream."""
    stream_begins(rows)
    return rows


def start(audited: Audited, *named: str, again: bool = False) -> Replay:
    return backfill.start(audited.connection, named, requested_by="ann", reason=WHY, again=again)[0]


def replayer_of(audited: Audited) -> work.Replayer:
    return work.Replayer(ReplaySettings.of(replay._launch_options(audited.connection)))


def began(audited: Audited, *named: str, again: bool = False) -> Replay:
    """Its moment and its shards are recorded, and the stream has passed the moment."""
    started = start(audited, *named, again=again)
    replayer_of(audited).plan(started.id)
    audited.carry()
    return started


def run(audited: Audited, backfill_id: str = "backfill-1") -> Replay:
    """In this process, where a step can be broken; the job of several shards has its own tests."""
    replayer = replayer_of(audited)
    for shard in replayer.plan(backfill_id):
        replayer.run_shard(backfill_id, shard.number)
    replayer.finish(backfill_id)
    return replay.find(audited.connection, backfill_id)


def written(audited: Audited, table: str = PAYMENT_TABLE) -> Counter[str]:
    """How often a backfill wrote each payment."""
    sql = f"SELECT PUID FROM {audited.table(table)} WHERE {tables.MOD_TYPE} = 'REPLAY'"
    return Counter(row["PUID"] for row in audited.sql(sql))


@pytest.mark.parametrize("shards_at_once", [1, 2, 200])
def test_what_is_older_than_the_stream_is_there_once_and_what_came_by_it_is_not_written(
    old: Audited, monkeypatch: pytest.MonkeyPatch, shards_at_once: int
) -> None:
    monkeypatch.setattr(work, "SHARDS_AT_ONCE", shards_at_once)
    old.payment("old00003", "REFUNDED")
    old.payment("old00008", "REFUNDED")
    old.payment("new")
    old.delete("old00004")
    old.carry()
    # Before: validation names what is not there.
    assert {f.kind for f in old.validate(everything=True).open} == {"missing"}
    began(old)
    done = run(old)
    expected = Counter(set(names(OLD)) - {"old00003", "old00004", "old00008"})
    assert written(old) == expected and written(old, AUDIT_LOG_TABLE) == Counter(names(3))
    assert (done.total, done.done, done.replayed, done.there) == (12 + 3, 15, 9 + 3, 3)
    assert done.complete and done.problems == () and done.kind == "backfill"
    refunded = dict.fromkeys(("old00003", "old00008"), "REFUNDED")
    assert old.changelog.current() == dict.fromkeys([*expected, "new"], "CAPTURED") | refunded
    # After: all of it is there, and nothing more; what was named is resolved.
    report = old.validate(everything=True)
    assert report.findings == [] and len(report.resolved) == 12
    assert CARD not in repr(old.sql(f"SELECT * FROM {old.table()}"))
    # A search and the timeline know them, and who wrote them.
    warehouse = Warehouse(old.connection)
    assert search(warehouse, Search(puid="old00001")).payments[0].state == "processed"
    [event, of_log] = replay.with_reasons(old.connection, timeline(warehouse, "old00001")).events
    assert (event.replay, event.replayed_by, of_log.replay) == ("backfill-1", "ann", "backfill-1")


def test_no_shard_is_written_before_the_stream_is_past_its_moment(old: Audited) -> None:
    old.carry()
    start(old)
    # It came by the stream before the moment, but has not arrived.
    old.payment("old00003", "REFUNDED")
    replayer = replayer_of(old)
    [first, *_] = replayer.plan("backfill-1")
    with pytest.raises(NotReady, match="to pass"):
        replayer.run_shard("backfill-1", first.number)
    # Exactly at the moment a change can still come.
    moment = replay.find(old.connection, "backfill-1").read_at
    assert moment
    old.position(moment)
    with pytest.raises(NotReady, match="to pass"):
        replayer.run_shard("backfill-1", first.number)
    said: list[str] = []
    replayer.wait("backfill-1", said.append, sleep=lambda _: old.carry())
    assert len(said) == 1 and said[0].startswith("waiting: the stream is at ")
    old.position(moment)
    clock = count(step=400)
    with pytest.raises(NotReady, match="audit health"):
        replayer.wait("backfill-1", clock=lambda: float(next(clock)), sleep=lambda _: None)
    assert written(old) == Counter()
    old.carry()
    run(old)
    assert written(old)["old00003"] == 0 and len(written(old)) == OLD - 1


def test_what_changes_after_the_moment_wins_in_whatever_order_it_comes(old: Audited) -> None:
    old.carry()
    start(old)
    replayer_of(old).plan("backfill-1")
    old.payment("old00001", "REFUNDED")
    old.delete("old00002")
    old.payment("new")
    old.carry()
    run(old)
    assert written(old) == Counter(names(OLD))
    current = old.changelog.current()
    assert (current["old00001"], current["new"], "old00002" in current) == ("REFUNDED", "CAPTURED", False)
    assert old.validate(everything=True).findings == []


def test_without_a_job_there_is_no_moment_from_which_the_stream_goes_on(old: Audited) -> None:
    start(old)
    with pytest.raises(replay.ReplayUnavailable, match="the streaming job to begin"):
        replay.run(old.connection, "backfill-1")
    assert replay.find(old.connection, "backfill-1").read_at is None


class Killed(Exception):
    """In place of the end of the process."""


STEPS: list[tuple[Any, str, int]] = [
    (ReplayStore, "begin", 1),
    (ReplayStore, "extend", 1),
    (ReplayStore, "extend", 3),
    (ReplayStore, "planned", 1),
    (PendingWriter, "write", 2),
    (ReplayStore, "record", 2),
    (PendingWriter, "commit", 2),
    (ReplayStore, "finish_shard", 2),
    (work, "rewind_merge", 1),
    (ReplayStore, "finish", 1),
]


@pytest.mark.parametrize(("holder", "step", "call"), STEPS, ids=[f"{step}-{call}" for _, step, call in STEPS])
@pytest.mark.parametrize("after", [True, False])
def test_killed_between_any_two_steps_it_is_finished_by_the_next_run(
    rows: Audited, monkeypatch: pytest.MonkeyPatch, holder: Any, step: str, call: int, after: bool
) -> None:
    monkeypatch.setattr(work, "_RECORDED_AT_ONCE", 1)
    rows.ahead()
    start(rows)
    calls, real = count(1), getattr(holder, step)

    def once(*given: Any) -> Any:
        if next(calls) != call:
            return real(*given)
        if after:
            real(*given)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(holder, step, once)
        run(rows)
    done = run(rows)
    assert written(rows) == Counter(names(OLD)) and written(rows, AUDIT_LOG_TABLE) == Counter(names(3))
    assert (done.total, done.replayed, done.complete) == (15, 15, True)


def test_two_who_plan_and_run_one_at_once_write_it_once(rows: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_RECORDED_AT_ONCE", 1)
    rows.ahead()
    start(rows)
    both, calls, real = threading.Barrier(2, timeout=20), count(1), ReplayStore.extend

    def together(*given: Any) -> bool:
        # Both have cut the same shards when the first is recorded, and none goes further before both have tried that.
        if next(calls) > 2:
            return real(*given)
        both.wait()
        added = real(*given)
        both.wait()
        return added

    monkeypatch.setattr(ReplayStore, "extend", together)
    done: list[Replay] = []
    threads = [threading.Thread(target=lambda: done.append(run(rows))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [each.replayed for each in done] == [15, 15]
    assert written(rows) == Counter(names(OLD)) and written(rows, AUDIT_LOG_TABLE) == Counter(names(3))


def test_started_again_by_mistake_it_is_the_same_one_and_again_on_purpose_it_fills_only_gaps(old: Audited) -> None:
    old.carry()
    first = start(old)
    assert start(old) == first and start(old, again=True) == first
    with pytest.raises(ReplayError, match="one backfill of a table may run at a time"):
        start(old, PAYMENT_TABLE)
    began(old)
    run(old)
    # Complete: neither all tables again, nor one of them.
    assert start(old).id == start(old, AUDIT_LOG_TABLE).id == "backfill-1"
    old.sql(f"DELETE FROM {old.table()} WHERE PUID = 'old00007'")
    old.payment("new")
    second = began(old, PAYMENT_TABLE, again=True)
    assert (second.id, second.tables) == ("backfill-2", (PAYMENT_TABLE,))
    assert run(old, "backfill-2").replayed == 1
    assert written(old) == Counter(names(OLD))
    assert old.validate(everything=True).findings == []


def test_one_whose_moment_is_kept_no_longer_ends_and_another_one_writes_the_rest(
    old: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.carry()
    began(old)
    replayer = replayer_of(old)
    [first, second, *_] = replayer.plan("backfill-1")
    replayer.run_shard("backfill-1", first.number)
    # One is recorded, and its rows are not visible yet; another process has read one, and not recorded it.
    made = replayer._write(replayer.store.one("backfill-1"), second)
    replayer.store.record("backfill-1", second.number, made)
    late = replayer._write(replayer.store.one("backfill-1"), second)
    long_ago = datetime.now(UTC) - timedelta(days=8)
    with old.database.metadata_database.batch() as made_old:
        made_old.update("replays", ("ReplayId", "ReadTimestamp"), [("backfill-1", long_ago)])
    done = run(old)
    assert done.finished_at and not done.complete and (done.done, done.replayed) == (10, 10)
    assert "no longer keeps the moment" in done.problems[0]
    with pytest.raises(ReplayError, match="has ended without this shard"):
        replayer.store.record("backfill-1", second.number + 1, late)
    assert began(old).id == "backfill-2"
    assert run(old, "backfill-2").replayed == 15 - 10
    assert written(old) == Counter(names(OLD)) and written(old, AUDIT_LOG_TABLE) == Counter(names(3))


def test_a_payment_of_a_backfill_is_never_handed_over_to_be_run_again(old: Audited) -> None:
    topic = replace(old.connection, replay_topic="projects/p/topics/replays", pub_sub_endpoint="http://127.0.0.1:1")
    old.carry()
    began(old)
    old.connection = topic
    assert run(old).replayed == 15


BY_TIME = "CREATE TABLE by_time (happened TIMESTAMP, number INT64, note STRING(99)) PRIMARY KEY (happened DESC, number)"
BY_CARD = "CREATE TABLE by_card (card STRING(20) NOT NULL, note STRING(99)) PRIMARY KEY (card)"


def test_keys_of_any_type_and_what_of_them_cannot_be_known_is_said(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "SHARD_ROWS", 2)
    described = json.loads(WATCHED.to_json())
    for name, columns in (
        ("by_time", {"happened": "scan", "number": "scan", "note": "scan"}),
        ("by_card", {"card": "card", "note": "scan"}),
    ):
        place = {"change_stream": "S", "dataset": "payment_audit", "table": name, "cluster_by": [next(iter(columns))]}
        described["tables"][name] = place | {"columns": columns}
    audited.connection = replace(audited.connection, watched_tables=json.dumps(described))
    database = audited.database.database
    database.update_ddl([BY_TIME, BY_CARD]).result(60)
    micros, nanos = "2026-11-29T10:00:00.000001Z", "2026-11-29T10:00:00.000000001Z"
    keys = [(None, None), (None, 1), (micros, None), (micros, 7), (micros, 8), (nanos, 7)]
    with database.batch() as made:
        made.insert("by_time", ("happened", "number", "note"), [(*key, f"pan {CARD}") for key in keys])
        made.insert("by_card", ("card",), [(CARD,)])
    audited.ahead()
    start(audited, "by_time", "by_card")
    done = run(audited)
    assert (done.total, done.replayed, done.there, len(done.problems)) == (6, 5, 0, 2)
    assert done.problems[0].startswith("a row of by_time: BigQuery cuts the time in its key")
    assert done.problems[1].startswith("by_card has a key that masking hides (card)")
    # Where they are there, none is written again.
    start(audited, "by_time", again=True)
    assert (run(audited, "backfill-2").replayed, replay.find(audited.connection, "backfill-2").there) == (0, 5)
    rows = audited.sql("SELECT happened, number, note FROM by_time")
    assert len(rows) == 5 and CARD not in repr(rows)
    audited.changelog.client.delete_table(f"{audited.changelog.project}.payment_audit.by_time")


MANY = 2_000


def test_killed_twice_with_traffic_no_row_is_missing_or_doubled_and_the_states_are_right(
    audited: Audited, connection_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "SHARD_ROWS", 150)
    write_many(audited.database, names(MANY), "AUTHORIZED")
    stream_begins(audited)
    known = json.loads(connection_file.read_text()) | {"jobName": JOB, "newColumns": "scan"}
    connection_file.write_text(json.dumps(known))
    change(audited, "before", range(0, MANY, 300))
    audited.carry()
    started = began(audited)
    traffic = threading.Thread(target=change, args=(audited, "during", range(7, MANY, 200)))
    traffic.start()
    options = [f"--{name}={value}" for name, value in replay._launch_options(audited.connection).items()]
    command = [sys.executable, "-m", "pipeline.jobs.batch", *options, f"--replayId={started.id}"]
    for _ in range(2):
        done = replay.find(audited.connection, started.id).done
        process = subprocess.Popen(command)
        while replay.find(audited.connection, started.id).done == done:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert replay.find(audited.connection, started.id).state == "running"
    # By mistake, in place of `resume`: it is the same one, and is run to its end; and then once more.
    again = ["--connection", str(connection_file), "backfill", "start", "--reason", WHY]
    for _ in range(2):
        found = CliRunner().invoke(main, again)
        assert (found.exit_code, json.loads(found.stdout)["id"]) == (0, started.id)
    traffic.join()
    audited.carry()
    changed_before = {f"old{number:05}" for number in range(0, MANY, 300)}
    assert written(audited) == Counter(set(names(MANY)) - changed_before)
    ended = replay.find(audited.connection, started.id)
    assert (ended.complete, ended.there, ended.problems) == (True, 2 * len(changed_before), ())
    assert audited.validate(everything=True).findings == []
    with audited.database.database.snapshot() as snapshot:
        assert audited.changelog.current() == dict(snapshot.execute_sql(f"SELECT PUID, Status FROM {PAYMENT_TABLE}"))


def change(audited: Audited, prefix: str, numbers: range) -> None:
    """Old payments go on, and new ones begin."""
    for number in numbers:
        audited.payment(f"old{number:05}", "CAPTURED")
        audited.payment(f"{prefix}{number:05}", "INITIATED")


def test_the_command_says_what_it_would_take_runs_it_and_shows_it(
    old: Audited, connection_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection_file.write_text(
        json.dumps(json.loads(connection_file.read_text()) | {"jobName": JOB, "newColumns": "scan"})
    )

    def audit(*args: str, code: int = 0) -> Any:
        result = CliRunner().invoke(main, ["--connection", str(connection_file), "backfill", *args])
        assert result.exit_code == code, result.output
        return result

    assert audit("list", code=1).stdout == "[]\n"
    estimate = json.loads(audit("start", "--dry-run").stdout)
    assert [(each["table"], each["rows"]) for each in estimate["tables"]] == [(PAYMENT_TABLE, 12), (AUDIT_LOG_TABLE, 3)]
    assert audit("list", code=1)
    audit("start", code=2)
    audit("start", "--reason", WHY, "--table", "orders", code=2)
    old.carry()
    old.ahead()
    found = json.loads(audit("start", "--reason", WHY).stdout)
    assert (found["id"], found["replayed"], found["kind"], found["there"]) == ("backfill-1", 15, "backfill", 0)
    again = audit("start", "--reason", WHY)
    assert "is there already, finished" in again.stderr and json.loads(again.stdout) == found
    assert json.loads(audit("show", "backfill-1").stdout) == found == json.loads(audit("resume", "backfill-1").stdout)
    [row] = audit("list", "--csv").stdout.splitlines()[1:]
    assert row.startswith("backfill-1,")
    replay.submit(old.connection, Selection(payments=("old00001",)), requested_by="ann", reason=WHY, replay_id="R")
    audit("show", "R", code=2)
    monkeypatch.setattr("support.cli.output.wants_json", lambda as_json: as_json)
    monkeypatch.setenv("COLUMNS", "250")
    assert "15 rows, about 1 s of one CPU; nothing was done." in audit("start", "--dry-run").stdout
    assert "15 of 15" in audit("list").stdout
    assert "15 of 15 rows done as of" in audit("show", "backfill-1").stdout
    with old.database.metadata_database.batch() as older:
        older.update("replays", ("ReplayId", "RequestedAt"), [("R", datetime.now(UTC) - timedelta(minutes=16))])
    assert [each.id for each in replay.stopped(old.connection)] == ["R"]
    with pytest.raises(ReplayError, match="must not begin with backfill-"):
        replay.submit(
            old.connection, Selection(payments=("x",)), requested_by="ann", reason=WHY, replay_id="backfill-9"
        )
