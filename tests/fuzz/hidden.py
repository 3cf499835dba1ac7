"""Hides a card number, a security code, an expiry, a holder's name or track data in a change record.

What it hid it looks for in what comes out, with its own decoders: never with the product's.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import random
import re
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from contract.changes import Column
from pipeline.source.records import DataChange, Mod

# Prefix and length, as the brands publish them today.
BRANDS = (
    *(("4", 16),) * 4, ("4", 19), ("51", 16), ("55", 16), ("2221", 16), ("2720", 16), ("34", 15), ("37", 15),
    ("36", 14), ("300", 14), ("3095", 16), ("6011", 16), ("65", 16), ("644", 16), ("3528", 16), ("3589", 16),
    ("62", 16), ("62", 17), ("62", 19), ("6759", 16), ("6304", 18), ("5018", 16), ("2200", 16), ("9792", 16),
    ("8600", 16), ("81", 16), ("508", 16),
)  # fmt: skip
NAMES = {
    "number": ("pan", "cardNumber", "card_number", "card[number]", "PAN", "ccNumber", "primaryAccountNumber"),
    "code": (
        "cvv", "CVV2", "cvc", "csc", "cardCvv", "cvvCode", "securityCode", "card_security_code", "verification_value",
        "cav2", "CardVerificationValue", "card-code", "cardCode", "cvn2", "card[cvc]", "iCVV",
    ),
    "expiry": (
        "exp", "expiry", "expiryDate", "cardExpiry", "card_exp", "expirationDate", "valid_thru", "validThru",
        "CardExpDate", "card[exp]",
    ),
    "month": ("exp_month", "expMonth", "expiration_month", "cardExpiryMonth", "card[exp_month]"),
    "holder": (
        "cardholderName", "cardholder", "CardHolder", "cardholder_name", "holderName", "nameOnCard", "name_on_card",
        "cardName", "card-holder-name",
    ),
    "pin": ("pin", "pinBlock", "encryptedPinBlock", "PIN_BLOCK", "encrypted_pin"),
    "track": ("track2", "track2Data", "trackData", "Track2EquivalentData", "track_1"),
}  # fmt: skip
FIRST = ("ANNA", "OLGA", "JÜRGEN", "BEATRIX", "QUENTIN", "Wilhelmina")
LAST = ("EXAMPLE", "ZZYZX", "MUSTERFRAU", "O'BRIEN-QUUX", "Vanderbilt")

COLUMNS = (
    Column("PUID", "STRING(36)", True),
    Column("CustomerId", "STRING(64)", False),
    Column("ErrorDetails", "STRING(MAX)", False),
    Column("Metadata", "JSON", False),
    Column("Raw", "BYTES(MAX)", False),
    Column("Tags", "ARRAY<STRING(MAX)>", False),
    Column("Docs", "ARRAY<JSON>", False),
    Column("Blobs", "ARRAY<BYTES(MAX)>", False),
    Column("Counts", "ARRAY<INT64>", False),
    Column("Total", "INT64", False),
    Column("Exact", "NUMERIC", False),
    Column("Ratio", "FLOAT64", False),
    Column("Span", "INTERVAL", False),
    Column("Kind", "ENUM", False),
    Column("Shape", "PROTO", False),
    Column("Shapes", "ARRAY<PROTO>", False),
    *(Column(name, "STRING(MAX)", False) for name in ("cvv", "PinBlock", "cardholder_name", "exp_month", "panNumber")),
    Column("CardNumber", "STRING(32)", False),
    Column("CardholderName", "STRING(64)", False),
    Column("CVV", "STRING(4)", False),
)


@dataclass(frozen=True)
class Case:
    """A record, and what must not be readable in what comes of it."""

    kind: str
    record: DataChange
    secrets: tuple[str, ...]


def number(draw: random.Random) -> str:
    prefix, length = draw.choice(BRANDS)
    body = prefix + "".join(draw.choices("0123456789", k=length - len(prefix) - 1))
    total = sum(sum(divmod(2 * int(d), 10)) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(body)))
    return body + str(-total % 10)


def case(seed: str) -> Case:
    """The case of a seed: always the same."""
    draw = random.Random(seed)
    make = draw.choices(list(_MAKERS), [weight for _, weight in _MAKERS.values()])[0]
    return _MAKERS[make][0](draw, make)


def record(draw: random.Random, **values: Any) -> DataChange:
    """A change record with the values in its keys, new or old values."""
    row = {"CustomerId": "customer", **values}
    place = draw.random()
    old, new = (row, {"CustomerId": "customer"}) if place < 0.25 and "CustomerId" not in values else ({}, row)
    keys = {"PUID": new.pop("PUID", "payment")}
    return DataChange(
        stream="S",
        table="payment_audit_trail",
        mod_type="UPDATE",
        commit_timestamp="2026-11-23T09:15:00.000000000Z",
        server_transaction_id="x",
        record_sequence="0",
        is_last_record_in_transaction_in_partition=True,
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        columns=COLUMNS,
        mods=(Mod(json.dumps(keys), json.dumps(new), json.dumps(old)),),
        value_capture_type="NEW_ROW_AND_OLD_VALUES",
        transaction_tag="",
        is_system_transaction=False,
    )


# ---- ways to write it


def grouped(draw: random.Random, digits: str) -> str:
    """A number with separators between its groups, as people and programs write it."""
    if draw.random() < 0.4:
        return digits
    separator = draw.choice([" ", "-", ".", " - ", "\u00a0", "–", "/", "_", "\u2009", "\u200b", "  "])
    sizes = draw.choice([(4, 4, 4, 4, 4), (4, 6, 5, 4), (4, 6, 9), (1,) * 19])
    if separator == "." and len(digits) < 13:
        separator = " "
    parts, at = [], 0
    for size in sizes:
        parts.append(digits[at : at + size])
        at += size
    return separator.join(part for part in parts if part)


def percent(draw: random.Random, text: str) -> str:
    if draw.random() < 0.5:
        return urllib.parse.quote(text, safe="")
    return "".join(f"%{byte:02X}" for byte in text.encode())


def entities(draw: random.Random, text: str) -> str:
    form = draw.choice(["&#{};", "&#x{:x};", "&#x{:X};", "&#0{};"])
    if draw.random() < 0.5:
        return "".join(form.format(ord(c)) for c in text)
    return html.escape(text).replace(" ", "&nbsp;").replace("–", "&ndash;")


def backslash_u(draw: random.Random, text: str) -> str:
    if draw.random() < 0.5:
        return "".join(f"\\u{ord(c):04x}" for c in text)
    return json.dumps(text)[1:-1]


def base_64(draw: random.Random, text: str) -> str:
    data = draw.choice([base64.b64encode, base64.urlsafe_b64encode])(text.encode()).decode()
    return data.rstrip("=") if draw.random() < 0.4 else data


def hexadecimal(draw: random.Random, text: str) -> str:
    digits = text.encode().hex()
    return draw.choice([digits, digits.upper()])


def in_json(draw: random.Random, text: str) -> str:
    return json.dumps({draw.choice(["payload", "body", "request"]): text}, ensure_ascii=draw.random() < 0.5)


def in_xml(draw: random.Random, text: str) -> str:
    return f"<Body><Text>{html.escape(text, quote=False)}</Text></Body>"


ENCODERS: dict[str, Callable[[random.Random, str], str]] = {
    "percent": percent,
    "entities": entities,
    "backslash-u": backslash_u,
    "base64": base_64,
    "hex": hexadecimal,
    "json": in_json,
    "xml": in_xml,
}
LEVELS = 3


def encoded(draw: random.Random, text: str, most: int = LEVELS) -> tuple[str, list[str]]:
    """A text encoded up to this many times, and how."""
    ways = [draw.choice(list(ENCODERS)) for _ in range(draw.choice([0, 1, 1, 2, 3][: most + 2]))][:most]
    for way in ways:
        text = ENCODERS[way](draw, text)
    return text, ways


def named(draw: random.Random, name: str, value: str) -> tuple[str, str]:  # noqa: PLR0911 - a case a style
    """A value under its name in a document, and the document's style."""
    style = draw.choice(["json", "json", "query", "xml", "attribute", "equals", "colon", "pair"])
    other = draw.choice(["note", "channel", "brand"])
    match style:
        case "json":
            return json.dumps({other: "web", name: value}, ensure_ascii=False), style
        case "query":
            return f"{other}=web&{name}={urllib.parse.quote_plus(value)}&z=end", style
        case "xml":
            tag = re.sub(r"[\[\]]", "_", name).strip("_")
            return f"<Pay><{other}>web</{other}><{tag}>{html.escape(value, quote=False)}</{tag}></Pay>", style
        case "attribute":
            tag = re.sub(r"[\[\]]", "_", name).strip("_")
            return f'<Pay {other}="web" {tag}="{html.escape(value)}"/>', style
        case "equals":
            return f"declined {name}={value}, {other} web", style
        case "colon":
            return f"{other} web; {name}: {value}", style
        case _:
            return json.dumps([{"name": name, "value": value}], ensure_ascii=False), style


