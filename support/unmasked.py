"""Card numbers in rows of BigQuery, where none may be: in any text, number, JSON name or value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, Final

from contract import spanner_types, tables
from contract.watched import WatchedTable
from pipeline.transforms.cards import find_cards, may_hold_card

# What Spanner and the pipeline say of a row, not the payment's services: numbers in it only look like card numbers.
_NOT_SCANNED: Final = frozenset(field.name for field in tables.METADATA_FIELDS) - {
    tables.OLD_VALUES,
    tables.EXACT_VALUES,
}


def columns_with_cards(table: WatchedTable, row: Mapping[str, Any]) -> list[str]:
    """The columns of a row in which a card number can be read; never the number."""
    described = {
        tables.column_name(table, name)
        for name, column in table.columns.items()
        if spanner_types.carried_as(column.type) == "JSON"
    }
    json_columns = {*described, tables.OLD_VALUES, tables.EXACT_VALUES}
    texts = {name: list(_texts(value, json_columns, name)) for name, value in row.items() if name not in _NOT_SCANNED}
    # One look at all of it; each text by itself only where that look is not sure.
    if not may_hold_card("x".join(text for each in texts.values() for text in each)):
        return []
    return [name for name, each in texts.items() if any(find_cards(text) for text in each)]


def _texts(value: Any, json_names: Iterable[str] = (), name: str = "") -> Iterator[str]:
    match value:
        case None | bool() | datetime() | date():
            return
        case str():
            yield value
            if name in json_names:
                yield from _texts(_parsed(value))
        case bytes():
            yield value.decode("latin-1")
        case dict():
            for inner, each in value.items():
                yield inner
                yield from _texts(each, json_names, inner)
        case list() | tuple():
            for each in value:
                yield from _texts(each, json_names, name)
        case float():
            yield format(value, ".0f")
        case _:
            yield str(value)


def _parsed(text: str) -> Any:
    """What a JSON text holds. A string of a JSON column comes without its quotes: then there is nothing inside it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
