"""Gathering: rows of a shard by schema and by bytes, and when they go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from apache_beam.pvalue import TaggedOutput

from contract.changes import Change, Column, DeadLetter, Reason
from pipeline.sink import rows
from pipeline.sink.append import AppendRows
from pipeline.sink.encode import EncodedRows, EncodeRows
from tests.shipped import PAYMENTS, WATCHED
from tests.unit.sink_twin import COLUMNS, TABLE, Refusal, Twin, batch, change

KEY = f"{TABLE}|0"


class Cell:
    """A state cell."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def read(self) -> Any:
        return self.value

    def write(self, value: Any) -> None:
        self.value = value


class Step:
    """AppendRows with its state of one shard, and a twin behind it."""

    def __init__(self) -> None:
        self.twin = Twin()
        self.step = AppendRows(Settings(self.twin))  # type: ignore[arg-type]
        self.step.setup()
        self.cell = Cell()

    def bundle(self, *changes: Change) -> list[DeadLetter]:
        """A bundle of changes, each an element: its dead letters."""
        return self.elements(encoded for change in changes for encoded in encode(change))

    def elements(self, elements: Iterable[EncodedRows]) -> list[DeadLetter]:
        self.step.start_bundle()
        letters = [letter for each in elements for letter in _letters(self.step.process((KEY, each), self.cell))]
        return letters + _letters(self.step.finish_bundle())


class Settings:
    def __init__(self, twin: Twin) -> None:
        self._twin = twin

    def connect(self) -> Any:
        return self._twin.clients()


def _letters(outputs: Any) -> list[DeadLetter]:
    found = []
    for output in outputs:
        assert isinstance(output, TaggedOutput)
        letter = output.value.value
        assert output.value.timestamp.to_rfc3339()[:19] == letter.coordinates.commit_timestamp[:19]
        found.append(letter)
    return found


def encode(*changes: Change) -> list[EncodedRows]:
    """As EncodeRows gives them: a batch for each set of columns."""
    step = EncodeRows(WATCHED, shards=1, most_rows=1000)
    step.begin()
    outputs = [o for c in changes for o in step.add(c)] + list(step.end())
    return [o.value[1] for o in outputs]


def of(kind: str, name: str = "X") -> tuple[Column, ...]:
    return (*COLUMNS, Column(name, kind, False))