# ---- where it stands


def placed(draw: random.Random, text: str) -> dict[str, Any]:
    """A text in a column of some type."""
    match draw.choice(["text", "text", "json", "json", "bytes", "array", "documents"]):
        case "text":
            return {"ErrorDetails": text}
        case "json":
            try:
                json.loads(text)
                return {"Metadata": text}
            except ValueError:
                member = draw.choice(["note", "response", "log"])
                return {"Metadata": json.dumps({"a": [{member: text}]}, ensure_ascii=draw.random() < 0.5)}
        case "bytes":
            encoding = "utf-16-le" if draw.random() < 0.15 else "utf-8"
            return {"Raw": base64.b64encode(text.encode(encoding)).decode()}
        case "array":
            return {"Tags": ["first", text, None]}
        case _:
            return {"Docs": [json.dumps({"n": 1.5, "t": text}, ensure_ascii=False)]}


def _of_text(draw: random.Random, kind: str, text: str, secrets: tuple[str, ...], most: int = LEVELS) -> Case:
    # A document that encodes the value by itself (a query string, XML) is a level too.
    levels = most if any(secret in text for secret in secrets) else min(most, LEVELS)
    written, ways = encoded(draw, text, levels)
    while any(_is_an_entity_s(secret, written) for secret in secrets):
        written, ways = encoded(draw, text, levels)
    return Case("/".join((kind, *ways)), record(draw, **placed(draw, written)), secrets)


