"""Who is let into the console, by the signature of Identity-Aware Proxy."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from support.console.identity import HEADER, Access, IdentityAwareProxy, NotIdentified

AUDIENCE = "/projects/1/locations/us-central1/services/audit-console"
ISSUER = "https://cloud.google.com/iap"


class Keys:
    """The proxy's keys, as Google publishes them: key id → public key."""

    def __init__(self) -> None:
        self.private: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.asked = 0

    def add(self, name: str) -> None:
        self.private[name] = ec.generate_private_key(ec.SECP256R1())

    def published(self) -> dict[str, str]:
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return {name: key.public_key().public_bytes(encoding, form).decode() for name, key in self.private.items()}

    def token(self, name: str = "a", *, key: ec.EllipticCurvePrivateKey | None = None, **claims: Any) -> str:
        now = int(time.time())
        said = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600, "email": "Ann@Example.com"} | claims
        head = {"alg": "ES256", "typ": "JWT", "kid": name}
        signed = ".".join(_part(json.dumps(each).encode()) for each in (head, said))
        r, s = decode_dss_signature((key or self.private[name]).sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_part(r.to_bytes(32) + s.to_bytes(32))}"


def _part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.fixture
def keys() -> Iterator[tuple[Keys, str]]:
    made = Keys()
    made.add("a")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(made.published()).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made, f"http://127.0.0.1:{server.server_port}/keys"
    server.shutdown()
    server.server_close()


def proxy(url: str, access: Access | None = None) -> IdentityAwareProxy:
    return IdentityAwareProxy(audience=AUDIENCE, access=access or Access(), keys_url=url)


def test_whom_the_proxy_names_is_the_viewer_with_the_role_of_the_config(keys: tuple[Keys, str]) -> None:
    made, url = keys
    identity = proxy(url, Access(agents=("user:Ann@example.com",), personal_data_readers=("user:b@x.com",)))
    viewer = identity.viewer({HEADER: made.token()})
    assert (viewer.email, viewer.role, viewer.sees_personal) == ("ann@example.com", "agent", False)
    assert viewer.may("viewer") and viewer.may("agent") and not viewer.may("lead")
    other = identity.viewer({HEADER: made.token(email="b@x.com")})
    assert (other.role, other.sees_personal) == ("viewer", True)
    assert made.asked == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "/projects/1/locations/us-central1/services/another"},
        {"iat": int(time.time()) - 7200, "exp": int(time.time()) - 3600},
        {"iat": int(time.time()) + 3600, "exp": int(time.time()) + 7200},
        {"iss": "https://accounts.google.com"},
        {"email": ""},
    ],
    ids=["for another service", "expired", "of the future", "of another issuer", "of nobody"],
)
def test_a_token_that_was_not_made_for_this_service_and_moment_is_refused(
    keys: tuple[Keys, str], claims: dict[str, Any]
) -> None:
    made, url = keys
    with pytest.raises(NotIdentified):
        proxy(url).viewer({HEADER: made.token(**claims)})


def test_a_forged_token_is_refused(keys: tuple[Keys, str]) -> None:
    made, url = keys
    head, said, signature = made.token().split(".")
    other = _part(json.dumps({"iss": ISSUER, "aud": AUDIENCE, "email": "lead@example.com"}).encode())
    unsigned = _part(json.dumps({"alg": "none", "kid": "a"}).encode())
    forged = [
        made.token(key=ec.generate_private_key(ec.SECP256R1())),
        f"{head}.{other}.{signature}",
        f"{unsigned}.{said}.",
        "not a token",
        "",
    ]
    for token in forged:
        with pytest.raises(NotIdentified):
            proxy(url).viewer({HEADER: token})
    with pytest.raises(NotIdentified, match="has not come through Identity-Aware Proxy"):
        proxy(url).viewer({})


def test_new_keys_are_fetched_when_a_token_names_one_but_not_for_every_token(
    keys: tuple[Keys, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = keys
    identity = proxy(url)
    identity.viewer({HEADER: made.token()})
    made.add("b")
    with pytest.raises(NotIdentified):
        identity.viewer({HEADER: made.token("b")})
    assert made.asked == 1
    monkeypatch.setattr("support.console.identity._KEYS_AGAIN_SECONDS", 0)
    assert identity.viewer({HEADER: made.token("b")}).role == "viewer"
    assert made.asked == 2


def test_keys_that_cannot_be_fetched_let_nobody_in_and_known_ones_stay(keys: tuple[Keys, str]) -> None:
    made, url = keys
    with pytest.raises(NotIdentified, match="keys cannot be fetched"):
        proxy("http://127.0.0.1:9/keys").viewer({HEADER: made.token()})
    identity = proxy(url)
    identity.viewer({HEADER: made.token()})
    identity.keys_url, identity._fetched = "http://127.0.0.1:9/keys", float("-inf")
    assert identity.viewer({HEADER: made.token()}).email == "ann@example.com"
