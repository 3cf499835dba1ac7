"""The access log: who asked the console for what, when and why. What cannot be logged is not shown."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from contract import tables
from pipeline.transforms.cards import hide_cards
from support.console.identity import ROLES, Viewer
from support.warehouse import Warehouse


@dataclass(frozen=True, kw_only=True)
class Access:
    """One access. `subject` has ids and filters, never a card's number nor its token."""

    viewer: Viewer
    action: str
    subject: Mapping[str, Any]
    reason: str = ""


def write(warehouse: Warehouse, access: Access) -> None:
    """Appends an access to the log. Raises WarehouseError."""
    identifier = uuid.uuid4().hex
    subject = json.dumps({key: value for key, value in access.subject.items() if value}, default=str)
    row = {
        "at": datetime.now(UTC).isoformat(),
        "viewer": access.viewer.email,
        "roles": [role for role in ROLES if access.viewer.may(role)],
        "action": access.action,
        # What requests refuse is hidden here too: the log is kept.
        "subject": hide_cards(subject, set()),
        "reason": hide_cards(access.reason, set()) or None,
        "request_id": identifier,
    }
    warehouse.append(tables.access_log(warehouse.connection.watched).id, {identifier: row})
