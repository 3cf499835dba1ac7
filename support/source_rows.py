"""Rows of a Spanner table at a moment, as change records would carry them: values in Spanner's JSON encoding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contract.changes import Column, Row
from contract.watched import WatchedTable
from support.connection import Connection


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """A table's columns, types without their lengths, and rows by column name."""

    columns: tuple[Column, ...]
    rows: Sequence[Row]


def source_database(connection: Connection) -> Any:
    """Spanner's database of the payments."""
    from pipeline.clients import spanner_database

    return spanner_database(
        connection.spanner_endpoint, connection.project, connection.spanner_instance, connection.spanner_database
    )


def read(database: Any, table: WatchedTable, moment: datetime, payments: Sequence[str] | None = None) -> SourceRows:
    """A strong read of a table as it was at `moment`: all of it, or the rows of some payments, by their ids.

    It is of low priority: the payments' services come first. Raises what Spanner's client raises.
    """
    from google.cloud.spanner_v1 import param_types
    from google.protobuf.json_format import MessageToDict

    options = {"priority": "PRIORITY_LOW"}
    with database.snapshot(read_timestamp=moment, multi_use=True) as snapshot:
        described = snapshot.execute_sql(
            "SELECT c.COLUMN_NAME, c.SPANNER_TYPE, k.COLUMN_NAME IS NOT NULL FROM INFORMATION_SCHEMA.COLUMNS AS c "
            "LEFT JOIN INFORMATION_SCHEMA.INDEX_COLUMNS AS k ON k.TABLE_NAME = c.TABLE_NAME "
            "AND k.COLUMN_NAME = c.COLUMN_NAME AND k.INDEX_TYPE = 'PRIMARY_KEY' "
            f"WHERE c.TABLE_SCHEMA = '' AND c.TABLE_NAME = '{table.name}' AND c.IS_GENERATED = 'NEVER' "
            "ORDER BY c.ORDINAL_POSITION"
        )
        columns = tuple(Column(name, re.sub(r"\([^)]*\)", "", kind), is_key) for name, kind, is_key in described)
        names = [column.name for column in columns]
        sql = f"SELECT {', '.join(f'`{name}`' for name in names)} FROM `{table.name}`"
        if payments is None:
            found = snapshot.execute_sql(sql, request_options=options, lazy_decode=True)
        else:
            key, whole = table.column("payment"), table.payment_type == "INT64"
            found = snapshot.execute_sql(
                f"{sql} WHERE `{key}` IN UNNEST(@ids) ORDER BY `{key}`",
                params={"ids": [int(each) if whole else each for each in payments]},
                param_types={"ids": param_types.Array(param_types.INT64 if whole else param_types.STRING)},
                request_options=options,
                lazy_decode=True,
            )
        rows = [dict(zip(names, (MessageToDict(value) for value in row), strict=True)) for row in found]
    return SourceRows(columns=columns, rows=rows)
