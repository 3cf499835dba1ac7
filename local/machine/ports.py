"""Ports of the loopback address."""

from __future__ import annotations

import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"


def free_port(preferred: int = 0) -> int:
    """A port that nobody listens on: the preferred one, or any where it is taken."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((LOOPBACK, preferred))
        except OSError:
            server.bind((LOOPBACK, 0))
        return int(server.getsockname()[1])
