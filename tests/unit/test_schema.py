"""The Liquibase changelog, read without a JVM."""

from pathlib import Path

import pytest

from contract import schema
from tests.shipped import WATCHED


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
    for name, table in schema.tables().items():
        assert {c.name for c in table.columns} == WATCHED.of(name).columns.keys()


# ---------------------------------------------------------------------- what a statement means, or that it is refused


def columns(folder: Path, *statements: str, table: str = "things") -> list[tuple[str, str, bool]]:
    """The columns of a table after the statements, each its own changeset."""
    body = "".join(f"--changeset a:{n}\n{statement};\n" for n, statement in enumerate(statements))
    found = schema.tables(changelog(folder, f"--liquibase formatted sql\n{body}"))[table]
    return [(c.name, c.type, c.not_null) for c in found.columns]


ID, AMOUNT, LAST = ("Id", "STRING(36)", True), ("Amount", "NUMERIC", False), ("Last", "INT64", False)


@pytest.mark.parametrize(
    "constraint",
    [
        "CHECK (Amount > 0)",
        "CHECK (Amount < 10 OR (Amount >= 20 AND Id != 'a, b)'))",
        "CONSTRAINT positive CHECK (Amount > 0)",
        "CONSTRAINT `positive one` CHECK(Amount > 0)",
        "constraint positive check (Amount > 0)",
        "FOREIGN KEY (Id) REFERENCES others (Id)",
        "CONSTRAINT other FOREIGN KEY (Id, Last) REFERENCES sales.others (Id, Last) ON DELETE CASCADE NOT ENFORCED",
        "CONSTRAINT other FOREIGN KEY (Id) REFERENCES others (Id) ON DELETE NO ACTION",
    ],
)
def test_a_table_constraint_is_no_column_and_takes_none_along(tmp_path: Path, constraint: str) -> None:
    made = f"CREATE TABLE things (Id STRING(36) NOT NULL, {constraint}, Amount NUMERIC, Last INT64) PRIMARY KEY (Id)"
    assert columns(tmp_path, made) == [ID, AMOUNT, LAST]


@pytest.mark.parametrize(
    ("written", "column"),
    [
        ("Kind STRING(10) NOT NULL DEFAULT ('a, b) > c')", ("Kind", "STRING(10)", True)),
        ('Kind STRING(10) DEFAULT (IF(1 < 2, "x", CONCAT(\'it\\\'s\', """ ) """)))', ("Kind", "STRING(10)", False)),
        (
            "Kind TIMESTAMP DEFAULT (CURRENT_TIMESTAMP()) OPTIONS (allow_commit_timestamp = true)",
            ("Kind", "TIMESTAMP", False),
        ),
        ("Kind INT64 GENERATED BY DEFAULT AS IDENTITY (BIT_REVERSED_POSITIVE)", ("Kind", "INT64", False)),
        ("Kind INT64 NOT NULL GENERATED BY DEFAULT AS IDENTITY", ("Kind", "INT64", True)),
        ("Kind STRING(MAX) HIDDEN", ("Kind", "STRING(MAX)", False)),
        ("Kind string ( max ) not null", ("Kind", "STRING(MAX)", True)),
        ("Kind STRING(0x24)", ("Kind", "STRING(36)", False)),
        ("`Order` ARRAY<STRING(MAX)>", ("Order", "ARRAY<STRING(MAX)>", False)),
        ("Kind array< float32 >(vector_length=>128)", ("Kind", "ARRAY<FLOAT32>", False)),
        ("`Check` BOOL", ("Check", "BOOL", False)),
        ("Constraint BOOL", ("Constraint", "BOOL", False)),
        ("Kind BYTES(16) -- a comment, with NOT NULL\n", ("Kind", "BYTES(16)", False)),
        ("Kind /* CHECK (a > b), */ DATE", ("Kind", "DATE", False)),
    ],
)
def test_a_column_is_read_to_its_end(tmp_path: Path, written: str, column: tuple[str, str, bool]) -> None:
    made = f"CREATE TABLE things (Id STRING(36) NOT NULL, {written}, Last INT64) PRIMARY KEY (Id)"
    assert columns(tmp_path, made) == [ID, column, LAST]


