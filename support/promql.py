"""Questions in PromQL: to the Prometheus of the local stack, or to Cloud Monitoring, which answers the same API."""

from __future__ import annotations

import json
import re
from datetime import datetime
from math import isfinite
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from contract.errors import AuditError
from support.connection import Connection

_GOOGLE: Final = "https://monitoring.googleapis.com/v1/projects/{project}/location/global/prometheus"
_SCOPE: Final = "https://www.googleapis.com/auth/monitoring.read"
_SECONDS: Final = 30


class MonitoringError(AuditError):
    """There is nobody to ask, or no answer; the message says the remedy."""


class Prometheus:
    """Where a stack's series and alerts are queried."""

    def __init__(self, connection: Connection) -> None:
        self._url = connection.prometheus_endpoint
        self._session: Any = None
        if not self._url and connection.spanner_endpoint:
            raise MonitoringError(
                "the local stack runs without monitoring. Start it with `audit local up --monitoring`, or pass the "
                "--connection of a stack in the cloud."
            )
        self._google = not self._url
        if self._google:
            self._url = _GOOGLE.format(project=connection.project)

    def value(self, expression: str, at: datetime | None = None) -> float | None:
        """The one value of an expression, now or at a time; None where there is none or where it is not a number.

        Raises MonitoringError.
        """
        parameters = {"query": expression} | ({"time": f"{at.timestamp():.3f}"} if at else {})
        found = self._get("/api/v1/query", parameters)["result"]
        value = float(found[0]["value"][1]) if found else None
        return None if value is None or not isfinite(value) else value

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing, as Prometheus reports them. Raises MonitoringError."""
        found: list[dict[str, Any]] = self._get("/api/v1/alerts", {})["alerts"]
        return found

    def evaluated_since(self, moment: datetime) -> bool:
        """Whether the rules that are looked at most often were, after `moment`. Prometheus only, MonitoringError."""
        groups = self._get("/api/v1/rules", {})["groups"]
        often = min(group["interval"] for group in groups)
        return all(
            datetime.fromisoformat(_micros(group["lastEvaluation"])) > moment
            for group in groups
            if group["interval"] == often
        )

    def _get(self, path: str, parameters: dict[str, str]) -> Any:
        from google.auth.exceptions import GoogleAuthError

        url = f"{self._url}{path}?{urlencode(parameters)}"
        try:
            answer = self._from_google(url) if self._google else _from_here(url)
        except (URLError, OSError, ValueError, GoogleAuthError) as error:
            where = "Cloud Monitoring" if self._google else "Prometheus"
            way = "the roles of who asks (roles/monitoring.viewer)" if self._google else "`audit local status`"
            raise MonitoringError(f"{where} does not answer ({type(error).__name__}). Look at {way}.") from error
        if answer.get("status") != "success":
            raise MonitoringError(f"{self._url} refuses the question: {answer.get('error', answer)}.")
        return answer["data"]

    def _from_google(self, url: str) -> Any:
        if self._session is None:
            import google.auth
            from google.auth.transport.requests import AuthorizedSession

            credentials, _ = google.auth.default(scopes=[_SCOPE])
            self._session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        return self._session.get(url, timeout=_SECONDS).json()


def _micros(moment: str) -> str:
    """RFC 3339 without what is finer than a microsecond."""
    return re.sub(r"(\.\d{6})\d+", r"\1", moment)


def _from_here(url: str) -> Any:
    with urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - the local stack's own address
        return json.load(answer)
