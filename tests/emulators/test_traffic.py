"""The traffic against a real Spanner emulator: the ledger says what really happened, and masking hides all of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from contract.changes import StepError
from contract.schema import change_streams
from local.traffic.command import TrafficSummary, run_traffic
from local.traffic.commits import CommitError
from local.traffic.ledger import Entry, Ledger, read_ledger
from local.traffic.sample_data import spellings
from local.traffic.simulator import cards_made
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.records import ChildPartitions, DataChange
from pipeline.transforms.decode import decode
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker
from tests.shipped import AUDIT_LOG_TABLE, PAYMENT_TABLE, WATCHED

SEED = 11


def database_of(place: Any) -> str:
    return f"projects/{place.project}/instances/{place.instance}/databases/{place.name}"


def run(place: Any, ledger: Path, *, duration: float | None = 2, **more: Any) -> TrafficSummary:
    settings: dict[str, Any] = {"tps": 100, "seed": SEED, "stop": threading.Event()} | more
    return run_traffic(
        endpoint=place.endpoint, database=database_of(place), duration=duration, ledger_path=ledger, **settings
    )


def in_process(place: tuple[str, str], ledger: Path) -> None:
    run_traffic(
        endpoint=place[0],
        database=place[1],
        tps=10_000,
        duration=None,
        seed=SEED,
        ledger_path=ledger,
        stop=threading.Event(),
    )


def records(place: Any, ledger: Path) -> list[DataChange]:
    """Every record of both change streams from the ledger's first commit to its last."""
    entries = list(read_ledger(ledger))
    first, last = entries[0].commit_timestamp, entries[-1].commit_timestamp
    found = []
    for name in change_streams():
        stream = ChangeStream(name=name, database=database_of(place), endpoint=place.endpoint)
        with grpc.insecure_channel(place.endpoint) as channel:
            query = ChangeStreamQuery(stream, channel)
            waiting, seen = query.roots(first), set()
            while waiting:
                child = waiting.pop()
                if child.token in seen or child.start > last:
                    continue
                seen.add(child.token)
                for record in query.run(max(first, child.start), token=child.token, end=last):
                    if isinstance(record, DataChange):
                        found.append(record)
                    elif isinstance(record, ChildPartitions):
                        waiting += record.children
    return found


def committed(place: Any, ledger: Path) -> Counter[tuple[str, str, str, str]]:
    """What the change streams hold, as (table, PUID, mod type, commit timestamp)."""
    return Counter(
        (record.table, orjson.loads(mod.keys)["PUID"], record.mod_type, record.commit_timestamp)
        for record in records(place, ledger)
        for mod in record.mods
    )


def written_down(ledger: Path) -> Counter[tuple[str, str, str, str]]:
    return Counter((e.table, e.puid, e.mod_type, e.commit_timestamp) for e in read_ledger(ledger))


