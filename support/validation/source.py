"""Spanner's side of a validation: rows at a moment and changes of a window, masked and enriched as the job does it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import Any, Final

from contract import payments, schema, timestamps
from contract.changes import Change, Column, Coordinates, Row
from contract.watched import WatchedTable
from pipeline.source.table_rows import ALL, TableAt, Where
from support.connection import Connection

MICROSECOND: Final = timedelta(microseconds=1)
# Keys of one read.
_KEYS_AT_ONCE: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows by the first column of their key: above `low`, up to `high`. None is without an end."""

    low: str | None = None
    high: str | None = None


class Source:
    """Reads one stack's Spanner. `rows_read` counts rows and changes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._database = _database(connection)
        self.rows_read = 0

    # ------------------------------------------------------------------ rows

    def columns(self, table: WatchedTable, moment: datetime) -> tuple[Column, ...]:
        """The columns of a table as they were at a moment: those of its key first, in the key's order."""
        at = TableAt(self._database, table.name, moment, Where())
        return (*at.keys, *(column for column in at.columns if not column.is_primary_key))

    def part_end(self, table: WatchedTable, key: Column, low: str | None, rows: int, moment: datetime) -> str | None:
        """The first column of the key of the row that is `rows` after `low`; None where there are fewer."""
        above = TableAt(self._database, table.name, moment, _bounds(key, Part(low=low)))
        first = next(above.cut(rows), None)
        return str(json.loads(first.last)[0]) if first and first.last else None

    def part(self, table: WatchedTable, key: Column | None, part: Part, moment: datetime) -> Iterator[Row]:
        """The rows of a part as they were at a moment, values in Spanner's JSON encoding."""
        where = _bounds(key, part) if key else Where()
        return self._counted(TableAt(self._database, table.name, moment, where).rows(ALL))

    def keyed(self, table: WatchedTable, keys: Sequence[Sequence[Any]], moment: datetime) -> Iterator[Row]:
        """The rows of these primary keys, those that are there. A key has its parts in Spanner's JSON encoding."""
        at = TableAt(self._database, table.name, moment, Where())
        for first in range(0, len(keys), _KEYS_AT_ONCE):
            yield from self._counted(at.keyed(keys[first : first + _KEYS_AT_ONCE]))

    def _counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self.rows_read += 1
            yield row

    # ------------------------------------------------------------------ changes

    def changes(self, stream: str, since: datetime, until: datetime) -> Iterator[Change]:
        """The changes of a change stream from `since` to before `until`, whole seconds both, as they come.

        Raises grpc.RpcError: OUT_OF_RANGE where the stream keeps no such time.
        """
        from pipeline.source.closed import changes_before
        from pipeline.source.partitions import PartitionSet
        from pipeline.transforms import decode

        partitions = PartitionSet(timestamps.from_datetime(since))
        for record in changes_before(self._query(stream), partitions, timestamps.from_datetime(until)):
            self.rows_read += len(record.mods)
            if record in self.ignored:
                continue
            yield from self._completed(stream, (decode.decode(record, index) for index in range(len(record.mods))))

    def changes_of(
        self, table: WatchedTable, columns: Sequence[Column], key: Sequence[Any], since: datetime, until: datetime
    ) -> Iterator[Change]:
        """The changes of one key; none where the stream no longer keeps that time."""
        import grpc

        wanted = [str(part) for part in key]
        try:
            for change in self.changes(table.change_stream, since, until):
                if change.table == table.name and [str(p) for p in raw_key(columns, change.keys)] == wanted:
                    yield change
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                raise

    def change(self, stream: str, change_id: str, table: str) -> Change | None:
        """A change by its id; None where the stream no longer keeps it, or never had it."""
        import grpc

        from pipeline.source.lookup import read_again
        from pipeline.transforms import decode

        committed, transaction, sequence, index = change_id.split("/")
        at = Coordinates(stream, table, committed, transaction, sequence, int(index))
        try:
            record = read_again(self._query(stream), at)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                raise
            return None
        found = self._completed(stream, [decode.decode(record, at.mod_index)] if record else [])
        return next(iter(found), None)

    def _completed(self, stream: str, changes: Iterable[Change]) -> Iterator[Change]:
        """The changes as the job makes them; without those that it cannot complete: they are dead letters."""
        for change, error in self._completer(stream).complete(changes):
            if not error:
                yield change

    @cached_property
    def ignored(self) -> Any:
        """The records that the job leaves out."""
        from pipeline.transforms.filter import IgnoredRecords

        known = self._connection
        return IgnoredRecords.parse(known.ignore_tables, known.ignore_operations, known.ignore_transaction_tags)

    @cache  # noqa: B019 - as long as the validation that it is a part of
    def _completer(self, stream: str) -> Any:
        from pipeline.source.completion import Completer, SpannerRows

        return Completer(SpannerRows(self._described(stream)))

    @cache  # noqa: B019 - as long as the validation that it is a part of
    def _query(self, stream: str) -> Any:
        from pipeline.clients import spanner_channel
        from pipeline.source.query import ChangeStreamQuery

        return ChangeStreamQuery(self._described(stream), spanner_channel(self._connection.spanner_endpoint))

    def _described(self, stream: str) -> Any:
        from pipeline.source.query import ChangeStream

        stack = self._connection
        return ChangeStream(
            name=stream,
            database=stack.source,
            endpoint=stack.spanner_endpoint,
            role=stack.role(schema.VALIDATION_ROLE),
            priority="LOW",
        )


