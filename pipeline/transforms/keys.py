"""The masking keys, and the keyed tokens made with them.

A token is `<version>:<first 32 hex digits of HMAC-SHA256(key, kind + ":" + value)>`. New tokens are made with the
newest key; a search tries every version, since older rows keep the tokens they were written with.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

import orjson

from contract.errors import AuditError

KEY_BYTES: Final = 32
_VERSION = re.compile(r"v[1-9][0-9]*")
_REMEDY: Final = "Set maskingKeys to projects/P/secrets/S or file:PATH."


class MaskingKeyError(AuditError, ValueError):
    """The masking keys cannot be used; the message gives the rule and the remedy, never a key."""


@dataclass(frozen=True)
class MaskingKeys:
    """Keys by version (`v1`, `v2`, …), 32 bytes each. Raises MaskingKeyError when they break that rule."""

    keys: Mapping[str, bytes] = field(repr=False)
    newest: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.keys:
            raise MaskingKeyError(f"maskingKeys must hold at least one key, got none. {_REMEDY}")
        for version, key in self.keys.items():
            if not _VERSION.fullmatch(version):
                raise MaskingKeyError(
                    "maskingKeys versions must be v1, v2, …: their order says which key is the newest."
                )
            if len(key) != KEY_BYTES:
                raise MaskingKeyError(
                    f"masking key {version} must be {KEY_BYTES} bytes, got {len(key)}. Make another version of it."
                )
        object.__setattr__(self, "newest", max(self.keys, key=lambda version: int(version[1:])))

    def token(self, kind: str, value: str) -> str:
        """The token of `value` under the newest key. `kind` is `card`, or the column's name."""
        return _token(self.newest, self.keys[self.newest], kind, value)

    def every_token(self, kind: str, value: str) -> list[str]:
        """The tokens of `value` under every key, newest first: what a search looks for."""
        versions = sorted(self.keys, key=lambda version: -int(version[1:]))
        return [_token(version, self.keys[version], kind, value) for version in versions]

    @classmethod
    def load(cls, reference: str, *, client: Any = None) -> Self:
        """Reads the keys that `maskingKeys` names: `file:PATH` or `projects/P/secrets/S`.

        `client` is a Secret Manager client; None makes one with the default credentials.
        """
        if reference.startswith("file:"):
            return cls(_from_file(Path(reference.removeprefix("file:"))))
        if re.fullmatch(r"projects/[^/]+/secrets/[^/]+", reference):
            return cls(_from_secret(reference, client))
        raise MaskingKeyError(f"maskingKeys must name a secret or a file. {_REMEDY}")


def _token(version: str, key: bytes, kind: str, value: str) -> str:
    inner, outer = _prepared(key)
    inner, outer = inner.copy(), outer.copy()
    inner.update(f"{kind}:{value}".encode())
    outer.update(inner.digest())
    return f"{version}:{outer.hexdigest()[:32]}"


@lru_cache(maxsize=64)
def _prepared(key: bytes) -> tuple[Any, Any]:
    """HMAC-SHA256 as far as the key alone determines it (RFC 2104): half of what a token of a short text costs."""
    block = key.ljust(hashlib.sha256().block_size, b"\0")
    return tuple(hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))  # type: ignore[return-value]


def _from_file(path: Path) -> dict[str, bytes]:
    try:
        versions = orjson.loads(path.read_bytes())
    except OSError as error:
        raise MaskingKeyError(f"masking keys cannot be read from {path}: {error.strerror}. {_REMEDY}") from None
    except orjson.JSONDecodeError:
        versions = None
    if not isinstance(versions, dict) or not all(isinstance(text, str) for text in versions.values()):
        raise MaskingKeyError(f'{path} must hold JSON like {{"v1": "<base64 of {KEY_BYTES} bytes>"}}.')
    return {version: _decode(version, text) for version, text in versions.items()}


def _decode(version: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MaskingKeyError(f"masking key {version} must be base64 of {KEY_BYTES} bytes.") from None


def _from_secret(name: str, client: Any) -> dict[str, bytes]:
    """Every enabled version of the secret. Version N holds 32 bytes, or base64 of them, and is called vN."""
    from google.api_core import exceptions
    from google.cloud import secretmanager

    client = client or secretmanager.SecretManagerServiceClient()
    keys = {}
    try:
        for version in client.list_secret_versions(request={"parent": name, "filter": "state:ENABLED"}):
            if version.state != secretmanager.SecretVersion.State.ENABLED:
                continue
            number = version.name.rsplit("/", 1)[1]
            payload = client.access_secret_version(request={"name": version.name}).payload.data
            keys[f"v{number}"] = (
                payload if len(payload) == KEY_BYTES else _decode(f"v{number}", payload.decode("latin-1").strip())
            )
    except exceptions.NotFound:
        raise MaskingKeyError(f"secret {name} does not exist. {_REMEDY}") from None
    except exceptions.PermissionDenied:
        raise MaskingKeyError(
            f"secret {name} cannot be read: the account needs roles/secretmanager.secretAccessor and "
            "roles/secretmanager.viewer on it."
        ) from None
    if not keys:
        raise MaskingKeyError(
            f"secret {name} must have an enabled version with {KEY_BYTES} random bytes; it has none. Add one."
        )
    return keys
