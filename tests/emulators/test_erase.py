"""Erasure on real emulators: nothing of a customer is left anywhere, whatever is run afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from contract import tables
from contract.changes import DeadLetter, Reason
from pipeline.sink.dead_letters import DeadLetterQueue
from support import backfill, replay
from support.backup.create import create
from support.backup.places import places
from support.backup.restore import restore
from support.backup.store import Backups
from support.cli.main import main
from support.connection import Connection
from support.console.access_log import Access, write
from support.console.identity import Viewer
from support.erasure import work
from support.erasure.store import Erasure, ErasureError, Erasures, ErasureWaits
from support.erasure.work import Erasing
from support.search import Search, search
from support.validation.state import States
from support.warehouse import Warehouse
from tests.conftest import AuditDatabase
from tests.emulators.audited import JOB, Audited
from tests.emulators.changelog import CARD, Changelog
from tests.shipped import AUDIT_LOG_TABLE, PAYMENT_TABLE, WATCHED
from tests.strict.google_apis import CloudRun, serving

CUSTOMER, OTHER, NAME = "customer-4711", "customer-0815", "Jo Doe"
# Others begin with the customer's id, end with it, or are somebody else's.
ACCESSES = (
    ({"customer": CUSTOMER}, ""),
    ({"puid": CUSTOMER}, ""),
    ({"replay": "R"}, f"{CUSTOMER} is on the phone"),
    ({"customer": OTHER}, ""),
    ({"customer": f"{OTHER}-{CUSTOMER}X"}, f"about {CUSTOMER}0"),
)


@pytest.fixture
def audited(both_stores: Connection, changelog: Changelog, audit_database: AuditDatabase) -> Audited:
    Path(both_stores.dead_letter_directory).mkdir()
    return Audited(replace(both_stores, job_name=JOB, new_columns="scan"), audit_database, changelog)


def of(customer: str, **more: Any) -> dict[str, Any]:
    about = json.dumps({"customerId": customer, "name": NAME if customer == CUSTOMER else "else"})
    return {"CustomerId": customer, "UserId": f"user of {customer}", "Metadata": about, **more}


def filled(audited: Audited) -> None:
    """Two payments of the customer and one of another, with their events, in every store."""
    audited.carry()
    for puid, customer in (("mine", CUSTOMER), ("mine-too", CUSTOMER), ("theirs", OTHER)):
        audited.payment(puid, "INITIATED", **of(customer))
        audited.payment(puid, "CAPTURED", **of(customer, CardholderName=NAME if customer == CUSTOMER else "else"))
        audited.audit_log(puid, Metadata=json.dumps({"note": NAME if customer == CUSTOMER else "else"}))
    audited.payment("mine-too", "REFUNDED", **of(CUSTOMER, UserId="another user"))
    audited.delete("mine-too")
    audited.carry()
    audited.changelog.merge()
    audited.changelog.fill()
    viewer = Viewer(email="agent@example.com", role="viewer")
    for subject, reason in ACCESSES:
        write(Warehouse(audited.connection), Access(viewer=viewer, action="search", subject=subject, reason=reason))


def passed(audited: Audited) -> None:
    """The job has come past everything that an erasure waits for."""
    audited.position(datetime.now(UTC) + timedelta(hours=1))


def erased(audited: Audited, erasure_id: str = "DSR-1") -> Erasure:
    work.submit(audited.connection, CUSTOMER, requested_by="lead", reason="request DSR-1", erasure_id=erasure_id)
    passed(audited)
    done = Erasing(audited.connection).run(erasure_id)
    audited.position(datetime.now(UTC))
    return done


def everything(audited: Audited) -> dict[str, str]:
    """All that BigQuery has, by table, as text."""
    found = {}
    for table in tables.all_tables(WATCHED):
        rows = audited.sql(f"SELECT TO_JSON_STRING(t) AS text FROM `{audited.changelog.project}.{table.id}` AS t")
        found[table.id] = "\n".join(row["text"] for row in rows)
    return found


def traces(audited: Audited) -> list[str]:
    """Where something of the customer is left."""
    token = replay_keys(audited).token("CardholderName", NAME.casefold())
    sought = (CUSTOMER, NAME, token, "another user", "user of customer-4711")
    texts = everything(audited) | {
        path.name: path.read_text() for path in Path(audited.connection.dead_letter_directory).rglob("*.jsonl")
    }
    with audited.database.metadata_database.snapshot(multi_use=True) as snapshot:
        for table in ("replays", "erasures", "erased", "validations"):
            texts[table] = repr(list(snapshot.execute_sql(f"SELECT * FROM {table}")))
    # Others' ids that hold the customer's.
    kept = (f"{OTHER}-{CUSTOMER}X", f"about {CUSTOMER}0")
    for where in texts:
        for other in kept:
            texts[where] = texts[where].replace(other, "")
    return [f"{where}: {each}" for where, text in texts.items() for each in sought if each in text]


def replay_keys(audited: Audited) -> Any:
    from pipeline.transforms.keys import MaskingKeys

    return MaskingKeys.load(audited.connection.masking_keys)


def test_nothing_of_a_customer_is_left_and_nothing_of_others_is_touched(audited: Audited) -> None:
    filled(audited)
    before = everything(audited)
    assert len(traces(audited)) > 8
    done = erased(audited)
    assert traces(audited) == []
    assert done.state == "finished" and done.customer is None
    payments, state = WATCHED.payments.id, f"{WATCHED.payments.dataset}.payment_state"
    assert done.report["payments"] == 2
    with audited.database.metadata_database.snapshot() as snapshot:
        assert list(snapshot.execute_sql("SELECT * FROM erasure_payments")) == []
    assert done.report["rows"] == {WATCHED.of(AUDIT_LOG_TABLE).id: 2, payments: 6, state: 2}
    assert done.report["lookup"] >= 4 and done.report["access_log"] == 3
    table = f"{audited.changelog.project}.{tables.access_log(WATCHED).id}"
    log = audited.sql(f"SELECT TO_JSON_STRING(subject) AS subject, reason FROM `{table}`")
    erased_subject, others = {"erased": True}, [(dict(s), r or None) for s, r in ACCESSES[3:]]
    left = sorted(((json.loads(r["subject"]), r["reason"]) for r in log), key=str)
    assert left == sorted([(erased_subject, None)] * 2 + [({"replay": "R"}, None), *others], key=str)
    assert set(done.report["held"]) == {"time travel", "fail-safe"}
    after = everything(audited)
    for table in (payments, state, WATCHED.of(AUDIT_LOG_TABLE).id):
        mine, theirs = "mine", '"theirs"'
        kept = [line for line in before[table].splitlines() if theirs in line]
        assert kept and kept == [line for line in after[table].splitlines() if theirs in line]
        # The payments' own story stays.
        assert len(after[table].splitlines()) == len(before[table].splitlines()) and mine in after[table]
    assert OTHER in after[tables.access_log(WATCHED).id]
    found = search(Warehouse(audited.connection), Search(puid="mine")).payments
    assert [(each.puid, each.status, each.customer_id) for each in found] == [("mine", "CAPTURED", None)]


def test_nothing_brings_it_back(audited: Audited) -> None:
    filled(audited)
    erased(audited)
    # Replay, backfill, more changes, a new payment, its events, a merge and a fill, validation with repair.
    audited.payment("mine", "SETTLED", **of(CUSTOMER, CardholderName=NAME))
    audited.payment("new", "CAPTURED", **of(CUSTOMER))
    audited.audit_log("mine", Metadata=json.dumps({"note": NAME}))
    audited.carry()
    chosen = replay.Selection(payments=("mine", "theirs"))
    replay.submit(audited.connection, chosen, requested_by="x", reason="a test of it", replay_id="R-1")
    assert replay.run(audited.connection, "R-1").replayed == 2
    audited.sql(f"DELETE FROM {audited.table()} WHERE PUID = 'new'")
    older, _ = backfill.start(audited.connection, (), requested_by="x", reason="a test of it")
    passed(audited)
    assert replay.run(audited.connection, older.id).replayed == 1
    audited.position(datetime.now(UTC))
    audited.sql(f"DELETE FROM {audited.table()} WHERE PUID IN ('mine', 'theirs') AND Status = 'CAPTURED'")
    audited.carry()
    audited.validate(repair=True, everything=True)
    audited.retry()
    audited.changelog.merge()
    audited.changelog.fill()
    assert traces(audited) == []
    assert audited.validate(everything=True).open == []
    rows = audited.sql(f"SELECT Status FROM {audited.table()} WHERE PUID IN ('mine', 'new') AND CustomerId IS NULL")
    assert {row["Status"] for row in rows} >= {"SETTLED", "CAPTURED"}


def test_validation_finds_both_sides_alike(audited: Audited) -> None:
    filled(audited)
    erased(audited)
    audited.position(datetime.now(UTC))
    report = audited.validate(since=audited.began, everything=True)
    assert [(f.table, f.key, f.kind, f.columns) for f in report.findings] == []


class _Killed(Exception):
    pass


def test_one_that_is_killed_after_each_statement_is_run_again_to_its_end(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(audited)
    audited.payment("not-in-lookup-yet", "CAPTURED", **of(CUSTOMER))
    audited.audit_log("not-in-lookup-yet", Metadata=json.dumps({"note": NAME}))
    audited.audit_log("mine", Metadata=json.dumps({"note": f"{NAME} once more"}))
    audited.carry(but=("mine",))
    # A dead letter that names the payment alone.
    [late] = [c for c in audited_source(audited, AUDIT_LOG_TABLE) if "once more" in str(c.new)]
    parked(audited, late, "mine")
    answer, killed = Warehouse.answer, 0

    def killing(self: Warehouse, sql: str, *rest: Any, **more: Any) -> Any:
        nonlocal killed
        answered = answer(self, sql, *rest, **more)
        if sql.startswith(("UPDATE", "DELETE")):
            killed += 1
            raise _Killed
        return answered

    with monkeypatch.context() as patched:
        patched.setattr(Warehouse, "answer", killing)
        for _ in range(20):
            with suppress(_Killed):
                done = erased(audited)
                break
            assert Erasures(audited.connection).one("DSR-1").state == "running"
    # Events, payments, state, lookup table, access log.
    assert killed == 6 and done.state == "finished"
    assert traces(audited) == []
    # Nothing but the record of the first run names them to the last one.
    assert done.report["payments"] == 3


def test_a_dead_letter_keeps_only_where_to_read_its_change(audited: Audited) -> None:
    filled(audited)
    queue = DeadLetterQueue(audited.connection.dead_letter_directory)
    audited.payment("late", "CAPTURED", **of(CUSTOMER))
    audited.carry(but=("late",))
    [change] = [c for c in audited_source(audited) if c.keys["PUID"] == "late"]
    parked(audited, change, "late")
    assert any(each.endswith(CUSTOMER) for each in traces(audited))
    done = erased(audited)
    assert done.report["dead_letters"] == 1
    [letter] = queue.letters()
    assert letter.change is None and letter.payment == "late"
    assert traces(audited) == []
    audited.position(datetime.now(UTC))
    audited.retry()
    assert not list(queue.letters()) and traces(audited) == []
    assert audited.sql(f"SELECT Status FROM {audited.table()} WHERE PUID = 'late'") == [{"Status": "CAPTURED"}]


def audited_source(audited: Audited, table: str = PAYMENT_TABLE) -> list[Any]:
    from support.validation.source import Source

    until = datetime.now(UTC).replace(microsecond=0)
    return list(Source(audited.connection).changes(WATCHED.of(table).change_stream, audited.began, until))


def parked(audited: Audited, change: Any, payment: str) -> None:
    """A dead letter with the masked change, as a row that BigQuery refused leaves it."""
    from pipeline.transforms.mask import Masker

    Masker(replay_keys(audited), WATCHED, new_columns="scan").mask(change)
    now = "2026-11-29T10:00:00.000000000Z"
    made = DeadLetter(
        coordinates=change.coordinates,
        step="EncodeRows",
        reason=Reason.VALUE,
        message="x",
        attempts=0,
        first_failed_at=now,
        last_failed_at=now,
        change=change.to_dict(),
        payment=payment,
    )
    DeadLetterQueue(audited.connection.dead_letter_directory).put([made])


def test_it_waits_for_the_job_and_for_replays(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(audited)
    monkeypatch.setattr(work, "_PATIENCE_SECONDS", 0.0)
    work.submit(audited.connection, CUSTOMER, requested_by="lead", reason="request DSR-1", erasure_id="DSR-1")
    with pytest.raises(ErasureWaits, match="the job has not come past"):
        Erasing(audited.connection).run("DSR-1")
    chosen = replay.Selection(payments=("mine",))
    replay.submit(audited.connection, chosen, requested_by="x", reason="a test of it", replay_id="R-1")
    replayer = unfinished(audited)
    passed(audited)
    with pytest.raises(ErasureWaits, match="the replay R-1 is not finished"):
        Erasing(audited.connection).run("DSR-1")
    replayer()
    Erasing(audited.connection).run("DSR-1")
    assert traces(audited) == []


def unfinished(audited: Audited) -> Callable[[], Any]:
    """Begins the replay R-1. What is given ends it."""
    from pipeline.replay.work import Replayer

    replayer = Replayer(replay.settings_of(audited.connection))
    replayer.plan("R-1")
    return lambda: replay.run(audited.connection, "R-1")


def test_it_waits_for_a_validation_that_runs(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(audited)
    states, said = States(audited.connection), []
    states.claim("one", datetime.now(UTC))
    work.submit(audited.connection, CUSTOMER, requested_by="lead", reason="request DSR-1", erasure_id="DSR-1")
    passed(audited)

    def progress(text: str) -> None:
        said.append(text)
        if "end of a validation" in text:
            states.release("one", None)

    Erasing(audited.connection, progress).run("DSR-1")
    assert [text for text in said if "validation" in text] == ["Waiting for the end of a validation"]
    assert traces(audited) == []
    states.claim("two", datetime.now(UTC))
    monkeypatch.setattr(work, "_PATIENCE_SECONDS", 0.0)
    audited.payment("more", "CAPTURED", **of(OTHER))
    audited.carry()
    work.submit(audited.connection, OTHER, requested_by="lead", reason="request DSR-2", erasure_id="DSR-2")
    passed(audited)
    with pytest.raises(ErasureWaits, match="one validation of a stack runs at a time"):
        Erasing(audited.connection).run("DSR-2")


def test_no_validation_runs_beside_it(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(audited)
    refused: list[str] = []
    redact = Erasing._redact

    def looked(self: Erasing, *given: Any) -> Any:
        try:
            audited.validate()
        except Exception as error:
            refused.append(str(error))
        return redact(self, *given)

    monkeypatch.setattr(Erasing, "_redact", looked)
    erased(audited)
    assert len(refused) == 1 and "one validation of a stack runs at a time" in refused[0]
    audited.validate()
    assert States(audited.connection).load().mismatches == 0


@pytest.mark.parametrize(
    ("customer", "reason", "erasure_id", "rule"),
    [
        ("", "request DSR-1", None, "must be named by its id"),
        (CUSTOMER, "why", None, "must have 5 to 1,000 characters"),
        (CUSTOMER, f"asked by {CUSTOMER}", None, "must not name the customer"),
        ("1", "asked by 1, of DSR-1", None, "must not name the customer"),
        (CUSTOMER, f"card {CARD}", None, "must hold no card's number"),
        (CARD, "request DSR-1", None, "must hold no card's number"),
        (CUSTOMER, "request DSR-1", "a b", "the id of the erasure must be such as"),
    ],
)
def test_what_cannot_be_erased_is_refused(
    audited: Audited, customer: str, reason: str, erasure_id: str | None, rule: str
) -> None:
    with pytest.raises(ErasureError, match=rule) as refused:
        work.submit(audited.connection, customer, requested_by="x", reason=reason, erasure_id=erasure_id)
    assert CARD not in str(refused.value)
    assert Erasures(audited.connection).every() == []


def test_an_id_is_of_one_customer(audited: Audited) -> None:
    submit = work.submit
    submit(audited.connection, CUSTOMER, requested_by="x", reason="request DSR-1", erasure_id="DSR-1")
    submit(audited.connection, CUSTOMER, requested_by="y", reason="request DSR-1", erasure_id="DSR-1")
    with pytest.raises(ErasureError, match="is of another customer") as refused:
        submit(audited.connection, OTHER, requested_by="x", reason="request DSR-1", erasure_id="DSR-1")
    assert OTHER not in str(refused.value) and CUSTOMER not in str(refused.value)
    assert [each.requested_by for each in Erasures(audited.connection).every()] == ["x"]


def test_a_dry_run_counts_and_changes_nothing(audited: Audited) -> None:
    filled(audited)
    before = everything(audited)
    found = Erasing(audited.connection).find(CUSTOMER)
    assert found.payments == 2 and sum(found.rows.values()) == 10
    assert everything(audited) == before and PAYMENT_TABLE in str(found.rows)


def test_the_commands_start_list_show_and_resume(
    audited: Audited, connection_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(audited)
    known = json.loads(connection_file.read_text()) | {"jobName": JOB, "newColumns": "scan"}
    connection_file.write_text(json.dumps(known))

    def audit(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["--connection", str(connection_file), "erase", *arguments])

    assert audit("list").exit_code == 1
    request = ("start", "--customer", CUSTOMER, "--reason", "request DSR-1", "--id", "DSR-1")
    counted = audit(*request, "--dry-run")
    assert counted.exit_code == 0 and json.loads(counted.stdout)["payments"] == 2
    assert audit("start", "--customer", "nobody", "--reason", "request DSR-1", "--dry-run").exit_code == 1
    monkeypatch.setattr(work, "_PATIENCE_SECONDS", 0.0)
    waits = audit(*request)
    assert waits.exit_code == 1 and "the job has not come past" in waits.output
    left = audit("resume")
    assert left.exit_code == 1 and "1 of the erasures could not be run" in left.output
    passed(audited)
    assert audit("resume").exit_code == 0
    shown = audit("show", "DSR-1")
    assert json.loads(shown.stdout)["report"]["rows"][f"{WATCHED.payments.dataset}.payment_state"] == 2
    [listed] = json.loads(audit("list", "--json").stdout)
    assert listed["state"] == "finished" and listed["report"]["payments"] == 2
    unknown = audit("show", "DSR-2")
    assert unknown.exit_code == 2 and "there is no erasure with this id" in unknown.output
    assert CUSTOMER not in shown.output + waits.output + left.output + json.dumps(listed)


def test_in_the_cloud_it_is_recorded_and_the_job_started(audited: Audited) -> None:
    job = "projects/p/locations/us-central1/jobs/audit-erasure"
    cloud = CloudRun(jobs=frozenset({job}))
    with serving(cloud) as address:
        work.start(replace(audited.connection, erasure_job=job, cloud_run_endpoint=address), "DSR-1")
    assert cloud.started == [(job, [])]
    refused = replace(audited.connection, erasure_job=job, cloud_run_endpoint="http://127.0.0.1:9")
    with pytest.raises(ErasureWaits, match=r"does not answer .* `audit erase resume` starts it"):
        work.start(refused, "DSR-1")


def test_backups_from_before_are_deleted_and_what_is_restored_is_redacted(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited.connection = replace(
        audited.connection, backup_directory=f"{audited.connection.dead_letter_directory}/../b"
    )
    filled(audited)
    before = create(audited.connection, backup_id="nightly7")
    # A backup that could not be deleted.
    with monkeypatch.context() as patched:
        patched.setattr("support.backup.places.delete", lambda *_: [])
        erased(audited)
    done = restore(audited.connection, WATCHED.payments.id, backup_id=before.id)
    assert done.rows == 8 and not done.differences
    text = audited.sql(f"SELECT TO_JSON_STRING(t) AS text FROM `{audited.changelog.project}.{done.into}` AS t")
    left = [row["text"] for row in text if CUSTOMER in row["text"] or NAME in row["text"]]
    assert left == [] and len(text) == 8
    assert any(OTHER in row["text"] for row in text)
    again = erased(audited, "DSR-2")
    assert again.report["backups"] >= 1
    assert [each.id for each in Backups(audited.connection).all() if each.id == "nightly7"] == []
    # What no erasure changed stays where the older backup had put it.
    held = [place.where for place in places(audited.connection) if "nightly7" in place.where]
    assert all(tables.audit_checks(WATCHED).id in where for where in held), held
