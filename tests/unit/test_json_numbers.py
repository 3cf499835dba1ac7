"""Numbers of JSON that BigQuery's JSON type takes, and those that become texts."""

import json
import random
import struct
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sink.json_numbers import _remembered, grisu2, is_kept, kept


@pytest.mark.parametrize(
    "number",
    ["0", "-0", "0.0", "1.10", "1e3", "1E+2", "12.5", "0.1", "18446744073709551615", "-9223372036854775808", "1e300"],
)
def test_a_number_that_bigquery_writes_back_as_it_came_is_left_alone(number: str) -> None:
    assert kept(f'{{"a": {number}}}') == f'{{"a": {number}}}'


@pytest.mark.parametrize(
    "number",
    [
        "67.174118", "18446744073709551616", "-9223372036854775809", "1e400", "-1e400", "1e-400",
        "12345678901234567.5", "0.1000000000000000055511151231257827", "9" * 5000,
    ],
)  # fmt: skip
def test_a_number_that_bigquery_refuses_is_a_text_with_its_digits(number: str) -> None:
    assert kept(f'{{"a": [{number}, 1]}}') == f'{{"a": ["{number}", 1]}}'
    assert kept(number) == f'"{number}"'


def test_what_is_written_in_a_string_is_left_alone() -> None:
    text = '{"a": "at 67.174118, \\", 67.174118", "b\\\\": "67.174118", "67.174118": 1, "c": 67.174118}'
    found = json.loads(kept(text))
    assert found == json.loads(text) | {"c": "67.174118"}


# Numbers as text, so that any spelling of one can come; strings that look like what is around a number.
_NUMBERS = st.sampled_from(["0", "-7", "67.174118", "1e400", "12.5", "-1.5E+3", "9" * 19, "9" * 20, "0.8649", "1e2"])
_STRINGS = st.text(st.sampled_from(list('a1.,:[{}] "\\-e9\n')), max_size=30).map(json.dumps) | _NUMBERS.map(json.dumps)
_GAPS = st.sampled_from(["", " ", "\n  "])


@st.composite
def documents(draw: st.DrawFn, depth: int = 3) -> str:
    kind = draw(st.sampled_from("nnnsslo" if depth else "ns"))
    if kind == "n":
        return draw(_NUMBERS)
    if kind == "s":
        return draw(_STRINGS)
    gap, inner = draw(_GAPS), documents(depth=depth - 1)
    if kind == "l":
        return f"[{gap}{f',{gap}'.join(draw(st.lists(inner, max_size=4)))}{gap}]"
    members = draw(st.lists(st.tuples(_STRINGS, inner), max_size=4))
    return f"{{{gap}{f',{gap}'.join(f'{name}:{gap}{value}' for name, value in members)}{gap}}}"


@given(documents())
@settings(max_examples=1_000)
def test_each_number_of_a_document_is_judged_and_nothing_else_changes(text: str) -> None:
    class Written(str):
        """A number as its text spells it."""

    def judged(number: str) -> object:
        return Written(number) if is_kept(number) else number

    wanted = json.loads(text, parse_float=judged, parse_int=judged, object_pairs_hook=list)
    found = json.loads(kept(text), parse_float=Written, parse_int=Written, object_pairs_hook=list)
    assert (found, _kinds(found)) == (wanted, _kinds(wanted))


def _kinds(value: object) -> object:
    return [_kinds(each) for each in value] if isinstance(value, list | tuple) else type(value).__name__


def test_a_long_document_is_not_kept_in_memory() -> None:
    _remembered.cache_clear()
    short, long = ('{"a": "%s"}' % ("x" * size) for size in (10, 100_000))
    assert (kept(short), kept(long)) == (short, long)
    assert _remembered.cache_info().currsize == 1


def test_grisu2_writes_67_174118_as_bigquery_was_seen_to_write_it() -> None:
    assert grisu2(67.174118) == ("6717411800000001", -14)


def test_grisu2_always_writes_the_same_number_and_mostly_in_the_fewest_digits() -> None:
    draw = random.Random(7)
    longer = 0
    for _ in range(5_000):
        (value,) = struct.unpack("<d", struct.pack("<Q", draw.randrange(1, 0x7FF0000000000000)))
        digits, exponent = grisu2(value)
        assert float(f"{digits}e{exponent}") == value
        longer += len(digits.rstrip("0")) > len(Decimal(repr(value)).normalize().as_tuple().digits)
    assert 0 < longer < 25


def test_amounts_are_numbers_but_for_one_in_a_thousand() -> None:
    texts = [f"{cents // 100}.{cents % 100:02}" for cents in range(1, 20_000)]
    assert sum(not is_kept(text) for text in texts) < 20