@pytest.mark.parametrize(
    "written",
    [
        "Shard INT64 AS (MOD(FARM_FINGERPRINT(Id), 16)) STORED",
        "Shard INT64 NOT NULL AS (IF(1 > 2, 1, 2)) STORED HIDDEN",
        "Words TOKENLIST AS (TOKENIZE_FULLTEXT(Id)) HIDDEN",
        "Upper STRING(MAX) as (UPPER(Id))",
    ],
)
def test_a_generated_column_is_left_out_however_it_is_written(tmp_path: Path, written: str) -> None:
    made = f"CREATE TABLE things (Id STRING(36) NOT NULL, {written}, Last INT64,) PRIMARY KEY (Id)"
    assert columns(tmp_path, made) == [ID, LAST]


@pytest.mark.parametrize(
    "made",
    [
        "create table if not exists things (Id STRING(36) NOT NULL, Last INT64) primary key (Id asc)",
        "CREATE TABLE things (Id STRING(36) NOT NULL, Last INT64, PRIMARY KEY (Id))",
        "CREATE TABLE things (Id STRING(36) NOT NULL PRIMARY KEY, Last INT64)",
        "CREATE TABLE `things`(`Id` STRING(36)NOT NULL,Last INT64)PRIMARY KEY(`Id`DESC)",
        "CREATE TABLE things (Id STRING(36) NOT NULL, Last INT64) PRIMARY KEY (Id),\n"
        "  INTERLEAVE IN PARENT others ON DELETE CASCADE, ROW DELETION POLICY (OLDER_THAN(At, INTERVAL 30 DAY))",
        "CREATE TABLE things (Id STRING(36) NOT NULL, Last INT64) PRIMARY KEY (Id), INTERLEAVE IN others",
    ],
)
def test_a_table_is_read_however_it_is_written(tmp_path: Path, made: str) -> None:
    assert columns(tmp_path, made) == [ID, LAST]
    assert schema.tables(tmp_path / "changelog.yaml")["things"].primary_key == ("Id",)


MADE = "CREATE TABLE things (Id STRING(36) NOT NULL, Amount NUMERIC) PRIMARY KEY (Id)"


@pytest.mark.parametrize(
    ("later", "wanted"),
    [
        ("alter table things add column if not exists Last INT64", [ID, AMOUNT, LAST]),
        ("ALTER TABLE things ADD COLUMN IF NOT EXISTS Amount NUMERIC", [ID, AMOUNT]),
        ("ALTER TABLE things ADD Last INT64", [ID, AMOUNT, LAST]),
        ("ALTER TABLE things ADD COLUMN Last INT64 AS (1) STORED", [ID, AMOUNT]),
        ("ALTER TABLE things DROP COLUMN Amount", [ID]),
        ("ALTER TABLE things DROP COLUMN IF EXISTS Nothing", [ID, AMOUNT]),
        ("ALTER TABLE things ALTER COLUMN Amount STRING(MAX) NOT NULL", [ID, ("Amount", "STRING(MAX)", True)]),
        ("ALTER TABLE things ALTER COLUMN Id STRING(64)", [("Id", "STRING(64)", False), AMOUNT]),
        ("ALTER TABLE things ALTER COLUMN Amount SET OPTIONS (x = true)", [ID, AMOUNT]),
        ("ALTER TABLE things ALTER COLUMN Amount SET DEFAULT (1)", [ID, AMOUNT]),
        ("ALTER TABLE things ALTER COLUMN Amount DROP DEFAULT", [ID, AMOUNT]),
        ("ALTER TABLE things ADD CONSTRAINT positive CHECK (Amount > 0)", [ID, AMOUNT]),
        ("ALTER TABLE things ADD CHECK (Amount > 0)", [ID, AMOUNT]),
        ("ALTER TABLE things ADD FOREIGN KEY (Id) REFERENCES others (Id)", [ID, AMOUNT]),
        ("ALTER TABLE things DROP CONSTRAINT positive", [ID, AMOUNT]),
        ("ALTER TABLE things ADD ROW DELETION POLICY (OLDER_THAN(At, INTERVAL 1 DAY))", [ID, AMOUNT]),
        ("ALTER TABLE things REPLACE ROW DELETION POLICY (OLDER_THAN(At, INTERVAL 1 DAY))", [ID, AMOUNT]),
        ("ALTER TABLE things DROP ROW DELETION POLICY", [ID, AMOUNT]),
        ("ALTER TABLE things SET ON DELETE NO ACTION", [ID, AMOUNT]),
    ],
)
def test_an_alteration_changes_what_it_says(tmp_path: Path, later: str, wanted: list[tuple[str, str, bool]]) -> None:
    assert columns(tmp_path, MADE, later) == wanted


