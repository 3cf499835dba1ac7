"""What the accounts that build and deploy may do, and why. Neither is owner or editor, nor can make itself one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from guardrails.rules import PROJECT_ROLES

# On the stack's own project. The program makes and changes each kind of resource, so these are its services' makers.
DEPLOYER: Final[Mapping[str, str]] = {
    "roles/bigquery.admin": "datasets, tables, views and the scheduled merge, with their grants",
    "roles/cloudbuild.builds.editor": "the stack's triggers",
    "roles/cloudbuild.workerPoolOwner": "the private pool inside the perimeter",
    "roles/cloudkms.admin": "keys and their grants; this role encrypts and decrypts nothing",
    "roles/compute.networkAdmin": "network, subnetwork, router",
    "roles/compute.securityAdmin": "the workers' firewall",
    "roles/dataflow.developer": "launches and drains the job",
    "roles/dns.admin": "names of Google's APIs inside the perimeter",
    "roles/iam.serviceAccountAdmin": "the stack's accounts and who may act as them",
    "roles/iam.workloadIdentityPoolAdmin": "the pool of a CI outside Google",
    "roles/logging.configWriter": "log bucket, sink, exclusion",
    "roles/logging.logWriter": "the log of a build that runs as this account",
    "roles/monitoring.editor": "SLOs, alerts, dashboards",
    "roles/secretmanager.admin": "the masking keys' secret and its grants; it could read it, which the audit logs show",
    "roles/serviceusage.serviceUsageAdmin": "enables APIs, and calls are counted against the project",
    "roles/spanner.admin": "instance, databases, schema",
    "roles/storage.admin": "buckets, and the template in its bucket",
}
# Grants on the project, but of these roles only: with the role alone it could make itself owner.
GRANTS: Final = "roles/resourcemanager.projectIamAdmin"
GRANTS_REASON: Final = "audit logging, and the program's grants on the project, of no other role"
# What checks a change that nobody has reviewed: it reads nothing of the stack.
BUILD: Final[Mapping[str, str]] = {"roles/logging.logWriter": "the log of its builds"}


def grants_condition() -> str:
    """The IAM condition of GRANTS: whoever has it hands out the roles of guardrails/rules.py alone."""
    roles = ", ".join(f"'{role}'" for role in sorted(PROJECT_ROLES))
    return f"api.getAttribute('iam.googleapis.com/modifiedGrantsByRole', []).hasOnly([{roles}])"
