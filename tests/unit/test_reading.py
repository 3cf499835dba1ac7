"""The model of what a question reads, against tables that are really laid out in blocks."""

from __future__ import annotations

import bisect
import random

import pytest

from components.config import ROOT
from contract import queries, reading
from contract.reading import LEAST, QUESTIONS, Asked, Layout, Part
from tests.shipped import WATCHED

# Blocks and rows are smaller here than BigQuery's; their number, and how many are touched, is what matters.
LAYOUTS = {
    "a quiet stack: a day is less than a block": Layout(
        changes_per_second=0.01, days=60, row_bytes=2000, block_bytes=32 * 2**20
    ),
    "a year of days of a few blocks": Layout(changes_per_second=0.5, days=365, row_bytes=2000, block_bytes=16 * 2**20),
    "busy days of many blocks": Layout(changes_per_second=1, days=30, row_bytes=2000, block_bytes=2 * 2**20),
}


class Table:
    """A table of random keys, each partition sorted and cut into blocks, as clustering leaves it."""

    def __init__(self, layout: Layout, columns: int) -> None:
        chance = random.Random(7)
        rows, row_bytes = int(layout.changes_a_day), layout.row_bytes
        in_block = max(1, layout.block_bytes // row_bytes)
        self._columns = columns
        self.days = [sorted(chance.random() for _ in range(rows)) for _ in range(30)]
        self._cuts = [day[::in_block] for day in self.days]
        self._in_block = in_block

    def reads(self, days: int, keys: list[float]) -> int:
        """Bytes of the named columns in the blocks that may have a key: by each block's least and greatest value."""
        read = 0
        for day, cuts in zip(self.days[:days], self._cuts, strict=False):
            touched = {max(0, bisect.bisect_right(cuts, key) - 1) for key in keys}
            read += sum(len(day[b * self._in_block : (b + 1) * self._in_block]) for b in touched) * self._columns
        return read

    def reads_range(self, days: int, low: float, high: float) -> int:
        """The same of the blocks that may have a key of a range."""
        read = 0
        for day, cuts in zip(self.days[:days], self._cuts, strict=False):
            first, last = (max(0, bisect.bisect_right(cuts, key) - 1) for key in (low, high))
            rows = day[first * self._in_block : (last + 1) * self._in_block]
            read += len(rows) * self._columns
        return read


@pytest.fixture(scope="module")
def laid_out() -> dict[str, Table]:
    return {name: Table(layout, 280) for name, layout in LAYOUTS.items()}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5])
def test_the_model_of_a_range_of_keys_is_what_blocks_say(laid_out: dict[str, Table], name: str, share: float) -> None:
    layout, chance = LAYOUTS[name], random.Random(f"{name}{share}")
    table, days = laid_out[name], 30
    begins = [chance.random() * (1 - share) for _ in range(40)]
    measured = max(LEAST, sum(table.reads_range(days, low, low + share) for low in begins) / len(begins))
    part = Part(source="changes", columns=280, partitions=days, payments=round(layout.payments * share))
    assert part.reads(layout, Asked()).reads == pytest.approx(measured, rel=0.3)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(("days", "keys"), [(1, 1), (15, 1), (15, 50), (30, 10)])
def test_the_model_is_what_blocks_say(laid_out: dict[str, Table], name: str, days: int, keys: int) -> None:
    layout, chance = LAYOUTS[name], random.Random(f"{name}{days}{keys}")
    table = laid_out[name]
    rounds = [table.reads(days, [chance.random() for _ in range(keys)]) for _ in range(20)]
    measured = max(LEAST, sum(rounds) / len(rounds))
    part = Part(source="changes", columns=280, partitions=days, keys=keys)
    model = part.reads(layout, Asked())
    assert model.reads == pytest.approx(measured, rel=0.25)
    assert model.at_most == pytest.approx(max(LEAST, sum(map(len, table.days[:days])) * 280), rel=0.01)


def test_what_is_found_by_a_key_costs_the_same_after_ten_years() -> None:
    year, decade = Layout(), Layout(days=3650)
    for question in ("search by payment", "search by customer or card", "timeline", "days_of_payment"):
        assert reading.of(question, decade).reads == pytest.approx(reading.of(question, year).reads, rel=0.05)
    assert reading.of("merge of payment_state", decade).reads > 9 * reading.of("merge of payment_state", year).reads


def test_a_question_is_refused_by_what_bigquery_says_beforehand() -> None:
    """Which knows nothing of clustering: a limit by what is really read would refuse every search."""
    layout = Layout()
    for question in QUESTIONS:
        found = reading.of(question, layout)
        assert found.reads <= found.at_most < reading.limit(question, layout, Asked())


def test_every_prebuilt_query_and_page_says_what_it_reads() -> None:
    assert set(queries.names()) <= QUESTIONS.keys()
    for name in queries.queries(WATCHED):
        assert "Reads about" in queries.table_function(name, "p", WATCHED).description
    assert reading.table() in (ROOT / "docs" / "cost.md").read_text()


@pytest.mark.parametrize(
    ("number", "text"),
    [(10 * 2**20, "10 MiB"), (1.5 * 2**30, "1.5 GiB"), (999 * 2**30, "999 GiB"), (1.5 * 2**40, "1.5 TiB")],
)
def test_bytes_are_shown_as_people_read_them(number: float, text: str) -> None:
    assert reading.shown(number) == text