@pytest.mark.parametrize("renamed", ["ALTER TABLE things RENAME TO goods", "RENAME TABLE things TO goods"])
def test_a_renamed_table_keeps_its_columns(tmp_path: Path, renamed: str) -> None:
    assert columns(tmp_path, MADE, renamed, table="goods") == [ID, AMOUNT]
    assert list(schema.tables(tmp_path / "changelog.yaml")) == ["goods"]


def test_a_table_that_is_made_again_has_its_new_columns(tmp_path: Path) -> None:
    again = "CREATE TABLE things (Id STRING(36) NOT NULL, Last INT64) PRIMARY KEY (Id)"
    assert columns(tmp_path, MADE, "DROP TABLE IF EXISTS things", again) == [ID, LAST]


def test_a_table_of_a_named_schema_has_its_whole_name(tmp_path: Path) -> None:
    made = "CREATE TABLE sales.`orders` (Id STRING(36) NOT NULL, Last INT64) PRIMARY KEY (Id)"
    stream = "CREATE CHANGE STREAM S FOR sales.orders OPTIONS (retention_period = '7d')"
    assert columns(tmp_path, "CREATE SCHEMA sales", made, stream, table="sales.orders") == [ID, LAST]
    assert schema.change_streams(tmp_path / "changelog.yaml") == {"S": ("sales.orders",)}


