"""Gathering: rows of a shard by schema and by bytes, when they go, and what holds the watermark."""

from __future__ import annotations

from typing import Any

import pytest
from apache_beam.pvalue import TaggedOutput

from contract.changes import Change, Column, DeadLetter, Reason
from pipeline.sink import rows
from pipeline.sink.append import AppendRows, _Kept
from pipeline.sink.encode import EncodedRows, EncodeRows
from tests.shipped import PAYMENTS, WATCHED
from tests.unit.sink_twin import COLUMNS, START, TABLE, Refusal, Twin, batch, change

KEY = f"{TABLE}|0"


class Cell:
    """A state cell or a timer."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.set_to: list[float] = []

    def read(self) -> Any:
        return self.value

    def write(self, value: Any) -> None:
        self.value = value

    def add(self, value: Any) -> None:
        self.value = [*(self.value or []), value]

    def clear(self) -> None:
        self.value = None

    def set(self, at: Any) -> None:
        self.set_to.append(float(at))


class Bag(Cell):
    def read(self) -> Any:
        return self.value or []


class Step:
    """AppendRows with its state of one shard, and a twin behind it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, batch_millis: int = 200) -> None:
        self.twin = Twin()
        monkeypatch.setattr("pipeline.sink.append.time.time", self.twin.time)
        self.step = AppendRows(Settings(self.twin), batch_millis)  # type: ignore[arg-type]
        self.step.setup()
        self.step.start_bundle()
        self.shard, self.pending, self.timer = Cell(), Bag(), Cell()

    def put(self, *changes: Change, at: float = START) -> list[DeadLetter]:
        for encoded in encode(*changes):
            found = self.step.process((KEY, encoded), Stamp(at), self.shard, self.pending, self.timer)
            if letters := _letters(found):
                return letters
        return []

    def gather(self, *changes: Change) -> None:
        """Puts them as if there had just been an append: what comes gathers."""
        self.shard.write(tuple(_Kept(flushed=self.twin.time())))
        assert self.put(*changes) == []
        assert len(self.pending.read()) == len(encode(*changes))

    def fire(self) -> list[DeadLetter]:
        return _letters(self.step.flush(KEY, self.shard, self.pending))


class Settings:
    def __init__(self, twin: Twin) -> None:
        self._twin = twin

    def connect(self) -> Any:
        return self._twin.clients()


class Stamp:
    def __init__(self, at: float) -> None:
        self.micros = int(at * 1_000_000)


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
def test_rows_of_before_and_after_a_type_change_both_arrive_from_one_flush(
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    after: str,
    old: Any,
    new: Any,
    column: str,
    arrives: tuple[Any, Any],
    turned: bool,
) -> None:
    step = Step(monkeypatch)
    step.put(change("p0", of(before), X=old))
    pair = [change("old", of(before), X=old), change("new", of(after), X=new)]
    for each in reversed(pair) if turned else pair:
        step.put(each)
    assert step.fire() == []
    values, typed = step.twin.values("X"), step.twin.values(column)
    assert values["old"] == arrives[0]
    # A column that a request does not name is NULL, or empty: BigQuery's ARRAY is never NULL.
    assert typed["old"] in (None, [])
    assert (values["new"], typed["new"]) == (None, arrives[1])


def test_old_text_stays_in_the_old_column_when_the_type_becomes_json(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch)
    step.gather(change("old", of("STRING"), X="not json"), change("new", of("JSON"), X="{}"))
    assert step.fire() == []
    assert step.twin.values("X") == {"old": "not json", "new": None}


def test_rows_of_before_a_new_array_are_empty_there_and_not_null(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch)
    step.gather(change("old"), change("new", of("ARRAY<INT64>", "Tags"), Tags=["1"]))
    sent: list[Any] = []
    step.twin.before_append = sent.append
    assert step.fire() == []
    assert step.twin.values("Tags")["new"] == [1]
    assert ["Tags" in arrow.column_names for arrow in sent] == [False, True]


def test_a_column_dropped_in_spanner_stays_and_is_null_from_then_on_and_nothing_restarts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = Step(monkeypatch)
    step.put(change("old", of("STRING"), X="kept"))
    step.put(change("new"))
    step.put(change("late", of("STRING"), X="of before the drop"))
    assert step.fire() == []
    assert step.twin.values("X") == {"old": "kept", "new": None, "late": "of before the drop"}


def test_batches_of_one_schema_go_in_one_append(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch)
    step.gather(change("p0"))
    for i in range(1, 5):
        step.put(change(f"p{i}"))
    step.fire()
    assert set(step.twin.there()) == {f"p{i}" for i in range(5)}
    assert step.twin.counts["request"] == 1


