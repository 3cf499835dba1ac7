"""Tries a launch before the running job is drained for it: the job's own checks, as its account, writing nothing.

A launch on Dataflow without a job ends as a failed one, so this is a Cloud Run job of the same image and options.
Source: cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi

from components import naming, run_job
from components.identity import Identity
from components.run import RunPlace

# Some twenty questions to Google; a start of the image takes most of it.
_TIMEOUT_SECONDS: Final = 600
_COMMAND: Final = ("python", "-m", "pipeline.jobs.stream", "--dryRun=true")


@dataclass(frozen=True, kw_only=True)
class LaunchCheckArgs:
    """`parameters` are those of the streaming job; `needs` what must be there before a run."""

    place: RunPlace
    accounts: Identity
    parameters: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class LaunchCheck(pulumi.ComponentResource):
    """The job `audit-launch-check`, once there is an image. Delivery starts it (`delivery.deploy dry-run`)."""

    def __init__(self, name: str, args: LaunchCheckArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("LaunchCheck"), name, {}, opts)
        if args.place.settings.pipeline.image:
            what = run_job.RunJob(
                name=naming.LAUNCH_CHECK,
                command=(
                    *_COMMAND,
                    # Its position is looked up by it.
                    f"--job_name={args.place.settings.names.of(naming.STREAM_JOB)}",
                    *(pulumi.Output.concat(f"--{key}=", value) for key, value in _options(args)),
                ),
                account=args.accounts.pipeline,
                connection=None,
                memory="2Gi",
                timeout_seconds=_TIMEOUT_SECONDS,
                retries=0,
            )
            run_job.job(self, args.place, what, args.needs)
        self.register_outputs({})


def _options(args: LaunchCheckArgs) -> Sequence[tuple[str, pulumi.Input[str]]]:
    """In one order: another order would be a change."""
    return sorted(args.parameters.items())