def _is_an_entity_s(secret: str, written: str) -> bool:
    """Whether a short secret's digits are also an entity's own number, encoded once more: `&amp;#051;` stands for a 3.

    Masking hides what was meant and keeps the letter; the oracle could not tell the one from the other.
    """
    pattern = re.compile(rf"amp;#x?{re.escape(secret)};")
    return len(secret) < 6 and any(pattern.search(reading) for reading in readings(written))


def _number_in_text(draw: random.Random, kind: str) -> Case:
    digits = number(draw)
    before = draw.choice(["", "PAN ", "paid with ", "card no. ", '"', "é ", "(", "#"])
    return _of_text(
        draw, kind, before + grouped(draw, digits) + draw.choice(["", " declined", '"', ".", ", web"]), (digits,)
    )


def _number_named(draw: random.Random, kind: str) -> Case:
    digits = number(draw)
    text, style = named(draw, draw.choice(NAMES["number"]), grouped(draw, digits))
    return _of_text(draw, f"{kind}-{style}", text, (digits,))


def _number_in_array(draw: random.Random, kind: str) -> Case:
    digits = number(draw)
    size = draw.choice([4, 4, 1])
    if size == 4 and len(digits) not in (16, 19):
        digits = "4111111111111111"
    groups = [digits[i : i + size] for i in range(0, len(digits), size)]
    if draw.random() < 0.3:
        return Case(kind + "/strings", record(draw, Tags=groups), (digits,))
    if draw.random() < 0.3 and not any(g[0] == "0" and len(g) > 1 for g in groups):
        return Case(kind + "/integers", record(draw, Counts=groups), (digits,))
    values: list[Any] = groups
    if draw.random() < 0.5 and not any(g[0] == "0" and len(g) > 1 for g in groups):
        values = [int(g) for g in groups]
    indent = draw.choice([None, 1, 4])
    return Case(kind + "/json", record(draw, Metadata=json.dumps({"x": {"groups": values}}, indent=indent)), (digits,))


