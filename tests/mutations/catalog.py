"""The small ways in which the core could be wrong, and the test that notices each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """`before` stands once in `file` and becomes `after`; one of `tests` (pytest ids) must then fail."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def apply(self, text: str) -> str:
        """The file with the mutation. Raises ValueError where the file does not have its text just once."""
        if text.count(self.before) != 1:
            raise ValueError(
                f"{self.file} must have the text of '{self.name}' once, has it {text.count(self.before)} times"
            )
        return text.replace(self.before, self.after)


MUTATIONS: Final[tuple[Mutation, ...]] = ()