def test_an_index_is_in_the_schema_of_its_table_in_both_dialects() -> None:
    google = ["CREATE TABLE s.t (id INT64, n INT64) PRIMARY KEY (id)", "CREATE INDEX s.i ON s.t (n)"]
    postgresql = ["CREATE TABLE s.t (id bigint PRIMARY KEY, n bigint)", "CREATE INDEX i ON s.t (n)"]
    assert schema.read(google).indexes == schema.read(postgresql).indexes
    assert list(schema.read(google).indexes) == ["s.i"]
    for statements in (google, postgresql):
        assert schema.read([*statements, "DROP INDEX s.i"]).indexes == {}


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE UNIQUE NULL_FILTERED INDEX ByAmount ON things (Amount DESC) STORING (Id), INTERLEAVE IN others",
        "CREATE INDEX IF NOT EXISTS ByAmount ON things (Amount)",
        "CREATE SEARCH INDEX ByWords ON things (Words)",
        "ALTER INDEX ByAmount ADD STORED COLUMN Id",
        "DROP INDEX ByAmount",
        "CREATE SEQUENCE Numbers OPTIONS (sequence_kind = 'bit_reversed_positive')",
        "CREATE OR REPLACE VIEW Shown SQL SECURITY INVOKER AS SELECT t.Id FROM things AS t WHERE t.Amount > 0",
        "DROP VIEW Shown",
        "CREATE ROLE reader",
        "GRANT SELECT ON TABLE things TO ROLE reader",
        "REVOKE SELECT ON TABLE things FROM ROLE reader",
        "ALTER DATABASE `audit-db` SET OPTIONS (version_retention_period = '7d')",
        "ANALYZE",
    ],
)
def test_what_has_no_columns_passes(tmp_path: Path, statement: str) -> None:
    assert columns(tmp_path, MADE, statement) == [ID, AMOUNT]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE others (Id STRING(36) NOT NULL, Kind COLOUR) PRIMARY KEY (Id)",
        "CREATE TABLE others (Id STRING(36) NOT NULL, CONSTRAINT x UNIQUE (Id)) PRIMARY KEY (Id)",
        "CREATE TABLE others (Id STRING(36) NOT NULL, UNIQUE (Id), Last INT64) PRIMARY KEY (Id)",
        "CREATE TABLE others (Id STRING(36) COLLATE x, Last INT64) PRIMARY KEY (Id)",
        "CREATE TABLE others (Id STRING(36), Last INT64) PRIMARY KEY (Other)",
        "CREATE TABLE others (Id STRING(36), id INT64) PRIMARY KEY (Id)",
        "CREATE TABLE others (Id STRING(36))",
        "CREATE TABLE others (Id STRING(36)) PRIMARY KEY (Id) STRICT",
        "CREATE TABLE others (Id STRING(36) PRIMARY KEY (Id)",
        "CREATE TABLE others (Id STRING(36) DEFAULT ('open) PRIMARY KEY (Id)",
        "CREATE TABLE others (Id STRING(36)) PRIMARY KEY (Id) /* open",
        "CREATE TABLE others AS SELECT 1",
        "CREATE TABLE others LIKE things",
        "CREATE TABLE things (Id STRING(36)) PRIMARY KEY (Id)",
        "CREATE OR REPLACE TABLE things (Id STRING(36)) PRIMARY KEY (Id)",
        "CREATE TEMPORARY TABLE others (Id STRING(36)) PRIMARY KEY (Id)",
        "CREATE TABLE Things (Id STRING(36)) PRIMARY KEY (Id)",
        "CREATE TABLE IF NOT EXISTS THINGS (Id STRING(36)) PRIMARY KEY (Id)",
        "CREATE TABLE others (Id STRING(36)) PRIMARY KEY (id)",
        "ALTER TABLE THINGS ADD COLUMN Last INT64",
        "ALTER TABLE things ADD COLUMN IF NOT EXISTS amount NUMERIC",
        "ALTER TABLE things DROP COLUMN IF EXISTS amount",
        "DROP TABLE IF EXISTS Things",
        "CREATE CHANGE STREAM S FOR Things",
        "ALTER TABLE nothing ADD COLUMN Last INT64",
        "ALTER TABLE things ADD COLUMN Amount INT64",
        "ALTER TABLE things DROP COLUMN Nothing",
        "ALTER TABLE things ALTER COLUMN Nothing INT64",
        "ALTER TABLE things ADD COLUMN Last INT64, ADD COLUMN Next INT64",
        "ALTER TABLE things RENAME COLUMN Amount TO Sum",
        "ALTER TABLE things RENAME TO goods, ADD SYNONYM things",
        "ALTER TABLE things FROBNICATE",
        "DROP TABLE nothing",
        "DROP SCHEMA sales CASCADE",
        "CREATE CHANGE STREAM S FOR nothing",
        "CREATE CHANGE STREAM S FOR things(Nothing)",
        "CREATE CHANGE STREAM S FOR things WITH EVERYTHING",
        "ALTER CHANGE STREAM S SET FOR ALL",
        "INSERT INTO things (Id) VALUES ('a')",
        "TRUNCATE TABLE things",
        "things",
    ],
)
def test_what_is_not_understood_is_refused_with_its_statement(tmp_path: Path, statement: str) -> None:
    with pytest.raises(schema.SchemaError) as refused:
        columns(tmp_path, MADE, statement)
    told = str(refused.value)
    assert told.startswith("0.sql: changeset 1")
    assert statement[:40] in told


WATCHING = (
    MADE,
    "CREATE TABLE others (Id STRING(36) NOT NULL, A INT64, B INT64) PRIMARY KEY (Id)",
    "CREATE CHANGE STREAM S FOR things OPTIONS (retention_period = '7d', value_capture_type = 'NEW_ROW')",
)


