"""The support console: its image, who may open it and what they may do there, and where its address is reached."""

from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader

_IMAGE: Final = r"|[a-z0-9-]+-docker\.pkg\.dev/[^/@:]+/[^/@:]+/[^@:]+@sha256:[0-9a-f]{64}"
_PEOPLE: Final = (r"(group|user):[^@\s]+@[^@\s]+", "people, such as group:support-leads@example.com")


@dataclass(frozen=True, kw_only=True)
class ConsoleSettings:
    """Without an `image` there is no console. A lead may do what an agent may, an agent what a viewer may."""

    image: str
    min_instances: int
    internal: bool
    viewers: tuple[str, ...]
    agents: tuple[str, ...]
    leads: tuple[str, ...]

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            image=read.text(
                "consoleImage", _IMAGE, "empty or LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/NAME@sha256:…"
            ),
            min_instances=read.integer("consoleMinInstances", 0, 3),
            internal=read.text("consoleIngress", "all|internal", "all or internal") == "internal",
            viewers=read.texts("consoleViewers", *_PEOPLE),
            agents=read.texts("consoleAgents", *_PEOPLE),
            leads=read.texts("consoleLeads", *_PEOPLE),
        )
