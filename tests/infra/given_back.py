"""What Google gives back of a resource, as its provider reads it into the state; and what the provider calls a change.

A second preview is without changes where what is read is what is asked for. Google fills in defaults, writes lists in
its own order, and leaves some things out; the provider forgives part of that. Facts are from the provider's sources
(`mmv1/` of GoogleCloudPlatform/magic-modules), where no other place is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Inputs = Mapping[str, Any]

JOB: Final = "gcp:dataflow/flexTemplateJob:FlexTemplateJob"
LOG_BUCKET: Final = "gcp:logging/projectBucketConfig:ProjectBucketConfig"
TABLE: Final = "gcp:bigquery/table:Table"
_ALERT: Final = "gcp:monitoring/alertPolicy:AlertPolicy"
_TRANSFER: Final = "gcp:bigquery/dataTransferConfig:DataTransferConfig"

# Arguments that the provider reads from the job's pipeline options by their names in Java. Beam's Python SDK writes
# temp_location, where it looks for tempLocation. It falls back to the worker pool only where the argument is not set.
# dataflow/resource_dataflow_flex_template_job.go; first contact, line 13.
NOT_READ_BACK: Final = ("tempLocation", "stagingLocation", "machineType", "numWorkers", "sdkContainerImage")

# Sets: Google gives them back in its own order, and the provider does not mind (`is_set`, schema.TypeSet).
SETS: Final[Mapping[str, tuple[str, ...]]] = {
    "gcp:accesscontextmanager/servicePerimeter:ServicePerimeter": tuple(
        f"{spec}.{path}"
        for spec in ("status", "spec")
        for path in (
            "resources",
            "accessLevels",
            "restrictedServices",
            "vpcAccessibleServices.allowedServices",
            "ingressPolicies.ingressFrom.identities",
            "ingressPolicies.ingressTo.resources",
            "egressPolicies.egressFrom.identities",
            "egressPolicies.egressTo.resources",
        )
    ),
    "gcp:billing/budget:Budget": ("budgetFilter.projects",),
    "gcp:bigquery/dataset:Dataset": ("accesses",),
    "gcp:cloudrunv2/job:Job": ("template.template.containers.envs",),
    "gcp:cloudrunv2/service:Service": ("template.containers.envs",),
    "gcp:compute/firewall:Firewall": (
        "allows",
        "denies",
        "sourceRanges",
        "destinationRanges",
        "sourceServiceAccounts",
        "targetServiceAccounts",
    ),
    JOB: ("additionalExperiments", "additionalPipelineOptions"),
    "gcp:dns/managedZone:ManagedZone": ("privateVisibilityConfig.networks",),
    "gcp:logging/metric:Metric": ("metricDescriptor.labels",),
    "gcp:monitoring/metricDescriptor:MetricDescriptor": ("labels",),
    "gcp:projects/iAMAuditConfig:IAMAuditConfig": ("auditLogConfigs", "auditLogConfigs.exemptedMembers"),
}
# What the server says where nobody asked for it, and what the provider takes over (`default_from_api`, Computed).
DEFAULTS: Final[Mapping[str, Inputs]] = {
    "gcp:accesscontextmanager/servicePerimeter:ServicePerimeter": {"perimeterType": "PERIMETER_TYPE_REGULAR"},
    "gcp:bigquery/dataset:Dataset": {"maxTimeTravelHours": "168", "isCaseInsensitive": False},
    "gcp:cloudscheduler/job:Job": {"attemptDeadline": "180s", "timeZone": "Etc/UTC"},
    # An alias becomes the version that it stood for when the environment was made, and the provider forgives that:
    # composer/resource_composer_environment.go, composerImageVersionDiffSuppress.
    "gcp:composer/environment:Environment": {"deletionPolicy": "DELETE"},
    "gcp:compute/firewall:Firewall": {"direction": "INGRESS", "priority": 1000},
    "gcp:compute/network:Network": {"mtu": 1460, "routingMode": "REGIONAL"},
    "gcp:compute/subnetwork:Subnetwork": {"stackType": "IPV4_ONLY", "purpose": "PRIVATE"},
    "gcp:kms/cryptoKey:CryptoKey": {"purpose": "ENCRYPT_DECRYPT", "destroyScheduledDuration": "2592000s"},
    JOB: {"onDelete": "cancel", "state": "JOB_STATE_RUNNING", "type": "JOB_TYPE_STREAMING"},
    LOG_BUCKET: {"retentionDays": 30, "locked": False},
    _ALERT: {"enabled": True},
    _TRANSFER: {"dataRefreshWindowDays": 0, "disabled": False},
    "gcp:spanner/instance:Instance": {"state": "READY", "edition": "STANDARD"},
    "gcp:spanner/database:Database": {"databaseDialect": "GOOGLE_STANDARD_SQL", "versionRetentionPeriod": "1h"},
    "gcp:storage/bucket:Bucket": {"storageClass": "STANDARD", "rpo": "DEFAULT", "defaultEventBasedHold": False},
}


def given_back(kind: str, inputs: Inputs) -> dict[str, Any]:
    """What a read returns of a resource that was asked for with these inputs."""
    there = json.loads(json.dumps({**DEFAULTS.get(kind, {}), **inputs}))
    for holder, name in _sets(kind, there):
        holder[name] = sorted(holder[name], key=_text, reverse=True)
    if kind == JOB:
        there = {key: value for key, value in there.items() if key not in NOT_READ_BACK}
    if kind == _ALERT:
        _without_zeros(there)
    if kind == _TRANSFER and there.get("schedule"):
        there["schedule"] = in_hours(there["schedule"])
    return dict(there)


def changed(kind: str, state: Inputs, before: Inputs, now: Inputs) -> list[str]:
    """The inputs that the provider would change: `state` is what was read, `before` and `now` are what was asked for.

    What was read and never asked for is no change: the provider computes it.
    """
    wanted, there = _plain(kind, now), _plain(kind, state)
    return [key for key in sorted({*before, *now}) if wanted.get(key) != there.get(key)]


def imported(kind: str, project: str, inputs: Inputs) -> dict[str, Any]:
    """What the first read by an id alone returns, which is what an import goes by.

    The importer of log buckets has the parent as `projects/X` where the argument is X: another project, so another
    bucket (logging/resource_logging_bucket_config.go; first contact, line 13a).
    """
    there = given_back(kind, inputs)
    return {**there, "project": f"projects/{project}"} if kind == LOG_BUCKET else there


def kept_policy_tags(before: str, now: str) -> str:
    """A table's schema after an update: a column that says nothing of policy tags keeps its own.

    https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema: only an empty list removes them.
    """
    had = {column["name"].casefold(): column.get("policyTags") for column in json.loads(before or "[]")}
    columns = json.loads(now or "[]")
    for column in columns:
        old = had.get(column["name"].casefold())
        if "policyTags" not in column and old and old.get("names"):
            column["policyTags"] = old
    return json.dumps(columns)


def in_hours(schedule: str) -> str:
    """`every 720 minutes` as `every 12 hours`. Assumed, first contact's line 18: the service has a form of its own."""
    found = re.fullmatch(r"every (\d+) minutes", schedule)
    whole = found and int(found[1]) % 60 == 0
    return f"every {int(found[1]) // 60} hours" if found and whole else schedule


