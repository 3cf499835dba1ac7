"""A stack that names another description of the watched tables: everything in its graph follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.config import stack_config
from components.settings import Settings, SettingsError
from contract.watched import WatchedTables
from delivery.assumptions import Assumptions
from delivery.cost import estimate
from delivery.prices import Prices
from graph.resources import IMAGE, Graph
from tests.infra.graphs import graph_of

NAME = "tests/examples/transfers/tables.toml"
TRANSFERS = WatchedTables.load(Path(__file__).parents[2] / NAME)


@pytest.fixture(scope="module")
def graph() -> Graph:
    reader = "group:support-leads@example.com"
    return graph_of("dev", {"tables": NAME, "readers": [reader], "personalDataReaders": [reader]})


def test_the_database_has_the_statements_of_its_changelog(graph: Graph) -> None:
    statements = graph.one("Database", "audit-db").inputs["ddls"]
    assert [s.split("(")[0].split("\n")[0].strip() for s in statements] == [
        "CREATE TABLE transfers",
        "CREATE CHANGE STREAM TransferChanges",
    ]


def test_the_warehouse_is_laid_out_as_described(graph: Graph) -> None:
    assert {node.inputs["datasetId"] for node in graph.of("Dataset")} == {
        "bank_audit",
        "payment_backups",
        "payment_restored",
        "payment_views",
        "payment_access",
    }
    changelog = graph.one("Table", "bank_audit.transfers_log").inputs
    assert changelog["timePartitioning"]["type"] == "MONTH"
    assert changelog["clusterings"] == ["transfer_no", "branch"]
    state = graph.one("Table", "bank_audit.payment_state").inputs
    assert state["clusterings"] == ["transfer_no"]
    # The job widens both, so both keep what they have.
    assert [c["name"] for c in json.loads(state["schema"])] == [c["name"] for c in json.loads(changelog["schema"])]


def test_personal_columns_are_those_of_the_description(graph: Graph) -> None:
    columns = json.loads(graph.one("Table", "bank_audit.transfers_log").inputs["schema"])
    assert {column["name"] for column in columns if "policyTags" in column} == {
        *("source_customer_id", "clerk", "payer_token"),
        *("customer_id", "acting_user", "_metadata_spanner_old_values", "_metadata_spanner_exact_values"),
    }


def test_the_merge_and_the_probe_have_their_tables(graph: Graph) -> None:
    sql = "".join(node.inputs["params"]["query"] for node in graph.of("DataTransferConfig"))
    assert "bank_audit.transfers_log`" in sql
    assert "payment_audit" not in sql
    granted = {node.inputs["tableId"] for node in graph.of("IamMember") if "tableId" in node.inputs}
    merged = {"transfers_log", "payment_state", "payment_state_progress", "payment_lookup", "resume_positions"}
    assert granted == merged | {"stuck_payments_seen", "access_log"}


def test_the_job_and_the_connection_have_the_description(graph: Graph) -> None:
    parameters = graph.one("FlexTemplateJob").inputs["parameters"]
    assert WatchedTables.from_json(parameters["watchedTables"]) == TRANSFERS
    assert parameters["spannerChangeStreamNames"] == "TransferChanges"
    assert WatchedTables.from_json(graph.outputs["watchedTables"]) == TRANSFERS


def test_its_cost_is_that_of_its_tables(graph: Graph) -> None:
    lines = [line.what for line in estimate(graph, Prices.load(), Assumptions()).lines]
    assert "bank_audit.transfers_log" in lines
    assert "bank_audit.payment_state" in lines


def refused(tables: str) -> str:
    values: dict[str, Any] = {**stack_config("dev"), "image": IMAGE, "tables": tables}
    with pytest.raises(SettingsError) as error:
        Settings.parse("dev", {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}.get)
    return str(error.value)


def test_a_description_that_does_not_fit_is_refused_in_the_preview(tmp_path: Path) -> None:
    broken = tmp_path / "tables.toml"
    text = (Path(__file__).parents[2] / NAME).read_text()
    broken.write_text(
        text.replace('"sql/', f'"{TRANSFERS.source_changelog.parent}/').replace("from_pan =", "from_card =")
    )
    said = refused(str(broken))
    assert "tables.transfers.columns must be columns of transfers" in said
    assert "got 'from_card'. Add a changeset for the column, or take the line out." in said
    assert "nowhere.toml cannot be read" in refused("nowhere.toml")
    assert "tables must be the path of a .toml file" in refused("tables.yaml")
