"""What holds data: what a mistake must not delete, and what Google never gives back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from contract.tables import RESTORED_DATASET

# Each kind that holds data, with the switches that make Google or its provider refuse a deletion. A key has none: it is
# kept by Pulumi's own `protect`, and by the days between a version's end and its destruction.
STORES: Final[Mapping[str, Mapping[str, bool]]] = {
    "gcp:spanner/instance:Instance": {"forceDestroy": False},
    "gcp:spanner/database:Database": {"deletionProtection": True, "enableDropProtection": True},
    "gcp:bigquery/dataset:Dataset": {"deleteContentsOnDestroy": False},
    "gcp:bigquery/table:Table": {"deletionProtection": True},
    "gcp:storage/bucket:Bucket": {"forceDestroy": False},
    "gcp:secretmanager/secret:Secret": {"deletionProtection": True},
    "gcp:kms/keyRing:KeyRing": {},
    "gcp:kms/cryptoKey:CryptoKey": {},
}
# Kinds with such a switch that hold nothing, and why.
HOLDS_NOTHING: Final[Mapping[str, str]] = {
    "gcp:cloudrunv2/job:Job": "the probe's totals and what is known about replays are in the metadata database",
    "gcp:cloudrunv2/service:Service": "what the console shows and logs is in BigQuery",
    "gcp:dns/managedZone:ManagedZone": "all its records are the program's own",
}
# Buckets of the job's own scratch files, and the dataset of what was restored to be looked at: nobody misses them.
_SCRATCH: Final = frozenset({"temp", "staging", "memory-profiles", RESTORED_DATASET})

# What stays when a stack is destroyed, and why: a second `up` has to adopt it.
RETAINED: Final[Mapping[str, str]] = {
    "gcp:kms/keyRing:KeyRing": "Google never deletes a key ring",
    "gcp:kms/cryptoKey:CryptoKey": "Google never deletes a key, only its versions",
    "gcp:iam/workloadIdentityPool:WorkloadIdentityPool": "Google keeps a deleted pool, and its name, for 30 days",
    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider": (
        "Google keeps a deleted provider, and its name, for 30 days"
    ),
    "gcp:logging/projectBucketConfig:ProjectBucketConfig": "Google keeps a deleted log bucket for 7 days",
}


def holds_data(kind: str, name: str, inputs: Mapping[str, Any]) -> bool:
    """Whether something is lost with the resource. A view holds nothing, nor does scratch space."""
    if kind == "gcp:bigquery/table:Table":
        return not inputs.get("view")
    return kind in STORES and name not in _SCRATCH


def deletion_refused(kind: str, inputs: Mapping[str, Any]) -> bool:
    """By every switch that the kind has."""
    return all(inputs.get(switch) is wanted for switch, wanted in STORES[kind].items())
