"""Erasure: a Cloud Run job that redacts customers wherever the audit keeps them, and who may have it run.

Its account reads no payment in Spanner: it knows a customer by the id that was recorded, and redacts what it finds in
BigQuery, dead letters and the access log. It is the one account that may change those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2, storage

from components import naming, run_job
from components.identity import Identity
from components.run import RunPlace
from contract import operations

_MEMORY: Final = "2Gi"


@dataclass(frozen=True, kw_only=True)
class ErasureArgs:
    """`connection` is what `audit` has to know about the stack; `needs` what must be there before the first run."""

    place: RunPlace
    accounts: Identity
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Erasure(pulumi.ComponentResource):
    """The job `audit-erasure`: it runs each erasure that is not finished, when it is started and every night.

    `job` is its full name, empty without an image; `jobs` is by operation.
    """

    job: str
    jobs: Mapping[str, cloudrunv2.Job]

    def __init__(self, name: str, args: ErasureArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Erasure"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        self.job, self.jobs = "", {}
        if self._settings.pipeline.image:
            self.job = run_job.full_name(self._settings, operations.ERASURE.job)
            what = run_job.of_operation(operations.ERASURE, args.accounts.erasure, args.connection, _MEMORY)
            job = run_job.job(self, args.place, what, [self._dead_letters(), *args.needs])
            self.jobs = {operations.ERASURE.name: job}
            run_job.for_people(self, job, self._settings.identity.on_call, start=False)
            run_job.for_people(self, job, self._settings.identity.erasers, start=True)
        self.register_outputs({"job": self.job})

    def _dead_letters(self) -> pulumi.Resource:
        return storage.BucketIAMMember(
            "dead-letters-erasure",
            bucket=self._settings.names.bucket("dead-letters"),
            role="roles/storage.objectUser",
            member=self._args.accounts.erasure.member,
            opts=pulumi.ResourceOptions(parent=self, depends_on=self._args.needs),
        )
