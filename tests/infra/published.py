"""Which permissions Google's roles have, of those that this project names.

Looked up as they were on 2026-08-22: https://cloud.google.com/iam/docs/roles-permissions. By role, then by the
permission up to its last part. IAM refuses a custom role for one permission that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_ROLES: Final[Mapping[str, Mapping[str, str]]] = {
    "roles/accesscontextmanager.policyEditor": {
        "accesscontextmanager.servicePerimeters": "create delete get update",
        "resourcemanager.projects": "get",
    },
    "roles/artifactregistry.admin": {
        "artifactregistry.repositories": "getIamPolicy setIamPolicy",
        "resourcemanager.projects": "get",
    },
    "roles/bigquery.admin": {
        "bigquery.dataPolicies": "create delete get getIamPolicy setIamPolicy update",
        "bigquery.datasets": "create delete get getIamPolicy setIamPolicy update",
        "bigquery.jobs": "create listAll",
        "bigquery.routines": "create delete get update",
        "bigquery.tables": "create delete get getData getIamPolicy list setIamPolicy update updateData",
        "bigquery.transfers": "get update",
        "resourcemanager.projects": "get",
    },
    "roles/bigquerydatapolicy.maskedReader": {
        "bigquery.dataPolicies": "maskedGet",
    },
    "roles/cloudbuild.builds.editor": {
        "cloudbuild.builds": "create get update",
        "resourcemanager.projects": "get",
    },
    "roles/cloudbuild.workerPoolOwner": {
        "cloudbuild.workerpools": "create delete get update",
        "resourcemanager.projects": "get",
    },
    "roles/cloudbuild.workerPoolUser": {
        "cloudbuild.workerpools": "use",
    },
    "roles/cloudkms.admin": {
        "cloudkms.cryptoKeyVersions": "list",
        "cloudkms.cryptoKeys": "create get getIamPolicy setIamPolicy update",
        "cloudkms.keyRings": "create get",
        "resourcemanager.projects": "get",
    },
    "roles/cloudscheduler.admin": {
        "cloudscheduler.jobs": "create delete enable get list update",
        "resourcemanager.projects": "get",
        "serviceusage.services": "get list",
    },
    "roles/composer.admin": {
        "composer.environments": "create delete get update",
    },
    "roles/compute.networkAdmin": {
        "compute.firewalls": "get",
        "compute.networks": "create delete get update updatePolicy",
        "compute.regions": "get",
        "compute.routers": "create delete get update",
        "compute.subnetworks": "create delete get update",
        "resourcemanager.projects": "get",
        "serviceusage.services": "get list",
    },
    "roles/compute.securityAdmin": {
        "compute.firewalls": "create delete get update",
        "compute.networks": "get updatePolicy",
        "compute.regions": "get",
        "compute.routers": "get",
        "compute.subnetworks": "get",
        "resourcemanager.projects": "get",
        "serviceusage.services": "get list",
    },
    "roles/datacatalog.categoryAdmin": {
        "datacatalog.categories": "getIamPolicy setIamPolicy",
        "datacatalog.taxonomies": "create delete get update",
        "resourcemanager.projects": "get",
    },
    "roles/dataflow.developer": {
        "cloudbuild.builds": "create get update",
        "dataflow.jobs": "cancel create get list updateContents",
        "dataflow.messages": "list",
        "dataflow.metrics": "get",
        "resourcemanager.projects": "get",
    },
    # Without storage.buckets.get and storage.objects.create, get.
    "roles/dataflow.worker": {
        "autoscaling.sites": "readRecommendations writeMetrics writeState",
        "compute.instanceGroupManagers": "update",
        "compute.instances": "delete setDiskAutoDelete",
        "dataflow.jobs": "get",
        "dataflow.shuffle": "read write",
        "dataflow.streamingWorkItems": "ImportState commitWork getData getWork getWorkerMetadata",
        "dataflow.workItems": "lease sendMessage update",
        "logging.logEntries": "create route",
        "monitoring.timeSeries": "create",
    },
    "roles/dns.admin": {
        "compute.networks": "get",
        "dns.managedZones": "create delete get update",
        "dns.resourceRecordSets": "create delete get list update",
        "resourcemanager.projects": "get",
    },
    "roles/iam.serviceAccountAdmin": {
        "iam.serviceAccounts": "create delete get getIamPolicy setIamPolicy update",
        "resourcemanager.projects": "get",
    },
    "roles/iam.workloadIdentityPoolAdmin": {
        "iam.googleapis.com/workloadIdentityPoolProviders": "create delete get update",
        "iam.googleapis.com/workloadIdentityPools": "create delete get update",
        "resourcemanager.projects": "get",
    },
    "roles/iap.admin": {
        "iap.webServices": "getIamPolicy setIamPolicy",
    },
    "roles/logging.admin": {
        "logging.views": "setIamPolicy",
    },
    "roles/logging.configWriter": {
        "logging.buckets": "create delete get update",
        "logging.exclusions": "create delete get update",
        "logging.logMetrics": "create delete get update",
        "logging.settings": "get",
        "logging.sinks": "create delete get update",
        "logging.views": "create delete get getIamPolicy update",
        "resourcemanager.projects": "get",
    },
    "roles/monitoring.editor": {
        "monitoring.alertPolicies": "create delete get update",
        "monitoring.dashboards": "create delete get update",
        "monitoring.metricDescriptors": "create delete get",
        "monitoring.notificationChannels": "create delete get update",
        "monitoring.services": "create delete get update",
        "monitoring.slos": "create delete get update",
        "monitoring.snoozes": "create",
        "resourcemanager.projects": "get",
        "serviceusage.services": "enable get",
    },
    "roles/pubsub.admin": {
        "pubsub.topics": "create delete get getIamPolicy setIamPolicy update",
        "resourcemanager.projects": "get",
        "serviceusage.services": "get list",
    },
    "roles/resourcemanager.projectIamAdmin": {
        "resourcemanager.projects": "get getIamPolicy setIamPolicy",
    },
    "roles/run.admin": {
        "resourcemanager.projects": "get",
        "run.jobs": "create delete get getIamPolicy setIamPolicy update",
        "run.services": "create delete get getIamPolicy setIamPolicy update",
    },
    "roles/secretmanager.admin": {
        "secretmanager.secrets": "create delete get getIamPolicy list setIamPolicy update",
        "secretmanager.versions": "list",
    },
    "roles/serviceusage.serviceUsageAdmin": {
        "cloudquotas.quotas": "get",
        "serviceusage.services": "enable get list use",
    },
    "roles/spanner.admin": {
        "resourcemanager.projects": "get",
        "spanner.backupSchedules": "create delete get update",
        "spanner.backups": "list",
        "spanner.databases": "create drop get getDdl getIamPolicy setIamPolicy updateDdl",
        "spanner.instances": "create delete get update",
    },
    "roles/storage.admin": {
        "orgpolicy.policy": "get",
        "resourcemanager.projects": "get",
        "storage.buckets": "create delete get getIamPolicy setIamPolicy update",
        "storage.objects": "create delete get",
    },
}
# Role → its permissions among those that this project names.
ROLES: Final[Mapping[str, frozenset[str]]] = {
    role: frozenset(f"{of}.{verb}" for of, verbs in held.items() for verb in verbs.split())
    for role, held in _ROLES.items()
}
PERMISSIONS: Final = frozenset[str]().union(*ROLES.values())
