"""What can be read in a text, however it is encoded, is masked; and looking costs the same for every character."""

from __future__ import annotations

import base64
import html
import json
import random
import time
import urllib.parse
from collections.abc import Callable

import pytest

from pipeline.transforms import readable
from pipeline.transforms.cards import hide_cards
from pipeline.transforms.json_text import mask_json
from pipeline.transforms.quick import QuickLook
from pipeline.transforms.readable import Harmless, Reader, may_hold
from tests.fuzz import hidden

CARD = "4111111111111111"
SHORT = "411111******1111"
TOKEN = "v1:" + "0" * 32


def hide(text: str) -> tuple[str, set[str]]:
    found: set[str] = set()
    return hide_cards(text, found), found


def in_json(text: str) -> str:
    return mask_json(text, set(), lambda number: "*" * len(number), lambda name, value: TOKEN)


# ---- decoded once, three levels deep

ENCODED = {
    "percent": urllib.parse.quote(f'"number":"{CARD}"'),
    "percent, all of it": "".join(f"%{ord(c):02x}" for c in CARD),
    "percent, twice": urllib.parse.quote(urllib.parse.quote(f'"{CARD}"')),
    "percent, thrice": urllib.parse.quote(urllib.parse.quote(urllib.parse.quote(f'"{CARD[:8]} {CARD[8:]}"'))),
    "entities": "".join(f"&#{ord(c)};" for c in CARD),
    "hex entities": "".join(f"&#x{ord(c):X};" for c in CARD),
    "long entities": "".join(f"&#{ord(c):08};" for c in CARD),
    "entities between": "4111&ndash;1111&#8209;1111&ndash;1111",
    "escapes": "".join(f"\\u{ord(c):04x}" for c in CARD),
    "escaped escapes": "".join(f"\\\\u{ord(c):04x}" for c in CARD),
    "base64": base64.b64encode(f"the number is {CARD}".encode()).decode(),
    "base64, not padded": base64.b64encode(f"no {CARD}".encode()).decode().rstrip("="),
    "base64, URL-safe": base64.urlsafe_b64encode(f"{CARD}>>>???".encode()).decode(),
    "base64, twice": base64.b64encode(base64.b64encode(CARD.encode())).decode(),
    "base64 of UTF-16": base64.b64encode(CARD.encode("utf-16-le")).decode(),
    "base64 in a path": "sig/" + base64.b64encode(f"number={CARD}".encode()).decode(),
    "hex": f"pan is {CARD}".encode().hex(),
    "JSON in JSON": json.dumps({"a": json.dumps({"b": json.dumps({"c": CARD})})}),
    "percent in base64 in JSON": json.dumps({"r": base64.b64encode(urllib.parse.quote(f'"{CARD}"').encode()).decode()}),
}


@pytest.mark.parametrize("text", ENCODED.values(), ids=ENCODED.keys())
def test_an_encoded_card_number_is_hidden_and_its_number_known(text: str) -> None:
    masked, found = hide(text)
    assert found == {CARD}
    assert all(CARD not in "".join(filter(str.isalnum, reading)) for reading in hidden.readings(masked))


@pytest.mark.parametrize("text", ENCODED.values(), ids=ENCODED.keys())
def test_the_quick_look_knows_every_encoding(text: str) -> None:
    assert may_hold(text)
    assert QuickLook().suspects(text)
    assert QuickLook().suspects_json(json.dumps({"a": text}, ensure_ascii=False))


