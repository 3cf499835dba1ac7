"""Card search where the console holds no masking key: the token service, as its container runs it, and its client."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from contract.errors import AuditError
from pipeline.transforms.keys import MaskingKeys
from support.connection import IN_ENVIRONMENT
from support.console.card_tokens import CardTokens, TokenServiceError
from tests.unit.test_console_cloud import ROOT, STACK

CARD = "4111111111111111"
KEYS = {"v1": b"1" * 32, "v2": b"2" * 32}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address, and the file that its log goes to."""
    folder = tmp_path_factory.mktemp("tokens")
    keys, log = folder / "keys.json", folder / "log"
    keys.write_text(json.dumps({version: base64.b64encode(key).decode() for version, key in KEYS.items()}))
    stack = json.dumps({**json.loads(STACK), "maskingKeys": f"file:{keys}"})
    command = [sys.executable, "-u", "-m", "support.console.token_service", "--port", "0"]
    with (
        log.open("w") as said,
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, IN_ENVIRONMENT: stack}, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process,
    ):
        assert process.stdout
        yield re.findall(r"http://\S+", process.stdout.readline())[0], log
        process.terminate()


def test_a_card_becomes_its_tokens_under_every_key(service: tuple[str, Path]) -> None:
    expected = MaskingKeys(KEYS).every_token("card", CARD)
    tokens = CardTokens(url=service[0])
    assert list(tokens.of(CARD)) == list(tokens.of("4111 1111-1111 1111")) == expected


def test_it_answers_for_nothing_but_cards_and_repeats_and_logs_nothing(service: tuple[str, Path]) -> None:
    url, log = service
    wrong: tuple[Any, ...] = (
        {"card": "customer-1042"}, {"card": "4111111111111112"}, {"card": CARD + " and more"}, {"card": ""},
        {"card": "9" * 100_000}, {"number": CARD}, {"card": [CARD]}, {"card": int(CARD)}, [CARD], CARD,
    )  # fmt: skip
    for body in wrong:
        answer = requests.post(f"{url}/tokens", json=body, timeout=10)
        assert answer.status_code == 400, body
        assert answer.json() == {"error": 'the body must be {"card": a card\'s number}.'}
    assert requests.get(f"{url}/tokens", params={"card": CARD}, timeout=10).status_code == 405
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 200
    assert CardTokens(url=url).of(CARD)
    assert log.read_text() == ""


@pytest.fixture
def broken() -> Iterator[tuple[str, dict[str, Any]]]:
    """An address, and what it answers."""
    said: dict[str, Any] = {"status": 200, "content": b"{}"}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(said["status"])
            self.end_headers()
            self.wfile.write(said["content"])

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", said
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [(403, b"", "403"), (503, b'{"error": "no key"}', "503"), (200, b"{}", "KeyError"), (200, b"<html>", "Error")],
)
def test_a_service_that_gives_no_tokens_is_named_and_the_card_is_not(
    broken: tuple[str, dict[str, Any]], status: int, content: bytes, reason: str
) -> None:
    url, said = broken
    said.update(status=status, content=content)
    with pytest.raises(TokenServiceError, match=rf"does not answer \(\w*{reason}\).*audit-card-tokens") as refused:
        CardTokens(url=url).of(CARD)
    assert CARD not in str(refused.value)
    # Neither does anything that a handler could print: the client's own errors hold the request.
    assert refused.value.__cause__ is None and refused.value.__context__ is None


def test_nobody_who_listens_is_said_as_well() -> None:
    with pytest.raises(AuditError, match="ConnectionError"):
        CardTokens(url="http://127.0.0.1:9").of(CARD)
