"""Replays: how many payments, on whose capacity they are read, and whether they are handed over for reprocessing."""

from dataclasses import dataclass
from typing import Final, Self

from components.naming import Names
from components.settings.reader import Reader
from contract import options

# A topic that is there, or the name of one that the stack makes.
_TOPIC: Final = rf"|{options.TOPIC}|{options.TOPIC_NAME}"


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """`topic` is empty where nothing is handed over. `most`: payments of one replay."""

    topic: str
    most: int
    data_boost: bool

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            topic=read.text("replayTopic", _TOPIC, "empty, projects/P/topics/T, or the name of a topic to make"),
            most=read.integer("replayMost", 1, 50_000_000),
            data_boost=read.boolean("replayDataBoost"),
        )

    @property
    def own_topic(self) -> bool:
        """Whether the stack makes the topic."""
        return bool(self.topic) and "/" not in self.topic

    def topic_of(self, names: Names) -> str:
        """The topic's full name; empty for none."""
        return f"projects/{names.project}/topics/{names.of(self.topic)}" if self.own_topic else self.topic
