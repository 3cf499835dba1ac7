"""How commands answer: a table on a terminal, JSON elsewhere, CSV where it is chosen."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from support import connection as connections
from support.connection import Connection
from support.plain import plain

F = TypeVar("F", bound=Callable[..., Any])
Form = Literal["json", "csv"] | None

# Of a command whose answer is one thing; one with rows has `formats`.
json_option = click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal.")
_JSON = click.option("--json", "form", flag_value="json", help="JSON also on a terminal.")
_CSV = click.option("--csv", "form", flag_value="csv", help="CSV with a header.")


def formats(command: F) -> F:
    """Adds --json and --csv. The command gets `form`, for `show`."""
    return _CSV(_JSON(command))


class NothingFound(SystemExit):
    """The answer is empty: exit code 1."""

    def __init__(self) -> None:
        super().__init__(1)


def current_connection(ctx: click.Context) -> Connection:
    """The connection that `audit --connection` names."""
    path: Path | None = (ctx.obj or {}).get("connection")
    return connections.load(path)


def wants_json(as_json: bool) -> bool:
    return as_json or not sys.stdout.isatty()


def print_json(answer: Any) -> None:
    """As `support.plain` writes it."""
    click.echo(json.dumps(answer, default=plain, indent=2, ensure_ascii=False))


def show(form: Form, answer: Any, records: Sequence[Any], table: Callable[[], None]) -> None:
    """Prints an answer: `table` for people, all of it as JSON, or its `records`, dataclasses or rows, as CSV."""
    if form == "csv":
        print_csv(records)
    elif wants_json(form == "json"):
        print_json(answer)
    else:
        table()


def print_csv(records: Sequence[Any]) -> None:
    """With a header, unless there is no record; times and decimals as in JSON, NULL as nothing."""
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    rows = [_row(record) for record in records]
    writer.writerows([rows[0].keys(), *([_safe(value) for value in row.values()] for row in rows)] if rows else [])


def _row(record: Any) -> Mapping[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)} if is_dataclass(record) else record


def _safe(value: Any) -> Any:
    match value:
        case None:
            return ""
        case datetime() | Decimal():
            return plain(value)
        case dict() | list() | tuple():
            return json.dumps(value, default=plain, ensure_ascii=False)
        case str() if value[:1] in _FORMULA:
            # A spreadsheet would run it: https://owasp.org/www-community/attacks/CSV_Injection.
            return f"'{value}"
    return value


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, optional: Sequence[str] = (), title: str | None = None
) -> None:
    """Where the terminal is too narrow, `optional` columns are left out, the last first; JSON has them all."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    cells = [[cell(value) for value in row] for row in rows]
    shown = _fitting(columns, cells, optional, console.width)
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False, show_edge=False
    )
    for name in shown:
        table.add_column(name, overflow="fold", justify="right" if name in _NUMBERS else "left")
    for row in cells:
        by_name = dict(zip(columns, row, strict=True))
        # Text, so that a value with square brackets is not read as markup.
        table.add_row(*(Text(by_name[name], style=_style(name, by_name[name])) for name in shown))
    console.print(table)
    console.print()


def _style(column: str, text: str) -> str:
    # A state may have its age behind it: `failed 12m`.
    return _STYLES.get(text.partition(" ")[0] if column == "state" else text, "")


def _fitting(columns: Sequence[str], cells: list[list[str]], optional: Sequence[str], width: int) -> list[str]:
    widths = {
        name: max([len(name), *(len(line) for row in cells for line in row[i].split("\n"))])
        for i, name in enumerate(columns)
    }
    shown = list(columns)
    for name in reversed(optional):
        if sum(widths[kept] + _GAP for kept in shown) - _GAP <= width:
            break
        shown.remove(name)
    return shown


_GAP = 3
_FORMULA = frozenset("=+-@\t\r")
_NUMBERS = frozenset({"amount", "tries", "after"})
_STYLES = {"failed": "red", "processed": "green", "initiated": "yellow", "deleted": "dim", "unexpected": "bold red"}


def cell(value: Any) -> str:
    """A value as a table shows it: times in UTC to the millisecond."""
    match value:
        case None:
            return "·"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        case Decimal():
            return f"{value:,.2f}" if value == round(value, 2) else f"{value:f}"
    return str(value)


def age(length: timedelta) -> str:
    """How long, in its largest whole unit: `45s`, `12m`, `3h`, `5d`, as --since takes it."""
    seconds = max(0, int(length.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def counted(number: int, what: str) -> str:
    """`No row`, `1 row`, `2 rows`."""
    return f"{number or 'No'} {what}{'' if number == 1 else 's'}"


def complete_line(complete_until: datetime | None) -> str:
    """How far the answer can be relied on."""
    if complete_until is None:
        return "No job has said for a week how far the warehouse is complete. Is the pipeline running?"
    return f"Complete up to {cell(complete_until)} UTC."
