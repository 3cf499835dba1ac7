"""A stack on a payments database that others own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components import config
from contract import schema
from contract.watched import WatchedTables
from delivery import schema as delivery
from graph.resources import Graph
from guardrails import rules
from local.emulators.launch import INSTANCE, PROJECT
from tests.infra.graphs import graph_of

TABLES = "tests/examples/bank/tables.toml"
WATCHED = WatchedTables.load(config.ROOT / TABLES)
EXISTING: dict[str, Any] = {
    "schemaOwner": "existing",
    "spannerProject": "bank-payments",
    "spannerInstance": "core",
    "spannerDatabase": "ledger-db",
    "metadataProcessingUnits": 100,
    "tables": TABLES,
    "runbooksUrl": "https://git.example.com/runbooks",
}


@pytest.fixture(scope="module", params=["dev", "prod"])
def graph(request: pytest.FixtureRequest) -> Graph:
    return graph_of(request.param, EXISTING)


def test_nothing_of_their_database_is_a_resource(graph: Graph) -> None:
    theirs = ("core", "ledger-db", "bank-payments")
    spanner = [node for node in graph.nodes if node.type.startswith("gcp:spanner/")]
    assert [node.name for node in spanner if node.kind in ("Instance", "Database")] == [
        "audit-metadata-instance", "audit-metadata",
    ]  # fmt: skip
    assert [node.id for node in spanner if any(value in theirs for value in node.inputs.values())] == []
    assert graph.of("BackupSchedule") == []
    assert list(rules.payments_of_others_stay_theirs(graph)) == []


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_it_keeps_every_rule(graph: Graph, rule: rules.Rule) -> None:
    assert list(rule(graph)) == []


def test_the_job_reads_there_and_keeps_its_metadata_here(graph: Graph) -> None:
    given = graph.one("FlexTemplateJob").inputs["parameters"]
    place = {key: given[key] for key in given if key.startswith("spanner")}
    assert place == {
        "spannerProjectId": "bank-payments",
        "spannerInstanceId": "core",
        "spannerDatabase": "ledger-db",
        "spannerDatabaseRole": "audit_reader",
        "spannerChangeStreamNames": "ledger_changes",
        "spannerMetadataProjectId": graph.config["project"],
        "spannerMetadataInstanceId": "audit-metadata-instance",
        "spannerMetadataDatabase": "audit-metadata",
    }
    known = graph.outputs
    assert (known["spannerProject"], known["databaseRoles"]) == ("bank-payments", "true")


def test_the_metadata_may_be_in_an_instance_that_is_there() -> None:
    graph = graph_of("dev", {**EXISTING, "metadataProcessingUnits": 0, "metadataInstance": "shared"})
    assert graph.of("Instance") == []
    assert graph.one("Database").inputs["instance"] == "shared"
    assert list(rules.payments_of_others_stay_theirs(graph)) == []


# ---------------------------------------------------------------------- what its owners are given


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stack whose file says that others own the database."""
    values = {**config.stack_config("dev"), **EXISTING}
    monkeypatch.setattr(delivery, "stack_config", lambda _: values)
    return values


