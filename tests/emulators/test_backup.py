"""Backups on real emulators: one moment for all tables, checksums by partition, and a drill that notices tampering."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from google.cloud import bigquery

from contract import tables
from support.backup.create import Limits, create
from support.backup.drill import drill
from support.backup.objects import opened
from support.backup.places import EXPORTS, delete, places, prune
from support.backup.records import Backup, BackupError, Drill
from support.backup.restore import restore
from support.backup.store import Backups
from support.cli.main import main
from support.connection import Connection
from tests.emulators.changelog import Changelog, row
from tests.shipped import AUDIT_LOG_DATASET, AUDIT_LOG_TABLE, PAYMENT_TABLE, WATCHED

JOB = "job"
PAYMENTS = tables.changelogs(WATCHED)[PAYMENT_TABLE].id
DAY = timedelta(days=1).total_seconds()


@dataclass
class Stack:
    """A stack with two days of payments."""

    connection: Connection
    changelog: Changelog

    def create(self, **options: Any) -> Backup:
        return create(self.connection, **options)

    def drill(self, **options: Any) -> Drill:
        found = drill(self.connection, **options).drill
        assert found is not None
        return found

    def sql(self, sql: str) -> list[dict[str, Any]]:
        return self.changelog.query(sql)

    def tamper(self, backup: Backup, statement: str, table: str = PAYMENTS) -> None:
        """As who may write the dataset could: a snapshot cannot be changed, but another one can take its name."""
        client, snapshot = self.changelog.client, backup.table(table).snapshot
        other = f"{tables.RESTORED_DATASET}.other"
        restore = bigquery.CopyJobConfig(operation_type="RESTORE")
        client.copy_table(snapshot, other, job_config=restore).result()
        self.sql(statement.format(table=f"`{self.changelog.project}.{other}`"))
        client.delete_table(snapshot)
        client.copy_table(other, snapshot, job_config=bigquery.CopyJobConfig(operation_type="SNAPSHOT")).result()
        client.delete_table(other)

    def left_over(self) -> list[str]:
        return [table.table_id for table in self.changelog.client.list_tables(tables.RESTORED_DATASET)]


@pytest.fixture
def stack(both_stores: Connection, payments: Changelog, tmp_path: Path) -> Iterator[Stack]:
    payments.payments(row("old", "INSERT", -DAY, "CAPTURED", Metadata='{"a": [1, 2.5]}', Amount="1.5"))
    payments.audit_logs(row("log", "INSERT", 1, "CAPTURED", table=AUDIT_LOG_TABLE))
    files = {"backup_directory": str(tmp_path / "backups"), "backup_copy_directory": str(tmp_path / "copies")}
    yield Stack(replace(both_stores, job_name=JOB, **files), payments)
    for dataset in (tables.BACKUPS_DATASET, tables.RESTORED_DATASET):
        for table in payments.client.list_tables(dataset):
            payments.client.delete_table(table)


def test_a_backup_is_of_one_moment_and_says_what_it_holds(stack: Stack) -> None:
    made = stack.create(backup_id="one")
    assert made.good and made.problems == ()
    assert {t.table: t.rows for t in made.tables} == {
        PAYMENTS: 7,
        f"{AUDIT_LOG_DATASET}.audit_logs": 1,
        "payment_access.access_log": 0,
        "payment_audit.audit_checks": 0,
    }
    payments = made.table(PAYMENTS)
    assert [p.rows for p in payments.partitions.values()] == [1, 6] and payments.unchecked == ()
    snapshot = stack.changelog.client.get_table(payments.snapshot)
    assert snapshot.table_type == "SNAPSHOT" and snapshot.expires == made.expires_at
    assert snapshot.snapshot_definition.snapshot_time == made.at
    assert made.expires_at - made.at == timedelta(days=35)


def test_what_is_written_after_the_moment_is_not_in_it_also_when_it_is_continued(stack: Stack) -> None:
    store = Backups(stack.connection)
    now = datetime.now(UTC)
    at = now.replace(microsecond=now.microsecond // 1000 * 1000)
    # Killed before its first snapshot.
    store.begin(Backup(id="killed", at=at, expires_at=at + timedelta(days=1)))
    stack.changelog.payments(row("late", "INSERT", 9, "CAPTURED"))
    made = stack.create(backup_id="killed")
    assert (made.at, made.table(PAYMENTS).rows, made.good) == (at, 7, True)
    # Done: the same again is the same backup.
    stack.sql(f"DELETE FROM {PAYMENTS} WHERE PUID = 'bad'")
    assert stack.create(backup_id="killed") == made == store.get("killed")
    assert stack.create(backup_id="next").table(PAYMENTS).rows == 7


def test_a_drill_passes_and_leaves_nothing_behind(stack: Stack) -> None:
    stack.create()
    done = stack.drill()
    assert done.passed and done.differences == () and done.rows == 8
    assert done.partitions == done.of == 3
    assert stack.left_over() == []
    assert Backups(stack.connection).health().failed is False
    assert Backups(stack.connection).get().drill == done


@pytest.mark.parametrize(
    ("statement", "kind", "rows", "key"),
    [
        ("UPDATE {table} SET Region = 'moon' WHERE PUID = 'bad'", "altered", 6, "altered"),
        ("DELETE FROM {table} WHERE PUID = 'bad'", "rows", 5, "removed"),
        ("INSERT INTO {table} SELECT * FROM {table} WHERE PUID = 'bad'", "rows", 7, "doubled"),
        (
            "INSERT INTO {table} SELECT * REPLACE ('x' AS _metadata_change_id) FROM {table} WHERE PUID = 'bad'",
            "rows",
            7,
            "added",
        ),
    ],
)
def test_a_drill_fails_and_names_the_rows_of_a_snapshot_that_was_tampered_with(
    stack: Stack, statement: str, kind: str, rows: int, key: str
) -> None:
    backup = stack.create()
    assert stack.drill().passed
    stack.tamper(backup, statement)
    failed = stack.drill()
    again, found = failed.differences
    assert again.kind == "made again"
    assert (found.kind, found.table, found.recorded_rows, found.found_rows) == (kind, PAYMENTS, 6, rows)
    [(change,)] = [
        tuple(r.values()) for r in stack.sql(f"SELECT {tables.CHANGE_ID} FROM {PAYMENTS} WHERE PUID = 'bad'")
    ]
    assert found.keys == (f"{'x' if key == 'added' else change} {key}",)
    assert not failed.passed and Backups(stack.connection).health().failed is True
    assert stack.left_over() == []


def test_a_row_that_moves_to_another_value_of_the_same_table_is_noticed(stack: Stack) -> None:
    backup = stack.create()
    stack.tamper(
        backup,
        "UPDATE {table} SET customer_id = CASE customer_id WHEN 'C2' THEN 'C3' ELSE 'C2' END "
        "WHERE customer_id IN ('C2', 'C3')",
    )
    assert [each.kind for each in stack.drill().differences] == ["made again", "altered"]


def test_a_row_without_a_time_is_noticed(stack: Stack) -> None:
    backup = stack.create()
    time = tables.COMMIT_TIMESTAMP
    stack.tamper(backup, f"INSERT INTO {{table}} SELECT * REPLACE (NULL AS {time}) FROM {{table}} WHERE PUID = 'bad'")
    again, found = stack.drill().differences
    assert (again.kind, found.kind, found.recorded_rows, found.found_rows) == ("made again", "rows", 7, 8)


def test_what_the_table_had_and_the_snapshot_lacks_makes_a_bad_backup_and_the_day_gets_another(stack: Stack) -> None:
    made = stack.create()
    stack.tamper(made, "DELETE FROM {table} WHERE PUID = 'bad'")
    store = Backups(stack.connection)
    store.forget(made)
    store.begin(Backup(id=made.id, at=made.at, expires_at=made.expires_at))
    bad = stack.create()
    assert not bad.good and PAYMENTS in bad.problems[0] and bad.id == made.id
    assert store.health().newest_good is None
    again = stack.create()
    assert again.good and again.id == f"{made.id}-1"


def test_a_snapshot_that_is_gone_is_said(stack: Stack) -> None:
    backup = stack.create()
    stack.changelog.client.delete_table(backup.table(PAYMENTS).snapshot)
    [gone] = stack.drill().differences
    assert (gone.kind, gone.table) == ("missing", PAYMENTS)


def test_what_did_not_change_is_not_read_again(stack: Stack) -> None:
    first = stack.create(backup_id="first")
    said: list[str] = []
    second = stack.create(backup_id="second", progress=said.append)
    assert [line for line in said if line.startswith("checksums")] == [
        f"checksums of 0 partitions of {table.table}" for table in first.tables
    ]
    assert [t.partitions for t in second.tables] == [t.partitions for t in first.tables]
    stack.sql(f"UPDATE {PAYMENTS} SET Region = 'moon' WHERE PUID = 'bad'")
    third = stack.create(backup_id="third")
    assert third.table(PAYMENTS).checksum != first.table(PAYMENTS).checksum
    assert stack.drill(backup_id="third").passed and stack.drill(backup_id="second").passed


def test_a_limit_of_bytes_holds_and_the_next_run_continues(stack: Stack) -> None:
    stack = replace(stack, connection=replace(stack.connection, backup_directory=""))
    first = stack.create(backup_id="first").table(PAYMENTS)
    row_bytes = first.row_bytes
    assert row_bytes > 0
    # The newest partition fits, and the one before it does not: it waits for a later run.
    stack.changelog.payments(row("new", "INSERT", 9, "CAPTURED"))
    small = Limits(most_bytes=int(7 * row_bytes * 2) + 1, settles=timedelta(0))
    limited = stack.create(backup_id="second", limits=small)
    payments = limited.table(PAYMENTS)
    assert [p.rows for p in payments.partitions.values()] == [7] and len(payments.unchecked) == 1
    assert limited.good and "wait for their checksum" in limited.notes[0]
    whole = stack.create(backup_id="third").table(PAYMENTS)
    assert [p.rows for p in whole.partitions.values()] == [1, 7] and whole.unchecked == ()
    assert whole.partitions[min(whole.partitions)] == first.partitions[min(first.partitions)]


def test_a_backup_survives_a_column_that_is_added(stack: Stack) -> None:
    stack.create(backup_id="before")
    stack.sql(f"ALTER TABLE {PAYMENTS} ADD COLUMN Channel STRING")
    try:
        made = stack.create(backup_id="after")
        assert stack.drill(backup_id="after").passed and stack.drill(backup_id="before").passed
        assert made.table(PAYMENTS).columns[-1] == "Channel"
    finally:
        stack.sql(f"ALTER TABLE {PAYMENTS} DROP COLUMN Channel")


def exported(stack: Stack, table: str = PAYMENTS) -> set[str]:
    return set(opened(stack.connection.backup_directory).list(f"{EXPORTS}{table}/"))


def test_an_export_has_every_partition_once_and_is_copied_to_the_second_region(stack: Stack) -> None:
    stack.create(backup_id="first")
    assert {name.split("/")[-2] for name in exported(stack)} == {"first"} and len(exported(stack)) == 2
    first = exported(stack)
    made = stack.create(backup_id="second")
    # Nothing changed, so the files are the first one's.
    assert exported(stack) == first and {
        p.export.rpartition("/")[2] for p in made.table(PAYMENTS).partitions.values()
    } == {"first"}
    assert opened(stack.connection.backup_copy_directory).list() == opened(stack.connection.backup_directory).list()
    assert {place.kind for place in places(stack.connection)} == {"snapshot", "export", "copy", "manifest"}


@pytest.mark.parametrize("source", ["snapshot", "export"])
def test_a_restore_brings_every_row_and_its_layout_back(stack: Stack, source: Any) -> None:
    stack.create(backup_id="b")
    done = restore(stack.connection, PAYMENTS, source=source)
    assert (done.rows, done.differences, done.partitions) == (7, [], 2)
    was, made = (stack.changelog.client.get_table(name) for name in (PAYMENTS, done.into))
    assert made.schema == was.schema and made.time_partitioning == was.time_partitioning
    assert f"It is beside {PAYMENTS}" in done.next_steps[0]
    again = stack.sql(f"SELECT * FROM {done.into} ORDER BY {tables.CHANGE_ID}")
    assert again == stack.sql(f"SELECT * FROM {PAYMENTS} ORDER BY {tables.CHANGE_ID}")
    with pytest.raises(BackupError, match="is there already: nothing was written"):
        restore(stack.connection, PAYMENTS, source=source)


def test_a_table_is_replaced_with_a_reason_and_only_by_what_is_as_recorded(stack: Stack) -> None:
    backup = stack.create(backup_id="b")
    stack.sql(f"DELETE FROM {PAYMENTS} WHERE TRUE")
    again: dict[str, Any] = {"into": PAYMENTS, "replace": True}
    with pytest.raises(BackupError, match="or --replace with a --reason"):
        restore(stack.connection, PAYMENTS, into=PAYMENTS)
    with pytest.raises(BackupError, match="needs a --reason"):
        restore(stack.connection, PAYMENTS, **again)
    stack.tamper(backup, "DELETE FROM {table} WHERE PUID = 'bad'")
    with pytest.raises(BackupError, match="is as it was"):
        restore(stack.connection, PAYMENTS, reason="INC-1", **again)
    assert stack.sql(f"SELECT COUNT(*) AS n FROM {PAYMENTS}") == [{"n": 0}]
    done = restore(stack.connection, PAYMENTS, reason="INC-1", source="export", **again)
    assert done.rows == 7 and stack.sql(f"SELECT COUNT(*) AS n FROM {PAYMENTS}") == [{"n": 7}]
    assert any("validate --since" in step for step in done.next_steps)
    assert any("merged_until = NULL" in step for step in done.next_steps)
    [note] = Backups(stack.connection).get().notes
    assert note.endswith("INC-1") and PAYMENTS in note
    assert stack.left_over() == []


def test_a_lost_table_comes_back_from_the_second_region_alone(stack: Stack) -> None:
    stack.create(backup_id="b")
    known = stack.connection
    for name in opened(known.backup_directory).list():
        opened(known.backup_directory).delete([name])
    with pytest.raises(BackupError, match="name the backup"):
        restore(known, PAYMENTS, exports=known.backup_copy_directory)
    # No record, as in another project.
    alone = replace(known, backup_directory="", job_name="another")
    done = restore(alone, PAYMENTS, backup_id="b", exports=known.backup_copy_directory)
    assert (done.rows, done.differences) == (7, [])


def test_an_export_that_was_tampered_with_fails_the_drill(stack: Stack) -> None:
    stack.create(backup_id="a")
    backup = stack.create(backup_id="b")
    payments = backup.table(PAYMENTS)
    newest, oldest = (payments.partitions[name].export for name in (max(payments.partitions), min(payments.partitions)))
    files = opened(stack.connection.backup_directory)
    files.write(f"{newest}/000000000000.avro", files.read(f"{oldest}/000000000000.avro"))
    found = stack.drill().differences
    assert [(each.kind, each.partition) for each in found] == [("export", max(payments.partitions))]
    # The next backup writes it again, though its rows did not change.
    again = stack.create(backup_id="c").table(PAYMENTS).partitions
    assert [each.export.rpartition("/")[2] for _, each in sorted(again.items())] == ["a", "c"]
    assert stack.drill(backup_id="c").passed
    files.delete([f"{newest}/000000000000.avro"])
    assert {(each.kind, each.table) for each in stack.drill(backup_id="b").differences} == {("export", PAYMENTS)}


def test_a_backup_is_deleted_wholly_and_what_another_one_holds_stays(stack: Stack) -> None:
    stack.create(backup_id="first")
    stack.changelog.payments(row("new", "INSERT", 9, "CAPTURED"))
    stack.create(backup_id="second")
    both = exported(stack)
    held = delete(stack.connection, "first")
    assert {place.backup for place in held} == {"first"}
    assert {place.backup for place in places(stack.connection)} == {"second"}
    # The older partition's file is the second's too.
    assert len(both) == 4 and len(exported(stack)) == 2
    assert stack.drill(backup_id="second").passed
    delete(stack.connection, "second")
    for url in (stack.connection.backup_directory, stack.connection.backup_copy_directory):
        assert opened(url).list() == {}
    assert list(stack.changelog.client.list_tables(tables.BACKUPS_DATASET)) == []
    with pytest.raises(BackupError, match="there is no backup second"):
        delete(stack.connection, "second")


def test_what_expired_is_forgotten_with_its_files(stack: Stack) -> None:
    made = stack.create(backup_id="old")
    assert prune(stack.connection, made.expires_at - timedelta(seconds=1)) == 0
    assert prune(stack.connection, made.expires_at) == 8
    assert Backups(stack.connection).all() == [] and opened(stack.connection.backup_directory).list() == {}


def test_an_export_waits_where_the_limit_is_reached(stack: Stack) -> None:
    free = replace(stack.connection, backup_directory="", backup_copy_directory="")
    first = create(free, backup_id="first").table(PAYMENTS)
    limits = Limits(most_bytes=int(6 * first.row_bytes) + 1, settles=timedelta(0))
    second = stack.create(backup_id="second", limits=limits)
    assert [bool(p.export) for p in second.table(PAYMENTS).partitions.values()] == [False, True]
    with pytest.raises(BackupError, match=r"1 partitions of .* are not exported yet"):
        restore(stack.connection, PAYMENTS, source="export")
    assert all(p.export for p in stack.create(backup_id="third").table(PAYMENTS).partitions.values())


def test_the_commands_make_list_and_try_a_backup(stack: Stack, connection_file: Path) -> None:
    known = json.loads(connection_file.read_text()) | {"jobName": JOB}
    connection_file.write_text(json.dumps(known))

    def audit(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["--connection", str(connection_file), "backup", *arguments])

    nothing = audit("list")
    assert nothing.exit_code == 1 and "no good backup" in nothing.stderr
    assert audit("drill").exit_code == 1
    assert audit("create", "--id", "a b").exit_code == 1
    made = audit("create")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["rows"] == 8
    tried = audit("drill")
    assert tried.exit_code == 0, tried.output
    assert json.loads(tried.stdout)["passed"] is True
    [listed] = json.loads(audit("list").stdout)["backups"]
    assert (listed["state"], listed["rows"], listed["drill_passed"]) == ("good", 8, True)
    assert audit("list", "--csv").stdout.splitlines()[0].startswith("id,at,age_seconds,expires_at,state")
    stack.tamper(Backups(stack.connection).get(), "DELETE FROM {table} WHERE TRUE")
    failed = audit("drill")
    assert failed.exit_code == 1 and json.loads(failed.stdout)["passed"] is False
