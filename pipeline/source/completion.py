"""Changes of which the change stream carries what was changed alone, completed by reads of their rows.

`NEW_VALUES` and `OLD_AND_NEW_VALUES` leave out of an UPDATE the columns that it did not touch. They are read from the
table as it was at the commit timestamp: always the same values, so a change that is read again is completed alike. The
keys of one transaction and table are one read; reads run side by side. What the change itself says always counts.

A row that is gone at its own commit timestamp leaves a change as it is, and the change says so. A commit timestamp that
Spanner no longer keeps (version_retention_period) makes the change a dead letter.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

from contract import spanner_types, timestamps
from contract.changes import PARTIAL_CAPTURE_TYPES, Change, Column, Reason, Row, StepError
from pipeline.source.query import ChangeStream, directed_reads_of

# One transaction and table, as a rule: keys of one read, and reads at once.
_KEYS_AT_ONCE: Final = 1_000
_READS_AT_ONCE: Final = 8
# Spans of time of a table with the same columns, which are remembered.
_SPANS_REMEMBERED: Final = 8
# How long a read that fails is tried again, before the bundle fails and the runner tries that again.
_PATIENCE_SECONDS: Final = 30.0
_PAUSES: Final = (0.1, 5.0)
_TOO_OLD: Final = (
    "the row must be read at the commit timestamp, which the database no longer keeps (version_retention_period): the "
    "change stream carries only what was changed. `audit replay start --dead-letter` fills it from the payment's "
    "present state; a stream that captures NEW_ROW_AND_OLD_VALUES needs no such read."
)


def lacks_values(change: Change) -> bool:
    """Whether the change leaves out columns that it did not touch."""
    return change.mod_type == "UPDATE" and change.value_capture_type in PARTIAL_CAPTURE_TYPES


class Rows(Protocol):
    """A database's tables at moments. Raises what Spanner's client raises."""

    def columns(self, stream: str, table: str, at: str) -> tuple[Column, ...]:
        """The columns of a table that a stream watches; types as change records have them, key in its order."""

    def keyed(self, table: str, columns: Sequence[Column], at: str, keys: Sequence[Sequence[Any]]) -> Iterable[Row]:
        """The rows of these keys, those that are there; everything in Spanner's JSON encoding."""


class Completer:
    """Completes changes in place. For one thread; it reads with several."""

    def __init__(
        self,
        rows: Rows,
        *,
        patience: float = _PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rows = rows
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._columns: dict[tuple[str, str], list[_Span]] = {}
        self._columns_lock = threading.Lock()

    def complete(self, changes: Iterable[Change]) -> Iterator[tuple[Change, StepError | None]]:
        """The changes, completed, in any order; those that cannot be, with the error. Raises what a read does."""
        groups: dict[tuple[str, str, str], list[Change]] = defaultdict(list)
        for change in changes:
            if lacks_values(change):
                groups[change.stream, change.table, change.commit_timestamp].append(change)
            else:
                yield change, None
        latest: dict[tuple[str, str], str] = defaultdict(str)
        for stream, table, at in groups:
            latest[stream, table] = max(latest[stream, table], at)
        parts = [part for group in groups.values() for part in _parts(group)]
        ends = [latest[part[0].stream, part[0].table] for part in parts]
        found = map(self._read, parts, ends) if len(parts) == 1 else self._pool.map(self._read, parts, ends)
        for part, error in zip(parts, found, strict=True):
            for change in part:
                yield change, error

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="completion")

    def _read(self, changes: Sequence[Change], latest: str) -> StepError | None:
        """Completes changes of one table and commit timestamp. Tried again until the patience is over.

        `latest`: of all the changes of the table that are completed now.
        """
        from google.api_core.exceptions import (
            FailedPrecondition,
            GoogleAPICallError,
            InvalidArgument,
            NotFound,
            OutOfRange,
        )

        ends, pause, fresh = self._clock() + self._patience, _PAUSES[0], False
        while True:
            try:
                self._complete(changes, latest, fresh=fresh)
                return None
            except (FailedPrecondition, OutOfRange):
                return StepError(Reason.GONE, _TOO_OLD)
            except (NotFound, InvalidArgument):
                # A column of another moment, or the table itself. Its columns at this moment say which.
                if fresh:
                    raise
                fresh = True
            except GoogleAPICallError:
                if self._clock() + pause > ends:
                    raise
                self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, _PAUSES[1])

    def _complete(self, changes: Sequence[Change], latest: str, *, fresh: bool) -> None:
        first = changes[0]
        carried = {column for change in changes for column in (*change.new, *change.keys)}
        columns = self._columns_for(first, latest, carried, fresh=fresh)
        names = [column.name for column in columns if column.is_primary_key]
        rows: dict[str, Row] = {}
        if columns:
            keys = [[change.keys[name] for name in names] for change in changes]
            for row in self._rows.keyed(first.table, columns, first.commit_timestamp, keys):
                rows[_key(row[name] for name in names)] = row
        for change in changes:
            found = rows.get(_key(change.keys.get(name) for name in names))
            if found is None:
                change.is_incomplete = True
                continue
            own = {column.name: column for column in change.columns}
            change.columns = tuple(own.pop(column.name, column) for column in columns) + tuple(own.values())
            change.new = {name: value for name, value in found.items() if name not in change.keys} | change.new

    def _columns_for(self, change: Change, latest: str, carried: set[str], *, fresh: bool) -> tuple[Column, ...]:
        """The columns of the change's table at its commit timestamp.

        Between two moments with the same columns they are these. So one look at the latest moment is enough for all the
        changes since the last look, unless the table was altered between: then each moment is looked at.
        """
        at = change.commit_timestamp
        with self._columns_lock:
            if not fresh:
                if known := self._known(change, carried):
                    return known
                if latest != at:
                    self._look(change, latest)
                    if known := self._known(change, carried):
                        return known
            return self._look(change, at)

    def _known(self, change: Change, carried: set[str]) -> tuple[Column, ...] | None:
        at = timestamps.to_nanos(change.commit_timestamp)
        for span in self._columns.get((change.stream, change.table), ()):
            if span.first <= at <= span.last and carried <= {column.name for column in span.columns}:
                return span.columns
        return None

    def _look(self, change: Change, at: str) -> tuple[Column, ...]:
        columns, moment = self._rows.columns(change.stream, change.table, at), timestamps.to_nanos(at)
        found = _Span(moment, moment, columns)
        spans = self._columns.get((change.stream, change.table), [])
        before = [span for span in spans if span.last < moment]
        after = [span for span in spans if span.first > moment]
        if before and before[-1].columns == columns:
            found = found._replace(first=before.pop().first)
        if after and after[0].columns == columns:
            found = found._replace(last=after.pop(0).last)
        # One that has the moment within itself was wrong.
        self._columns[change.stream, change.table] = [*before, found, *after][-_SPANS_REMEMBERED:]
        return columns


