"""The golden files say what the pipeline does, and docs/types.md what they say."""

import tomllib
from pathlib import Path

import pytest

from contract import spanner_types
from contract.changes import CAPTURE_TYPES
from tests.golden import of_capture, page
from tests.golden import of_types as types


@pytest.mark.parametrize("golden", types.load(), ids=lambda golden: golden.type)
def test_every_value_of_a_type_becomes_what_its_golden_file_has(golden: types.Golden) -> None:
    assert types.made(golden) == golden.values
    assert types.text(golden) == golden.path.read_text()


def test_every_type_that_bigquery_has_has_a_golden_file() -> None:
    files = {golden.type: golden.bigquery for golden in types.load()}
    assert {kind: files.get(kind) for kind in spanner_types.BIGQUERY} == dict(spanner_types.BIGQUERY)


def test_every_loss_of_a_column_is_among_the_exact_values() -> None:
    """Two values of a type that differ, differ in BigQuery: in the column or beside it."""
    for golden in types.load():
        different = {value.spanner for value in golden.values if value.spanner != "0.10000000149011612"}
        kept = {(value.bigquery, value.exact) for value in golden.values}
        assert len(kept) == len(different), golden.type


@pytest.mark.parametrize(("capture", "path"), of_capture.paths().items(), ids=CAPTURE_TYPES)
def test_a_history_in_each_capture_type_becomes_what_its_golden_file_has(capture: str, path: Path) -> None:
    assert of_capture.text(capture) == path.read_text()


def test_what_can_be_the_same_in_every_capture_type_is() -> None:
    """The rows, but for what old values say and for the row that was gone."""
    found = {capture: tomllib.loads(path.read_text())["changes"] for capture, path in of_capture.paths().items()}
    known = ("Status", "Amount", "CustomerId", "payment_state")
    rows = {
        capture: [{name: change["row"].get(name) for name in known} for change in changes[:2]]
        for capture, changes in found.items()
    }
    assert all(each == rows["NEW_ROW_AND_OLD_VALUES"] for each in rows.values())
    complete = found["OLD_AND_NEW_VALUES"]
    assert [complete[at]["row"] for at in (0, 1, 3)] == [found["NEW_ROW_AND_OLD_VALUES"][at]["row"] for at in (0, 1, 3)]
    gone = {capture for capture, changes in found.items() if changes[2]["row"].get("_metadata_spanner_is_incomplete")}
    assert gone == {"NEW_VALUES", "OLD_AND_NEW_VALUES"}


def test_the_page_of_types_has_what_the_golden_files_have() -> None:
    assert page.written(page.PATH.read_text()) == page.PATH.read_text(), "run `make docs`"
