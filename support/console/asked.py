"""What a person types, as a search: filters of a page's address, and the one box that takes anything."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from contract.errors import AuditError
from pipeline.transforms.cards import card_tokens, digits_of, find_cards
from pipeline.transforms.cards import is_card as is_number_of_card
from pipeline.transforms.keys import MaskingKeys
from support.connection import Connection
from support.search import MAX_LIMIT, Search

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_AGO: Final = re.compile(r"(\d{1,6})([mhd])")
LONGEST: Final = 200
# Of a card: 12 to 19 digits, as people type them.
_DIGITS: Final = re.compile(r"\d([ -]?\d){11,18}")


class AskedError(AuditError, ValueError):
    """A filter cannot be read; the message has the rule."""

    exit_code = 2


_TIME: Final = "a UTC time, or so long ago: 15m, 2h, 7d"
Puid = Annotated[str, Field(description="Payment id.")]
Customer = Annotated[str, Field(description="Customer id.")]
Since = Annotated[str, Field(description=f"At or after: {_TIME}.")]
Until = Annotated[str, Field(description=f"Before: {_TIME}.")]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Most of them to return.")]


class Filters(BaseModel):
    """The filters of a search as an address or a form has them. None of them is ever a card's number."""

    model_config = ConfigDict(frozen=True)

    puid: Puid = ""
    customer: Customer = ""
    last_four: Annotated[str, Field(description="Last four digits of the card that the payment has now.")] = ""
    state: Annotated[str, Field(description="Payment state: initiated, processed or failed.")] = ""
    status: Annotated[str, Field(description="Status as the services write it, such as PENDING.")] = ""
    since: Since = ""
    until: Until = ""
    limit: Limit = 50

    def search(self) -> Search:
        """The search. Raises AskedError, SearchError."""
        if any(len(str(value)) > LONGEST for value in vars(self).values()):
            raise AskedError(f"a filter must be at most {LONGEST} characters long. Shorten it.")
        refuse_cards(self.puid, self.customer, self.state, self.status)
        return Search(
            puid=self.puid.strip() or None,
            customer_id=self.customer.strip() or None,
            last_four=self.last_four.strip() or None,
            state=self.state or None,
            status=self.status.strip() or None,
            since=moment(self.since, "since"),
            until=moment(self.until, "until"),
            limit=self.limit,
        )

    def given(self) -> dict[str, Any]:
        """Those that are given, for links and for the log."""
        return {name: value for name, value in vars(self).items() if value and (name, value) != ("limit", 50)}


def moment(text: str, name: str) -> datetime | None:
    """A time: RFC 3339, a date, or so long ago (15m, 2h, 7d). None for nothing. Raises AskedError."""
    text = text.strip()
    if not text:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise AskedError(
            f"{name} must be a time: 2026-11-23, 2026-11-23T09:00Z, or so long ago: 15m, 2h, 7d."
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def is_card(text: str) -> bool:
    """Whether a text is a card's number and nothing else, with the blanks that people type."""
    return not re.search(r"[^\d\s-]", text) and is_number_of_card(digits_of(text))


def may_be_card(text: str) -> bool:
    """Whether a text is as many digits as a card has, and nothing else but blanks and dashes, valid or not."""
    return bool(_DIGITS.fullmatch(text.strip()))


def refuse_cards(*texts: str) -> None:
    """Raises AskedError where a text holds a card's number, as masking would find it: it is not repeated."""
    if any(is_card(text) or find_cards(text) for text in texts):
        raise AskedError(
            "a card's number must not be in an address, a filter or a reason, which are kept. Type it into the box."
        )


def tokens(connection: Connection, number: str) -> tuple[str, ...]:
    """A card's tokens, one for each version of the masking key. Raises AuditError, which does not repeat the number."""
    return tuple(card_tokens(re.sub(r"[ -]", "", number.strip()), MaskingKeys.load(connection.masking_keys)))
