"""The stack's config, read once into a checked value.

Types and defaults are in `Pulumi.yaml`; ranges, and relations between settings, here: one file per section.
`Settings.load` refuses everything that is wrong at once, each with its rule, its value and the remedy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import pulumi

from alerts.thresholds import Watched
from components import config, naming
from components.settings.console import ConsoleSettings
from components.settings.delivery import DeliverySettings
from components.settings.endpoints import Endpoints
from components.settings.identity import IdentitySettings
from components.settings.keys import KeySettings
from components.settings.labels import labels
from components.settings.monitoring import MonitoringSettings, watched
from components.settings.network import NetworkSettings, PerimeterSettings
from components.settings.orchestration import OrchestrationSettings
from components.settings.pause import PAUSED, Pause
from components.settings.pipeline import PipelineSettings
from components.settings.reader import Reader, SettingsError
from components.settings.replay import ReplaySettings
from components.settings.retention import RetentionSettings
from components.settings.spanner import SpannerSettings
from components.settings.tables import watched_tables
from components.settings.warehouse import WarehouseSettings
from contract import schema
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
    "OrchestrationSettings",
    "Pause",
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

# Launch options by which the probe and a validation know what the job writes.
_AUDIT_KNOWS: Final = frozenset(
    {"paymentStates", "newColumns", "ignoreFields", "ignoreTables", "ignoreOperations", "ignoreTransactionTags"}
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that may differ between stacks: one field per section. `labels`: ours, beside the organisation's.

    `project_wide`: this stack keeps what a project has once, such as which accesses to data are logged.
    """

    stack: str
    project: str
    prefix: str
    project_wide: bool
    region: str
    protect: bool
    labels: Mapping[str, str]
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
    orchestration: OrchestrationSettings
    console: ConsoleSettings
    replay: ReplaySettings
    delivery: DeliverySettings
    monitoring: MonitoringSettings
    pause: Pause | None

    @classmethod
    def load(cls) -> Self:
        """The config of the stack that is running. Raises SettingsError, also for a project that another stack has."""
        without_job, paused = _of_this_run(WITHOUT_JOB) == "true", _of_this_run(PAUSED)
        settings = cls.parse(pulumi.get_stack(), pulumi.Config().get, without_job=without_job, paused=paused)
        settings.beside(config.beside(settings.project, settings.stack))
        return settings

    def beside(self, others: Mapping[str, Mapping[str, Any]]) -> None:
        """Checks the config against that of the other stacks of its project. Raises SettingsError."""
        for stack, values in others.items():
            if values.get("prefix", "") == self.prefix:
                raise SettingsError(
                    f"prefix must be another one than that of {stack}, which is in project {self.project} too, got "
                    f"{self.prefix!r}. Two stacks of one prefix would take each other's resources: set it, or another "
                    f"project, in Pulumi.{self.stack}.yaml."
                )
            if shared := set(self.warehouse.existing) & set(values.get("existingDatasets") or ()):
                raise SettingsError(
                    f"existingDatasets must be others than those of {stack}, which is in project {self.project} too, "
                    f"got {', '.join(sorted(shared))} in both. The tables of both would have one name: name another "
                    f"dataset in the tables file of Pulumi.{self.stack}.yaml."
                )
            if self.project_wide and values.get("projectWide"):
                raise SettingsError(
                    f"projectWide must be true in one stack of a project, got true here and in {stack}, which is in "
                    f"project {self.project} too. Both would keep what the project has once, and overwrite each "
                    f"other's: set it to false in Pulumi.{self.stack}.yaml or Pulumi.{stack}.yaml."
                )

    @property
    def names(self) -> naming.Names:
        """What this stack calls its things."""
        return naming.Names(project=self.project, prefix=self.prefix)

    @property
    def looked_at(self) -> Watched:
        """What the alerts look at."""
        return watched(self.spanner, self.watched, self.names, project_wide=self.project_wide)

    @property
    def viewers(self) -> tuple[str, ...]:
        """Who reads the views: the readers, and who is on call. Each once: a second grant would take the first away."""
        return tuple(dict.fromkeys((*self.warehouse.readers, *self.identity.on_call)))

    @property
    def composer_bucket(self) -> str:
        """The bucket of the environment that has the DAGs, without `gs://`; empty where there is none."""
        orchestration = self.orchestration
        own = self.names.bucket("composer") if orchestration.own_environment else ""
        return orchestration.bucket or own

    def for_audit(self) -> dict[str, str]:
        """What `audit` has to know about the config: the probe's view of payments, and the goals."""
        pipeline, numbers = self.pipeline, self.monitoring.thresholds
        return {
            "region": self.region,
            **({"prefix": self.prefix} if self.prefix else {}),
            **{name: pipeline.options.get(name, "") for name in sorted(_AUDIT_KNOWS)},
            "stuckLimits": pipeline.stuck_limits,
            "replayMost": str(self.replay.most),
            "spannerProject": self.spanner.project,
            "databaseRoles": "true" if self.spanner.roles else "",
            "replayDataBoost": str(self.replay.data_boost).lower(),
            "replayTopic": self.replay.topic_of(self.names),
            "backupDays": str(self.retention.backup_days),
            "latencyGoal": str(numbers.latency_goal),
            "throughputGoal": str(numbers.throughput_goal),
            "designTps": str(numbers.design_tps),
        }

    @classmethod
    def parse(
        cls,
        stack: str,
        get: Callable[[str], str | None],
        *,
        without_job: bool = False,
        paused: str | None = None,
    ) -> Self:
        """Checks config as Pulumi gives it: `get` returns text, arrays as JSON. SettingsError has every problem.

        A run `without_job` needs no image; `paused` is since when the stack is.
        """
        read = Reader(stack, get)
        settings = cls(
            stack=stack,
            project=read.text("project", r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "a Google Cloud project id"),
            prefix=read.text("prefix", naming.PREFIX, naming.PREFIX_RULE),
            project_wide=read.boolean("projectWide"),
            region=read.text("region", r"[a-z]+-[a-z]+\d+", "a region, such as us-central1"),
            protect=read.boolean("deletionProtection"),
            labels=labels(read),
            endpoints=Endpoints.read(read),
            identity=IdentitySettings.read(read),
            network=NetworkSettings.read(read),
            perimeter=PerimeterSettings.read(read),
            keys=KeySettings.read(read),
            retention=RetentionSettings.read(read),
            spanner=SpannerSettings.read(read),
            warehouse=WarehouseSettings.read(read),
            watched=watched_tables(read).with_prefix(
                read.text("prefix", ".*", "text"), kept=read.texts("existingDatasets", ".*", "names")
            ),
            pipeline=PipelineSettings.read(read),
            orchestration=OrchestrationSettings.read(read),
            console=ConsoleSettings.read(read),
            replay=ReplaySettings.read(read),
            delivery=DeliverySettings.read(read),
            monitoring=MonitoringSettings.read(read),
            pause=Pause.parse(paused),
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
        self.identity.relations(read, self.project, not self.network.subnetwork)
        self.network.relations(read, self.region)
        secret = self.keys.masking_secret
        secret_elsewhere = bool(secret) and not secret.startswith(f"projects/{self.project}/")
        self.perimeter.relations(read, self.network.shared(self.project), secret_elsewhere, self.project_wide)
        self.keys.relations(read)
        self.retention.relations(read, self.region, self.warehouse.location, self.project_wide)
        self.spanner.relations(read, self.region, self.keys.customer_managed, self.names)
        if self.spanner.existing != self.watched.attached:
            key = "ddl" if self.spanner.existing else "changelog"
            rule = f"a description with `{key}` where schemaOwner is {self.spanner.schema_owner}"
            read.refuse("tables", rule, read.text("tables", ".*", "a file"))
        elif self.spanner.roles and not self.spanner.existing:
            needed = {schema.READER_ROLE, schema.WRITER_ROLE, schema.PROBE_ROLE, schema.VALIDATION_ROLE}
            if absent := sorted(needed - schema.catalog(self.watched.source_changelog).roles):
                rule = f"databaseRoles, or the changelog must make the roles {', '.join(absent)}"
                read.refuse("spannerAccess", rule, self.spanner.access)
        self.warehouse.relations(read, self.region, self.watched)
        instance_config = "" if self.spanner.existing else self.spanner.instance_config
        self.pipeline.relations(read, without_job, self.watched, instance_config)
        self.orchestration.relations(read, self.pipeline.owner)
        self.delivery.relations(read)
        self.monitoring.relations(read, self.looked_at)
        if self.pause:
            self.pause.relations(read)


def _of_this_run(key: str) -> str | None:
    """What delivery passes to the program for one run."""
    namespace, _, name = key.partition(":")
    return pulumi.Config(namespace).get(name)
