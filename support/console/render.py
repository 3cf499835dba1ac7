"""Templates, and how they write times, amounts and ages."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from support.plain import plain

_HERE: Final = Path(__file__).parent
RUNBOOKS: Final = _HERE.parents[1] / "runbooks"


def environment() -> Environment:
    """The templates. Every value is escaped."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        time=_time, clock=_clock, amount=_amount, age=_age, cell=_cell, data=_data, iso=_iso, count=_count
    )
    return made


def runbook(name: str) -> Markup | None:
    """A page of the runbooks as HTML; None where there is none of that name."""
    # A name, never a path: what is requested is looked up, not opened.
    file = {path.stem: path for path in RUNBOOKS.glob("*.md")}.get(name)
    if not file:
        return None
    from markdown_it import MarkdownIt

    text = re.sub(r"<!--.*?-->\n?", "", file.read_text(), flags=re.S)
    html: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    # What is wider than the screen scrolls by itself, by keys too.
    html = html.replace("<pre>", '<pre tabindex="0">')
    html = html.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace("</table>", "</table></div>")
    return Markup(re.sub(r'href="(?!https?:)(?:\./)?([\w-]+)\.md(#[\w-]*)?"', r'href="/runbooks/\1\2"', html))  # noqa: S704


def _time(value: datetime | str | None) -> str:
    if value is None:
        return "·"
    if isinstance(value, str):
        return value.replace("T", " ")[:23]
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _clock(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%H:%M")


def _iso(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _amount(value: Decimal | int | float | None) -> str:
    if value is None:
        return "·"
    return f"{value:,.2f}" if value == round(value, 2) else f"{value:,f}"


def _count(value: int) -> str:
    return f"{value:,}"


def _age(value: datetime | float | None, now: datetime | None = None) -> str:
    """`45 s`, `12 min`, `3 h`, `5 d`, of a time or of seconds."""
    if value is None:
        return "·"
    seconds = ((now or datetime.now(UTC)) - value).total_seconds() if isinstance(value, datetime) else float(value)
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length or (seconds >= length and unit == "min"):
            return f"{int(seconds // length)} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _cell(value: Any) -> str:
    match value:
        case None:
            return "·"
        case datetime():
            return _time(value)
        case Decimal():
            return _amount(value)
        case dict() | list():
            return json.dumps(value, default=plain, ensure_ascii=False)
    return str(value)


def _data(value: Any) -> Markup:
    """JSON for a script block: no markup can end it."""
    text = json.dumps(value, default=plain).replace("<", "\\u003c").replace("&", "\\u0026")
    return Markup(text)  # noqa: S704
