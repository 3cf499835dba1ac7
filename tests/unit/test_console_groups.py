"""What a group gives a viewer of the console, by a stand-in for Cloud Identity on the loopback address."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from support.console.app import NotAllowed, allow
from support.console.groups import Groups
from support.console.identity import Access
from support.console.personal import PersonalDataError, refuse

LEADS, READERS = "leads@example.com", "readers@example.com"


class CloudIdentity:
    """Group → its members, of whom it answers as Cloud Identity does; `status` is what it answers instead."""

    def __init__(self) -> None:
        self.members: dict[str, set[str]] = {LEADS: {"ann@example.com"}, READERS: {"o'brien@example.com"}}
        self.status = 200
        self.asked: list[str] = []
        self.url = ""

    def answer(self, path: str) -> tuple[int, Any]:
        address = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        self.asked.append(address.path)
        if self.status != 200:
            return self.status, {"error": {"status": "PERMISSION_DENIED"}}
        if address.path == "/v1/groups:lookup":
            group = query["groupKey.id"]
            return (200, {"name": f"groups/id-{group}"}) if group in self.members else (403, {})
        group = address.path.removeprefix("/v1/groups/id-").removesuffix("/memberships:checkTransitiveMembership")
        known = {f"member_key_id == '{_quoted(member)}'" for member in self.members[group]}
        # A false value may be left out.
        if query["query"] == "member_key_id == 'cy@example.com'":
            return 200, {}
        return 200, {"hasMembership": query["query"] in known}


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")


@pytest.fixture
def google() -> Iterator[CloudIdentity]:
    known = CloudIdentity()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = known.answer(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known.url = f"http://127.0.0.1:{server.server_port}"
    yield known
    server.shutdown()
    server.server_close()


def access(google: CloudIdentity) -> Access:
    return Access(
        agents=("user:bob@example.com",),
        leads=(f"group:{LEADS}",),
        personal_data_readers=(f"group:{READERS}", "serviceAccount:report@p.iam.gserviceaccount.com"),
        groups=Groups(google.url),
    )


def test_a_member_of_a_group_has_what_the_group_has(google: CloudIdentity) -> None:
    found = {name: access(google).viewer(f"{name}@example.com") for name in ("ann", "bob", "cy", "o'brien")}
    assert {name: (viewer.role, viewer.sees_personal) for name, viewer in found.items()} == {
        "ann": ("lead", False),
        "bob": ("agent", False),
        "cy": ("viewer", False),
        "o'brien": ("viewer", True),
    }
    assert {viewer.unchecked for viewer in found.values()} == {()}


def test_nobody_gets_into_a_group_by_what_is_in_an_address(google: CloudIdentity) -> None:
    google.members[LEADS] = {"x' || 'a' == 'a"}
    assert access(google).viewer("x' || 'a' == 'a").role == "lead"
    assert access(google).viewer("a").role == "viewer"


def test_a_membership_is_known_for_a_while_and_then_checked_again(
    google: CloudIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr("support.console.groups.time.monotonic", lambda: clock)
    groups = Groups(google.url)
    assert [groups.has(LEADS, "ann@example.com") for _ in range(3)] == [True] * 3
    assert len(google.asked) == 2
    google.members[LEADS].clear()
    clock += 299
    assert groups.has(LEADS, "ann@example.com")
    clock += 2
    assert groups.has(LEADS, "ann@example.com") is False


@pytest.mark.parametrize("status", [403, 404, 429, 500])
def test_a_group_that_cannot_be_checked_gives_no_right_and_is_named(
    google: CloudIdentity, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    google.status = status
    with caplog.at_level(logging.WARNING):
        viewer = access(google).viewer("ann@example.com")
    assert (viewer.role, viewer.sees_personal, viewer.unchecked) == ("viewer", False, (LEADS, READERS))
    assert f"The members of {LEADS} cannot be checked ({status})" in caplog.text
    assert "ann@" not in caplog.text
    remedy = "cannot be checked, so the group gives you nothing: console-sa needs the role Groups Reader"
    with pytest.raises(NotAllowed, match=f"takes the role lead.*{LEADS}.*{remedy}"):
        allow(viewer, "lead", "replaying many payments")
    with pytest.raises(PersonalDataError, match=remedy):
        refuse(viewer)


def test_a_right_that_was_known_ends_when_its_group_cannot_be_checked(
    google: CloudIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr("support.console.groups.time.monotonic", lambda: clock)
    groups = Groups(google.url)
    assert groups.has(LEADS, "ann@example.com")
    google.status, clock = 500, clock + 301
    assert groups.has(LEADS, "ann@example.com") is None
    google.status = 200
    assert groups.has(LEADS, "ann@example.com") is None
    clock += 31
    assert groups.has(LEADS, "ann@example.com")


def test_nobody_who_listens_and_what_is_no_json_give_no_right(google: CloudIdentity) -> None:
    assert Groups("http://127.0.0.1:9").has(LEADS, "ann@example.com") is None
    google.answer = lambda path: (200, ["not", "what", "was", "meant"])  # type: ignore[method-assign]
    assert Groups(google.url).has(LEADS, "ann@example.com") is None


def test_whom_config_names_needs_no_group(google: CloudIdentity) -> None:
    google.status = 500
    assert access(google).viewer("bob@example.com").role == "agent"
    assert Access(leads=("user:Ann@example.com", f"group:{LEADS}")).viewer("ann@example.com").role == "lead"
    assert Access(leads=(f"group:{LEADS}",)).viewer("ann@example.com").unchecked == (LEADS,)
