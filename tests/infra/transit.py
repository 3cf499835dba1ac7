"""A key service that keeps no key: Vault's `transit`, as far as the Pulumi CLI calls it.

It encodes and decodes in place of Google's KMS, which a deployed stack has. With a passphrase, each run of the CLI
would derive a key from it in a million rounds, and an `up` is nine runs. test_pulumi.py has a stack with a passphrase.
"""

from __future__ import annotations

import json
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

PROVIDER: Final = "hashivault://audit"
_PREFIX: Final = "vault:v1:"


class _Transit(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        encrypts = self.path == "/v1/transit/encrypt/audit"
        text = given["plaintext"] if encrypts else given["ciphertext"].removeprefix(_PREFIX)
        answer = {"data": {"ciphertext": _PREFIX + text} if encrypts else {"plaintext": text}}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@cache
def environment() -> dict[str, str]:
    """Starts it in this process, once; what the CLI finds it by."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Transit)
    threading.Thread(target=server.serve_forever, name="transit", daemon=True).start()
    return {"VAULT_SERVER_URL": f"http://127.0.0.1:{server.server_port}", "VAULT_SERVER_TOKEN": "tests"}