def _number_typed(draw: random.Random, kind: str) -> Case:
    digits = number(draw)
    if digits[0] == "0":
        digits = "4111111111111111"
    ways: dict[str, dict[str, Any]] = {
        "json-number": {"Metadata": f'{{"ref":{digits}}}'},
        "json-fraction": {"Metadata": f'{{"ref": {digits}.{draw.choice(["5", "0", "25"])}}}'},
        "json-exponent": {"Metadata": f'{{"ref":{digits[0]}.{digits[1:]}e{len(digits) - 1}}}'},
        "numeric": {"Exact": draw.choice([digits, f"{digits}.00", f"{digits}.5"])},
        "card-column": {"CardNumber": grouped(draw, digits)},
        "named-column": {"panNumber": grouped(draw, digits)},
        "json-name": {"Metadata": json.dumps({digits: {"daily": 5}})},
        "array": {"Counts": ["7", digits] if int(digits) < 2**63 else ["7"]},
        "identifier": {"CustomerId": "4111111111111111"},
    }
    if int(digits) < 2**63:
        ways["integer"] = {"Total": digits}
    if int(digits) < 2**53:
        ways["float"] = {"Ratio": float(digits)}
    way = draw.choice(list(ways))
    return Case(f"{kind}/{way}", record(draw, **ways[way]), ("4111111111111111" if way == "identifier" else digits,))


def _emv(draw: random.Random, kind: str) -> Case:
    digits = number(draw)
    if "271231" in digits[:6] + digits[-4:]:  # what may be shown of it reads like the expiry
        digits = "4111111111111111"
    padded = digits + "F" * (len(digits) % 2)
    pan = f"5A{len(padded) // 2:02X}{padded}"
    track = f"{digits}D2712201{''.join(draw.choices('0123456789', k=10))}"
    track += "F" * (len(track) % 2)
    track = f"{draw.choice(['57', '9F6B'])}{len(track) // 2:02X}{track}"
    holder = f"{draw.choice(LAST[:3])}/{draw.choice(FIRST[:2])}"
    name = f"5F20{len(holder):02X}{holder.encode().hex().upper()}"
    parts = [draw.choice([pan, track])]
    secrets = [digits]
    if draw.random() < 0.4:
        parts += [name, "9F3602001F"]
        secrets.append(holder)
    if draw.random() < 0.3:
        parts.append("5F2403271231")
        secrets.append("271231")
    parts += draw.choices(["9F2608A1B2C3D4E5F60718", "820239A0", "950500000080AA", "9A03261123"], k=draw.randint(0, 2))
    draw.shuffle(parts)
    text = "".join(parts)
    if draw.random() < 0.2:
        text = f"70{len(text) // 2:02X}{text}" if len(text) < 254 else text
    way = draw.choice(["text", "bytes", "encoded", "spaced"])
    if way == "bytes":
        return Case(f"{kind}/bytes", record(draw, Raw=base64.b64encode(bytes.fromhex(text)).decode()), tuple(secrets))
    if way == "spaced":
        spaced = " ".join(text[i : i + 2] for i in range(0, len(text), 2))
        return Case(f"{kind}/spaced", record(draw, ErrorDetails=f"DE55 {spaced}"), tuple(secrets))
    text = draw.choice([text, text.lower()])
    if way == "encoded":
        wrapped, ways = encoded(draw, json.dumps({"emv": text}), 2)
        return Case("/".join((kind, *ways)), record(draw, **placed(draw, wrapped)), tuple(secrets))
    return Case(
        f"{kind}/text", record(draw, **placed(draw, draw.choice(["", "emv=", "DE55: "]) + text)), tuple(secrets)
    )


def _packed(draw: random.Random, kind: str) -> Case:
    digits = number(draw)
    padded = (
        digits + "F" if len(digits) % 2 and draw.random() < 0.5 else digits.rjust(len(digits) + len(digits) % 2, "0")
    )
    data = (
        draw.choice([b"", b"\x01\xfe", b"\xaa\xbb\xcc"])
        + bytes.fromhex(padded)
        + draw.choice([b"", b"\xff", b"\xee\x1f"])
    )
    return Case(kind, record(draw, Raw=base64.b64encode(data).decode()), (digits,))


def _track(draw: random.Random, kind: str) -> Case:
    digits = number(draw)
    rest = "".join(draw.choices("0123456789", k=10))
    holder = f"{draw.choice(LAST[:3])}/{draw.choice(FIRST[:2])}"
    text = draw.choice(
        [
            f";{digits}=2712201{rest}?",
            f"{digits} =2712201{rest}",
            f"{digits}= 2712201{rest}",
            f"%B{digits}^{holder}^2712201{rest}?",
        ]
    )
    secrets = (digits, f"2712201{rest}", *((holder,) if holder in text else ()))
    if draw.random() < 0.5:
        text, _ = named(draw, draw.choice(NAMES["track"]), text)
    return _of_text(draw, kind, text, secrets)


