"""A table of a named schema, wherever its name is written; tests/emulators/test_named_schemas.py runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract import attached, dialects, payments, schema
from contract.dialects import GOOGLE_SQL, POSTGRESQL
from contract.watched import WatchedTables
from delivery.draft import draft
from pipeline.jobs.checks import unfit_columns, unreadable
from pipeline.sink.changelogs import Destinations
from support import stuck
from tests.unit.test_stuck import NOW, Index

SHOP = Path(__file__).parents[1] / "examples" / "shop" / "tables.toml"
BOTH = [WatchedTables.load(SHOP, GOOGLE_SQL), WatchedTables.load(SHOP, POSTGRESQL)]
WATCHED = BOTH[0]
ORDERS = {"order_no": "STRING(36)", "paid_with": "STRING(32)"}


def statements(watched: WatchedTables, *words: str) -> list[str]:
    """The statements for the owners that begin so."""
    found = [need.statement for need in attached.needs(watched, roles=True)]
    return [each for each in found if each.startswith(words)]


def there(watched: WatchedTables, *more: str) -> schema.Catalog:
    """The shop's database, made without the index and the change stream."""
    made = schema.statements(watched.source_changelog)
    return schema.read([*(each for each in made if each.startswith(("CREATE TABLE", "CREATE SCHEMA"))), *more])


def test_what_owners_run_has_both_parts_of_a_name_in_the_quotes_of_their_dialect() -> None:
    google, postgresql = BOTH
    assert statements(google, "CREATE INDEX", "CREATE CHANGE", "GRANT USAGE", "GRANT SELECT ON TABLE") == [
        "CREATE CHANGE STREAM `shop_changes` FOR `sales`.`payments`, `sales`.`order`, `order` "
        "OPTIONS (retention_period = '7d', value_capture_type = 'NEW_ROW_AND_OLD_VALUES')",
        "CREATE INDEX `sales`.`payments_by_stage` ON `sales`.`payments` (`stage`, `touched`)",
        "GRANT USAGE ON SCHEMA `sales` TO ROLE audit_probe",
        "GRANT USAGE ON SCHEMA `sales` TO ROLE audit_validation",
        "GRANT SELECT ON TABLE `sales`.`payments`, `sales`.`order`, `order` TO ROLE audit_validation",
    ]
    # PostgreSQL takes no schema before an index's name.
    assert statements(postgresql, "CREATE INDEX", "GRANT USAGE", "GRANT SELECT (") == [
        'CREATE INDEX "payments_by_stage" ON "sales"."payments" ("stage", "touched")',
        'GRANT USAGE ON SCHEMA "sales" TO audit_probe',
        'GRANT SELECT ("payment_no", "stage", "touched") ON TABLE "sales"."payments" TO audit_probe',
        'GRANT USAGE ON SCHEMA "sales" TO audit_validation',
    ]


@pytest.mark.parametrize("watched", BOTH, ids=["googlesql", "postgresql"])
def test_what_owners_run_is_all_that_is_needed(watched: WatchedTables) -> None:
    needs = statements(watched)
    for number, each in enumerate(needs):
        found, different = attached.compare(watched, there(watched, *needs[:number], *needs[number + 1 :]), roles=True)
        assert {one.need.statement for one in found if one.state == "missing"} == {each}
        assert not different


def test_where_the_stream_leaves_columns_out_the_job_s_role_gets_the_schema_too() -> None:
    stream = "CREATE CHANGE STREAM shop_changes FOR ALL OPTIONS (value_capture_type = 'NEW_VALUES')"
    found = [need.statement for need in attached.needs(WATCHED, roles=True, there=there(WATCHED, stream))]
    assert "GRANT USAGE ON SCHEMA `sales` TO ROLE audit_reader" in found
    captured = {"shop_changes": "NEW_VALUES"}
    first, second = unreadable(WATCHED, captured, "audit_reader", {"order"})
    assert "run GRANT USAGE ON SCHEMA sales TO ROLE audit_reader and GRANT SELECT ON TABLE sales.pay" in first.problem
    assert second.checked == "sales.order"
    [other] = unreadable(WATCHED, captured, "audit_reader", {"sales.payments", "sales.order"})
    assert "run GRANT SELECT ON TABLE order TO" in other.problem


def test_a_privilege_on_all_tables_of_a_schema_is_of_no_other_schema() -> None:
    def lacking(*granted: str) -> set[str]:
        found, _ = attached.compare(WATCHED, there(WATCHED, *granted), roles=True)
        return {
            short.what.rpartition(" on ")[2]
            for each in found
            for short in each.short
            if each.need.statement.startswith("GRANT SELECT ON TABLE ")
        }

    to = "to audit_validation"
    of_sales = "GRANT SELECT ON ALL TABLES IN SCHEMA sales TO ROLE audit_validation"
    default = "GRANT SELECT ON ALL TABLES IN SCHEMA default TO ROLE audit_validation"
    assert lacking() == {f"TABLE {name} {to}" for name in ("sales.payments", "sales.order", "order")}
    assert lacking(of_sales) == {f"TABLE order {to}"}
    assert lacking(default) == {f"TABLE sales.payments {to}", f"TABLE sales.order {to}"}
    assert lacking(default.replace("default", "default, sales")) == set()


