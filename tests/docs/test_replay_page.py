"""The consumer that docs/replay.md shows, on messages that come twice, late and after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.replay.hand_over import Handed
from tests import documents
from tests.documents import ROOT

PAGE = (ROOT / "docs" / "replay.md").read_text()


class Message:
    def __init__(self, puid: str, replay_id: str) -> None:
        handed = Handed(puid=puid, table="t", state="failed", replay_id=replay_id, reason="INC-4711")
        self.attributes = handed.message()["attributes"]
        self.acked = False

    def ack(self) -> None:
        self.acked = True


class Payments:
    """A store with transactions: what is not committed did not happen."""

    def __init__(self, **statuses: str) -> None:
        self.statuses = statuses
        self.done: set[Any] = set()
        self.runs: list[str] = []
        self.crashes = 0

    @contextmanager
    def transaction(self) -> Iterator[Payments]:
        before = set(self.done), list(self.runs)
        try:
            yield self
            if self.crashes:
                self.crashes -= 1
                raise ConnectionError
        except ConnectionError:
            self.done, self.runs = before
            raise

    def insert_if_new(self, _: str, key: Any) -> bool:
        new = key not in self.done
        self.done.add(key)
        return new

    def read(self, puid: str) -> dict[str, str] | None:
        return {"Status": self.statuses[puid]} if puid in self.statuses else None

    def run_again(self, puid: str, reason: str) -> None:
        self.runs.append(puid)


@pytest.fixture(scope="module")
def handle() -> Any:
    [(_, code)] = documents.blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(code, names)
    return names["handle"]


def test_a_message_that_comes_twice_is_worked_on_once_and_another_replay_again(handle: Any) -> None:
    payments = Payments(p="FAILED")
    messages = [Message("p", "R1"), Message("p", "R1"), Message("p", "R2")]
    for message in messages:
        handle(message, payments)
    assert payments.runs == ["p", "p"]
    assert all(message.acked for message in messages)


def test_a_crash_before_the_commit_leaves_the_message_for_another_try(handle: Any) -> None:
    payments, message = Payments(p="FAILED"), Message("p", "R1")
    payments.crashes = 1
    with pytest.raises(ConnectionError):
        handle(message, payments)
    assert not message.acked and payments.runs == []
    handle(message, payments)
    assert message.acked and payments.runs == ["p"]


def test_a_payment_that_has_changed_or_is_gone_is_not_run_again(handle: Any) -> None:
    payments = Payments(p="CAPTURED")
    for puid in ("p", "gone"):
        handle(Message(puid, "R1"), payments)
    assert payments.runs == []


def test_the_page_names_every_attribute_of_a_message() -> None:
    for name in Message("p", "R").attributes:
        assert f"| `{name}` |" in PAGE
