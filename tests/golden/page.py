"""The tables of docs/types.md, made from the golden files."""

from __future__ import annotations

from pathlib import Path

from tests.golden import of_types as types

PATH = Path(__file__).parents[2] / "docs" / "types.md"


def written(text: str) -> str:
    """The page with its blocks as the golden files have them."""
    for name, lines in {"types": _types(), "examples": _examples()}.items():
        head, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition(f"<!-- /{name} -->")
        assert end, f"{PATH.name} must have the block {name}"
        text = f"{head}{begin}{lines}{end}{tail}"
    return text


def _types() -> str:
    rows = [f"| [{each.type}]({_link(each)}) | {each.bigquery} | {each.kept} |" for each in types.load()]
    return "\n".join(["| Spanner | BigQuery | what is kept |", "|---|---|---|", *rows, ""])


def _examples() -> str:
    rows = [
        f"| {each.type} | `{value.spanner}` | {_code(value.bigquery)} | `{value.exact}` |"
        for each in types.load()
        for value in each.values
        if value.exact is not None
    ]
    head = ["| Spanner | value | in the column | among the exact values |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def _code(text: str | None) -> str:
    return "NULL" if text is None else f"`{text}`"


def _link(golden: types.Golden) -> str:
    return f"../tests/golden/types/{golden.path.name}"
