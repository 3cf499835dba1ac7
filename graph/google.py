"""What Google Cloud adds to a resource's own inputs, and answers to questions, as far as the program reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

PROJECT_NUMBER: Final = "123456789012"

# How Google refuses, for some minutes, what needs a change that it has accepted: an API that was just enabled, an
# account or role that was just made, a key that an agent may use since a moment ago. "Typically 2 minutes, potentially
# 7 minutes or longer": cloud.google.com/iam/docs/access-change-propagation.
NOT_YET: Final = re.compile(
    r"SERVICE_DISABLED|has not been used in project|is disabled|does not exist|useToEncrypt|denied on Cloud KMS key"
)

# The ids by which Google's provider imports what we named, as its documentation writes them.
IMPORT_IDS: Final[Mapping[str, str]] = {
    "gcp:accesscontextmanager/servicePerimeter:ServicePerimeter": "{{name}}",
    "gcp:artifactregistry/repository:Repository": (
        "projects/{{project}}/locations/{{location}}/repositories/{{repository_id}}"
    ),
    "gcp:bigquery/dataset:Dataset": "projects/{{project}}/datasets/{{dataset_id}}",
    "gcp:bigquery/routine:Routine": "projects/{{project}}/datasets/{{dataset_id}}/routines/{{routine_id}}",
    "gcp:bigquery/table:Table": "projects/{{project}}/datasets/{{dataset_id}}/tables/{{table_id}}",
    "gcp:bigquerydatapolicy/dataPolicy:DataPolicy": (
        "projects/{{project}}/locations/{{location}}/dataPolicies/{{data_policy_id}}"
    ),
    "gcp:cloudbuild/workerPool:WorkerPool": "projects/{{project}}/locations/{{location}}/workerPools/{{name}}",
    "gcp:cloudrunv2/job:Job": "projects/{{project}}/locations/{{location}}/jobs/{{name}}",
    "gcp:cloudrunv2/service:Service": "projects/{{project}}/locations/{{location}}/services/{{name}}",
    "gcp:cloudscheduler/job:Job": "projects/{{project}}/locations/{{region}}/jobs/{{name}}",
    "gcp:composer/environment:Environment": "projects/{{project}}/locations/{{region}}/environments/{{name}}",
    "gcp:compute/firewall:Firewall": "projects/{{project}}/global/firewalls/{{name}}",
    "gcp:compute/network:Network": "projects/{{project}}/global/networks/{{name}}",
    "gcp:compute/router:Router": "projects/{{project}}/regions/{{region}}/routers/{{name}}",
    "gcp:compute/routerNat:RouterNat": "projects/{{project}}/regions/{{region}}/routers/{{router}}/{{name}}",
    "gcp:compute/subnetwork:Subnetwork": "projects/{{project}}/regions/{{region}}/subnetworks/{{name}}",
    "gcp:dns/managedZone:ManagedZone": "projects/{{project}}/managedZones/{{name}}",
    "gcp:dns/recordSet:RecordSet": "projects/{{project}}/managedZones/{{managed_zone}}/rrsets/{{name}}/{{type}}",
    "gcp:iam/workloadIdentityPool:WorkloadIdentityPool": (
        "projects/{{project}}/locations/global/workloadIdentityPools/{{workload_identity_pool_id}}"
    ),
    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider": (
        "projects/{{project}}/locations/global/workloadIdentityPools/{{workload_identity_pool_id}}"
        "/providers/{{workload_identity_pool_provider_id}}"
    ),
    "gcp:kms/cryptoKey:CryptoKey": "{{key_ring}}/cryptoKeys/{{name}}",
    "gcp:kms/keyRing:KeyRing": "projects/{{project}}/locations/{{location}}/keyRings/{{name}}",
    "gcp:logging/logView:LogView": "{{bucket}}/views/{{name}}",
    "gcp:logging/metric:Metric": "{{name}}",
    "gcp:logging/projectBucketConfig:ProjectBucketConfig": (
        "projects/{{project}}/locations/{{location}}/buckets/{{bucket_id}}"
    ),
    "gcp:logging/projectExclusion:ProjectExclusion": "projects/{{project}}/exclusions/{{name}}",
    "gcp:logging/projectSink:ProjectSink": "projects/{{project}}/sinks/{{name}}",
    "gcp:monitoring/customService:CustomService": "projects/{{project}}/services/{{service_id}}",
    "gcp:monitoring/metricDescriptor:MetricDescriptor": "projects/{{project}}/metricDescriptors/{{type}}",
    "gcp:monitoring/slo:Slo": "projects/{{project}}/services/{{service}}/serviceLevelObjectives/{{slo_id}}",
    "gcp:projects/service:Service": "{{project}}/{{service}}",
    "gcp:pubsub/topic:Topic": "projects/{{project}}/topics/{{name}}",
    "gcp:secretmanager/secret:Secret": "projects/{{project}}/secrets/{{secret_id}}",
    "gcp:serviceaccount/account:Account": (
        "projects/{{project}}/serviceAccounts/{{account_id}}@{{project}}.iam.gserviceaccount.com"
    ),
    "gcp:spanner/backupSchedule:BackupSchedule": (
        "projects/{{project}}/instances/{{instance}}/databases/{{database}}/backupSchedules/{{name}}"
    ),
    "gcp:spanner/database:Database": "projects/{{project}}/instances/{{instance}}/databases/{{name}}",
    "gcp:spanner/instance:Instance": "projects/{{project}}/instances/{{name}}",
    "gcp:storage/bucket:Bucket": "{{name}}",
}

# What the provider's create takes over where it is there already, with a read and an update. Its importer must not be
# used: it has the project as `projects/X`, which is another one, so the next preview would replace the bucket
# (mmv1/third_party/terraform/services/logging/resource_logging_bucket_config.go of GoogleCloudPlatform/magic-modules).
TAKEN_OVER: Final = frozenset({"gcp:logging/projectBucketConfig:ProjectBucketConfig"})

# Kinds whose output `name` is the full name; a pool's has the project's number in it.
_NAMED_IN_FULL: Final = frozenset(
    {
        "gcp:iam/workloadIdentityPool:WorkloadIdentityPool",
        "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider",
        "gcp:logging/projectBucketConfig:ProjectBucketConfig",
        "gcp:serviceaccount/account:Account",
    }
)

# Full names that other resources name, of what the provider imports by a number or by two names.
_FULL_NAMES: Final[Mapping[str, str]] = {
    "gcp:monitoring/notificationChannel:NotificationChannel": "projects/{project}/notificationChannels/{resource}",
    "gcp:monitoring/slo:Slo": "projects/{project}/services/{service}/serviceLevelObjectives/{sloId}",
}


def import_id(project: str, kind: str, inputs: Mapping[str, Any]) -> str | None:
    """What Google's provider imports the resource by; None for what Google or the provider gives a name itself."""
    values = {"project": project, **{re.sub("[A-Z]", r"_\g<0>", key).lower(): value for key, value in inputs.items()}}
    fields = re.findall(r"{{(\w+)}}", IMPORT_IDS.get(kind, ""))
    if not fields or not all(values.get(field) for field in fields):
        return None
    return re.sub(r"{{(\w+)}}", lambda field: str(values[field[1]]), IMPORT_IDS[kind])


