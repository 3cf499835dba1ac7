"""`audit cost`: where the infrastructure's libraries are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click

from delivery.assumptions import Assumptions
from support.cli.explained import Command
from support.cli.output import json_option, print_json, wants_json

if importlib.util.find_spec("pulumi") is None:
    raise ImportError("audit cost needs what the extra `infra` installs.")


def _assumptions(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option per assumption, with its help and default."""
    for assumption in reversed(fields(Assumptions)):
        command = click.option(
            f"--{assumption.name.replace('_', '-')}",
            type=click.FloatRange(0),
            default=assumption.default,
            show_default=True,
            help=assumption.metadata["help"],
        )(command)
    return command


@click.command(cls=Command)
@click.option("-s", "--stack", required=True, help="Stack, such as prod: the Pulumi.<stack>.yaml of this checkout.")
@click.option("--prices", type=click.Path(dir_okay=False, path_type=Path), help="YAML file with prices over ours.")
@_assumptions
@json_option
def cost(stack: str, prices: Path | None, as_json: bool, **assumed: float) -> None:
    """Estimates what a stack costs a month, from its settings, list prices and an assumed load.

    \b
    Examples:
      audit cost -s prod
      audit cost -s prod --tps 50 --retention-months 24
      audit cost -s prod --prices contract.yaml      prices of your own over the list
    """
    from delivery.cost import estimate
    from delivery.prices import Prices
    from graph.resources import graph_of

    found = estimate(graph_of(stack), Prices.load(prices), Assumptions(**assumed))
    if wants_json(as_json):
        print_json(_plain(found))
    else:
        _show(found)


def _plain(found: Any) -> dict[str, Any]:
    from delivery.cost import NOT_COUNTED

    lines = [
        {
            "service": line.service,
            "what": line.what,
            "sku": line.price.sku,
            "place": line.place,
            "formula": line.formula,
            "quantity": round(line.quantity, 6),
            "unit": line.price.unit,
            "unit_dollars": line.price.dollars,
            "dollars": round(line.dollars, 2),
            "page": line.price.page,
            "seen": line.price.seen,
        }
        for line in found.lines
    ]
    return {
        "stack": found.stack,
        "as_of": found.as_of,
        "dollars_a_month": round(found.dollars, 2),
        "lines": lines,
        "assumptions": asdict(found.assumptions),
        "not_counted": NOT_COUNTED,
        "prices_nobody_has_seen": found.unseen,
    }


def _show(found: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from delivery.cost import NOT_COUNTED

    console = Console()
    title = f"{found.stack}: a month at list prices of {found.as_of}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for name in ("service", "what", "quantity", "price", "a month"):
        table.add_column(name, overflow="fold", justify="right" if name in ("price", "a month") else "left")
    service = ""
    for line in found.lines:
        mark = "" if line.price.seen else " ?"
        price = f"${line.price.dollars:g} a {line.price.unit}{mark}"
        shown = line.service if line.service != service else ""
        service = line.service
        table.add_row(shown, Text(line.what), line.formula, price, f"${line.dollars:,.2f}")
    table.add_section()
    table.add_row("total", "", "", "", f"${found.dollars:,.2f}", style="bold")
    console.print(table)
    assumed = "  ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in asdict(found.assumptions).items())
    console.print(f"Assumed: {assumed}", style="dim")
    console.print(f"Not counted: {'; '.join(NOT_COUNTED)}.", style="dim")
    if found.unseen:
        console.print("? nobody has checked this price: compare it with Google's page before you rely on it.")