def test_a_schema_in_another_case_is_refused_as_a_table_is() -> None:
    made = schema.Catalog()
    made.run("CREATE SCHEMA sales")
    with pytest.raises(schema.SchemaError, match="Sales must be written sales"):
        made.run("CREATE TABLE Sales.orders (Id INT64) PRIMARY KEY (Id)")
    made.run("DROP SCHEMA sales")
    made.run("CREATE TABLE Sales.orders (Id INT64) PRIMARY KEY (Id)")
    with pytest.raises(schema.SchemaError, match=r"sales\.orders must be written Sales\.orders"):
        made.run("CREATE TABLE sales.orders (Id INT64) PRIMARY KEY (Id)")


def test_stuck_payments_are_sought_by_the_whole_name_of_the_index() -> None:
    for dialect, expected in (
        (GOOGLE_SQL, "FROM `sales`.`payments`@{FORCE_INDEX=`sales.payments_by_stage`} WHERE"),
        (POSTGRESQL, 'FROM "sales"."payments" /*@ FORCE_INDEX = "sales.payments_by_stage" */ WHERE'),
    ):
        asked = Index(dialect=dialect)
        stuck.seek(asked, WATCHED.payments, {"PENDING": 60, payments.ANY: 60}, frozenset(), NOW)
        assert expected in asked.sql


def test_columns_are_sought_in_the_schemas_of_the_described_tables_alone() -> None:
    names = [table.name for table in WATCHED.tables]
    google, postgresql = dialects.named(GOOGLE_SQL), dialects.named(POSTGRESQL)
    assert google.columns(names).endswith("WHERE TABLE_SCHEMA IN ('', 'sales')")
    assert postgresql.columns(names).endswith("WHERE TABLE_SCHEMA IN ('public', 'sales')")
    assert postgresql.columns(["sales.order"]).endswith("WHERE TABLE_SCHEMA IN ('sales')")
    rows = [("public", "order", "id", "bigint"), ("sales", "order", "id", "text")]
    assert postgresql.by_table(rows) == {"order": {"id": "INT64"}, "sales.order": {"id": "STRING(MAX)"}}


def test_a_column_is_compared_with_its_own_table_s() -> None:
    found = {"order": ORDERS, "sales.order": {"payment_no": "STRING(36)", "action": "STRING(100)"}}
    problems = [each.problem for each in unfit_columns(WATCHED, found) if each.problem]
    assert [each.partition(",")[0] for each in problems] == [
        "sales.order.came_at must exist", "sales.order.paid_with must exist"
    ]  # fmt: skip


def test_two_tables_of_one_name_have_each_their_columns_policies_and_changelog() -> None:
    assert WATCHED.of("sales.order").policy_of("paid_with") == "card"
    assert WATCHED.of("order").policy_of("paid_with") == "drop"
    assert WatchedTables.from_json(WATCHED.to_json()) == WATCHED
    places = Destinations(project="p", watched=WATCHED, dataset="d")
    assert [places.of(name) for name in ("order", "sales.order")] == [
        ("shop_audit", "order_log"), ("shop_audit", "sales_order_log"),
    ]  # fmt: skip
    # As before, where nobody described it.
    assert [places.of(name) for name in ("refunds", "sales.refunds")] == [
        ("d", "refunds_changelog"), ("d", "sales_refunds_changelog"),
    ]  # fmt: skip


def test_a_draft_names_a_table_of_a_named_schema_and_fits_its_database(tmp_path: Path) -> None:
    made = [each for each in schema.statements(WATCHED.source_changelog) if not each.startswith("CREATE CHANGE")]
    (tmp_path / "shop.ddl").write_text("".join(f"{each};\n" for each in made))
    tables = schema.read(made).tables()
    text = draft(tables, "sales.payments", ["sales.order"], ddl="shop.ddl", stream="shop_changes", dataset="shop_audit")
    (tmp_path / "tables.toml").write_text(text)
    drafted = WatchedTables.load(tmp_path / "tables.toml")
    assert [(table.name, table.table) for table in drafted.tables] == [
        ("sales.payments", "sales_payments_log"), ("sales.order", "sales_order_log"),
    ]  # fmt: skip
    # Of the source's DDL the commands get the two, and not what has the name of one elsewhere.
    assert [each.partition(" (")[0] for each in drafted.source_statements(frozenset())] == [
        "CREATE TABLE sales.payments", "CREATE TABLE sales.`order`",
    ]  # fmt: skip
