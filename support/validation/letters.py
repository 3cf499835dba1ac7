"""The open dead letters: changes that need not be in BigQuery, and keys of which one is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Self

from support.connection import Connection


@dataclass
class Letters:
    """By table: ids of changes, and keys as text."""

    _changes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def read(cls, connection: Connection) -> Self:
        """As they are now. One that goes meanwhile has its row in BigQuery by then."""
        from pipeline.sink.dead_letters import DeadLetterQueue

        found = cls()
        for _, letter in DeadLetterQueue(connection.dead_letter_directory).every():
            at = letter.coordinates
            found._changes[at.table].add(at.change_id)
            if letter.change:
                keys = letter.change["keys"].values()
                found._keys[at.table].add("/".join("NULL" if part is None else str(part) for part in keys))
            elif letter.payment:
                found._keys[at.table].add(letter.payment)
        return found

    def has_change(self, table: str, change_id: str) -> bool:
        return change_id in self._changes[table]

    def has_key(self, table: str, key: str) -> bool:
        return key in self._keys[table]

    def keys_of(self, table: str) -> set[str]:
        return self._keys[table]
