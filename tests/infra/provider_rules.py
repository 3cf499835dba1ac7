"""What Google's provider checks beyond the types of its SDK: enums, forms, ranges, what goes or does not go together.

The facts are read from the provider's own sources: `mmv1/products/…` of GoogleCloudPlatform/magic-modules, from which
it is generated, unless a rule says otherwise. A rule without such a source is Google's page on the resource.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.infra.sdk_schema import UNKNOWN, Broken

Inputs = Mapping[str, Any]
# An object of a resource, or a value → what is wrong with it; empty where it is right.
Check = Callable[[Any], str]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`path` leads to what `check` judges: `conditions.displayName` of each condition, `conditions.*` each condition
    itself, `conditions` all of them, "" the whole resource. A rule whose `kind` is empty is for every kind."""

    kind: str
    path: str
    check: Check
    source: str

    def broken(self, inputs: Inputs) -> Iterator[Broken]:
        for path, value in _at(inputs, self.path.split(".") if self.path else [], ""):
            if value is not None and value != UNKNOWN and (why := self.check(value)):
                yield Broken(path=path, why=f"{why} ({self.source})")


def broken(kind: str, inputs: Inputs) -> list[Broken]:
    """What of a resource's inputs the provider or Google would refuse, by the rules of this module."""
    return [each for rule in RULES if rule.kind in (kind.removeprefix("gcp:"), "") for each in rule.broken(inputs)]


def _at(value: Any, path: list[str], above: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | tuple) and path:
        for index, each in enumerate(value):
            yield from _at(each, path[1:] if path[0] == "*" else path, f"{above}[{index}]")
    elif not path:
        yield above.lstrip("."), value
    elif isinstance(value, Mapping) and value.get(path[0]) is not None:
        yield from _at(value[path[0]], path[1:], f"{above}.{path[0]}")


# ---------------------------------------------------------------------- checks


def one_of(*values: str) -> Check:
    return lambda value: (
        ""
        if set(value if isinstance(value, list) else [value]) <= {*values, UNKNOWN}
        else f"one of {values}, got {value!r}"
    )


def matches(regex: str) -> Check:
    return lambda value: "" if re.fullmatch(regex, str(value), re.S) else f"must match {regex}, got {value!r}"


def between(low: float, high: float) -> Check:
    return lambda value: "" if low <= float(value) <= high else f"from {low} to {high}, got {value}"


def seconds(low: float, high: float) -> Check:
    """A duration such as 86400s."""

    def check(value: Any) -> str:
        if not re.fullmatch(r"\d+(\.\d{1,9})?s", str(value)):
            return f"a duration such as 60s, got {value!r}"
        return between(low, high)(str(value)[:-1])

    return check


def items(low: int, high: int) -> Check:
    return lambda value: "" if low <= len(value) <= high else f"{low} to {high} of them, got {len(value)}"


def exactly_one(*names: str) -> Check:
    return lambda value: "" if len(_given(value, names)) == 1 else f"exactly one of {names}, got {_given(value, names)}"


def at_most_one(*names: str) -> Check:
    return lambda value: "" if len(_given(value, names)) <= 1 else f"{names} exclude each other"


def together(*names: str) -> Check:
    return lambda value: "" if len(_given(value, names)) in (0, len(names)) else f"{names} go together"


def not_with(one: str, *others: str) -> Check:
    return lambda value: f"{one} excludes {_given(value, others)}" if one in value and _given(value, others) else ""


def _given(value: Inputs, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if value.get(name) is not None]


def _processing_units(value: float) -> str:
    step = 100 if value < 1000 else 1000
    return (
        "" if value > 0 and value % step == 0 else f"a multiple of 100 below 1000, of 1000 from there on, got {value}"
    )


def _every(value: str) -> str:
    """App Engine's format, as far as the program uses it."""
    found = re.fullmatch(r"every (\d+) (minutes|hours)", value)
    return "" if found and int(found[1]) else f"every N minutes or every N hours, got {value!r}"


def _interval(value: str) -> str:
    return "" if value[-1] == "s" and int(value[:-1]) % 30 == 0 else f"a multiple of 30s, got {value!r}"


def _soft_delete(value: float) -> str:
    return "" if value == 0 or 7 * 86400 <= value <= 90 * 86400 else f"0, or 7 to 90 days in seconds, got {value}"


def _one_line(value: str) -> str:
    return "in one line: the threshold is not found in a query of several" if "\n" in value.strip() else ""


