"""Masking of a change by its columns' policies and types."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import schema
from contract.changes import Change, Column, Reason, Row, StepError
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker, NewColumns
from tests.shipped import PAYMENT_TABLE, WATCHED

CARD = "4111111111111111"
OTHER_CARD = "378282246310005"
SHORT = "411111******1111"
KEYS = MaskingKeys({"v1": b"1" * 32, "v2": b"2" * 32})
TOKEN = KEYS.token("card", CARD)
OTHER_TOKEN = KEYS.token("card", OTHER_CARD)
PAYMENT_COLUMNS = tuple(Column(c.name, c.type, c.name == "PUID") for c in schema.tables()[PAYMENT_TABLE].columns)
PUID = "550e8400-e29b-41d4-a716-446655440000"


def change(
    new: Row, *, old: Row | None = None, keys: Row | None = None, columns: tuple[Column, ...] = PAYMENT_COLUMNS
) -> Change:
    return Change(
        stream="S",
        table=PAYMENT_TABLE,
        mod_type="UPDATE",
        commit_timestamp="2026-11-23T09:15:00.000000000Z",
        server_transaction_id="1",
        record_sequence="0",
        mod_index=0,
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=columns,
        keys={"PUID": PUID} if keys is None else keys,
        new=new,
        old=old or {},
    )


def masked(new: Row, *, new_columns: NewColumns = "hold", **more: Any) -> Change:
    result = change(new, **more)
    Masker(KEYS, WATCHED, new_columns=new_columns).mask(result)
    return result


def masked_as(kind: str, value: Any) -> Change:
    """A change whose one column, of the type, has been through masking."""
    columns = (Column("PUID", "STRING(36)", True), Column("ErrorDetails", kind, False))
    return masked({"ErrorDetails": value}, columns=columns)


def texts_of(change: Change) -> str:
    """All that could be kept of a change, as one text; BYTES as what they hold."""
    texts = [str((change.keys, change.new, change.old, change.card_tokens))]
    for value in (*change.new.values(), *change.old.values()):
        for element in value if isinstance(value, list) else [value]:
            if isinstance(element, str):
                try:
                    texts.append(base64.b64decode(element, validate=True).decode("latin-1").replace("\0", ""))
                except ValueError:
                    continue
    return "\n".join(texts)


def test_a_card_number_over_elements_with_a_null_between_them_is_hidden() -> None:
    array = Column("Groups", "ARRAY<STRING(MAX)>", False)
    split = change({"Groups": ["4111", None, "1111", "1111", "1111"]}, columns=(*PAYMENT_COLUMNS, array))
    Masker(KEYS, WATCHED, new_columns="scan").mask(split)
    assert split.new["Groups"][1] is None
    assert "1111" not in split.new["Groups"][2:4] and split.card_tokens == [TOKEN]


def test_a_proto_whose_base64_reads_as_a_card_number_is_hidden() -> None:
    shape = change({"Shape": CARD}, columns=(*PAYMENT_COLUMNS, Column("Shape", "PROTO", False)))
    Masker(KEYS, WATCHED, new_columns="scan").mask(shape)
    assert CARD not in shape.new["Shape"] and shape.card_tokens == [TOKEN]


def test_a_card_number_becomes_bin_last_four_and_a_token() -> None:
    result = masked({"CardNumber": "4111 1111 1111 1111", "CardholderName": " Jane  DOE ", "CardExpiry": "12/2027"})
    assert result.new == {
        "CardNumber": SHORT,
        "CardNumber_token": TOKEN,
        "CardholderName_token": KEYS.token("CardholderName", "jane doe"),
    }
    assert result.card_tokens == [TOKEN]


def test_old_values_are_masked_like_new_ones() -> None:
    row = {"CardNumber": CARD, "CardholderName": "Jane", "CardExpiry": "1/27", "ErrorDetails": f"PAN {CARD}"}
    result = masked(dict(row), old=dict(row))
    assert result.old == result.new
    assert CARD not in texts_of(result)


def test_tokens_of_several_cards_are_sorted_and_unique() -> None:
    result = masked({"CardNumber": CARD, "ErrorDetails": f"{OTHER_CARD}, {CARD}"}, old={"CardNumber": OTHER_CARD})
    assert result.card_tokens == sorted({TOKEN, OTHER_TOKEN})


def test_the_newest_key_makes_the_token() -> None:
    assert masked({"CardNumber": CARD}).new["CardNumber_token"].startswith("v2:")


def test_a_row_without_card_numbers_is_untouched_byte_for_byte() -> None:
    new = {
        "CustomerId": "cus_1",
        "Amount": "1234567890.123456789",
        "Metadata": '{"b" : 1.50, "a": [12345678901234567890123, 1e400],\n "t":"2026-11-23T09:15:00.123456Z"}',
        "Timestamp": "2026-11-23T09:15:00.123456789Z",
        "ErrorDetails": None,
    }
    assert masked(dict(new), old=dict(new)).new == new


def test_a_null_stays_null() -> None:
    new = masked({"CardNumber": None, "CardholderName": None, "CardExpiry": None, "Metadata": None}).new
    assert new == {"CardNumber": None, "CardNumber_token": None, "CardholderName_token": None, "Metadata": None}


@pytest.mark.parametrize("number", ["4111111111111112", "1234567890123"])
def test_a_number_with_a_wrong_check_digit_in_a_card_column_is_masked_too(number: str) -> None:
    result = masked({"CardNumber": number})
    assert number not in texts_of(result)
    assert result.new["CardNumber_token"] == KEYS.token("card", number)


def test_a_card_column_that_holds_something_else_is_starred_out() -> None:
    assert masked({"CardNumber": "Jane Doe 12/27 cvv 123"}).new["CardNumber"] == "*" * 22
    assert masked({"CardNumber": SHORT}).new == {"CardNumber": SHORT, "CardNumber_token": None}


@pytest.mark.parametrize("column", ["PUID", "CustomerId"])
def test_a_card_number_in_an_identifier_is_a_dead_letter(column: str) -> None:
    keys = {"PUID": CARD if column == "PUID" else PUID}
    with pytest.raises(StepError) as error:
        masked({"CustomerId": CARD} if column == "CustomerId" else {}, keys=keys)
    assert error.value.reason == Reason.CARD_IN_KEY
    assert column in error.value.message
    assert CARD not in error.value.message


def test_the_change_that_corrects_an_identifier_arrives_with_the_old_one_masked() -> None:
    result = masked({"CustomerId": "cus_1"}, old={"CustomerId": CARD})
    assert result.new["CustomerId"] == "cus_1"
    assert result.old["CustomerId"] == SHORT
    assert result.card_tokens == [TOKEN]


def test_a_card_number_in_any_primary_key_is_a_dead_letter() -> None:
    columns = (Column("Region", "STRING(64)", True),)
    with pytest.raises(StepError) as error:
        masked({}, keys={"Region": CARD}, columns=columns)
    assert error.value.reason == Reason.CARD_IN_KEY


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("STRING(500)", f"PAN {CARD}!", f"PAN {SHORT}!"),
        ("STRING(MAX)", "4111-1111-1111-1111", "4111-11**-****-1111"),
        ("INT64", CARD, None),
        ("INT64", f"-{CARD}", None),
        ("INT64", "4111111111111112", "4111111111111112"),
        ("NUMERIC", f"{CARD}.00", None),
        ("NUMERIC", f"{CARD}.5", None),
        ("NUMERIC", "4111.111111111111", "4111.111111111111"),
        ("FLOAT64", 4111111111111111.0, None),
        ("FLOAT64", 0.5, 0.5),
        ("FLOAT64", "NaN", "NaN"),
        ("BOOL", True, True),
        ("ARRAY<STRING(MAX)>", [None, f"a {CARD}", "b"], [None, f"a {SHORT}", "b"]),
        ("ARRAY<INT64>", ["1", CARD, None], ["1", None, None]),
        ("BYTES", base64.b64encode(f"\xff{CARD}".encode("latin-1")).decode(), None),
        ("BYTES", base64.b64encode(f"é {CARD}".encode()).decode(), None),
        ("BYTES", base64.b64encode(CARD.encode("utf-16")).decode(), None),
        ("BYTES(99)", "AAEC/w==", "AAEC/w=="),
        ("ARRAY<BYTES>", [base64.b64encode(CARD.encode()).decode()], [base64.b64encode(SHORT.encode()).decode()]),
        ("TOKENLIST", f"x {CARD}", f"x {SHORT}"),
        ("TOKENLIST", [CARD, 4111111111111111, None, False], [SHORT, None, None, False]),
        ("PROTO<a.B>", "AAEC/w==", "AAEC/w=="),
        ("ARRAY<JSON>", [f'{{"a": {CARD}}}'], [f'{{"a": "{SHORT}"}}']),
    ],
)
def test_card_numbers_are_found_in_every_type(kind: str, value: Any, expected: Any) -> None:
    result = masked_as(kind, value)
    has_card = value != expected
    if not kind.startswith("BYTES") or not has_card:
        assert result.new["ErrorDetails"] == expected
    assert result.card_tokens == ([TOKEN] if has_card else [])
    assert CARD not in texts_of(result)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("STRING(36)", 4111111111111111),
        ("STRING(36)", {"a": CARD}),
        ("STRING(36)", [CARD]),
        ("JSON", {"a": CARD}),
        ("INT64", 4111111111111111),
        ("NUMERIC", True),
        ("BOOL", CARD),
        ("FLOAT64", CARD),
        ("FLOAT64", True),
        ("BYTES", "not base64!"),
        ("ARRAY<STRING>", CARD),
        ("ARRAY<STRING>", [{"a": CARD}]),
        ("TIMESTAMP", 4111111111111111),
        ("TOKENLIST", {"a": CARD}),
    ],
)
def test_a_value_that_is_not_what_its_type_says_is_a_dead_letter_without_the_value(kind: str, value: Any) -> None:
    with pytest.raises(StepError) as error:
        masked_as(kind, value)
    assert error.value.reason == Reason.NOT_MASKABLE
    assert "ErrorDetails" in error.value.message
    assert CARD not in error.value.message


@pytest.mark.parametrize("row", [{"CardNumber": {"a": CARD}}, {"CardholderName": 7}, {"Nobody": CARD}])
def test_a_value_that_no_column_explains_is_a_dead_letter(row: Row) -> None:
    with pytest.raises(StepError) as error:
        masked(row)
    assert error.value.reason == Reason.NOT_MASKABLE
    assert CARD not in error.value.message


@pytest.mark.parametrize(
    ("kind", "value", "expected", "token"),
    [
        ("INT64", CARD, None, TOKEN),
        ("FLOAT64", 4111111111111111.0, None, TOKEN),
        ("ARRAY<STRING>", [CARD, None], [SHORT, None], TOKEN),
        (
            "ARRAY<STRING(32)>",
            [CARD, OTHER_CARD],
            [SHORT, "378282*****0005"],
            f"{TOKEN},{OTHER_TOKEN}",
        ),
    ],
)
def test_a_card_column_of_another_type_keeps_what_its_type_can_carry(
    kind: str, value: Any, expected: Any, token: str
) -> None:
    result = masked({"CardNumber": value}, columns=(Column("PUID", "STRING", True), Column("CardNumber", kind, False)))
    assert result.new == {"CardNumber": expected, "CardNumber_token": token}


NEW_COLUMNS = (Column("PUID", "STRING", True), Column("Nickname", "STRING", False), Column("Note", "STRING", False))


def test_a_new_column_is_held_back_until_it_is_classified() -> None:
    result = change({"Nickname": "jd", "Note": None}, columns=NEW_COLUMNS)
    assert Masker(KEYS, WATCHED, new_columns="hold").mask(result) == ("Nickname",)
    assert result.new == {"Nickname": None, "Note": None}


def test_a_new_column_is_scanned_where_the_stack_says_so() -> None:
    result = change({"Nickname": f"jd {CARD}"}, columns=NEW_COLUMNS)
    assert Masker(KEYS, WATCHED, new_columns="scan").mask(result) == ("Nickname",)
    assert result.new == {"Nickname": f"jd {SHORT}"}


@pytest.mark.parametrize(
    ("name", "kind", "value", "expected"),
    [
        ("card_cvv", "STRING(MAX)", "737", None),
        ("cardCvv2", "INT64", "737", None),
        ("PinBlock", "STRING(MAX)", "0123456789ABCDEF", None),
        ("encrypted_pin", "BYTES", "AAEC/w==", None),
        ("exp_month", "INT64", "12", None),
        ("expiry", "STRING(MAX)", "12/27", None),
        ("expiry", "STRING(MAX)", "never", "never"),
        ("ExpiresAt", "TIMESTAMP", "2026-11-23T09:15:00Z", "2026-11-23T09:15:00Z"),
        ("track2", "STRING(MAX)", "anything", None),
        ("cardholder_name", "STRING(MAX)", " Ann  EXAMPLE", KEYS.token("cardholder_name", "ann example")),
        ("holderNames", "ARRAY<STRING>", ["Ann"], None),
        ("fundingPan", "STRING(MAX)", "4111 1111 1111 1112", "411111******1112"),
        ("panNumber", "INT64", CARD, None),
        ("customerName", "STRING(MAX)", "Ann EXAMPLE", "Ann EXAMPLE"),
        ("Pineapple", "STRING(MAX)", "737", "737"),
        ("card", "JSON", '{"code":"737","brand":"x"}', '{"code":null,"brand":"x"}'),
    ],
)
def test_a_new_column_that_is_scanned_has_the_policy_that_its_name_means(
    name: str, kind: str, value: Any, expected: Any
) -> None:
    columns = (Column("PUID", "STRING", True), Column(name, kind, False))
    result = masked({name: value}, old={name: value}, columns=columns, new_columns="scan")
    assert result.new == result.old == {name: expected}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("ARRAY<STRING>", ["4111", "1111", "1111", "1111"], ["4111", "11**", "****", "1111"]),
        ("ARRAY<INT64>", ["4111", "1111", "1111", "1111"], ["4111", None, None, "1111"]),
        ("ARRAY<FLOAT64>", [4111.0, 1111.0, 1111.0, 1111.0], [4111.0, None, None, 1111.0]),
        ("ARRAY<JSON>", ["4111", '"1111"', "1111", "1111"], ["4111", '"11**"', '"****"', "1111"]),
        ("ARRAY<STRING>", ["cvv", "737"], ["cvv", "***"]),
        ("ARRAY<INT64>", ["4111", "1111", "1111", "1112"], ["4111", "1111", "1111", "1112"]),
        ("JSON", '{"groups":["4111","1111","1111","1111"]}', '{"groups":["4111","11**","****","1111"]}'),
        ("JSON", "[4111, 1111,\n    1111, 1111]", '[4111, "11**",\n    "****", 1111]'),
        ("JSON", '{"ref":4111111111111111.5}', f'{{"ref":"{SHORT}"}}'),
        ("JSON", "[4,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", '[4,1,1,1,1,1,"*","*","*","*","*","*",1,1,1,1]'),
    ],
)
def test_a_card_number_in_several_elements_is_masked_where_it_is_seen(kind: str, value: Any, expected: Any) -> None:
    assert masked_as(kind, value).new["ErrorDetails"] == expected


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex(CARD),
        bytes.fromhex("0" + OTHER_CARD),
        bytes.fromhex(OTHER_CARD + "f"),
        b"\x01\xfe" + bytes.fromhex(CARD) + b"\xee",
        bytes.fromhex("16" + CARD + "000000"),
        bytes.fromhex("08" + CARD),
        bytes.fromhex("f" + OTHER_CARD),
        bytes.fromhex("0200702000000000000016" + CARD + "000000000000001000"),
        bytes.fromhex("5a08" + CARD + "5f2403271231"),
        bytes.fromhex("5713" + CARD + "d27122010000000000000f"),
    ],
)
def test_packed_digits_and_emv_in_bytes_are_masked(data: bytes) -> None:
    result = masked_as("BYTES", base64.b64encode(data).decode())
    left = base64.b64decode(result.new["ErrorDetails"]).hex()
    assert len(left) == 2 * len(data)
    assert not any(digits in left for digits in (CARD, OTHER_CARD, "271231", "27122010"))
    assert result.card_tokens


def test_phone_numbers_product_numbers_and_sequences_are_no_dead_letters_as_identifiers() -> None:
    draw = random.Random(11)
    numbers = [f"573{draw.randrange(10**9):09}" for _ in range(3000)]
    numbers += [f"4915{draw.randrange(10**9):09}" for _ in range(1000)]
    numbers += [str(draw.randrange(10**18, 2**63)) for _ in range(3000)]
    numbers += [f"400{draw.randrange(10**10):010}" for _ in range(1000)]
    for number in numbers:
        assert masked({"CustomerId": number}).new["CustomerId"] == number


@pytest.mark.parametrize(
    "value",
    [
        CARD,
        "4111 1111 1111 1111",
        f"cus_{CARD}",
        f"%22{CARD}%22",
        "cvv=737",
        base64.b64encode(f"no {CARD}".encode()).decode(),
    ],
)
def test_what_is_surely_a_card_s_in_an_identifier_is_refused_however_it_is_written(value: str) -> None:
    with pytest.raises(StepError) as error:
        masked({"CustomerId": value})
    assert error.value.reason == Reason.CARD_IN_KEY
    assert CARD not in error.value.message


@pytest.mark.parametrize("kind", ["STRING(MAX)", "JSON"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"gatewayRequest": json.dumps({"pan": CARD, "cvv": "737", "cardholderName": "ANN EXAMPLE"})}),
        f"pan={CARD}&cvv=737&cardholderName=ANN+EXAMPLE",
        f"<r><pan>{CARD}</pan><cvv>737</cvv><cardholderName>ANN EXAMPLE</cardholderName></r>",
        f'<r pan="{CARD}" cvv="737" cardholderName="ANN EXAMPLE"/>',
        f'request {{"pan":"{CARD}","cvv":"737","cardholderName":"ANN EXAMPLE"}} failed',
        json.dumps({"card": {"number": CARD, "code": "737", "cardholderName": "ANN EXAMPLE"}}),
    ],
)
def test_a_policy_holds_at_every_level_and_in_every_form(kind: str, text: str) -> None:
    value = text if kind != "JSON" or text.startswith("{") else json.dumps({"log": text})
    result = masked_as(kind, value)
    kept = result.new["ErrorDetails"]
    assert CARD not in kept
    assert "737" not in kept.replace(KEYS.token("cardholderName", "ann example"), "")
    assert "EXAMPLE" not in kept
    assert KEYS.token("cardholderName", "ann example") in kept.replace("+", " ")
    assert result.card_tokens == [TOKEN]


def test_a_row_of_known_columns_has_nothing_unclassified() -> None:
    assert Masker(KEYS, WATCHED).mask(change({"Status": "SETTLED"})) == ()


def test_an_unknown_setting_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="newColumns must be scan or hold"):
        Masker(KEYS, WATCHED, new_columns="keep")  # type: ignore[arg-type]


def test_two_versions_of_a_table_are_masked_side_by_side() -> None:
    masker = Masker(KEYS, WATCHED, new_columns="scan")
    wider = change({"Nickname": CARD}, columns=NEW_COLUMNS)
    narrow = change({"ErrorDetails": CARD})
    for one in (wider, narrow, change({"Nickname": CARD}, columns=NEW_COLUMNS)):
        masker.mask(one)
    assert (wider.new, narrow.new) == ({"Nickname": SHORT}, {"ErrorDetails": SHORT})


CARDS = st.sampled_from(
    [CARD, OTHER_CARD, "5555555555554444", "6759649826438453", "36070500001020", "2223003122003222"]
)
WRITTEN = st.builds(
    lambda card, sep, before, after: (card, before + sep.join((card[:4], card[4:8], card[8:12], card[12:])) + after),
    CARDS,
    st.sampled_from(["", " ", "-", ".", "/", "\u00a0", "–", "\t", '"', "\\"]),
    st.sampled_from(["", "PAN ", "é", "\u4e2d", '"', "a\\"]),
    st.sampled_from(["", "!", " 12/27", "x", "\n"]),
)


def nest(value: Any, path: list[str]) -> Any:
    for step in path:
        value = [1, value, None] if step == "[" else {"k" + step: value, "other": 0.1}
    return value


@given(WRITTEN, st.lists(st.sampled_from(["[", "a", "b"]), max_size=6), st.booleans(), st.booleans(), st.booleans())
def test_no_card_number_survives_in_json_however_deep(
    pair: tuple[str, str], path: list[str], as_name: bool, escaped: bool, old: bool
) -> None:
    card, text = pair
    value = nest({text: 1} if as_name else text, path)
    document = json.dumps(value, ensure_ascii=escaped)

    result = masked({"Metadata": document}, old={"Metadata": document} if old else None)

    kept = orjson.dumps(orjson.loads(result.new["Metadata"]), option=orjson.OPT_SORT_KEYS).decode()
    assert card not in "".join(c for c in kept if c.isdigit())
    assert result.card_tokens == [KEYS.token("card", card)]


@given(st.text(max_size=200))
def test_any_text_is_masked_without_an_error(text: str) -> None:
    masked({"ErrorDetails": text, "Metadata": text, "CardNumber": text, "CardholderName": text})


@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(10**11), 10**11),
            st.floats(allow_nan=False, allow_infinity=False, width=32).filter(lambda x: abs(x) < 1e11),
            st.text(st.characters(exclude_categories=["Nd", "Cs"])),
        ),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("abcdefg", min_size=1), inner),
    )
)
def test_json_without_card_numbers_keeps_its_text(value: Any) -> None:
    document = json.dumps(value, indent=1)
    assert masked({"Metadata": document}).new["Metadata"] == document


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-8", "latin-1"])
@pytest.mark.parametrize("text", [f"PAN {CARD}", "PAN " + " - ".join(CARD), "cvv=737 for ANN"])
def test_bytes_are_read_in_the_encoding_that_they_are_in(encoding: str, text: str) -> None:
    result = masked_as("BYTES", base64.b64encode(text.encode(encoding)).decode())
    left = base64.b64decode(result.new["ErrorDetails"]).decode(encoding)
    assert len(left) == len(text)
    assert "737" not in left
    assert CARD not in "".join(filter(str.isdigit, left))


def test_bytes_of_no_encoding_are_masked_without_an_error() -> None:
    draw = random.Random(5)
    for _ in range(300):
        data = draw.randbytes(draw.randrange(60)) + CARD.encode(draw.choice(["utf-8", "utf-16-le"])) + draw.randbytes(9)
        masked_as("BYTES", base64.b64encode(data).decode())


@pytest.mark.parametrize(
    "document",
    [
        {"note": f"paid with {CARD}"},
        {"limits": {CARD: 5}},
        {"card": {"cvv": "737"}},
        {"raw": base64.b64encode(f"pan={CARD}".encode()).decode()},
        {"query": "pan%3D4111111111111111"},
    ],
)
def test_a_document_that_comes_again_is_masked_again(document: Row) -> None:
    """What held nothing is remembered; what held something is not."""
    masker, text = Masker(KEYS, WATCHED), json.dumps(document)
    changes = [change({"Metadata": text}, old={"Metadata": text}) for _ in range(2)]
    for each in changes:
        masker.mask(each)
    seen = {value for each in changes for value in (each.new["Metadata"], each.old["Metadata"])}
    assert len(seen) == 1 and text not in seen


@pytest.mark.parametrize("row", ["keys", "new", "old"])
def test_one_look_over_the_numbers_of_all_rows_sees_each_of_them(row: str) -> None:
    columns = (Column("PUID", "STRING(36)", True), Column("N", "INT64", False), Column("T", "TIMESTAMP", False))
    rows: dict[str, Row] = {"keys": {"PUID": PUID}, "new": {"T": "2026-11-23T09:15:00.123456789Z"}, "old": {}}
    rows[row]["N"] = CARD
    result = masked(rows["new"], old=rows["old"], keys=rows["keys"], columns=columns, new_columns="scan")
    assert CARD not in texts_of(result)
    assert result.card_tokens == [TOKEN]
    assert result.new["T"] == "2026-11-23T09:15:00.123456789Z"


def test_a_number_under_a_name_that_a_token_has_is_seen_too() -> None:
    # `CardNumber` has a token, so a column of the token's name is carried under another one.
    columns = (*PAYMENT_COLUMNS, Column("CardNumber_token", "INT64", False))
    result = masked({"CardNumber_token": CARD}, columns=columns, new_columns="scan")
    assert CARD not in texts_of(result)


def test_the_digits_of_two_numbers_are_not_one() -> None:
    columns = (Column("PUID", "STRING(36)", True), Column("A", "INT64", False), Column("B", "INT64", False))
    row = {"A": CARD[:8], "B": CARD[8:]}
    assert masked(dict(row), old=dict(row), columns=columns, new_columns="scan").new == row
