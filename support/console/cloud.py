"""What the console's container in Google Cloud is given besides the connection: who is let in, and as what."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Final, Self

from contract.errors import AuditError
from support.console.groups import Groups
from support.console.identity import Access, IdentityAwareProxy

IN_ENVIRONMENT: Final = "AUDIT_CONSOLE_JSON"
_MEMBERS: Final = ("agents", "leads", "personalDataReaders")


class CloudSettingsError(AuditError, ValueError):
    """What the container is given cannot be read; the message has the rule."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class CloudSettings:
    """`audience`: for whom the proxy signs. The lists have members as IAM writes them: user:, group:.

    `card_tokens`: the token service's address; empty: the console reads the masking key itself.
    """

    audience: str
    card_tokens: str
    agents: tuple[str, ...]
    leads: tuple[str, ...]
    personal_data_readers: tuple[str, ...]

    @classmethod
    def load(cls) -> Self | None:
        """What AUDIT_CONSOLE_JSON holds; None without it: then this is nobody's container. CloudSettingsError."""
        if not (text := os.environ.get(IN_ENVIRONMENT)):
            return None
        try:
            given = json.loads(text)
            lists = {key: _members(given[key]) for key in _MEMBERS}
            audience, card_tokens = given["audience"], given["cardTokens"]
        except (ValueError, LookupError, TypeError, AttributeError):
            lists, audience, card_tokens = {}, "", ""
        if not (isinstance(audience, str) and audience and isinstance(card_tokens, str)):
            raise CloudSettingsError(
                f"{IN_ENVIRONMENT} must be a JSON object with an audience, cardTokens, and {', '.join(_MEMBERS)} as "
                "lists of members. The stack's program writes it (components/console.py): run `pulumi up`."
            )
        return cls(
            audience=audience,
            card_tokens=card_tokens,
            agents=lists["agents"],
            leads=lists["leads"],
            personal_data_readers=lists["personalDataReaders"],
        )

    def identity(self) -> IdentityAwareProxy:
        """Who the proxy lets in, with the roles that these lists give."""
        access = Access(
            agents=self.agents,
            leads=self.leads,
            personal_data_readers=self.personal_data_readers,
            groups=Groups(),
        )
        return IdentityAwareProxy(audience=self.audience, access=access)


def _members(given: Any) -> tuple[str, ...]:
    if not (isinstance(given, list) and all(isinstance(each, str) for each in given)):
        raise TypeError
    return tuple(given)