def _not_twice(job: Inputs) -> str:
    """A launch parameter that is also an argument of the resource."""
    twice = {
        "numWorkers",
        "maxNumWorkers",
        "network",
        "subnetwork",
        "tempLocation",
        "stagingLocation",
        "kmsKeyName",
    } & {*(job.get("parameters") or {})}
    return f"value is supplied twice: {sorted(twice)}" if twice else ""


# ---------------------------------------------------------------------- the table

_MEMBER: Final = r"(user|group|serviceAccount|domain):[^:]+|(principal|principalSet)://.+"
_ROLE: Final = r"roles/[A-Za-z0-9.]+|(projects|organizations)/[^/]+/roles/[A-Za-z0-9_.]{3,64}"
_NAME: Final = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_GENERATIONS: Final = one_of("EXECUTION_ENVIRONMENT_GEN1", "EXECUTION_ENVIRONMENT_GEN2")
_EGRESS: Final = one_of("ALL_TRAFFIC", "PRIVATE_RANGES_ONLY")
_KINDS: Final = one_of("GAUGE", "DELTA", "CUMULATIVE")
_VALUES: Final = one_of("BOOL", "INT64", "DOUBLE", "STRING", "DISTRIBUTION", "MONEY")
_CONDITIONS: Final = exactly_one(
    "conditionThreshold",
    "conditionAbsent",
    "conditionMatchedLog",
    "conditionMonitoringQueryLanguage",
    "conditionPrometheusQueryLanguage",
    "conditionSql",
)
_MASKS: Final = one_of(
    "SHA256",
    "ALWAYS_NULL",
    "DEFAULT_MASKING_VALUE",
    "LAST_FOUR_CHARACTERS",
    "FIRST_FOUR_CHARACTERS",
    "EMAIL_MASK",
    "DATE_YEAR_MASK",
)
_INTERVALS: Final = one_of(
    "INTERVAL_5_SEC", "INTERVAL_30_SEC", "INTERVAL_1_MIN", "INTERVAL_5_MIN", "INTERVAL_10_MIN", "INTERVAL_15_MIN"
)

