"""What making each kind of resource takes: the permissions of who runs `up`, and the page that names them.

Google's provider makes, reads, changes and deletes, and a grant is a read and a write of a policy. What Google asks for
besides, such as the right to act as the account that a job runs as, the program grants to deployer-sa itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

# Where a permission must be held. The deployer's roles are on the project, but for these.
PROJECT, REPOSITORY, ACCESS_POLICY = "project", "repository", "access policy"
BILLING_ACCOUNT: Final = "billing account"


@dataclass(frozen=True, kw_only=True)
class Need:
    """Permissions, and the page of cloud.google.com that names them."""

    page: str
    permissions: tuple[str, ...]
    on: str = PROJECT


def _need(page: str, prefix: str, *verbs: str, on: str = PROJECT) -> Need:
    return Need(page=page, permissions=tuple(f"{prefix}.{verb}" for verb in verbs), on=on)


_MADE: Final = ("create", "get", "update", "delete")
_GRANTED: Final = ("getIamPolicy", "setIamPolicy")
_BIGQUERY: Final = "bigquery/docs/access-control"
_BUILD: Final = "build/docs/iam-roles-permissions"
_COMPUTE: Final = "compute/docs/access/iam"
_DATA_CATALOG: Final = "bigquery/docs/column-level-security-intro"
_DATA_POLICY: Final = "bigquery/docs/column-data-masking-intro"
_DNS: Final = "dns/docs/access-control"
_IAM: Final = "iam/docs/service-accounts-list-edit"
_KMS: Final = "kms/docs/reference/permissions-and-roles"
_LOGGING: Final = "logging/docs/access-control"
_MONITORING: Final = "monitoring/access-control"
_POOLS: Final = "iam/docs/roles-permissions/iam"
_PROJECTS: Final = "resource-manager/docs/access-control-proj"
_PUBSUB: Final = "pubsub/docs/access-control"
_REPOSITORY: Final = "artifact-registry/docs/access-control"
_RUN: Final = "run/docs/reference/iam/permissions"
_SECRETS: Final = "secret-manager/docs/access-control"
_SERVICES: Final = "service-usage/docs/access-control"
_SPANNER: Final = "spanner/docs/iam"
_STORAGE: Final = "storage/docs/access-control/iam-permissions"

# By the type's part between `gcp:` and the second colon.
NEEDS: Final[Mapping[str, Need]] = {
    "accesscontextmanager/servicePerimeter": _need(
        "access-context-manager/docs/access-control",
        "accesscontextmanager.servicePerimeters",
        *_MADE,
        on=ACCESS_POLICY,
    ),
    "artifactregistry/repositoryIamMember": _need(
        _REPOSITORY, "artifactregistry.repositories", *_GRANTED, on=REPOSITORY
    ),
    "bigquery/dataTransferConfig": _need(_BIGQUERY, "bigquery.transfers", "get", "update"),
    "bigquery/dataset": _need(_BIGQUERY, "bigquery.datasets", *_MADE),
    "bigquery/datasetAccess": _need(_BIGQUERY, "bigquery.datasets", "get", "update"),
    "bigquery/datasetIamMember": _need(_BIGQUERY, "bigquery.datasets", "get", "update", *_GRANTED),
    "bigquery/iamMember": _need(_BIGQUERY, "bigquery.tables", *_GRANTED),
    "bigquery/routine": _need(_BIGQUERY, "bigquery.routines", *_MADE),
    # To make a view is to run its query, as far as BigQuery checks it.
    "bigquery/table": _need(_BIGQUERY, "bigquery.tables", *_MADE, "getData"),
    "bigquerydatapolicy/dataPolicy": _need(_DATA_POLICY, "bigquery.dataPolicies", *_MADE),
    "bigquerydatapolicy/dataPolicyIamMember": _need(_DATA_POLICY, "bigquery.dataPolicies", *_GRANTED),
    "billing/budget": _need("billing/docs/how-to/budgets", "billing.budgets", *_MADE, on=BILLING_ACCOUNT),
    "cloudbuild/trigger": _need(_BUILD, "cloudbuild.builds", "create", "get", "update"),
    "cloudbuild/workerPool": _need(_BUILD, "cloudbuild.workerpools", *_MADE, "use"),
    "cloudrunv2/job": _need(_RUN, "run.jobs", *_MADE),
    "cloudrunv2/jobIamMember": _need(_RUN, "run.jobs", *_GRANTED),
    "cloudrunv2/service": _need(_RUN, "run.services", *_MADE),
    "cloudrunv2/serviceIamMember": _need(_RUN, "run.services", *_GRANTED),
    "cloudscheduler/job": _need("iam/docs/roles-permissions/cloudscheduler", "cloudscheduler.jobs", *_MADE),
    "composer/environment": _need("composer/docs/composer-3/access-control", "composer.environments", *_MADE),
    "compute/firewall": _need(_COMPUTE, "compute.firewalls", *_MADE),
    "compute/network": _need(_COMPUTE, "compute.networks", *_MADE, "updatePolicy"),
    "compute/router": _need(_COMPUTE, "compute.routers", *_MADE),
    "compute/routerNat": _need(_COMPUTE, "compute.routers", "get", "update"),
    "compute/subnetwork": _need(_COMPUTE, "compute.subnetworks", *_MADE),
    "datacatalog/policyTag": _need(_DATA_CATALOG, "datacatalog.taxonomies", "create", "get", "update", "delete"),
    "datacatalog/policyTagIamMember": _need(_DATA_CATALOG, "datacatalog.categories", *_GRANTED),
    "datacatalog/taxonomy": _need(_DATA_CATALOG, "datacatalog.taxonomies", *_MADE),
    "dataflow/flexTemplateJob": _need(
        "dataflow/docs/concepts/access-control", "dataflow.jobs", "create", "get", "list", "cancel", "updateContents"
    ),
    "dns/managedZone": _need(_DNS, "dns.managedZones", *_MADE),
    "dns/recordSet": _need(_DNS, "dns.resourceRecordSets", *_MADE, "list"),
    "iam/workloadIdentityPool": _need(_POOLS, "iam.googleapis.com/workloadIdentityPools", *_MADE),
    "iam/workloadIdentityPoolProvider": _need(_POOLS, "iam.googleapis.com/workloadIdentityPoolProviders", *_MADE),
    "iap/webCloudRunServiceIamMember": _need("iap/docs/managing-access", "iap.webServices", *_GRANTED),
    "kms/cryptoKey": _need(_KMS, "cloudkms.cryptoKeys", "create", "get", "update"),
    "kms/cryptoKeyIAMMember": _need(_KMS, "cloudkms.cryptoKeys", *_GRANTED),
    "kms/keyRing": _need(_KMS, "cloudkms.keyRings", "create", "get"),
    "logging/logView": _need(_LOGGING, "logging.views", *_MADE),
    "logging/logViewIamMember": _need(_LOGGING, "logging.views", *_GRANTED),
    "logging/metric": _need(_LOGGING, "logging.logMetrics", *_MADE),
    "logging/projectBucketConfig": _need(_LOGGING, "logging.buckets", *_MADE),
    "logging/projectExclusion": _need(_LOGGING, "logging.exclusions", *_MADE),
    "logging/projectSink": _need(_LOGGING, "logging.sinks", *_MADE),
    "monitoring/alertPolicy": _need(_MONITORING, "monitoring.alertPolicies", *_MADE),
    "monitoring/customService": _need(_MONITORING, "monitoring.services", *_MADE),
    "monitoring/dashboard": _need(_MONITORING, "monitoring.dashboards", *_MADE),
    "monitoring/metricDescriptor": _need(_MONITORING, "monitoring.metricDescriptors", "create", "get", "delete"),
    "monitoring/notificationChannel": _need(_MONITORING, "monitoring.notificationChannels", *_MADE),
    "monitoring/slo": _need(_MONITORING, "monitoring.slos", *_MADE),
    "projects/iAMAuditConfig": _need(_PROJECTS, "resourcemanager.projects", *_GRANTED),
    "projects/iAMMember": _need(_PROJECTS, "resourcemanager.projects", "get", *_GRANTED),
    "projects/service": _need(_SERVICES, "serviceusage.services", "enable", "get", "list", "use"),
    "projects/serviceIdentity": _need(_SERVICES, "serviceusage.services", "enable"),
    "pubsub/topic": _need(_PUBSUB, "pubsub.topics", *_MADE),
    "pubsub/topicIAMMember": _need(_PUBSUB, "pubsub.topics", *_GRANTED),
    "secretmanager/secret": _need(_SECRETS, "secretmanager.secrets", *_MADE),
    "secretmanager/secretIamMember": _need(_SECRETS, "secretmanager.secrets", *_GRANTED),
    "serviceaccount/account": _need(_IAM, "iam.serviceAccounts", *_MADE),
    "serviceaccount/iAMMember": _need(_IAM, "iam.serviceAccounts", *_GRANTED),
    "spanner/backupSchedule": _need(_SPANNER, "spanner.backupSchedules", *_MADE),
    "spanner/database": _need(_SPANNER, "spanner.databases", "create", "get", "getDdl", "updateDdl", "drop"),
    "spanner/databaseIAMMember": _need(_SPANNER, "spanner.databases", *_GRANTED),
    "spanner/instance": _need(_SPANNER, "spanner.instances", *_MADE),
    "storage/bucket": _need(_STORAGE, "storage.buckets", *_MADE),
    "storage/bucketIAMMember": _need(_STORAGE, "storage.buckets", *_GRANTED),
    "storage/bucketObject": _need(_STORAGE, "storage.objects", "create", "get", "delete"),
}


def kind_of(pulumi_type: str) -> str:
    """`storage/bucket` of `gcp:storage/bucket:Bucket`."""
    return pulumi_type.removeprefix("gcp:").partition(":")[0]


def needed(types: Iterable[str], on: str) -> dict[str, list[str]]:
    """The permissions that these types of resource take there, each with the kinds that take it."""
    found: dict[str, list[str]] = {}
    for kind in sorted({kind_of(each) for each in types if each.startswith("gcp:")}):
        need = NEEDS[kind]
        for permission in need.permissions if need.on == on else ():
            found.setdefault(permission, []).append(kind)
    return found