def server_made(project: str, kind: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are there once the resource is made. `id` is always among them."""
    id = import_id(project, kind, inputs) or name
    made: dict[str, Any] = {"id": id}
    if kind in _NAMED_IN_FULL:
        made["name"] = id.replace(f"projects/{project}/", f"projects/{PROJECT_NUMBER}/") if "Pool" in kind else id
    if kind in _FULL_NAMES:
        made["name"] = _FULL_NAMES[kind].format_map({"project": project, "resource": name, **inputs})
    if kind == "gcp:serviceaccount/account:Account":
        email = f"{inputs['accountId']}@{project}.iam.gserviceaccount.com"
        made |= {"email": email, "member": f"serviceAccount:{email}"}
    if kind == "gcp:storage/bucket:Bucket":
        made["url"] = f"gs://{inputs['name']}"
    if kind == "gcp:projects/serviceIdentity:ServiceIdentity":
        made["email"] = _agent(inputs["service"].partition(".")[0])
    if kind == "gcp:cloudrunv2/service:Service":
        made["uri"] = f"https://{inputs.get('name', name)}-{PROJECT_NUMBER}.{inputs['location']}.run.app"
    if kind == "pulumi:index:Stash":
        made["output"] = inputs["input"]
    return made


def looked_up(function: str) -> dict[str, Any]:
    """The answer to a question that the program asks: its project's number, a service's agent."""
    return {
        # No table is there yet.
        "gcp:bigquery/getTable:getTable": {},
        "gcp:organizations/getProject:getProject": {"number": PROJECT_NUMBER},
        "gcp:storage/getProjectServiceAccount:getProjectServiceAccount": {"emailAddress": _agent("storage")},
        "gcp:bigquery/getDefaultServiceAccount:getDefaultServiceAccount": {
            "email": f"bq-{PROJECT_NUMBER}@bigquery-encryption.iam.gserviceaccount.com"
        },
        "gcp:logging/getProjectCmekSettings:getProjectCmekSettings": {
            "serviceAccountId": f"cmek-p{PROJECT_NUMBER}@gcp-sa-logging.iam.gserviceaccount.com"
        },
    }[function]


def _agent(service: str) -> str:
    """The e-mail of a service's agent. Those of the oldest services have other names."""
    if service == "composer":
        return f"service-{PROJECT_NUMBER}@cloudcomposer-accounts.iam.gserviceaccount.com"
    named = {
        "dataflow": "dataflow-service-producer-prod",
        "run": "serverless-robot-prod",
        "storage": "gs-project-accounts",
    }
    return f"service-{PROJECT_NUMBER}@{named.get(service, f'gcp-sa-{service}')}.iam.gserviceaccount.com"
