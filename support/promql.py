"""Questions in PromQL: to the Prometheus of the local stack, or to Cloud Monitoring, which answers the same API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from alerts.catalog import alerts
from alerts.thresholds import Thresholds, Watched
from contract.errors import AuditError
from contract.metrics import of_stack
from support.connection import Connection

_GOOGLE: Final = "https://monitoring.googleapis.com/v1/projects/{project}/location/global/prometheus"
# Its PromQL has no alerts: https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.alerts/list.
_INCIDENTS: Final = "https://monitoring.googleapis.com/v3/projects/{project}/alerts"
_SERVICE: Final = "payment-audit"
_SCOPE: Final = "https://www.googleapis.com/auth/monitoring.read"
_SECONDS: Final = 30


class MonitoringError(AuditError):
    """There is nobody to ask, or no answer; the message says the remedy."""


@dataclass(frozen=True, kw_only=True)
class Firing:
    """An alert that fires. `name` is that of its runbook, `since` RFC 3339."""

    name: str
    severity: str
    title: str
    since: str


class Prometheus:
    """Where a stack's series and alerts are queried."""

    def __init__(self, connection: Connection) -> None:
        self._url = connection.prometheus_endpoint
        self._session: Any = None
        if not self._url and connection.local:
            raise MonitoringError(
                "the local stack runs without monitoring. Start it with `audit local up --monitoring`, or pass the "
                "--connection of a stack in the cloud."
            )
        self._google = not self._url
        self._project, self._prefix = connection.project, connection.prefix
        if self._google:
            self._url = _GOOGLE.format(project=self._project)

    def value(self, expression: str, at: datetime | None = None) -> float | None:
        """The one value of an expression, now or at a time; None where there is none or where it is not a number.

        Raises MonitoringError.
        """
        parameters = {"query": of_stack(self._prefix, expression)} | ({"time": f"{at.timestamp():.3f}"} if at else {})
        found = self._get("/api/v1/query", parameters)["result"]
        value = float(found[0]["value"][1]) if found else None
        return None if value is None or not isfinite(value) else value

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing, as Prometheus reports them. Raises MonitoringError."""
        found: list[dict[str, Any]] = self._get("/api/v1/alerts", {})["alerts"]
        return found

    def firing(self) -> tuple[Firing, ...]:
        """The stack's alerts that fire, the pages first: Prometheus' own, or Cloud Monitoring's open incidents.

        Raises MonitoringError.
        """
        found = self._incidents() if self._google else map(_of_prometheus, self.alerts())
        return tuple(sorted(filter(None, found), key=lambda alert: (alert.severity != "page", alert.name)))

    def _incidents(self) -> Iterator[Firing | None]:
        url = _INCIDENTS.format(project=self._project)
        titles = {alert.name: alert.title for alert in alerts(Thresholds(), Watched())}
        page = ""
        while True:
            parameters = {"filter": 'state="OPEN"', "pageSize": "1000"} | ({"pageToken": page} if page else {})
            found = self._ask(f"{url}?{urlencode(parameters)}")
            if "error" in found:
                raise MonitoringError(f"{url} refuses the question: {found['error'].get('message', '')}")
            yield from (_of_google(incident, titles, self._prefix) for incident in found.get("alerts", []))
            page = found.get("nextPageToken", "")
            if not page:
                return

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
        answer = self._ask(f"{self._url}{path}?{urlencode(parameters)}")
        if answer.get("status") != "success":
            raise MonitoringError(f"{self._url} refuses the question: {answer.get('error', answer)}.")
        return answer["data"]

    def _ask(self, url: str) -> Any:
        from google.auth.exceptions import GoogleAuthError

        try:
            return self._from_google(url) if self._google else _from_here(url)
        except (URLError, OSError, ValueError, GoogleAuthError) as error:
            where = "Cloud Monitoring" if self._google else "Prometheus"
            way = "the roles of who asks (roles/monitoring.viewer)" if self._google else "`audit local status`"
            raise MonitoringError(f"{where} does not answer ({type(error).__name__}). Look at {way}.") from error

    def _from_google(self, url: str) -> Any:
        if self._session is None:
            import google.auth
            from google.auth.transport.requests import AuthorizedSession

            credentials, _ = google.auth.default(scopes=[_SCOPE])
            self._session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        return self._session.get(url, timeout=_SECONDS).json()


def _of_prometheus(alert: dict[str, Any]) -> Firing | None:
    if alert["state"] != "firing":
        return None
    labels, said = alert["labels"], alert.get("annotations", {})
    return Firing(
        name=labels["alertname"],
        severity=labels.get("severity", ""),
        title=said.get("title", ""),
        since=alert["activeAt"],
    )


def _of_google(incident: dict[str, Any], titles: Mapping[str, str], prefix: str) -> Firing | None:
    """None for the incident of another service's policy in the project, or of another stack's."""
    policy, labels = incident["policy"], incident.get("metric", {}).get("labels", {})
    ours = policy.get("userLabels", {})
    if ours.get("service") != _SERVICE or ours.get("prefix", "") != prefix:
        return None
    name = policy["displayName"]
    title = re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], "…"), titles.get(name, ""))
    return Firing(name=name, severity=ours.get("severity", ""), title=title, since=incident["openTime"])


def _micros(moment: str) -> str:
    """RFC 3339 without what is finer than a microsecond."""
    return re.sub(r"(\.\d{6})\d+", r"\1", moment)


def _from_here(url: str) -> Any:
    with urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - the local stack's own address
        return json.load(answer)
