"""Only what is on this machine is reached in plain text and without credentials."""

from __future__ import annotations

from typing import Any

import google.auth
import grpc
import pytest
from google.auth.credentials import AnonymousCredentials

from contract.endpoints import on_this_machine
from pipeline import clients
from support.bigquery_rest import QueryApi

REGIONAL = "spanner.us-east4.rep.googleapis.com:443"
URL = "https://bigquery.us-east4.rep.googleapis.com"


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9010", "localhost:9010", "[::1]:9010", "http://127.0.0.1:9050"])
def test_a_loopback_address_is_this_machine(endpoint: str) -> None:
    assert on_this_machine(endpoint)


@pytest.mark.parametrize("endpoint", ["", REGIONAL, URL, "localhost.example.com:443", "https://127.0.0.1.example.com"])
def test_any_other_is_not(endpoint: str) -> None:
    assert not on_this_machine(endpoint)


class Known(AnonymousCredentials):
    """Credentials that can be told from none."""


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch) -> Known:
    """The process's credentials; what would be reached in plain text fails."""

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("plain text to another machine")

    credentials = Known()
    monkeypatch.setattr(google.auth, "default", lambda **_: (credentials, "p"))
    monkeypatch.setattr(grpc, "insecure_channel", refused)
    monkeypatch.delenv("SPANNER_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    return credentials


def test_clients_reach_another_machine_with_tls_and_credentials(tls: Known) -> None:
    database = clients.spanner_database(REGIONAL, "p", "i", "d")
    assert database._instance._client.credentials is tls
    assert database._instance._client._client_options.api_endpoint == REGIONAL
    query = clients.bigquery_client(URL, "p")
    assert query._credentials is tls and query._connection.API_BASE_URL == URL
    assert clients.write_client("bigquerystorage.us-east4.rep.googleapis.com:443").api_endpoint.startswith("bigquery")
    assert clients.authorized_session(URL, "scope").credentials is tls
    session: Any = QueryApi(URL, "p", "US", 1)._session
    assert session.credentials is tls
    channel = clients.spanner_channel(REGIONAL)
    channel.unary_unary("/google.spanner.v1.Spanner/CreateSession")
    channel.close()


def test_an_emulator_is_given_no_credentials(tls: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(google.auth, "default", lambda **_: pytest.fail("an emulator was given credentials"))
    assert clients.bigquery_client("http://127.0.0.1:1", "p")._credentials is not tls
    clients.spanner_database("127.0.0.1:1", "p", "i", "d")
    assert not hasattr(clients.authorized_session("http://127.0.0.1:1", "scope"), "credentials")
