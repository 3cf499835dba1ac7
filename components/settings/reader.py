"""Reads a stack's config value by value, and gathers every rule that is broken."""

import json
import re
from collections.abc import Callable

from contract.errors import AuditError


class SettingsError(AuditError, ValueError):
    """The stack's config breaks rules; the message has one line for each."""


class Reader:
    """Reads values and gathers the rules they break. A refused one reads as a harmless one, so reading continues."""

    def __init__(self, stack: str, get: Callable[[str], str | None]) -> None:
        self.stack = stack
        self.problems: list[str] = []
        self._get = get

    def refuse(self, key: str, rule: str, value: str) -> None:
        self.problems.append(f"{key} must be {rule}, got {value!r}. Set it in Pulumi.{self.stack}.yaml.")

    def finish(self) -> None:
        if self.problems:
            raise SettingsError("\n".join(["The stack's config was refused:", *self.problems]))

    def text(self, key: str, pattern: str, rule: str) -> str:
        value = self._value(key)
        if value is not None and not re.fullmatch(pattern, value):
            self.refuse(key, rule, value)
        return value or ""

    def checked(self, key: str, broken: Callable[[str], str | None]) -> str:
        """A text by `broken`, which gives the rule that a value breaks, or None."""
        value = self._value(key)
        if value is not None and (rule := broken(value)):
            self.refuse(key, rule, value)
        return value or ""

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._value(key)
        if value is not None and not (re.fullmatch(r"\d+", value) and low <= int(value) <= high):
            self.refuse(key, f"a whole number from {low} to {high}", value)
            return low
        return int(value or low)

    def number(self, key: str, low: float, high: float) -> float:
        value = self._value(key)
        if value is not None and not (re.fullmatch(r"\d+(\.\d+)?", value) and low <= float(value) <= high):
            self.refuse(key, f"a number from {low:g} to {high:g}", value)
            return low
        return float(value or low)

    def boolean(self, key: str) -> bool:
        value = self._value(key)
        if value not in (None, "true", "false"):
            self.refuse(key, "true or false", value)
        return value == "true"

    def texts(self, key: str, pattern: str, rule: str) -> tuple[str, ...]:
        value = self._value(key)
        try:
            items = json.loads(value or "[]")
        except ValueError:
            items = None
        if not (isinstance(items, list) and all(isinstance(i, str) and re.fullmatch(pattern, i) for i in items)):
            self.refuse(key, f"a list of {rule}", value or "")
            return ()
        return tuple(items)

    def _value(self, key: str) -> str | None:
        value = self._get(key)
        if value is None:
            self.problems.append(f"{key} must be set, got nothing. Set it in Pulumi.{self.stack}.yaml.")
        return value
