"""What `Pulumi.yaml` declares of other parts: the job's launch options, and the numbers of the alerts.

    python -m components.settings.declared        fills both in (`make docs` runs it)

Each is between two comments, `# written: name` and `# end: name`. A test compares what is committed with what this
writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import yaml

from alerts.thresholds import Thresholds, key
from components.config import ROOT
from contract import options
from contract.options import Option

PROJECT: Final = ROOT / "Pulumi.yaml"
_BLOCK: Final = re.compile(r"^(  # written: (\S+)\n).*?^(  # end: \2)$", re.M | re.S)


def written(text: str) -> str:
    """The project file with both blocks as they should be."""
    blocks = {
        "contract/options.py": {name: _option(options.named(name)) for name in options.STACK_OPTIONS},
        "alerts/thresholds.py": {key(number.name): _number(number) for number in fields(Thresholds)},
    }
    return _BLOCK.sub(lambda found: f"{found[1]}{_lines(blocks[found[2]])}{found[3]}", text)


def _option(option: Option) -> dict[str, Any]:
    default: Any = option.default
    kind = "string"
    if option.regex == options.BOOLEAN:
        kind, default = "boolean", default == "true"
    elif option.low is not None and option.broken("1.5"):
        kind, default = "integer", int(default)
    return {"type": kind, "description": option.help, "default": default}


def _number(number: Any) -> dict[str, Any]:
    whole = number.type == "int"
    default = number.default if whole else f"{number.default:g}"
    return {"type": "integer" if whole else "string", "description": number.metadata["meaning"], "default": default}


def _lines(declared: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(declared), sort_keys=False, width=1000, allow_unicode=True)
    return "".join(f"  {line}\n" for line in text.splitlines())


if __name__ == "__main__":
    PROJECT.write_text(written(PROJECT.read_text()))
