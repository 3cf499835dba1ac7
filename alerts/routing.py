"""Who is notified of an alert. A stack's config says it in lines such as `page=projects/p/notificationChannels/1`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from alerts.catalog import Alert

_TARGET: Final = r"[^@\s=]+@[^@\s=]+|projects/[^/\s]+/notificationChannels/\d+"
ROUTE: Final = rf"(page|ticket)(/(platform|payments|security))?=({_TARGET})"
RULE: Final = (
    "severity[/team]=target lines, severity page or ticket, team platform, payments or security, target an e-mail "
    "address or projects/<project>/notificationChannels/<number>"
)


@dataclass(frozen=True, kw_only=True)
class Route:
    """Without a team it is for every team that has no route itself."""

    severity: str
    team: str | None
    target: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads one line. Raises ValueError with the rule."""
        match = re.fullmatch(ROUTE, text)
        if match is None:
            raise ValueError(f"notifications must be {RULE}, got {text!r}. Set it in Pulumi.<stack>.yaml.")
        return cls(severity=match[1], team=match[3], target=match[4])

    @property
    def is_email(self) -> bool:
        return "@" in self.target


def targets(alert: Alert, routes: Iterable[Route], severity: str = "") -> tuple[str, ...]:
    """Who is notified of the alert: its team, or else the recipients of all alerts of its (or the given) severity."""
    heard = [route for route in routes if route.severity == (severity or alert.severity)]
    own = [route.target for route in heard if route.team == alert.team]
    return tuple(own or (route.target for route in heard if route.team is None))
