"""How a resource is replaced: the old one goes first, since two of one name cannot be (the second gets a 409)."""

import re
from collections.abc import Mapping
from typing import Final

import pulumi

# Kinds whose replacement comes first, and why that can be. Grants are the others: nobody is to lose access meanwhile.
BESIDE: Final[Mapping[str, str]] = {
    "gcp:bigquery/dataTransferConfig:DataTransferConfig": "Google names it, and two merges at once do no harm",
    "gcp:monitoring/alertPolicy:AlertPolicy": "Google names it, and nothing is to go unwatched meanwhile",
    "gcp:monitoring/dashboard:Dashboard": "Google names it",
    "gcp:monitoring/notificationChannel:NotificationChannel": "Google names it, and policies name the new one first",
    "gcp:storage/bucketObject:BucketObject": "it is named for what is in it, and the job needs one or the other",
}


def old_one_first(made: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
    """A transformation for components: Pulumi would make the replacement first, of their children."""
    if not goes_first(made.type_):
        return None
    options = pulumi.ResourceOptions.merge(made.opts, pulumi.ResourceOptions(delete_before_replace=True))
    return pulumi.ResourceTransformationResult(made.props, options)


def goes_first(kind: str) -> bool:
    """Whether a resource of that type is deleted before its replacement is made."""
    return kind.startswith("gcp:") and kind not in BESIDE and not re.search(r"I(AM|am)Member$", kind)
