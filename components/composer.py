"""Cloud Composer: an environment for the DAGs of delivery/dags/, or one of others, and the file that the DAGs read.

Google's role for an environment's account reads and writes the objects of every bucket of the project. Here it is
granted on the condition that storage is the environment's own bucket. An environment of others is in their project, and
its account may start the operations' jobs and see how they end, and nothing else of the stack.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2, composer, projects, storage

from components import naming, run_job
from components.identity import Account, Identity
from components.kms import Keys
from components.settings import Settings
from contract import operations

_DAY: Final = 24 * 3600
# Where the DAGs are in the bucket of their environment: delivery/dags/ comes there, and others' DAGs stay beside it.
FOLDER: Final = "dags/payment_audit"
# On-call is awake and no backup is made: twelve hours a week at least.
_MAINTENANCE: Final[composer.EnvironmentConfigMaintenanceWindowArgsDict] = {
    "start_time": "2026-01-03T12:00:00Z",
    "end_time": "2026-01-03T18:00:00Z",
    "recurrence": "FREQ=WEEKLY;BYDAY=SA,SU",
}


@dataclass(frozen=True, kw_only=True)
class ComposerArgs:
    """`jobs` are the operations' by operation; `file` is the content of operations.OPERATIONS_FILE."""

    settings: Settings
    accounts: Identity
    keys: Keys
    jobs: Mapping[str, cloudrunv2.Job]
    file: pulumi.Input[str]


def orchestrated(parent: pulumi.Resource, args: ComposerArgs) -> None:
    """What a Composer environment needs to start the operations, child of a component; and the environment itself."""
    settings = args.settings.orchestration
    made: list[pulumi.Resource] = []
    member: pulumi.Input[str] = f"serviceAccount:{settings.account}"
    if settings.own_environment:
        account = args.accounts.named("composer-sa")
        member = account.member
        made = [_environment(parent, args, account)]
    _starts(parent, args.jobs, member)
    _file(parent, args, made)


def _starts(parent: pulumi.Resource, jobs: Mapping[str, cloudrunv2.Job], member: pulumi.Input[str]) -> None:
    """Starts a job (run.jobs.run) and awaits it (run.executions.get, run.operations.get), and overrides nothing of it:
    cloud.google.com/run/docs/reference/iam/roles."""
    for job in jobs.values():
        run_job.grant(parent, "composer-invoker", job, "invoker", member)
        run_job.grant(parent, "composer-viewer", job, "viewer", member)


def _file(parent: pulumi.Resource, args: ComposerArgs, needs: Sequence[pulumi.Resource]) -> None:
    name = f"{FOLDER}/{operations.OPERATIONS_FILE}"
    storage.BucketObject(
        "operations",
        bucket=args.settings.composer_bucket,
        name=name,
        content=args.file,
        content_type="application/json",
        # It keeps its name: made first, the new one would go with the old.
        opts=pulumi.ResourceOptions(parent=parent, depends_on=needs, delete_before_replace=True),
    )


def _environment(parent: pulumi.Resource, args: ComposerArgs, account: Account) -> composer.Environment:
    """Private, without a network of the stack's: the DAGs call Google's APIs alone. No package is installed.

    Source: cloud.google.com/composer/docs/composer-3/create-environments.
    """
    settings, given = args.settings, args.settings.orchestration
    bucket = _bucket(parent, args)
    works = _works(parent, settings, bucket, account)
    key = args.keys.composer
    config: composer.EnvironmentConfigArgsDict = {
        "environment_size": f"ENVIRONMENT_SIZE_{given.size.upper()}",
        "enable_private_environment": True,
        # A package, if one is ever named, comes from no index of the internet.
        "enable_private_builds_only": True,
        "node_config": {"service_account": account.email},
        "software_config": {
            "image_version": given.image,
            "web_server_plugins_mode": "DISABLED",
            "airflow_config_overrides": {"core-dags_are_paused_at_creation": "False"},
        },
        # The operators wait in it for the jobs to end.
        "workloads_config": {"triggerer": {"count": 1, "cpu": 0.5, "memory_gb": 1}},
        "maintenance_window": _MAINTENANCE,
        "web_server_network_access_control": {
            "allowed_ip_ranges": [{"value": each, "description": "composerWebRanges"} for each in given.web_ranges]
        },
    }
    if key is not None:
        config["encryption_config"] = {"kms_key_name": key}
    return composer.Environment(
        naming.COMPOSER,
        name=settings.names.of(naming.COMPOSER),
        region=settings.region,
        labels=dict(settings.labels),
        storage_config={"bucket": bucket.name},
        config=config,
        opts=pulumi.ResourceOptions(parent=parent, depends_on=[args.accounts, *works]),
    )


def _bucket(parent: pulumi.Resource, args: ComposerArgs) -> storage.Bucket:
    """In the environment's region and project, without a retention policy: what Composer takes as its own.

    Source: cloud.google.com/composer/docs/composer-3/custom-bucket. It holds DAGs, which are in git, and logs of runs.
    """
    settings, key = args.settings, args.keys.composer
    return storage.Bucket(
        "composer",
        name=settings.composer_bucket,
        location=settings.region,
        uniform_bucket_level_access=True,
        public_access_prevention="enforced",
        encryption={"default_kms_key_name": key} if key is not None else None,
        versioning={"enabled": True},
        soft_delete_policy={"retention_duration_seconds": 7 * _DAY},
        lifecycle_rules=[
            {"action": {"type": "Delete"}, "condition": {"age": 90, "matches_prefixes": ["logs/"]}},
            {"action": {"type": "Delete"}, "condition": {"days_since_noncurrent_time": 7}},
        ],
        force_destroy=not settings.protect,
        opts=pulumi.ResourceOptions(parent=parent, protect=settings.protect),
    )


def _works(
    parent: pulumi.Resource, settings: Settings, bucket: storage.Bucket, account: Account
) -> Sequence[pulumi.Resource]:
    return [
        projects.IAMMember(
            "composer-worker",
            project=settings.project,
            role="roles/composer.worker",
            member=account.member,
            condition={"title": "own-bucket-alone", "expression": storage_condition(settings.composer_bucket)},
            opts=pulumi.ResourceOptions(parent=parent, depends_on=[bucket]),
        )
    ]


def storage_condition(bucket: str) -> str:
    """All but storage, and of storage one bucket with its objects.

    Source: cloud.google.com/iam/docs/conditions-attribute-reference.
    """
    name = f"projects/_/buckets/{bucket}"
    return (
        '(resource.type != "storage.googleapis.com/Bucket" && resource.type != "storage.googleapis.com/Object") || '
        f'resource.name == "{name}" || resource.name.startsWith("{name}/")'
    )
