"""Card numbers are found however they are written, and other numbers are left alone."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stdnum import luhn

from pipeline.transforms.cards import (
    IIN_RANGES,
    CardNumberError,
    card_tokens,
    find_cards,
    hide_cards,
    is_card,
    may_hold_card,
    passes_luhn,
    shorten,
)
from pipeline.transforms.keys import MaskingKeys

KEYS = MaskingKeys({"v1": b"1" * 32, "v2": b"2" * 32})

# Published test numbers.
KNOWN = {
    "Visa": "4111111111111111",
    "Visa, 13 digits": "4222222222222",
    "Mastercard": "5555555555554444",
    "Mastercard, 2-series": "2223003122003222",
    "American Express": "378282246310005",
    "Diners Club": "30569309025904",
    "Discover": "6011111111111117",
    "JCB": "3530111333300000",
    "UnionPay": "6200000000000005",
    "UnionPay, 19 digits": "6205500000000000004",
    "Maestro": "6759649826438453",
}


@st.composite
def cards(draw: st.DrawFn) -> str:
    """A valid card number of any brand and length."""
    first, last, lengths = draw(st.sampled_from(IIN_RANGES))
    prefix = str(draw(st.integers(int(first), int(last))))
    length = draw(st.sampled_from(sorted(lengths)))
    body = prefix + draw(st.text("0123456789", min_size=length - len(prefix) - 1, max_size=length - len(prefix) - 1))
    return body + luhn.calc_check_digit(body)


# What people and programs put between groups of digits.
SEPARATORS = st.sampled_from([" ", "-", ".", "/", "_", "\n", "\t", "\u00a0", "\u2009", "–", "\u200b", "\u00ad", " - "])
OTHER_SEPARATORS = st.sampled_from([", ", ":", "|", "*", "+", "%20", "%2D", "&nbsp;", "&#160;", '", "', "·", "  "])
GROUPINGS = [(4, 4, 4, 4, 4), (4, 6, 9), (6, 13), (8, 8, 3), (4, 4, 11)]
FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


@st.composite
def spelled(draw: st.DrawFn) -> tuple[str, str]:
    """A card number and a way to write it."""
    card = draw(cards())
    way = draw(st.sampled_from(["plain", "grouped", "mixed", "one by one"]))
    if way == "plain":
        text = card
    elif way == "one by one":
        text = draw(SEPARATORS).join(card)
    else:
        groups, rest = [], card
        for size in draw(st.sampled_from(GROUPINGS)):
            groups.append(rest[:size])
            rest = rest[size:]
        groups = [g for g in groups if g]
        anything = st.one_of(SEPARATORS, OTHER_SEPARATORS)
        if len(groups) == 2:  # one point makes a decimal number of it
            anything = anything.filter(lambda separator: separator != ".")
        same = draw(anything)
        text = groups[0] + "".join((same if way == "grouped" else draw(anything)) + g for g in groups[1:])
    return card, text.translate(draw(st.sampled_from([{}, {}, FULL_WIDTH, ARABIC]))) if "%" not in text else text


# Text without digits, since digits beside a number make another number of it; and without what makes it an IBAN.
SURROUNDINGS = st.text(st.characters(exclude_categories=["Nd", "Cs", "Lu"], exclude_characters="+%&*"), max_size=12)


@pytest.mark.parametrize("number", KNOWN.values(), ids=KNOWN.keys())
def test_card_numbers_of_every_brand_are_known(number: str) -> None:
    assert is_card(number)
    assert [card.digits for card in find_cards(f"paid with {number}.")] == [number]


@given(st.text("0123456789", min_size=1, max_size=25))
def test_the_luhn_sum_is_the_one_of_stdnum(digits: str) -> None:
    assert passes_luhn(digits) == luhn.is_valid(digits)


@settings(max_examples=500)
@given(spelled(), SURROUNDINGS, SURROUNDINGS)
@example(("4111111111111111", "4111 1111 1111 1111"), "card ", " exp 12/27")
def test_no_card_number_survives_however_it_is_written(pair: tuple[str, str], before: str, after: str) -> None:
    card, text = pair
    found: set[str] = set()

    masked = hide_cards(before + text + after, found)

    assert card in found
    assert len(masked) == len(before + text + after)
    digits = "".join(str(int(c)) for c in masked if c.isdecimal())
    assert card not in digits
    assert card not in {other.digits for other in find_cards(masked)}


@given(spelled(), st.sampled_from(["0", "07", "12/27 123", "2026-11-23 ", "x9", " 5 "]), st.booleans())
def test_other_numbers_beside_a_card_number_do_not_hide_it(pair: tuple[str, str], other: str, before: bool) -> None:
    card, text = pair
    found: set[str] = set()
    hide_cards(f"{other} | {text}" if before else f"{text} | {other}", found)
    assert card in found


@given(st.text(max_size=60))
def test_the_quick_look_misses_nothing_that_the_long_one_finds(text: str) -> None:
    if find_cards(text):
        assert may_hold_card(text)


@given(spelled(), SURROUNDINGS)
def test_the_quick_look_never_misses_a_card_number(pair: tuple[str, str], around: str) -> None:
    assert may_hold_card(around + pair[1] + around)


def test_bin_and_last_four_stay_and_all_else_keeps_its_place() -> None:
    found: set[str] = set()
    assert hide_cards("PAN 4111-1111-1111-1111, Mr. X", found) == "PAN 4111-11**-****-1111, Mr. X"
    assert shorten("378282246310005") == "378282*****0005"


def test_what_follows_on_a_magnetic_stripe_is_hidden() -> None:
    assert hide_cards(";4111111111111111=27121010000000000000?", set()) == ";411111******1111=********************?"
    stripe = hide_cards("%B4111111111111111^DOE/JANE^27121010000?", set())
    assert "DOE" not in stripe
    assert "2712" not in stripe


def test_a_card_number_filled_up_with_zeros_is_found() -> None:
    assert [card.digits for card in find_cards("00000004111111111111111")] == ["4111111111111111"]


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T09:15:00.123456789Z",
        "2026-11-23 09:15:00.123456789",
        "23.11.2026 09:15:00",
        "20261123091500123",
        "1764000000000",
        "1764000000000000",
        "1764000000000000000",
        "DE89 3704 0044 0532 0130 00",
        "DE89370400440532013000",
        "DK5000400440116243",
        "NL91ABNA0417164300",
        "call +4915123456787 now",
        "40.712776, -74.005974",
        "192.168.100.100",
        "4111111111111112",
        "41111111111111111111111",
        "123456789012",
        "1,234,567,890.12",
        "550e8400-e29b-41d4-a716-446655440000",
        "41111111-1111-1111-8a12-446655440000",
        "411111******1111",
        "360705******0000 1020",
        "4111-11**-****-1111",
    ],
)
def test_other_numbers_are_left_alone(text: str) -> None:
    assert hide_cards(text, set()) == text


def test_random_ids_and_digests_are_left_alone() -> None:
    draw = random.Random(7)
    for _ in range(20_000):
        number = draw.getrandbits(128)
        for text in (str(uuid.UUID(int=number, version=4)), f"{draw.getrandbits(256):064x}"):
            assert hide_cards(text, set()) == text


@given(st.datetimes(), st.sampled_from(["T", " "]))
def test_times_are_left_alone(moment: object, between: str) -> None:
    text = moment.isoformat(sep=between)  # type: ignore[attr-defined]
    assert hide_cards(text, set()) == text


def test_a_search_gets_the_token_of_every_key_version_newest_first() -> None:
    tokens = card_tokens(" 4111 1111-1111 1111\n", KEYS)
    assert tokens == KEYS.every_token("card", "4111111111111111")
    assert [token[:3] for token in tokens] == ["v2:", "v1:"]


@pytest.mark.parametrize(
    "number", ["4111111111111112", "411111111", "", "4111 1111 1111 1111 1111", "J 4111111111111111"]
)
def test_what_is_no_card_number_is_refused_and_not_repeated(number: str) -> None:
    with pytest.raises(CardNumberError, match="Type it again") as error:
        card_tokens(number, KEYS)
    assert not number or number not in str(error.value)