def _code(draw: random.Random, kind: str) -> Case:
    code = "".join(draw.choices("0123456789", k=draw.choice([3, 3, 4])))
    name = draw.choice(NAMES["code"])
    if draw.random() < 0.12:
        return Case(f"{kind}/column", record(draw, **{draw.choice(["cvv", "CVV"]): code}), (code,))
    if draw.random() < 0.15:
        value: Any = int(code) if code[0] != "0" else code
        return Case(f"{kind}/json-number", record(draw, Metadata=json.dumps({"card": {name: value}})), (code,))
    text, style = named(draw, name, code)
    return _of_text(draw, f"{kind}-{style}", text, (code,))


def _expiry(draw: random.Random, kind: str) -> Case:
    month, year = draw.randint(1, 12), draw.randint(25, 39)
    if draw.random() < 0.3:
        if draw.random() < 0.3:
            return Case(f"{kind}/column", record(draw, exp_month=f"{month:02}{year}"), (f"{month:02}{year}",))
        value = f"{month:02}{year}"
        text, style = named(draw, draw.choice(NAMES["month"]), value)
        return _of_text(draw, f"{kind}-{style}", text, (value,))
    value = draw.choice(
        [f"{month:02}/{year}", f"{month:02}/20{year}", f"{month:02}{year}", f"{year}{month:02}", f"20{year}-{month:02}"]
    )
    text, style = named(draw, draw.choice(NAMES["expiry"]), value)
    return _of_text(draw, f"{kind}-{style}", text, (value,))


def _holder(draw: random.Random, kind: str) -> Case:
    name = f"{draw.choice(FIRST)} {draw.choice(LAST)}"
    if draw.random() < 0.15:
        return Case(
            f"{kind}/column", record(draw, **{draw.choice(["cardholder_name", "CardholderName"]): name}), (name,)
        )
    text, style = named(draw, draw.choice(NAMES["holder"]), name)
    return _of_text(draw, f"{kind}-{style}", text, (name,))


def _pin(draw: random.Random, kind: str) -> Case:
    value = (
        "".join(draw.choices("0123456789ABCDEF", k=16))
        if draw.random() < 0.6
        else "".join(draw.choices("0123456789", k=6))
    )
    if draw.random() < 0.2:
        return Case(f"{kind}/column", record(draw, PinBlock=value), (value,))
    text, style = named(draw, draw.choice(NAMES["pin"]), value)
    return _of_text(draw, f"{kind}-{style}", text, (value,))


def _whole(draw: random.Random, kind: str) -> Case:
    """A gateway's request with all of it."""
    digits, code, name = (
        number(draw),
        "".join(draw.choices("0123456789", k=3)),
        f"{draw.choice(FIRST)} {draw.choice(LAST)}",
    )
    # What masking leaves of the number, and what its first six digits say to whoever takes them for hex.
    left = digits[:6] + digits[-4:], bytes.fromhex(digits[:6]).decode("latin-1")
    if any(code in each for each in left):
        code = next(c for c in ("737", "682", "905", "413") if not any(c in each for each in left))
    card = {"number": digits, draw.choice(["cvc", "cvv", "code"]): code, "name": name}
    text = json.dumps({"amount": "ten", "card": card}, ensure_ascii=False)
    return _of_text(draw, kind, text, (digits, code, name), 2)


def _carried_as_text(draw: random.Random, kind: str) -> Case:
    """In a value of a type that BigQuery has no type for, or beside a NULL in an ARRAY."""
    digits = number(draw)
    while len(digits) not in (16, 19):
        digits = number(draw)
    field = bytes([10, len(digits)]) + digits.encode() + draw.choice([b"", b"\x10\x01"])
    packed = b"\x0a\x08" + bytes.fromhex(digits[:16])
    secrets = (digits,)
    shape = base64.b64encode(draw.choice([field, field, packed] if len(digits) == 16 else [field])).decode()
    if len(digits) == 16 and draw.random() < 0.3:
        # The digits of the base64 text itself.
        shape = digits
    span = draw.choice([f"P{digits}D", f"PT{digits}S", f"P1Y2M3DT{digits}.5S"])
    ways: dict[str, dict[str, Any]] = {
        "interval": {"Span": span},
        "enum": {"Kind": digits},
        "proto": {"Shape": shape},
        "protos": {"Shapes": [shape, None]},
        "null": {"Tags": [digits[:4], None, *(digits[i : i + 4] for i in range(4, len(digits), 4)), None]},
        "wide": {"Metadata": f'{{"ref":{digits},"wide":123456789012345678901234567890}}'},
        "nanoseconds": {"Docs": [f'{{"ref":{digits},"rate":67.174118}}', None]},
    }
    way = draw.choice(list(ways))
    return Case(f"{kind}/{way}", record(draw, **ways[way]), secrets)


