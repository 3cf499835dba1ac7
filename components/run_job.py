"""A job in Cloud Run, as each of this stack is: one task, the streaming job's image, a private way to Google."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2, cloudscheduler, serviceaccount

from components import naming
from components.run import RunPlace
from components.settings import Settings

_ATTEMPT_SECONDS: Final = 30


@dataclass(frozen=True, kw_only=True)
class RunJob:
    """What differs between two jobs. `connection` is what `audit` has to know about the stack."""

    name: str
    command: Sequence[str]
    account: serviceaccount.Account
    connection: Mapping[str, pulumi.Input[str]]
    memory: str
    timeout_seconds: int
    retries: int


def job(
    parent: pulumi.Resource, place: RunPlace, what: RunJob, depends_on: Sequence[pulumi.Resource]
) -> cloudrunv2.Job:
    """The job, child of a component."""
    settings = place.settings
    return cloudrunv2.Job(
        what.name,
        name=what.name,
        location=settings.region,
        deletion_protection=False,
        labels=naming.labels(settings.stack),
        template={
            "task_count": 1,
            "parallelism": 1,
            "template": {
                "containers": [
                    {
                        "image": settings.pipeline.image,
                        "commands": list(what.command),
                        "envs": [{"name": "AUDIT_CONNECTION_JSON", "value": pulumi.Output.json_dumps(what.connection)}],
                        "resources": {"limits": {"cpu": "1", "memory": what.memory}},
                    }
                ],
                "service_account": what.account.email,
                "encryption_key": place.keys.run,
                "execution_environment": "EXECUTION_ENVIRONMENT_GEN2",
                "timeout": f"{what.timeout_seconds}s",
                "max_retries": what.retries,
                # As the workers: no way to Google's APIs but the private one.
                "vpc_access": {
                    "egress": "ALL_TRAFFIC",
                    "network_interfaces": [{"subnetwork": place.network.run_subnetwork}],
                },
            },
        },
        opts=pulumi.ResourceOptions(parent=parent, depends_on=depends_on),
    )


def grant(
    parent: pulumi.Resource, who: str, job: cloudrunv2.Job, role: str, member: pulumi.Input[str]
) -> cloudrunv2.JobIamMember:
    """Grants a role on one job."""
    return cloudrunv2.JobIamMember(
        f"{job._name}-{who}",
        location=job.location,
        name=job.name,
        role=f"roles/run.{role}",
        member=member,
        opts=pulumi.ResourceOptions(parent=parent),
    )


def schedule(
    parent: pulumi.Resource,
    settings: Settings,
    job: cloudrunv2.Job,
    account: serviceaccount.Account,
    cron: str,
    description: str,
    depends_on: Sequence[pulumi.Resource],
) -> None:
    """Starts a job as its own account, which needs a grant to start it. A start that fails is not repeated."""
    place = f"projects/{settings.project}/locations/{settings.region}"
    cloudscheduler.Job(
        job._name,
        name=job._name,
        region=settings.region,
        description=description,
        schedule=cron,
        time_zone="Etc/UTC",
        attempt_deadline=f"{_ATTEMPT_SECONDS}s",
        retry_config={"retry_count": 0},
        http_target={
            "http_method": "POST",
            "uri": pulumi.Output.concat("https://run.googleapis.com/v2/", place, "/jobs/", job.name, ":run"),
            "oauth_token": {"service_account_email": account.email},
        },
        opts=pulumi.ResourceOptions(parent=parent, depends_on=depends_on),
    )
