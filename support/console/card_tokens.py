"""A card's tokens by the token service, which holds the masking key in the console's stead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from contract.errors import AuditError

_SECONDS: Final = 20.0


class TokenServiceError(AuditError):
    """The token service gives no tokens; the message does not repeat the card."""


@dataclass(frozen=True, kw_only=True)
class CardTokens:
    """The service at an address: `https://…run.app`, called as this container's account."""

    url: str

    def of(self, card: str) -> tuple[str, ...]:
        """The card's tokens, one for each version of the masking key. Raises TokenServiceError."""
        import requests
        from google.auth.exceptions import GoogleAuthError

        try:
            with self._session() as session:
                answer = session.post(f"{self.url}/tokens", json={"card": card}, timeout=_SECONDS)
                answer.raise_for_status()
                return tuple(str(token) for token in answer.json()["tokens"])
        except requests.HTTPError as error:
            reason = str(error.response.status_code) if error.response is not None else "no answer"
        except (requests.RequestException, GoogleAuthError, ValueError, LookupError, TypeError) as error:
            reason = type(error).__name__
        # Outside of the clauses above: their errors hold the request, and so the card.
        raise TokenServiceError(
            f"the token service does not answer ({reason}), so no card can be searched. Search by its last four "
            "digits, and look at the logs of the Cloud Run service audit-card-tokens."
        )

    def _session(self) -> Any:
        import requests

        if not self.url.startswith("https://"):
            return requests.Session()
        from google.auth.transport.requests import AuthorizedSession
        from google.oauth2 import id_token

        credentials = id_token.fetch_id_token_credentials(self.url)  # type: ignore[no-untyped-call]
        return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
