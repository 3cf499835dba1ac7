"""What a stack costs a month: its resources, as the program registers them, times list prices, at an assumed load.

    graph of the stack ─► quantities (assumptions fill in the load) × prices.yaml ─► lines ─► total

Every type of resource is either charged here or named in FREE: one that is in neither is refused, so that a new one
cannot be forgotten. What nobody can know beforehand is an assumption with a default, and the command shows them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from components import naming
from components.bigquery import minutes_of
from components.config import ROOT
from contract import lookups, operations, reading, tables
from contract.errors import AuditError
from contract.operations import Operation
from contract.watched import WatchedTables
from delivery.assumptions import DAYS, GIB, HOURS, WORKDAYS, Assumptions
from delivery.prices import Price, Prices
from graph.resources import Graph, Node
from support.backfill import ROWS_A_CPU_SECOND, ROWS_A_QUERY
from support.backup.create import Limits as BackupLimits
from support.validation.run import Limits

_TIB: Final = 2**40
# Memory of a virtual CPU, by family and kind of machine. A worker on another is refused: add it here.
_GIB_OF_A_CPU: Final = {
    "n1-standard": 3.75, "n1-highmem": 6.5, "n2-standard": 4, "n2-highmem": 8, "n2d-standard": 4, "n2d-highmem": 8,
    "e2-standard": 4, "e2-highmem": 8, "t2d-standard": 4, "c3-standard": 4, "c3-highmem": 8,
}  # fmt: skip
# Of a worker with Streaming Engine, where the job does not say.
_DISK_GIB: Final = 30
_ACTIVE_MONTHS: Final = 3
_PROBED_BYTES: Final = 24
# What a run of a job is charged for at least: cloud.google.com/run/pricing.
_LEAST_SECONDS: Final = 60
# Changes and rows that a virtual CPU validates in a second, both sides (python -m bench.validation), and what BigQuery
# reads of a partition at least.
_VALIDATED_A_SECOND: Final = 2_500
_BLOCK_BYTES: Final = 100_000_000
# A backup reads the night's share of the new day, and all of the one before: the snapshot and the table for checksums,
# the snapshot once more for the export. Its job waits for BigQuery, about so long.
_BACKED_UP: Final = 3 * (1 + 160 / 1440)
_BACKUP_SECONDS: Final = 900
_SCHEDULED: Final = {operation.job: operation for operation in operations.SCHEDULED}
# Data Compute Units of an environment of Composer 3 that does next to nothing, by its size. Assumed: Google has the
# units of its parts on cloud.google.com/composer/pricing, and says of no size what it has at least.
_UNITS_OF_COMPOSER: Final = {"small": 8.0, "medium": 16.0, "large": 40.0}
# What Avro with DEFLATE leaves of a logical byte: not measured.
_EXPORTED: Final = 0.2


QUESTION: Final = "keys of a backfill"


class CostError(AuditError, ValueError):
    """The estimate cannot be made; the message says why, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A charge. `factors` multiply to what is used; `free` of it is what the month has for nothing.

    `idle` is what it is, in dollars, where nothing is written and nobody searches.
    """

    service: str
    what: str
    place: str
    price: Price
    factors: tuple[tuple[float, str], ...]
    free: float = 0
    idle: float = 0

    @property
    def used(self) -> float:
        return math.prod(number for number, _ in self.factors)

    @property
    def quantity(self) -> float:
        """What is paid for."""
        return self.used - self.free

    @property
    def dollars(self) -> float:
        return self.quantity * self.price.dollars

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The same of two estimates of a stack."""
        return self.service, self.what, self.price.sku, self.place

    @property
    def formula(self) -> str:
        """The numbers behind the quantity, as a person would write them: `2 nodes × 730 hours`."""
        product = " × ".join(f"{_number(number)} {unit}".strip() for number, unit in self.factors)
        return f"{product} − {_number(self.free)} free" if self.free else product


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A month of a stack, in list prices of `as_of`."""

    stack: str
    as_of: str
    assumptions: Assumptions
    lines: tuple[Line, ...]

    @property
    def dollars(self) -> float:
        return sum(line.dollars for line in self.lines)

    @property
    def idle(self) -> float:
        """The same without a change or a search: what the stack costs because it is there."""
        return sum(line.idle for line in self.lines)

    def per_thousand(self, line: Line) -> float | None:
        """Dollars that a thousand changes add to a line, over the month's load. None where there are no changes."""
        thousands = self.assumptions.changes / 1000
        return (line.dollars - line.idle) / thousands if thousands else None

    @property
    def unseen(self) -> tuple[str, ...]:
        """Prices that nobody has read on a page: SKU and place."""
        return tuple(sorted({f"{line.price.sku} at {line.place}" for line in self.lines if not line.price.seen}))


