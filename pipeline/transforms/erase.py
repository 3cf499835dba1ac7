"""Erasure: what is personal is taken out of the changes of customers who were erased, and of their payments.

Who they are is known by keyed tokens alone (`erased` in the metadata database). Pure functions; how the tokens are read
is in pipeline/transforms/erased.py, what is done to rows that are in BigQuery already in support/erasure/.
"""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache
from typing import Final

from contract.changes import Change
from contract.tables import TOKEN_SUFFIX
from contract.watched import WatchedTable
from pipeline.transforms.enrich import customers
from pipeline.transforms.keys import MaskingKeyError, MaskingKeys

CUSTOMER: Final = "erased-customer"
PAYMENT: Final = "erased-payment"
_REMEMBERED: Final = 100_000


def is_erased_with_customer(table: WatchedTable, name: str) -> bool:
    """Whether a source column, or its token, is taken out: what is personal, and what is left of a card."""
    own = name.removesuffix(TOKEN_SUFFIX) if name.endswith(TOKEN_SUFFIX) else name
    return any(table.is_personal(each) or table.policy_of(each) in ("card", "token") for each in (name, own))


class Erased:
    """The customers and payments that were erased. Raises MaskingKeyError where a token is of a key that is gone."""

    def __init__(self, tokens: Set[str], keys: MaskingKeys) -> None:
        if missing := sorted({token.partition(":")[0] for token in tokens} - keys.keys.keys()):
            raise MaskingKeyError(
                f"masking key {', '.join(missing)} must stay enabled: customers who were erased are known by tokens of "
                "it alone. Enable that version of the secret again."
            )
        self._tokens, self._keys = tokens, keys
        self._is_erased = lru_cache(_REMEMBERED)(self._look)

    def redact(self, change: Change, table: WatchedTable) -> bool:
        """Takes what is personal out of a masked change of an erased customer or payment, in place.

        False where nothing of it may be kept: it is of a table that says no payment, so it is about the customer.
        """
        if not self._tokens or not self._concerns(change, table):
            return True
        for row in (change.keys, change.new):
            for name in [name for name in row if is_erased_with_customer(table, name)]:
                row[name] = None
        for name in [name for name in change.old if is_erased_with_customer(table, name)]:
            del change.old[name]
        change.card_tokens = []
        return table.column("payment") is not None

    def has_customer(self, customer: str) -> bool:
        return self._is_erased(CUSTOMER, customer)

    def has_payment(self, payment: str) -> bool:
        return self._is_erased(PAYMENT, payment)

    def _concerns(self, change: Change, table: WatchedTable) -> bool:
        payment = table.payment_in(change.keys, change.new, change.old)
        if payment is not None and self.has_payment(payment):
            return True
        return any(map(self.has_customer, customers(change, table)))

    def _look(self, kind: str, value: str) -> bool:
        return not self._tokens.isdisjoint(self._keys.every_token(kind, value))
