"""Where results go, and on what machine they were made."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

RESULTS: Final = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Enough to judge a figure by. `load` is what else ran when it was asked."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def keep(name: str, result: dict[str, Any]) -> Path:
    """Writes bench/results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def kept(name: str) -> dict[str, Any] | None:
    """The result of that name, or None where there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def middle(rounds: list[dict[str, Any]], figure: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
    """The round that has the median of a figure, with the figures of all rounds as `rounds`."""
    ordered = sorted(rounds, key=figure)
    return ordered[(len(ordered) - 1) // 2] | {"rounds": [figure(each) for each in ordered]}


def percentiles(values: list[float]) -> dict[str, int]:
    """p50, p95, p99 and max, rounded; {} of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {}
    at = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 95, 99)}
    return {name: round(value) for name, value in (at | {"max": ordered[-1]}).items()}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
