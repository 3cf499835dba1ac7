"""What is checked: the stack's graph, and the project that it is to be made in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from components import naming
from delivery.preflight.findings import Finding, State
from delivery.preflight.google import Google, NotSeen
from graph.resources import Graph, Node


@dataclass(frozen=True)
class Target:
    """`pinned`: the images that the stack's file names. The graph has stand-ins for those that it does not."""

    google: Google
    graph: Graph
    pinned: Mapping[str, str]

    @property
    def stack(self) -> str:
        return self.graph.stack

    @property
    def project(self) -> str:
        return str(self.graph.config["project"])

    @property
    def names(self) -> naming.Names:
        return naming.Names.of_config(self.graph.config)

    @property
    def region(self) -> str:
        return str(self.graph.config["region"])

    @property
    def repository(self) -> str:
        """Where the job's image is, or will be: the repository that bootstrap makes, unless config names another."""
        image = self.pinned.get("image") or str(self.graph.config.get("deliveryImage") or "")
        if found := re.match(r"([a-z0-9-]+)-docker\.pkg\.dev/([^/]+)/([^/]+)/", image):
            return f"projects/{found[2]}/locations/{found[1]}/repositories/{found[3]}"
        return f"projects/{self.project}/locations/{self.region}/repositories/{naming.IMAGES}"

    @cached_property
    def number(self) -> str:
        """The project's number; empty where there is no such project. Raises NotSeen.

        Source: cloud.google.com/resource-manager/reference/rest/v1/projects/get.
        """
        found = self.google.get(f"cloudresourcemanager.googleapis.com/v1/projects/{self.project}")
        return str(found["projectNumber"]) if found and found.get("lifecycleState", "ACTIVE") == "ACTIVE" else ""

    def of(self, kind: str) -> list[Node]:
        """The resources of a kind, such as `storage/bucket`."""
        return [node for node in self.graph.nodes if node.type.startswith(f"gcp:{kind}:")]


def looked(check: str, what: str, look: Callable[[], Any]) -> tuple[Any, Finding | None]:
    """What a look gives, or the finding that it could not be made."""
    try:
        return look(), None
    except NotSeen as error:
        return None, not_seen(check, what, error)


def not_seen(check: str, what: str, error: NotSeen) -> Finding:
    """That a look could not be made, and why."""
    return Finding(check=check, what=what, state=State.NOT_SEEN, why=str(error), repair=error.repair)
