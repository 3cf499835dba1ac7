"""What Google Cloud adds to a resource's own inputs, and answers to questions, as far as the program reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PROJECT_NUMBER: Final = "123456789012"

# Kinds whose id is their full name.
_FULL_NAMES: Final[Mapping[str, str]] = {
    "gcp:secretmanager/secret:Secret": "projects/{project}/secrets/{secretId}",
    "gcp:kms/keyRing:KeyRing": "projects/{project}/locations/{location}/keyRings/{name}",
    "gcp:kms/cryptoKey:CryptoKey": "{keyRing}/cryptoKeys/{name}",
    "gcp:compute/network:Network": "projects/{project}/global/networks/{name}",
    "gcp:compute/subnetwork:Subnetwork": "projects/{project}/regions/{region}/subnetworks/{name}",
    "gcp:logging/projectBucketConfig:ProjectBucketConfig": "projects/{project}/locations/{location}/buckets/{bucketId}",
    "gcp:iam/workloadIdentityPool:WorkloadIdentityPool": (
        f"projects/{PROJECT_NUMBER}/locations/global/workloadIdentityPools/{{workloadIdentityPoolId}}"
    ),
}


def server_made(project: str, kind: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are there once the resource is made. `id` is always among them."""
    if kind == "gcp:serviceaccount/account:Account":
        email = f"{inputs['accountId']}@{project}.iam.gserviceaccount.com"
        full = f"projects/{project}/serviceAccounts/{email}"
        return {"id": full, "name": full, "email": email, "member": f"serviceAccount:{email}"}
    if kind == "gcp:storage/bucket:Bucket":
        return {"id": inputs["name"], "url": f"gs://{inputs['name']}"}
    if kind == "gcp:projects/serviceIdentity:ServiceIdentity":
        return {"id": name, "email": _agent(inputs["service"].partition(".")[0])}
    if kind == "pulumi:index:Stash":
        return {"id": name, "output": inputs["input"]}
    if kind in _FULL_NAMES:
        full = _FULL_NAMES[kind].format_map({"project": project, "name": name, **inputs})
        return {"id": full, "name": inputs.get("name", full)}
    return {"id": name}


def looked_up(function: str) -> dict[str, Any]:
    """The answer to a question that the program asks: its project's number, a service's agent."""
    return {
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
    """The e-mail of a service's agent. Those of the oldest services have names of their own."""
    named = {"dataflow": "dataflow-service-producer-prod", "storage": "gs-project-accounts"}
    return f"service-{PROJECT_NUMBER}@{named.get(service, f'gcp-sa-{service}')}.iam.gserviceaccount.com"
