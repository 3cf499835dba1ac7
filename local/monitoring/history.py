"""A past for the local Prometheus: blocks of what the probe would have written, for windows of hours or days.

Only the past is made up, minute by minute; the ten seconds, the rules and Prometheus are the real ones.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from contract.metrics import LATENCY_BUCKETS, LATENCY_SECONDS
from local.machine import installed
from probe.measure import Measurement
from probe.series import exposition
from probe.state import Totals
from support.connection import Connection

_MINUTE = timedelta(minutes=1)
# Alerts look closely at the last six hours; what lies before is written at this interval of minutes.
_CLOSELY = 420
_ELSE = 10


@dataclass(frozen=True, kw_only=True)
class Past:
    """Minutes up to `end`: the number of changes in each, and the shares that were late and that did not arrive."""

    end: datetime
    minutes: int
    changes: int
    late: float = 0.0
    missing: float = 0.0


def healthy(end: datetime, tps: float) -> Past:
    """Three days without a fault, as a stack that has run for a while has them: an outage is then a part of them."""
    return Past(end=end, minutes=3 * 24 * 60, changes=round(60 * tps))


def measurements(past: Past) -> Iterator[Measurement]:
    """What the probe would have measured, a minute apart."""
    start = past.end - past.minutes * _MINUTE
    totals = Totals()
    missing, late = round(past.changes * past.missing), round(past.changes * past.late)
    for minute in range(past.minutes + 1):
        at = start + minute * _MINUTE
        if past.minutes - minute <= _CLOSELY or minute % _ELSE == 0:
            yield _measured(at, start, totals, missing * minute)
        totals.committed += past.changes
        totals.queryable += past.changes - missing
        totals.latency[LATENCY_BUCKETS.index(2)] += past.changes - missing - late
        totals.latency[LATENCY_BUCKETS.index(LATENCY_SECONDS) + 1] += late
        totals.latency[-1] += missing


def _measured(at: datetime, start: datetime, totals: Totals, waiting: int) -> Measurement:
    return Measurement(
        at=at,
        started_at=start,
        totals=totals,
        windows=(),
        waiting=waiting,
        oldest_unaudited_seconds=(at - start).total_seconds() if waiting else 0.0,
        dead_letters={},
        oldest_dead_letter_seconds=0.0,
        stuck={},
        unclassified_columns=0,
        bytes_read=0,
    )


def write(found: Iterable[Measurement], connection: Connection, folder: Path) -> None:
    """Writes blocks that a Prometheus with the data folder `folder` reads when it starts."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder.parent / "past.txt"
    with text.open("w") as out:
        for measurement in found:
            at = f" {measurement.at.timestamp():.3f}"
            for line in exposition(measurement, connection).decode().splitlines():
                if not line.startswith("#"):
                    out.write(f"{line}{at}\n")
        out.write("# EOF\n")
    subprocess.run(
        [installed.promtool(), "tsdb", "create-blocks-from", "openmetrics", text, folder],
        check=True,
        capture_output=True,
    )
    text.unlink()
