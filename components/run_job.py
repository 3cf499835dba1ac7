"""A job in Cloud Run, as each of this stack is: one task, the streaming job's image, a private way to Google."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import cloudrunv2, serviceaccount

from components import naming
from components.run import RunPlace


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
