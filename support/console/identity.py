"""Who looks at the console.

In the cloud it is behind Identity-Aware Proxy, which signs who it let in, and that signature is what counts, not
the address that a request comes from. Source: cloud.google.com/iap/docs/signed-headers-howto.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from contract.errors import AuditError

Role = Literal["viewer", "agent", "lead"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "agent", "lead")

HEADER: Final = "x-goog-iap-jwt-assertion"
_ISSUER: Final = "https://cloud.google.com/iap"
_KEYS_URL: Final = "https://www.gstatic.com/iap/verify/public_key"
# Google replaces the keys now and then, and shows new ones before it signs with them.
_KEYS_SECONDS: Final = 3600.0
# A token that names an unknown key may only make us look again this often.
_KEYS_AGAIN_SECONDS: Final = 60.0
_TIMEOUT_SECONDS: Final = 5.0


class NotIdentified(AuditError):
    """Nobody whom the console can name has sent the request."""


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """A person, what they may do, and whether they see what is personal. A role includes those before it.

    `unchecked`: groups that might give them more, and could not be checked.
    """

    email: str
    role: Role
    sees_personal: bool = True
    unchecked: tuple[str, ...] = ()

    def may(self, role: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def doubt(self) -> str:
        """For a refusal: which groups could not be checked, and the remedy. Empty where all could be."""
        if not self.unchecked:
            return ""
        return (
            f" Whether you are in {', '.join(self.unchecked)} cannot be checked, so the group gives you nothing: "
            "console-sa needs the role Groups Reader, or the stack's config your address."
        )


class Members(Protocol):
    """Knows who is in a group."""

    def has(self, group: str, email: str) -> bool | None:
        """None where it cannot be checked."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who has which role, by members as IAM writes them (user:, group:); who else is let in by the proxy is a viewer.

    `personal_data_readers` empty: nothing is hidden from anybody, as in BigQuery. A group gives nobody a right without
    `groups`, nor while it cannot be checked.
    """

    agents: tuple[str, ...] = ()
    leads: tuple[str, ...] = ()
    personal_data_readers: tuple[str, ...] = ()
    groups: Members | None = None

    def viewer(self, email: str) -> Viewer:
        """The viewer with this address."""
        unchecked: dict[str, None] = {}
        role: Role = (
            "lead"
            if self._among(self.leads, email, unchecked)
            else "agent"
            if self._among(self.agents, email, unchecked)
            else "viewer"
        )
        personal = not self.personal_data_readers or self._among(self.personal_data_readers, email, unchecked)
        return Viewer(email=email, role=role, sees_personal=personal, unchecked=tuple(unchecked))

    def _among(self, members: tuple[str, ...], email: str, unchecked: dict[str, None]) -> bool:
        """Whether one of the members is the person, or a group that has them. People first: they cost no question."""
        known = [member.lower() for member in members]
        if f"user:{email}" in known:
            return True
        for group in (member.removeprefix("group:") for member in known if member.startswith("group:")):
            found = self.groups.has(group, email) if self.groups else None
            if found:
                return True
            if found is None:
                unchecked[group] = None
        return False


class Identity(Protocol):
    """Says who sent a request."""

    def viewer(self, headers: Mapping[str, str]) -> Viewer:
        """The viewer by a request's headers. Raises NotIdentified."""


@dataclass(frozen=True, kw_only=True)
class Development:
    """One machine, one person: whoever reaches the loopback address. Never behind an address that others reach."""

    known: Viewer

    def viewer(self, headers: Mapping[str, str]) -> Viewer:
        return self.known


@dataclass(kw_only=True)
class IdentityAwareProxy:
    """Verifies the proxy's signature, its time, and that it was made for this service and no other."""

    audience: str
    access: Access
    keys_url: str = _KEYS_URL
    _keys: dict[str, str] = field(default_factory=dict)
    _fetched: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def viewer(self, headers: Mapping[str, str]) -> Viewer:
        from google.auth import exceptions, jwt

        token = headers.get(HEADER)
        if not token:
            raise NotIdentified(
                "the request has not come through Identity-Aware Proxy. Open the console's own address."
            )
        try:
            key_id = str(jwt.decode_header(token).get("kid"))  # type: ignore[no-untyped-call]
            keys = self._known(key_id)
            claims: dict[str, Any] = jwt.decode(  # type: ignore[no-untyped-call]
                token, certs=keys, audience=self.audience
            )
        except (ValueError, exceptions.GoogleAuthError) as error:
            raise NotIdentified("the proxy's signature does not hold. Sign in again.") from error
        if claims.get("iss") != _ISSUER or not claims.get("email"):
            raise NotIdentified("the proxy's signature names no person. Sign in again.")
        return self.access.viewer(str(claims["email"]).lower())

    def _known(self, key_id: str) -> dict[str, str]:
        """The proxy's public keys, fetched again once they are old, or where a token names one that is not there."""
        with self._lock:
            age = time.monotonic() - self._fetched
            if age > _KEYS_SECONDS or (key_id not in self._keys and age > _KEYS_AGAIN_SECONDS):
                self._keys, self._fetched = self._fetch(), time.monotonic()
            return self._keys

    def _fetch(self) -> dict[str, str]:
        import requests

        try:
            answer = requests.get(self.keys_url, timeout=_TIMEOUT_SECONDS)
            answer.raise_for_status()
            keys: dict[str, str] = answer.json()
        except (requests.RequestException, ValueError) as error:
            if self._keys:
                return self._keys
            raise NotIdentified("the proxy's keys cannot be fetched, so nobody can be let in. Try again.") from error
        return keys
