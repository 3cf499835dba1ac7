"""What the accounts that preview and deploy may do, and why. Neither is owner or editor, nor can make itself one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from components import naming
from guardrails.rules import OWN_ROLES, PROJECT_ROLES


@dataclass(frozen=True, kw_only=True)
class CustomRole:
    """A custom role of the project, for a task whose Google role may do more. `id` is the last part of its name."""

    id: str
    title: str
    reason: str
    permissions: tuple[str, ...]

    def of(self, project: str) -> str:
        return naming.role(self.id, project)


# In place of roles/secretmanager.admin, which reads every secret of the project.
SECRETS: Final = CustomRole(
    id="auditSecrets",
    title="Payment audit: secrets without their versions",
    reason="the masking keys' secret and its grants, and no version of it",
    permissions=(
        "secretmanager.secrets.create",
        "secretmanager.secrets.delete",
        "secretmanager.secrets.get",
        "secretmanager.secrets.getIamPolicy",
        "secretmanager.secrets.list",
        "secretmanager.secrets.setIamPolicy",
        "secretmanager.secrets.update",
    ),
)
# What a preview asks Google: whose project it is, which agents encrypt, which columns the living tables have.
LOOK: Final = CustomRole(
    id="auditPreview",
    title="Payment audit: what a preview looks up",
    reason="looks the project, its service agents and the tables' columns up; it reads no data and changes nothing",
    permissions=(
        # BigQuery requires it of who asks for its service agent. Without a grant on data such a job reads none.
        "bigquery.jobs.create",
        "bigquery.tables.get",
        "logging.cmekSettings.get",
        "resourcemanager.projects.get",
        # Calls are counted against the project.
        "serviceusage.services.use",
    ),
)
# Who sets up logs may not say who reads them; roles/logging.admin may, and reads all of them.
LOG_VIEWS: Final = CustomRole(
    id="auditLogViews",
    title="Payment audit: grants on log views",
    reason="lets who is on call read the view of the job's log",
    permissions=("logging.views.getIamPolicy", "logging.views.setIamPolicy"),
)
# Whoever may change a role and grant it may do anything: the program, which grants this one, makes none.
DRAIN: Final = CustomRole(
    id=naming.DRAINER,
    title="Payment audit: ends the job",
    reason=OWN_ROLES[naming.DRAINER],
    permissions=("dataflow.jobs.cancel", "dataflow.jobs.get", "dataflow.jobs.list", "dataflow.jobs.updateContents"),
)
# In place of roles/bigquery.dataEditor, which reads, changes and deletes the table.
LOG_ACCESS: Final = CustomRole(
    id=naming.ACCESS_LOGGER,
    title="Payment audit: appends to the access log",
    reason="the console appends to its access log, and neither reads nor deletes it",
    permissions=("bigquery.tables.get", "bigquery.tables.updateData"),
)
# What the runbooks look at beyond Google's viewers: each of the smallest roles with one of these has much more.
ON_CALL: Final = CustomRole(
    id=naming.ON_CALL,
    title="Payment audit: what the runbooks look at",
    reason=OWN_ROLES[naming.ON_CALL],
    permissions=(
        # Who reads how much: names and bytes of the project's queries.
        "bigquery.jobs.listAll",
        "cloudkms.cryptoKeyVersions.list",
        "cloudscheduler.jobs.enable",
        "cloudscheduler.jobs.list",
        "monitoring.snoozes.create",
        # The versions' names and states; their values take secretmanager.versions.access.
        "secretmanager.versions.list",
        "spanner.backups.list",
        # Columns, change streams and their retention; no row.
        "spanner.databases.getDdl",
        "spanner.instances.get",
    ),
)
CUSTOM: Final = (SECRETS, LOOK, LOG_VIEWS, DRAIN, LOG_ACCESS, ON_CALL)

# On the stack's own project. The program makes and changes each kind of resource, so these are its services' makers.
DEPLOYER: Final[Mapping[str, str]] = {
    "roles/bigquery.admin": "datasets, tables, views and the scheduled merge, with their grants",
    "roles/cloudbuild.builds.editor": "the stack's triggers",
    "roles/cloudbuild.workerPoolOwner": "the private pool inside the perimeter",
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
# Grants on the project, but of these roles only: with the role alone it could make itself owner.
GRANTS: Final = "roles/resourcemanager.projectIamAdmin"
GRANTS_REASON: Final = "audit logging, and the program's grants on the project, of no other role"
# What previews a change that nobody has reviewed: its code runs as this account, which reads none of the stack's data.
PREVIEW: Final[Mapping[str, str]] = {
    "roles/cloudbuild.workerPoolUser": "its builds run on the stack's machines",
    "roles/logging.logWriter": "the log of its builds",
}


def grants_condition(project: str) -> str:
    """The IAM condition of GRANTS: whoever has it hands out the roles of guardrails/rules.py alone."""
    own = (naming.role(role, project) for role in OWN_ROLES)
    roles = ", ".join(f"'{role}'" for role in sorted((*PROJECT_ROLES, *own)))
    return f"api.getAttribute('iam.googleapis.com/modifiedGrantsByRole', []).hasOnly([{roles}])"
