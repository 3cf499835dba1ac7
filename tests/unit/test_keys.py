"""Masking keys: where they come from, and what is said when they cannot be used."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud import secretmanager
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceGrpcTransport

from pipeline.transforms.keys import MaskingKeyError, MaskingKeys

ONE, TWO = b"1" * 32, b"2" * 32
SECRET = "projects/p/secrets/s"


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_a_token_is_the_version_and_half_an_hmac() -> None:
    expected = hmac.new(ONE, b"card:4111111111111111", hashlib.sha256).hexdigest()[:32]
    assert MaskingKeys({"v1": ONE}).token("card", "4111111111111111") == f"v1:{expected}"


def test_the_tenth_version_is_newer_than_the_ninth() -> None:
    keys = MaskingKeys({"v9": ONE, "v10": TWO})
    assert keys.newest == "v10"
    assert [t.split(":")[0] for t in keys.every_token("card", "1")] == ["v10", "v9"]


def test_keys_are_never_printed() -> None:
    assert repr(ONE) not in repr(MaskingKeys({"v1": ONE}))


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"v1": text(ONE), "v2": text(TWO)}))
    assert MaskingKeys.load(f"file:{tmp_path / 'keys.json'}") == MaskingKeys({"v1": ONE, "v2": TWO})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("not json", "must hold JSON like"),
        ("[]", "must hold JSON like"),
        ('{"v1": 7}', "must hold JSON like"),
        ("{}", "at least one key"),
        (json.dumps({"v1": "???"}), "v1 must be base64 of 32 bytes"),
        (json.dumps({"v1": text(b"secret-secret")}), "v1 must be 32 bytes, got 13"),
        (json.dumps({"one": text(ONE)}), "versions must be v1, v2"),
    ],
)
def test_a_bad_key_file_is_refused_without_its_content(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(MaskingKeyError, match=says) as error:
        MaskingKeys.load(f"file:{tmp_path / 'keys.json'}")
    assert text(b"secret-secret") not in str(error.value)


@pytest.mark.parametrize("reference", ["file:/nowhere/keys.json", "keys.json", "projects/p", ""])
def test_a_reference_that_leads_nowhere_is_refused_with_the_way_out(reference: str) -> None:
    with pytest.raises(MaskingKeyError, match=r"Set maskingKeys to projects/P/secrets/S or file:PATH\."):
        MaskingKeys.load(reference)


class SecretManager(grpc.GenericRpcHandler):
    """Secret Manager as its client sees it: the versions of one secret, or a refusal."""

    def __init__(self, versions: dict[str, tuple[str, bytes]], refusal: grpc.StatusCode | None = None) -> None:
        self.versions = versions
        self.refusal = refusal

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        answer = {"ListSecretVersions": self._list, "AccessSecretVersion": self._access}
        return grpc.unary_unary_rpc_method_handler(answer[details.method.rsplit("/", 1)[1]])

    def _list(self, request: bytes, context: Any) -> bytes:
        if self.refusal:
            context.abort(self.refusal, "no")
        states = secretmanager.SecretVersion.State
        answer = secretmanager.ListSecretVersionsResponse(
            versions=[
                secretmanager.SecretVersion(name=f"{SECRET}/versions/{number}", state=getattr(states, state))
                for number, (state, _) in self.versions.items()
            ]
        )
        return bytes(secretmanager.ListSecretVersionsResponse.serialize(answer))

    def _access(self, request: bytes, context: Any) -> bytes:
        name = secretmanager.AccessSecretVersionRequest.deserialize(request).name
        answer = secretmanager.AccessSecretVersionResponse(
            name=name, payload={"data": self.versions[name.rsplit("/", 1)[1]][1]}
        )
        return bytes(secretmanager.AccessSecretVersionResponse.serialize(answer))


@pytest.fixture
def secret_manager() -> Iterator[tuple[SecretManager, Any]]:
    handler = SecretManager({})
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        transport = SecretManagerServiceGrpcTransport(channel=channel)
        yield handler, secretmanager.SecretManagerServiceClient(transport=transport)
    server.stop(None)


def test_every_enabled_version_of_a_secret_is_a_key(secret_manager: tuple[SecretManager, Any]) -> None:
    handler, client = secret_manager
    handler.versions = {
        "3": ("ENABLED", text(TWO).encode() + b"\n"),
        "2": ("DISABLED", b"x" * 32),
        "1": ("ENABLED", ONE),
    }
    keys = MaskingKeys.load(SECRET, client=client)
    assert keys == MaskingKeys({"v1": ONE, "v3": TWO})
    assert keys.newest == "v3"


def test_a_secret_without_an_enabled_version_is_refused(secret_manager: tuple[SecretManager, Any]) -> None:
    handler, client = secret_manager
    handler.versions = {"1": ("DESTROYED", b"")}
    with pytest.raises(MaskingKeyError, match="must have an enabled version"):
        MaskingKeys.load(SECRET, client=client)


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (grpc.StatusCode.NOT_FOUND, "does not exist"),
        (grpc.StatusCode.PERMISSION_DENIED, "roles/secretmanager.secretAccessor"),
    ],
)
def test_a_secret_that_cannot_be_read_is_named_with_the_way_out(
    secret_manager: tuple[SecretManager, Any], refusal: grpc.StatusCode, says: str
) -> None:
    handler, client = secret_manager
    handler.refusal = refusal
    with pytest.raises(MaskingKeyError, match=says):
        MaskingKeys.load(SECRET, client=client)
