"""Values that payment systems are full of and that are not card data: they must come out byte for byte."""

from __future__ import annotations

import base64
import datetime
import json
import random
import string
import urllib.parse
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.source.records import DataChange
from tests.fuzz.hidden import record


@dataclass(frozen=True)
class Value:
    """A record with a harmless value, and where it is."""

    kind: str
    record: DataChange
    column: str
    value: Any


def value(seed: str) -> Value:
    """The value of a seed: always the same."""
    draw = random.Random(seed)
    kind = draw.choice(list(KINDS))
    made = KINDS[kind](draw)
    if kind in _TYPED:
        column = _TYPED[kind]
        return Value(kind, _new(draw, column, made), column, made)
    text = str(made)
    match draw.choice(["text", "text", "sentence", "json", "json", "array", "identifier"]):
        case "identifier" if len(text) <= 64:
            return Value(kind, _new(draw, "CustomerId", text), "CustomerId", text)
        case "json":
            text = json.dumps(
                {draw.choice(MEMBERS): made, "channel": "web", "n": [1, 2.5, None]}, indent=draw.choice([None, 1])
            )
            return Value(kind, _new(draw, "Metadata", text), "Metadata", text)
        case "array":
            return Value(kind, _new(draw, "Tags", ["first", text]), "Tags", ["first", text])
        case "sentence":
            text = draw.choice(
                ["id {} was seen", "took {} at last", "[{}]", "ref={}; ok", "{} failed", "see {}, then wait"]
            ).format(text)
            return Value(kind, _new(draw, "ErrorDetails", text), "ErrorDetails", text)
    return Value(kind, _new(draw, "ErrorDetails", text), "ErrorDetails", text)


def _new(draw: random.Random, column: str, made: Any) -> DataChange:
    change = record(draw, CustomerId="customer")
    new = {"CustomerId": "customer", column: made}
    return change._replace(mods=(change.mods[0]._replace(new_values=json.dumps(new), old_values="{}"),))


MEMBERS = (
    "traceId", "requestId", "amount", "latitude", "at", "phone", "customerName", "authorName", "pineapple",
    "shippingMethod",
    "company", "panel", "expense", "experience", "spanId", "trackingNumber", "isbn", "url", "version", "sessionExpires",
    "accessTokenExpiresAt", "cid", "merchantId", "pinned", "tracking", "score", "cvvResult", "cardBrand", "hash",
)  # fmt: skip


def _digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choices(string.digits, k=count))


def _moment(draw: random.Random) -> datetime.datetime:
    return datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(
        microseconds=draw.randrange(3 * 10**14)
    )


def _iso(draw: random.Random) -> str:
    moment = _moment(draw)
    return draw.choice(
        [
            moment.isoformat(),
            moment.isoformat(sep=" "),
            moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            moment.strftime("%Y%m%dT%H%M%SZ"),
            moment.strftime("%Y%m%d%H%M%S"),
            moment.strftime("%d.%m.%Y %H:%M:%S"),
            moment.strftime("%a, %d %b %Y %H:%M:%S GMT"),
            f"{moment:%Y-%m-%dT%H:%M:%S}.{draw.randrange(10**9):09d}Z",
        ]
    )


def _epoch(draw: random.Random) -> str:
    return str(draw.randrange(1_577_836_800, 1_893_456_000)) + _digits(draw, draw.choice([0, 3, 6, 9]))


def _phone(draw: random.Random) -> str:
    country, rest = draw.choice(
        [
            ("57", 10),
            ("58", 10),
            ("1", 10),
            ("49", 11),
            ("44", 10),
            ("91", 10),
            ("86", 11),
            ("62", 10),
            ("55", 11),
            ("52", 10),
            ("61", 9),
            ("63", 10),
        ]
    )
    first = {"57": "3", "58": "4", "49": "1" + draw.choice("567"), "63": "9", "86": "1"}.get(
        country, draw.choice("23456789")
    )
    national = first + _digits(draw, rest - len(first))
    form = draw.choice(["+{}{}", "{}{}", "00{}{}", "+{} {}", "+{}-{}", "(+{}) {}"])
    if form in ("+{} {}", "+{}-{}"):
        national = f"{national[:3]} {national[3:6]} {national[6:]}"
    return form.format(country, national)


def _isbn(draw: random.Random) -> str:
    body = draw.choice(["978", "979", "400", "426", "501", "871", "690"]) + _digits(draw, 9)
    check = -sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(body)) % 10
    ean = body + str(check)
    return draw.choice([ean, f"{ean[:3]}-{ean[3]}-{ean[4:8]}-{ean[8:12]}-{ean[12]}"])


def _url(draw: random.Random) -> str:
    path = draw.choice([str(uuid.UUID(int=draw.getrandbits(128))), _base62(draw, 22), _digits(draw, 9)])
    query = urllib.parse.urlencode(
        {"page": draw.randrange(100), "q": "größe & farbe", "next": "/a/b?c=d", "ts": _epoch(draw)[:10]}
    )
    return f"https://api.example.com/v{draw.randrange(1, 9)}/orders/{path}?{query}"


