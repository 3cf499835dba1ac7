"""Hands replayed payments over for reprocessing: a Pub/Sub message for each, which has its id and none of its data.

At least once: who takes the messages must take one of them twice as once. Messages of one payment have its id as their
ordering key. Source: cloud.google.com/pubsub/docs/reference/rest/v1/projects.topics/publish, its limits:
cloud.google.com/pubsub/quotas#resource_limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.clients import authorized_session
from pipeline.sink.changelogs import NotReady

_GOOGLE: Final = "https://pubsub.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/pubsub"
# Messages of one request, and bytes of an attribute's value.
_MOST: Final = 1_000
_VALUE_BYTES: Final = 1_024
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
_TIMEOUT_SECONDS: Final = 30


@dataclass(frozen=True, kw_only=True)
class Handed:
    """What is said of a replayed payment. `state` is `initiated`, `processed` or `failed`; empty for an unknown one."""

    puid: str
    table: str
    state: str
    replay_id: str
    reason: str

    def message(self) -> dict[str, Any]:
        """A PubsubMessage with attributes alone."""
        reason = self.reason.encode()[:_VALUE_BYTES].decode(errors="ignore")
        attributes = {"puid": self.puid, "table": self.table, "state": self.state, "replayId": self.replay_id}
        return {"attributes": {**attributes, "reason": reason}, "orderingKey": self.puid}


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """The topic, as projects/P/topics/T. An empty endpoint means Google Cloud."""

    topic: str
    endpoint: str = ""

    @classmethod
    def of(cls, topic: str, endpoint: str) -> HandOver | None:
        """None where no topic is named: nothing is handed over then."""
        return cls(topic=topic, endpoint=endpoint) if topic else None

    def publish(self, handed: Sequence[Handed], *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Publishes a message for each: once it returns, Pub/Sub has them all. Raises NotReady after some or none."""
        url = f"{self.endpoint or _GOOGLE}/v1/{self.topic}:publish"
        with authorized_session(self.endpoint, _SCOPE) as session:
            for start in range(0, len(handed), _MOST):
                messages = [each.message() for each in handed[start : start + _MOST]]
                _post(session, url, {"messages": messages}, sleep)


def _post(session: Any, url: str, body: dict[str, Any], sleep: Callable[[float], None]) -> None:
    import requests

    for pause in (*_PAUSES, None):
        try:
            answer = session.post(url, json=body, timeout=_TIMEOUT_SECONDS)
            if answer.ok:
                return
            why = f"answers {answer.status_code}"
            lasting = answer.status_code not in (408, 429) and answer.status_code < 500
        except requests.RequestException as error:
            why, lasting = f"does not answer ({type(error).__name__})", False
        if pause is None or lasting:
            raise NotReady(
                f"Pub/Sub {why} for the topic of replayTopic: it must exist, and who replays must be its publisher"
            )
        sleep(pause)
