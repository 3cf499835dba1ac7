"""Rows of Spanner and of BigQuery in one form: the same values give the same digest on either side.

Spanner's side is a masked and enriched change, converted as the sink converts it; BigQuery's is a row of its REST API.
What a column cannot hold (nanoseconds, NULL in an ARRAY, digits of a number in JSON) is compared by the row's exact
values. JSON is the same in any order of its members, and its numbers are the same if they are the same int64, uint64 or
float64.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from contract import spanner_types, tables, timestamps
from contract.changes import Change, Column
from contract.watched import WatchedTable
from pipeline.transforms.filter import Ignored

Values = tuple[Any, ...]
_Convert = Callable[[Any], Any]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = 1_000_000
_IDS: Final = ("STRING", "INT64")
_WHOLE: Final = range(-(2**63), 2**64)
# Of what enrichment adds: what a row says without the change that made it.
_OF_STATE: Final = frozenset({tables.CUSTOMER_ID, tables.ACTING_USER, tables.PAYMENT_STATE})
# Not of the change: when its row arrived. The tokens of cards depend on nothing that is not compared already.
# The exact values are compared with their columns.
_NOT_COMPARED: Final = frozenset({tables.BIG_QUERY_COMMIT_TIMESTAMP, tables.CARD_TOKENS, tables.EXACT_VALUES})
# What Spanner's emulator cuts out of its change records, and not out of rows.
_CUT_BY_EMULATOR: Final = ("TIMESTAMP", "FLOAT64", "FLOAT32")


class Form(NamedTuple):
    """A row as it is compared: `state` is what Spanner's row says too, `history` what only its change says."""

    state: Values
    history: Values


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    source: str
    is_key: bool
    convert: _Convert
    plain: _Convert
    # What the column cannot hold of a value; None where it holds all, or where the emulator cuts it.
    exact: _Convert | None