def _base62(draw: random.Random, count: int) -> str:
    return "".join(draw.choices(string.ascii_letters + string.digits, k=count))


def _base64(draw: random.Random) -> str:
    data = draw.randbytes(draw.choice([9, 12, 16, 20, 24, 32, 48, 64]))
    text = draw.choice([base64.b64encode, base64.urlsafe_b64encode])(data).decode()
    return text.rstrip("=") if draw.random() < 0.4 else text


def _coordinates(draw: random.Random) -> str:
    places = draw.choice([4, 6, 7, 15])
    return f"{draw.uniform(-90, 90):.{places}f}{draw.choice([', ', ',', ' '])}{draw.uniform(-180, 180):.{places}f}"


def _expiring(draw: random.Random) -> str:
    moment = _moment(draw)
    return draw.choice(
        [
            json.dumps({"session_expires": moment.isoformat(), "user": "ann"}),
            json.dumps({"accessToken": {"expiresAt": moment.isoformat(), "expires_in": 3600}}),
            json.dumps({"tokenExpiry": int(moment.timestamp())}),
            f"Set-Cookie: sid=abc; Expires={moment:%a, %d %b %Y %H:%M:%S} GMT; Path=/",
            f"session expires={moment:%Y-%m-%dT%H:%M:%SZ}",
            json.dumps({"exp": int(moment.timestamp()), "iat": int(moment.timestamp())}),
        ]
    )


def _names(draw: random.Random) -> str:
    return json.dumps(
        {
            draw.choice(
                ["pineapple", "shipping", "expense", "experience", "panel", "company", "span", "spanKind"]
            ): draw.choice(["12/27", "737", "ANN EXAMPLE", 123, "0427"]),
            draw.choice(
                ["author_name", "customerName", "merchantName", "pinned", "cid", "discard", "opinion"]
            ): draw.choice(["ANN EXAMPLE", "123", True, "JANE DOE"]),
        }
    )


def _words(draw: random.Random) -> str:
    return draw.choice(
        [
            "the card was declined by its issuer: 05",
            "54: expired card",
            "card expired in 2025",
            "CVV check failed",
            "pin tries left: 2",
            "3 of 5 security checks passed in 300 ms",
            "payment-service-europe-west1 took 123 ms",
            "track shipment 1Z999AA10123456784",
            "company 737 shipped pineapple 123 to span 4711",
            "valid until further notice",
            "HTTP 502 after 3 tries, expected 200",
            "exp backoff: 100, 200, 400 ms",
        ]
    )


KINDS: dict[str, Callable[[random.Random], Any]] = {
    "uuid": lambda d: str(uuid.UUID(int=d.getrandbits(128), version=4)),
    "uuid-plain": lambda d: uuid.UUID(int=d.getrandbits(128), version=4).hex,
    "sha": lambda d: f"{d.getrandbits(256):064x}"[: d.choice([32, 40, 64])],
    "trace": lambda d: f"00-{d.getrandbits(128):032x}-{d.getrandbits(64):016x}-01",
    "phone": _phone,
    "base64": _base64,
    "base62": lambda d: _base62(d, d.choice([12, 20, 22, 27])),
    "ulid": lambda d: "01" + "".join(d.choices("0123456789ABCDEFGHJKMNPQRSTVWXYZ", k=24)),
    "amount": lambda d: f"{d.lognormvariate(4, 3):,.{d.choice([0, 2, 3])}f}",
    "coordinates": _coordinates,
    "float": lambda d: d.random() * d.choice([1, 1, 100, 1e6]),
    "iso": _iso,
    "epoch": _epoch,
    "isbn": _isbn,
    "url": _url,
    "ip": lambda d: ".".join(str(d.randrange(256)) for _ in range(4)),
    "version": lambda d: ".".join(str(d.randrange(60)) for _ in range(d.choice([3, 4]))),
    "millis": lambda d: f"{d.uniform(1e3, 1e8):.{d.choice([3, 6, 9])}f} ms",
    "expiring": _expiring,
    "names": _names,
    "words": _words,
    "integer": lambda d: str(d.randrange(10**11)),
    "numeric": lambda d: f"{d.randrange(10**9)}.{_digits(d, 9)}",
    "double": lambda d: d.gauss(0, 1000),
    "bytes": lambda d: base64.b64encode(d.randbytes(d.choice([16, 32, 64, 200]))).decode(),
    "numbers": lambda d: [str(d.randrange(10**6)) for _ in range(d.choice([2, 5, 12]))],
}
_TYPED = {"integer": "Total", "numeric": "Exact", "double": "Ratio", "bytes": "Raw", "numbers": "Counts"}

# At most this many of a million values of all kinds may come out changed. Each could be a card number or what hides
# one: digits of an id that are 16 in a row with a brand's first ones and a right check digit, or bytes that decode to
# them.
MOST_CHANGED_A_MILLION = 300
