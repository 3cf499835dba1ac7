"""Who a command names: the machine's user on one machine, the Google account in the cloud."""

from __future__ import annotations

import getpass
from typing import Any

import google.auth
import pytest
import requests
from google.auth.exceptions import DefaultCredentialsError

from support.who import who
from tests.unit.test_replay_runs import connection


class Credentials:
    def __init__(self, **known: str) -> None:
        self.token = "a-token"
        self.__dict__ |= known

    def refresh(self, _: Any) -> None:
        pass


class Answer:
    def __init__(self, ok: bool, **content: str) -> None:
        self.ok, self._content = ok, content

    def json(self) -> dict[str, str]:
        return self._content


def test_on_one_machine_it_is_its_user() -> None:
    assert who(connection(spanner_endpoint="127.0.0.1:1")) == getpass.getuser()


def test_in_the_cloud_a_service_account_names_itself_and_a_person_s_token_its_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, Any]] = []

    def post(url: str, data: Any, timeout: float) -> Answer:
        asked.append((url, data))
        return Answer(True, email="ann@example.com")

    monkeypatch.setattr(requests, "post", post)
    cloud = connection(spanner_endpoint="")
    monkeypatch.setattr(google.auth, "default", lambda scopes: (Credentials(service_account_email="sa@p"), None))
    assert who(cloud) == "sa@p" and asked == []
    monkeypatch.setattr(google.auth, "default", lambda scopes: (Credentials(), None))
    assert who(cloud) == "ann@example.com"
    # The token is in no address, which would be logged.
    assert asked == [("https://oauth2.googleapis.com/tokeninfo", {"access_token": "a-token"})]


def test_without_an_answer_it_is_the_machine_s_user_and_seen_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = f"{getpass.getuser()}@machine"
    cloud = connection(spanner_endpoint="")
    monkeypatch.setattr(google.auth, "default", lambda scopes: (Credentials(), None))
    monkeypatch.setattr(requests, "post", lambda *_, **__: Answer(False))
    assert who(cloud) == unknown

    def refused(scopes: Any) -> Any:
        raise DefaultCredentialsError("none")

    monkeypatch.setattr(google.auth, "default", refused)
    assert who(cloud) == unknown