def estimate(graph: Graph, prices: Prices, assumed: Assumptions) -> Estimate:
    """A month of the stack. Raises CostError for a resource that nobody has priced, PriceError for a place."""
    if unknown := sorted({node.type for node in graph.nodes} - CHARGED.keys() - FREE):
        raise CostError(
            f"nobody has said what {', '.join(unknown)} costs: add it to CHARGED or FREE in delivery/cost.py."
        )
    still = {line.key: line.dollars for line in _lines(graph, _Charges(graph, prices, assumed.idle))}
    lines = _lines(graph, _Charges(graph, prices, assumed))
    return Estimate(
        stack=graph.stack,
        as_of=prices.as_of,
        assumptions=assumed,
        lines=tuple(replace(line, idle=still.get(line.key, 0)) for line in lines),
    )


def _lines(graph: Graph, charges: _Charges) -> Iterator[Line]:
    return _less_free(
        [
            line
            for kind, charge in CHARGED.items()
            for node in sorted(graph.nodes, key=lambda node: node.name)
            if node.type == kind
            for line in charge(charges, node)
        ]
    )


def _less_free(lines: list[Line]) -> Iterator[Line]:
    """What a month has of a SKU for nothing is taken off once, from its lines in turn."""
    left: dict[str, float] = {}
    for line in lines:
        free = min(line.used, left.get(line.price.sku, line.price.free))
        left[line.price.sku] = left.get(line.price.sku, line.price.free) - free
        yield replace(line, free=free)


@dataclass(frozen=True, kw_only=True)
class _Place:
    service: str
    place: str


