"""The check over real emulators: it passes what is right, and names each thing that is not."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from contract import payments, schema, tables, timestamps
from contract.changes import Change, Column, DeadLetter, ModType, Reason
from contract.watched import WatchedTable
from local.check.command import CheckReport, _changelog, check, run_check
from local.machine.state import State
from local.traffic.ledger import Entry, Ledger
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.transforms.enrich import enrich
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker
from support.connection import load
from tests.emulators.changelog import Changelog
from tests.shipped import AUDIT_LOG_TABLE, PAYMENT_TABLE, WATCHED

CARD = "4111111111111111"
KEY = bytes(32)
CHANGELOG = "payment_audit_trail_bq"


AUDIT_LOG = {"PUID": "p1", "Action": "x", "Timestamp": "2026-11-23T09:12:54Z", "Status": "OK"}


class Stack:
    """Spanner, BigQuery, ledger and dead letters of one test, and a pipeline that carries a change on request."""

    def __init__(self, state: State, database: Any, changelog: Changelog, endpoints: dict[str, str]) -> None:
        self.state, self.database, self.changelog = state, database, changelog
        state.root.mkdir(exist_ok=True)
        keys = state.root / "masking-keys.json"
        keys.write_text(json.dumps({"v1": base64.b64encode(KEY).decode()}))
        texts = {
            "project": changelog.project, "location": "", "maskingKeys": f"file:{keys}", "jobName": "",
            "deadLetterDirectory": str(state.dead_letters), "metadataDatabase": "",
            "watchedTables": WATCHED.to_json(),
        }  # fmt: skip
        state.connection.write_text(json.dumps(texts | endpoints))
        self.queue = DeadLetterQueue(str(state.dead_letters))
        self.masker = Masker(MaskingKeys({"v1": KEY}), WATCHED)

    def commit(self, table: str, mod_type: ModType, new: dict[str, Any], **ledger: Any) -> Change:
        """Writes to Spanner and to the ledger, and gives the change as the stream would."""
        from google.cloud.spanner import COMMIT_TIMESTAMP, KeySet

        with self.database.batch() as batch:
            if mod_type == "DELETE":
                batch.delete(table, KeySet(keys=[[new["PUID"]]]))
            else:
                written = new | ({"UpdatedAt": COMMIT_TIMESTAMP} if table == PAYMENT_TABLE else {})
                batch.insert_or_update(table, list(written), [list(written.values())])
        committed = timestamps.from_datetime(batch.committed)
        entry = Entry(
            seed=1, operation=1, table=table, puid=new["PUID"], mod_type=mod_type, commit_timestamp=committed,
            status=None if mod_type == "DELETE" else new.get("Status"), **ledger,
        )  # fmt: skip
        with Ledger(self.state.ledger) as book:
            book.append([entry])
        columns = tuple(Column(c.name, c.type, c.name == "PUID") for c in schema.tables()[table].columns)
        values = {name: value for name, value in new.items() if name != "PUID"}
        gone = mod_type == "DELETE"
        return Change(
            "S", table, mod_type, committed, "tx", "00000000", 0, True, 1, 1, columns, {"PUID": new["PUID"]},
            {} if gone else values, values if gone else {},
        )  # fmt: skip

    def carry(self, change: Change) -> dict[str, Any]:
        """What the pipeline does with a change."""
        self.masker.mask(change)
        enrich(change, WATCHED.of(change.table), payments.PAYMENT_STATES)
        moment = timestamps.to_datetime(change.commit_timestamp)
        row = {
            **change.keys, **change.new, **change.enriched,
            tables.MOD_TYPE: change.mod_type,
            tables.TABLE_NAME: change.table,
            tables.COMMIT_TIMESTAMP: moment.isoformat(),
            tables.COMMIT_TIMESTAMP_NANOS: str(timestamps.to_nanos(change.commit_timestamp)),
            tables.CHANGE_ID: change.change_id,
            tables.OLD_VALUES: json.dumps(change.old) if change.old else None,
            tables.CARD_TOKENS: change.card_tokens,
            tables.BIG_QUERY_COMMIT_TIMESTAMP: (moment + timedelta(milliseconds=250)).isoformat(),
        }  # fmt: skip
        (self.changelog.payments if change.table == PAYMENT_TABLE else self.changelog.audit_logs)(row)
        return row

    def check(self, **options: Any) -> CheckReport:
        return run_check(load(self.state.connection), self.state.ledger, self.state.arrivals, **options)

    def sql(self, statement: str) -> None:
        self.changelog.query(statement)


def payment(puid: str, status: str, **fields: Any) -> dict[str, Any]:
    return {
        "PUID": puid, "Status": status, "Action": "CREATE", "Timestamp": "2026-11-23T09:12:54.123456789Z",
        "CustomerId": "C1", "Amount": "10.50", "CardNumber": CARD, "CardholderName": "A. Person",
        "Metadata": json.dumps({"note": f"card {CARD}", "n": 1.5}), "RetryCount": "1", **fields,
    }  # fmt: skip


@pytest.fixture
def stack(tmp_path: Path, audit_database: Any, changelog: Changelog, bigquery_emulator: Any) -> Stack:
    """Two payments (one updated, one deleted) and an audit log, all of it arrived."""
    made = Stack(
        State(tmp_path / "state"),
        audit_database.database,
        changelog,
        {
            "bigQueryEndpoint": bigquery_emulator.rest, "spannerEndpoint": audit_database.endpoint,
            "spannerInstance": audit_database.instance, "spannerDatabase": audit_database.name,
        },
    )  # fmt: skip
    commits: tuple[tuple[str, ModType, dict[str, Any]], ...] = (
        (PAYMENT_TABLE, "INSERT", payment("p1", "INITIATED")),
        (PAYMENT_TABLE, "UPDATE", payment("p1", "CAPTURED", ErrorDetails=None, UserId="u")),
        (PAYMENT_TABLE, "INSERT", payment("p2", "INITIATED")),
        (PAYMENT_TABLE, "DELETE", payment("p2", "INITIATED")),
        (AUDIT_LOG_TABLE, "INSERT", AUDIT_LOG),
    )
    for table, mod_type, row in commits:
        made.carry(made.commit(table, mod_type, row))
    return made


def test_all_that_arrived_once_masked_and_right_is_fine(stack: Stack) -> None:
    report = stack.check()
    assert report.findings == ()
    assert (report.committed, report.arrivals.arrived, report.arrivals.dead) == (5, 5, 0)
    assert report.states == 3
    assert report.latency and (report.latency.p50, report.latency.max, report.latency.measured) == (250, 250, 0)
    assert "The time of the last change is not compared" in report.notes[0]


BREAKS: list[tuple[str, str, str]] = [
    ("missing", f"DELETE FROM {CHANGELOG} WHERE Status = 'INITIATED' AND PUID = 'p1'", "p1 is missing"),
    ("doubled", f"INSERT INTO {CHANGELOG} SELECT * FROM {CHANGELOG} WHERE Status = 'CAPTURED'", "p1 is there 2 times"),
    ("extra", f"UPDATE {CHANGELOG} SET PUID = 'p3' WHERE Status = 'CAPTURED'", "p3 is not in the ledger"),
    ("wrong type", f"UPDATE {CHANGELOG} SET _metadata_spanner_mod_type = 'INSERT' WHERE Status = 'CAPTURED'",
     "p1 is an INSERT, not an UPDATE"),
    ("wrong status", f"UPDATE {CHANGELOG} SET Status = 'FAILED' WHERE Status = 'CAPTURED'", "p1 has another Status"),
    ("text", f"UPDATE {CHANGELOG} SET ErrorDetails = 'PAN 4111-1111-1111-1111' WHERE Status = 'INITIATED'",
     "p1 holds a card number"),
    ("number in JSON",
     f"UPDATE {CHANGELOG} SET Metadata = PARSE_JSON('{{\"a\": [{CARD}]}}') WHERE Status = 'INITIATED'",
     "p1 holds a card number"),
    ("JSON name in old values", f"UPDATE {CHANGELOG} SET _metadata_spanner_old_values = "
     f"PARSE_JSON(r'{{\"Metadata\": \"{{\\\"{CARD}\\\": 1}}\"}}') WHERE Status = 'INITIATED'",
     "p1 holds a card number"),
    ("number", f"UPDATE {CHANGELOG} SET RetryCount = {CARD} WHERE Status = 'INITIATED'", "p1 holds a card number"),
    ("state", f"UPDATE {CHANGELOG} SET Amount = 11 WHERE Status = 'CAPTURED'", "p1 differs from Spanner in Amount"),
    ("token", f"UPDATE {CHANGELOG} SET CardNumber_token = NULL WHERE Status = 'CAPTURED'",
     "p1 differs from Spanner in CardNumber_token"),
    ("enrichment", f"UPDATE {CHANGELOG} SET payment_state = 'failed' WHERE Status = 'CAPTURED'",
     "p1 differs from Spanner in payment_state"),
    ("delete", f"DELETE FROM {CHANGELOG} WHERE _metadata_spanner_mod_type = 'DELETE'", "p2 is not in Spanner"),
    ("merged state", f"INSERT INTO payment_state SELECT * REPLACE ('9999' AS _metadata_change_id, 1 AS Amount) "
     f"FROM {CHANGELOG} WHERE Status = 'CAPTURED'", "p1 payment_current does not show its newest change"),
]  # fmt: skip


def test_what_is_not_right_is_found_and_named(stack: Stack) -> None:
    stack.sql(f"CREATE OR REPLACE TABLE as_it_was AS SELECT * FROM {CHANGELOG}")
    for case, statement, expected in BREAKS:
        stack.sql(statement)
        report = stack.check()
        named = [f"{finding.puid} {finding.what}" for finding in report.findings]
        assert any(name.startswith(expected) for name in named), (case, named)
        assert not report.ok
        for table in (CHANGELOG, "payment_state"):
            stack.sql(f"DELETE FROM {table} WHERE TRUE")
        stack.sql(f"INSERT INTO {CHANGELOG} SELECT * FROM as_it_was")
    assert stack.check().ok


def test_a_change_that_must_not_arrive_needs_its_dead_letter(stack: Stack) -> None:
    change = stack.commit(PAYMENT_TABLE, "INSERT", payment("p4", "PENDING", CustomerId=CARD), dead_letter=True)
    assert [finding.what for finding in stack.check().findings] == ["has no dead letter"]
    letter = DeadLetter(
        coordinates=change.coordinates, step="Mask", reason=Reason.CARD_IN_KEY, message="m", attempts=1,
        first_failed_at="", last_failed_at="",
    )  # fmt: skip
    stack.queue.put([letter])
    report = stack.check()
    assert report.ok and report.arrivals.dead == 1
    stack.queue.park([letter])
    assert stack.check().ok
    change.new["CustomerId"] = "C1"
    stack.carry(change)
    assert "must be a dead letter, and is a row" in {finding.what for finding in stack.check().findings}


def test_a_dead_letter_that_was_not_expected_is_a_missing_change(stack: Stack) -> None:
    change = stack.commit(AUDIT_LOG_TABLE, "INSERT", AUDIT_LOG | {"PUID": "p5"})
    stack.queue.put(
        [
            DeadLetter(
                coordinates=change.coordinates, step="s", reason="r", message="m", attempts=1, first_failed_at="",
                last_failed_at="",
            )
        ]
    )  # fmt: skip
    [finding] = stack.check().arrivals.missing
    assert (finding.puid, finding.what) == ("p5", "is a dead letter")


def test_it_waits_for_changes_that_are_on_their_way(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    change = stack.commit(PAYMENT_TABLE, "INSERT", payment("p6", "PENDING"))
    assert not stack.check().ok
    pauses = []

    def arrives_meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            stack.carry(change)

    monkeypatch.setattr("local.check.command.time.sleep", arrives_meanwhile)
    assert stack.check(wait=60).ok
    assert len(pauses) == 1


def test_a_payment_that_is_deleted_during_the_check_is_no_finding(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleted_meanwhile(warehouse: Any, table: WatchedTable) -> Any:
        rows = _changelog(warehouse, table)
        if table.name == PAYMENT_TABLE:
            stack.carry(stack.commit(PAYMENT_TABLE, "DELETE", payment("p1", "CAPTURED")))
        return rows

    monkeypatch.setattr("local.check.command._changelog", deleted_meanwhile)
    assert stack.check().findings == ()


def test_latency_ends_when_the_append_could_be_queried(stack: Stack) -> None:
    change = stack.commit(PAYMENT_TABLE, "INSERT", payment("p7", "PENDING"))
    row = stack.carry(change)
    queryable = datetime.fromisoformat(row[tables.COMMIT_TIMESTAMP]) + timedelta(seconds=2)
    line = {"table": f"payment_audit.{CHANGELOG}", "rows": 1, "queryable_at": queryable.isoformat()}
    stack.state.arrivals.write_text(json.dumps(line | {"stamp": row[tables.BIG_QUERY_COMMIT_TIMESTAMP]}) + '\n{"half')
    wait = stack.check().latency
    assert wait and (wait.max, wait.p50, wait.measured, wait.changes) == (2000, 250, 1, 6)


def test_the_command_says_it_in_a_line_and_by_its_exit_code(stack: Stack) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(check, [f"--state={stack.state.root}", *arguments])
        return result.exit_code, result.output

    code, text = run()
    assert code == 0
    assert text.startswith(
        "5 changes committed, 5 arrived, 0 missing, 0 doubled, 0 unmasked, 0 of 3 states wrong · p50 "
    )
    stack.sql(f"DELETE FROM {CHANGELOG} WHERE Status = 'CAPTURED'")
    code, text = run()
    assert code == 1
    assert "1 missing" in text and "payment_audit_trail p1 " in text and CARD not in text
    code, text = run("--json")
    assert code == 1 and json.loads(text)["findings"][0]["puid"] == "p1"


def test_without_a_ledger_there_is_nothing_to_check(stack: Stack) -> None:
    stack.state.ledger.unlink()
    result = CliRunner().invoke(check, [f"--state={stack.state.root}"])
    assert result.exit_code == 1
    assert "audit local traffic" in result.output
