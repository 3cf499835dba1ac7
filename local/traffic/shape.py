"""How the simulator's payments are written into the watched tables: any tables that a description fits.

The simulator speaks the shipped tables' columns. A described column takes the value that means the same, in its own
type; a column with a meaning that the simulator does not know stays empty, or gets a filler where it cannot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import orjson

from contract.watched import Meaning, Policy, WatchedColumn, WatchedTable, WatchedTables
from local.traffic.commits import CommitError
from local.traffic.simulator import COMMIT_TIMESTAMP, PAYMENT_TABLE, Mutation, Operation, Value
from pipeline.source.dialect import dialect_of

_BY_MEANING: Final[Mapping[Meaning, str]] = {
    "payment": "PUID",
    "customer": "CustomerId",
    "acting_user": "UserId",
    "status": "Status",
    "time": "Timestamp",
    "action": "Action",
    "amount": "Amount",
    "currency": "Currency",
    "region": "Region",
    "method": "PaymentMethod",
    "service": "ServiceName",
    "error": "ErrorDetails",
    "retries": "RetryCount",
    "metadata": "Metadata",
    "created": "CreatedAt",
    "changed": "UpdatedAt",
}
_BY_POLICY: Final[Mapping[Policy, str]] = {"card": "CardNumber", "token": "CardholderName", "drop": "CardExpiry"}
_FILLERS: Final[Mapping[str, Value]] = {
    "STRING": "-",
    "INT64": "0",
    "NUMERIC": "0",
    "FLOAT64": 0.0,
    "BOOL": False,
    "TIMESTAMP": "2026-01-01T00:00:00Z",
    "DATE": "2026-01-01",
    "JSON": "{}",
    "PG_NUMERIC": "0",
    "PG_JSONB": "{}",
    "BYTES": "",
}


@dataclass(frozen=True, kw_only=True)
class TargetColumn:
    """A column as Spanner has it. `type` is Spanner's own text; `stamped`: a commit timestamp may be asked for."""

    name: str
    type: str
    required: bool
    stamped: bool


Columns = Mapping[str, tuple[TargetColumn, ...]]


def columns_of(database: Any, watched: WatchedTables) -> Columns:
    """The columns of the watched tables that can be written, as Spanner has them."""
    dialect = dialect_of(database)
    places = [dialect.of_table(table.name) for table in watched.tables]
    wanted = " OR ".join(f"c.TABLE_SCHEMA = '{schema}' AND c.TABLE_NAME = '{table}'" for schema, table in places)
    sql = (
        "SELECT c.TABLE_SCHEMA, c.TABLE_NAME, c.COLUMN_NAME, c.SPANNER_TYPE, "
        "c.IS_NULLABLE = 'NO' AND c.COLUMN_DEFAULT IS NULL, COALESCE(o.OPTION_VALUE, '') = 'TRUE' "
        "FROM INFORMATION_SCHEMA.COLUMNS AS c "
        "LEFT JOIN INFORMATION_SCHEMA.COLUMN_OPTIONS AS o ON o.TABLE_SCHEMA = c.TABLE_SCHEMA "
        "AND o.TABLE_NAME = c.TABLE_NAME AND o.COLUMN_NAME = c.COLUMN_NAME "
        "AND o.OPTION_NAME = 'allow_commit_timestamp' "
        f"WHERE ({wanted}) AND c.IS_GENERATED = 'NEVER' ORDER BY c.ORDINAL_POSITION"
    )
    found: dict[str, list[TargetColumn]] = {}
    with database.snapshot() as snapshot:
        for schema, table, name, kind, required, stamped in snapshot.execute_sql(sql):
            found.setdefault(dialect.table(schema, table), []).append(
                TargetColumn(
                    name=name,
                    type=dialect.type(kind),
                    required=bool(required),
                    # In PostgreSQL its type says so.
                    stamped=bool(stamped) or kind == "spanner.commit_timestamp",
                )
            )
    return {table: tuple(columns) for table, columns in found.items()}


class Shape:
    """Fits the simulator's operations into the watched tables."""

    def __init__(self, watched: WatchedTables, columns: Columns) -> None:
        self._watched = watched
        self._columns = columns

    def fit(self, operation: Operation) -> Operation:
        """The same commit in the watched tables. What has no table there is left out."""
        fitted = (self._mutation(mutation) for mutation in operation.mutations)
        return replace(operation, mutations=tuple(mutation for mutation in fitted if mutation))

    def _mutation(self, mutation: Mutation) -> Mutation | None:
        table = self._watched.payments if mutation.table == PAYMENT_TABLE else next(iter(self._watched.events), None)
        if table is None:
            return None
        customer = table.columns.get(table.column("customer") or "")
        return replace(
            mutation,
            table=table.name,
            values=self._values(mutation, table),
            dead_letter=mutation.dead_letter and customer is not None and customer.policy == "identifier",
            key=str(table.column("payment")),
            status_column=table.column("status"),
        )

    def _values(self, mutation: Mutation, table: WatchedTable) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for column in self._columns[table.name]:
            if mutation.kind == "delete" and column.name != table.column("payment"):
                continue
            source = _source(table.columns.get(column.name))
            if source and source in mutation.values:
                value = _described(mutation.values[source], table.columns[column.name])
                values[column.name] = _typed(value, column, mutation.values.get("Timestamp"))
            written = column.name in values or mutation.kind != "update"
            if column.required and written and values.get(column.name) is None:
                values[column.name] = _filler(table, column)
        return values


def _filler(table: WatchedTable, column: TargetColumn) -> Value:
    """The value of a column that must have one. Raises CommitError for a type that the traffic cannot make."""
    kind = column.type.partition("(")[0]
    if kind not in _FILLERS:
        raise CommitError(
            f"{table.name}.{column.name} must have a default, or allow NULL: the traffic makes no values of type "
            f"{column.type}. Add a changeset, or write your own traffic."
        )
    return _FILLERS[kind]


def _source(column: WatchedColumn | None) -> str | None:
    """The simulator's column for a described one."""
    if column is None:
        return None
    return _BY_MEANING[column.means] if column.means else _BY_POLICY.get(column.policy)


def _described(value: Value, column: WatchedColumn) -> Value:
    """Metadata with the customer where the description looks for it."""
    if not column.customer_in or not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    customer = members.get("customerId")
    if customer is None or "customerId" in column.customer_in:
        return value
    *path, last = column.customer_in[0].split(".")
    inner = members
    for name in path:
        inner = inner.setdefault(name, {})
    inner[last] = members.pop("customerId")
    return orjson.dumps(members).decode()


def _typed(value: Value, column: TargetColumn, now: Value) -> Value:
    """A value of the simulator in the column's type."""
    kind, _, length = column.type.partition("(")
    if not isinstance(value, str):
        return value
    if value == COMMIT_TIMESTAMP:
        return value if column.stamped else now
    if kind == "INT64":
        return value if value.lstrip("-").isdigit() else _whole(value)
    if kind == "FLOAT64":
        return float(value)
    if kind == "STRING" and length.rstrip(")").isdigit():
        return value if len(value) <= int(length.rstrip(")")) else value.replace("-", "")[: int(length.rstrip(")"))]
    return value


def _whole(value: str) -> str:
    """A whole number for an amount, in cents, or for an id, the same each time: too short for a card number."""
    try:
        return str(int(Decimal(value) * 100))
    except ArithmeticError:
        return str(int.from_bytes(hashlib.sha256(value.encode()).digest()) % 10**11)
