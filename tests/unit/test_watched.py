"""The description of the watched tables: what it says reaches every reader, and what does not fit is refused."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from contract import queries, tables
from contract.changes import Change, Column
from contract.options import named
from contract.watched import (
    _OWN_TABLES,
    OF_TIMELINE,
    OF_TRANSITIONS,
    SHIPPED,
    StatusIndex,
    WatchedColumn,
    WatchedError,
    WatchedTable,
    WatchedTables,
    main,
)
from pipeline.jobs.checks import unfit_columns, unwatched
from pipeline.transforms.enrich import enrich
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker
from support.search import SearchError, _columns, payment_id
from tests.shipped import PAYMENTS, WATCHED

TRANSFERS = Path(__file__).parents[1] / "examples" / "transfers" / "tables.toml"
OTHER = WatchedTables.load(TRANSFERS)
KEYS = MaskingKeys({"v1": bytes(32)})


def changed(tmp_path: Path, before: str, after: str, file: Path = SHIPPED) -> Path:
    """A description with one text replaced, beside the same changelog."""
    text = file.read_text()
    assert text.count(before) >= 1, before
    changelog = WatchedTables.load(file).source_changelog
    lines = [line for line in text.replace(before, after, 1).splitlines() if not line.startswith("changelog")]
    made = tmp_path / "tables.toml"
    made.write_text("\n".join([f'changelog = "{changelog.resolve()}"', *lines]))
    return made


def change(columns: dict[str, str], **new: Any) -> Change:
    key = "transfer_no"
    made = tuple(Column(name, kind, name == key) for name, kind in columns.items())
    return Change(
        "S", "transfers", "INSERT", "2026-11-23T09:00:00.000000000Z", "t", "0", 0, True, 1, 1, made, {key: "7"}, new, {}
    )


@pytest.mark.parametrize("watched", [WATCHED, OTHER], ids=["shipped", "transfers"])
def test_what_the_job_and_the_commands_get_says_all_that_the_file_says(watched: WatchedTables) -> None:
    assert WatchedTables.from_json(watched.to_json()) == watched
    assert pickle.loads(pickle.dumps(watched)) == watched
    assert "\n" not in watched.to_json()
    assert named("watchedTables").broken(watched.to_json()) is None


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ('Region = { policy = "scan"', 'Regoin = { policy = "scan"', "must be columns of payment_audit_trail"),
        ('CardNumber = "card"', 'CardNumber = "crad"', "CardNumber.policy must be one of identifier, scan, card"),
        ('means = "region"', 'means = "place"', "Region.means must be one of payment, customer"),
        ('means = "region"', 'means = "status"', "must have one column that means 'status'"),
        ('means = "currency"', 'means = "created"', "must"),
        ('Currency = { policy = "scan", means = "currency" }', 'Currency = { policy = "drop", means = "currency" }',
         "must leave a value, identifier or scan"),
        ('PUID = { policy = "identifier", means = "payment" }', 'PUID = "identifier"',
         'must have a column with means = "payment"'),
        ('kind = "payments"', 'kind = "events"', 'must be "payments" for one table'),
        ('change_stream = "PaymentAuditTrailChangeStream"', 'change_stream = "AuditLogChangeStream"',
         "must be a change stream that watches payment_audit_trail: PaymentAuditTrailChangeStream"),
        ('dataset = "audit_service_dataset"\ntable = "audit_logs"',
         'dataset = "payment_audit"\ntable = "payment_audit_trail_bq"', "must be another place for each table"),
        ('cluster_by = ["PUID"]', 'cluster_by = ["Puid"]', "cluster_by must be described columns"),
        ('cluster_by = ["PUID"]', 'partition = "WEEK"', "partition must be one of HOUR, DAY, MONTH, YEAR"),
        ('personal = true', 'personal = "yes"', "personal must be true or false"),
        ('customer_in = ["customerId"', 'customers = ["customerId"', "must have only policy, means"),
        ('name = "PaymentAuditTrailByStatus"', 'name = "ByStatus"', "must be an index on payment_audit_trail"),
        ("[tables.audit_logs]", '[tables."sales.audit.logs"]',
         "must be a name: A-Z, a-z, 0-9 and underscores, that of its schema and a dot before it, got 'sales.audit"),
        ("[tables.audit_logs]", '[tables."sales."]', "must be a name: A-Z, a-z, 0-9 and underscores"),
        ("[tables.audit_logs]", '[tables."public.audit_logs"]', 'Write [tables."audit_logs"].'),
        ("[tables.audit_logs]", "[tables.sales.orders]", 'Of the schema sales write [tables."sales.orders"].'),
        ('name = "PaymentAuditTrailByStatus"', 'name = "sales.ByStatus"', "an index is in that of its table, got"),
        ('dataset = "payment_audit"', 'dataset = "payment_views"', "must not be payment_views, which has the views"),
        ('dataset = "payment_audit"', 'dataset = "payment_backups"', "must not be payment_backups, which has the snap"),
        ('dataset = "payment_audit"', 'dataset = "payment_access"', "must not be payment_access, which has the access"),
        ('table = "payment_audit_trail_bq"', 'table = "resume_positions"', "must not be one of audit_checks"),
        ('cluster_by = ["PUID"]', 'cluster_by = ["PUID", "Region", "Status", "Currency", "Action"]', "at most four"),
        ('cluster_by = ["PUID"]', 'cluster_by = ["Metadata"]', "must be columns that stay, of type STRING"),
        ('cluster_by = ["PUID"]', 'cluster_by = ["CardholderName"]', "must be columns that stay, of type STRING"),
        ('dataset = "payment_audit"', 'dataset = "payment-audit"', "dataset must be a name: A-Z, a-z, 0-9"),
        ("shards = 16", "shards = 0", "shards must be a whole number from 1 to 1000"),
        ("[tables.payment_audit_trail]", "[tables.payment_audit_trail]\nowner = 1", "must have only kind"),
        ('CardExpiry = "drop"', 'CardExpiry = "drop"\ncardexpiry = "drop"', "must name each column once"),
        ('Amount = { policy = "scan", means = "amount" }', 'Amount = "token"', "must be a STRING to be replaced"),
        ("kind = ", "kind ", "must be TOML"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_column_and_the_rule(
    tmp_path: Path, before: str, after: str, rule: str
) -> None:
    with pytest.raises(WatchedError) as refused:
        WatchedTables.load(changed(tmp_path, before, after))
    assert rule in str(refused.value)


def test_the_payment_is_the_primary_key_alone(tmp_path: Path) -> None:
    text = (
        'PUID = { policy = "identifier", means = "payment" }\nCustomerId = { policy = "identifier", means = "customer"'
    )
    swapped = 'PUID = "identifier"\nCustomerId = { policy = "identifier", means = "payment"'
    with pytest.raises(WatchedError, match='must mean "payment" by the primary key of payment_audit_trail, PUID, alo'):
        WatchedTables.load(changed(tmp_path, text, swapped))


def test_a_table_that_the_changelog_does_not_make_is_refused(tmp_path: Path) -> None:
    file = changed(tmp_path, 'CardNumber = "card"', 'CardNumber = "card"')
    file.write_text(file.read_text().replace("[tables.audit_logs", "[tables.audit_log"))
    with pytest.raises(WatchedError, match="must be made by the changelog, which makes audit_logs, pay"):
        WatchedTables.load(file)


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    file = changed(tmp_path, 'CardNumber = "card"', 'CardNumber = "crad"')
    file.write_text(file.read_text().replace('CardExpiry = "drop"', 'CardExpiry = "dorp"'))
    with pytest.raises(WatchedError) as refused:
        WatchedTables.load(file)
    assert len(str(refused.value).splitlines()) == 2


def test_the_command_prints_the_option_or_the_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TRANSFERS)]) == 0
    assert WatchedTables.from_json(capsys.readouterr().out) == OTHER
    assert main([str(changed(tmp_path, 'CardNumber = "card"', 'CardNumber = "crad"'))]) == 2
    assert "tables.payment_audit_trail.columns.CardNumber.policy" in capsys.readouterr().err


def test_a_new_column_is_one_line(tmp_path: Path) -> None:
    made = WatchedTables.load(changed(tmp_path, 'order = "scan"', 'order = "identifier"', TRANSFERS))
    assert (OTHER.payments.policy_of("ORDER"), made.payments.policy_of("ORDER")) == ("scan", "identifier")


def test_a_held_column_stays_and_has_no_value() -> None:
    sent = change({"transfer_no": "INT64", "remark": "STRING(200)"}, remark="call me")
    assert Masker(KEYS, OTHER, new_columns="scan").mask(sent) == ()
    assert sent.new == {"remark": None}
    assert [f.name for f in tables.fields_of(OTHER.payments, "remark", "STRING(200)")] == ["remark"]


def test_policies_are_those_of_the_table_and_not_of_a_name() -> None:
    sent = change({"transfer_no": "INT64", "CardNumber": "STRING"}, CardNumber="x")
    sent.table = "others"
    assert Masker(KEYS, WATCHED).mask(sent) == ("transfer_no", "CardNumber")
    assert sent.new == {"CardNumber": None}


def test_one_masker_keeps_tables_with_the_same_columns_apart() -> None:
    masker = Masker(KEYS, OTHER, new_columns="scan")
    here, elsewhere = (change({"transfer_no": "INT64", "remark": "STRING(200)"}, remark="x") for _ in range(2))
    elsewhere.table = "others"
    for each in (here, elsewhere):
        masker.mask(each)
    assert (here.new, elsewhere.new) == ({"remark": None}, {"remark": "x"})


def test_columns_are_taken_for_what_they_mean() -> None:
    sent = change({}, phase="SETTLED", phase_since="2026-11-23T08:59:59Z", customer_id="C1", clerk="u1")
    enrich(sent, OTHER.payments, {"SETTLED": "processed"})
    assert list(sent.enriched.values())[:4] == ["C1", "u1", "processed", "2026-11-23T08:59:59Z"]


def test_a_customer_is_found_where_the_description_says(tmp_path: Path) -> None:
    file = changed(tmp_path, 'customer_in = ["customerId", "customer_id", "customer.id"]', 'customer_in = ["a.b.c"]')
    table = WatchedTables.load(file).payments
    sent = change({}, Metadata=json.dumps({"customerId": "no", "a": {"b": {"c": 17}}}))
    enrich(sent, table, {})
    assert sent.enriched[tables.CUSTOMER_ID] == "17"


def test_a_query_without_its_columns_is_left_out_and_lines_of_others_are(tmp_path: Path) -> None:
    made = WatchedTables.load(
        changed(tmp_path, 'branch = { policy = "scan", means = "region" }', 'branch = "scan"', TRANSFERS)
    )
    assert set(queries.queries(OTHER)) - set(queries.queries(made)) == {"summary_by_region"}
    with pytest.raises(queries.QueryError, match="needs a column that means region"):
        queries.query("summary_by_region", "p", made)
    for name in queries.queries(made):
        assert "${" not in queries.query(name, "p", made)
        assert "branch" not in queries.query(name, "p", made)
    assert "`order`" in queries.view(queries.PAYMENT_CURRENT, "p", made)


def test_events_have_the_payments_columns_by_what_they_mean_in_the_payments_types(tmp_path: Path) -> None:
    (tmp_path / "changelog.yaml").write_text("databaseChangeLog:\n  - include: {file: all.sql}\n")
    (tmp_path / "all.sql").write_text(
        """--liquibase formatted sql
