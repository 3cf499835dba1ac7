"""Validation: a Cloud Run job that compares the rows of Spanner with BigQuery's every hour, and one that repairs.

They run as the account of replays, the one beside the workers that reads payments unmasked. Who is on call may start
the repair, without overrides: nobody who starts it chooses what that account does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2

from components import naming, run_job
from components.identity import Identity
from components.run import RunPlace
from contract import operations

_MEMORY: Final = "4Gi"


@dataclass(frozen=True, kw_only=True)
class ValidationArgs:
    """`connection` is what `audit` has to know about the stack; `needs` what must be there before the first run."""

    place: RunPlace
    accounts: Identity
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Validation(pulumi.ComponentResource):
    """The jobs `audit-validation` and `audit-repair`, the latter on request. Both once there is an image.

    What they read and write is granted beside it; the dead letters, to the account's replays. `jobs` is by operation.
    """

    jobs: Mapping[str, cloudrunv2.Job]

    def __init__(self, name: str, args: ValidationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Validation"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        self.jobs = {}
        if self._settings.pipeline.image:
            compare, repair = self._job(operations.VALIDATION), self._job(operations.REPAIR)
            run_job.for_people(self, compare, self._settings.identity.on_call, start=False)
            run_job.for_people(self, repair, self._settings.identity.on_call, start=True)
            self.jobs = {operations.VALIDATION.name: compare, operations.REPAIR.name: repair}
        self.register_outputs({})

    def _job(self, operation: operations.Operation) -> cloudrunv2.Job:
        args = self._args
        what = run_job.of_operation(operation, args.accounts.validation, args.connection, _MEMORY)
        return run_job.job(self, args.place, what, args.needs)
