"""What the runbooks share, from one source.

    python -m alerts.runbooks        fills the pages in (`make docs` runs it)

A page names a block between two comments, `<!-- block: name -->` and `<!-- end: name -->`; the text between them is the
file `runbooks/blocks/<name>.md`, which can name other blocks itself. A page's third line and the index's table of
alerts come from the catalog. A test compares what is committed with what this writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from alerts.catalog import Alert, alerts
from alerts.thresholds import Thresholds, Watched
from contract.errors import AuditError

FOLDER: Final = Path(__file__).parents[1] / "runbooks"
INDEX: Final = "README.md"
BY_ALERT: Final = "by-alert"
_BLOCK: Final = re.compile(r"^(<!-- block: ([\w-]+) -->\n).*?^(<!-- end: \2 -->)$", re.M | re.S)
_MARKER: Final = re.compile(r"^<!-- (?:block|end): [\w-]+ -->\n", re.M)


class UnknownBlock(AuditError, LookupError):
    """A page names a block that has no file; the message says which and where."""


def written(folder: Path = FOLDER) -> dict[Path, str]:
    """Each Markdown file of the runbooks, as it should be. Raises UnknownBlock."""
    catalog = {alert.runbook: alert for alert in alerts(Thresholds(), Watched())}
    sources = {path.stem: path.read_text() for path in (folder / "blocks").glob("*.md")}
    blocks = {name: _filled(text, sources, name) for name, text in sources.items()}
    pages = {}
    for path in sorted(folder.rglob("*.md")):
        # Links in a block are those of a folder below the runbooks, as those of a how-to are.
        top = path.parent == folder
        known = {name: text.replace("](../", "](") if top else text for name, text in blocks.items()}
        if path == folder / INDEX:
            known[BY_ALERT] = index(tuple(catalog.values()))
        text = _filled(path.read_text(), known, path.name)
        pages[path] = _titled(text, catalog[path.name]) if top and path.name in catalog else text
    return pages


def index(catalog: tuple[Alert, ...]) -> str:
    """The table of all alerts."""
    rows = [f"| [{a.name}]({a.runbook}) | {a.severity} | {a.team} | {_where(a)} |" for a in catalog]
    return "\n".join(["| alert | severity | team | where it can fire |", "|---|---|---|---|", *rows, ""])


def _titled(text: str, alert: Alert) -> str:
    why = f": {alert.cloud_only}" if alert.cloud_only else ""
    title, empty, _, *rest = text.split("\n")
    return "\n".join([title, empty, f"**{alert.severity}** · {alert.team} · {_where(alert)}{why}", *rest])


def _where(alert: Alert) -> str:
    return "cloud only" if alert.cloud_only else "here and in the cloud"


def _filled(text: str, blocks: Mapping[str, str], page: str) -> str:
    def fill(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        if name not in blocks:
            raise UnknownBlock(f"{page} names the block {name}: write runbooks/blocks/{name}.md, or name another one.")
        return begin + _MARKER.sub("", _filled(blocks[name], blocks, name)) + end

    return _BLOCK.sub(fill, text)


def main() -> None:
    for path, text in written().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
