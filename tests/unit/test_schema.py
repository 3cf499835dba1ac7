"""The Liquibase changelog, read without a JVM."""

from pathlib import Path

import pytest

from contract import schema, tables


def changelog(folder: Path, *bodies: str) -> Path:
    lines = ["databaseChangeLog:"]
    for number, body in enumerate(bodies):
        (folder / f"{number}.sql").write_text(body)
        lines.append(f"  - include: {{file: {number}.sql, relativeToChangelogFile: true}}")
    path = folder / "changelog.yaml"
    path.write_text("\n".join(lines))
    return path


TABLE = """--liquibase formatted sql

--changeset a:1
CREATE TABLE things (
  Id STRING(36) NOT NULL,
  Tags ARRAY<STRING(10)>,
  Shard INT64 AS (MOD(FARM_FINGERPRINT(Id), 16)) STORED,
) PRIMARY KEY (Id DESC);
"""


def test_the_product_watches_both_tables() -> None:
    assert schema.change_streams() == {
        "PaymentAuditTrailChangeStream": ("payment_audit_trail",),
        "AuditLogChangeStream": ("audit_logs",),
    }


def test_audit_logs_is_as_required() -> None:
    table = schema.tables()["audit_logs"]
    assert [(c.name, c.type, c.not_null) for c in table.columns] == [
        ("PUID", "STRING(36)", True),
        ("Action", "STRING(100)", True),
        ("Timestamp", "TIMESTAMP", True),
        ("Status", "STRING(50)", False),
        ("ServiceName", "STRING(100)", False),
        ("Metadata", "JSON", False),
        ("RetryCount", "INT64", False),
        ("ErrorDetails", "STRING(500)", False),
    ]
    assert table.primary_key == ("PUID",)


def test_generated_columns_are_left_out(tmp_path: Path) -> None:
    table = schema.tables(changelog(tmp_path, TABLE))["things"]
    assert [(c.name, c.type) for c in table.columns] == [("Id", "STRING(36)"), ("Tags", "ARRAY<STRING(10)>")]
    assert table.primary_key == ("Id",)


def test_later_changesets_add_and_drop_columns(tmp_path: Path) -> None:
    later = (
        "--liquibase formatted sql\n--changeset a:2\nALTER TABLE things ADD COLUMN Colour STRING(10);\n"
        "--changeset a:3\nALTER TABLE things DROP COLUMN Tags;\n"
    )
    table = schema.tables(changelog(tmp_path, TABLE, later))["things"]
    assert [c.name for c in table.columns] == ["Id", "Colour"]


def test_a_changeset_of_another_context_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    roles = "--liquibase formatted sql\n--changeset a:2 context:cloud\nCREATE ROLE reader;\n"
    path = changelog(tmp_path, TABLE, roles)
    assert len(schema.statements(path)) == 1
    assert schema.statements(path, contexts=frozenset({"cloud"}))[-1] == "CREATE ROLE reader"


def test_two_statements_in_one_changeset_are_refused(tmp_path: Path) -> None:
    path = changelog(tmp_path, "--liquibase formatted sql\n--changeset a:1\nDROP TABLE x;\nDROP TABLE y;\n")
    with pytest.raises(schema.SchemaError, match="one DDL statement, got 2"):
        schema.statements(path)


def test_a_file_that_liquibase_would_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(schema.SchemaError, match="the first line must be"):
        schema.statements(changelog(tmp_path, "CREATE TABLE x (a INT64) PRIMARY KEY (a)"))


def test_every_column_of_the_source_is_classified() -> None:
    named = {c.name for table in schema.tables().values() for c in table.columns}
    assert named <= tables.COLUMN_POLICIES.keys()
