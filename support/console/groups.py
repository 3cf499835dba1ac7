"""Who is in which group: Identity-Aware Proxy's header says who somebody is, and not of which groups.

Cloud Identity is asked as the console's own account, which needs the administrator's role Groups Reader in the
organisation; the edition must be one that answers (Workspace Enterprise, Cloud Identity Premium). Source:
cloud.google.com/identity/docs/reference/rest/v1/groups.memberships/checkTransitiveMembership.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from contract.endpoints import on_this_machine

log = logging.getLogger(__name__)

_GOOGLE: Final = "https://cloudidentity.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-identity.groups.readonly"
_TIMEOUT_SECONDS: Final = 5.0
# Who leaves a group keeps its rights for as long; what could not be checked is tried again sooner.
_KNOWN_SECONDS: Final = 300.0
_AGAIN_SECONDS: Final = 30.0


class Groups:
    """Memberships, of members of members too, known for five minutes. `endpoint` empty: Cloud Identity."""

    def __init__(self, endpoint: str = "") -> None:
        self._endpoint = endpoint
        self._found: dict[tuple[str, str], tuple[float, bool | None]] = {}

    def has(self, group: str, email: str) -> bool | None:
        """Whether a person is in a group, both by e-mail address. None where that cannot be checked."""
        until, found = self._found.get((group, email), (0.0, None))
        if time.monotonic() < until:
            return found
        found = self._checked(group, email)
        seconds = _AGAIN_SECONDS if found is None else _KNOWN_SECONDS
        self._found[group, email] = (time.monotonic() + seconds, found)
        return found

    def _checked(self, group: str, email: str) -> bool | None:
        import requests
        from google.auth.exceptions import GoogleAuthError

        try:
            # A session for each check: a session is for one thread.
            with self._session() as session:
                name = self._get(session, "groups:lookup", {"groupKey.id": group})["name"]
                person = email.replace("\\", "\\\\").replace("'", "\\'")
                answer = self._get(
                    session,
                    f"{name}/memberships:checkTransitiveMembership",
                    {"query": f"member_key_id == '{person}'"},
                )
        except requests.HTTPError as error:
            reason = str(error.response.status_code) if error.response is not None else "no answer"
        except (requests.RequestException, GoogleAuthError, ValueError, LookupError, TypeError) as error:
            reason = type(error).__name__
        else:
            return answer.get("hasMembership") is True
        log.warning("The members of %s cannot be checked (%s): the group gives nobody a right.", group, reason)
        return None

    def _get(self, session: Any, path: str, parameters: dict[str, str]) -> dict[str, Any]:
        answer = session.get(f"{self._endpoint or _GOOGLE}/v1/{path}", params=parameters, timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content

    def _session(self) -> Any:
        import requests

        if on_this_machine(self._endpoint):
            return requests.Session()
        import google.auth
        from google.auth.transport.requests import AuthorizedSession

        credentials, _ = google.auth.default(scopes=[_SCOPE])
        return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
