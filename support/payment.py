"""One payment: what it is now, and how it came there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from support.search import Payment, Search, search
from support.timeline import Transition, timeline
from support.warehouse import Warehouse


@dataclass(frozen=True, kw_only=True)
class Story:
    """`payment` is None where there is no such payment. The warehouse is complete up to `complete_until`."""

    payment: Payment | None
    transitions: tuple[Transition, ...]
    complete_until: datetime | None


def story(warehouse: Warehouse, puid: str) -> Story:
    """A payment and its transitions. Raises SearchError, WarehouseError."""
    found = search(warehouse, Search(puid=puid))
    return Story(
        payment=next(iter(found.payments), None),
        transitions=timeline(warehouse, puid).transitions if found.payments else (),
        complete_until=found.complete_until,
    )
