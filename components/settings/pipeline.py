"""The streaming job: who runs it, how large it may grow, and the launch options that a stack sets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader
from contract import options, payments
from contract.watched import WatchedTables

# By digest: a tag can be moved under a running job.
_IMAGE: Final = r"|[a-z0-9-]+-docker\.pkg\.dev/[^/@:]+/[^/@:]+/[^@:]+@sha256:[0-9a-f]{64}"


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """`options` holds the launch options that config gives a value."""

    owner: str
    template: str
    image: str
    machine_type: str
    workers: int
    max_workers: int
    disk_size_gb: int
    harness_threads: int
    profile_memory: bool
    dead_letter_days: int
    stuck_limits: str
    options: Mapping[str, str]

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            owner=read.text("pipelineOwner", "pulumi|composer|scheduler", "pulumi, composer or scheduler"),
            template=read.text("templatePath", r"|gs://.+\.json", "empty or a gs://….json path"),
            image=read.text("image", _IMAGE, "empty or LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/NAME@sha256:…"),
            machine_type=read.text(
                "machineType", r"[a-z][a-z0-9]*-[a-z]+-\d+", "a machine type, such as n2-standard-4"
            ),
            workers=read.integer("workers", 1, 1000),
            max_workers=read.integer("maxWorkers", 1, 1000),
            disk_size_gb=read.integer("diskSizeGb", 20, 10_000),
            harness_threads=read.integer("workerHarnessThreads", 1, 1000),
            profile_memory=read.boolean("profileMemory"),
            dead_letter_days=read.integer("dlqRetentionDays", 7, 3650),
            stuck_limits=_checked(read, payments.parse_limits, read.text("stuckLimits", ".*", "text")),
            options={name: value for name in options.STACK_OPTIONS if (value := _option(read, name))},
        )

    def relations(self, read: Reader, without_job: bool, watched: WatchedTables, instance_config: str) -> None:
        """`instance_config` is that of the source's instance; empty where others made it."""
        replicas = self.options.get("directedReads")
        if replicas and instance_config.startswith("regional-"):
            rule = (
                f"empty where spannerInstanceConfig is {instance_config}: only an instance of several regions has them"
            )
            read.refuse("directedReads", rule, replicas)
        if self.owner == "pulumi" and not (self.image or self.template or without_job):
            rule = (
                "the job's image by its digest (delivery/cloudbuild.yaml builds it, `delivery.pin image` writes it; "
                "`delivery.deploy` with --without-job does without, and templatePath where pipelineOwner is pulumi)"
            )
            read.refuse("image", rule, self.image)
        if self.owner != "pulumi" and not (self.image or without_job):
            rule = (
                f"the job's image by its digest where pipelineOwner is {self.owner}: what launches the job runs from it"
            )
            read.refuse("image", rule, self.image)
        if self.workers > self.max_workers:
            read.refuse("workers", f"at most maxWorkers ({self.max_workers})", str(self.workers))
        dataset = self.options.get("bigQueryDataset")
        made = sorted({watched.without_prefix(table.dataset) for table in watched.tables})
        if dataset and dataset not in made:
            read.refuse("bigQueryDataset", f"one that a stack makes: {', '.join(made)}", dataset)
        if read.stack == "prod" and self.options["newColumns"] != "hold":
            rule = "hold in prod, where a column is kept NULL until somebody has classified it"
            read.refuse("newColumns", rule, self.options["newColumns"])


def _option(read: Reader, name: str) -> str:
    """A launch option, by the contract's own rule: what the job would refuse, a preview does."""
    return read.checked(name, options.named(name).broken)


def _checked(read: Reader, parse: Callable[[str], object], value: str) -> str:
    """A value by the rule of what parses it."""
    try:
        parse(value)
    except ValueError as error:
        read.problems.append(str(error))
    return value
