"""The stack's config, read once into a checked value.

Types and defaults are in `Pulumi.yaml`; ranges, and relations between settings, here: one file per section.
`Settings.load` refuses everything that is wrong at once, each with its rule, its value and the remedy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import pulumi

from components import config
from components.settings.console import ConsoleSettings
from components.settings.delivery import DeliverySettings
from components.settings.endpoints import Endpoints
from components.settings.identity import IdentitySettings
from components.settings.keys import KeySettings
from components.settings.monitoring import MonitoringSettings
from components.settings.network import NetworkSettings, PerimeterSettings
from components.settings.pipeline import PipelineSettings
from components.settings.reader import Reader, SettingsError
from components.settings.replay import ReplaySettings
from components.settings.retention import RetentionSettings
from components.settings.spanner import SpannerSettings
from components.settings.tables import watched_tables
from components.settings.warehouse import WarehouseSettings
from contract.watched import WatchedTables

__all__ = [
    "WITHOUT_JOB",
    "ConsoleSettings",
    "DeliverySettings",
    "Endpoints",
    "IdentitySettings",
    "KeySettings",
    "MonitoringSettings",
    "NetworkSettings",
    "PerimeterSettings",
    "PipelineSettings",
    "ReplaySettings",
    "RetentionSettings",
    "Settings",
    "SettingsError",
    "SpannerSettings",
    "WarehouseSettings",
]

# What `delivery.deploy --without-job` passes to the program for one run. No stack's file has it: a job that is left out
# permanently would be ended.
WITHOUT_JOB: Final = "delivery:withoutJob"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that may differ between stacks: one field per section."""

    stack: str
    project: str
    region: str
    protect: bool
    endpoints: Endpoints
    identity: IdentitySettings
    network: NetworkSettings
    perimeter: PerimeterSettings
    keys: KeySettings
    retention: RetentionSettings
    spanner: SpannerSettings
    warehouse: WarehouseSettings
    watched: WatchedTables
    pipeline: PipelineSettings
    console: ConsoleSettings
    replay: ReplaySettings
    delivery: DeliverySettings
    monitoring: MonitoringSettings

    @classmethod
    def load(cls) -> Self:
        """The config of the stack that is running. Raises SettingsError, also for a project that another stack has."""
        namespace, _, name = WITHOUT_JOB.partition(":")
        without_job = pulumi.Config(namespace).get_bool(name) or False
        settings = cls.parse(pulumi.get_stack(), pulumi.Config().get, without_job=without_job)
        if others := [stack for stack in config.stacks_of(settings.project) if stack != settings.stack]:
            raise SettingsError(
                f"project must be the stack's own, got {settings.project!r}, which is {others[0]}'s too. "
                f"Two stacks in one project would take each other's resources: set it in Pulumi.{settings.stack}.yaml."
            )
        return settings

    @property
    def viewers(self) -> tuple[str, ...]:
        """Who reads the views: the readers, and who is on call. Each once: a second grant would take the first away."""
        return tuple(dict.fromkeys((*self.warehouse.readers, *self.identity.on_call)))

    def for_audit(self) -> dict[str, str]:
        """What `audit` has to know about the config: the probe's view of payments, and the goals."""
        pipeline, numbers = self.pipeline, self.monitoring.thresholds
        return {
            "region": self.region,
            **{n: pipeline.options.get(n, "") for n in ("paymentStates", "ignoreFields", "ignoreTables", "newColumns")},
            "stuckLimits": pipeline.stuck_limits,
            "replayMost": str(self.replay.most),
            "replayDataBoost": str(self.replay.data_boost).lower(),
            "replayTopic": self.replay.topic_of(self.project),
            "backupDays": str(self.retention.backup_days),
            "latencyGoal": str(numbers.latency_goal),
            "throughputGoal": str(numbers.throughput_goal),
            "designTps": str(numbers.design_tps),
        }

    @classmethod
    def parse(cls, stack: str, get: Callable[[str], str | None], *, without_job: bool = False) -> Self:
        """Checks config as Pulumi gives it: `get` returns text, arrays as JSON. SettingsError has every problem.

        A run `without_job` needs no image.
        """
        read = Reader(stack, get)
        settings = cls(
            stack=stack,
            project=read.text("project", r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "a Google Cloud project id"),
            region=read.text("region", r"[a-z]+-[a-z]+\d+", "a region, such as us-central1"),
            protect=read.boolean("deletionProtection"),
            endpoints=Endpoints.read(read),
            identity=IdentitySettings.read(read),
            network=NetworkSettings.read(read),
            perimeter=PerimeterSettings.read(read),
            keys=KeySettings.read(read),
            retention=RetentionSettings.read(read),
            spanner=SpannerSettings.read(read),
            warehouse=WarehouseSettings.read(read),
            watched=watched_tables(read),
            pipeline=PipelineSettings.read(read),
            console=ConsoleSettings.read(read),
            replay=ReplaySettings.read(read),
            delivery=DeliverySettings.read(read),
            monitoring=MonitoringSettings.read(read),
        )
        read.finish()
        settings._relations(read, without_job)
        read.finish()
        return settings

    def _relations(self, read: Reader, without_job: bool) -> None:
        """Rules between settings, of every section."""
        if self.stack == "prod" and not self.protect:
            read.refuse("deletionProtection", "true in prod", "false")
        self.endpoints.relations(read)
        self.identity.relations(read)
        self.network.relations(read, self.region)
        self.perimeter.relations(read)
        self.keys.relations(read)
        self.retention.relations(read, self.region, self.warehouse.location)
        self.spanner.relations(read, self.region, self.keys.customer_managed)
        self.warehouse.relations(read, self.region)
        self.pipeline.relations(read, without_job, self.watched)
        self.delivery.relations(read)
        self.monitoring.relations(read, self.spanner, self.watched)
