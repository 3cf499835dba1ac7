"""The stack's config, read once into a checked value.

Types and defaults are in `Pulumi.yaml`, ranges and relations here. `Settings.load` refuses everything that is wrong at
once, each with its rule, its value and the way out.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import pulumi

from contract import options, payments

# Launch options that a stack's config sets, under their own names. Resources give the rest; endTimestamp and dryRun are
# for a person who launches a job by hand.
LAUNCH_OPTIONS: Final = (
    "rpcPriority",
    "startTimestamp",
    "readMode",
    "heartbeatMillis",
    "windowMillis",
    "newColumns",
    "paymentStates",
    "ignoreFields",
    "ignoreTables",
    "writeMode",
    "numStorageWriteApiStreams",
    "batchMillis",
    "batchRows",
    "dlqRetryMinutes",
    "dlqMaxRetries",
    "disableDlqRetries",
    "logLevel",
)
_LOOPBACK: Final = r"(127\.0\.0\.1|localhost|\[::1\])"


class SettingsError(ValueError):
    """The stack's config breaks rules; the message has one line for each."""


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where the services are. Empty is Google Cloud."""

    spanner: str
    spanner_admin: str
    big_query: str
    big_query_storage: str


@dataclass(frozen=True, kw_only=True)
class SpannerSettings:
    instance_config: str
    processing_units: int
    version_retention: str
    schema_owner: str
    schema_contexts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class WarehouseSettings:
    location: str
    merge_minutes: int
    readers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """`options` holds the launch options of LAUNCH_OPTIONS that config gives a value."""

    owner: str
    template: str
    machine_type: str
    workers: int
    max_workers: int
    subnetwork: str
    dead_letter_days: int
    options: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that may differ between stacks."""

    stack: str
    project: str
    region: str
    protect: bool
    endpoints: Endpoints
    spanner: SpannerSettings
    warehouse: WarehouseSettings
    pipeline: PipelineSettings

    @classmethod
    def load(cls) -> Self:
        """The config of the stack that is running. Raises SettingsError."""
        return cls.parse(pulumi.get_stack(), pulumi.Config().get)

    @classmethod
    def parse(cls, stack: str, get: Callable[[str], str | None]) -> Self:
        """Checks config as Pulumi gives it: `get` returns text, arrays as JSON. SettingsError has every problem."""
        read = _Reader(stack, get)
        settings = cls(
            stack=stack,
            project=read.text("project", r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "a Google Cloud project id"),
            region=read.text("region", r"[a-z]+-[a-z]+\d+", "a region, such as us-central1"),
            protect=read.boolean("deletionProtection"),
            endpoints=_endpoints(read),
            spanner=_spanner(read),
            warehouse=_warehouse(read),
            pipeline=_pipeline(read),
        )
        read.finish()
        _relations(settings, read)
        read.finish()
        return settings


def _endpoints(read: "_Reader") -> Endpoints:
    address = (rf"|{_LOOPBACK}:\d+|[\w.-]+:443", "empty, a host:port of this machine or a host:443 (TLS)")
    url = (
        rf"|http://{_LOOPBACK}(:\d+)?|https://[\w.-]+(:\d+)?",
        "empty, an http:// URL of this machine or an https:// URL",
    )
    return Endpoints(
        spanner=read.text("spannerEndpoint", *address),
        spanner_admin=read.text("spannerAdminEndpoint", *url),
        big_query=read.text("bigQueryEndpoint", *url),
        big_query_storage=read.text("bigQueryStorageEndpoint", *address),
    )


def _spanner(read: "_Reader") -> SpannerSettings:
    units = read.integer("spannerProcessingUnits", 100, 10_000_000)
    if units % (100 if units < 1000 else 1000):
        read.refuse("spannerProcessingUnits", "a multiple of 100 below 1000, of 1000 from there", str(units))
    return SpannerSettings(
        instance_config=read.text("spannerInstanceConfig", r"[a-z][a-z0-9-]+", "an instance config, such as nam3"),
        processing_units=units,
        version_retention=read.text("spannerVersionRetention", r"([1-9]|1\d|2[0-4])h|[1-7]d", "1h to 24h or 1d to 7d"),
        schema_owner=read.text("schemaOwner", "pulumi|liquibase", "pulumi or liquibase"),
        schema_contexts=read.texts("schemaContexts", r"[a-z]+", "names of Liquibase contexts"),
    )


