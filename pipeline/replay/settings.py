"""What a replay runs with: plain settings, which travel to workers, and the clients made from them, which do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from contract.options import BATCH_OPTIONS, OPTIONS
from pipeline import clients
from pipeline.replay.hand_over import HandOver
from pipeline.replay.store import ReplayStore
from pipeline.sink.config import SinkSettings
from pipeline.transforms.settings import TransformSettings


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Where a replay reads, how it makes rows of what it reads, and where these go. `most`: rows of one replay.

    A backfill waits for the resume position of the job `job_name`; `design_tps` bounds what it reads of BigQuery.
    """

    project: str
    instance: str
    database: str
    role: str
    transforms: TransformSettings
    sink: SinkSettings
    dead_letters: str
    most: int
    job_name: str = ""
    design_tps: float = 500
    data_boost: bool = False
    hand_over: HandOver | None = None

    @classmethod
    def of(cls, values: Mapping[str, str]) -> ReplaySettings:
        """From launch options; one that is not given has its default. Raises ValueError where one breaks its rule."""
        defaults = {option.name: option.default or "" for option in (*OPTIONS, *BATCH_OPTIONS)}
        values = {**defaults, **values}
        return cls(
            project=values["spannerProjectId"],
            instance=values["spannerInstanceId"],
            database=values["spannerDatabase"],
            role=values["spannerDatabaseRole"],
            transforms=TransformSettings.of(values),
            sink=SinkSettings.of(values, "replay"),
            dead_letters=values["deadLetterQueueDirectory"],
            most=int(values["replayMost"]),
            job_name=values["jobName"],
            design_tps=float(values["designTps"]),
            data_boost=values["dataBoost"] == "true",
            hand_over=HandOver.of(values["replayTopic"], values["pubSubEndpoint"]),
        )

    def source(self) -> Any:
        """Spanner's database of the payments."""
        place = (self.project, self.instance, self.database)
        return clients.spanner_database(self.sink.endpoints.spanner, *place, self.role)

    def position(self) -> str | None:
        """The resume position of the streaming job; None where it has not said one yet."""
        return replace(self.sink, job_name=self.job_name).generations().position()

    def store(self) -> ReplayStore:
        at = self.sink.metadata
        return ReplayStore(clients.spanner_database(self.sink.endpoints.spanner, at.project, at.instance, at.database))
