"""A job in Cloud Run, as each of this stack is: one task, the streaming job's image, a private way to Google."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2

from components.identity import Account
from components.run import RunPlace
from components.settings import Settings
from contract.operations import IN_ENVIRONMENT, Operation

AUDIT: Final = ("python", "-m", "support.cli.main")


@dataclass(frozen=True, kw_only=True)
class RunJob:
    """What differs between two jobs. `connection` is what `audit` has to know about the stack; None for others.

    `operation` is the name under which a run is recorded, empty for none.
    """

    name: str
    command: Sequence[pulumi.Input[str]]
    account: Account
    connection: Mapping[str, pulumi.Input[str]] | None
    memory: str
    timeout_seconds: int
    retries: int
    operation: str = ""


def of_operation(
    operation: Operation,
    account: Account,
    connection: Mapping[str, pulumi.Input[str]],
    memory: str,
) -> RunJob:
    """An operation's job: command, limit and retries are the contract's."""
    return RunJob(
        name=operation.job,
        command=(*AUDIT, *operation.command),
        account=account,
        connection=connection,
        memory=memory,
        timeout_seconds=operation.seconds,
        retries=operation.retries,
        operation=operation.name,
    )


def job(
    parent: pulumi.Resource, place: RunPlace, what: RunJob, depends_on: Sequence[pulumi.Resource]
) -> cloudrunv2.Job:
    """The job, child of a component."""
    settings = place.settings
    return cloudrunv2.Job(
        what.name,
        name=settings.names.of(what.name),
        location=settings.region,
        deletion_protection=False,
        labels=settings.labels,
        template={
            "task_count": 1,
            "parallelism": 1,
            "template": {
                "containers": [
                    {
                        "image": settings.pipeline.image,
                        "commands": list(what.command),
                        "envs": _environment(what),
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


def _environment(what: RunJob) -> list[cloudrunv2.JobTemplateTemplateContainerEnvArgsDict]:
    given: dict[str, pulumi.Input[str]] = {}
    if what.connection is not None:
        given["AUDIT_CONNECTION_JSON"] = pulumi.Output.json_dumps(what.connection)
    if what.operation:
        given[IN_ENVIRONMENT] = what.operation
    return [{"name": name, "value": value} for name, value in given.items()]


def full_name(settings: Settings, name: str) -> str:
    """What whoever starts a job calls it."""
    return f"projects/{settings.project}/locations/{settings.region}/jobs/{settings.names.of(name)}"


def for_people(parent: pulumi.Resource, job: cloudrunv2.Job, people: Sequence[str], *, start: bool) -> None:
    """Lets people see how a job's runs ended and, where they may `start` it, have it run as it is."""
    for person in people:
        grant(parent, person, job, "viewer", person)
        if start:
            grant(parent, f"starts-{person}", job, "invoker", person)


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
