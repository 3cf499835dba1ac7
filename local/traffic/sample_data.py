"""Who and what plays in the simulator: customers with their cards, merchants, devices, errors. All of it is made up."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

CUSTOMERS: Final = 300

# fmt: off
_FIRST: Final = (
    "Amara", "Björn", "Chloé", "Dmitri", "Elena", "Farid", "Grace", "Hiroshi", "Inês", "Jamal", "Katarzyna", "Liam",
    "Mei", "Nadia", "Omar",
)
_LAST: Final = (
    "Okafor", "Lindqvist", "Moreau", "Petrov", "García", "Haddad", "Kim", "Tanaka", "Silva", "Novak", "O'Brien", "Wang",
    "Rossi", "Schulz",
)
# fmt: on

# Region → currency, and the share of customers there.
_REGIONS: Final = {
    "us-central1": ("USD", 30),
    "europe-west1": ("EUR", 26),
    "europe-west2": ("GBP", 14),
    "asia-northeast1": ("JPY", 10),
    "asia-south1": ("INR", 10),
    "southamerica-east1": ("BRL", 7),
    "me-central1": ("KWD", 3),
}
# Currency → a usual amount, and its decimals.
_AMOUNTS: Final = {
    "USD": (42, 2),
    "EUR": (38, 2),
    "GBP": (33, 2),
    "JPY": (5200, 0),
    "INR": (1900, 2),
    "BRL": (160, 2),
    "KWD": (11, 3),
}

METHODS: Final = ("CARD", "WALLET", "BANK_TRANSFER", "DIRECT_DEBIT", "PAY_LATER")
METHOD_WEIGHTS: Final = (55, 20, 14, 6, 5)
# Where payments are made, and on what.
DEVICES: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "web": ({"os": "Windows 11", "browser": "Firefox 132"}, {"os": "macOS 15", "browser": "Safari 18"}),
    "mobile-app": ({"os": "iOS 18.2", "model": "iPhone 15"}, {"os": "Android 15", "model": "Pixel 9"}),
    "point-of-sale": ({"os": "POS 4", "terminal": "T-118"},),
    "recurring": ({"scheduler": "subscriptions"},),
}
MERCHANTS: Final[tuple[dict[str, Any], ...]] = (
    {"id": "m_1042", "title": "Café Aurora", "mcc": "5814"},
    {"id": "m_2210", "title": "Nordlys Books", "mcc": "5942"},
    {"id": "m_3077", "title": "Kisetsu Garden", "mcc": "5261"},
    {"id": "m_4519", "title": "Volta Mobility", "mcc": "4121"},
    {"id": "m_5836", "title": "Atlas Air", "mcc": "4511"},
)
ERRORS: Final = (
    "05: do not honor",
    "51: insufficient funds",
    "54: expired card",
    "91: issuer or switch inoperative",
    "Upstream timed out after 30 s",
)
ODD_METADATA: Final = (
    '["retry", 2, null]',
    '"see ticket"',
    "42",
    "null",
    '{"customerId": {"a": [1, {"b": []}]}}',
)
# What can be odd about a payment; `error_text` and the json ones carry a card number where none belongs.
MALFORMED: Final = ("status", "odd_json", "error_text", "error_text", "json_name", "json_value", "json_number")

# Prefix and length of card numbers.
_BRANDS: Final = (
    ("4", 16),
    ("4", 16),
    ("51", 16),
    ("55", 16),
    ("2221", 16),
    ("34", 15),
    ("37", 15),
    ("6011", 16),
    ("36", 14),
    ("3528", 16),
    ("62", 16),
    ("6304", 18),
)
_FULL_WIDTH: Final = str.maketrans("0123456789", "０１２３４５６７８９")


@dataclass(frozen=True, kw_only=True)
class Customer:
    """Someone who pays, always in the same region and currency."""

    id: str
    name: str
    user: str
    region: str
    currency: str
    cards: tuple[str, ...]


class Cards:
    """Makes valid card numbers and remembers them."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self.made: set[str] = set()

    def number(self, draw: random.Random) -> str:
        """A new card number of some brand, digits only."""
        prefix, length = draw.choice(_BRANDS)
        body = prefix + "".join(str(draw.randrange(10)) for _ in range(length - len(prefix) - 1))
        number = body + _check_digit(body)
        self.made.add(number)
        return number


def _check_digit(body: str) -> str:
    total = sum(sum(divmod(2 * int(d), 10)) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(body)))
    return str(-total % 10)


def customers(draw: random.Random, cards: Cards) -> tuple[Customer, ...]:
    """The customers of a seed."""
    regions = draw.choices(list(_REGIONS), [weight for _, weight in _REGIONS.values()], k=CUSTOMERS)
    return tuple(
        Customer(
            id=f"cus_{i:05d}",
            name=f"{draw.choice(_FIRST)} {draw.choice(_LAST)}",
            user=f"user-{i:05d}",
            region=region,
            currency=_REGIONS[region][0],
            cards=tuple(cards.number(draw) for _ in range(draw.randint(1, 3))),
        )
        for i, region in enumerate(regions)
    )


def amount(draw: random.Random, currency: str) -> str:
    """An amount as NUMERIC text: most are small, a few large."""
    usual, decimals = _AMOUNTS[currency]
    return f"{usual * draw.lognormvariate(0, 1):.{decimals}f}"


def spellings(number: str) -> tuple[str, ...]:
    """Every way in which the simulator writes a card number."""
    groups = [number[i : i + 4] for i in range(0, len(number), 4)]
    return (
        number,
        " ".join(groups),
        "-".join(groups),
        ".".join(groups),
        "\u00a0".join(groups),
        " ".join(number),
        number.translate(_FULL_WIDTH),
    )


def written(draw: random.Random, number: str) -> str:
    """A card number as a person or a program writes it."""
    return draw.choice(spellings(number))
