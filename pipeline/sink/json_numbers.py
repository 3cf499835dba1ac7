"""Numbers in JSON that BigQuery's JSON type refuses, or would change, as texts.

BigQuery keeps a number as a 64-bit integer or a float64, and refuses a row where writing that back does not give the
number that came: an integer of 65 bits, but also `67.174118`, which it writes back as `67.17411800000001`
(github.com/airbytehq/airbyte/pull/29590). It writes with Grisu2, which gives more digits than are needed for about one
number in two thousand; its published code (google/zetasql, CheckNumberRoundtrip) writes 15 digits, or else 17. A number
that stays the same by both is left alone. Any other becomes a string of the digits that Spanner has, in its place:
JSON_VALUE and LAX_FLOAT64 read it as before.

Grisu2: Florian Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with Integers" (2010), with the choice
of powers that nlohmann/json made.
"""

from __future__ import annotations

import re
import struct
from decimal import Decimal
from functools import cache, lru_cache
from typing import Final

# A number, or what is between two: strings are stepped over with it.
_TOKEN: Final = re.compile(r'(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?:"(?:[^"\\]|\\.)*"|[^"0-9-])+', re.S)
# What may be a number that is not whole, or has many digits: in a string, too.
_SUSPECT: Final = re.compile(r"[:\[,]\s*(-?[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+|(?<=[0-9]{19})))")
_WHOLE: Final = range(-(2**63), 2**64)
_LONGEST: Final = len(str(-(2**64)))
_REMEMBERED: Final = 50_000
_TEXTS_REMEMBERED: Final = 2_000
_LONGEST_REMEMBERED: Final = 4_000
_OPEN: Final = ("{", "[", '"')


def kept(text: str) -> str:
    """A JSON text as BigQuery keeps it: the same text, but for numbers that it would not keep."""
    return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _kept(text)


def _kept(text: str) -> str:
    # A text that is a number alone has nothing before it.
    if text[:1] in _OPEN and all(map(is_kept, _SUSPECT.findall(text))):
        return text
    return _TOKEN.sub(_token, text)


# A value is looked at twice, for its column and for what the column cannot hold, with a batch of others between.
_remembered: Final = lru_cache(_TEXTS_REMEMBERED)(_kept)


def _token(found: re.Match[str]) -> str:
    number = found[1]
    return found[0] if number is None or is_kept(number) else f'"{number}"'


@lru_cache(_REMEMBERED)
def is_kept(number: str) -> bool:
    """Whether BigQuery's JSON keeps a number of JSON, by the value that its text has."""
    if not {".", "e", "E"} & set(number):
        return len(number) <= _LONGEST and int(number) in _WHOLE
    exact, value = Decimal(number), float(number)
    if not value:
        return not exact
    if value in (float("inf"), float("-inf")):
        return False
    digits, exponent = grisu2(abs(value))
    if Decimal((0, tuple(map(int, digits)), exponent)) != exact.copy_abs():
        return False
    return Decimal(_published(value)) == exact


def _published(value: float) -> str:
    short = f"{value:.15g}"
    return short if float(short) == value else f"{value:.17g}"


# ---------------------------------------------------------------------- Grisu2

# Powers of ten that it multiplies with: every eighth.
_SMALLEST_POWER: Final = -300
_STEP: Final = 8
_BITS: Final = 64


def grisu2(value: float) -> tuple[str, int]:
    """The digits of a positive number and their exponent: 12.5 → ("125", -1). Not always the fewest that would do."""
    (w, below, above) = _boundaries(value)
    f = -61 - above[1] - 1
    index = (-_SMALLEST_POWER + int(f * 78913 / (1 << 18)) + (f > 0) + _STEP - 1) // _STEP
    power = _SMALLEST_POWER + index * _STEP
    scale = _power(power)
    w, below, above = _times(w, scale), _times(below, scale), _times(above, scale)
    return _digits((below[0] + 1, w[0], above[0] - 1), -above[1], -power)


def _boundaries(value: float) -> tuple[tuple[int, int], ...]:
    """The number and the middles to its neighbours, as (significand, exponent)."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    biased, fraction = bits >> 52, bits & ((1 << 52) - 1)
    significand, exponent = (fraction + (1 << 52), biased - 1075) if biased else (fraction, -1074)
    above = _normal(2 * significand + 1, exponent - 1)
    closer = fraction == 0 and biased > 1
    low, low_exponent = (4 * significand - 1, exponent - 2) if closer else (2 * significand - 1, exponent - 1)
    return _normal(significand, exponent), (low << (low_exponent - above[1]), above[1]), above


def _normal(significand: int, exponent: int) -> tuple[int, int]:
    shift = _BITS - significand.bit_length()
    return significand << shift, exponent - shift


def _times(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return (one[0] * other[0] + (1 << (_BITS - 1))) >> _BITS, one[1] + other[1] + _BITS


@cache
def _power(ten: int) -> tuple[int, int]:
    """A power of ten, rounded to 64 bits."""
    numerator, denominator = (10**ten, 1) if ten >= 0 else (1, 10**-ten)
    shift = numerator.bit_length() - denominator.bit_length() - _BITS
    while True:
        whole, rest = divmod(numerator << max(0, -shift), denominator << max(0, shift))
        if whole.bit_length() > _BITS:
            shift += 1
        elif whole.bit_length() < _BITS:
            shift -= 1
        else:
            break
    whole += 2 * rest >= denominator << max(0, shift)
    return (whole, shift) if whole.bit_length() == _BITS else (whole >> 1, shift + 1)


def _digits(scaled: tuple[int, int, int], one: int, exponent: int) -> tuple[str, int]:
    """The digits of any number between the two bounds, close to the middle. `one`: bits behind the point."""
    below, middle, above = scaled
    whole, part = above >> one, above & ((1 << one) - 1)
    delta, distance = above - below, above - middle
    written, left = "", len(str(whole))
    for digit in str(whole):
        written, left = written + digit, left - 1
        rest = ((whole % 10**left) << one) + part
        if rest <= delta:
            return _closer(written, distance, delta, rest, 10**left << one), exponent + left
    while True:
        part, delta, distance, exponent = part * 10, delta * 10, distance * 10, exponent - 1
        written, part = written + str(part >> one), part & ((1 << one) - 1)
        if part <= delta:
            return _closer(written, distance, delta, part, 1 << one), exponent


def _closer(digits: str, distance: int, delta: int, rest: int, ten: int) -> str:
    """The last digit, lowered as long as that comes closer to the middle."""
    last = int(digits[-1])
    while (
        rest < distance and delta - rest >= ten and (rest + ten < distance or distance - rest > rest + ten - distance)
    ):
        last, rest = last - 1, rest + ten
    return f"{digits[:-1]}{last}"
