"""Handing replayed payments over: what Pub/Sub takes, and nothing of a payment but its id."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pipeline.replay.hand_over import Handed, HandOver
from pipeline.sink.changelogs import NotReady
from tests.strict.google_apis import PubSub, serving

TOPIC = "projects/p/topics/replays"


@pytest.fixture
def pubsub() -> PubSub:
    return PubSub(topics=frozenset({TOPIC}))


@pytest.fixture
def to(pubsub: PubSub) -> Iterator[HandOver]:
    with serving(pubsub) as address:
        yield HandOver(topic=TOPIC, endpoint=address)


def handed(puid: str, reason: str = "INC-4711") -> Handed:
    return Handed(puid=puid, table="payment_audit_trail", state="failed", replay_id="R", reason=reason)


def test_a_payment_is_a_message_with_its_id_as_the_ordering_key_and_no_data(to: HandOver, pubsub: PubSub) -> None:
    to.publish([handed("p1")])
    assert pubsub.messages == [
        {
            "attributes": {
                "puid": "p1",
                "table": "payment_audit_trail",
                "state": "failed",
                "replayId": "R",
                "reason": "INC-4711",
            },
            "orderingKey": "p1",
        }
    ]


def test_many_are_several_requests_and_a_long_reason_is_cut_to_what_an_attribute_takes(
    to: HandOver, pubsub: PubSub
) -> None:
    to.publish([handed(f"p{number}", "ü" * 1_000) for number in range(2_500)])
    assert (pubsub.requests, len(pubsub.messages)) == (3, 2_500)
    assert len({json.dumps(message) for message in pubsub.messages}) == 2_500


def test_what_passes_is_tried_again_and_what_does_not_is_an_error_with_the_remedy(to: HandOver, pubsub: PubSub) -> None:
    pauses: list[float] = []
    pubsub.refuse = [503, 429]
    to.publish([handed("p1")], sleep=pauses.append)
    assert (len(pubsub.messages), len(pauses)) == (1, 2)
    pubsub.refuse = [503] * 6
    with pytest.raises(NotReady, match="answers 503"):
        to.publish([handed("p2")], sleep=pauses.append)
    pubsub.topics, before = frozenset(), pubsub.requests
    with pytest.raises(NotReady, match=r"answers 404 .* must exist, and who replays must be its publisher"):
        to.publish([handed("p3")], sleep=pauses.append)
    assert pubsub.requests == before + 1


def test_nobody_there_is_an_error_too() -> None:
    away = HandOver(topic=TOPIC, endpoint="http://127.0.0.1:9")
    with pytest.raises(NotReady, match="does not answer"):
        away.publish([handed("p1")], sleep=lambda _: None)


def test_without_a_topic_nothing_is_handed_over() -> None:
    assert HandOver.of("", "") is None
