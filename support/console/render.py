"""Templates, and how they write times, amounts and ages."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from contract import reading
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
        time=_time,
        clock=_clock,
        amount=_amount,
        age=_age,
        cell=_cell,
        data=_data,
        iso=_iso,
        count=_count,
        size=reading.shown,
        percent=_percent,
        heading=_heading,
        reason=reason,
    )
    return made


def runbook(name: str) -> Markup | None:
    """A page of the runbooks as HTML, such as `AuditDlqGrowth` or `how-to/replay`; None where there is none.

    Its links lead to pages of the console, or to the web; what the console does not serve stays as text.
    """
    # A name, never a path: what is requested is looked up, not opened.
    pages = {path.relative_to(RUNBOOKS).with_suffix("").as_posix(): path for path in RUNBOOKS.rglob("*.md")}
    if name not in pages:
        return None
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(re.sub(r"<!--.*?-->\n?", "", pages[name].read_text(), flags=re.S))
    for link in (each for token in tokens for each in token.children or () if each.type.startswith("link_")):
        if link.type == "link_open":
            link.attrs["href"] = _address(str(link.attrs["href"]), name, pages)
    html: str = parser.renderer.render(tokens, parser.options, {})
    html = re.sub(r'<a href="">(.*?)</a>', r"\1", html, flags=re.S)
    # What is wider than the screen scrolls by itself, by keys too.
    html = html.replace("<pre>", '<pre tabindex="0">')
    html = html.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace("</table>", "</table></div>")
    return Markup(html)  # noqa: S704 - what markdown-it rendered, without the page's own HTML


def _address(target: str, name: str, pages: Mapping[str, Path]) -> str:
    """A link's target in the console; empty for what it does not serve."""
    if target.startswith("https://"):
        return target
    file, _, part = target.partition("#")
    known = posixpath.normpath(posixpath.join(posixpath.dirname(name), file.removesuffix(".md"))) if file else name
    return f"/runbooks/{known}{f'#{part}' if part else ''}" if known in pages else ""


def reason(row: Mapping[str, Any]) -> str:
    """A short name of why a payment failed, for an address: the text itself may be long, and say much."""
    text = json.dumps([row.get(name) for name in ("service", "error", "to_status")])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_HEADINGS: Final = {
    "puid": "Payment",
    "customer_id": "Customer",
    "from_status": "From",
    "to_status": "To",
    "error": "Reason",
    "expected": "Usual transition",
    "last_at": "Last",
}


def _heading(column: str) -> str:
    """A column of a report in words."""
    return _HEADINGS.get(column, column.replace("_", " ").capitalize())


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


def _percent(share: float | None) -> str:
    return "·" if share is None else f"{share * 100:.4g} %"


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
        case bool():
            return "yes" if value else "no"
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
