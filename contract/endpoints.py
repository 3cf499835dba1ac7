"""Where a service is. An endpoint is host:port or a URL; empty is Google Cloud's usual one.

One of this machine is an emulator, reached in plain text and without credentials; every other has TLS and credentials.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def on_this_machine(endpoint: str) -> bool:
    """Whether it is an address of the loopback interface."""
    return urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname in LOOPBACK