@pytest.mark.parametrize(
    ("before", "after", "old", "new", "column", "arrives"),
    [
        ("INT64", "STRING", "7", "seven", "X_string", (7, "seven")),
        ("STRING", "BYTES", "text", "AAE=", "X_bytes", ("text", b"\x00\x01")),
        ("BYTES", "STRING", "AAE=", "text", "X_string", (b"\x00\x01", "text")),
        ("STRING", "JSON", "text", '{"a":1}', "X_json", ("text", '{"a":1}')),
        ("STRING", "ARRAY<STRING>", "text", ["a"], "X_string", ("text", ["a"])),
        ("FLOAT64", "NUMERIC", 0.5, "0.5", "X_numeric", (0.5, pytest.approx(0.5))),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_rows_of_before_and_after_a_type_change_both_arrive_from_one_bundle(
    before: str,
    after: str,
    old: Any,
    new: Any,
    column: str,
    arrives: tuple[Any, Any],
    turned: bool,
) -> None:
    step = Step()
    step.bundle(change("p0", of(before), X=old))
    pair = [change("old", of(before), X=old), change("new", of(after), X=new)]
    assert step.bundle(*(reversed(pair) if turned else pair)) == []
    values, typed = step.twin.values("X"), step.twin.values(column)
    assert values["old"] == arrives[0]
    # A column that a request does not name is NULL, or empty: BigQuery's ARRAY is never NULL.
    assert typed["old"] in (None, [])
    assert (values["new"], typed["new"]) == (None, arrives[1])


def test_old_text_stays_in_the_old_column_when_the_type_becomes_json() -> None:
    step = Step()
    assert step.bundle(change("old", of("STRING"), X="not json"), change("new", of("JSON"), X="{}")) == []
    assert step.twin.values("X") == {"old": "not json", "new": None}


def test_rows_of_before_a_new_array_are_empty_there_and_not_null() -> None:
    step = Step()
    sent: list[Any] = []
    step.twin.before_append = sent.append
    assert step.bundle(change("old"), change("new", of("ARRAY<INT64>", "Tags"), Tags=["1"])) == []
    assert step.twin.values("Tags")["new"] == [1]
    assert ["Tags" in arrow.column_names for arrow in sent] == [False, True]


def test_a_column_dropped_in_spanner_stays_and_is_null_from_then_on_and_nothing_restarts() -> None:
    step = Step()
    step.bundle(change("old", of("STRING"), X="kept"))
    late = change("late", of("STRING"), X="of before the drop")
    assert step.bundle(change("new"), late) == []
    assert step.twin.values("X") == {"old": "kept", "new": None, "late": "of before the drop"}


def test_what_a_bundle_brings_of_a_shard_goes_in_one_append() -> None:
    """Of several readers, and what came while an append ran: a runner has it in one bundle."""
    step = Step()
    step.bundle(*(change(f"p{i}") for i in range(5)))
    assert set(step.twin.there()) == {f"p{i}" for i in range(5)}
    assert step.twin.counts["request"] == 1


def test_a_refused_row_of_one_schema_does_not_hold_up_rows_of_the_other() -> None:
    step = Step()

    def before(arrow: Any) -> None:
        if "bad" in arrow["PUID"].to_pylist():
            raise Refusal(3, "invalid", ends=True)

    step.twin.before_append = before
    [letter] = step.elements(encode(change("bad"), change("p1"), change("p2", of("STRING"))))
    assert (letter.reason, set(step.twin.there())) == (Reason.REJECTED, {"p1", "p2"})


def test_a_row_that_is_too_large_is_a_dead_letter_that_says_so() -> None:
    step = Step()
    [letter] = step.bundle(change("p1", Metadata="x" * 11_000_000))
    assert letter.reason == Reason.TOO_LARGE == "row_too_large"
    assert "shorten" in letter.message


def test_rows_of_many_bytes_do_not_wait_for_the_end_of_the_bundle() -> None:
    step = Step()
    there: list[set[str]] = []

    def elements() -> Iterator[EncodedRows]:
        for i in range(6):
            there.append(set(step.twin.there()) if step.twin.tables else set())
            yield from encode(change(f"p{i}", Metadata="x" * 2_000_000))

    assert step.elements(elements()) == []
    assert [len(each) for each in there] == [0, 0, 0, 0, 4, 4]
    assert set(step.twin.there()) == {f"p{i}" for i in range(6)}


def test_the_appends_of_a_shard_are_to_one_stream_whose_position_is_kept() -> None:
    step = Step()
    step.bundle(change("p1"))
    first = step.cell.value
    step.bundle()
    assert step.cell.value == first
    step.bundle(change("p2"), change("p3"))
    second = step.cell.value
    assert first[0] == second[0]
    assert (first[1], second[1]) == (1, 3)
    assert step.twin.counts["create_write_stream"] == 1


def test_rows_that_were_encoded_by_another_version_do_not_meet_those_of_this_one() -> None:
    narrow = batch(change("p1")).drop_columns(["Metadata"])
    other = rows.to_bytes(narrow.to_batches()[0])
    mine = rows.to_bytes(batch(change("p2")).to_batches()[0])
    found = rows.groups([(COLUMNS, other), (COLUMNS, mine), (COLUMNS, other)])
    assert [table.num_rows for _, table in found] == [2, 1]


# ---------------------------------------------------------------------- EncodeRows


def encoded(step: EncodeRows, *changes: Change) -> list[int]:
    """Rows of each batch that leaves."""
    step.begin()
    outputs = [o for c in changes for o in step.add(c)] + list(step.end())
    return [rows.merge([o.value[1].data]).num_rows for o in outputs]


def test_large_rows_leave_in_batches_of_bounded_bytes() -> None:
    step = EncodeRows(WATCHED, shards=1, most_rows=500, most_bytes=4_000_000)
    assert encoded(step, *(change(f"p{i}", Metadata="x" * 1_500_000) for i in range(6))) == [2, 2, 2]


def test_a_giant_row_leaves_alone() -> None:
    step = EncodeRows(WATCHED, shards=1, most_rows=500, most_bytes=4_000_000)
    giant = change("giant", Metadata="x" * 10_000_000)
    assert encoded(step, change("p1"), giant, change("p2"), change("p3")) == [1, 1, 2]


def test_the_values_before_a_change_weigh_too() -> None:
    step = EncodeRows(WATCHED, shards=1, most_rows=500, most_bytes=4_000_000)
    changes = [change(f"p{i}") for i in range(4)]
    for each in changes:
        each.old = {"Metadata": "x" * 2_500_000}
    assert encoded(step, *changes) == [1, 1, 1, 1]


def test_small_rows_are_still_bounded_by_their_number() -> None:
    step = EncodeRows(WATCHED, shards=1, most_rows=3)
    assert encoded(step, *(change(f"p{i}") for i in range(7))) == [3, 3, 1]


def test_a_time_that_the_pipeline_cannot_read_fails_its_own_change_alone() -> None:
    bad = change("bad")
    bad.enriched = {"payment_state_at": "yesterday"}
    made, [(culprit, error)] = rows.encode([change("p1"), bad], PAYMENTS)
    assert made is not None and made.num_rows == 1
    assert (culprit, error.reason) == (bad, Reason.VALUE)
    assert "yesterday" not in error.message


def test_sizes_of_rows_are_never_too_small() -> None:
    changes = [change(f"p{i}", of("ARRAY<STRING>", "Tags"), Tags=["x" * i] * i, Metadata="ü" * i) for i in range(200)]
    table = batch(*changes)
    for first, last in ((0, 200), (17, 42), (199, 200)):
        part = table.slice(first, last - first).combine_chunks()
        assert sum(rows.sizes(part)) >= part.nbytes - 8 * part.num_columns
