"""The lookup table: on which days something happened to a payment, by what people search: its id, its customer, a card.

A value goes by a key of its kind: what is personal is in no key as text, and a key is of one length. The table is
partitioned by the first bits of the key and clustered by it, so a look-up reads a block, however long the history.
`contract/sql/bigquery/fill_payment_lookup.sql` makes the same keys.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

Kind = Literal["payment", "customer", "last_four", "card"]

BUCKETS: Final = 1024
_HEX_DIGITS: Final = 32


def key(kind: Kind, value: str) -> str:
    """The key of a value: 32 hexadecimal digits."""
    return hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()[:_HEX_DIGITS]


def bucket(lookup_key: str) -> int:
    """The partition of a key: its first ten bits."""
    return int(lookup_key[:3], 16) // 4