class _Charges:
    """What each type of resource is charged for."""

    def __init__(self, graph: Graph, prices: Prices, assumed: Assumptions) -> None:
        self._watched = WatchedTables.load(ROOT / graph.config["tables"], graph.config["spannerDialect"])
        self._graph, self._prices, self._assumed = graph, prices, assumed

    def _line(self, where: _Place, sku: str, what: str, *factors: tuple[float, str]) -> Line:
        price = self._prices.of(sku, where.place)
        return Line(service=where.service, what=what, place=where.place, price=price, factors=factors)

    def spanner_instance(self, node: Node) -> Iterator[Line]:
        # Where nobody says: only the largest edition can be in several regions.
        default = "STANDARD" if node.inputs["config"].startswith("regional-") else "ENTERPRISE_PLUS"
        edition = str(node.inputs.get("edition", default)).lower().replace("_", "-")
        yield self._line(
            self._spanner(node), f"spanner-node-{edition}", node.name, _nodes(node.inputs), (HOURS, "hours")
        )

    def spanner_database(self, node: Node) -> Iterator[Line]:
        """The audit database. The metadata database has one row per job and write stream: it is not counted."""
        if node.name != naming.AUDIT_DATABASE:
            return
        assumed, where = self._assumed, self._spanner(self._instance(node))
        yield self._line(where, "spanner-storage", f"{node.name}: payments", (assumed.source_gib, "GiB"))
        records = assumed.tps * assumed.stream_days * 24 * 3600 * assumed.row_bytes * assumed.changelog_factor / GIB
        yield self._line(where, "spanner-storage", f"{node.name}: change records", (records, "GiB"))

    def spanner_backups(self, node: Node) -> Iterator[Line]:
        """A full backup is a copy of the database; of a chain of incremental ones the first, and what changed since."""
        days = int(str(node.inputs["retentionDuration"]).removesuffix("s")) / 86400
        where = self._spanner(self._instance(node))
        size = (self._assumed.source_gib, "GiB")
        if node.inputs.get("incrementalBackupSpec") is None:
            yield self._line(where, "spanner-backup", node.name, size, (max(1, days), "daily copies"))
        else:
            grown = 1 + days / DAYS / self._assumed.source_months
            yield self._line(where, "spanner-backup", node.name, size, (grown, "copies in a chain"))

    def job(self, node: Node) -> Iterator[Line]:
        inputs, assumed = node.inputs, self._assumed
        where = _Place(service="Dataflow", place=inputs["region"])
        # The template has them, and the job's resource does not.
        config = self._graph.config
        cpus, memory = _machine(str(config["machineType"]))
        workers = (assumed.workers or float(config["workers"]), "workers")
        yield self._line(where, "dataflow-vcpu", node.name, workers, (cpus, "vCPU"), (HOURS, "hours"))
        yield self._line(where, "dataflow-memory", node.name, workers, (memory, "GiB"), (HOURS, "hours"))
        disk = (_disk(inputs), "GiB")
        yield self._line(where, "dataflow-disk", node.name, workers, disk, (HOURS, "hours"))
        # Read once, and once more across the one shuffle.
        read = (assumed.changelog_bytes / GIB, "GiB read")
        yield self._line(where, "dataflow-streaming-engine", node.name, read, (2, "times: source, shuffle"))

    def table(self, node: Node) -> Iterator[Line]:
        assumed, where = self._assumed, self._big_query()
        if node.name == self._watched.payments.id:
            month = (assumed.changelog_bytes / GIB, "GiB a month")
            active = min(assumed.retention_months, _ACTIVE_MONTHS)
            yield self._line(where, "bigquery-write-api", f"{node.name}: appends", month)
            yield self._line(where, "bigquery-active-storage", node.name, month, (active, "months"))
            old = max(0.0, assumed.retention_months - _ACTIVE_MONTHS)
            yield self._line(where, "bigquery-long-term-storage", node.name, month, (old, "older months"))
        elif node.name == tables.payment_state_table(self._watched).id:
            yield self._line(where, "bigquery-active-storage", node.name, (self._state_gib(), "GiB"))
        elif node.name == tables.payment_lookup(self._watched).id:
            layout = self._layout
            rows, row_bytes = layout.partition("lookup")
            size = (rows * lookups.BUCKETS * row_bytes / GIB, "GiB")
            yield self._line(where, "bigquery-active-storage", node.name, size)

    def scheduled(self, node: Node) -> Iterator[Line]:
        """The merge is charged for the whole of its target and what changed since; the fill for half a day, on average.

        With the merge: what people ask, in the console and by other SQL.
        """
        minutes = minutes_of(node.inputs["schedule"])
        runs = 0 if node.inputs.get("disabled") else HOURS * 60 / minutes
        where = self._big_query()
        if node.name == naming.FILL:
            read = (self._reads("fill of payment_lookup") / 2 / _TIB, "TiB a run")
        else:
            yield self._line(where, "bigquery-queries", "people's SQL", (self._assumed.queries_tib, "TiB"))
            yield from self._agents(where)
            read = (self._reads("merge of payment_state", days=minutes / 1440) / _TIB, "TiB a run")
        yield self._line(where, "bigquery-queries", node.name, read, (runs, "runs"))

    def _agents(self, where: _Place) -> Iterator[Line]:
        """Searches by customer, each with a payment opened after it; and the console's first page, looked at by one."""
        assumed = self._assumed
        search = self._reads("search by customer or card", keys=assumed.found) + self._reads("timeline")
        people = ((assumed.agents, "agents"), (assumed.searches * WORKDAYS, "searches each"))
        yield self._line(where, "bigquery-queries", "what agents search", *people, (search / _TIB, "TiB a search"))

    def _reads(self, question: str, *, days: float = 2, keys: float = 1) -> int:
        return reading.of(question, self._layout, reading.Asked(days, math.ceil(keys))).reads

    @cached_property
    def _layout(self) -> reading.Layout:
        assumed = self._assumed
        return reading.Layout(
            changes_per_second=assumed.tps,
            days=assumed.retention_months * DAYS,
            row_bytes=round(assumed.row_bytes * assumed.changelog_factor),
            state_row_bytes=round(assumed.row_bytes),
            changes_per_payment=assumed.changes_per_payment,
        )

    def bucket(self, node: Node) -> Iterator[Line]:
        """Dead letters and exports for their retention; the other buckets hold a few files, counted as one GiB each."""
        where = _Place(service="Cloud Storage", place=str(node.inputs["location"]))
        size = (1.0, "GiB")
        if node.name == "dead-letters":
            ages = [r["condition"]["age"] for r in node.inputs["lifecycleRules"] if "age" in r["condition"]]
            written = self._assumed.changelog_bytes * self._assumed.dead_letter_share / GIB
            size = (written * min(ages) / DAYS, "GiB of dead letters")
        elif node.name in ("backups", "backup-copies"):
            kept = self._assumed.changelog_bytes * self._assumed.retention_months * _EXPORTED / GIB
            size = (kept, "GiB of exports")
        yield self._line(where, "storage-standard", node.name, size)

    def key(self, node: Node) -> Iterator[Line]:
        """After a year: one version per rotation is added, and none is destroyed while data needs it."""
        period = str(node.inputs.get("rotationPeriod", ""))
        versions = 1 + (365 * 86400 / int(period.removesuffix("s")) if period else 0)
        where = _Place(service="Cloud KMS", place=self._region())
        yield self._line(where, "kms-key-version", node.name, (versions, "versions after a year"))

    def secret(self, node: Node) -> Iterator[Line]:
        where = _Place(service="Secret Manager", place=self._region())
        yield self._line(where, "secret-version", node.name, (self._assumed.secret_versions, "versions"))

    def log_bucket(self, node: Node) -> Iterator[Line]:
        assumed, where = self._assumed, _Place(service="Cloud Logging", place=self._region())
        entries = assumed.log_share + (0 if self._application_is_exempt() else 1)
        written = (assumed.changes * entries * assumed.log_bytes / GIB, "GiB")
        yield self._line(where, "logging-storage", f"{node.name}: Data Access logs", written)
        months = max(0.0, (float(node.inputs["retentionDays"]) - 30) / DAYS)
        yield self._line(where, "logging-retention", node.name, written, (months, "months after the first 30 days"))

    def nat(self, node: Node) -> Iterator[Line]:
        workers = (self._assumed.workers or float(self._graph.config["workers"]), "workers")
        yield self._line(
            _Place(service="Cloud NAT", place=self._region()), "nat-vm", node.name, workers, (HOURS, "hours")
        )

    def zone(self, node: Node) -> Iterator[Line]:
        yield self._line(_Place(service="Cloud DNS", place=self._region()), "dns-zone", node.name, (1, "zone"))

    def run_job(self, node: Node) -> Iterator[Line]:
        """Jobs with a schedule, and a backfill. A run is charged a minute at least. NOT_COUNTED: what people start."""
        if node.name == naming.REPLAY and self._assumed.backfill_rows:
            yield from self._backfill(node)
        operation = _SCHEDULED.get(node.name)
        if self._paused() or not (operation or node.name == naming.PROBE):
            return
        [container] = node.inputs["template"]["template"]["containers"]
        limits = container["resources"]["limits"]
        where = _Place(service="Cloud Run", place=str(node.inputs["location"]))
        if operation == operations.VALIDATION:
            seconds = (self._validation_seconds(), "seconds: each change, a part a day; a minute a run at least")
            yield from self._validation_reads(node)
        elif operation in (operations.BACKUP, operations.BACKUP_DRILL):
            runs = self._runs(operation)
            seconds = (_BACKUP_SECONDS * runs, "seconds")
            read = (self._backup_reads(operation) / _TIB, "TiB a run")
            yield self._line(self._big_query(), "bigquery-queries", node.name, read, (runs, "runs"))
        elif operation:
            seconds = (_LEAST_SECONDS * self._runs(operation), "seconds: a run is charged for its whole minute")
        else:
            runs = HOURS * 60 / int(self._graph.config["probeMinutes"])
            seconds = (runs * _LEAST_SECONDS, "seconds: a run is charged for its whole minute")
            # Three columns of the day so far, each time.
            read = (self._layout.changes_a_day * _PROBED_BYTES / 2 / _TIB, "TiB a run")
            yield self._line(self._big_query(), "bigquery-queries", node.name, read, (runs, "runs"))
        yield self._line(where, "run-vcpu", node.name, (float(limits["cpu"]), "vCPU"), seconds)
        memory = float(limits["memory"].removesuffix("Gi"))
        yield self._line(where, "run-memory", node.name, (memory, "GiB"), seconds)

    def service(self, node: Node) -> Iterator[Line]:
        """Instances that wait for requests. Those that work are charged while a page is open: in NOT_COUNTED."""
        template = node.inputs["template"]
        waiting = (float(template["scaling"]["minInstanceCount"]), "instances that wait")
        if not waiting[0]:
            return
        limits = template["containers"][0]["resources"]["limits"]
        where, seconds = _Place(service="Cloud Run", place=str(node.inputs["location"])), (HOURS * 3600, "seconds")
        yield self._line(where, "run-idle-vcpu", node.name, waiting, (float(limits["cpu"]), "vCPU"), seconds)
        memory = (float(limits["memory"].removesuffix("Gi")), "GiB")
        yield self._line(where, "run-idle-memory", node.name, waiting, memory, seconds)

    def _validation_seconds(self) -> float:
        """Of a run each hour, one of which compares the day's part too."""
        worked = (self._assumed.changes + self._part_rows() * DAYS) / _VALIDATED_A_SECOND
        return max(worked, HOURS * _LEAST_SECONDS)

    def _part_rows(self) -> float:
        """Payments of a part of the key range: no more than there are."""
        return min(Limits().part_rows, self._assumed.payments * self._assumed.source_months)

    def _validation_reads(self, node: Node) -> Iterator[Line]:
        """Each hour the day so far, of which half is over on average; each day a part: its rows, and a block of each
        partition."""
        assumed, where = self._assumed, self._big_query()
        day = assumed.changelog_bytes / DAYS / _TIB
        yield self._line(where, "bigquery-queries", f"{node.name}: changes", (day / 2, "TiB"), (HOURS, "hours"))
        rows = self._part_rows() * assumed.changes_per_payment * assumed.row_bytes * assumed.changelog_factor
        # A day with less than a block is read whole.
        blocks = assumed.retention_months * DAYS * min(_BLOCK_BYTES, assumed.changelog_bytes / DAYS)
        part = ((rows + blocks) / _TIB, "TiB a part")
        yield self._line(where, "bigquery-queries", f"{node.name}: parts", part, (DAYS, "days"))

    def _backfill(self, node: Node) -> Iterator[Line]:
        """Once: the rows are appended, workers make them, and their keys are looked for among those that are there."""
        assumed, where = self._assumed, self._big_query()
        rows = (assumed.backfill_rows, "rows of a backfill")
        row = assumed.row_bytes * assumed.changelog_factor
        yield self._line(where, "bigquery-write-api", f"{node.name}: appends", rows, (row / GIB, "GiB each"))
        queries = (math.ceil(assumed.backfill_rows / ROWS_A_QUERY), "queries of keys")
        read = (self._reads(QUESTION) / _TIB, "TiB each")
        yield self._line(where, "bigquery-queries", f"{node.name}: keys", queries, read)
        made = (1 / ROWS_A_CPU_SECOND / 3600, "vCPU hours each")
        workers = _Place(service="Dataflow", place=self._region())
        yield self._line(workers, "dataflow-vcpu", f"{node.name}: workers", rows, made)

    def _backup_reads(self, operation: Operation) -> float:
        """Of a backup what changed in a day, at most its limit; of a drill its limit, once there is as much."""
        day, most = self._assumed.changelog_bytes / DAYS, BackupLimits().most_bytes
        reads = day * _BACKED_UP if operation == operations.BACKUP else day * DAYS * self._assumed.retention_months
        return min(reads, most)

    def schedule(self, node: Node) -> Iterator[Line]:
        where = _Place(service="Cloud Scheduler", place=self._region())
        yield self._line(where, "scheduler-job", node.name, (1, "schedule"))

    def environment(self, node: Node) -> Iterator[Line]:
        """An environment of Composer's is charged while it is there, busy or not."""
        size = str(node.inputs["config"]["environmentSize"]).rpartition("_")[2].lower()
        where, hours = _Place(service="Cloud Composer", place=self._region()), (HOURS, "hours")
        units = (_UNITS_OF_COMPOSER[size], f"compute units of a {size} environment, about")
        yield self._line(where, "composer-unit", node.name, units, hours)

    def _runs(self, operation: Operation) -> float:
        """Runs in a month."""
        return _runs(operations.cron_of(operation, str(self._graph.config["pipelineOwner"])))

    def _paused(self) -> bool:
        return any(node.inputs.get("paused") for node in self._graph.nodes if node.type == "gcp:cloudscheduler/job:Job")

    def _application_is_exempt(self) -> bool:
        """Whether what the services write leaves no Data Access log: else every commit is an entry."""
        writes = [
            config
            for node in self._graph.of("IAMAuditConfig")
            if node.inputs["service"] == "spanner.googleapis.com"
            for config in node.inputs["auditLogConfigs"]
            if config["logType"] == "DATA_WRITE"
        ]
        return all("application-sa" in str(config.get("exemptedMembers")) for config in writes)

    def _state_gib(self) -> float:
        """payment_state: the newest change of each payment, for as long as its changes are kept."""
        return self._assumed.payments * self._assumed.retention_months * self._assumed.row_bytes / GIB

    def _instance(self, node: Node) -> Node:
        [instance] = [i for i in self._graph.of("Instance") if i.inputs["name"] == node.inputs["instance"]]
        return instance

    def _spanner(self, instance: Node) -> _Place:
        return _Place(service="Spanner", place=str(instance.inputs["config"]))

    def _big_query(self) -> _Place:
        return _Place(service="BigQuery", place=str(self._graph.of("Dataset")[0].inputs["location"]))

    def _region(self) -> str:
        return str(self._graph.config["region"])


