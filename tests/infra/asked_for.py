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
    "deliveryState": "gs://p-pulumi-state",
    "deliverySecrets": "gcpkms://projects/p/locations/us-central1/keyRings/r/cryptoKeys/k",
    "replayTopic": "replays",
    "notifications": ["ticket=audit-team@example.com"],
}
