"""The console's command in its container, and where it must not serve."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from support.connection import IN_ENVIRONMENT as CONNECTION
from support.console.cloud import IN_ENVIRONMENT, CloudSettings, CloudSettingsError
from support.console.command import console
from tests.shipped import WATCHED

ROOT = Path(__file__).parents[2]
AUDIENCE = "/projects/1/locations/us-central1/services/audit-console"
GIVEN = {
    "audience": AUDIENCE,
    "cardTokens": "",
    "agents": [],
    "leads": ["group:leads@example.com"],
    "personalDataReaders": ["user:ann@example.com"],
}
TEXTS = dict.fromkeys(
    (
        "project", "location", "bigQueryEndpoint", "spannerEndpoint", "spannerInstance", "spannerDatabase",
        "metadataDatabase", "maskingKeys", "deadLetterDirectory", "jobName",
    ),
    "x",
)  # fmt: skip
STACK = json.dumps({**TEXTS, "bigQueryEndpoint": "http://127.0.0.1:9", "watchedTables": WATCHED.to_json()})


@pytest.fixture
def address() -> Iterator[str]:
    """Of a console that runs as its container does, but on the loopback address."""
    environment = {**os.environ, CONNECTION: STACK, IN_ENVIRONMENT: json.dumps(GIVEN)}
    command = [sys.executable, "-u", "-m", "support.console", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        yield re.findall(r"http://\S+", line)[0]
        process.terminate()


def test_behind_the_proxy_nobody_is_let_in_without_its_signature(address: str) -> None:
    assert requests.get(f"{address}/healthz", timeout=10).status_code == 200
    for headers in ({}, {"x-goog-iap-jwt-assertion": "forged"}, {"x-goog-authenticated-user-email": "ann@example.com"}):
        answer = requests.get(f"{address}/api/v1/me", headers=headers, timeout=10)
        assert answer.status_code == 401, headers
        assert "Not signed in" in answer.text


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "console.example.com", ""])
def test_without_the_proxy_it_serves_no_address_that_others_reach(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IN_ENVIRONMENT, raising=False)
    monkeypatch.setenv(CONNECTION, STACK)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("it serves"))
    said = CliRunner().invoke(console, ["--host", host, "--port", "0"])
    assert said.exit_code == 2
    assert "must be a loopback address" in said.output
    assert "behind Identity-Aware Proxy" in said.output


def test_what_the_container_is_given_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IN_ENVIRONMENT, json.dumps(GIVEN))
    given = CloudSettings.load()
    assert given
    assert given.identity().audience == AUDIENCE
    access = given.identity().access
    assert (access.leads, access.agents, access.personal_data_readers) == (
        ("group:leads@example.com",), (), ("user:ann@example.com",),
    )  # fmt: skip
    assert access.groups


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        *(
            json.dumps({**GIVEN, key: value})
            for key, value in (("audience", ""), ("audience", 1), ("cardTokens", None), ("leads", "all"))
        ),
        *(json.dumps({name: value for name, value in GIVEN.items() if name != key}) for key in GIVEN),
    ],
)
def test_what_cannot_be_read_lets_nobody_in(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather no console than one whose lists are taken for empty: an empty one hides nothing."""
    monkeypatch.setenv(IN_ENVIRONMENT, text)
    with pytest.raises(CloudSettingsError, match="must be a JSON object with an audience"):
        CloudSettings.load()
