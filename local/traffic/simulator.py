"""A payment company in small: customers who pay, services that move payments on, and what goes wrong. No I/O.

Everything comes from the seed, but the times, which come from a clock: the operations of a seed are the same in every
run, so `cards_made` can name every card number in them. An operation is one commit; lifecycles run interleaved.
"""

from __future__ import annotations

import heapq
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, Literal

import orjson

from contract.changes import ModType
from local.traffic import sample_data
from local.traffic.sample_data import Customer

COMMIT_TIMESTAMP: Final = "spanner.commit_timestamp()"

MutationKind = Literal["insert", "update", "insert_or_update", "delete"]
Clock = Callable[[], datetime]

# The shipped tables: what the simulator makes is in their columns. `shape.py` fits it into others.
PAYMENT_TABLE: Final = "payment_audit_trail"
AUDIT_LOG_TABLE: Final = "audit_logs"

# Shares of all payments, or of their steps.
_STUCK: Final = 0.02
_MALFORMED: Final = 0.06
_CARD_AS_CUSTOMER: Final = 0.004
_DELETED: Final = 0.03
_AUDITED: Final = 0.3

# Status, action, service: the ways a payment goes. The first step is the INSERT.
_Step = tuple[str, str, str]
_START: Final[_Step] = ("INITIATED", "PAYMENT_INITIATED", "checkout")
_CARD: Final[tuple[_Step, ...]] = (
    _START,
    ("AUTHORIZED", "CARD_AUTHORIZED", "card-gateway"),
    ("CAPTURED", "PAYMENT_CAPTURED", "payments-api"),
    ("SETTLED", "PAYMENT_SETTLED", "settlement"),
)
_DECLINED: Final[_Step] = ("DECLINED", "CARD_DECLINED", "card-gateway")
_RETRY: Final[_Step] = ("RETRYING", "PAYMENT_RETRIED", "retry-scheduler")
_REFUND: Final[_Step] = ("REFUNDED", "PAYMENT_REFUNDED", "refunds")
_BANK: Final[tuple[_Step, ...]] = (
    _START,
    ("PENDING", "TRANSFER_REQUESTED", "bank-connector"),
    ("SETTLED", "TRANSFER_RECEIVED", "settlement"),
)
_FAILED: Final[_Step] = ("FAILED", "TRANSFER_REJECTED", "bank-connector")
_EXPIRED: Final[_Step] = ("EXPIRED", "PAYMENT_EXPIRED", "payments-api")
_CANCELLED: Final[_Step] = ("CANCELLED", "PAYMENT_CANCELLED", "checkout")


# In Spanner's JSON encoding.
Value = str | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A write of one row. `values` are in Spanner's JSON encoding, key included; of a delete, the key alone.

    `mod_type` is what the change stream reports, `status` the row's Status afterwards. A `dead_letter` has a card
    number where none may be and must never reach BigQuery.
    """

    table: str
    kind: MutationKind
    values: Mapping[str, Value]
    mod_type: ModType
    dead_letter: bool = False
    # The columns that have the payment's id and its status.
    key: str = "PUID"
    status_column: str | None = "Status"

    @property
    def puid(self) -> str:
        return str(self.values[self.key])

    @property
    def status(self) -> str | None:
        status = self.values.get(self.status_column) if self.status_column else None
        return None if status is None else str(status)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One commit: the payment's change and, for some, the audit log's beside it. `number` counts from 0."""

    number: int
    mutations: tuple[Mutation, ...]


@dataclass
class _Payment:
    """A payment on its way. `steps` are those to come."""

    puid: str
    customer: Customer
    method: str
    card: str | None
    amount: str
    steps: list[_Step]
    malformed: str | None = None
    hidden_card: str = ""
    customer_id: str = ""
    retries: int = 0
    audited: bool = False
    deleted_at_end: bool = False
    order: str = ""
    trace: str = ""
    channel: str = ""
    merchant: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)


