"""Changes that leave columns out, completed by reads of their rows at the commit timestamp."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from google.api_core.exceptions import FailedPrecondition, NotFound, OutOfRange, PermissionDenied, ServiceUnavailable

from contract.changes import Change, Column, Reason, Row
from pipeline.source.completion import Completer, lacks_values

ID, A, B = Column("Id", "INT64", True), Column("A", "STRING", False), Column("B", "FLOAT64", False)
T1, T2, T3 = (f"2026-11-23T09:00:{second:02}.000000001Z" for second in (1, 2, 30))


class Table:
    """A table's history in memory: rows by moment. `errors` are raised by the next reads, one each."""

    def __init__(self, rows: dict[str, dict[str, Row]], columns: tuple[Column, ...] = (ID, A, B)) -> None:
        self.rows, self.found = rows, columns
        self.reads: list[tuple[str, int]] = []
        self.described: list[str] = []
        self.errors: list[Exception] = []
        self.threads: set[str] = set()

    def columns(self, stream: str, table: str, at: str) -> tuple[Column, ...]:
        self.described.append(at)
        return self.found

    def keyed(self, table: str, columns: Sequence[Column], at: str, keys: Sequence[Sequence[Any]]) -> Iterable[Row]:
        self.threads.add(threading.current_thread().name)
        self.reads.append((at, len(keys)))
        if self.errors:
            raise self.errors.pop(0)
        # In another order than they were sought.
        return [dict(self.rows[at][key]) for (key,) in reversed(keys) if key in self.rows[at]]


def update(
    key: str, new: Row, at: str = T1, capture: str = "NEW_VALUES", mod: Any = "UPDATE", index: int = 0
) -> Change:
    columns = (ID, *(column for column in (A, B) if column.name in new))
    return Change(
        "S", "t", mod, at, "x", "0", index, True, 1, 1, columns, {"Id": key}, new, {}, value_capture_type=capture
    )


def test_what_a_change_leaves_out_is_read_and_what_it_says_counts() -> None:
    table = Table({T1: {"1": {"Id": "1", "A": "read", "B": 0.5}, "2": {"Id": "2", "A": "other", "B": None}}})
    changes = [update("1", {"A": "own"}), update("2", {"B": None}, index=1)]
    done = list(Completer(table).complete(changes))
    assert [error for _, error in done] == [None, None]
    assert [(c.new, c.columns) for c, _ in done] == [
        ({"A": "own", "B": 0.5}, (ID, A, B)), ({"A": "other", "B": None}, (ID, A, B)),
    ]  # fmt: skip
    assert table.reads == [(T1, 2)]
    assert not any(change.is_incomplete for change in changes)


@pytest.mark.parametrize(
    ("capture", "mod", "lacks"),
    [
        ("NEW_VALUES", "UPDATE", True),
        ("OLD_AND_NEW_VALUES", "UPDATE", True),
        ("NEW_VALUES", "INSERT", False),
        ("OLD_AND_NEW_VALUES", "DELETE", False),
        ("NEW_ROW", "UPDATE", False),
        ("NEW_ROW_AND_OLD_VALUES", "UPDATE", False),
    ],
)
def test_an_update_of_a_partial_capture_type_alone_is_read(capture: str, mod: str, lacks: bool) -> None:
    change = update("1", {"A": "own"}, capture=capture, mod=mod)
    table = Table({T1: {"1": {"Id": "1", "A": "read", "B": 0.5}}})
    assert lacks_values(change) is lacks
    list(Completer(table).complete([change]))
    assert bool(table.reads) is lacks


def test_each_moment_is_a_read_of_its_own_side_by_side_and_gives_its_own_values() -> None:
    table = Table({at: {"1": {"Id": "1", "A": "a", "B": value}} for at, value in ((T1, 1.0), (T2, 2.0))})
    done = list(Completer(table).complete([update("1", {"A": "x"}, T1), update("1", {"A": "y"}, T2)]))
    assert [(c.new["A"], c.new["B"]) for c, _ in done] == [("x", 1.0), ("y", 2.0)]
    assert sorted(table.reads) == [(T1, 1), (T2, 1)]
    assert all(name.startswith("completion") for name in table.threads)


def test_a_row_that_is_gone_leaves_the_change_as_it_is_and_says_so() -> None:
    change = update("1", {"A": "own"})
    [(done, error)] = Completer(Table({T1: {}})).complete([change])
    assert error is None and done.is_incomplete
    assert (done.new, done.columns) == ({"A": "own"}, (ID, A))


@pytest.mark.parametrize("error", [FailedPrecondition("too old"), OutOfRange("too old")])
def test_a_moment_that_spanner_no_longer_keeps_is_a_dead_letter_with_the_remedy(error: Exception) -> None:
    table = Table({T1: {}})
    table.errors = [error]
    [(_, found)] = Completer(table).complete([update("1", {"A": "own"})])
    assert found is not None and found.reason == Reason.GONE
    assert "version_retention_period" in found.message and "audit replay start" in found.message


def test_a_service_that_is_away_is_asked_again_and_at_last_fails_the_bundle() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    table = Table({T1: {"1": {"Id": "1", "A": "read", "B": 0.5}}})
    table.errors = [ServiceUnavailable("away"), PermissionDenied("for now")]
    completer = Completer(table, patience=30.0, clock=lambda: now[0], sleep=sleep)
    [(done, error)] = completer.complete([update("1", {"A": "own"})])
    assert error is None and done.new["B"] == 0.5 and len(table.reads) == 3
    table.errors = [PermissionDenied("for good")] * 1_000
    with pytest.raises(PermissionDenied):
        list(completer.complete([update("1", {"A": "own"})]))
    assert now[0] <= 61.0