def _database(connection: Connection) -> Any:
    from support.metadata import source_database

    return source_database(connection, schema.VALIDATION_ROLE)


class Masking:
    """Makes of Spanner's rows and changes what the job makes of them. A row is masked with the keys of its time."""

    def __init__(self, connection: Connection) -> None:
        from pipeline.transforms.filter import Ignored

        self._connection = connection
        self.ignored = Ignored.parse(connection.ignore_fields, connection.ignore_tables)
        known = connection.payment_states
        self._states = payments.parse_states(known) if known else payments.PAYMENT_STATES

    @cached_property
    def hold_new(self) -> bool:
        return (self._connection.new_columns or "hold") == "hold"

    def prepare(self, change: Change, version: str = "") -> bool:
        """Masks and enriches a change, in place; whether the job would write it. `version` is that of the masking key,
        empty for the newest. Raises StepError."""
        from pipeline.transforms.enrich import enrich
        from pipeline.transforms.filter import keep

        table = self._connection.watched.of(change.table)
        self._masker(version).mask(change)
        kept = self._erased.current().redact(change, table)
        enrich(change, table, self._states)
        return keep(change, self.ignored) and kept

    @cache  # noqa: B019 - as long as the validation that it is a part of
    def _masker(self, version: str) -> Any:
        from pipeline.transforms.keys import MaskingKeys
        from pipeline.transforms.mask import Masker

        keys = self._keys
        older = {v: key for v, key in keys.keys.items() if version in keys.keys and int(v[1:]) <= int(version[1:])}
        policy: Any = self._connection.new_columns or "hold"
        return Masker(MaskingKeys(older) if older else keys, self._connection.watched, new_columns=policy)

    @cached_property
    def _erased(self) -> Any:
        from pipeline.transforms.erased import ErasedNow, ErasedTokens
        from pipeline.transforms.keys import MaskingKeys

        known = self._connection
        tokens = ErasedTokens(
            endpoint=known.spanner_endpoint,
            project=known.project,
            instance=known.metadata_instance or known.spanner_instance,
            database=known.metadata_database,
        )
        return ErasedNow(tokens, lambda: MaskingKeys.load(known.masking_keys))

    @cached_property
    def _keys(self) -> Any:
        from pipeline.transforms.keys import MaskingKeys

        return MaskingKeys.load(self._connection.masking_keys)


def as_change(table: WatchedTable, columns: tuple[Column, ...], row: Row, moment: str) -> Change:
    """A row of Spanner as the change that would have made it."""
    keys = {column.name: row[column.name] for column in columns if column.is_primary_key}
    new = {name: value for name, value in row.items() if name not in keys}
    return Change(table.change_stream, table.name, "INSERT", moment, "", "", 0, True, 1, 1, columns, keys, new, {})


def raw_key(columns: Sequence[Column], values: Row) -> tuple[Any, ...]:
    """A primary key as Spanner's read takes it."""
    return tuple(values[column.name] for column in columns if column.is_primary_key)


def _bounds(key: Column, part: Part) -> Where:
    where = Where()
    for name, sign, value in (("low", ">", part.low), ("high", "<=", part.high)):
        if value is not None:
            where &= Where(sql=f"`{key.name}` {sign} @{name}", parameters={name: (key.type, value)})
    return where
