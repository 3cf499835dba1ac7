"""What a worker needs to reach its sink: plain settings, which travel, and the clients made from them, which do not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pipeline import clients
from pipeline.clients import Endpoints
from pipeline.sink.changelogs import Changelogs, Destinations
from pipeline.sink.generations import Generations
from pipeline.sink.shards import SinkClients


@dataclass(frozen=True, kw_only=True)
class MetadataDatabase:
    """The database with generations, write streams and the resume position."""

    project: str
    instance: str
    database: str


@dataclass(frozen=True, kw_only=True)
class SinkSettings:
    """Everything about the sink that does not change while a job runs."""

    endpoints: Endpoints
    metadata: MetadataDatabase
    destinations: Destinations
    job_name: str
    exactly_once: bool = True
    generation: int = 0
    fenced_at: str | None = None

    def generations(self) -> Generations:
        at = self.metadata
        database = clients.spanner_database(self.endpoints.spanner, at.project, at.instance, at.database)
        return Generations(database, self.job_name)

    def bigquery(self) -> Any:
        return clients.bigquery_client(self.endpoints.bigquery, self.destinations.project)

    def connect(self) -> SinkClients:
        """Makes the clients. Once a worker thread: a shard is not for several threads."""
        query = self.bigquery()
        return SinkClients(
            write=clients.write_client(self.endpoints.bigquery_storage),
            query=query,
            changelogs=Changelogs(query, self.destinations),
            destinations=self.destinations,
            generations=self.generations() if self.exactly_once else None,
            generation=self.generation,
            fenced_at=self.fenced_at,
            stamp=_worker_clock if self.endpoints.bigquery_storage else None,
        )


def _worker_clock() -> int:
    return time.time_ns() // 1000
