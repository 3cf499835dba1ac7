"""What a living table is changed to: nothing that the job added is lost, nothing that the views read is absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from components import bigquery_schema
from components.bigquery_schema import SchemaUnknownError, schema
from contract import tables
from contract.tables import Field
from graph.google import looked_up
from graph.resources import graph_of
from tests.shipped import WATCHED

FIELDS = (
    Field("PUID", "STRING"),
    Field("Retries", "INT64", description="Tries"),
    Field("arrived_at", "TIMESTAMP", default="CURRENT_TIMESTAMP()"),
)


def columns(text: str) -> list[tuple[str, str]]:
    return [(column["name"], column["type"]) for column in json.loads(text)]


def as_answered(text: str) -> list[dict[str, Any]]:
    """A schema as BigQuery's API answers it: with the older names of types, without what is empty."""
    older = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}
    said = [{k: v for k, v in column.items() if v and v != {"names": []}} for column in json.loads(text)]
    return [{k: older.get(v, v) if isinstance(v, str) else v for k, v in column.items()} for column in said]


def test_a_new_table_has_the_columns_of_the_contract() -> None:
    made = json.loads(schema(FIELDS))
    assert [column["name"] for column in made] == ["PUID", "Retries", "arrived_at"]
    assert made[2]["defaultValueExpression"] == "CURRENT_TIMESTAMP()"


@pytest.mark.parametrize("table", tables.all_tables(WATCHED), ids=lambda table: table.id)
def test_a_table_that_is_as_the_contract_says_is_asked_for_as_before(table: tables.Table) -> None:
    """Else every preview would show a change."""
    first = schema(table.fields)
    assert schema(table.fields, as_answered(first)) == first


def test_a_column_of_a_later_changeset_comes_after_those_that_are_there() -> None:
    there = as_answered(schema(FIELDS))
    later = (FIELDS[0], Field("Channel", "STRING"), *FIELDS[1:], Field("seen_at", "TIMESTAMP", default="NOW"))
    made = json.loads(schema(later, there))
    assert [column["name"] for column in made] == ["PUID", "Retries", "arrived_at", "Channel", "seen_at"]
    # BigQuery takes no default with a further column of a living table.
    assert "defaultValueExpression" not in made[4]
    assert made[2]["defaultValueExpression"] == "CURRENT_TIMESTAMP()"


def test_what_the_job_added_stays() -> None:
    there = [*as_answered(schema(FIELDS)), {"name": "ByTheJob", "type": "FLOAT", "mode": "NULLABLE"}]
    assert columns(schema(FIELDS, there))[-1] == ("ByTheJob", "FLOAT64")


def test_a_column_keeps_the_type_and_the_spelling_that_it_has() -> None:
    """Another type would mean another table; the sink writes such values to their own column."""
    there = [{"name": "puid", "type": "STRING"}, {"name": "Retries", "type": "STRING"}]
    assert columns(schema(FIELDS[:2], there)) == [("puid", "STRING"), ("Retries", "STRING")]
    assert json.loads(schema(FIELDS[:2], there))[1]["description"] == "Tries"


def test_personal_columns_carry_the_policy_tag_also_where_they_are_there_already() -> None:
    fields = (Field("PUID", "STRING"), Field("CustomerId", "STRING", personal=True))
    for there in ([], as_answered(schema(fields))):
        made = json.loads(schema(fields, there, personal="taxonomies/1/policyTags/2"))
        assert [column.get("policyTags") for column in made] == [None, {"names": ["taxonomies/1/policyTags/2"]}]


def test_a_policy_tag_is_taken_off_where_nobody_is_named_any_more() -> None:
    """BigQuery leaves a tag that an update says nothing of: a column would stay closed to everybody."""
    personal, plain = Field("CustomerId", "STRING", personal=True), Field("CustomerId", "STRING")
    there = as_answered(schema([personal], personal="taxonomies/1/policyTags/2"))
    for field in (personal, plain):
        assert json.loads(schema([field], there))[0]["policyTags"] == {"names": []}
    # A table that the job does not widen is not looked up.
    assert json.loads(schema([personal]))[0]["policyTags"] == {"names": []}
    assert "policyTags" not in json.loads(schema([plain]))[0]


def _answering(error: str) -> Any:
    def get_table(**_: Any) -> Any:
        raise Exception(error)

    return get_table


@pytest.mark.parametrize(
    "error",
    [
        "projects/p/datasets/payment_audit/tables/t not found",
        "googleapi: Error 404: Not found: Dataset p:payment_audit",
        "googleapi: Error 403: BigQuery API has not been used in project 1 before or it is disabled. SERVICE_DISABLED",
    ],
)
def test_a_table_that_is_not_there_has_no_columns(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    monkeypatch.setattr("components.bigquery_schema.bigquery.get_table", _answering(error))
    assert bigquery_schema.columns_of(None, "p", tables.resume_positions(WATCHED)) == []  # type: ignore[arg-type]


def test_a_table_that_cannot_be_looked_at_is_not_taken_for_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "components.bigquery_schema.bigquery.get_table", _answering("googleapi: Error 403: Access Denied")
    )
    with pytest.raises(SchemaUnknownError, match=r"resume_positions must be known .* roles/bigquery\.metadataViewer"):
        bigquery_schema.columns_of(None, "p", tables.resume_positions(WATCHED))  # type: ignore[arg-type]


def test_only_what_somebody_else_widens_is_looked_up() -> None:
    asked = []

    def look(function: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if not function.startswith("gcp:bigquery/getTable"):
            return looked_up(function)
        asked.append(f"{inputs['datasetId']}.{inputs['tableId']}")
        return {"schema": json.dumps([{"name": "ByTheJob", "type": "STRING", "mode": "NULLABLE"}])}

    graph = graph_of("dev", look=look)
    widened = {t.id for t in tables.changelogs(WATCHED).values()} | {tables.payment_state_table(WATCHED).id}
    assert sorted(asked) == sorted(widened)
    for node in graph.of("Table"):
        if node.name in widened:
            assert columns(node.inputs["schema"])[0] == ("ByTheJob", "STRING")
            assert not node.options.ignoreChanges
