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

# An hour of 500 changes a second takes 800 CPU seconds, a part 1,100 (python -m bench.validation).
_TIMEOUT_SECONDS: Final = 3300
_MEMORY: Final = "4Gi"
_COMMAND: Final = ("python", "-m", "support.cli.main", "validate")


@dataclass(frozen=True, kw_only=True)
class ValidationArgs:
    """`connection` is what `audit` has to know about the stack; `needs` what must be there before the first run."""

    place: RunPlace
    accounts: Identity
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Validation(pulumi.ComponentResource):
    """The jobs `audit-validation`, with its schedule, and `audit-repair`, without one. Both once there is an image.

    What they read and write is granted beside it; the dead letters, to the account's replays.
    """

    def __init__(self, name: str, args: ValidationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Validation"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        if self._settings.pipeline.image:
            compare, repair = self._job(naming.VALIDATION), self._job(naming.REPAIR, "--repair")
            self._schedule(compare)
            for person in self._settings.identity.on_call:
                run_job.grant(self, person, compare, "viewer", person)
                run_job.grant(self, person, repair, "viewer", person)
                run_job.grant(self, f"starts-{person}", repair, "invoker", person)
        self.register_outputs({})

    def _job(self, name: str, *options: str) -> cloudrunv2.Job:
        args = self._args
        what = run_job.RunJob(
            name=name,
            command=(*_COMMAND, *options),
            account=args.accounts.validation,
            connection=args.connection,
            memory=_MEMORY,
            timeout_seconds=_TIMEOUT_SECONDS,
            # The next run catches up.
            retries=0,
        )
        return run_job.job(self, args.place, what, args.needs)

    def _schedule(self, job: cloudrunv2.Job) -> None:
        account = self._args.accounts.validation
        starts = run_job.grant(self, "starts-itself", job, "invoker", account.member)
        what = "Compares rows: a run that is missed is caught up by the next"
        run_job.schedule(self, self._settings, job, account, "7 * * * *", what, [starts])
