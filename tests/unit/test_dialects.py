"""What differs between Spanner's dialects; tests/emulators/test_postgresql.py runs it."""

from __future__ import annotations

import pytest

from contract import dialects
from contract.dialects import GOOGLE_SQL, POSTGRESQL, UnknownDialect

PG, GOOGLE = dialects.named(POSTGRESQL), dialects.named(GOOGLE_SQL)
QUERY = (
    "SELECT `A` FROM `s`.`t`@{FORCE_INDEX=`ByA`} WHERE `A` IN UNNEST(@many) AND `B` = @one AND `C` < @two "
    "AND `D` = '@one `x`' AND `B` = @one"
)


def test_a_query_is_in_googlesql_as_it_is_written() -> None:
    assert GOOGLE.query(QUERY, {"one": 1}, {"one": "t"}) == {
        "sql": QUERY,
        "params": {"one": 1},
        "param_types": {"one": "t"},
    }


def test_in_postgresql_names_parameters_and_hints_are_written_its_way() -> None:
    made = PG.query(QUERY, {"one": 1, "two": 2, "many": [3]}, {"one": "t", "many": "a"})
    assert made["sql"] == (
        'SELECT "A" FROM "s"."t" /*@ FORCE_INDEX = "ByA" */ WHERE "A" = ANY($1) AND "B" = $2 AND "C" < $3 '
        'AND "D" = \'@one `x`\' AND "B" = $2'
    )
    assert made["params"] == {"p1": [3], "p2": 1, "p3": 2}
    assert made["param_types"] == {"p1": "a", "p2": "t"}


def test_a_query_without_parameters_is_given_none() -> None:
    assert PG.query("SELECT 1") == {"sql": "SELECT 1", "params": None, "param_types": None}


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("character varying(36)", "STRING(36)"),
        ("character varying", "STRING(MAX)"),
        ("text", "STRING(MAX)"),
        ("varchar(20)[]", "ARRAY<STRING(20)>"),
        ("bigint", "INT64"),
        ("oid", "INT64"),
        ("numeric", "PG_NUMERIC"),
        ("numeric[]", "ARRAY<PG_NUMERIC>"),
        ("jsonb", "PG_JSONB"),
        ("timestamp with time zone", "TIMESTAMP"),
        ("timestamp with time zone[]", "ARRAY<TIMESTAMP>"),
        ("spanner.commit_timestamp", "TIMESTAMP"),
        ("date", "DATE"),
        ("bytea", "BYTES(MAX)"),
        ("real", "FLOAT32"),
        ("double precision", "FLOAT64"),
        ("boolean", "BOOL"),
        ("uuid", "UUID"),
        ("interval", "INTERVAL"),
        ("hologram", "HOLOGRAM"),
    ],
)
def test_a_type_of_postgresql_is_named_as_spanner_names_it(written: str, kind: str) -> None:
    assert PG.type(written) == kind


def test_a_type_of_googlesql_has_its_name_already() -> None:
    assert GOOGLE.type("ARRAY<STRING(36)>") == "ARRAY<STRING(36)>"


def test_tables_of_the_default_schema_have_no_schema_in_their_names() -> None:
    assert (PG.table("public", "t"), PG.table("s", "t"), GOOGLE.table("", "t")) == ("t", "s.t", "t")
    assert (PG.of_table("t"), PG.of_table("s.t"), GOOGLE.of_table("t")) == (("public", "t"), ("s", "t"), ("", "t"))


@pytest.mark.parametrize(
    ("ddl", "name"),
    [
        ("CREATE TABLE t (id bigint NOT NULL, PRIMARY KEY(id))", POSTGRESQL),
        ('CREATE TABLE t ("INT64" character varying(36), PRIMARY KEY("INT64"))', POSTGRESQL),
        ("CREATE TABLE t (Id STRING(36), Text BYTES(MAX)) PRIMARY KEY (Id)", GOOGLE_SQL),
        ("CREATE TABLE t (`text` INT64 NOT NULL) PRIMARY KEY (`text`)", GOOGLE_SQL),
        ("CREATE TABLE t (text INT64 NOT NULL) PRIMARY KEY (text)", GOOGLE_SQL),
        ("", GOOGLE_SQL),
    ],
)
def test_the_dialect_of_ddl_is_seen_by_the_types_of_its_columns(ddl: str, name: str) -> None:
    assert dialects.of_ddl(ddl).name == name


def test_a_database_says_its_dialect_and_an_unknown_one_is_refused_with_the_remedy() -> None:
    assert dialects.answered([["POSTGRESQL"]]) is PG
    assert dialects.answered([]) is GOOGLE
    with pytest.raises(UnknownDialect, match=r"got ORACLE\. Update the audit"):
        dialects.answered([["ORACLE"]])


def test_a_statement_for_the_owners_is_in_their_dialect() -> None:
    for written, expected in (
        (
            "CREATE CHANGE STREAM `S` FOR `t` OPTIONS (retention_period = '7d', value_capture_type = 'NEW_ROW')",
            "CREATE CHANGE STREAM \"S\" FOR \"t\" WITH (retention_period = '7d', value_capture_type = 'NEW_ROW')",
        ),
        ("CREATE INDEX `ByS` ON `t` (`Status`, `At`)", 'CREATE INDEX "ByS" ON "t" ("Status", "At")'),
        ("GRANT SELECT ON CHANGE STREAM `S` TO ROLE r", 'GRANT SELECT ON CHANGE STREAM "S" TO r'),
        (
            "GRANT EXECUTE ON TABLE FUNCTION `READ_S`, `READ_T` TO ROLE r",
            'GRANT EXECUTE ON FUNCTION spanner."read_json_S", spanner."read_json_T" TO r',
        ),
        ("GRANT SELECT (`Id`) ON TABLE `t` TO ROLE r", 'GRANT SELECT ("Id") ON TABLE "t" TO r'),
    ):
        assert PG.ddl(written) == expected
        assert GOOGLE.ddl(written) == written


def test_a_change_stream_of_mutable_key_ranges_has_another_read_function_in_postgresql() -> None:
    grant = "GRANT EXECUTE ON TABLE FUNCTION `READ_S`, `READ_T` TO ROLE r"
    both = 'spanner."read_json_S", spanner."read_proto_bytes_T"'
    assert PG.ddl(grant, {"T"}) == f"GRANT EXECUTE ON FUNCTION {both} TO r"
    assert GOOGLE.ddl(grant, {"T"}) == grant
    assert [each.read_function("T", mutable=True) for each in (GOOGLE, PG)] == ["READ_T", "read_proto_bytes_T"]


def test_the_seeks_of_an_index_s_shards_are_one_query() -> None:
    parts = ("SELECT `S` AS s FROM `t`", "`S` = @p ORDER BY `S`", "Shard", 4, 100)
    assert GOOGLE.first_of_shards(*parts) == (
        "SELECT found.* FROM UNNEST(GENERATE_ARRAY(0, 3)) AS shard, UNNEST(ARRAY(SELECT AS STRUCT "
        "`S` AS s FROM `t` WHERE `Shard` = shard AND `S` = @p ORDER BY `S` LIMIT 25)) AS found"
    )
    assert PG.first_of_shards(*parts) == (
        "(SELECT `S` AS s FROM `t` WHERE `Shard` = ANY(ARRAY[0, 1, 2, 3]) AND `S` = @p ORDER BY `S` LIMIT 100)"
    )
    assert "shard AND" not in GOOGLE.first_of_shards(parts[0], parts[1], "", 1, 100)
    assert "ANY" not in PG.first_of_shards(parts[0], parts[1], "", 1, 100)
