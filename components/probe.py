"""The probe: a Cloud Run job that compares Spanner with BigQuery, started every minute by Cloud Scheduler.

It runs from the streaming job's image, which holds `audit` too, and so is made once there is an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2, projects, storage

from components import naming
from components.identity import Identity
from components.kms import Keys
from components.network import Network
from components.run import RunPlace
from components.run_job import RunJob, job, schedule
from components.settings import Settings

# Longer than any run that catches up, and shorter than what AuditProbeSilent waits for.
_TIMEOUT_SECONDS: Final = 300
_COMMAND: Final = ["python", "-m", "support.cli.main", "probe", "--once", "--write"]


@dataclass(frozen=True, kw_only=True)
class ProbeArgs:
    """`connection` is what `audit` has to know about the stack; `needs` what must be there before the first run."""

    settings: Settings
    accounts: Identity
    keys: Keys
    network: Network
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Probe(pulumi.ComponentResource):
    """The job `audit-probe` and its schedule. Of two runs at once the second refuses: none is restarted on failure,
    the next minute's catches up."""

    def __init__(self, name: str, args: ProbeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Probe"), name, {}, opts)
        self._args, self._settings = args, args.settings
        if args.settings.pipeline.image:
            made = self._job(self._access())
            self._schedule(made)
            for person in args.settings.identity.on_call:
                self._grant_run(made, person)
        self.register_outputs({})

    def _access(self) -> Sequence[pulumi.Resource]:
        """What it reads of Spanner and BigQuery is granted beside these."""
        member = self._args.accounts.probe.member
        opts = pulumi.ResourceOptions(parent=self, depends_on=self._args.needs)
        return (
            storage.BucketIAMMember(
                "dead-letters-probe",
                bucket=naming.bucket(self._settings.project, "dead-letters"),
                role="roles/storage.objectViewer",
                member=member,
                opts=opts,
            ),
            projects.IAMMember(
                "probe-metrics",
                project=self._settings.project,
                role="roles/monitoring.metricWriter",
                member=member,
                opts=opts,
            ),
        )

    def _job(self, access: Sequence[pulumi.Resource]) -> cloudrunv2.Job:
        args = self._args
        place = RunPlace(settings=self._settings, keys=args.keys, network=args.network)
        # The next minute's run catches up: none is tried again.
        what = RunJob(
            name=naming.PROBE,
            command=_COMMAND,
            account=args.accounts.probe,
            connection=args.connection,
            memory="1Gi",
            timeout_seconds=_TIMEOUT_SECONDS,
            retries=0,
        )
        return job(self, place, what, access)

    def _schedule(self, job: cloudrunv2.Job) -> None:
        """The account starts its own job, and no other."""
        account = self._args.accounts.probe
        grant = cloudrunv2.JobIamMember(
            "probe-starts-itself",
            location=self._settings.region,
            name=job.name,
            role="roles/run.invoker",
            member=account.member,
            opts=pulumi.ResourceOptions(parent=self),
        )
        what = "The audit's probe: a run that is missed is caught up by the next"
        schedule(self, self._settings, job, account, "* * * * *", what, [grant])

    def _grant_run(self, job: cloudrunv2.Job, person: str) -> None:
        """Who is on call sees whether it runs and how its runs ended, and starts one by hand."""
        for name, role in (("probe", "viewer"), ("probe-run", "invoker")):
            cloudrunv2.JobIamMember(
                f"{name}-{person}",
                location=self._settings.region,
                name=job.name,
                role=f"roles/run.{role}",
                member=person,
                opts=pulumi.ResourceOptions(parent=self),
            )
