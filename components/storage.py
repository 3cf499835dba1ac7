"""Buckets: dead letters, backups, memory profiles, and what a flex template needs (temp, staging, templates)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import storage

from components import naming
from components.identity import Identity
from components.kms import Keys
from components.settings import Settings

_DAY: Final = 24 * 3600
# What a worker looks at of the buckets in which it works, beside their objects: storage.buckets.get, which Google's
# worker role has on every bucket.
BUCKET: Final = "roles/storage.legacyBucketReader"
WORKED_IN: Final = ("temp", "staging")
_READ: Final = "roles/storage.objectViewer"
_WRITE: Final = "roles/storage.objectUser"
# Which role the job has on which bucket. It adds profiles and cannot read them; it has no access to backups.
_ROLES: Final = {
    "dead-letters": _WRITE,
    "temp": _WRITE,
    "staging": _WRITE,
    "templates": _READ,
    "memory-profiles": "roles/storage.objectCreator",
    "backups": None,
    "backup-copies": None,
}
# Exports in a second region, where config names one.
_COPIES: Final = "backup-copies"
# What nobody misses: it is protected nowhere, and no old versions of it are kept.
_SCRATCH: Final = frozenset({"temp", "staging", "memory-profiles"})


@dataclass(frozen=True, kw_only=True)
class StorageArgs:
    """`keys`: those of the buckets, and of the backups among them."""

    settings: Settings
    accounts: Identity
    keys: Keys


class Storage(pulumi.ComponentResource):
    """The buckets of the stack, each with the one role that the job has on it. Outputs are URLs.

    Who is on call reads the dead letters, which are masked; their operators retry or discard them. Everybody with a
    command to run reads the connection, which is beside the templates.
    """

    dead_letters: pulumi.Output[str]
    temp: pulumi.Output[str]
    staging: pulumi.Output[str]
    templates: pulumi.Output[str]
    memory_profiles: pulumi.Output[str]
    backups: pulumi.Output[str]
    backup_copies: pulumi.Output[str] | None

    def __init__(self, name: str, args: StorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Storage"), name, {}, opts)
        self._args, self._settings = args, args.settings
        copied = self._settings.retention.backup_location
        buckets = {p: self._bucket(p) for p in _ROLES if p != _COPIES or copied}
        for purpose, role in _ROLES.items():
            if role:
                self._access(f"{purpose}-pipeline", buckets[purpose], role, args.accounts.pipeline.member)
        for purpose in WORKED_IN:
            self._access(f"{purpose}-pipeline-looks", buckets[purpose], BUCKET, args.accounts.pipeline.member)
        identity = args.settings.identity
        for person in identity.on_call:
            self._access(f"dead-letters-{person}", buckets["dead-letters"], _READ, person)
        for person in identity.dead_letter_operators:
            self._access(f"dead-letters-operator-{person}", buckets["dead-letters"], _WRITE, person)
        for person in dict.fromkeys((*args.settings.viewers, *identity.dead_letter_operators)):
            self._access(f"templates-{person}", buckets["templates"], _READ, person)
        self.dead_letters = buckets["dead-letters"].url
        self.temp = buckets["temp"].url
        self.staging = buckets["staging"].url
        self.templates = buckets["templates"].url
        self.memory_profiles = buckets["memory-profiles"].url
        for purpose in ("backups", _COPIES):
            if purpose in buckets:
                self._access(f"{purpose}-backup", buckets[purpose], _WRITE, args.accounts.backup.member)
                self._access(f"{purpose}-erasure", buckets[purpose], _WRITE, args.accounts.erasure.member)
        self.backups = buckets["backups"].url
        self.backup_copies = buckets[_COPIES].url if copied else None
        self.register_outputs({purpose: bucket.url for purpose, bucket in buckets.items()})

    def _bucket(self, purpose: str) -> storage.Bucket:
        scratch = purpose in _SCRATCH
        keys = self._args.keys
        key = {"backups": keys.backups, _COPIES: keys.backup_copies}.get(purpose, keys.storage)
        return storage.Bucket(
            purpose,
            name=self._settings.names.bucket(purpose),
            location=self._location(purpose),
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            encryption={"default_kms_key_name": key} if key else None,
            versioning={"enabled": not scratch},
            # Every worker writes and removes scratch objects all the time; keeping those is money for nothing.
            soft_delete_policy={"retention_duration_seconds": 0 if scratch else 7 * _DAY},
            lifecycle_rules=self._lifecycle(purpose),
            force_destroy=not self._settings.protect,
            opts=pulumi.ResourceOptions(parent=self, protect=self._settings.protect and not scratch),
        )

    def _location(self, purpose: str) -> str:
        """BigQuery exports only into buckets in its location. In a multi-region they outlive a region's loss."""
        settings = self._settings
        others = {"backups": settings.warehouse.location, _COPIES: settings.retention.backup_location}
        return others.get(purpose, settings.region)

    def _lifecycle(self, purpose: str) -> Sequence[storage.BucketLifecycleRuleArgsDict]:
        """What is deleted, and when."""
        match purpose:
            case "dead-letters":
                # Those under retry/ are never deleted by age: a job that is stalled must not lose them.
                severe = _delete(age=self._settings.pipeline.dead_letter_days, matches_prefixes=["severe/"])
                return [severe, _delete(days_since_noncurrent_time=7)]
            case "backups" | "backup-copies":
                # A partition is exported once, however old: the backups' job deletes what none of them holds any more.
                return [_delete(days_since_noncurrent_time=7)]
            case "memory-profiles":
                return [_delete(age=self._settings.retention.memory_profile_days)]
            case "temp":
                return [_delete(age=14)]
            case "templates":
                return [_delete(num_newer_versions=10)]
            case _:
                # Staged files are never deleted: a worker that starts months later reads them.
                return [{"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1}}]

    def _access(self, name: str, bucket: storage.Bucket, role: str, member: pulumi.Input[str]) -> None:
        storage.BucketIAMMember(
            name,
            bucket=bucket.name,
            role=role,
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _delete(**condition: int | Sequence[str]) -> storage.BucketLifecycleRuleArgsDict:
    # An age of 0 would otherwise be sent along and delete everything at once.
    return {"action": {"type": "Delete"}, "condition": condition}  # type: ignore[typeddict-item]