class Simulator:
    """An endless iterator of operations. `clock` gives the times that services write; by default a clock of the
    simulator.

    `no_dead_letters` leaves out what must become dead letters: card numbers as identifiers.
    """

    def __init__(self, seed: int, *, clock: Clock | None = None, no_dead_letters: bool = False) -> None:
        self._no_dead_letters = no_dead_letters
        self._random = random.Random(f"payments {seed}")
        self._clock = clock or _steady_clock()
        self._cards = sample_data.Cards(self._random)
        self._customers = sample_data.customers(self._random, self._cards)
        self._due: list[tuple[int, int, _Payment]] = []
        self._number = 0

    @property
    def cards(self) -> frozenset[str]:
        """Every card number made so far, used or not; digits only."""
        return frozenset(self._cards.made)

    def __iter__(self) -> Iterator[Operation]:
        return self

    def __next__(self) -> Operation:
        number = self._number
        self._number += 1
        payment = heapq.heappop(self._due)[2] if self._due and self._due[0][0] <= number else self._new_payment()
        mutations = tuple(self._advance(payment) if payment.steps else self._delete(payment))
        if payment.steps or payment.deleted_at_end:
            self._schedule(payment)
        return Operation(number=number, mutations=mutations)

    def _schedule(self, payment: _Payment) -> None:
        if not payment.steps and payment.deleted_at_end:
            wait = self._random.randint(50, 400)
        else:
            wait = int(self._random.lognormvariate(3, 1)) + 2
        heapq.heappush(self._due, (self._number + wait, self._number, payment))

    def _new_payment(self) -> _Payment:
        draw = self._random
        customer = draw.choice(self._customers)
        method = draw.choices(sample_data.METHODS, sample_data.METHOD_WEIGHTS)[0]
        channel = draw.choice(list(sample_data.DEVICES))
        payment = _Payment(
            puid=str(uuid.UUID(int=draw.getrandbits(128), version=4)),
            customer=customer,
            method=method,
            card=draw.choice(customer.cards) if method in ("CARD", "WALLET") else None,
            amount=sample_data.amount(draw, customer.currency),
            steps=self._way(method),
            customer_id=customer.id,
            deleted_at_end=draw.random() < _DELETED,
            order=f"ord_{draw.randrange(10**8):08d}",
            trace=f"{draw.getrandbits(128):032x}",
            channel=channel,
            merchant=draw.choice(sample_data.MERCHANTS),
            device=draw.choice(sample_data.DEVICES[channel]),
        )
        if draw.random() < _STUCK:
            payment.steps = payment.steps[: draw.randint(1, len(payment.steps) - 1)]
            payment.deleted_at_end = False
        if draw.random() < _MALFORMED:
            payment.malformed = draw.choice(sample_data.MALFORMED)
            payment.hidden_card = payment.card or self._cards.number(draw)
        if draw.random() < _CARD_AS_CUSTOMER and not self._no_dead_letters:
            payment.customer_id = self._cards.number(draw)
        return payment

    def _way(self, method: str) -> list[_Step]:
        """The steps that the payment will take, if it is not stuck before."""
        draw = self._random
        if draw.random() < 0.04:
            return [_START, draw.choice((_EXPIRED, _CANCELLED))]
        if method in ("BANK_TRANSFER", "DIRECT_DEBIT"):
            return list(_BANK) if draw.random() < 0.9 else [*_BANK[:2], _FAILED]
        steps = list(_CARD)
        while draw.random() < 0.12:
            steps[1:1] = [_DECLINED, _RETRY]
        if draw.random() < 0.04:
            steps = [_START, _DECLINED]
        elif draw.random() < 0.07:
            steps.append(_REFUND)
        return steps

    def _advance(self, payment: _Payment) -> Iterator[Mutation]:
        status, action, service = payment.steps.pop(0)
        payment.retries += status == "RETRYING"
        now = _text(self._clock())
        first = status == "INITIATED"
        common: dict[str, str | None] = {
            "PUID": payment.puid,
            "Action": action,
            "Timestamp": now,
            "Status": self._odd_status(payment) if payment.malformed == "status" and not first else status,
            "ServiceName": service,
            "Metadata": self._metadata(payment, service),
            "RetryCount": str(payment.retries),
            "ErrorDetails": self._error(payment, status),
        }
        values = common | {"UpdatedAt": COMMIT_TIMESTAMP}
        if first:
            values |= self._born(payment, now)
        yield Mutation(
            table=PAYMENT_TABLE,
            kind="insert" if first else "update",
            values=values,
            mod_type="INSERT" if first else "UPDATE",
            dead_letter=payment.customer_id != payment.customer.id,
        )
        yield from self._audit(payment, common)

    def _born(self, payment: _Payment, now: str) -> dict[str, str | None]:
        customer = payment.customer
        month, year = self._random.randint(1, 12), self._random.randint(2027, 2031)
        return {
            "CustomerId": payment.customer_id,
            "UserId": customer.user,
            "Region": customer.region,
            "Amount": payment.amount,
            "Currency": customer.currency,
            "PaymentMethod": payment.method,
            "CardNumber": payment.card,
            "CardholderName": customer.name if payment.card else None,
            "CardExpiry": f"{month:02d}/{year}" if payment.card else None,
            "CreatedAt": now,
        }

    def _delete(self, payment: _Payment) -> Iterator[Mutation]:
        payment.deleted_at_end = False
        yield Mutation(
            table=PAYMENT_TABLE,
            kind="delete",
            values={"PUID": payment.puid},
            mod_type="DELETE",
            dead_letter=payment.customer_id != payment.customer.id,
        )
        log: dict[str, str | None] = {
            "PUID": payment.puid,
            "Action": "PAYMENT_DELETED",
            "Timestamp": _text(self._clock()),
            "Status": None,
            "ServiceName": "retention",
            "Metadata": _json({"customerId": payment.customer.id, "actingUser": "retention-job"}),
            "RetryCount": "0",
            "ErrorDetails": None,
        }
        yield from self._audit(payment, log)

    def _audit(self, payment: _Payment, values: dict[str, str | None]) -> Iterator[Mutation]:
        """The audit log's row beside the payment's, in a share of the commits."""
        if self._random.random() >= _AUDITED:
            return
        yield Mutation(
            table=AUDIT_LOG_TABLE,
            kind="insert_or_update",
            values=values,
            mod_type="UPDATE" if payment.audited else "INSERT",
        )
        payment.audited = True

    def _odd_status(self, payment: _Payment) -> str:
        return self._random.choice(("ON_HOLD", "MANUAL_REVIEW", "???"))

    def _metadata(self, payment: _Payment, service: str) -> str | None:
        draw = self._random
        if payment.malformed == "odd_json":
            return draw.choice(sample_data.ODD_METADATA)
        members: dict[str, Any] = {
            "customerId": payment.customer.id,
            "actingUser": draw.choice((payment.customer.user, f"svc-{service}")),
            "orderId": payment.order,
            "requestId": str(uuid.UUID(int=draw.getrandbits(128), version=4)),
            "traceId": payment.trace,
            "channel": payment.channel,
            "device": payment.device,
            "merchant": payment.merchant,
            "riskScore": round(draw.random(), 4),
        }
        card = payment.hidden_card
        if payment.malformed == "json_name":
            members["limits"] = {card: {"daily": 500}}
        elif payment.malformed == "json_value":
            members["note"] = f"customer read out {sample_data.written(draw, card)}, called back"
            members["cvv"] = f"{draw.randrange(1000):03d}"
        elif payment.malformed == "json_number":
            members["legacy"] = {"account": int(card), "seen": [True, None]}
        return _json(members)

    def _error(self, payment: _Payment, status: str) -> str | None:
        if payment.malformed == "error_text":
            return (
                f"Gateway refused PAN {sample_data.written(self._random, payment.hidden_card)} (code 05), do not retry"
            )
        return self._random.choice(sample_data.ERRORS) if status in ("DECLINED", "FAILED") else None


def cards_made(seed: int, operations: int) -> frozenset[str]:
    """Every card number in the first operations of a seed; digits only. `spellings` gives how each is written."""
    simulator = Simulator(seed)
    for _ in islice(simulator, operations):
        pass
    return simulator.cards


def _steady_clock() -> Clock:
    """A clock that advances by a millisecond per call, the same in every run."""
    moments = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=i) for i in range(10**12))
    return lambda: next(moments)


def _text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
