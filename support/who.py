"""Who uses `audit`: in the cloud the account that Google knows, on one machine its user."""

from __future__ import annotations

import getpass
from typing import Any, Final

from support.connection import Connection

_SCOPES: Final = (
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/userinfo.email",
)
# Answers whose token it is: developers.google.com/identity/protocols/oauth2 (tokeninfo).
_OWNER_URL: Final = "https://oauth2.googleapis.com/tokeninfo"
_TIMEOUT_SECONDS: Final = 10


def who(connection: Connection) -> str:
    """The e-mail of the account whose credentials are used. Where there are no Google credentials, the machine's user.

    A person's credentials have no name in them: the token's owner is asked of Google. One that does not answer leaves
    the machine's user, as `user@machine`, which Google's audit log has beside the account.
    """
    if connection.local:
        return getpass.getuser()
    from google.auth.exceptions import GoogleAuthError

    try:
        return _account() or f"{getpass.getuser()}@machine"
    except GoogleAuthError:
        return f"{getpass.getuser()}@machine"


def _account() -> str:
    import requests
    from google.auth import default
    from google.auth.transport.requests import Request

    credentials: Any
    credentials, _ = default(scopes=list(_SCOPES))
    credentials.refresh(Request())
    if named := getattr(credentials, "service_account_email", ""):
        return str(named)
    try:
        answer = requests.post(_OWNER_URL, data={"access_token": credentials.token}, timeout=_TIMEOUT_SECONDS)
        return str(answer.json().get("email", "")) if answer.ok else ""
    except (requests.RequestException, ValueError):
        return ""
