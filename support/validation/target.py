"""BigQuery's side of a validation: the changes of a window, and the newest row of each key up to a moment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from contract import tables
from contract.watched import WatchedTable
from support.bigquery_rest import Parameter, Row
from support.connection import Connection
from support.plain import plain
from support.validation.comparable import Comparable
from support.validation.findings import Report
from support.validation.source import Part
from support.warehouse import Warehouse


class Target:
    """Reads one stack's BigQuery. `rows_read` and `bytes_read` count what it read; no query reads over `most_bytes`."""

    def __init__(self, connection: Connection, *, most_bytes: int, seconds: float) -> None:
        self._connection, self._most_bytes = connection, most_bytes
        self._warehouse = Warehouse(connection, seconds=seconds)
        self.rows_read = self.bytes_read = 0

    def columns(self, table: WatchedTable) -> dict[str, Any]:
        """The columns of a changelog, by casefolded name."""
        from pipeline.clients import bigquery_client

        client = bigquery_client(self._connection.big_query_endpoint, self._connection.project)
        return {f.name.casefold(): f for f in client.get_table(f"{self._connection.project}.{table.id}").schema}

    def window(self, form: Comparable, since: datetime, until: datetime) -> Iterator[Row]:
        """The rows of the changes from `since` to before `until`, replays included."""
        return self._each(
            f"SELECT {_list(form.selected)} FROM {self._name(form.table)} "
            f"WHERE {tables.COMMIT_TIMESTAMP} >= @since AND {tables.COMMIT_TIMESTAMP} < @until",
            since=since,
            until=until,
        )

    def newest(self, form: Comparable, part: Part, until: datetime) -> Iterator[Row]:
        """The newest row of each key of a part before `until`, deleted ones too.

        The part is of the clustering column, so the blocks of other keys stay unread; but BigQuery's estimate, to
        which a limit of bytes is held, does not know that (cloud.google.com/bigquery/docs/best-practices-costs).
        """
        first = form.key_columns[0]
        bounds = {n: v for n, v in (("low", part.low), ("high", part.high)) if v is not None}
        whole = form.columns_of_key[0].type == "INT64"
        known: dict[str, Parameter] = {name: int(v) if whole else v for name, v in bounds.items()}
        signs = {"low": ">", "high": "<="}
        where = "".join(f" AND `{first}` {signs[name]} @{name}" for name in known)
        return self._each(
            f"SELECT {_list(form.selected)} FROM {self._name(form.table)} "
            f"WHERE {tables.COMMIT_TIMESTAMP} < @until{where} "
            f"QUALIFY ROW_NUMBER() OVER (PARTITION BY {_list(form.key_columns)} ORDER BY {tables.CHANGE_ID} DESC) = 1",
            limited=False,
            until=until,
            **known,
        )

    def newest_of(self, form: Comparable, keys: Sequence[Any], until: datetime) -> Iterator[Row]:
        """The newest row before `until` of each of these values of the first column of the key."""
        whole = form.columns_of_key[0].type == "INT64"
        wanted = f"({', '.join(str(int(key)) for key in keys)})" if whole else "UNNEST(@keys)"
        known: dict[str, Parameter] = {} if whole else {"keys": [str(key) for key in keys]}
        return self._each(
            f"SELECT {_list(form.selected)} FROM {self._name(form.table)} "
            f"WHERE {tables.COMMIT_TIMESTAMP} < @until AND `{form.key_columns[0]}` IN {wanted} "
            f"QUALIFY ROW_NUMBER() OVER (PARTITION BY {_list(form.key_columns)} ORDER BY {tables.CHANGE_ID} DESC) = 1",
            limited=False,
            until=until,
            **known,
        )

    def count(self, of: Sequence[WatchedTable], since: datetime, until: datetime) -> int:
        """The changes of a window in these tables."""
        where = f"WHERE {tables.COMMIT_TIMESTAMP} >= @since AND {tables.COMMIT_TIMESTAMP} < @until"
        counts = " + ".join(f"(SELECT COUNT(*) FROM {self._name(table)} {where})" for table in of)
        [row] = self._each(f"SELECT {counts} AS changes", since=since, until=until)
        return int(row["changes"])

    def record(self, report: Report) -> None:
        """Appends a run to the table `audit_checks`."""
        made = tables.audit_checks(self._connection.watched)
        self._warehouse.append(made.id, {report.id: _row(report)})

    def changes(self, form: Comparable, ids: Sequence[str], since: datetime, until: datetime) -> Iterator[Row]:
        """The rows of changes by their ids, committed from `since` to before `until`."""
        return self._each(
            f"SELECT {_list(form.selected)} FROM {self._name(form.table)} WHERE {tables.CHANGE_ID} IN UNNEST(@ids) "
            f"AND {tables.COMMIT_TIMESTAMP} >= @since AND {tables.COMMIT_TIMESTAMP} < @until",
            ids=ids,
            since=since,
            until=until,
        )

    def _each(self, sql: str, *, limited: bool = True, **parameters: Parameter) -> Iterator[Row]:
        bytes_read, rows = self._warehouse.each(sql, parameters, most_bytes=self._most_bytes if limited else None)
        self.bytes_read += bytes_read
        for row in rows:
            self.rows_read += 1
            yield row

    def _name(self, table: WatchedTable) -> str:
        return f"`{self._connection.project}.{table.id}`"


def _row(report: Report) -> Row:
    """A run as a row of `audit_checks`."""
    found = report.to_dict()
    return {
        "run_id": report.id,
        "checked_at": report.at.isoformat(),
        "read_timestamp": report.until.isoformat(),
        "mismatches": len(report.open),
        "source_rows": report.source_rows,
        "warehouse_rows": report.warehouse_rows,
        "warehouse_bytes": report.warehouse_bytes,
        "cpu_seconds": report.cpu_seconds,
        "checks": json.dumps(found["checks"], default=plain),
        "findings": json.dumps([_public(finding) for finding in found["findings"]], default=plain),
        "resolved": json.dumps([_public(finding) for finding in found["resolved"]], default=plain),
        "notes": report.notes,
    }


def _public(finding: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in finding.items() if name != "raw_key"}


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
