"""`EncodeRows`: changes → encoded rows, what is done last before the shuffle."""

from __future__ import annotations

import logging
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from contract import timestamps
from contract.changes import Change, Column
from contract.watched import WatchedTables
from pipeline import logs
from pipeline.failures import failed
from pipeline.sink import rows

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one table as an Arrow stream, and the source columns they were made from."""

    table: str
    columns: tuple[Column, ...]
    data: bytes


# What one batch weighs at most, in bytes of JSON: it is one element in the runner's shuffle. A row that weighs more is
# a separate batch.
_MOST_BATCH_BYTES: Final = 4_000_000


class EncodeRows:
    """Changes → encoded rows, keyed by `table|shard`: one batch per shard and bundle, or more where rows are large.

    What crosses the shuffle is a few large elements, and it is masked. What it yields are outputs of a DoFn, at the
    timestamps of the changes.
    """

    def __init__(
        self, watched: WatchedTables, shards: int, most_rows: int, most_bytes: int = _MOST_BATCH_BYTES
    ) -> None:
        self._watched = watched
        self._shards = shards
        self._most_rows = most_rows
        self._most_bytes = most_bytes

    def begin(self) -> None:
        """Begins a bundle."""
        self._pending: dict[tuple[str, tuple[Column, ...]], list[Change]] = defaultdict(list)
        self._bytes: dict[tuple[str, tuple[Column, ...]], int] = defaultdict(int)

    def add(self, change: Change) -> Iterator[Any]:
        """Takes a change in; yields what is full."""
        group = self._key(change), change.columns
        size = _bytes_of(change)
        if self._bytes[group] and self._bytes[group] + size > self._most_bytes:
            yield from self._emit(group)
        pending = self._pending[group]
        pending.append(change)
        self._bytes[group] += size
        if len(pending) >= self._most_rows or self._bytes[group] >= self._most_bytes:
            yield from self._emit(group)

    def end(self) -> Iterator[Any]:
        """Yields the rest of the bundle."""
        for group in list(self._pending):
            yield from self._emit(group)

    def _emit(self, group: tuple[str, tuple[Column, ...]]) -> Iterator[Any]:
        self._bytes.pop(group, None)
        yield from self._encode(group[0], self._pending.pop(group))

    def _key(self, change: Change) -> str:
        if self._shards == 1:
            return f"{change.table}|0"
        key = orjson.dumps(change.keys, option=orjson.OPT_SORT_KEYS)
        return f"{change.table}|{zlib.crc32(key) % self._shards}"

    def _encode(self, key: str, changes: list[Change]) -> Iterator[Any]:
        table = self._watched.of(changes[0].table)
        batch, faults = rows.encode(changes, table)
        for change, error in faults:
            yield failed(change.coordinates, "EncodeRows", error, change, table)
        if _LOG.isEnabledFor(logging.DEBUG):
            traced = [logs.traced(c.change_id, table.payment_in(c.keys, c.new)) for c in changes]
            logs.trace(_LOG, "Encoded", changes[0].table, traced)
        if batch is not None:
            # The earliest of its changes holds the watermark back until the whole batch is appended.
            earliest = min(c.commit_timestamp for c in changes)
            yield _at((key, EncodedRows(changes[0].table, changes[0].columns, rows.to_bytes(batch))), earliest)


def _at(value: Any, timestamp: str) -> WindowedValue:
    return WindowedValue(value, Timestamp(micros=timestamps.to_micros(timestamp)), [GlobalWindow()])


def _bytes_of(change: Change) -> int:
    """About the bytes of the change's row."""
    try:
        return len(orjson.dumps((change.new, change.old)))
    except TypeError:  # a value that no JSON has: encoding says which
        return len(repr((change.new, change.old)))