def _warehouse(read: "_Reader") -> WarehouseSettings:
    member = r"(group|user|serviceAccount):[^@\s]+@[^@\s]+"
    return WarehouseSettings(
        location=read.text("warehouseLocation", r"US|EU|[a-z]+-[a-z]+\d+", "a BigQuery location, such as us-central1"),
        merge_minutes=read.integer("mergeMinutes", 5, 60),
        readers=read.texts("readers", member, "members such as group:support-staff@example.com, never everyone"),
    )


def _pipeline(read: "_Reader") -> PipelineSettings:
    return PipelineSettings(
        owner=read.text("pipelineOwner", "pulumi|composer", "pulumi or composer"),
        template=read.text("templatePath", r"|gs://.+\.json", "empty or a gs://….json path"),
        machine_type=read.text("machineType", r"[a-z][a-z0-9]*-[a-z]+-\d+", "a machine type, such as n2-standard-4"),
        workers=read.integer("workers", 1, 1000),
        max_workers=read.integer("maxWorkers", 1, 1000),
        subnetwork=read.text("subnetwork", r"|regions/[^/]+/subnetworks/[^/]+", "empty or regions/R/subnetworks/S"),
        dead_letter_days=read.integer("dlqRetentionDays", 7, 3650),
        options={name: value for name in LAUNCH_OPTIONS if (value := _option(read, name))},
    )


def _option(read: "_Reader", name: str) -> str:
    """A launch option, by the contract's own rule."""
    [option] = [option for option in options.OPTIONS if option.name == name]
    value = read.text(name, option.regex or ".*", option.regex or "text")
    if name == "paymentStates":
        try:
            payments.parse_states(value)
        except ValueError as error:
            read.problems.append(str(error))
    return value


def _relations(settings: Settings, read: "_Reader") -> None:
    """Rules between settings."""
    pipeline, endpoints = settings.pipeline, settings.endpoints
    if pipeline.workers > pipeline.max_workers:
        read.refuse("workers", f"at most maxWorkers ({pipeline.max_workers})", str(pipeline.workers))
    if bool(endpoints.big_query) != bool(endpoints.big_query_storage):
        rule = "set together with bigQueryStorageEndpoint, or neither"
        read.refuse("bigQueryEndpoint", rule, endpoints.big_query)
    if settings.stack == "prod":
        if not settings.protect:
            read.refuse("deletionProtection", "true in prod", "false")
        if pipeline.options["newColumns"] != "hold":
            rule = "hold in prod, where a column is kept NULL until somebody has classified it"
            read.refuse("newColumns", rule, pipeline.options["newColumns"])


class _Reader:
    """Reads values and gathers the rules they break. A refused one reads as a harmless one, so that reading goes on."""

    def __init__(self, stack: str, get: Callable[[str], str | None]) -> None:
        self.problems: list[str] = []
        self._stack = stack
        self._get = get

    def refuse(self, key: str, rule: str, value: str) -> None:
        self.problems.append(f"{key} must be {rule}, got {value!r}. Set it in Pulumi.{self._stack}.yaml.")

    def finish(self) -> None:
        if self.problems:
            raise SettingsError("\n".join(["The stack's config was refused:", *self.problems]))

    def text(self, key: str, pattern: str, rule: str) -> str:
        value = self._value(key)
        if value is not None and not re.fullmatch(pattern, value):
            self.refuse(key, rule, value)
        return value or ""

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._value(key)
        if value is not None and not (re.fullmatch(r"\d+", value) and low <= int(value) <= high):
            self.refuse(key, f"a whole number from {low} to {high}", value)
            return low
        return int(value or low)

    def boolean(self, key: str) -> bool:
        value = self._value(key)
        if value not in (None, "true", "false"):
            self.refuse(key, "true or false", value)
        return value == "true"

    def texts(self, key: str, pattern: str, rule: str) -> tuple[str, ...]:
        value = self._value(key)
        try:
            items = json.loads(value or "[]")
        except ValueError:
            items = None
        if not (isinstance(items, list) and all(isinstance(i, str) and re.fullmatch(pattern, i) for i in items)):
            self.refuse(key, f"a list of {rule}", value or "")
            return ()
        return tuple(items)

    def _value(self, key: str) -> str | None:
        value = self._get(key)
        if value is None:
            self.problems.append(f"{key} must be set, got nothing. Set it in Pulumi.{self._stack}.yaml.")
        return value