CHARGED: Final[Mapping[str, Callable[[_Charges, Node], Iterator[Line]]]] = {
    "gcp:spanner/instance:Instance": _Charges.spanner_instance,
    "gcp:spanner/database:Database": _Charges.spanner_database,
    "gcp:spanner/backupSchedule:BackupSchedule": _Charges.spanner_backups,
    "gcp:dataflow/flexTemplateJob:FlexTemplateJob": _Charges.job,
    "gcp:bigquery/table:Table": _Charges.table,
    "gcp:bigquery/dataTransferConfig:DataTransferConfig": _Charges.scheduled,
    "gcp:storage/bucket:Bucket": _Charges.bucket,
    "gcp:kms/cryptoKey:CryptoKey": _Charges.key,
    "gcp:secretmanager/secret:Secret": _Charges.secret,
    "gcp:logging/projectBucketConfig:ProjectBucketConfig": _Charges.log_bucket,
    "gcp:compute/routerNat:RouterNat": _Charges.nat,
    "gcp:dns/managedZone:ManagedZone": _Charges.zone,
    "gcp:cloudrunv2/job:Job": _Charges.run_job,
    "gcp:cloudrunv2/service:Service": _Charges.service,
    "gcp:cloudscheduler/job:Job": _Charges.schedule,
    "gcp:composer/environment:Environment": _Charges.environment,
}
# Types without a separate charge, or with one that NOT_COUNTED names.
FREE: Final = frozenset(
    {
        "pulumi:index:Stash",
        "pulumi:providers:gcp",
        "gcp:accesscontextmanager/servicePerimeter:ServicePerimeter",
        "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
        "gcp:billing/budget:Budget",
        "gcp:bigquery/dataset:Dataset",
        "gcp:bigquery/datasetAccess:DatasetAccess",
        "gcp:bigquery/datasetIamMember:DatasetIamMember",
        "gcp:bigquery/iamMember:IamMember",
        "gcp:bigquery/routine:Routine",
        "gcp:bigquerydatapolicy/dataPolicy:DataPolicy",
        "gcp:bigquerydatapolicy/dataPolicyIamMember:DataPolicyIamMember",
        "gcp:cloudbuild/trigger:Trigger",
        "gcp:cloudbuild/workerPool:WorkerPool",
        "gcp:cloudrunv2/jobIamMember:JobIamMember",
        "gcp:cloudrunv2/serviceIamMember:ServiceIamMember",
        "gcp:compute/firewall:Firewall",
        "gcp:compute/network:Network",
        "gcp:compute/router:Router",
        "gcp:compute/subnetwork:Subnetwork",
        "gcp:datacatalog/policyTag:PolicyTag",
        "gcp:datacatalog/policyTagIamMember:PolicyTagIamMember",
        "gcp:datacatalog/taxonomy:Taxonomy",
        "gcp:dns/recordSet:RecordSet",
        "gcp:iam/workloadIdentityPool:WorkloadIdentityPool",
        "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider",
        "gcp:iap/webCloudRunServiceIamMember:WebCloudRunServiceIamMember",
        "gcp:pubsub/topic:Topic",
        "gcp:pubsub/topicIAMMember:TopicIAMMember",
        "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember",
        "gcp:kms/keyRing:KeyRing",
        "gcp:logging/logView:LogView",
        "gcp:logging/logViewIamMember:LogViewIamMember",
        "gcp:logging/metric:Metric",
        "gcp:logging/projectExclusion:ProjectExclusion",
        "gcp:logging/projectSink:ProjectSink",
        "gcp:monitoring/alertPolicy:AlertPolicy",
        "gcp:monitoring/customService:CustomService",
        "gcp:monitoring/dashboard:Dashboard",
        "gcp:monitoring/metricDescriptor:MetricDescriptor",
        "gcp:monitoring/notificationChannel:NotificationChannel",
        "gcp:monitoring/slo:Slo",
        "gcp:projects/iAMAuditConfig:IAMAuditConfig",
        "gcp:projects/iAMMember:IAMMember",
        "gcp:projects/service:Service",
        "gcp:projects/serviceIdentity:ServiceIdentity",
        "gcp:secretmanager/secretIamMember:SecretIamMember",
        "gcp:serviceaccount/account:Account",
        "gcp:serviceaccount/iAMMember:IAMMember",
        "gcp:spanner/databaseIAMMember:DatabaseIAMMember",
        "gcp:storage/bucketIAMMember:BucketIAMMember",
        "gcp:storage/bucketObject:BucketObject",
    }
)
NOT_COUNTED: Final = (
    "network traffic out of a region",
    "operations of Cloud Storage and Cloud KMS",
    "Cloud Build minutes and images",
    "Cloud Run instances beyond those that wait: the console is charged while a page is open",
    "the starter's requests, some 25,000 short ones a month: Cloud Run has two million for nothing",
    "what an environment of Composer's that others own costs them, and Airflow's database and logs",
    "replays: Cloud Run, Dataflow or Data Boost, and Pub/Sub messages, while one runs",
    "of backfills what --backfill-rows does not say: Cloud Run, Data Boost, memory and disks of their workers",
    "metrics, alert conditions and the time series that they read",
    "VPC flow logs, and what Cloud NAT transfers",
    "committed-use discounts, which lower Spanner and Dataflow by 20 to 40 %",
)


