"""Reports: the prebuilt queries of the warehouse, run with named parameters, their columns named by what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from contract import queries, tables
from contract.errors import AuditError
from contract.queries import Argument
from contract.watched import WatchedTable, WatchedTables
from support import stuck
from support.bigquery_rest import Parameter, Row
from support.lookup import days_of
from support.search import MAX_LIMIT, Search, payment_id
from support.warehouse import Warehouse, whole_days

PERIOD: Final = timedelta(days=1)
LIMIT: Final = 50


class ReportError(AuditError, ValueError):
    """The report asks for what cannot be; the message gives the rule and the remedy."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Report:
    """The rows of a prebuilt query. A column that means something has its meaning's name; `puid` is the payment's id.

    `more`: there are more rows than the limit. The warehouse is complete up to `complete_until`; `warning` is why the
    rows may be out of date for another reason.
    """

    name: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    more: bool
    complete_until: datetime | None
    warning: str = ""


def names() -> tuple[str, ...]:
    """Every report, whether or not the stack's tables have the columns that it needs."""
    return queries.names()


def about(name: str) -> str:
    """What a report answers, in a sentence or two."""
    return queries.about(name)


def arguments(name: str) -> tuple[Argument, ...]:
    """The parameters that a report takes."""
    return queries.arguments(name)


def run(warehouse: Warehouse, name: str, **given: Parameter) -> Report:
    """Runs a report. Without `since` and `until` it is of the last day. Raises ReportError, WarehouseError.

    Also QueryError: there is no such report, or the payments have no column with a meaning that it needs.
    """
    watched = warehouse.connection.watched
    sql = queries.query(name, warehouse.connection.project, watched)
    parameters = _complete(name, given)
    limit = parameters.get("limit")
    if isinstance(limit, int):
        if not 1 <= limit <= MAX_LIMIT:
            raise ReportError(f"the limit must be 1 to {MAX_LIMIT:,}, got {limit}. Choose a shorter period.")
        # One more than requested shows whether there are more.
        parameters["limit"] = limit + 1
    if isinstance(customer := parameters.get("customer_id"), str):
        Search(customer_id=customer)
    if isinstance(puid := parameters.get("puid"), str):
        parameters["puid"] = payment_id(watched.payments, puid)
        if "since" in parameters and "since" not in given:
            parameters["since"] = next(days_of(warehouse, puid).ranges())[0]
    most = warehouse.limit(name, days=whole_days(parameters.get("since")))
    complete, rows = warehouse.complete_rows(sql, _order(sql), most, **parameters)
    found = [_by_meaning(row, watched.payments) for row in rows]
    most = limit if isinstance(limit, int) else len(found)
    return Report(
        name=name,
        about=queries.about(name),
        columns=tuple(found[0]) if found else (),
        rows=tuple(found[:most]),
        more=len(found) > most,
        complete_until=complete.until,
        warning=stuck.warning(warehouse) if queries.PAYMENT_STUCK in sql else "",
    )


def _complete(name: str, given: Mapping[str, Parameter]) -> dict[str, Parameter]:
    now = datetime.now(UTC)
    defaults: dict[str, Parameter] = {"since": now - PERIOD, "until": now, "limit": LIMIT, "period_seconds": 3600}
    wanted = {argument.name for argument in queries.arguments(name)}
    if unknown := sorted(given.keys() - wanted):
        raise ReportError(f"{name} takes {', '.join(sorted(wanted))}, got {', '.join(unknown)}.")
    parameters = {key: value for key, value in defaults.items() if key in wanted} | dict(given)
    if missing := sorted(wanted - parameters.keys()):
        raise ReportError(f"{name} needs {', '.join(missing)}, got nothing.")
    since, until = parameters.get("since"), parameters.get("until")
    if isinstance(since, datetime) and isinstance(until, datetime) and since >= until:
        raise ReportError("the period must begin before it ends. Swap since and until.")
    return parameters


def _order(sql: str) -> str:
    """The order of a query's rows, which a join of it would not keep."""
    found = re.findall(r"^ORDER BY (.+)$", sql, re.M)
    return found[-1] if found else "_here"


def _by_meaning(row: Row, payments: WatchedTable) -> Row:
    shown = {tables.named(payments, meaning): meaning for meaning in payments.meanings}
    names = {name: "puid" if meaning == "payment" else meaning for name, meaning in shown.items()}
    return {names.get(name, name): value for name, value in row.items()}


def available(watched: WatchedTables) -> tuple[str, ...]:
    """The reports that the stack's tables have the columns for."""
    return queries.queries(watched)
