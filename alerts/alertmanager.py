"""Alertmanager's config from the same routes that Cloud Monitoring's policies get. A receiver is called as its target.

    severity ─► the team's own targets, if it has any ─► else those of every team

Receivers have no integration: on one machine nobody is notified, and Alertmanager shows who would be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from alerts.routing import Route

NOBODY: Final = "nobody"


def config(routes: Iterable[Route]) -> dict[str, Any]:
    """The file's content, as Alertmanager 0.25 and later take it."""
    routes = list(routes)
    severities = dict.fromkeys(route.severity for route in routes)
    return {
        "route": {
            "receiver": NOBODY,
            "group_by": ["alertname"],
            "group_wait": "0s",
            "routes": [
                {"matchers": [f'severity="{severity}"'], "routes": _of_severity(severity, routes)}
                for severity in severities
            ],
        },
        "receivers": [{"name": name} for name in dict.fromkeys([NOBODY, *(route.target for route in routes)])],
    }


def _of_severity(severity: str, routes: Sequence[Route]) -> list[dict[str, Any]]:
    heard = [route for route in routes if route.severity == severity]
    teams = dict.fromkeys(route.team for route in heard if route.team)
    own = [
        {"matchers": [f'team="{team}"'], "routes": _all(route.target for route in heard if route.team == team)}
        for team in teams
    ]
    return own + _all(route.target for route in heard if route.team is None)


def _all(targets: Iterable[str]) -> list[dict[str, Any]]:
    """Each of them is notified, not only the first that matches."""
    return [{"receiver": target, "continue": True} for target in targets]