def _nodes(inputs: Mapping[str, Any]) -> tuple[float, str]:
    """Nodes of 1,000 processing units; with autoscaling, half-way between its two ends."""
    limits = (inputs.get("autoscalingConfig") or {}).get("autoscalingLimits")
    if limits:
        low, high = (float(limits[f"{end}ProcessingUnits"]) / 1000 for end in ("min", "max"))
        return (low + high) / 2, f"nodes, half-way from {_number(low)} to {_number(high)},"
    return float(inputs["processingUnits"]) / 1000, "nodes"


def _runs(cron: str) -> float:
    """Runs in a month of a cron of the contract's."""
    minute, hour, *_, weekday = cron.split()
    of_hour = 60 / int(minute.removeprefix("*/")) if minute.startswith("*/") else 1
    return of_hour * (24 if hour == "*" else 1) * (DAYS if weekday == "*" else DAYS / 7)


def _disk(job: Mapping[str, Any]) -> float:
    """GiB of a worker's disk, which the job is given as an option of Beam's."""
    options = dict(option.partition("=")[::2] for option in job.get("additionalPipelineOptions") or [])
    return float(options.get("disk_size_gb", _DISK_GIB))


def _machine(machine_type: str) -> tuple[int, float]:
    """Virtual CPUs and GiB of a machine type."""
    family, _, cpus = machine_type.rpartition("-")
    if family not in _GIB_OF_A_CPU:
        known = ", ".join(_GIB_OF_A_CPU)
        raise CostError(
            f"machineType must be of a family whose memory is known ({known}), got {machine_type!r}. "
            "Set another, or add the family to _GIB_OF_A_CPU in delivery/cost.py."
        )
    return int(cpus), int(cpus) * _GIB_OF_A_CPU[family]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
