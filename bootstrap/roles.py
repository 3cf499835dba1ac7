"""What the accounts that preview and deploy may do, and why. Neither is owner or editor, nor can make itself one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from components import naming
from guardrails.rules import OWN_ROLES, PROJECT_ROLES

# Google's pages that say which permission an operation takes; under https://cloud.google.com/.
_BIGQUERY: Final = "bigquery/docs/access-control"
_DATAFLOW: Final = "dataflow/docs/concepts/access-control"
_LOGGING: Final = "logging/docs/access-control"
_SECRETS: Final = "secret-manager/docs/access-control"
_SPANNER: Final = "spanner/docs/iam"


@dataclass(frozen=True, kw_only=True)
class CustomRole:
    """A custom role of the project, for a task whose Google role may do more. `id` is the last part of its name.

    `permissions` are each with the page of cloud.google.com that names it: IAM refuses a whole role for one permission
    that it does not know. Tests compare them with the permissions that Google's roles have.
    """

    id: str
    title: str
    reason: str
    permissions: Mapping[str, str]

    def of(self, project: str) -> str:
        return naming.role(self.id, project)


# In place of roles/secretmanager.admin, which reads every secret of the project.
SECRETS: Final = CustomRole(
    id="auditSecrets",
    title="Payment audit: secrets without their versions",
    reason="the masking keys' secret and its grants, and no version of it",
    permissions={
        "secretmanager.secrets.create": _SECRETS,
        "secretmanager.secrets.delete": _SECRETS,
        "secretmanager.secrets.get": _SECRETS,
        "secretmanager.secrets.getIamPolicy": _SECRETS,
        "secretmanager.secrets.list": _SECRETS,
        "secretmanager.secrets.setIamPolicy": _SECRETS,
        "secretmanager.secrets.update": _SECRETS,
    },
)
# What a preview asks Google: whose project it is, which agents encrypt, which columns the living tables have.
LOOK: Final = CustomRole(
    id="auditPreview",
    title="Payment audit: what a preview looks up",
    reason="looks the project, its service agents and the tables' columns up; it reads no data and changes nothing",
    permissions={
        # BigQuery requires it of who asks for its service agent. Without a grant on data such a job reads none.
        "bigquery.jobs.create": _BIGQUERY,
        "bigquery.tables.get": _BIGQUERY,
        # The page of getCmekSettings names logging.cmekSettings.get, which no role for people has any longer.
        "logging.settings.get": _LOGGING,
        "resourcemanager.projects.get": "resource-manager/docs/access-control-proj",
        # Calls are counted against the project.
        "serviceusage.services.use": "service-usage/docs/access-control",
    },
)
# Who sets up logs may not say who reads them; roles/logging.admin may, and reads all of them.
LOG_VIEWS: Final = CustomRole(
    id="auditLogViews",
    title="Payment audit: grants on log views",
    reason="lets who is on call read the view of the job's log",
    permissions={
        "logging.views.getIamPolicy": _LOGGING,
        "logging.views.setIamPolicy": _LOGGING,
    },
)
# Whoever may change a role and grant it may do anything: the program, which grants this one, makes none.
DRAIN: Final = CustomRole(
    id=naming.DRAINER,
    title="Payment audit: ends the job",
    reason=OWN_ROLES[naming.DRAINER],
    permissions={
        "dataflow.jobs.cancel": _DATAFLOW,
        "dataflow.jobs.get": _DATAFLOW,
        "dataflow.jobs.list": _DATAFLOW,
        "dataflow.jobs.updateContents": _DATAFLOW,
    },
)
# In place of roles/dataflow.worker, which reads and writes the objects of every bucket, Pulumi's state among them. The
# buckets of the workers have separate grants.
WORK: Final = CustomRole(
    id=naming.WORKER,
    title="Payment audit: works for a job",
    reason=OWN_ROLES[naming.WORKER],
    permissions={
        "autoscaling.sites.readRecommendations": _DATAFLOW,
        "autoscaling.sites.writeMetrics": _DATAFLOW,
        "autoscaling.sites.writeState": _DATAFLOW,
        "compute.instanceGroupManagers.update": _DATAFLOW,
        "compute.instances.delete": _DATAFLOW,
        "compute.instances.setDiskAutoDelete": _DATAFLOW,
        "dataflow.jobs.get": _DATAFLOW,
        "dataflow.shuffle.read": _DATAFLOW,
        "dataflow.shuffle.write": _DATAFLOW,
        "dataflow.streamingWorkItems.ImportState": _DATAFLOW,
        "dataflow.streamingWorkItems.commitWork": _DATAFLOW,
        "dataflow.streamingWorkItems.getData": _DATAFLOW,
        "dataflow.streamingWorkItems.getWork": _DATAFLOW,
        "dataflow.streamingWorkItems.getWorkerMetadata": _DATAFLOW,
        "dataflow.workItems.lease": _DATAFLOW,
        "dataflow.workItems.sendMessage": _DATAFLOW,
        "dataflow.workItems.update": _DATAFLOW,
        "logging.logEntries.create": _LOGGING,
        "logging.logEntries.route": _LOGGING,
        "monitoring.timeSeries.create": "monitoring/access-control",
    },
)
# In place of roles/bigquery.dataEditor, which reads, changes and deletes the table.
LOG_ACCESS: Final = CustomRole(
    id=naming.ACCESS_LOGGER,
    title="Payment audit: appends to the access log",
    reason="the console appends to its access log, and neither reads nor deletes it",
    permissions={
        "bigquery.tables.get": _BIGQUERY,
        "bigquery.tables.updateData": _BIGQUERY,
    },
)
# In place of roles/spanner.databaseReader, which reads every row.
DDL: Final = CustomRole(
    id=naming.DDL_READER,
    title="Payment audit: reads a database's DDL",
    reason="the source's schema is compared with what it must be, without its rows",
    permissions={"spanner.databases.getDdl": _SPANNER},
)
# In place of roles/bigquery.dataEditor, which reads, changes and deletes the tables.
KEEP_TABLES: Final = CustomRole(
    id=naming.TABLE_KEEPER,
    title="Payment audit: looks at tables, and makes one that was never made",
    reason="the operation that keeps the pipeline compares tables with the contract, and reads and deletes no row",
    permissions={
        "bigquery.datasets.get": _BIGQUERY,
        "bigquery.tables.create": _BIGQUERY,
        "bigquery.tables.get": _BIGQUERY,
        "bigquery.tables.list": _BIGQUERY,
    },
)
# What the runbooks look at beyond Google's viewers: each of the smallest roles with one of these has much more.
ON_CALL: Final = CustomRole(
    id=naming.ON_CALL,
    title="Payment audit: what the runbooks look at",
    reason=OWN_ROLES[naming.ON_CALL],
    permissions={
        # Who reads how much: names and bytes of the project's queries.
        "bigquery.jobs.listAll": _BIGQUERY,
        "cloudkms.cryptoKeyVersions.list": "kms/docs/reference/permissions-and-roles",
        "cloudscheduler.jobs.enable": "iam/docs/roles-permissions/cloudscheduler",
        "cloudscheduler.jobs.list": "iam/docs/roles-permissions/cloudscheduler",
        # Whether the job runs, and how far it is. Google's own role for that would be one of the ten that the deployer
        # may grant.
        "dataflow.jobs.get": _DATAFLOW,
        "dataflow.jobs.list": _DATAFLOW,
        "dataflow.messages.list": _DATAFLOW,
        "dataflow.metrics.get": _DATAFLOW,
        "monitoring.snoozes.create": "monitoring/access-control",
        # The versions' names and states; their values take secretmanager.versions.access.
        "secretmanager.versions.list": _SECRETS,
        "spanner.backups.list": _SPANNER,
        # Columns, change streams and their retention; no row.
        "spanner.databases.getDdl": _SPANNER,
        "spanner.instances.get": _SPANNER,
    },
)
CUSTOM: Final = (SECRETS, LOOK, LOG_VIEWS, DRAIN, WORK, LOG_ACCESS, DDL, KEEP_TABLES, ON_CALL)

# On the stack's own project. The program makes and changes each kind of resource, so these are its services' makers.
DEPLOYER: Final[Mapping[str, str]] = {
    "roles/bigquery.admin": "datasets, tables, views and the scheduled merge, with their grants",
    "roles/cloudbuild.builds.editor": "the stack's triggers",
    "roles/cloudbuild.workerPoolOwner": "the private pool inside the perimeter",
    # An owner of pools may not run a build on one: cloud.google.com/build/docs/iam-roles-permissions.
    "roles/cloudbuild.workerPoolUser": "its builds run on the stack's machines",
    "roles/cloudscheduler.admin": "the probe's schedule",
    "roles/cloudkms.admin": "keys and their grants; this role encrypts and decrypts nothing",
    "roles/compute.networkAdmin": "network, subnetwork, router",
    "roles/compute.securityAdmin": "the workers' firewall",
    "roles/datacatalog.categoryAdmin": "the policy tag of personal columns, and who reads it",
    "roles/dataflow.developer": "launches and drains the job",
    "roles/dns.admin": "names of Google's APIs inside the perimeter",
    "roles/iam.serviceAccountAdmin": "the stack's accounts and who may act as them",
    "roles/iam.workloadIdentityPoolAdmin": "the pool of a CI outside Google",
    "roles/iap.admin": "who may open the console; Google's smallest role that grants it",
    "roles/logging.configWriter": "log bucket, sink, exclusion",
    "roles/logging.logWriter": "the log of a build that runs as this account",
    "roles/monitoring.editor": "SLOs, alerts, dashboards",
    "roles/pubsub.admin": "the topic of replayTopic, and who publishes to it",
    "roles/run.admin": "the probe, the replays' job and the console, and who may start or call them",
    "roles/serviceusage.serviceUsageAdmin": "enables APIs, and calls are counted against the project",
    "roles/spanner.admin": "instance, databases, schema",
    "roles/storage.admin": "buckets, and the template in its bucket",
}
# Where the program makes an environment of Cloud Composer. Google has no smaller role that makes one.
OF_COMPOSER: Final[Mapping[str, str]] = {"roles/composer.admin": "the environment that runs the DAGs"}
# What the program grants there alone: no other stack's deployer may hand it out.
COMPOSER_WORKER: Final = "roles/composer.worker"
# Grants on the project, but of these roles only: with the role alone it could make itself owner.
GRANTS: Final = "roles/resourcemanager.projectIamAdmin"
GRANTS_REASON: Final = "audit logging, and the program's grants on the project, of no other role"
# What previews a change that nobody has reviewed: its code runs as this account, which reads none of the stack's data.
PREVIEW: Final[Mapping[str, str]] = {
    "roles/cloudbuild.workerPoolUser": "its builds run on the stack's machines",
    "roles/logging.logWriter": "the log of its builds",
}


def grants_condition(project: str, composer: bool = False) -> str:
    """The IAM condition of GRANTS: whoever has it hands out the roles of guardrails/rules.py alone.

    That of Composer's workers is among them only where the program makes an environment (`composer`).
    """
    own = (naming.role(role, project) for role in OWN_ROLES)
    google = (role for role in PROJECT_ROLES if composer or role != COMPOSER_WORKER)
    roles = ", ".join(f"'{role}'" for role in sorted((*google, *own)))
    return f"api.getAttribute('iam.googleapis.com/modifiedGrantsByRole', []).hasOnly([{roles}])"