# By the file that has the facts: the kind, and for each path its check.
_TABLE: Final[Mapping[str, tuple[str, list[tuple[str, Check]]]]] = {
    "cloud.google.com/iam/docs/principal-identifiers": ("", [("member", matches(_MEMBER)), ("role", matches(_ROLE))]),
    "accesscontextmanager/ServicePerimeter.yaml": (
        "accesscontextmanager/servicePerimeter:ServicePerimeter",
        [
            ("name", matches(r"accessPolicies/\d+/servicePerimeters/[A-Za-z][A-Za-z0-9_]*")),
            ("perimeterType", one_of("PERIMETER_TYPE_REGULAR", "PERIMETER_TYPE_BRIDGE")),
            ("status.ingressPolicies.*.ingressFrom", at_most_one("identityType", "identities")),
            ("spec.ingressPolicies.*.ingressFrom", at_most_one("identityType", "identities")),
        ],
    ),
    "billingbudget/Budget.yaml": (
        "billing/budget:Budget",
        [
            ("displayName", items(1, 60)),
            ("amount", exactly_one("specifiedAmount", "lastPeriodAmount")),
            ("amount.specifiedAmount.units", matches(r"[1-9]\d*")),
            ("budgetFilter.projects.*", matches(r"projects/\d+")),
            ("budgetFilter", exactly_one("calendarPeriod", "customPeriod")),
            ("budgetFilter.calendarPeriod", one_of("MONTH", "QUARTER", "YEAR")),
            ("thresholdRules.spendBasis", one_of("CURRENT_SPEND", "FORECASTED_SPEND")),
            ("allUpdatesRule.monitoringNotificationChannels", items(1, 5)),
        ],
    ),
    "bigquerydatatransfer/Config.yaml": ("bigquery/dataTransferConfig:DataTransferConfig", [("schedule", _every)]),
    "bigquery/Dataset.yaml": ("bigquery/dataset:Dataset", [("datasetId", matches(r"[0-9A-Za-z_]{1,1024}"))]),
    "bigquery/Routine.yaml": (
        "bigquery/routine:Routine",
        [
            ("routineType", one_of("SCALAR_FUNCTION", "PROCEDURE", "TABLE_VALUED_FUNCTION", "AGGREGATE_FUNCTION")),
            ("language", one_of("SQL", "JAVASCRIPT", "PYTHON", "JAVA", "SCALA")),
        ],
    ),
    "bigquery/resource_bigquery_table.go": (
        "bigquery/table:Table",
        [
            ("timePartitioning.type", one_of("DAY", "HOUR", "MONTH", "YEAR")),
            ("clusterings", items(1, 4)),
            ("", at_most_one("timePartitioning", "rangePartitioning")),
            ("", not_with("view", "timePartitioning", "rangePartitioning", "clusterings")),
        ],
    ),
    "bigquerydatapolicy/DataPolicy.yaml": (
        "bigquerydatapolicy/dataPolicy:DataPolicy",
        [
            ("dataPolicyType", one_of("COLUMN_LEVEL_SECURITY_POLICY", "DATA_MASKING_POLICY")),
            ("dataMaskingPolicy", exactly_one("predefinedExpression", "routine")),
            ("dataMaskingPolicy.predefinedExpression", _MASKS),
        ],
    ),
    "cloudrunv2/Job.yaml": (
        "cloudrunv2/job:Job",
        [
            ("template.template.executionEnvironment", _GENERATIONS),
            ("template.template.timeout", seconds(1, 7 * 86400)),
            ("template.template.maxRetries", between(0, 10)),
            ("template.template.vpcAccess.egress", _EGRESS),
            ("template.template.vpcAccess", at_most_one("connector", "networkInterfaces")),
        ],
    ),
    "cloudrunv2/Service.yaml": (
        "cloudrunv2/service:Service",
        [
            ("ingress", matches("INGRESS_TRAFFIC_(ALL|INTERNAL_ONLY|INTERNAL_LOAD_BALANCER)")),
            ("template.executionEnvironment", _GENERATIONS),
            ("template.timeout", seconds(1, 3600)),
            ("template.vpcAccess.egress", _EGRESS),
            ("template.vpcAccess", at_most_one("connector", "networkInterfaces")),
        ],
    ),
    "cloudscheduler/Job.yaml": (
        "cloudscheduler/job:Job",
        [
            ("", exactly_one("httpTarget", "pubsubTarget", "appEngineHttpTarget")),
            ("attemptDeadline", seconds(15, 1800)),
            ("retryConfig.retryCount", between(0, 5)),
        ],
    ),
    "composer/resource_composer_environment.go": (
        "composer/environment:Environment",
        [
            ("name", matches(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")),
            ("config.environmentSize", matches("ENVIRONMENT_SIZE_(SMALL|MEDIUM|LARGE|EXTRA_LARGE)")),
            ("config.softwareConfig.imageVersion", matches(r"composer-([0-9.]+|latest)-airflow-[0-9.]+(-build\.\d+)?")),
            ("config.softwareConfig.webServerPluginsMode", one_of("ENABLED", "DISABLED")),
            ("config.workloadsConfig.triggerer.count", between(0, 10)),
            # Composer 3 has neither of the two: its cluster is not in the project.
            ("config", not_with("enablePrivateEnvironment", "privateEnvironmentConfig")),
            ("config", not_with("enablePrivateEnvironment", "masterAuthorizedNetworksConfig")),
        ],
    ),
    "compute/Firewall.yaml": (
        "compute/firewall:Firewall",
        [
            ("", exactly_one("allows", "denies")),
            ("direction", one_of("INGRESS", "EGRESS")),
            ("priority", between(0, 65535)),
            ("name", matches(_NAME)),
            ("", not_with("sourceServiceAccounts", "sourceTags", "targetTags")),
            ("", not_with("targetServiceAccounts", "sourceTags", "targetTags")),
        ],
    ),
    "compute/Network.yaml": (
        "compute/network:Network",
        [("name", matches(_NAME)), ("routingMode", one_of("REGIONAL", "GLOBAL"))],
    ),
    "compute/RouterNat.yaml": (
        "compute/routerNat:RouterNat",
        [
            ("natIpAllocateOption", one_of("MANUAL_ONLY", "AUTO_ONLY")),
            ("sourceSubnetworkIpRangesToNat", matches("ALL_SUBNETWORKS_ALL_(PRIMARY_)?IP_RANGES|LIST_OF_SUBNETWORKS")),
        ],
    ),
    "compute/Subnetwork.yaml": (
        "compute/subnetwork:Subnetwork",
        [
            ("name", matches(_NAME)),
            ("ipCidrRange", matches(r"\d+\.\d+\.\d+\.\d+/\d+")),
            ("logConfig.flowSampling", between(0, 1)),
            ("logConfig.aggregationInterval", _INTERVALS),
            ("logConfig.metadata", matches("(EXCLUDE_ALL|INCLUDE_ALL|CUSTOM)_METADATA")),
        ],
    ),
    "datacatalog/Taxonomy.yaml": (
        "datacatalog/taxonomy:Taxonomy",
        [("activatedPolicyTypes", one_of("POLICY_TYPE_UNSPECIFIED", "FINE_GRAINED_ACCESS_CONTROL"))],
    ),
    "dataflow/resource_dataflow_flex_template_job.go": (
        "dataflow/flexTemplateJob:FlexTemplateJob",
        [
            ("ipConfiguration", one_of("WORKER_IP_PUBLIC", "WORKER_IP_PRIVATE")),
            ("onDelete", one_of("cancel", "drain")),
            ("containerSpecGcsPath", matches("gs://.+")),
            ("", _not_twice),
        ],
    ),
    "dns/ManagedZone.yaml": (
        "dns/managedZone:ManagedZone",
        [("visibility", one_of("private", "public")), ("dnsName", matches(r".+\."))],
    ),
    "dns/resource_dns_record_set.go": ("dns/recordSet:RecordSet", [("name", matches(r".+\."))]),
    "iambeta/WorkloadIdentityPoolProvider.yaml": (
        "iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider",
        [
            ("", exactly_one("aws", "oidc", "saml", "x509")),
            ("workloadIdentityPoolProviderId", matches("(?!gcp-)[a-z0-9-]{4,32}")),
        ],
    ),
    "iambeta/WorkloadIdentityPool.yaml": (
        "iam/workloadIdentityPool:WorkloadIdentityPool",
        [("workloadIdentityPoolId", matches("(?!gcp-)[a-z0-9-]{4,32}"))],
    ),
    "kms/CryptoKey.yaml": (
        "kms/cryptoKey:CryptoKey",
        [
            ("name", matches("[a-zA-Z0-9_-]{1,63}")),
            ("rotationPeriod", seconds(86400, 3_153_600_000)),
            ("destroyScheduledDuration", seconds(86400, 120 * 86400)),
        ],
    ),
    "kms/KeyRing.yaml": ("kms/keyRing:KeyRing", [("name", matches("[a-zA-Z0-9_-]{1,63}"))]),
    "logging/Metric.yaml": (
        "logging/metric:Metric",
        [("metricDescriptor.metricKind", _KINDS), ("metricDescriptor.valueType", _VALUES)],
    ),
    "cloud.google.com/logging/docs/buckets": (
        "logging/projectBucketConfig:ProjectBucketConfig",
        [("retentionDays", between(1, 3650))],
    ),
    "cloud.google.com/logging/docs/export/configure_export_v2": (
        "logging/projectSink:ProjectSink",
        [("destination", matches(r"(storage|bigquery|pubsub|logging)\.googleapis\.com/.+"))],
    ),
    "monitoring/AlertPolicy.yaml": (
        "monitoring/alertPolicy:AlertPolicy",
        [
            ("combiner", one_of("AND", "OR", "AND_WITH_MATCHING_RESOURCE")),
            ("severity", one_of("CRITICAL", "ERROR", "WARNING")),
            ("conditions", items(1, 6)),
            ("conditions.*", _CONDITIONS),
            ("conditions.conditionThreshold.comparison", matches("COMPARISON_(GT|GE|LT|LE|EQ|NE)")),
            ("conditions.conditionPrometheusQueryLanguage.duration", seconds(0, 86400)),
            ("conditions.conditionPrometheusQueryLanguage.evaluationInterval", _interval),
            ("alertStrategy.autoClose", seconds(1800, 7 * 86400)),
            ("alertStrategy.notificationPrompts", one_of("OPENED", "CLOSED")),
            ("documentation.links", items(0, 3)),
        ],
    ),
    # First contact, line 19: the console finds the threshold of a query in one line alone.
    "cloud.google.com/monitoring/alerts/using-promql": (
        "monitoring/alertPolicy:AlertPolicy",
        [("conditions.conditionPrometheusQueryLanguage.query", _one_line)],
    ),
    "monitoring/MetricDescriptor.yaml": (
        "monitoring/metricDescriptor:MetricDescriptor",
        [("metricKind", _KINDS), ("valueType", _VALUES), ("labels.valueType", one_of("STRING", "BOOL", "INT64"))],
    ),
    "monitoring/Slo.yaml": (
        "monitoring/slo:Slo",
        [
            ("goal", between(0.000001, 0.9999)),
            ("rollingPeriodDays", between(1, 30)),
            ("sloId", matches(r"[a-zA-Z0-9\-_:.]+")),
            ("", exactly_one("rollingPeriodDays", "calendarPeriod")),
            ("", exactly_one("basicSli", "requestBasedSli", "windowsBasedSli")),
            ("requestBasedSli", exactly_one("goodTotalRatio", "distributionCut")),
        ],
    ),
    "resourcemanager/resource_google_project_service.go": (
        "projects/service:Service",
        [("service", matches(r"[a-z0-9.-]+\.googleapis\.com"))],
    ),
    "secretmanager/Secret.yaml": (
        "secretmanager/secret:Secret",
        [
            ("secretId", matches("[A-Za-z0-9_-]{1,255}")),
            ("replication", exactly_one("auto", "userManaged")),
            ("", at_most_one("ttl", "expireTime")),
            ("versionDestroyTtl", seconds(86400, 3_153_600_000)),
        ],
    ),
    "verify/validation.go": (
        "serviceaccount/account:Account",
        [("accountId", matches("[a-z]([-a-z0-9]{4,28}[a-z0-9])"))],
    ),
    "spanner/BackupSchedule.yaml": (
        "spanner/backupSchedule:BackupSchedule",
        [
            ("name", matches(r"[a-z][a-z0-9_\-]*[a-z0-9]")),
            ("", exactly_one("fullBackupSpec", "incrementalBackupSpec")),
            ("retentionDuration", seconds(21600, 366 * 86400)),
            ("encryptionConfig", at_most_one("kmsKeyName", "kmsKeyNames")),
            (
                "encryptionConfig.encryptionType",
                one_of("USE_DATABASE_ENCRYPTION", "GOOGLE_DEFAULT_ENCRYPTION", "CUSTOMER_MANAGED_ENCRYPTION"),
            ),
        ],
    ),
    "spanner/Database.yaml": (
        "spanner/database:Database",
        [
            ("name", matches(r"[a-z][-_a-z0-9]*[a-z0-9]")),
            ("versionRetentionPeriod", matches(r"[1-7]d|([1-9]|\d\d|1[0-5]\d|16[0-8])h|\d+[ms]")),
            ("databaseDialect", one_of("GOOGLE_STANDARD_SQL", "POSTGRESQL")),
            ("encryptionConfig", exactly_one("kmsKeyName", "kmsKeyNames")),
        ],
    ),
    "spanner/Instance.yaml": (
        "spanner/instance:Instance",
        [
            ("name", matches("[a-z][-a-z0-9]*[a-z0-9]")),
            ("displayName", items(4, 30)),
            ("", at_most_one("numNodes", "processingUnits", "autoscalingConfig")),
            ("processingUnits", _processing_units),
            ("autoscalingConfig.autoscalingLimits.minProcessingUnits", _processing_units),
            ("autoscalingConfig.autoscalingLimits.maxProcessingUnits", _processing_units),
            ("autoscalingConfig.autoscalingLimits", exactly_one("minProcessingUnits", "minNodes")),
            ("autoscalingConfig.autoscalingLimits", together("minProcessingUnits", "maxProcessingUnits")),
            ("autoscalingConfig.autoscalingTargets.highPriorityCpuUtilizationPercent", between(10, 90)),
            ("autoscalingConfig.autoscalingTargets.storageUtilizationPercent", between(10, 99)),
            ("edition", one_of("EDITION_UNSPECIFIED", "STANDARD", "ENTERPRISE", "ENTERPRISE_PLUS")),
            ("defaultBackupScheduleType", one_of("NONE", "AUTOMATIC")),
        ],
    ),
    "storage/resource_storage_bucket.go": (
        "storage/bucket:Bucket",
        [
            ("name", matches(r"[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9]")),
            ("publicAccessPrevention", one_of("inherited", "enforced")),
            ("lifecycleRules.action.type", one_of("Delete", "SetStorageClass", "AbortIncompleteMultipartUpload")),
            ("lifecycleRules.condition.withState", one_of("LIVE", "ARCHIVED", "ANY", "")),
            ("softDeletePolicy.retentionDurationSeconds", _soft_delete),
        ],
    ),
}

RULES: Final = tuple(
    Rule(kind=kind, path=path, check=check, source=source)
    for source, (kind, checks) in _TABLE.items()
    for path, check in checks
)
