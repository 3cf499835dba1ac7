"""Streaming calls over several channels."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.channels import StreamingCall, StreamingChannels


class FakeCall:
    """A call that answers what the test says, and ends then."""

    def __init__(self, answers: list[str]) -> None:
        self._answers = answers

    def __next__(self) -> str:
        if not self._answers:
            raise StopIteration
        return self._answers.pop(0)

    def cancel(self) -> None:
        self._answers.clear()


class FakeChannel:
    def __init__(self, number: int) -> None:
        self.number = number
        self.unary = 0
        self.closed = threading.Event()

    def unary_stream(self, method: str, **_: Any) -> Callable[..., FakeCall]:
        return lambda request, **_: FakeCall(list(request))

    def unary_unary(self, method: str, **_: Any) -> Callable[..., str]:
        self.unary += 1
        return str

    def close(self) -> None:
        self.closed.set()


class Pool:
    def __init__(self, **options: Any) -> None:
        self.opened: list[FakeChannel] = []
        self.now = 0.0
        self.channels = StreamingChannels(self._open, clock=lambda: self.now, **options)
        self._query = self.channels.unary_stream("/q")

    def _open(self, number: int) -> FakeChannel:
        self.opened.append(FakeChannel(number))
        return self.opened[-1]

    def call(self, *answers: str, **options: Any) -> StreamingCall:
        return self._query(answers, **options)


def test_another_channel_is_opened_when_the_others_are_full() -> None:
    pool = Pool(streams_a_channel=3)
    calls = [pool.call() for _ in range(7)]
    assert pool.channels.open_channels == 3
    calls[0].cancel()
    pool.call()
    assert pool.channels.open_channels == 3
    assert len(pool.opened) == 3


def test_a_channel_whose_last_call_has_ended_is_closed_and_one_is_kept() -> None:
    pool = Pool(streams_a_channel=2)
    calls = [pool.call() for _ in range(4)]
    for call in calls[2:]:
        call.cancel()
    assert pool.opened[1].closed.is_set()
    for call in calls[:2]:
        call.cancel()
    assert not pool.opened[0].closed.is_set()
    pool.call()
    assert len(pool.opened) == 2


def test_a_unary_call_has_a_channel_without_streams() -> None:
    pool = Pool(streams_a_channel=2)
    pool.call()
    assert pool.channels.unary_unary("/u")("x") == "x"
    assert [channel.unary for channel in pool.opened] == [0, 1]


def test_a_call_that_has_come_to_its_end_frees_its_place() -> None:
    pool = Pool(streams_a_channel=1)
    for _ in range(5):
        assert list(pool.call("a", "b")) == ["a", "b"]
    assert len(pool.opened) == 1


def test_a_call_that_cannot_be_made_frees_its_place() -> None:
    class Broken(FakeChannel):
        def unary_stream(self, method: str, **_: Any) -> Callable[..., FakeCall]:
            def call(request: Any) -> FakeCall:
                raise ValueError("closed")

            return call

    channels = StreamingChannels(Broken, streams_a_channel=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="closed"):
            channels.unary_stream("/q")(())
    assert channels.open_channels == 1


def answered(pool: Pool, many: int) -> list[StreamingCall]:
    calls = [pool.call("a", "b") for _ in range(many)]
    for call in calls:
        next(call)
    return calls


def wait_for(call: StreamingCall, since: float) -> None:
    """As a thread that has asked for the next response and does not get it."""
    call._waits_since = since


def test_a_server_that_allows_fewer_streams_is_found_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(streams_a_channel=40)
    answered(pool, 20)
    silent = pool.call()
    wait_for(silent, 0.0)
    pool.now = 30.0
    with caplog.at_level(logging.WARNING):
        pool.channels.unserved(silent)
    assert "answers 20 calls at once" in caplog.text
    silent.cancel()
    assert list(silent) == []
    pool.call(avoid=silent)
    assert pool.channels.open_channels == 2


def test_a_server_that_answers_nobody_is_not_one_that_allows_few_streams() -> None:
    pool = Pool(streams_a_channel=40)
    calls = answered(pool, 20)
    silent = pool.call()
    for call in [*calls, silent]:
        wait_for(call, 0.0)
    pool.now = 30.0
    pool.channels.unserved(silent)
    assert list(silent) == []
    for _ in range(20):
        pool.call()
    assert pool.channels.open_channels == 1


def test_a_call_is_silent_only_while_somebody_waits_for_it() -> None:
    pool = Pool()
    call = pool.call("a")
    pool.now = 50.0
    assert call.silent_seconds() == 0
    next(call)
    pool.now = 100.0
    assert call.silent_seconds() == 0
    wait_for(call, 90.0)
    assert call.silent_seconds() == 10