@pytest.mark.parametrize(
    ("statements", "streams"),
    [
        (["CREATE CHANGE STREAM T FOR ALL"], {"S": ("things",), "T": ("things", "others")}),
        (
            ["create change stream `T` for all options (retention_period='1d')"],
            {"S": ("things",), "T": ("things", "others")},
        ),
        (["CREATE CHANGE STREAM T"], {"S": ("things",), "T": ()}),
        (["CREATE CHANGE STREAM T FOR things(Amount), others"], {"S": ("things",), "T": ("things", "others")}),
        (["CREATE CHANGE STREAM T FOR others(A, B), things()"], {"S": ("things",), "T": ("others", "things")}),
        (["ALTER CHANGE STREAM S SET FOR things, others(A)"], {"S": ("things", "others")}),
        (["ALTER CHANGE STREAM S SET FOR ALL"], {"S": ("things", "others")}),
        (["ALTER CHANGE STREAM S DROP FOR ALL"], {"S": ()}),
        (["ALTER CHANGE STREAM S SET OPTIONS (retention_period = '36h')"], {"S": ("things",)}),
        (["DROP CHANGE STREAM S"], {}),
        (["CREATE CHANGE STREAM T FOR ALL", "DROP CHANGE STREAM S", "DROP TABLE things"], {"T": ("others",)}),
    ],
)
def test_a_change_stream_watches_what_its_statements_say(
    tmp_path: Path, statements: list[str], streams: dict[str, tuple[str, ...]]
) -> None:
    columns(tmp_path, *WATCHING, *statements, table="others")
    assert schema.change_streams(tmp_path / "changelog.yaml") == streams


@pytest.mark.parametrize(
    ("statement", "hours"),
    [
        ("ALTER CHANGE STREAM S SET OPTIONS (retention_period = '36h')", 36),
        ('ALTER CHANGE STREAM S SET OPTIONS (value_capture_type="NEW_ROW", retention_period="2d")', 48),
        ("CREATE CHANGE STREAM T FOR ALL OPTIONS (retention_period='24h')", 24),
        ("CREATE INDEX I ON things (Amount) -- retention_period = '1h'", 168),
    ],
)
def test_the_retention_is_that_of_the_last_statement_about_a_stream(tmp_path: Path, statement: str, hours: int) -> None:
    columns(tmp_path, *WATCHING, statement)
    assert schema.change_retention_hours(tmp_path / "changelog.yaml") == hours


def test_a_table_that_a_stream_names_is_neither_dropped_nor_renamed(tmp_path: Path) -> None:
    for statement in ("DROP TABLE things", "ALTER TABLE things RENAME TO goods", "RENAME TABLE things TO goods"):
        with pytest.raises(schema.SchemaError, match=r"changeset 3.* watched by no change stream by its name, got S\."):
            columns(tmp_path, *WATCHING, statement)


@pytest.mark.parametrize(
    "statement",
    ["CREATE CHANGE STREAM T FOR ALL", "ALTER CHANGE STREAM S SET OPTIONS (retention_period = 'a week')"],
)
def test_a_stream_whose_retention_is_not_known_is_refused(tmp_path: Path, statement: str) -> None:
    with pytest.raises(schema.SchemaError, match="retention_period must be"):
        columns(tmp_path, *WATCHING, statement)
        schema.change_retention_hours(tmp_path / "changelog.yaml")


# ---------------------------------------------------------------------- the files as Liquibase reads them


