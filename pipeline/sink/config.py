"""What a worker needs to reach its sink: plain settings, which travel, and the clients made from them, which do not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from contract.endpoints import on_this_machine
from contract.watched import WatchedTables
from pipeline import clients
from pipeline.clients import Endpoints
from pipeline.sink import fencing
from pipeline.sink.changelogs import Changelogs, Destinations
from pipeline.sink.generations import Generations, GenerationStore
from pipeline.sink.shards import SinkClients


@dataclass(frozen=True, kw_only=True)
class MetadataDatabase:
    """The database with generations, write streams and the resume position."""

    project: str
    instance: str
    database: str


@dataclass(frozen=True, kw_only=True)
class SinkSettings:
    """Everything about the sink that does not change while a job runs.

    `run_id` and `start` are of the launch: where a first job of the name begins. `generation` and `fenced_at` are of a
    worker that has joined the run; they do not travel.
    """

    endpoints: Endpoints
    metadata: MetadataDatabase
    destinations: Destinations
    job_name: str
    exactly_once: bool = True
    run_id: str = ""
    start: str = ""
    generation: int = 0
    fenced_at: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, str], job_name: str) -> SinkSettings:
        """From launch options."""
        watched = WatchedTables.from_json(values["watchedTables"])
        return cls(
            endpoints=Endpoints.of(values),
            metadata=MetadataDatabase(
                project=values["spannerMetadataProjectId"] or values["spannerProjectId"],
                instance=values["spannerMetadataInstanceId"],
                database=values["spannerMetadataDatabase"],
            ),
            destinations=Destinations(
                project=values["bigQueryProjectId"],
                dataset=values["bigQueryDataset"] or watched.payments.dataset,
                name_template=values["bigQueryChangelogTableNameTemplate"],
                watched=watched,
            ),
            job_name=job_name,
            exactly_once=values["writeMode"] == "exactly-once",
        )

    def joined(self) -> SinkSettings:
        """These settings with the run's generation and fence. Takes over if no worker of the run did. Raises Fenced."""
        if self.generation:
            return self
        run = fencing.join(self)
        return replace(self, generation=run.generation, fenced_at=run.fenced_at)

    def resume_position(self) -> str:
        """Where the run reads from. Takes over if no worker of the run did. Raises Fenced."""
        return fencing.join(self).position

    def generations(self) -> GenerationStore:
        at = self.metadata
        database = clients.spanner_database(self.endpoints.spanner, at.project, at.instance, at.database)
        return Generations(database, self.job_name)

    def bigquery(self) -> Any:
        return clients.bigquery_client(self.endpoints.bigquery, self.destinations.project)

    def connect(self) -> SinkClients:
        """Joins the run and makes the clients. Once a worker thread: a shard is not for several threads. Raises Fenced.

        At-least-once appends to the default stream, which has no generations, and looks nothing up.
        """
        joined = self.joined()
        query = self.bigquery()
        return SinkClients(
            write=clients.write_client(self.endpoints.bigquery_storage),
            query=query,
            changelogs=Changelogs(query, self.destinations),
            destinations=self.destinations,
            generations=self.generations() if self.exactly_once else None,
            generation=joined.generation,
            fenced_at=joined.fenced_at if self.exactly_once else None,
            stamp=_worker_clock if on_this_machine(self.endpoints.bigquery_storage) else None,
        )


def _worker_clock() -> int:
    return time.time_ns() // 1000
