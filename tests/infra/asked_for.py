"""What config can add to a stack, beyond what its file asks for."""

from __future__ import annotations

from typing import Any

MORE: dict[str, Any] = {
    "cloudNat": True,
    "ciIssuer": "https://token.actions.githubusercontent.com",
    "ciCondition": "assertion.repository == 'org/repo'",
    "metadataProcessingUnits": 100,
    "deliveryRepository": "projects/p/locations/us-central1/connections/c/repositories/n",
    "deliveryImage": "us-central1-docker.pkg.dev/p/r/job",
    "deliveryBuilder": f"us-central1-docker.pkg.dev/p/r/builder@sha256:{'0' * 64}",
    "deliveryAccount": "deployer-sa@p.iam.gserviceaccount.com",
    "deliveryPreviewAccount": "preview-sa@p.iam.gserviceaccount.com",
    "deliveryNetwork": "projects/p/global/networks/builds",
    "deliveryState": "gs://p-pulumi-state",
    "deliverySecrets": "gcpkms://projects/p/locations/us-central1/keyRings/r/cryptoKeys/k",
    "argoCdCluster": "projects/clusters/locations/global/memberships/tools",
    "replayTopic": "replays",
    "notifications": ["ticket=audit-team@example.com"],
    "budgetDollars": 150,
    "billingAccount": "012345-6789AB-CDEF01",
}

# A stack beside another one in its project, which has what a project has once.
BESIDE: dict[str, Any] = {
    "prefix": "eu-1",
    "projectWide": False,
    "accessPolicy": "",
    "perimeterWaiver": "the other stack of the project has it",
    "auditLogExemptions": [],
    "budgetDollars": 0,
}

# A network, keys and a log bucket that the organisation has, and its labels. The subnetwork is in dev's region.
OF_OTHERS: dict[str, Any] = {
    "subnetwork": "projects/net-host/regions/us-central1/subnetworks/data",
    "keyRing": "projects/keys-prod/locations/{location}/keyRings/payments",
    "keyGrants": True,
    "logBucket": "projects/central-logs/locations/eu/buckets/payments",
    "labels": ["team=payments", "cost-center=42"],
    "onCall": ["group:audit-on-call@example.com"],
}