def test_the_file_for_its_owners_is_a_script_that_adds_and_grants(
    stack: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert delivery.run(["owners", "-s", "dev"]) == 0
    script = capsys.readouterr().out
    # As the shell reads it: a command a line, and `gcloud` alone.
    stub = tmp_path / "gcloud"
    stub.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done; echo\n')
    stub.chmod(0o755)
    run = subprocess.run(
        ["/bin/sh"], input=script, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    [ddl, *grants] = [line.split("\0")[:-1] for line in run.stdout.split("\0\n")[:-1] for line in [f"{line}\0"]]
    assert ddl[:4] == ["spanner", "databases", "ddl", "update"]
    assert {"ledger-db", "--instance=core", "--project=bank-payments"} <= set(ddl)
    [given] = [word.removeprefix("--ddl=") for word in ddl if word.startswith("--ddl=")]
    there = schema.read([*schema.statements(WATCHED.source_changelog), *schema.split(given)])
    assert there.roles == {"audit_reader", "audit_probe", "audit_validation"}
    assert there.streams()["ledger_changes"].tables == ("ledger", "ledger_steps")
    # The stub's `describe` finds the role, so nothing of it is printed; where it does not, the script makes it.
    assert "roles create auditDdlReader --project=bank-payments" in script
    assert "--permissions=spanner.databases.getDdl" in script
    assert len(grants) == 7
    assert all(grant[2] == "add-iam-policy-binding" and "ledger-db" in grant for grant in grants)
    roles = {(grant[-3].rpartition(":")[2].partition("@")[0], grant[-2]) for grant in grants}
    assert roles == {
        *(
            (account, f"--role=roles/spanner.{role}")
            for account in ("dataflow-sa", "probe-sa", "validation-sa")
            for role in ("fineGrainedAccessUser", "databaseRoleUser")
        ),
        ("schema-sa", "--role=projects/bank-payments/roles/auditDdlReader"),
    }
    for forbidden in ("DROP", "ALTER", "DELETE", "delete", "remove-iam"):
        assert forbidden not in given + str(grants)


def test_what_is_there_is_left_out_of_the_file(
    stack: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert delivery.run(["owners", "-s", "dev", "--statements"]) == 0
    all_of_it = capsys.readouterr().out
    described = tmp_path / "described by them.txt"
    described.write_text(WATCHED.source_changelog.read_text() + all_of_it.replace("CREATE ROLE audit_probe;\n", ""))
    assert delivery.run(["owners", "-s", "dev", "--statements", f"--ddl={described}"]) == 0
    assert capsys.readouterr().out == "CREATE ROLE audit_probe;\n"
    described.write_text(WATCHED.source_changelog.read_text() + all_of_it)
    assert delivery.run(["verify", "-s", "dev", f"--ddl={described}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["state"] for each in found["findings"]} == {"there"}
    described.write_text(WATCHED.source_changelog.read_text())
    assert delivery.run(["verify", "-s", "dev", f"--ddl={described}"]) == 1


def test_a_stream_of_theirs_that_does_not_fit_is_said_and_not_made_again(
    stack: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    described = tmp_path / "described.ddl"
    described.write_text(f"{WATCHED.source_changelog.read_text()}CREATE CHANGE STREAM ledger_changes FOR ledger;")
    assert delivery.run(["owners", "-s", "dev", f"--ddl={described}"]) == 0
    script = capsys.readouterr().out
    assert "NOT AS IT IS: change stream ledger_changes: it does not watch ledger_steps" in script
    assert "CREATE CHANGE STREAM `ledger_changes`" not in script.partition("gcloud")[2]
    assert delivery.run(["owners", "-s", "dev", f"--ddl={described}", "--statements"]) == 0
    assert "CHANGE STREAM `ledger_changes` FOR" not in capsys.readouterr().out


def test_a_stack_that_makes_its_database_has_no_owners_to_ask(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("owners", "fetch"):
        assert delivery.run([command, "-s", "dev"]) == 1
        assert "schemaOwner of dev must be existing" in capsys.readouterr().err


# ---------------------------------------------------------------------- against a database that answers


def test_the_ddl_is_fetched_and_drift_is_named(
    stack: dict[str, Any],
    spanner_emulator: str,
    spanner_client: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    database = spanner_client.instance(INSTANCE).database(
        "theirs", ddl_statements=schema.statements(WATCHED.source_changelog)
    )
    database.create().result(60)
    (tmp_path / "bank.ddl").write_text("")
    description = tmp_path / "tables.toml"
    description.write_text((config.ROOT / TABLES).read_text())
    place = {"spannerProject": PROJECT, "spannerInstance": INSTANCE, "spannerDatabase": "theirs"}
    # Without roles: the emulator has none.
    stack |= {**place, "spannerEndpoint": spanner_emulator, "schemaContexts": [], "tables": str(description)}
    monkeypatch.setattr(delivery, "ROOT", tmp_path)
    assert delivery.run(["fetch", "-s", "dev"]) == 0
    assert schema.statements(tmp_path / "bank.ddl") == list(
        spanner_client.database_admin_api.get_database_ddl(database=database.name).statements
    )
    capsys.readouterr()
    assert delivery.run(["verify", "-s", "dev", "--json"]) == 1
    states = {each["what"].split("`")[0]: each["state"] for each in json.loads(capsys.readouterr().out)["findings"]}
    assert states == {"CREATE CHANGE STREAM ": "missing", "CREATE INDEX ": "missing"}
    assert delivery.run(["owners", "-s", "dev", "--statements"]) == 0
    database.update_ddl(schema.split(capsys.readouterr().out)).result(60)
    assert delivery.run(["verify", "-s", "dev"]) == 0
    database.update_ddl(["ALTER TABLE ledger DROP COLUMN weight"]).result(60)
    capsys.readouterr()
    assert delivery.run(["verify", "-s", "dev", "--json"]) == 1
    found = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["state"] != "there"]
    assert [(each["what"], each["state"]) for each in found] == [("column ledger.weight", "missing")]
    database.drop()
    assert delivery.run(["verify", "-s", "dev"]) == 2
    assert "gcloud spanner databases ddl describe theirs" in capsys.readouterr().err


def test_a_managed_database_is_verified_too(
    spanner_emulator: str,
    spanner_client: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = spanner_client.instance(INSTANCE).database("audit-managed", ddl_statements=schema.statements())
    database.create().result(60)
    managed = {"project": PROJECT, "spannerEndpoint": spanner_emulator, "schemaContexts": []}
    values = {**config.stack_config("dev"), **managed}
    monkeypatch.setattr(delivery, "stack_config", lambda _: values)
    monkeypatch.setattr("components.naming.AUDIT_DATABASE", "audit-managed")
    assert delivery.run(["verify", "-s", "dev", "--json"]) == 0
    database.update_ddl(["ALTER TABLE audit_logs ADD COLUMN Channel STRING(9)"]).result(60)
    capsys.readouterr()
    assert delivery.run(["verify", "-s", "dev", "--json"]) == 0
    more = {"state": "unexpected", "what": "column audit_logs.Channel", "detail": "STRING(9)"}
    assert json.loads(capsys.readouterr().out)["findings"] == [more]
    database.update_ddl(["DROP CHANGE STREAM AuditLogChangeStream"]).result(60)
    assert delivery.run(["verify", "-s", "dev", "--json"]) == 1
    gone = {"state": "missing", "what": "change stream AuditLogChangeStream", "detail": ""}
    assert json.loads(capsys.readouterr().out)["findings"] == [gone, more]
    database.drop()


# ---------------------------------------------------------------------- of the other dialect


def test_a_database_of_theirs_in_postgresql_has_a_file_in_its_dialect(
    stack: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bank = config.ROOT / "tests" / "examples" / "bank"
    described = tmp_path / "tables.toml"
    described.write_text((bank / "tables.toml").read_text().replace("bank.ddl", "bank_postgresql.ddl"))
    theirs = (bank / "bank_postgresql.ddl").read_text()
    (tmp_path / "bank_postgresql.ddl").write_text(theirs)
    stack["tables"] = str(described)
    watched = WatchedTables.load(described)
    types = {name: column.type for name, column in watched.payments.columns.items()}
    assert (types["amount"], types["details"], types["touched"]) == ("PG_NUMERIC", "PG_JSONB", "TIMESTAMP")
    assert delivery.run(["owners", "-s", "dev", "--statements"]) == 0
    given = capsys.readouterr().out
    assert 'CREATE CHANGE STREAM "ledger_changes" FOR "ledger", "ledger_steps" WITH (' in given
    assert 'GRANT EXECUTE ON FUNCTION spanner."read_json_ledger_changes" TO audit_reader;' in given
    assert "`" not in given
    there = tmp_path / "described.ddl"
    there.write_text(theirs + given)
    assert delivery.run(["verify", "-s", "dev", f"--ddl={there}", "--json"]) == 0
    assert {each["state"] for each in json.loads(capsys.readouterr().out)["findings"]} == {"there"}
    # A stream of theirs that has mutable key ranges keeps them, and has another read function.
    made = given.partition(";")[0].replace(" WITH (", " WITH (partition_mode = 'MUTABLE_KEY_RANGE', ")
    there.write_text(f"{theirs}{made};\n")
    assert delivery.run(["owners", "-s", "dev", "--statements", f"--ddl={there}"]) == 0
    further = capsys.readouterr().out
    assert "CREATE CHANGE STREAM" not in further and "read_json_" not in further
    assert 'GRANT EXECUTE ON FUNCTION spanner."read_proto_bytes_ledger_changes" TO audit_reader;' in further
    there.write_text(f"{theirs}{made};\n{further}")
    assert delivery.run(["verify", "-s", "dev", f"--ddl={there}", "--json"]) == 0
    assert {each["state"] for each in json.loads(capsys.readouterr().out)["findings"]} == {"there"}
    there.write_text(
        theirs + given.replace("NEW_ROW_AND_OLD_VALUES", "NEW_ROW").replace("CREATE ROLE audit_probe;", "")
    )
    assert delivery.run(["verify", "-s", "dev", f"--ddl={there}", "--json"]) == 1
    found = {each["what"]: each["state"] for each in json.loads(capsys.readouterr().out)["findings"]}
    assert found["CREATE ROLE audit_probe"] == "missing"


def test_the_draft_of_a_description_is_the_same_in_both_dialects(capsys: pytest.CaptureFixture[str]) -> None:
    drafts = []
    for ddl in ("bank.ddl", "bank_postgresql.ddl"):
        file = config.ROOT / "tests" / "examples" / "bank" / ddl
        assert delivery.run(["draft", str(file), "--payments", "ledger", "--events", "ledger_steps"]) == 0
        drafts.append(capsys.readouterr().out.replace(ddl, "the.ddl"))
    assert drafts[0] == drafts[1] != ""
