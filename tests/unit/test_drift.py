"""What a database has against what it must have, by its DDL alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract import attached, schema
from contract.drift import drift
from contract.watched import WatchedError, WatchedTables

BANK = Path(__file__).parents[1] / "examples" / "bank" / "tables.toml"
WATCHED = WatchedTables.load(BANK)
SHIPPED = schema.statements(contexts=frozenset({"cloud"}))
_STREAM = "CREATE CHANGE STREAM ledger_changes FOR ledger, ledger_steps OPTIONS ({})"
_CAPTURED = "value_capture_type = 'NEW_ROW_AND_OLD_VALUES'"


def found(*more: str) -> dict[str, str]:
    """Statement → state, of the bank's database with more statements."""
    there = schema.read([*schema.statements(WATCHED.source_changelog), *more])
    return {each.need.statement: each.state for each in attached.compare(WATCHED, there, roles=True)[0]}


def stream_of(*more: str) -> tuple[str, list[str]]:
    there = schema.read([*schema.statements(WATCHED.source_changelog), *more])
    first = attached.compare(WATCHED, there, roles=True)[0][0]
    return first.state, [each.detail for each in first.short]


def test_what_owners_run_is_all_that_is_needed() -> None:
    needs = [need.statement for need in attached.needs(WATCHED, roles=True)]
    assert set(found().values()) == {"missing"}
    assert set(found(*needs).values()) == {"there"}
    for number in range(len(needs)):
        left = found(*needs[:number], *needs[number + 1 :])
        assert left[needs[number]] == "missing"


@pytest.mark.parametrize(
    ("options", "tables", "detail"),
    [
        (_CAPTURED, "ledger", "does not watch ledger_steps"),
        (f"{_CAPTURED}, exclude_delete = true", "ledger, ledger_steps", "exclude_delete"),
        (f"{_CAPTURED}, partition_mode = 'A_MODE_OF_TOMORROW'", "ledger, ledger_steps", "partition_mode"),
    ],
)
def test_a_stream_of_theirs_that_would_lose_changes_is_different(options: str, tables: str, detail: str) -> None:
    state, details = stream_of(f"CREATE CHANGE STREAM ledger_changes FOR {tables} OPTIONS ({options})")
    assert state == "different"
    assert detail in " ".join(details)


@pytest.mark.parametrize("mode", ["", ", partition_mode = 'MUTABLE_KEY_RANGE'"])
@pytest.mark.parametrize("tables", ["ledger, ledger_steps", "ledger, ledger_steps, branches", "ALL"])
def test_a_stream_of_theirs_that_has_it_all_is_used_as_it_is(tables: str, mode: str) -> None:
    more = f"CREATE CHANGE STREAM ledger_changes FOR {tables} OPTIONS (retention_period = '3d', {_CAPTURED}{mode})"
    assert stream_of(more) == ("there", [])


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ("value_capture_type = 'NEW_ROW'", False),
        ("value_capture_type = 'NEW_VALUES'", True),
        ("retention_period = '7d'", True),
    ],
)
def test_a_stream_of_theirs_that_captures_less_is_used_and_the_job_s_role_reads_what_it_leaves_out(
    options: str, read: bool
) -> None:
    stream = f"CREATE CHANGE STREAM ledger_changes FOR ledger, ledger_steps OPTIONS ({options})"
    grant = "GRANT SELECT ON TABLE `ledger`, `ledger_steps` TO ROLE audit_reader"
    assert stream_of(stream) == ("there", [])
    assert found(stream).get(grant) == ("missing" if read else None)
    assert grant not in found()
    if read:
        assert found(stream, "CREATE ROLE audit_reader", grant)[grant] == "there"


def test_a_wider_privilege_covers_a_narrow_one() -> None:
    role, narrow = "GRANT SELECT ON TABLE ledger TO ROLE audit_probe", "GRANT SELECT (`ledger_no`, `stage`, `touched`)"
    [state] = [state for statement, state in found(role).items() if statement.startswith(narrow)]
    assert state == "there"
    [state] = [
        state
        for statement, state in found("GRANT SELECT(ledger_no, stage) ON TABLE ledger TO ROLE audit_probe").items()
        if statement.startswith(narrow)
    ]
    assert state == "missing"


def test_a_described_column_that_changed_is_named() -> None:
    statements = [
        statement.replace("stage STRING(20)", "stage STRING(40)").replace("  weight FLOAT64,\n", "")
        for statement in schema.statements(WATCHED.source_changelog)
    ]
    different = attached.compare(WATCHED, schema.read(statements), roles=False)[1]
    assert [(each.what, each.state) for each in different] == [
        ("column ledger.stage", "different"), ("column ledger.weight", "missing"),
    ]  # fmt: skip


def test_a_read_function_has_one_name_in_both_dialects_and_partition_modes() -> None:
    grants = (
        "GRANT EXECUTE ON TABLE FUNCTION READ_S TO ROLE r",
        'CREATE TABLE t (id bigint PRIMARY KEY); GRANT EXECUTE ON FUNCTION spanner."read_json_S" TO r',
        'CREATE TABLE t (id bigint PRIMARY KEY); GRANT EXECUTE ON FUNCTION spanner."read_proto_bytes_S" TO r',
    )
    for grant in grants:
        [privilege] = schema.read(schema.split(grant)).privileges
        assert (privilege.kind, privilege.name) == ("TABLE FUNCTION", "READ_S")


