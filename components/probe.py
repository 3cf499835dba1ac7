"""The probe: a Cloud Run job that compares Spanner with BigQuery, started every `probeMinutes`.

It runs from the streaming job's image, which holds `audit` too, and so is made once there is an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2, projects, storage

from components import naming, run_job
from components.identity import Identity
from components.run import RunPlace

# Longer than any run that catches up, and shorter than what AuditProbeSilent waits for.
_TIMEOUT_SECONDS: Final = 300
_COMMAND: Final = (*run_job.AUDIT, "probe", "--once", "--write")


@dataclass(frozen=True, kw_only=True)
class ProbeArgs:
    """`connection` is what `audit` has to know about the stack; `needs` what must be there before the first run."""

    place: RunPlace
    accounts: Identity
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Probe(pulumi.ComponentResource):
    """The job `audit-probe`, once there is an image. Of two runs at once the second refuses: none is restarted on
    failure, the next minute's catches up."""

    job: cloudrunv2.Job | None

    def __init__(self, name: str, args: ProbeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Probe"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        self.job = self._job(self._access()) if self._settings.pipeline.image else None
        if self.job:
            # Who is on call sees whether it runs and how its runs ended, and starts one by hand.
            run_job.for_people(self, self.job, self._settings.identity.on_call, start=True)
        self.register_outputs({})

    def _access(self) -> Sequence[pulumi.Resource]:
        """What it reads of Spanner and BigQuery is granted beside these."""
        member = self._args.accounts.probe.member
        opts = pulumi.ResourceOptions(parent=self, depends_on=self._args.needs)
        return (
            storage.BucketIAMMember(
                "dead-letters-probe",
                bucket=self._settings.names.bucket("dead-letters"),
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
        # The next minute's run catches up: none is tried again.
        what = run_job.RunJob(
            name=naming.PROBE,
            command=_COMMAND,
            account=args.accounts.probe,
            connection=args.connection,
            memory="1Gi",
            timeout_seconds=_TIMEOUT_SECONDS,
            retries=0,
        )
        return run_job.job(self, args.place, what, access)
