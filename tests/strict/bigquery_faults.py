"""Faults of the strict BigQuery: what is refused, for how long, how often, and for which rows."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A call as a fault's predicate sees it. `rows` is None for all calls but an append."""

    method: str
    table: str = ""
    stream: str = ""
    offset: int | None = None
    rows: pa.RecordBatch | None = None
    path: str = ""

    @property
    def columns(self) -> list[str]:
        return list(self.rows.schema.names) if self.rows is not None else []


When = Callable[[Attempt], bool] | Mapping[str, Any] | None
Rows = Callable[[dict[str, Any]], bool] | Mapping[str, Any] | None


@dataclass(kw_only=True)
class Fault:
    """Counts how often it struck. `cancel` ends it."""

    methods: frozenset[str]
    when: When = None
    rows: Rows = None
    until: float | None = None
    times: int | None = None
    action: str = "refuse"
    code: int = 0
    in_band: bool = True
    message: str = ""
    storage_error: int = 0
    after_append: bool = False
    seconds: float = 0.0
    reason: str = ""
    struck: int = 0
    cancelled: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cancel(self) -> None:
        self.cancelled = True

    def active(self, now: float) -> bool:
        return not (
            self.cancelled
            or (self.until is not None and now >= self.until)
            or (self.times is not None and self.struck >= self.times)
        )

    def strikes(self, attempt: Attempt, now: float) -> bool:
        """Whether it concerns this call; counts it."""
        if self.methods and attempt.method not in self.methods:
            return False
        with self._lock:
            if not self.active(now) or not matches(self.when, attempt):
                return False
            if self.rows is not None and self.action == "refuse" and not bad_rows(self.rows, attempt.rows):
                return False
            self.struck += 1
            return True


class Faults:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all: list[Fault] = []
        self._thawed = threading.Event()
        self._thawed.set()

    def add(self, *, seconds: float | None = None, **given: Any) -> Fault:
        fault = Fault(until=None if seconds is None else self._clock() + seconds, **given)
        self._all = [f for f in self._all if f.active(self._clock())] + [fault]
        return fault

    def clear(self) -> None:
        for fault in self._all:
            fault.cancel()
        self._all = []
        self._thawed.set()

    def find(self, attempt: Attempt, action: str = "refuse", *, after_append: bool = False) -> Fault | None:
        now = self._clock()
        for fault in self._all:
            if fault.action == action and fault.after_append == after_append and fault.strikes(attempt, now):
                return fault
        return None

    def refused_rows(self, attempt: Attempt) -> list[int]:
        """The rows that a `refuse_rows` names."""
        now = self._clock()
        bad: set[int] = set()
        for fault in self._all:
            if fault.action == "rows" and fault.active(now) and matches(fault.when, attempt):
                found = bad_rows(fault.rows, attempt.rows)
                if found:
                    fault.struck += 1
                    bad |= set(found)
        return sorted(bad)

    # Frozen: nothing is answered; what was sent meanwhile is worked on when it thaws, as it is after a pause of a server.

    def freeze(self, seconds: float | None) -> None:
        self._thawed.clear()
        if seconds is not None:
            timer = threading.Timer(seconds, self._thawed.set)
            timer.daemon = True
            timer.start()

    def thaw(self) -> None:
        self._thawed.set()

    def wait_while_frozen(self) -> None:
        self._thawed.wait()


def matches(when: When, attempt: Attempt) -> bool:
    """`when`: a function of the attempt, or {"table", "stream", "path" (regex), "columns", "min_rows", "offset"}, all of which hold."""
    if when is None:
        return True
    if callable(when):
        return bool(when(attempt))
    rows = attempt.rows.num_rows if attempt.rows is not None else 0
    checks: dict[str, Callable[[Any], bool]] = {
        "table": lambda v: attempt.table == v,
        "stream": lambda v: attempt.stream == v,
        "path": lambda v: re.search(v, attempt.path) is not None,
        "columns": lambda v: set(v) <= set(attempt.columns),
        "min_rows": lambda v: rows >= v,
        "offset": lambda v: attempt.offset == v,
    }
    return all(checks[name](value) for name, value in when.items())


def bad_rows(which: Rows, batch: pa.RecordBatch | None) -> list[int]:
    """`which`: a function of a row, or {"column": name, "values": […]} or {"indices": […]}."""
    if batch is None or which is None:
        return []
    if callable(which):
        return [i for i, row in enumerate(batch.to_pylist()) if which(row)]
    if "indices" in which:
        return [i for i in which["indices"] if i < batch.num_rows]
    column = which["column"]
    if column not in batch.schema.names:
        return []
    values = batch.column(column)
    found = pc.is_in(values, pa.array(which["values"], values.type))
    return [i for i, bad in enumerate(found.to_pylist()) if bad]
