"""Asks Google's REST APIs, and changes nothing there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from contract.errors import AuditError

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_SECONDS: Final = 15
_NOT_FOUND: Final = 404
LOOPBACK: Final = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\]):\d+")


class NotSeen(AuditError):
    """Google did not answer the question; the message says why. `repair` is what lets it be asked again."""

    def __init__(self, why: str, repair: str = "", status: int = 0) -> None:
        super().__init__(why)
        self.repair, self.status = repair, status


@dataclass(frozen=True, kw_only=True)
class Google:
    """Google's APIs. With `endpoint`, an address of this machine, each API is under its own name there."""

    endpoint: str = ""
    # Hosts that did not answer once: a perimeter lets some through and not others, and each look would wait in vain.
    _silent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.endpoint and not LOOPBACK.fullmatch(self.endpoint):
            raise NotSeen(f"an endpoint without TLS must be on this machine, got {self.endpoint!r}. Leave it out.")

    def get(self, url: str, **parameters: Any) -> dict[str, Any] | None:
        """What is there, or None where there is nothing. `url` begins with the API's host. Raises NotSeen."""
        return self._ask("GET", url, params=parameters)

    def post(self, url: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """As `get`, for questions that take a body."""
        return self._ask("POST", url, json=body)

    def delete(self, url: str) -> None:
        """Ends what a question began. Raises NotSeen."""
        self._ask("DELETE", url)

    @property
    def account(self) -> str:
        """The account that asks; empty where the credentials do not say."""
        return str(getattr(getattr(self._session, "credentials", None), "service_account_email", "") or "")

    @cached_property
    def _session(self) -> Any:
        from google.auth.exceptions import GoogleAuthError

        from pipeline.clients import authorized_session

        try:
            return authorized_session(self.endpoint, _SCOPE)
        except GoogleAuthError as error:
            raise NotSeen("there are no credentials to ask with", _LOGIN) from error

    def _ask(self, method: str, url: str, **more: Any) -> dict[str, Any] | None:
        import requests
        from google.auth.exceptions import GoogleAuthError

        host, address = url.partition("/")[0], f"{self.endpoint or 'https:/'}/{url}"
        if host in self._silent:
            raise _silent(host)
        try:
            answer = self._session.request(method, address, timeout=_TIMEOUT_SECONDS, **more)
        except GoogleAuthError as error:
            raise NotSeen("Google does not take the credentials", _LOGIN) from error
        except requests.RequestException as error:
            self._silent.add(host)
            raise _silent(host) from error
        if answer.status_code == _NOT_FOUND:
            return None
        if not answer.ok:
            raise _refused(url, answer)
        return dict(answer.json()) if answer.content else {}


# {deployer} is the account's e-mail, which an API does not know.
_LOGIN: Final = "gcloud auth application-default login --impersonate-service-account={deployer}"


def _silent(host: str) -> NotSeen:
    return NotSeen(f"{host} does not answer", f"let this machine reach {host}")


def _refused(url: str, answer: Any) -> NotSeen:
    """Errors have a message, and their details a reason: cloud.google.com/apis/design/errors."""
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = {}
    host = url.partition("/")[0]
    reasons = {detail.get("reason") for detail in error.get("details", []) if isinstance(detail, dict)}
    if "SERVICE_DISABLED" in reasons:
        return NotSeen(f"the API {host} is off", f"gcloud services enable {host}", answer.status_code)
    said = " ".join(str(error.get("message", "")).split())[:300]
    return NotSeen(f"{host} answers {answer.status_code}{f': {said}' if said else ''}", status=answer.status_code)