def test_a_refused_row_of_one_schema_does_not_hold_up_rows_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch)

    def before(arrow: Any) -> None:
        if "bad" in arrow["PUID"].to_pylist():
            raise Refusal(3, "invalid", ends=True)

    step.twin.before_append = before
    step.gather(change("bad"), change("p1"), change("p2", of("STRING")))
    [letter] = step.fire()
    assert (letter.reason, set(step.twin.there())) == (Reason.REJECTED, {"p1", "p2"})


def test_a_row_that_is_too_large_is_a_dead_letter_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch)
    [letter] = step.put(change("p1", Metadata="x" * 11_000_000))
    assert letter.reason == Reason.TOO_LARGE == "row_too_large"
    assert "shorten" in letter.message


def test_gathered_rows_of_many_bytes_do_not_wait_for_the_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch)
    step.gather(change("p0", Metadata="x" * 2_000_000))
    for i in range(1, 5):
        step.put(change(f"p{i}", Metadata="x" * 2_000_000))
    # The fifth starts gathering again: the other four are eight million bytes and what goes with them.
    assert set(step.twin.there()) == {"p0", "p1", "p2", "p3"}
    assert len(step.pending.read()) == 1
    step.fire()
    assert set(step.twin.there()) == {f"p{i}" for i in range(5)}


def test_the_first_rows_after_a_quiet_time_go_at_once_and_the_next_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch, batch_millis=200)
    step.put(change("p1"))
    assert (set(step.twin.there()), step.timer.set_to) == ({"p1"}, [])
    step.twin.now += 0.05
    step.put(change("p2"))
    assert step.timer.set_to == [pytest.approx(step.twin.now + 0.15, abs=1e-3)]
    step.put(change("p3"))
    assert len(step.timer.set_to) == 1
    assert set(step.twin.there()) == {"p1"}
    step.fire()
    assert set(step.twin.there()) == {"p1", "p2", "p3"}
    step.twin.now += 60
    step.put(change("p4"))
    assert set(step.twin.there()) == {"p1", "p2", "p3", "p4"}
    assert len(step.timer.set_to) == 1


def test_what_comes_during_an_append_goes_together_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several readers: they wait in one bundle while a slow append runs."""
    step = Step(monkeypatch, batch_millis=20)

    def slow(_: Any) -> None:
        step.twin.now += 0.5

    step.twin.before_append = slow
    for i in range(5):
        step.put(change(f"p{i}"))
    assert set(step.twin.there()) == {"p0"}
    step.fire()
    assert step.twin.counts["request"] == 2
    assert set(step.twin.there()) == {f"p{i}" for i in range(5)}


def test_the_appends_of_a_shard_are_to_one_stream_and_a_timer_without_rows_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = Step(monkeypatch)
    step.put(change("p1"))
    first = _Kept(*step.shard.value)
    step.twin.now += 10
    step.fire()
    assert _Kept(*step.shard.value) == first
    step.put(change("p2"))
    second = _Kept(*step.shard.value)
    assert first.stream and second.stream and first.stream[0] == second.stream[0]
    assert [stream[1] for stream in (first.stream, second.stream)] == [1, 2]
    assert step.twin.counts["create_write_stream"] == 1


def test_rows_that_are_due_go_with_the_next_that_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner fires a timer between two bundles of its key, and behind a backlog there is no time between them."""
    step = Step(monkeypatch, batch_millis=200)
    sent: list[str] = []
    step.twin.before_append = lambda arrow: sent.extend(arrow["PUID"].to_pylist())
    step.gather(change("p1"))
    step.twin.now += 0.1
    step.put(change("p2"))
    assert not step.twin.tables
    step.twin.now += 0.15
    step.put(change("p3"))
    assert sent == ["p1", "p2", "p3"]
    # The timer finds nothing, and what comes afterwards gathers as ever.
    step.fire()
    step.twin.now += 0.05
    step.put(change("p4"))
    assert set(step.twin.there()) == {"p1", "p2", "p3"}
    assert step.timer.set_to[-1] == pytest.approx(step.twin.now + 0.15, abs=1e-3)


def test_the_earliest_change_holds_the_watermark_and_does_not_put_off_the_append(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The timer holds it at the element that set it last: a later one must not set it again."""
    step = Step(monkeypatch)
    step.put(change("p0"))
    step.put(change("p1"), at=START + 5)
    step.twin.now += 0.1
    step.put(change("p2"), at=START + 9)
    assert len(step.timer.set_to) == 1
    step.put(change("p3"), at=START)
    assert len(step.timer.set_to) == 2
    assert step.timer.set_to[0] == step.timer.set_to[1]


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