class Altered(Table):
    """A table whose columns change with time: those of the last moment that is not later."""

    def __init__(self, rows: dict[str, dict[str, Row]], columns: dict[str, tuple[Column, ...]]) -> None:
        super().__init__(rows)
        self.then = columns

    def columns(self, stream: str, table: str, at: str) -> tuple[Column, ...]:
        self.described.append(at)
        return self.then[max(moment for moment in self.then if moment <= at)]

    def keyed(self, table: str, columns: Sequence[Column], at: str, keys: Sequence[Sequence[Any]]) -> Iterable[Row]:
        for row in super().keyed(table, columns, at, keys):
            yield {column.name: row[column.name] for column in columns}


@pytest.mark.parametrize("at_once", [False, True])
def test_a_column_that_came_a_second_ago_is_read_for_a_change_that_does_not_touch_it(at_once: bool) -> None:
    """Of a row that has a value in it: another change's columns, read before, do not have it."""
    table = Altered(
        {T1: {"1": {"Id": "1", "A": "x"}}, T2: {"1": {"Id": "1", "A": "y", "B": 0.5}}}, {T1: (ID, A), T2: (ID, A, B)}
    )
    completer = Completer(table)
    changes = [update("1", {"A": "x"}, T1), update("1", {"A": "y"}, T2)]
    done = [c for each in ([changes] if at_once else [[c] for c in changes]) for c, _ in completer.complete(each)]
    assert [(c.new, c.columns) for c in done] == [({"A": "x"}, (ID, A)), ({"A": "y", "B": 0.5}, (ID, A, B))]


def test_a_column_whose_type_changed_a_second_ago_has_its_new_type_in_a_change_that_does_not_touch_it() -> None:
    binary = Column("A", "BYTES", False)
    rows = {T1: {"1": {"Id": "1", "A": "x", "B": 1.0}}, T2: {"1": {"Id": "1", "A": "eA==", "B": 2.0}}}
    completer = Completer(Altered(rows, {T1: (ID, A, B), T2: (ID, binary, B)}))
    done = [c for at, new in ((T1, 1.0), (T2, 2.0)) for c, _ in completer.complete([update("1", {"B": new}, at)])]
    assert [(c.new["A"], c.columns) for c in done] == [("x", (ID, A, B)), ("eA==", (ID, binary, B))]


def test_a_change_of_between_two_looks_at_an_altered_table_has_the_columns_of_its_moment() -> None:
    rows: dict[str, dict[str, Row]] = {T1: {"1": {"Id": "1", "A": "x"}}, T2: {"1": {"Id": "1", "A": "y"}}}
    rows[T3] = {"1": {"Id": "1", "A": "z", "B": 0.5}}
    completer = Completer(Altered(rows, {T1: (ID, A), T2: (ID, A), T3: (ID, A, B)}))
    done = [c for at in (T1, T3, T2) for c, _ in completer.complete([update("1", {"A": rows[at]["1"]["A"]}, at)])]
    assert [c.columns for c in done] == [(ID, A), (ID, A, B), (ID, A)]


def test_of_a_table_that_is_altered_all_the_time_few_columns_are_remembered() -> None:
    moments = [f"2026-11-23T09:00:{second:02}.000000000Z" for second in range(40)]
    rows: dict[str, dict[str, Row]] = {at: {"1": {"Id": "1", "A": "x", f"C{n}": "c"}} for n, at in enumerate(moments)}
    table = Altered(rows, {at: (ID, A, Column(f"C{n}", "STRING", False)) for n, at in enumerate(moments)})
    completer = Completer(table)
    for at in moments:
        list(completer.complete([update("1", {"A": "x"}, at)]))
    # The last are known, the first are looked at again.
    before = len(table.described)
    list(completer.complete([update("1", {"A": "x"}, moments[-1])]))
    assert len(table.described) == before
    list(completer.complete([update("1", {"A": "x"}, moments[0])]))
    assert len(table.described) == before + 1


def test_the_columns_of_a_table_that_is_not_altered_are_looked_at_once_a_bundle() -> None:
    moments = [f"2026-11-23T09:00:{second:02}.000000000Z" for second in range(30)]
    table = Table({at: {"1": {"Id": "1", "A": "a", "B": 0.5}} for at in moments})
    completer = Completer(table)
    for first in range(0, 30, 10):
        list(completer.complete([update("1", {"A": "x"}, at) for at in moments[first : first + 10]]))
    assert len(table.described) == 4, "the first bundle's first moment, and each bundle's last"
    list(completer.complete([update("1", {"A": "x"}, at) for at in moments]))
    assert len(table.described) == 4, "what was done before, done again"


def test_columns_are_asked_for_again_where_they_are_those_of_another_moment() -> None:
    rows = {at: {"1": {"Id": "1", "A": "a", "B": 0.5}} for at in (T1, T2, T3)}
    table = Table(rows, columns=(ID, A))
    completer = Completer(table)
    for at, new in ((T1, {"A": "x"}), (T2, {"A": "x"}), (T2, {"B": 1.5}), (T3, {"A": "x"})):
        list(completer.complete([update("1", new, at)]))
    assert table.described == [T1, T2, T2, T3], "a moment not again, but for a column that is not known"
    table.errors = [NotFound("column")]
    list(completer.complete([update("1", {"A": "x"}, T3)]))
    assert table.described == [T1, T2, T2, T3, T3]
    table.errors = [NotFound("column"), NotFound("column")]
    with pytest.raises(NotFound):
        list(completer.complete([update("1", {"A": "x"}, T3)]))