class _Span(NamedTuple):
    """From the first moment to the last a table has these columns: it had them at both."""

    first: int
    last: int
    columns: tuple[Column, ...]


def _parts(changes: Sequence[Change]) -> Iterator[list[Change]]:
    rest = iter(changes)
    while part := list(islice(rest, _KEYS_AT_ONCE)):
        yield part


def _key(parts: Iterable[Any]) -> str:
    return json.dumps(list(parts))


class SpannerRows:
    """The tables of a change stream's database, read with its role and priority."""

    def __init__(self, stream: ChangeStream) -> None:
        self._stream = stream

    @cached_property
    def _database(self) -> Any:
        from pipeline.clients import spanner_database

        _, project, _, instance, _, database = self._stream.database.split("/")
        return spanner_database(self._stream.endpoint, project, instance, database, self._stream.role)

    def columns(self, stream: str, table: str, at: str) -> tuple[Column, ...]:
        from pipeline.source.table_rows import TableAt, Where, watched_columns

        moment = _moment(at)
        found = TableAt(self._database, table, moment, Where())
        watched = watched_columns(self._database, stream, table, moment)
        columns = (*found.keys, *(column for column in found.columns if not column.is_primary_key))
        return tuple(
            column._replace(type=_as_recorded(column.type))
            for column in columns
            if column.is_primary_key or not watched or column.name in watched
        )

    def keyed(self, table: str, columns: Sequence[Column], at: str, keys: Sequence[Sequence[Any]]) -> Iterable[Row]:
        from pipeline.source.table_rows import read_keys

        return read_keys(
            self._database,
            table,
            [column.name for column in columns],
            _moment(at),
            keys,
            f"PRIORITY_{self._stream.priority}",
            directed_read_options=directed_reads_of(self._stream.directed_reads),
        )


def _moment(at: str) -> Any:
    from google.api_core.datetime_helpers import DatetimeWithNanoseconds

    return DatetimeWithNanoseconds.from_rfc3339(at)  # type: ignore[no-untyped-call]


def _as_recorded(spanner_type: str) -> str:
    """`PROTO<shop.Order>` of INFORMATION_SCHEMA as a change record has it: `PROTO`."""
    base = spanner_types.base(spanner_type)
    return base if spanner_types.element(spanner_type) is None else f"ARRAY<{base}>"
