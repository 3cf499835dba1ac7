"""The starter: Cloud Scheduler, and the small Cloud Run service by which it starts this stack's Cloud Run jobs.

Inside an enforced perimeter Cloud Scheduler calls Cloud Run services at their run.app addresses, and no Cloud Run job:
cloud.google.com/scheduler/docs/secure-with-vpcsc. A service in between is what Google's page advises:
cloud.google.com/run/docs/execute/jobs-on-schedule-vpc-sc-perimeter. Its ingress is internal, which lets Cloud
Scheduler of the same project in: cloud.google.com/run/docs/securing/ingress.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2, cloudscheduler

from components import naming, run, run_job
from components.identity import Identity

# A start is two requests to Cloud Run, and before them at times the start of an instance.
_ATTEMPT_SECONDS: Final = 60
_RETRIES: Final = 3


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a job is started, in UTC."""

    job: cloudrunv2.Job
    cron: str
    description: str

    @property
    def retries(self) -> int:
        """Of a start that fails. A job that runs is not started twice, so a retry does no harm; what runs every hour or
        oftener needs none."""
        _, hour, *_ = self.cron.split()
        return 0 if hour == "*" else _RETRIES


def schedules(
    parent: pulumi.Resource, place: run.RunPlace, accounts: Identity, every: Mapping[str, Schedule]
) -> cloudrunv2.Service:
    """The service, child of a component, with an entry of Cloud Scheduler for each of `every`, by the job's name."""
    service = _service(parent, place, accounts, every)
    calls = run.grant_call(parent, "scheduler", service, accounts.scheduler.member)
    for person in place.settings.identity.on_call:
        run.grant_look(parent, person, service)
    for name, schedule in every.items():
        _entry(parent, place, accounts, (name, schedule), service, calls)
    return service


def _service(
    parent: pulumi.Resource, place: run.RunPlace, accounts: Identity, every: Mapping[str, Schedule]
) -> cloudrunv2.Service:
    settings = place.settings
    grants = [
        run_job.grant(parent, f"starter-{role}", schedule.job, role, accounts.starter.member)
        for schedule in every.values()
        for role in ("invoker", "viewer")
    ]
    jobs = {name: run_job.full_name(settings, name) for name in every}
    what = run.RunService(
        name=naming.STARTER,
        description="Starts the payment audit's jobs for Cloud Scheduler",
        image=settings.pipeline.image,
        module="support.starter",
        account=accounts.starter,
        environment={"AUDIT_STARTER_JSON": json.dumps({"jobs": jobs})},
        # One is enough for a request a minute; a second would find the same.
        instances=(0, 1),
        request_seconds=_ATTEMPT_SECONDS,
    )
    return run.service(parent, place, what, [accounts, *grants])


def _entry(
    parent: pulumi.Resource,
    place: run.RunPlace,
    accounts: Identity,
    named: tuple[str, Schedule],
    service: cloudrunv2.Service,
    calls: pulumi.Resource,
) -> None:
    (name, schedule), settings = named, place.settings
    cloudscheduler.Job(
        name,
        name=settings.names.of(name),
        region=settings.region,
        description=schedule.description,
        schedule=schedule.cron,
        time_zone="Etc/UTC",
        attempt_deadline=f"{_ATTEMPT_SECONDS}s",
        # False is said too: the provider would keep what is there, and a paused schedule would stay so.
        paused=bool(settings.pause),
        retry_config={"retry_count": schedule.retries},
        http_target={
            "http_method": "POST",
            "uri": pulumi.Output.concat(service.uri, "/", name),
            "oidc_token": {"service_account_email": accounts.scheduler.email, "audience": service.uri},
        },
        opts=pulumi.ResourceOptions(parent=parent, depends_on=[calls, accounts]),
    )