def test_statements_about_other_things_do_not_matter() -> None:
    odd = "CREATE TABLE theirs (id INT64, what GEOGRAPHY) PRIMARY KEY (id)"
    assert "theirs" not in schema.read([odd, "CREATE SOMETHING NEW x"]).tables()


def test_a_description_of_a_database_of_others_may_name_a_stream_that_is_yet_to_be_made(tmp_path: Path) -> None:
    (tmp_path / "bank.ddl").write_text(BANK.with_name("bank.ddl").read_text())
    text = BANK.read_text()

    def load(old: str, new: str) -> WatchedTables:
        (tmp_path / "tables.toml").write_text(text.replace(old, new))
        return WatchedTables.load(tmp_path / "tables.toml")

    assert load("ledger_changes", "other_changes").attached
    with pytest.raises(WatchedError, match="that watches ledger_steps"):
        load('change_stream = "ledger_changes"', 'change_stream = "their_branches"')
    with pytest.raises(WatchedError, match="schema fetch"):
        load('ddl = "bank.ddl"', 'ddl = "other.ddl"')
    with pytest.raises(WatchedError, match="and not both"):
        load('ddl = "bank.ddl"', 'ddl = "bank.ddl"\nchangelog = "x.yaml"')
    with pytest.raises(WatchedError, match="fetch"):
        load("tables.ledger_steps", "tables.unknown")


def test_how_long_a_stream_of_theirs_keeps_changes() -> None:
    hours = schema.change_retention_hours(WATCHED.source_changelog, ["their_branches"])
    assert hours == 24
    # Yet to be made, as the file for its owners says.
    assert schema.change_retention_hours(WATCHED.source_changelog, WATCHED.change_streams) == 168


def shipped(*changes: tuple[str, str], more: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Drift of the managed database, by what is there."""
    statements = list(SHIPPED)
    for old, new in changes:
        assert any(old in statement for statement in statements)
        statements = [statement.replace(old, new) for statement in statements]
    wanted, there = schema.read(SHIPPED), schema.read([*statements, *more])
    return [(each.what, each.state) for each in drift(wanted, there)]


def test_a_database_that_its_changelog_made_has_no_drift() -> None:
    assert shipped() == []
    liquibase = "CREATE TABLE DATABASECHANGELOG (id STRING(255) NOT NULL) PRIMARY KEY (id)"
    assert shipped(more=(liquibase,)) == []


@pytest.mark.parametrize(
    ("change", "drifted"),
    [
        (("Region STRING(", "Place STRING("), [("column payment_audit_trail.Region", "missing"),
                                               ("column payment_audit_trail.Place", "unexpected")]),
        (("Currency STRING(3)", "Currency STRING(9)"), [("column payment_audit_trail.Currency", "different")]),
        (("GRANT SELECT ON CHANGE STREAM PaymentAuditTrailChangeStream, AuditLogChangeStream TO ROLE audit_reader",
          "GRANT SELECT ON CHANGE STREAM AuditLogChangeStream TO ROLE audit_reader"),
         [("privilege SELECT on CHANGE STREAM PaymentAuditTrailChangeStream to audit_reader", "missing")]),
    ],
)  # fmt: skip
def test_drift_is_named(change: tuple[str, str], drifted: list[tuple[str, str]]) -> None:
    assert shipped(change) == drifted


@pytest.mark.parametrize(
    ("statement", "drifted"),
    [
        ("ALTER TABLE audit_logs ADD COLUMN Secret STRING(9)", ("column audit_logs.Secret", "unexpected")),
        ("ALTER TABLE audit_logs ALTER COLUMN Status STRING(50) NOT NULL", ("column audit_logs.Status", "different")),
        ("CREATE TABLE more (id INT64) PRIMARY KEY (id)", ("table more", "unexpected")),
        ("CREATE INDEX more ON audit_logs (Status)", ("index more", "unexpected")),
        ("CREATE CHANGE STREAM more FOR ALL", ("change stream more", "unexpected")),
        ("ALTER CHANGE STREAM AuditLogChangeStream SET FOR audit_logs, payment_audit_trail",
         ("change stream AuditLogChangeStream", "different")),
        ("ALTER CHANGE STREAM AuditLogChangeStream SET OPTIONS (value_capture_type = 'NEW_ROW')",
         ("change stream AuditLogChangeStream", "different")),
        ("CREATE ROLE more", ("database role more", "unexpected")),
        ("DROP INDEX PaymentAuditTrailByStatus",
         ("index PaymentAuditTrailByStatus on payment_audit_trail", "missing")),
        ("DROP ROLE audit_probe", ("database role audit_probe", "missing")),
        ("GRANT DELETE ON TABLE audit_logs TO ROLE audit_writer",
         ("privilege DELETE on TABLE audit_logs to audit_writer", "unexpected")),
        ("REVOKE EXECUTE ON TABLE FUNCTION READ_AuditLogChangeStream FROM ROLE audit_reader",
         ("privilege EXECUTE on TABLE FUNCTION READ_AuditLogChangeStream to audit_reader", "missing")),
    ],
)  # fmt: skip
def test_what_somebody_ran_by_hand_is_named(statement: str, drifted: tuple[str, str]) -> None:
    assert shipped(more=(statement,)) == [drifted]
