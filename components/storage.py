"""Buckets: dead letters, and what a flex template needs (temp, staging, templates)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import storage

from components import naming
from components.settings import Settings

_DAY: Final = 24 * 3600
_READ: Final = "roles/storage.objectViewer"
_WRITE: Final = "roles/storage.objectUser"
_ROLES: Final = {"dead-letters": _WRITE, "temp": _WRITE, "staging": _WRITE, "templates": _READ}


@dataclass(frozen=True, kw_only=True)
class StorageArgs:
    """`pipeline`: the member that the job runs as."""

    settings: Settings
    pipeline: pulumi.Input[str]


class Storage(pulumi.ComponentResource):
    """The buckets of the streaming job, each with the one role that the job has on it. Outputs are URLs."""

    dead_letters: pulumi.Output[str]
    temp: pulumi.Output[str]
    staging: pulumi.Output[str]
    templates: pulumi.Output[str]

    def __init__(self, name: str, args: StorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Storage"), name, {}, opts)
        self._args, self._settings = args, args.settings
        buckets = {purpose: self._bucket(purpose) for purpose in _ROLES}
        for purpose, bucket in buckets.items():
            self._access(purpose, bucket)
        self.dead_letters = buckets["dead-letters"].url
        self.temp = buckets["temp"].url
        self.staging = buckets["staging"].url
        self.templates = buckets["templates"].url
        self.register_outputs({purpose: bucket.url for purpose, bucket in buckets.items()})

    def _bucket(self, purpose: str) -> storage.Bucket:
        scratch = purpose in ("temp", "staging")
        return storage.Bucket(
            purpose,
            name=naming.bucket(self._settings.project, purpose),
            location=self._settings.region,
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            versioning={"enabled": not scratch},
            # Every worker writes and removes scratch objects all the time; keeping those is money for nothing.
            soft_delete_policy={"retention_duration_seconds": 0 if scratch else 7 * _DAY},
            lifecycle_rules=self._lifecycle(purpose),
            force_destroy=not self._settings.protect,
            opts=pulumi.ResourceOptions(parent=self, protect=self._settings.protect and not scratch),
        )

    def _lifecycle(self, purpose: str) -> Sequence[storage.BucketLifecycleRuleArgsDict]:
        """What is deleted, and when. Staged files are never: a worker that starts months later reads them."""
        if purpose == "dead-letters":
            return [_delete(age=self._settings.pipeline.dead_letter_days), _delete(days_since_noncurrent_time=7)]
        if purpose == "temp":
            return [_delete(age=14)]
        if purpose == "templates":
            return [_delete(num_newer_versions=10)]
        return [{"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1}}]

    def _access(self, purpose: str, bucket: storage.Bucket) -> None:
        storage.BucketIAMMember(
            f"{purpose}-pipeline",
            bucket=bucket.name,
            role=_ROLES[purpose],
            member=self._args.pipeline,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _delete(**condition: int) -> storage.BucketLifecycleRuleArgsDict:
    # An age of 0 would otherwise be sent along and delete everything at once.
    return {"action": {"type": "Delete"}, "condition": condition}  # type: ignore[typeddict-item]
