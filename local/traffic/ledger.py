"""What traffic committed, one JSON line a modification: the truth that `audit local check` compares BigQuery with.

It holds no personal data: keys, states and times only. Lines are flushed one by one, so a killed run leaves at most
half a last line, which reading ignores and the next append removes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from contract.changes import ModType


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One modification as Spanner reports it. `commit_timestamp` is RFC 3339 in UTC with nine fractional digits.

    `operation` counts the commits of `seed` from 0; the modifications of one commit share it. `status` is the row's
    Status after the change, None when it has none. A `dead_letter` must never reach BigQuery.
    """

    seed: int
    operation: int
    table: str
    puid: str
    mod_type: ModType
    commit_timestamp: str
    status: str | None = None
    dead_letter: bool = False


def read_ledger(path: Path) -> Iterator[Entry]:
    """Yields the entries in the order of their commits; none when there is no ledger."""
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield Entry(**orjson.loads(line))


class Ledger:
    """Appends entries to a ledger file, each flushed as it is written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_half_line(path)
        self._file = path.open("ab")

    def append(self, entries: list[Entry]) -> None:
        """Writes the entries of one commit in one go."""
        self._file.write(b"".join(orjson.dumps(asdict(entry)) + b"\n" for entry in entries))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _remove_half_line(path: Path) -> None:
    """Cuts what follows the last newline: the rest of a line that a killed run did not finish."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