@pytest.mark.parametrize(("document", "levels"), [("cvv=737", 3), ("cvv%3D737", 4)])
def test_three_encodings_are_read_and_the_document_s_own_and_one_level_less_would_not_do(
    document: str, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = document
    for _ in range(3):
        text = "".join(f"%{ord(c):02x}" for c in text)
    assert "737" not in str(list(hidden.readings(hide(text)[0])))
    monkeypatch.setattr(readable, "LEVELS", levels - 1)
    assert hide(text)[0] == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_security_code_in_utf_16_is_hidden_in_its_place(encoding: str) -> None:
    assert Reader(set()).bytes("a; cvv=987".encode(encoding)) == "a; cvv=***".encode(encoding)


def test_what_is_between_escapes_keeps_its_text() -> None:
    assert hide("a%20%224111%201111%201111%201111%22%26b")[0] == "a%20%224111%2011**%20****%201111%22%26b"
    assert hide("4111&ndash;1111&#8209;1111&ndash;1111")[0] == "4111&ndash;11**&#8209;****&ndash;1111"


# ---- EMV


@pytest.mark.parametrize(
    "text",
    [
        f"5A08{CARD}",
        f"5a08{CARD}",
        f"9F2608A1B2C3D4E5F607185A08{CARD}5F24032712319F3602001F",
        f"DE55=5A08{CARD}",
        f"5713{CARD}D27122010000000000F",
        f"9F6B13{CARD}D27122010000000000F",
        f"700F5A08{CARD}5F2403271231",
        "5A 08 41 11 11 11 11 11 11 11 5F 24 03 27 12 31",
        f"0000{'5A08'}{CARD}ABCDEF",
    ],
)
def test_card_numbers_tracks_and_expiries_in_emv_tlv_are_hidden(text: str) -> None:
    masked, found = hide(text)
    assert found == {CARD}
    plain = masked.replace(" ", "")
    assert CARD not in plain
    assert "2712" not in plain


def test_a_holder_s_name_in_emv_tlv_is_hidden() -> None:
    name = b"EXAMPLE/ANN".hex().upper()
    assert name not in hide(f"5A08{CARD}5F200B{name}9F3602001F")[0]


def test_a_digest_that_has_the_bytes_of_a_tag_is_left_alone() -> None:
    draw = random.Random(3)
    digests = [f"5a08{draw.getrandbits(240):060x}" for _ in range(2000)]
    assert [d for d in digests if hide(d)[0] != d] == []


# ---- names in texts

NAMED = [
    "cvv=987",
    "CVV2: 987",
    '"cvv":"987"',
    "<cvv>987</cvv>",
    "<ns:CVV2 a='b'>987</ns:CVV2>",
    '<pay cvv="987"/>',
    "<cvv><![CDATA[987]]></cvv>",
    '<param name="cvv" value="987"/>',
    '<field name="cvv">987</field>',
    "card cvv 987 was wrong",
    "the security code is 987",
    "card verification value: 987",
    "cvv => 987",
    "a=b&card[cvc]=987&z=1",
    "a=b&card%5Bcvc%5D=987&z=1",
    "a=b&cardCode=987",
    '["cvv", 987]',
    "{'cvv': '987'}",
    'request {"cvv": "987", cut o',
    '{\\"cvv\\":\\"987\\"}',
    "cvv%3D987",
    "&lt;cvv&gt;987&lt;/cvv&gt;",
    "Y3Z2PTk4Nw==",
    "Y3Z2PTk4Nw",
    "cvv-987",
    "pin: 987654",
]


@pytest.mark.parametrize("text", NAMED)
def test_a_security_code_beside_its_name_is_gone_from_any_text(text: str) -> None:
    for masked in (hide(text)[0], in_json(json.dumps({"note": text}))):
        assert all("987" not in reading for reading in hidden.readings(masked) if not reading.startswith("\0"))


@pytest.mark.parametrize(
    "text",
    [
        "exp=12/27",
        "exp 12/27",
        "expiry: 12/2027",
        "valid thru 12/27",
        '"exp_month":12',
        "<expiry>1227</expiry>",
        "card_exp=2712",
    ],
)
def test_an_expiry_beside_its_name_is_gone_from_any_text(text: str) -> None:
    masked = hide(text)[0]
    assert "12" not in masked
    assert "27" not in masked


@pytest.mark.parametrize(
    "text",
    [
        "cardholder=ANN EXAMPLE",
        "a=1&cardholderName=ANN+EXAMPLE&b=2",
        "<CardHolder>ANN EXAMPLE</CardHolder>",
        "cardholder ANN EXAMPLE",
    ],
)
def test_a_holder_s_name_beside_its_name_becomes_a_token_where_there_is_one(text: str) -> None:
    assert "EXAMPLE" not in hide(text)[0]
    assert TOKEN in Reader(set(), lambda name, value: TOKEN).text(text)


@pytest.mark.parametrize(
    "text",
    [
        f";{CARD}=27121010000000000000?",
        f"{CARD} =27121010000000000000",
        f"{CARD}= 27121010000000000000",
        f"{CARD}=2712",
        f"%B{CARD}^EXAMPLE/ANN^27121010000?",
        f"{CARD}|12|2027|737",
        f"{CARD};12/27;737",
    ],
)
def test_what_stands_behind_a_card_number_on_a_stripe_or_in_a_dump_is_hidden(text: str) -> None:
    masked = hide(text)[0]
    for secret in ("27", "737", "EXAMPLE"):
        assert secret not in masked


@pytest.mark.parametrize(
    "text",
    [
        "the card was declined by its issuer: 05",
        "54: expired card",
        "CVV check failed after 300 ms",
        "session expires=2026-11-23T09:15:00Z",
        '{"exp": 1764000000, "iat": 1763990000}',
        '{"pineapple": 737, "customerName": "ANN EXAMPLE", "cid": "123"}',
        '{"cvvResult": "M", "cvc_check": "pass", "pinTries": 3}',
        "track shipment 1Z999AA10123456784",
        "expected 200, got 502",
        "took 4111111.111111111 ms",
        "4.111111111111111, -74.005941234567",
        '{"score": 0.4111111111111111}',
    ],
)
def test_words_and_numbers_that_are_no_card_s_are_left_alone(text: str) -> None:
    assert hide(text)[0] == text
    assert in_json(json.dumps({"a": text})) == json.dumps({"a": text})


# ---- plain names within what is a card's

GROUPS = [
    '<card pan="{}" code="737" holder="ANN EXAMPLE"/>',
    "<pay:CreditCard pay:Number='{}' pay:Code='737' pay:HolderName='ANN EXAMPLE'></pay:CreditCard>",
    "Card(number={}, code=737, holder=ANN EXAMPLE)",
    "Card{{number='{}', code='737', name='ANN EXAMPLE'}}",
    "CardDetails [number={}, code=737, holder=ANN EXAMPLE]",
    "{{'card': {{'number': '{}', 'code': '737', 'holder': 'ANN EXAMPLE'}}}}",
    "card:{{Number:{} Code:737 Holder:ANN EXAMPLE}}",
    'card {{ number: "{}" code: "737" holder: "ANN EXAMPLE" }}',
    '#<Card number: "{}", code: "737", holder: "ANN EXAMPLE">',
    "card:\n  number: {}\n  code: 737\n  holder: ANN EXAMPLE\n",
    '[card]\nnumber = "{}"\ncode = "737"\nholder = "ANN EXAMPLE"',
    'a:3:{{s:10:"cardNumber";s:16:"{}";s:3:"cvv";s:3:"737";s:10:"cardHolder";s:11:"ANN EXAMPLE";}}',
    '--b\r\nContent-Disposition: form-data; name="cardholderName"\r\n\r\nANN EXAMPLE\r\n--b {}',
]


@pytest.mark.parametrize("text", GROUPS)
def test_plain_names_within_a_card_s_element_object_or_lines_are_the_card_s(text: str) -> None:
    hidden_text, found = hide(text.format(CARD))
    assert found == {CARD}
    assert SHORT in hidden_text
    assert all(word not in hidden_text for word in ("737", "ANN", "EXAMPLE"))
    assert hide(hidden_text)[0] == hidden_text


@pytest.mark.parametrize(
    "text",
    [
        "error(code=737, name=ANN)",
        '<item code="737" name="ANN"/>',
        "the card (see page 737) was declined",
        'loyal:{name:"ANN"}',
        '<card brand="visa" last4="1111" country="DE"/>',
    ],
)
def test_plain_names_elsewhere_are_left_alone(text: str) -> None:
    assert hide(text) == (text, set())


@pytest.mark.parametrize(
    "text",
    [
        f"{CARD}|2027-12|737",
        f'"{CARD}","12/27","737"',
        f"{CARD}==27121010000012300737",
        f"{CARD}d2712101000001230737f",
        "the security code entered: 737",
        "<ExpireDate>12/27</ExpireDate><cvv>737</cvv>",
    ],
)
def test_what_stands_beside_a_card_number_is_hidden_in_other_spellings_too(text: str) -> None:
    masked, _ = hide(text)
    assert all(word not in masked for word in ("737", "12/27", "2027-12", "27121010"))


def test_a_card_number_as_a_double_is_written_is_hidden() -> None:
    assert hide("read 4.111111111111111E15 from the sheet") == ("read 4.11111******1111E15 from the sheet", {CARD})
    assert hide("took 4.111111111111112E15 ns")[1] == set()


def test_the_tags_of_emv_on_lines_of_their_own_hide_expiry_and_holder() -> None:
    masked, found = hide(f"5A: {CARD}\n5F20 (0B) 4558414D504C452F414E4E\n5F24: 271231")
    assert found == {CARD}
    assert "271231" not in masked
    assert "4558414D" not in masked


@pytest.mark.parametrize("parcel", ["1Z5363455501957407", "JJD2615574686612018"])
def test_the_number_of_a_parcel_is_left_alone(parcel: str) -> None:
    assert hide(f"sent as {parcel}") == (f"sent as {parcel}", set())


# ---- linear time


_TRIES = 3


def _seconds(work: Callable[[str], object], text: str) -> float:
    began = time.process_time()
    work(text)
    return time.process_time() - began


LONG: dict[str, Callable[[int], str]] = {
    "numbers": lambda n: json.dumps(list(range(n // 6))),
    "one word of names": lambda n: "cvv" * (n // 3),
    "names with brackets": lambda n: "card[" * (n // 5),
    "cards' brackets": lambda n: "Card(name=" * (n // 10),
    "cards' elements": lambda n: "<card number=" * (n // 13),
    "strings": lambda n: json.dumps([str(i) for i in range(n // 9)]),
    "digits apart": lambda n: "1 " * (n // 2),
    "digits with dashes": lambda n: "1-" * (n // 2),
    "groups": lambda n: "4112 " * (n // 5),
    "brackets": lambda n: "(" * n,
    "ampersands": lambda n: "&" * n,
    "percent signs": lambda n: "%" * n,
    "backslashes": lambda n: "\\" * n,
    "cut escapes": lambda n: "\\u" * (n // 2),
    "escapes": lambda n: "\\u0041" * (n // 6),
    "base64": lambda n: base64.b64encode(random.Random(1).randbytes(n * 3 // 4)).decode(),
    "hex": lambda n: random.Random(1).randbytes(n // 2).hex() + "cc",
    "one word with names before its end": lambda n: "ccab" * (n // 4) + "0" * 100,
    "one word of many names": lambda n: "pincardcv" * (n // 9),
    "one word of names and digits": lambda n: "cv1ca22" * (n // 7) + "cvv",
    "tags of EMV": lambda n: "5A08" * (n // 4),
    "open lists": lambda n: "[" * n,
    "open objects": lambda n: '{"card":' * (n // 8),
    "open elements": lambda n: "<cvv>" * (n // 5),
    "names": lambda n: "cvv=" * (n // 4),
    "spaces": lambda n: "1" + " " * n + "1",
    "quotes": lambda n: 'cvv"' * (n // 4),
}


@pytest.mark.parametrize("make", LONG.values(), ids=LONG.keys())
def test_twice_the_text_takes_about_twice_the_time(make: Callable[[int], str]) -> None:
    short, long = make(40_000), make(160_000)
    for work in (lambda text: hide_cards(text, set()), in_json):
        # Four times the text: sixteen times the time would be quadratic. Both have a little in common that is constant.
        most = 9 * min(_seconds(work, short) for _ in range(_TRIES)) + 0.02
        assert any(_seconds(work, long) < most for _ in range(_TRIES))


def test_json_nested_a_hundred_thousand_deep_is_masked_without_recursion() -> None:
    text = "[" * 100_000 + f'"{CARD}"' + "]" * 100_000
    assert in_json(text) == text.replace(CARD, SHORT)


# ---- what leaves


def test_a_text_in_which_masking_leaves_something_leaves_as_stars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readable, "applied", lambda text, edits: text)
    assert hide(f"pan {CARD}")[0] == "*** " + "*" * 16


@pytest.mark.parametrize("i", range(300))
def test_the_quick_look_misses_nothing_that_the_generator_hides(i: int) -> None:
    case = hidden.case(f"quick:{i}")
    rows = [json.loads(text) for text in (case.record.mods[0].new_values, case.record.mods[0].old_values)]
    for row in rows:
        for name in ("ErrorDetails", "Metadata"):
            text = row.get(name)
            if text and Reader(set()).edits(text, 0):
                quick = QuickLook()
                assert quick.suspects_json(text) if name == "Metadata" else quick.suspects(text)


def test_html_text_keeps_its_form() -> None:
    assert hide(html.escape(f'<a href="x">{CARD}</a>'))[0] == html.escape(f'<a href="x">{SHORT}</a>')


def test_what_is_remembered_is_bounded_in_number_and_length() -> None:
    remembered = Harmless(longest=4, most=2)
    for text in ("one", "two", "three", "four", "five"):
        remembered.add(text)
        assert len(remembered.seen) <= 2
        assert (text in remembered.seen) is (len(text) <= 4)
