"""Masking inside a JSON text: only what must go is changed."""

from __future__ import annotations

import json

import pytest

from pipeline.transforms.cards import hide_cards
from pipeline.transforms.json_text import card_in_number, mask_json

CARD = "4111111111111111"
SHORT = "411111******1111"


def masked(text: str, found: set[str] | None = None) -> str:
    return mask_json(
        text,
        set() if found is None else found,
        mask_card=lambda number: f"<card of {len(number)}>",
        token=lambda name, value: f"<token of {name}>",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{{"note": "PAN {CARD}!"}}', f'{{"note": "PAN {SHORT}!"}}'),
        (f'{{"{CARD}": {{"daily": 500}}}}', f'{{"{SHORT}": {{"daily": 500}}}}'),
        (f'{{"account": {CARD}, "n": 1.50}}', f'{{"account": "{SHORT}", "n": 1.50}}'),
        (f"[[[{CARD}]]]", f'[[["{SHORT}"]]]'),
        (f'"{CARD}"', f'"{SHORT}"'),
        (CARD, f'"{SHORT}"'),
        ("4.111111111111111e15", f'"{SHORT}"'),
        ('{"a":41111111111111110E-1}', f'{{"a":"{SHORT}"}}'),
        (f'{{"a":-{CARD}}}', f'{{"a":"{SHORT}"}}'),
        ('"4111\\u00201111\\u00201111\\u00201111"', '"4111 11** **** 1111"'),
        ('"\\u0034111111111111111"', f'"{SHORT}"'),
        ('"4111\\t1111\\t1111\\t1111"', '"4111\\t11**\\t****\\t1111"'),
        (f'{{"inner": "{{\\"pan\\": \\"{CARD}\\"}}"}}', f'{{"inner": "{{\\"pan\\": \\"{SHORT}\\"}}"}}'),
    ],
)
def test_names_strings_and_numbers_are_masked_and_the_rest_keeps_its_text(text: str, expected: str) -> None:
    found: set[str] = set()
    assert masked(text, found) == expected
    assert found == {CARD}


@pytest.mark.parametrize(
    "text",
    [
        '{"b": 1.50, "a" :[12345678901234567890123, 1e400], "e":"\\u00e9\\/"}',
        '{"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "id": "550e8400-e29b-41d4-a716-446655440000"}',
        '{"at": "2026-11-23T09:15:00.123456789Z", "millis": 1764000000000}',
        "{}",
        "null",
        '{"a": 1, "a": 2}',
    ],
)
def test_json_without_a_card_number_keeps_its_text(text: str) -> None:
    assert masked(text) == text


def test_a_big_number_beside_a_card_number_keeps_its_digits() -> None:
    text = f'{{"big": 123456789012345678901234567890.10, "pan": "x", "n": {CARD}}}'
    assert '"big": 123456789012345678901234567890.10' in masked(text)


@pytest.mark.parametrize("text", [f'{{"note": "PAN {CARD}"', f"not json {CARD}", f'{{"a": NaN, "b": "{CARD}"}}'])
def test_json_that_does_not_parse_is_scanned_as_text(text: str) -> None:
    assert masked(text) == text.replace(CARD, SHORT)


@pytest.mark.parametrize("name", ["cvv", "CVV", "Cvv2", "cvc", "cardExpiry", "card_expiry", "PIN", "trackData"])
@pytest.mark.parametrize("value", ['"123"', "123", '{"a": ["b", {"c": 1}]}', "[]", "true"])
def test_a_member_that_must_never_be_stored_becomes_null(name: str, value: str) -> None:
    assert masked(f'{{"x": 1, "{name}": {value}, "y": 2}}') == f'{{"x": 1, "{name}": null, "y": 2}}'


def test_a_member_named_like_a_card_column_is_masked_as_one() -> None:
    assert masked('{"cardNumber": "4111111111111112"}') == '{"cardNumber": "<card of 16>"}'
    assert masked('{"card_number": 4111111111111112}') == '{"card_number": "<card of 16>"}'
    assert masked(f'{{"card_number": {{"n": "{CARD}"}}}}') == f'{{"card_number": {{"n": "{SHORT}"}}}}'
    assert masked('{"cardholderName": "Jane"}') == '{"cardholderName": "<token of cardholderName>"}'
    assert masked('{"cardholder": {"first": "Jane"}}') == '{"cardholder": null}'
    assert masked('{"cardholder": null}') == '{"cardholder": null}'


def test_a_name_that_only_begins_like_a_classified_one_is_left_alone() -> None:
    text = '{"cardinal": 1, "pinned": "x", "panel": [2], "cvs": "y"}'
    assert masked(text) == text


@pytest.mark.parametrize("number", ["4111.111111111111", "1e400", "1e999999999", "-0", "4111111111111112"])
def test_other_numbers_are_no_card_numbers(number: str) -> None:
    assert card_in_number(number) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f'{{"value":"737","note":"{CARD}","name":"cvv"}}',
            f'{{"value":null,"note":"{SHORT}","name":"cvv"}}',
        ),
        (f'{{"value":"{CARD}","name":"cardNumber"}}', f'{{"value":"{SHORT}","name":"cardNumber"}}'),
    ],
)
def test_a_value_that_a_later_member_names_is_masked_in_its_place_and_once(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        f'{{"number":"{CARD}","holder":"ANN","code":"737"}}',
        f'{{"holder":"ANN","code":"737","number":"{CARD}"}}',
        f'{{"object":"card","name":"ANN","number":{CARD},"code":737}}',
        '{"payment":{"card":{"details":{"name":"ANN","code":"737"}}}}',
        '{"cards":[[{"name":"ANN","code":"737"}]]}',
    ],
)
def test_an_object_that_says_it_is_a_card_gives_its_plain_names_their_meaning(text: str) -> None:
    found = masked(text)
    assert json.loads(found)
    assert "ANN" not in found
    assert "737" not in found


def test_an_object_with_a_type_of_its_own_keeps_its_plain_names() -> None:
    text = '{"type":"order","name":"ANN","code":"737","number":"12"}'
    assert masked(text) == text


def test_json_in_a_text_is_json_afterwards() -> None:
    text = hide_cards(f'{{"number":{CARD},"exp_month":12,"cvv":737}}', set())
    assert json.loads(text) == {"number": SHORT, "exp_month": None, "cvv": None}