_Maker = Callable[[random.Random, str], Case]
_MAKERS: dict[str, tuple[_Maker, int]] = {
    "number": (_number_in_text, 18),
    "number-named": (_number_named, 14),
    "number-array": (_number_in_array, 6),
    "number-typed": (_number_typed, 8),
    "emv": (_emv, 8),
    "packed": (_packed, 3),
    "track": (_track, 8),
    "code": (_code, 14),
    "expiry": (_expiry, 8),
    "holder": (_holder, 10),
    "pin": (_pin, 5),
    "whole": (_whole, 6),
    "carried-as-text": (_carried_as_text, 6),
}


# ---- the oracle: what can be read in what came out


def leaks(case: Case, texts: list[str]) -> bool:
    """Whether any secret of a case can be read in texts, as it was written, plainly, or by decoding them."""
    secrets = [(_written(secret), secret.replace(" ", "+"), _SIGNS.sub("", secret)) for secret in case.secrets]
    for text in texts:
        for reading in readings(text):
            if reading.startswith(_AS_HEX):  # three digits stand in any hex by chance
                if any(len(bare) > 5 and bare.lower() in reading for _, _, bare in secrets):
                    return True
                continue
            shown = _TOKEN.sub("", reading)
            plain = _SIGNS.sub("", shown)
            for secret, query, bare in secrets:
                if secret.search(shown) or (len(bare) > 5 and (query in shown or bare in plain)):
                    return True
    return False


def _written(secret: str) -> re.Pattern[str]:
    """A secret as it was written; a short one stands by itself, since its digits are in many a blob by chance."""
    # Nor is an entity's own number (`&#051;`) a secret: what it stands for is another reading.
    alone = r"(?<![0-9A-Za-z])(?<!&#)(?<!&#x)", r"(?![0-9A-Za-z])"
    return re.compile(alone[0] + re.escape(secret) + alone[1] if len(secret) < 6 else re.escape(secret))


_SIGNS = re.compile(r"[\W_]")
_TOKEN = re.compile(r"v[0-9]+:[0-9a-f]{32}")
_AS_HEX = "\0hex "
_RUN = re.compile(r"[A-Za-z0-9+/_-]{6,}={0,2}")
_HEX = re.compile(r"[0-9A-Fa-f]{6,}")
MOST_READINGS = 200
_DEEPEST = 4


def readings(text: str) -> Iterator[str]:
    """A text and what it decodes to, four levels deep."""
    seen = {text}
    level = [text]
    for depth in range(_DEEPEST + 1):
        following: list[str] = []
        for each in level:
            yield each
            # What stands there in hex stands there in bytes too.
            if depth == _DEEPEST or each.startswith(_AS_HEX):
                continue
            for other in _once(each):
                if len(seen) >= MOST_READINGS:
                    break
                if other not in seen:
                    seen.add(other)
                    following.append(other)
        level = following


def _once(text: str) -> Iterator[str]:
    if "%" in text:
        yield urllib.parse.unquote(text)
    if "&" in text:
        yield html.unescape(text)
    if "\\" in text:
        yield re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
        yield text.replace('\\"', '"').replace("\\\\", "\\").replace("\\n", "\n")
    for run in _RUN.findall(text):
        plain = run.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            data = base64.b64decode(plain + "=" * (-len(plain) % 4))
        except (binascii.Error, ValueError):
            continue
        yield data.decode("utf-8", "replace")
        yield _AS_HEX + data.hex()
    for run in _HEX.findall(text):
        if len(run) % 2 == 0:
            yield bytes.fromhex(run).decode("utf-8", "replace")