def test_semicolons_in_strings_and_comments_end_no_statement(tmp_path: Path) -> None:
    text = """--liquibase formatted sql

--changeset a:1
CREATE TABLE things ( -- its key; and more
  Id STRING(36) NOT NULL DEFAULT ('a;b'), /* one;
-- two; */
--  a whole line; of comment
  Last INT64,
) PRIMARY KEY (Id); -- the end; really
--rollback DROP TABLE things;
"""
    path = changelog(tmp_path, text)
    assert [(c.name, c.type) for c in schema.tables(path)["things"].columns] == [
        ("Id", "STRING(36)"),
        ("Last", "INT64"),
    ]
    # Liquibase takes comments out, and Spanner takes none.
    assert [line.rstrip() for line in schema.statements(path)[0].splitlines()] == [
        "CREATE TABLE things (",
        "  Id STRING(36) NOT NULL DEFAULT ('a;b'),",
        "  Last INT64,",
        ") PRIMARY KEY (Id)",
    ]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("--changeset a:2 endDelimiter:/", "endDelimiter"),
        ("--changeset a:2 dbms:postgresql", "dbms"),
        ("--changeset a:2 labels:later", "labels"),
        ("--changeset a:2 context:!cloud", "context"),
        ('--changeset a:2 context:"cloud or test"', "context"),
        ("--changeset a", "--changeset a"),
        ("--preconditions onFail:MARK_RAN", "preconditions"),
        ("-- precondition-sql-check expectedResult:0 SELECT 1", "precondition-sql-check"),
        ("--property name:x value:y", "property"),
        ("--ignoreLines:1", "ignoreLines"),
    ],
)
def test_what_liquibase_would_do_and_pulumi_would_not_is_refused(tmp_path: Path, line: str, part: str) -> None:
    with pytest.raises(schema.SchemaError) as refused:
        schema.statements(changelog(tmp_path, f"{TABLE}{line}\nCREATE ROLE x;\n"))
    assert str(refused.value).startswith("0.sql: ")
    assert part in str(refused.value)


@pytest.mark.parametrize("line", ["-- changeset a:2", "--CHANGESET a:2", "  --changeset a:2", '--changeset "a":2'])
def test_a_changeset_begins_however_liquibase_takes_it(tmp_path: Path, line: str) -> None:
    assert len(schema.statements(changelog(tmp_path, f"{TABLE}{line}\nCREATE ROLE x;\n"))) == 2


def test_a_statement_before_the_first_changeset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(schema.SchemaError, match="before the first changeset"):
        schema.statements(changelog(tmp_path, TABLE.replace("--changeset a:1", "DROP TABLE x;\n--changeset a:1")))


@pytest.mark.parametrize(
    "entry",
    [
        "  - include:\n      file: 0.sql",
        "  - includeAll: {path: more}",
        "  - include: {file: 0.sql, context: cloud}",
        "  - changeSet: {id: 1}",
        "  - include: {relativeToChangelogFile: true}",
    ],
)
def test_an_entry_of_the_changelog_that_is_not_understood_is_refused(tmp_path: Path, entry: str) -> None:
    path = changelog(tmp_path, TABLE)
    path.write_text(f"{path.read_text()}\n# more\n{entry}\n")
    with pytest.raises(schema.SchemaError, match=r"changelog\.yaml: "):
        schema.statements(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = changelog(tmp_path, TABLE)
    (tmp_path / "0.sql").unlink()
    with pytest.raises(schema.SchemaError, match=r"0\.sql: "):
        schema.statements(path)


def test_what_only_some_stacks_run_changes_no_table(tmp_path: Path) -> None:
    """BigQuery's tables are the same in every stack: a column of one context would be lost silently."""
    later = (
        "--liquibase formatted sql\n--changeset a:2 context:cloud\nALTER TABLE things ADD COLUMN Colour STRING(10);\n"
    )
    with pytest.raises(schema.SchemaError, match=r"1\.sql: changeset 2 .*context"):
        schema.tables(changelog(tmp_path, TABLE, later))


def test_a_proto_or_enum_column_is_known_by_the_path_of_its_type() -> None:
    catalog = schema.read(
        ["CREATE TABLE t (Id INT64, A shop.Order, B `shop.v1.Order`, C ARRAY<shop.Kind>) PRIMARY KEY (Id)"]
    )
    [table] = catalog.tables().values()
    assert {c.name: c.type for c in table.columns} == {
        "Id": "INT64", "A": "shop.Order", "B": "shop.v1.Order", "C": "ARRAY<shop.Kind>",
    }  # fmt: skip
