"""Erasure: a Cloud Run job that redacts customers wherever the audit keeps them, and who may have it run.

Its account reads no payment in Spanner: it knows a customer by the id that was recorded, and redacts what it finds in
BigQuery, dead letters and the access log. It is the one account that may change those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import storage

from components import naming, run_job
from components.identity import Identity
from components.run import RunPlace

# An erasure waits for the job, redacts, and counts: minutes. A day of them has an hour.
_TIMEOUT_SECONDS: Final = 3600
_COMMAND: Final = ("python", "-m", "support.cli.main", "erase", "resume", "--here")


@dataclass(frozen=True, kw_only=True)
class ErasureArgs:
    """`connection` is what `audit` has to know about the stack; `needs` what must be there before the first run."""

    place: RunPlace
    accounts: Identity
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Erasure(pulumi.ComponentResource):
    """The job `audit-erasure`: it runs each erasure that is not finished, when it is started and every night.

    `job` is its full name; empty without an image.
    """

    job: str

    def __init__(self, name: str, args: ErasureArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Erasure"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        self.job = ""
        if self._settings.pipeline.image:
            self.job = f"projects/{self._settings.project}/locations/{self._settings.region}/jobs/{naming.ERASURE}"
            job = run_job.job(self, args.place, self._what(), [self._dead_letters(), *args.needs])
            account = args.accounts.erasure
            starts = run_job.grant(self, "starts-itself", job, "invoker", account.member)
            what = "Ends erasures that were not run to their end"
            run_job.schedule(self, self._settings, job, account, "23 2 * * *", what, [starts])
            for person in self._settings.identity.on_call:
                run_job.grant(self, person, job, "viewer", person)
            for person in self._settings.identity.erasers:
                run_job.grant(self, person, job, "viewer", person)
                run_job.grant(self, f"starts-{person}", job, "invoker", person)
        self.register_outputs({"job": self.job})

    def _what(self) -> run_job.RunJob:
        return run_job.RunJob(
            name=naming.ERASURE,
            command=_COMMAND,
            account=self._args.accounts.erasure,
            connection=self._args.connection,
            memory="2Gi",
            timeout_seconds=_TIMEOUT_SECONDS,
            # What is redacted stays redacted, however often it runs.
            retries=1,
        )

    def _dead_letters(self) -> pulumi.Resource:
        return storage.BucketIAMMember(
            "dead-letters-erasure",
            bucket=naming.bucket(self._settings.project, "dead-letters"),
            role="roles/storage.objectUser",
            member=self._args.accounts.erasure.member,
            opts=pulumi.ResourceOptions(parent=self, depends_on=self._args.needs),
        )