class Comparable:
    """How the rows of one table are compared. `known`: BigQuery's columns by casefolded name, as its API gives them.

    `emulated`: Spanner's emulator cuts fractions of a second and NaN out of its change records, and shows a commit
    timestamp as the year 9999. Columns that nobody has classified (where they are held) or that are ignored are left
    out: their old values may be there.
    """

    def __init__(
        self,
        table: WatchedTable,
        columns: Sequence[Column],
        known: Mapping[str, Any],
        *,
        ignored: Ignored,
        hold_new: bool,
        emulated: bool,
    ) -> None:
        from pipeline.sink import rows
        from pipeline.sink.changelogs import names_in

        self.table, self.columns = table, tuple(columns)
        left_out = ignored.columns_of(table.name)
        sources = rows.source_columns(self.columns, table)
        self._names = names_in(known, rows.fields(self.columns, table))
        self._known = frozenset(known)
        compared: list[_Field] = []
        keys: list[_Field] = []
        unsure: list[_Field] = []
        by_field = _columns_by_field(table, self.columns)
        for each in sources:
            column, field = by_field[each.field.name], each.field
            made = _Field(
                name=field.name,
                source=field.source or field.name,
                is_key=each.is_key,
                convert=_parsed(each.convert) if field.type == "JSON" else each.convert,
                plain=_plain(field, column.type, emulated=emulated),
                exact=None if emulated and spanner_types.base(column.type) in _CUT_BY_EMULATOR else each.exact,
            )
            if each.is_key:
                keys.append(made)
            if column.name.casefold() in left_out or table.policy_of(column.name) in _held(hold_new):
                continue
            is_commit_timestamp = emulated and column.name == table.column("changed")
            (unsure if is_commit_timestamp else compared).append(made)
        self._keys, self._compared, self._unsure = tuple(keys), tuple(compared), tuple(unsure)
        self._exact = tuple((f, f.exact) for f in compared if f.exact)
        self._tokens = tuple(f.name for f in compared if f.name.endswith(tables.TOKEN_SUFFIX))
        enrichment = [f for f in tables.ENRICHMENT_FIELDS if f.name in _OF_STATE]
        self._enrichment = tuple(f.name for f in enrichment)
        self._added = tuple(
            (f, _plain(f, "", emulated=False))
            for f in (*tables.METADATA_FIELDS, *tables.ENRICHMENT_FIELDS)
            if f.name not in _OF_STATE | _NOT_COMPARED
        )

    @property
    def selected(self) -> tuple[str, ...]:
        """The columns of BigQuery that a comparison reads."""
        fields = (*self._keys, *self._compared, *self._unsure)
        added = (f.name for f in (*tables.METADATA_FIELDS, *tables.ENRICHMENT_FIELDS))
        wanted = dict.fromkeys((*(self._names.get(f.name, f.name) for f in fields), *added))
        return tuple(name for name in wanted if name.casefold() in self._known)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns of BigQuery that have the primary key. Empty where masking leaves nothing of a part of it."""
        carried = {f.source for f in self._keys}
        whole = all(not c.is_primary_key or c.name in carried for c in self.columns)
        return tuple(self._names.get(f.name, f.name) for f in self._keys) if whole else ()

    @property
    def columns_of_key(self) -> tuple[Column, ...]:
        """Spanner's columns of the primary key."""
        return tuple(column for column in self.columns if column.is_primary_key)

    def of_change(self, change: Change) -> Form:
        """A masked, enriched and filtered change. Raises what an unfit value raises in the sink's conversion."""
        state = tuple(self._of_source(f, change) for f in self._compared)
        state += tuple(self._exact_of_source(f, exact, change) for f, exact in self._exact)
        known = tuple(change.enriched.get(name) for name in self._enrichment)
        said = {**_metadata(change, self.table), **change.enriched}
        added = tuple(plain(_converted(field, said.get(field.name))) for field, plain in self._added)
        return Form(state + known, tuple(self._of_source(f, change) for f in self._unsure) + added)

    def of_row(self, row: Mapping[str, Any]) -> Form:
        """A row of BigQuery, as `support.bigquery_rest` reads it."""
        state = tuple(f.plain(row.get(self._names.get(f.name, f.name))) for f in self._compared)
        exact = row.get(tables.EXACT_VALUES) or {}
        state += tuple(_exact_form(exact.get(f.source)) for f, _ in self._exact)
        known = tuple(row.get(name) for name in self._enrichment)
        unsure = tuple(f.plain(row.get(self._names.get(f.name, f.name))) for f in self._unsure)
        return Form(state + known, unsure + tuple(plain(row.get(field.name)) for field, plain in self._added))

    def key_of_change(self, change: Change) -> str:
        return _joined(self._of_source(f, change) for f in self._keys)

    def key_of_row(self, row: Mapping[str, Any]) -> str:
        return _joined(f.plain(row.get(self._names.get(f.name, f.name))) for f in self._keys)

    def raw_key_of_row(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """The primary key in Spanner's JSON encoding; empty where its types are not those of ids."""
        if any(column.type not in _IDS for column in self.columns_of_key):
            return ()
        return tuple(f.plain(row.get(self._names.get(f.name, f.name))) for f in self._keys)

    def key_version(self, row: Mapping[str, Any]) -> str:
        """The version of the masking key that the row's tokens were made with; empty where it has no token."""
        tokens = (row.get(self._names.get(name, name)) for name in self._tokens)
        return next((str(t[0] if isinstance(t, list) else t).partition(":")[0] for t in tokens if t), "")

    def differing(self, ours: Form, theirs: Form, *, history: bool) -> tuple[str, ...]:
        """The columns of BigQuery in which two forms differ."""
        names = [self._names.get(f.name, f.name) for f in self._compared]
        names += [*(tables.EXACT_VALUES for _ in self._exact), *self._enrichment]
        found = [n for n, a, b in zip(names, ours.state, theirs.state, strict=True) if a != b]
        if history:
            added = [*(f.name for f in self._unsure), *(f.name for f, _ in self._added)]
            found += [n for n, a, b in zip(added, ours.history, theirs.history, strict=True) if a != b]
        return tuple(dict.fromkeys(found))

    def same_state(self, expected: Form, found: Form) -> Form:
        """`found`, with what enrichment took from the old values of a change taken as right: the row says nothing."""
        cut = len(self._compared) + len(self._exact)
        known = (
            None if ours is None else theirs
            for ours, theirs in zip(expected.state[cut:], found.state[cut:], strict=True)
        )
        return Form((*found.state[:cut], *known), found.history)

    @staticmethod
    def _of_source(field: _Field, change: Change) -> Any:
        value = (change.keys if field.is_key else change.new).get(field.source)
        return field.plain(None if value is None else field.convert(value))

    @staticmethod
    def _exact_of_source(field: _Field, exact: _Convert, change: Change) -> Any:
        value = (change.keys if field.is_key else change.new).get(field.source)
        return _exact_form(None if value is None else exact(value))


def digest(values: Values) -> bytes:
    """16 bytes that stand for the values."""
    return blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _columns_by_field(table: WatchedTable, columns: Sequence[Column]) -> dict[str, Column]:
    described = tables.source_fields(table, ((c.name, c.type) for c in columns))
    return {field.name: column for column, fields in zip(columns, described, strict=True) for field in fields}


def _held(hold_new: bool) -> tuple[str | None, ...]:
    return ("hold", None) if hold_new else ("hold",)


def _joined(parts: Any) -> str:
    return "/".join("NULL" if part is None else str(part) for part in parts)


def _exact_form(value: Any) -> str | None:
    """A text even for the empty list: it is not the same as nothing."""
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _metadata(change: Change, table: WatchedTable) -> dict[str, Any]:
    from pipeline.sink import rows

    return {
        tables.MOD_TYPE: change.mod_type,
        tables.TABLE_NAME: change.table,
        tables.COMMIT_TIMESTAMP: change.commit_timestamp,
        tables.COMMIT_TIMESTAMP_NANOS: timestamps.to_nanos(change.commit_timestamp),
        tables.SERVER_TRANSACTION_ID: change.server_transaction_id,
        tables.RECORD_SEQUENCE: change.record_sequence,
        tables.IS_LAST_RECORD: change.is_last_record_in_transaction_in_partition,
        tables.NUMBER_OF_RECORDS: change.number_of_records_in_transaction,
        tables.NUMBER_OF_PARTITIONS: change.number_of_partitions_in_transaction,
        tables.CHANGE_ID: change.change_id,
        tables.OLD_VALUES: rows.old_values(change, table),
        tables.IS_INCOMPLETE: change.is_incomplete or None,
    }


def _converted(field: tables.Field, value: Any) -> Any:
    if value is None or field.type != "TIMESTAMP":
        return value
    return timestamps.to_micros(timestamps.normalise(value))


# ---------------------------------------------------------------------- one value


def _plain(field: tables.Field, spanner_type: str, *, emulated: bool) -> _Convert:
    """A function from a value of either side to what is compared."""
    plain: _Convert = _PLAIN.get(field.type, _as_it_is)
    if field.type == "TIMESTAMP" and emulated:
        plain = _seconds
    if field.type == "FLOAT64" and "FLOAT32" in spanner_type:
        plain = _float32
    if field.type == "FLOAT64" and emulated:
        plain = _without_nan(plain)
    if field.mode == "REPEATED":
        # NULL, or empty: the exact values say which.
        return lambda values: [plain(v) for v in values if v is not None] if values else None
    return lambda value: None if value is None else plain(value)


def _as_it_is(value: Any) -> Any:
    return value


def _float(value: Any) -> Any:
    number = float(value)
    # NaN is not equal to itself, and 0.0 is to -0.0.
    return "NaN" if math.isnan(number) else number or 0.0


def _float32(value: Any) -> Any:
    number = float(value)
    return _float(struct.unpack("f", struct.pack("f", number))[0] if math.isfinite(number) else number)


def _without_nan(plain: _Convert) -> _Convert:
    return lambda value: None if math.isnan(float(value)) else plain(value)


def _numeric(value: Decimal) -> str:
    return format(value.normalize(), "f") if value else "0"


def _micros(value: Any) -> int:
    return value if isinstance(value, int) else (value - _EPOCH) // timedelta(microseconds=1)


def _seconds(value: Any) -> int:
    return _micros(value) // _SECOND


def _date(value: date) -> str:
    return value.isoformat()


def _parsed(convert: _Convert) -> _Convert:
    """The sink's conversion of a JSON column gives texts; BigQuery's row has what they hold."""

    def parsed(value: Any) -> Any:
        text = convert(value)
        return [json.loads(each) for each in text] if isinstance(text, list) else json.loads(text)

    return parsed


def _json(value: Any) -> str:
    return json.dumps(_json_value(value), sort_keys=True, ensure_ascii=False)


def _json_value(value: Any) -> Any:
    match value:
        case dict():
            return {name: _json_value(each) for name, each in value.items()}
        case list():
            return [_json_value(each) for each in value]
        case bool():
            return value
        case int() | float():
            return _json_number(value)
    return value


def _json_number(value: float) -> float:
    if isinstance(value, int) and value in _WHOLE:
        return value
    try:
        number = float(value)
    except OverflowError:
        return value
    return int(number) if math.isfinite(number) and number.is_integer() else number


_PLAIN: Final[Mapping[str, _Convert]] = {
    "FLOAT64": _float,
    "NUMERIC": _numeric,
    "TIMESTAMP": _micros,
    "DATE": _date,
    "JSON": _json,
}