def _without_zeros(policy: dict[str, Any]) -> None:
    """Assumed, first contact's line 18: a PromQL condition that holds at once has no duration in the answer."""
    for condition in policy.get("conditions", []):
        query = condition.get("conditionPrometheusQueryLanguage") or {}
        if query.get("duration") == "0s":
            del query["duration"]


def _plain(kind: str, values: Inputs) -> dict[str, Any]:
    """As the provider compares it: sets without an order."""
    there: dict[str, Any] = json.loads(json.dumps(dict(values)))
    for holder, name in _sets(kind, there):
        holder[name] = sorted(holder[name], key=_text)
    if kind == TABLE and "schema" in there:
        there["schema"] = _columns(there["schema"])
    return there


def _columns(schema: Any) -> Any:
    """An empty list of policy tags is none (bigquery/resource_bigquery_table.go compares column by column)."""
    if not isinstance(schema, str) or not schema.startswith("["):
        return schema
    columns = json.loads(schema)
    for column in columns:
        if column.get("policyTags") in ({"names": []}, {}):
            del column["policyTags"]
    return json.dumps(columns, sort_keys=True)


def _sets(kind: str, values: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a resource has a set, the inner ones first: an outer one is ordered by what is in it."""
    for path in sorted(SETS.get(kind, ()), key=lambda path: -path.count(".")):
        yield from _holders(values, path.split("."))


def _text(value: Any) -> str:
    """A value as a text that does not depend on the order of its keys."""
    return json.dumps(value, sort_keys=True)


def _holders(value: Any, path: list[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each object that has the list at the end of the path, and its name there."""
    if isinstance(value, list):
        for each in value:
            yield from _holders(each, path)
    elif isinstance(value, dict) and path[0] in value:
        if len(path) > 1:
            yield from _holders(value[path[0]], path[1:])
        elif isinstance(value[path[0]], list):
            yield value, path[0]
