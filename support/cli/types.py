"""What people type as arguments: a time, a length of time, a card."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class When(click.ParamType[datetime]):
    """A time: RFC 3339 or a date in UTC, or so long ago (`90s`, `15m`, `2h`, `7d`)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if (length := _length(value)) is not None:
                return datetime.now(UTC) - length
            moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a time: write 2026-11-23, 2026-11-23T09:00:00Z, or so long ago: 90s, 15m, 2h, 7d."
            )
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Length(click.ParamType[int]):
    """A length of time (`90s`, `15m`, `2h`, `7d`), in seconds."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        length = _length(value)
        if not length:
            self.fail(f"{value!r} is not a length of time: write 90s, 15m, 2h or 7d.")
        return int(length.total_seconds())


def _length(value: str) -> timedelta | None:
    number, unit = value[:-1], value[-1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 9) or unit not in _UNITS:
        return None
    return timedelta(**{_UNITS[unit]: int(number)})


def card_tokens(masking_keys: str) -> tuple[str, ...]:
    """The tokens of a card: its number is typed, hidden, or read from standard input. Never an argument."""
    from pipeline.transforms.cards import card_tokens as tokens_of
    from pipeline.transforms.keys import MaskingKeys

    keys = MaskingKeys.load(masking_keys)
    number = click.prompt("Card number", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    return tuple(tokens_of(number.strip(), keys))
