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
@click.option("--paused", is_flag=True, help="While `python -m delivery.deploy pause` holds.")
@_assumptions
@json_option
def cost(stack: str, prices: Path | None, paused: bool, as_json: bool, **assumed: float) -> None:
    """Estimates what a stack costs a month, from its settings, list prices and an assumed load.

    \b
    Examples:
      audit cost -s prod
      audit cost -s prod --tps 50 --retention-months 24
      audit cost -s prod --prices contract.yaml      prices of your own over the list
      audit cost -s dev --paused --tps 0             while it is paused
    """
    from components.settings.pause import PAUSED
    from delivery.cost import estimate
    from delivery.prices import Prices
    from graph.resources import graph_of

    # Any moment: what is paid does not depend on it.
    passed = {PAUSED: "2026-01-01T00:00:00+00:00"} if paused else {}
    found = estimate(graph_of(stack, passed=passed), Prices.load(prices), Assumptions(**assumed))
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
            "idle_dollars": round(line.idle, 2),
            "dollars_per_1000_changes": _small(found.per_thousand(line)),
            "page": line.price.page,
            "seen": line.price.seen,
        }
        for line in found.lines
    ]
    return {
        "stack": found.stack,
        "as_of": found.as_of,
        "dollars_a_month": round(found.dollars, 2),
        "idle_dollars_a_month": round(found.idle, 2),
        "lines": lines,
        "assumptions": asdict(found.assumptions),
        "not_counted": NOT_COUNTED,
        "prices_nobody_has_seen": found.unseen,
    }


def _small(dollars: float | None) -> float | None:
    return None if dollars is None else round(dollars, 8)


def _added(dollars: float | None) -> str:
    """Of a thousand changes: a cent is much."""
    return "" if not dollars or abs(dollars) < 5e-7 else f"${dollars:.6f}"


def _show(found: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from delivery.cost import NOT_COUNTED

    console = Console()
    title = f"{found.stack}: a month at list prices of {found.as_of}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for name in ("service", "what", "quantity", "price", "a month", "idle", "1,000 changes"):
        left = name in ("service", "what", "quantity")
        table.add_column(name, overflow="fold", justify="left" if left else "right", no_wrap=name == "a month")
    service = ""
    for line in found.lines:
        mark = "" if line.price.seen else " ?"
        price = f"${line.price.dollars:g} a {line.price.unit}{mark}"
        shown = line.service if line.service != service else ""
        service = line.service
        added = found.per_thousand(line)
        table.add_row(
            shown, Text(line.what), line.formula, price, f"${line.dollars:,.2f}", f"${line.idle:,.2f}", _added(added)
        )
    table.add_section()
    adds = [found.per_thousand(line) or 0 for line in found.lines]
    table.add_row("total", "", "", "", f"${found.dollars:,.2f}", f"${found.idle:,.2f}", _added(sum(adds)), style="bold")
    console.print(table)
    assumed = "  ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in asdict(found.assumptions).items())
    console.print("Idle: nothing is written, nobody searches. 1,000 changes: what they add, over all of this load.")
    console.print(f"Assumed: {assumed}", style="dim")
    console.print(f"Not counted: {'; '.join(NOT_COUNTED)}.", style="dim")
    if found.unseen:
        console.print("? nobody has checked this price: compare it with Google's page before you rely on it.")