--changeset a:1
CREATE TABLE transfers (no INT64 NOT NULL, phase STRING(9), tags ARRAY<STRING(9)>, note STRING(9)) PRIMARY KEY (no);
--changeset a:2
CREATE TABLE steps (id INT64 NOT NULL, ref STRING(36), step STRING(9), note STRING(9)) PRIMARY KEY (id);
--changeset a:3
CREATE CHANGE STREAM C FOR transfers, steps;
"""
    )
    file = tmp_path / "tables.toml"
    file.write_text(
        """changelog = "changelog.yaml"
[tables.transfers]
kind = "payments"
change_stream = "C"
dataset = "d"
table = "transfers"
columns.no = { policy = "identifier", means = "payment" }
columns.phase = { policy = "scan", means = "status" }
columns.tags = "scan"
columns.note = "scan"
[tables.steps]
kind = "events"
change_stream = "C"
dataset = "d"
table = "steps"
columns.id = "identifier"
columns.ref = { policy = "scan", means = "payment" }
columns.step = { policy = "scan", means = "status" }
columns.note = "scan"
"""
    )
    sql = queries.view(queries.PAYMENT_TIMELINE, "p", WatchedTables.load(file))
    _, events = sql.split("UNION ALL")
    wanted = "SAFE_CAST(`ref` AS INT64) AS `no`,\n  `step` AS `phase`,\n  [] AS `tags`,\n  `note`\n    FROM `p.d.steps`"
    assert wanted in events


def test_changelogs_are_partitioned_and_clustered_as_described() -> None:
    made = tables.changelogs(OTHER)["transfers"]
    assert (made.id, made.partition, made.cluster_by) == (
        "bank_audit.transfers_log",
        "MONTH",
        ("transfer_no", "branch"),
    )
    personal = {field.name for field in made.fields if field.personal}
    assert {"source_customer_id", "clerk", "payer_token", tables.CUSTOMER_ID, tables.OLD_VALUES} <= personal
    assert not {"payer", "good_thru"} & {field.name for field in made.fields}


def test_the_platform_s_own_tables_and_the_columns_of_its_views_are_those_that_a_description_is_refused_for() -> None:
    changelogs = {table.id for table in WATCHED.tables}
    own = {table.name for table in tables.all_tables(WATCHED) if table.id not in changelogs}
    assert own - {tables.access_log(WatchedTables.load()).name} == _OWN_TABLES
    for view, names in ((queries.PAYMENT_TIMELINE, OF_TIMELINE), (queries.PAYMENT_TRANSITIONS, OF_TRANSITIONS)):
        sql = queries.view(view, "p", WATCHED)
        said = set(re.findall(r" AS ([a-z_]+)\b", sql)) - {"_copy", "_here"}
        assert said == set(names)


def test_a_column_with_a_name_of_the_views_has_no_meaning(tmp_path: Path) -> None:
    with pytest.raises(WatchedError, match="must mean nothing: the views have a column of that name"):
        changed_id = 'change_id = { policy = "scan", means = "action" }'
        WatchedTables.load(changed(tmp_path, 'change_id = "scan"', changed_id, TRANSFERS))


def test_a_card_in_a_number_column_or_in_a_list_is_searched_as_text() -> None:
    columns = {"id": WatchedColumn(policy="identifier", means="payment", type="STRING")}
    for kind, now in (
        ("STRING", "`n`"),
        ("INT64", "SAFE_CAST(`n` AS STRING)"),
        ("ARRAY<STRING>", "CAST(NULL AS STRING)"),
    ):
        card = WatchedColumn(policy="card", type=kind)
        assert _columns(WatchedTable(name="t", columns=columns | {"n": card}))["card"].endswith(f", {now})")


def test_the_id_of_a_payment_is_asked_for_in_the_type_of_its_column() -> None:
    assert payment_id(PAYMENTS, "17") == "17"
    assert payment_id(OTHER.payments, "17") == 17
    for wrong in ("p1", "1.0", "", "9" * 20):
        with pytest.raises(SearchError, match="must be a whole number, as transfer_no is"):
            payment_id(OTHER.payments, wrong)


# ---------------------------------------------------------------------- at launch


def test_a_described_table_that_its_stream_does_not_watch_is_refused() -> None:
    streams = {"PaymentAuditTrailChangeStream": {"payment_audit_trail"}, "AuditLogChangeStream": None}
    assert list(unwatched(WATCHED, streams)) == []
    streams["PaymentAuditTrailChangeStream"] = {"orders"}
    [found] = unwatched(WATCHED, streams)
    assert "must be watched by PaymentAuditTrailChangeStream, which watches orders" in found.problem
    # A stream that another job reads is that job's.
    assert list(unwatched(WATCHED, {"AuditLogChangeStream": {"audit_logs"}})) == []


def test_described_columns_that_the_database_lacks_or_has_of_another_type_are_refused() -> None:
    columns = {name: "STRING(36)" if c.type == "STRING" else c.type for name, c in PAYMENTS.columns.items()}
    assert [f.problem for f in unfit_columns(WATCHED, {PAYMENTS.name: columns})] == [""]
    # What a database role may not see is not compared.
    assert list(unfit_columns(WATCHED, {})) == []
    del columns["Region"]
    problems = [f.problem for f in unfit_columns(WATCHED, {PAYMENTS.name: columns | {"Status": "INT64"}}) if f.problem]
    assert "payment_audit_trail.Region must exist" in problems[0]
    assert "payment_audit_trail.Status must be of type STRING to mean 'status', is INT64" in problems[1]


def test_an_index_without_a_shard_reaches_the_job() -> None:
    bank = WatchedTables.load(Path(__file__).parents[1] / "examples" / "bank" / "tables.toml")
    assert WatchedTables.from_json(bank.to_json()).payments.status_index == StatusIndex(name="ledger_by_stage")
    assert named("watchedTables").broken(bank.to_json()) is None
