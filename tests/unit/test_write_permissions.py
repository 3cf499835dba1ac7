"""Permissions to write are asked of the services that would refuse, before the older job is drained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from google.api_core.exceptions import NotFound

from pipeline import clients
from pipeline.jobs import permissions
from pipeline.jobs.checks import _lacking
from tests.strict.bigquery_rest import HttpServer

TABLE = "p.payment_audit.payment_audit_trail_bq"


class Google:
    """`held` is what the account holds. Each service gives back, of what it was asked about, what is held."""

    def __init__(self) -> None:
        self.held = {*permissions.ON_TABLE, *permissions.ON_BUCKET}
        self.there = True
        self.url = ""

    def answer(self, method: str, target: str, body: bytes, headers: Any) -> tuple[int, str, bytes]:
        url = urlsplit(target)
        if not self.there:
            return 404, "application/json", b'{"error": {"code": 404, "message": "Not found"}}'
        if method == "POST":
            table = "/projects/p/datasets/payment_audit/tables/payment_audit_trail_bq:testIamPermissions"
            assert url.path.endswith(table)
            asked = json.loads(body)["permissions"]
        else:
            assert url.path == "/storage/v1/b/p-dead-letters/iam/testPermissions"
            asked = parse_qs(url.query)["permissions"]
        answer = {"permissions": [each for each in asked if each in self.held]}
        # Where nothing is held, the key is left out.
        return 200, "application/json", json.dumps(answer if answer["permissions"] else {}).encode()


@pytest.fixture
def google() -> Iterator[Google]:
    made = Google()
    http = HttpServer(made.answer)
    made.url = http.url
    yield made
    http.stop()


def _table(google: Google) -> list[str]:
    return permissions.lacking_on_table(clients.bigquery_client(google.url, "p"), TABLE)


def _bucket(google: Google) -> list[str]:
    return permissions.lacking_on_bucket(requests.Session(), "p-dead-letters", google.url)


def test_an_account_that_holds_all_lacks_nothing(google: Google) -> None:
    assert _table(google) == _bucket(google) == []


@pytest.mark.parametrize("permission", permissions.ON_TABLE)
def test_each_permission_on_a_table_is_missed(google: Google, permission: str) -> None:
    google.held.remove(permission)
    assert _table(google) == [permission]


@pytest.mark.parametrize("permission", permissions.ON_BUCKET)
def test_each_permission_on_the_bucket_is_missed(google: Google, permission: str) -> None:
    google.held.remove(permission)
    assert _bucket(google) == [permission]


def test_an_account_that_holds_nothing_lacks_all(google: Google) -> None:
    google.held = set()
    assert _table(google) == list(permissions.ON_TABLE) and _bucket(google) == list(permissions.ON_BUCKET)


def test_a_table_that_is_not_there_and_a_bucket_that_does_not_answer_are_errors(google: Google) -> None:
    google.there = False
    with pytest.raises(NotFound):
        _table(google)
    with pytest.raises(requests.HTTPError):
        _bucket(google)


def test_what_is_missing_is_said_with_the_role_that_has_it() -> None:
    found = _lacking("gs://p-dead-letters", ["storage.objects.create"], "roles/storage.objectUser on the bucket")
    assert found.problem == (
        "the job's account must hold storage.objects.create on gs://p-dead-letters: roles/storage.objectUser on the "
        "bucket. Run `pulumi up`."
    )
    assert not _lacking("gs://p-dead-letters", [], "x").problem
