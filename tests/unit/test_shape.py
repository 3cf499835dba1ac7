"""The simulator's payments in tables that are not the shipped ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest

from contract.watched import WatchedColumn, WatchedTable, WatchedTables
from local.traffic.commits import CommitError
from local.traffic.shape import Shape, TargetColumn
from local.traffic.simulator import COMMIT_TIMESTAMP, Mutation, Operation, Simulator
from pipeline.transforms.cards import is_card
from tests.shipped import PAYMENT_TABLE

TRANSFERS = WatchedTables.load(Path(__file__).parents[1] / "examples" / "transfers" / "tables.toml")
CUSTOMER = WatchedColumn(policy="identifier", means="customer", type="STRING")


def target(name: str, kind: str, *, required: bool = False, stamped: bool = False) -> TargetColumn:
    return TargetColumn(name=name, type=kind, required=required, stamped=stamped)


def described(*columns: TargetColumn, events: bool = False, **described: WatchedColumn) -> Shape:
    key = {"id": WatchedColumn(policy="identifier", means="payment", type="STRING")}
    tables = [WatchedTable(name="t", kind="payments", columns=key | described)]
    tables += [WatchedTable(name="e", kind="events", columns=key)] if events else []
    known = (target("id", "STRING(36)", required=True), *columns)
    return Shape(WatchedTables(tables=tuple(tables)), {"t": known, "e": known})


def fitted(shape: Shape, kind: Any = "insert", *, dead_letter: bool = False, **values: Any) -> Mutation:
    made = Mutation(
        table=PAYMENT_TABLE, kind=kind, values={"PUID": "p", **values}, mod_type="INSERT", dead_letter=dead_letter
    )
    [mutation] = shape.fit(Operation(number=0, mutations=(made,))).mutations
    return mutation


@pytest.mark.parametrize(
    ("meaning", "kind", "given", "expected"),
    [
        ("amount", "NUMERIC", ("Amount", "12.30"), "12.30"),
        ("amount", "FLOAT64", ("Amount", "12.30"), 12.3),
        ("amount", "INT64", ("Amount", "12.30"), "1230"),
        ("retries", "INT64", ("RetryCount", "2"), "2"),
        ("error", "STRING(4)", ("ErrorDetails", "refused"), "refu"),
        ("error", "STRING(MAX)", ("ErrorDetails", "refused"), "refused"),
        ("error", "STRING(4)", ("ErrorDetails", None), None),
        ("changed", "TIMESTAMP", ("UpdatedAt", COMMIT_TIMESTAMP), "2026-11-29T09:00:00Z"),
    ],
)
def test_a_value_is_written_in_the_type_of_the_column_that_means_the_same(
    meaning: Any, kind: str, given: tuple[str, Any], expected: Any
) -> None:
    shape = described(target("x", kind), x=WatchedColumn(policy="scan", means=meaning))
    assert fitted(shape, Timestamp="2026-11-29T09:00:00Z", **dict([given])).values == {"id": "p", "x": expected}


def test_a_commit_timestamp_is_asked_for_where_the_column_takes_one() -> None:
    column = WatchedColumn(policy="scan", means="changed")
    made = fitted(described(target("x", "TIMESTAMP", stamped=True), x=column), UpdatedAt=COMMIT_TIMESTAMP)
    assert made.values["x"] == COMMIT_TIMESTAMP


@pytest.mark.parametrize(
    ("kind", "filler"),
    [("STRING(9)", "-"), ("INT64", "0"), ("FLOAT64", 0.0), ("BOOL", False), ("DATE", "2026-01-01"), ("JSON", "{}")],
)
def test_a_column_that_must_have_a_value_gets_one_once(kind: str, filler: Any) -> None:
    shape = described(target("x", kind, required=True))
    assert fitted(shape).values["x"] == filler
    assert "x" not in fitted(shape, "update").values
    error = described(target("x", "STRING(9)", required=True), x=WatchedColumn(policy="scan", means="error"))
    assert fitted(error, "update", ErrorDetails=None).values["x"] == "-"


def test_a_type_that_the_traffic_cannot_make_is_refused_with_the_column() -> None:
    with pytest.raises(CommitError, match=r"t\.x must have a default, or allow NULL"):
        fitted(described(target("x", "ARRAY<INT64>", required=True)))


def test_a_card_as_a_customer_is_a_dead_letter_only_where_the_customer_is_an_identifier() -> None:
    column = target("c", "STRING(64)")
    assert fitted(described(column, c=CUSTOMER), dead_letter=True).dead_letter
    assert not fitted(described(column, c=replace(CUSTOMER, policy="scan")), dead_letter=True).dead_letter
    assert not fitted(described(), dead_letter=True).dead_letter


def test_a_customer_is_put_where_the_description_looks_for_it() -> None:
    column = WatchedColumn(policy="scan", means="metadata", customer_in=("buyer.id",))
    made = fitted(described(target("m", "JSON"), m=column), Metadata='{"customerId":"c1","n":1}')
    assert orjson.loads(str(made.values["m"])) == {"n": 1, "buyer": {"id": "c1"}}


def test_what_happened_to_a_payment_goes_to_the_events_or_nowhere() -> None:
    made = Mutation(table="audit_logs", kind="insert_or_update", values={"PUID": "p"}, mod_type="INSERT")
    assert described().fit(Operation(number=0, mutations=(made,))).mutations == ()
    [event] = described(events=True).fit(Operation(number=0, mutations=(made,))).mutations
    assert (event.table, event.puid) == ("e", "p")


@pytest.mark.parametrize("kind", ["STRING(36)", "STRING(32)", "INT64"])
def test_a_payment_keeps_its_id_through_its_life_and_no_id_is_a_card_number(kind: str) -> None:
    key = WatchedColumn(policy="identifier", means="payment", type=kind.partition("(")[0])
    tables = WatchedTables(tables=(WatchedTable(name="t", kind="payments", columns={"id": key}),))
    shape = Shape(tables, {"t": (target("id", kind, required=True),)})
    lives: dict[str, set[str]] = {}
    for operation in islice(Simulator(3), 2000):
        shaped = shape.fit(operation)
        lives.setdefault(operation.mutations[0].puid, set()).add(shaped.mutations[0].puid)
    assert all(len(ids) == 1 for ids in lives.values())
    assert len({next(iter(ids)) for ids in lives.values()}) == len(lives)
    assert not [ids for ids in lives.values() if is_card(next(iter(ids)))]