def test_the_ledger_says_exactly_what_the_change_streams_say(audit_database: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    told: list[TrafficSummary] = []

    summary = run(audit_database, ledger, on_progress=told.append)

    entries = list(read_ledger(ledger))
    assert told
    assert summary.changes == len(entries) > summary.operations > 10
    assert {e.table for e in entries} == {PAYMENT_TABLE, AUDIT_LOG_TABLE}
    assert (summary.first_commit, summary.last_commit) == (entries[0].commit_timestamp, entries[-1].commit_timestamp)
    assert written_down(ledger) == committed(audit_database, ledger)


def test_the_last_states_of_the_ledger_are_those_of_the_rows(audit_database: Any, tmp_path: Path) -> None:
    run(audit_database, tmp_path / "ledger.jsonl")

    last: dict[str, Entry] = {e.puid: e for e in read_ledger(tmp_path / "ledger.jsonl") if e.table == PAYMENT_TABLE}
    with audit_database.database.snapshot() as snapshot:
        rows = dict(snapshot.execute_sql("SELECT PUID, Status FROM payment_audit_trail"))
    assert rows == {puid: e.status for puid, e in last.items() if e.mod_type != "DELETE"}


def test_a_second_run_goes_on_where_the_first_one_ended(audit_database: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"

    run(audit_database, ledger, duration=0.5)
    run(audit_database, ledger, duration=0.5)

    numbers = sorted({e.operation for e in read_ledger(ledger)})
    assert numbers == list(range(len(numbers)))
    assert written_down(ledger) == committed(audit_database, ledger)


def test_a_killed_writer_loses_and_doubles_nothing(audit_database: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    place = (audit_database.endpoint, database_of(audit_database))
    for _ in range(3):
        before = ledger.stat().st_size if ledger.exists() else 0
        writer = multiprocessing.get_context("spawn").Process(target=in_process, args=(place, ledger))
        writer.start()
        while not ledger.exists() or ledger.stat().st_size < before + 20_000:
            assert writer.is_alive()
            time.sleep(0.01)
        writer.kill()
        writer.join()

    run(audit_database, ledger, duration=0.5)

    assert written_down(ledger) == committed(audit_database, ledger)


def test_a_commit_whose_answer_was_lost_is_found_again(audit_database: Any, tmp_path: Path) -> None:
    """The writer dies after Spanner has committed and before the ledger knows."""
    ledger = tmp_path / "ledger.jsonl"
    run(audit_database, ledger, duration=0.3)
    before = written_down(ledger)

    class DiedError(Exception):
        pass

    def die(self: Ledger, entries: list[Entry]) -> None:
        raise DiedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "append", die)
        with pytest.raises(DiedError):
            run(audit_database, ledger)
    assert written_down(ledger) == before
    run(audit_database, ledger, duration=0.3)

    assert written_down(ledger) == committed(audit_database, ledger)


def test_a_frozen_emulator_is_waited_for_and_no_commit_is_counted_twice(
    audit_database: Any, spanner_process: Any, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    thaw = threading.Timer(7, os.kill, (spanner_process.popen.pid, signal.SIGCONT))
    freeze = threading.Timer(0.5, os.kill, (spanner_process.popen.pid, signal.SIGSTOP))
    try:
        freeze.start()
        thaw.start()
        summary = run(audit_database, ledger, duration=9)
    finally:
        thaw.join()
        os.kill(spanner_process.popen.pid, signal.SIGCONT)

    assert summary.repeated > 0
    assert not summary.unanswered
    assert written_down(ledger) == committed(audit_database, ledger)


def test_rows_that_the_ledger_does_not_know_of_are_refused_with_the_way_out(
    audit_database: Any, tmp_path: Path
) -> None:
    run(audit_database, tmp_path / "one.jsonl", duration=0.3)

    with pytest.raises(CommitError, match=r"another --seed"):
        run(audit_database, tmp_path / "two.jsonl", duration=0.3)


def test_one_ledger_has_one_writer(audit_database: Any, tmp_path: Path) -> None:
    stop = threading.Event()
    ledger = tmp_path / "ledger.jsonl"
    first = threading.Thread(target=run, args=(audit_database, ledger), kwargs={"duration": None, "stop": stop})
    first.start()
    try:
        while not ledger.exists():
            time.sleep(0.01)
        with pytest.raises(CommitError, match="runs already"):
            run(audit_database, ledger)
    finally:
        stop.set()
        first.join()


def test_no_card_number_is_left_in_what_masking_makes_of_the_stream(audit_database: Any, tmp_path: Path) -> None:
    ledger, stop = tmp_path / "ledger.jsonl", threading.Event()
    seed, wanted = 5, 600  # within these operations the seed has card numbers in every place that the simulator knows

    def enough(so_far: TrafficSummary) -> None:
        if so_far.operations >= wanted:
            stop.set()

    summary = run(audit_database, ledger, seed=seed, tps=10_000, duration=None, stop=stop, on_progress=enough)
    masker = Masker(MaskingKeys({"v1": bytes(32)}), WATCHED)
    dead, texts = set(), []
    for record in records(audit_database, ledger):
        for index in range(len(record.mods)):
            change = decode(record, index)
            try:
                masker.mask(change)
                texts.append(json.dumps(change.to_dict(), ensure_ascii=False))
            except StepError as error:
                dead.add((change.table, orjson.loads(record.mods[index].keys)["PUID"], change.commit_timestamp))
                texts.append(str(error))

    expected = {(e.table, e.puid, e.commit_timestamp) for e in read_ledger(ledger) if e.dead_letter}
    assert dead == expected
    assert expected
    everything = "\n".join(texts)
    spelled = {spelling for card in cards_made(seed, summary.operations) for spelling in spellings(card)}
    assert not [card for card in spelled if card in everything]
    # The same search finds them where they are not masked.
    raw = "\n".join(mod.new_values for record in records(audit_database, ledger) for mod in record.mods)
    assert [card for card in spelled if card in raw]


def connection_file(place: Any, folder: Path, **more: str) -> None:
    outputs = {
        "project": place.project,
        "location": "US",
        "bigQueryEndpoint": "",
        "spannerEndpoint": place.endpoint,
        "spannerInstance": place.instance,
        "spannerDatabase": place.name,
        "metadataDatabase": place.metadata,
        "maskingKeys": "file:keys.json",
        "watchedTables": WATCHED.to_json(),
        "deadLetterDirectory": "dead-letters",
        "jobName": "audit-stream-job",
    }
    (folder / "connection.json").write_text(json.dumps(outputs | more))


def audit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("audit")), "local", "traffic", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_makes_traffic_in_the_stack_of_its_state_folder(audit_database: Any, tmp_path: Path) -> None:
    connection_file(audit_database, tmp_path)

    done = audit(f"--state={tmp_path}", "--tps=50", "--duration=2", "--seed=4")

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["changes"] == len(list(read_ledger(tmp_path / "ledger.jsonl"))) > 0
    assert "commits" in done.stdout.splitlines()[0]


def test_the_command_refuses_a_stack_in_the_cloud(audit_database: Any, tmp_path: Path) -> None:
    connection_file(audit_database, tmp_path, spannerEndpoint="")
    done = audit(f"--state={tmp_path}")
    assert done.returncode == 1
    assert "traffic goes to an emulator only" in done.stderr


def test_the_command_says_how_to_get_a_stack_where_there_is_none(tmp_path: Path) -> None:
    done = audit(f"--state={tmp_path}")
    assert done.returncode == 1
    assert "make run" in done.stderr
